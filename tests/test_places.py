"""Running at another place: emulated cores that answer as the real ones, and workers that die, hang or say too much."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import edgekit_runtime
import numpy as np
import pytest
from click.testing import CliRunner
from edgekit_runtime.detect import detect
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import BadRequest, EdgeKitError, NotFound, Unsupported
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import TensorSpec
from onnx import TensorProto, helper, numpy_helper, save

from edgekit.cli_places import emulators
from edgekit.model import Artifact, plain
from edgekit.places import Absent, Place, Start, debian, roots, there
from edgekit.places.cores import CORES
from edgekit.places.emulated import command, find_core, find_place
from edgekit.places.there import There, open_at
from edgekit.target import CORES as NAMES
from edgekit.target import Target, find_target, list_targets
from tests.runtime.bundles import ENTRIES, X, Y, int8_out, int8_port, some, truth, write_model

ONE = EngineOptions(threads=1)


def silent(_: str) -> None:
    """Nobody is told."""


def artifact(folder: Path, engine: str = "onnx", inside: bool = False) -> Artifact:
    """The tiny model of the runtime's tests; `inside`: int8, NHWC and a batch of one in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / ENTRIES[engine], engine, inside)
    x = Port(X, X)
    if engine == "tflite":
        x = Port(X, TensorSpec("x", "float32", (None, 2, 2, 3)), order=(0, 2, 3, 1))
    ports = (int8_port(), int8_out()) if inside else (x, Port(Y, Y))
    return Artifact(engine, "int8" if inside else "float32", folder / ENTRIES[engine], ports[:1], ports[1:])


def beside(code: str | None = None, kind: Any = "emulated") -> Place:
    """A place that is this very machine; `code` is run in place of the worker's module."""
    words = ("-c", code) if code else ("-m", "edgekit_runtime.worker", "--scratch", "files")
    return Place(
        "beside", kind, "beside", lambda scratch: Start((sys.executable, *words), os.environ), lambda *said: None
    )


@contextmanager
def at(place: Place) -> Iterator[There]:
    with open_at(place, ONE, silent) as found:
        yield found


def test_every_core_that_a_target_may_name_is_known() -> None:
    assert {(core.arch, name) for name, core in CORES.items()} == {(a, n) for a, names in NAMES.items() for n in names}


def test_a_shipped_targets_core_has_its_features(tmp_path: Path) -> None:
    named = [target for target in list_targets() if target.emulate is not None]
    assert len(named) >= 8
    for target in named:
        assert target.emulate is not None
        (tmp_path / "cpuinfo").write_text(CORES[target.emulate].cpuinfo(2))
        facts = detect(tmp_path, machine=target.arch)
        assert tuple(facts["isa"]) == target.isa, target.name
        assert (facts["cores"], facts["model"]) == (2, f"{target.emulate} (emulated)")


def test_an_arm_core_identifies_itself_as_its_manual_says() -> None:
    assert CORES["cortex-a72"].midr() == "0x00000000410fd083\n"
    assert CORES["cortex-a76"].midr() == "0x00000000414fd0b1\n"


def test_what_cannot_be_emulated_says_why_and_what_to_do(tmp_path: Path) -> None:
    for name, engine, why in (
        ("intel-npu", "openvino", "on its npu, which nothing emulates"),
        ("jetson-orin-nano", "onnx", "on its cuda"),
        ("x86-64-v4", "onnx", "no emulated core stands for"),
        ("nvidia-gpu", "onnx", "on its cuda"),
    ):
        found = find_place(find_target(name), engine, tmp_path)
        assert isinstance(found, Absent)
        assert why in found.why
        assert "ssh://" in found.hint


def test_a_core_that_was_not_fetched_names_the_command_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roots.shutil, "which", lambda name: None)
    found = find_place(find_target("rpi4"), "onnx", tmp_path)
    assert isinstance(found, Absent)
    assert "qemu-user-static and Python for aarch64 and wheels for aarch64 missing" in found.why
    assert found.hint == "edgekit emulators add cortex-a72"
    assert list(tmp_path.iterdir()) == []


def test_an_engine_without_a_32_bit_build_is_not_had_on_a_32_bit_core(tmp_path: Path) -> None:
    for engine in ("onnx", "openvino"):
        found = find_core(CORES["cortex-a7"], engine, tmp_path)
        assert isinstance(found, Absent)
        assert f"engine {engine!r} has no 32-bit ARM build" in found.why
        assert "--format tflite" in found.hint
    lacking = find_core(CORES["cortex-a7"], "tflite", tmp_path)
    assert isinstance(lacking, Absent)
    assert "Python for armv7l and python3-numpy" in lacking.why


def test_the_machines_own_qemu_is_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qemu-x86_64", "qemu-aarch64-static"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert roots.find_qemu("x86_64", tmp_path) == tmp_path / "qemu-x86_64"
    assert roots.missing(CORES["Haswell"], tmp_path) == []
    assert [part.words.partition(" ")[0] for part in roots.missing(CORES["cortex-a53"], tmp_path)] == [
        "Python",
        "wheels",
    ]


def test_the_wheels_are_of_the_versions_that_are_installed_here() -> None:
    installed = detect()["engines"]
    wanted = roots.wanted("aarch64")
    assert wanted["numpy"] == np.__version__
    assert (wanted["onnxruntime"], wanted["ai-edge-litert"]) == (installed["onnx"], installed["tflite"])
    assert wanted["openvino"] == installed["openvino"]
    assert wanted["httptools"] == version("httptools")
    assert roots.engines_there("aarch64") == installed


def test_a_32_bit_core_gets_the_last_engine_made_for_it_and_a_server_without_compiled_parts() -> None:
    assert roots.engines_there("armv7l") == {"tflite": "2.14.0"}
    assert set(roots.wanted("armv7l")) == {"tflite-runtime", "h11", "cryptography"}
    assert "python3-numpy" in roots.root("armv7l").words


def test_what_fails_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(packages: Any, arch: str | None, folder: Path, tell: Any) -> None:
        (folder / "usr").mkdir(parents=True)
        raise EdgeKitError("the network went away")

    monkeypatch.setattr(roots, "unpack", broken)
    monkeypatch.setattr(roots.shutil, "which", lambda name: None)
    with pytest.raises(EdgeKitError, match="the network went away"):
        roots.add(CORES["cortex-a72"], silent, tmp_path)
    assert roots.kept(tmp_path) == []


def test_two_at_once_fetch_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str | None] = []

    def slowly(packages: Any, arch: str | None, folder: Path, tell: Any) -> None:
        made.append(arch)
        threading.Event().wait(0.2)
        (folder / "usr/bin").mkdir(parents=True)
        for name in roots.QEMUS.values():
            (folder / "usr/bin" / f"{name}-static").touch()

    monkeypatch.setattr(roots, "unpack", slowly)
    monkeypatch.setattr(roots.shutil, "which", lambda name: None)
    threads = [threading.Thread(target=roots.add, args=(CORES["Haswell"], silent, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [None]
    assert roots.missing(CORES["Haswell"], tmp_path) == []
    roots.remove([folder for folder, _ in roots.kept(tmp_path)], silent, tmp_path)
    assert roots.kept(tmp_path) == []


def test_without_apt_the_way_to_get_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgeKitError, match="no apt-get here to fetch qemu-user-static") as caught:
        roots.add(CORES["Haswell"], silent, tmp_path / "cache")
    assert "package manager" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("sources.list", "deb [signed-by=/k.gpg arch=amd64] http://m.test/debian bookworm main contrib # mine\n"),
        (
            "sources.list.d/debian.sources",
            "# by hand\nTypes: deb deb-src\nURIs: http://m.test/debian\nSuites: bookworm bookworm-updates\n"
            "Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://other.test/\nSuites: nodistro\n"
            "Components: main\n\nEnabled: no\nTypes: deb\nURIs: http://off.test/\nSuites: bookworm\nComponents: main\n",
        ),
    ],
)
def test_debians_sources_are_read_in_both_spellings(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "os-release").write_text("VERSION_CODENAME=bookworm\n")
    (tmp_path / "apt" / file).write_text(text)
    found = debian.sources(tmp_path)
    assert "URIs: http://m.test/debian\n" in found
    assert "Signed-By: /k.gpg" in found
    assert "other.test" not in found
    assert "off.test" not in found


def test_a_machine_without_debian_sources_is_told(tmp_path: Path) -> None:
    with pytest.raises(EdgeKitError, match="no Debian source"):
        debian.sources(tmp_path)


@pytest.fixture
def nothing_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing in it, on a machine without qemu."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(roots.shutil, "which", lambda name: None)
    return tmp_path


@pytest.mark.usefixtures("nothing_yet")
def test_the_emulators_are_listed_with_what_they_stand_for() -> None:
    listed = {core["name"]: core for core in json.loads(CliRunner().invoke(emulators, ["--json"]).output)}
    assert set(listed) == set(CORES)
    assert listed["cortex-a72"]["targets"] == ["rpi4"]
    assert not listed["Haswell"]["ready"]
    words = CliRunner().invoke(emulators).output
    assert "Haswell      x86_64   to fetch: qemu-user-static" in words
    assert "0 MB in" in words


def test_a_dry_run_says_what_would_be_fetched_and_fetches_nothing(nothing_yet: Path) -> None:
    said = CliRunner().invoke(emulators, ["add", "rpi4", "--dry-run"]).output
    assert said.count("would fetch: ") == 3
    assert f"onnxruntime {detect()['engines']['onnx']}" in said
    facts = json.loads(CliRunner().invoke(emulators, ["add", "x86-64-v3", "--dry-run", "--json"]).output)
    assert (facts["name"], facts["dry_run"], facts["fetched"]) == ("Haswell", True, [])
    assert not roots.home().exists()


@pytest.mark.parametrize(
    ("name", "said"), [("rpi6", "did you mean 'rpi5'"), ("x86-64-v4", "no emulated core stands for")]
)
def test_a_name_that_is_no_core_is_refused(name: str, said: str) -> None:
    error = CliRunner().invoke(emulators, ["add", name]).exception
    assert isinstance(error, EdgeKitError)
    assert said in error.what
    assert "cortex-a72" in error.hint


def test_what_was_fetched_is_removed_by_name_or_whole(nothing_yet: Path) -> None:
    for part in roots.parts(CORES["cortex-a72"]):
        part.folder.mkdir(parents=True)
        (part.folder / "file").write_bytes(bytes(10**6))
    assert CliRunner().invoke(emulators, ["remove", "Haswell"]).output == "removed 1 MB\n"
    assert CliRunner().invoke(emulators, ["remove"]).output == "removed 2 MB\n"
    assert roots.kept() == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", list(ENTRIES))
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", ["emulated", "device"])
def test_a_worker_answers_as_the_artifact_does_here(tmp_path: Path, engine: str, inside: bool, kind: str) -> None:
    one = artifact(tmp_path, engine, inside)
    with at(beside(kind=kind)) as found:
        answer = found.runner(one)({"x": some(3)})["y"]
    assert np.array_equal(answer, one.in_floats().open_model()({"x": some(3)})["y"])


def test_a_place_tells_its_machines_facts() -> None:
    with at(beside()) as found:
        assert found.machine["arch"] == os.uname().machine
        assert set(found.machine["engines"]) == set(ENTRIES)


def test_emulated_times_and_memory_are_refused(tmp_path: Path) -> None:
    with at(beside()) as found:
        for ask in (
            lambda: found.time({"a": artifact(tmp_path)}, {"x": some()}, 0.1),
            lambda: found.footprint(artifact(tmp_path), {"x": some()}),
        ):
            with pytest.raises(Unsupported, match="are no device's") as caught:
                ask()
            assert "ssh://" in caught.value.hint


def test_an_error_there_is_the_same_error_here(tmp_path: Path) -> None:
    one = artifact(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").write_bytes(b"rubbish")
    with at(beside()) as found:
        with pytest.raises(Unsupported, match=r"beside: model\.onnx does not load in ONNX Runtime"):
            found.runner(replace(one, path=tmp_path / "bad" / "model.onnx"))
        with pytest.raises(BadRequest, match="missing input x"):
            found.runner(one)({})
        assert found.runner(one)({"x": some()})["y"].shape == (1, 4)


def test_an_answer_of_nothing_is_no_answer(tmp_path: Path) -> None:
    """As OpenVINO gives for EfficientNet-Lite0 in int8 on a Cortex-A72, without an error."""
    x, y = TensorSpec("x", "float32", (None, 4)), TensorSpec("y", "float32", (None, 4))
    ends = [numpy_helper.from_array(np.zeros(1, np.int64), name) for name in ("start", "end", "axis")]
    infos = [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["n", 4]) for spec in (x, y)]
    node = helper.make_node("Slice", ["x", "start", "end", "axis"], ["y"])
    graph = helper.make_graph([node], "nothing", infos[:1], infos[1:], ends)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, tmp_path / "model.onnx")
    one = Artifact("onnx", "int8", tmp_path / "model.onnx", (plain(x),), (plain(y),))
    with at(beside()) as found, pytest.raises(Unsupported, match="onnx int8 answers nothing at y"):
        found.runner(one)({"x": np.ones((2, 4), np.float32)})


def test_an_engine_that_is_not_there_is_named_with_what_to_install(tmp_path: Path) -> None:
    one = artifact(tmp_path, "tflite")
    with at(beside()) as found:
        found.machine = {"engines": {"onnx": "1"}}
        with pytest.raises(NotFound, match=r"no engine for tflite \(it has onnx\)") as caught:
            found.runner(one)
    assert "pip install ai-edge-litert" in caught.value.hint


def test_a_message_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    one = artifact(tmp_path)
    with at(beside()) as found:
        run = found.runner(one)
        with pytest.raises(BadRequest, match="MB travel at once"):
            run({"x": np.broadcast_to(np.float32(0), (2**25, 3, 2, 2))})
        assert run({"x": some()})["y"].shape == (1, 4)


def test_more_artifacts_than_are_kept_open_all_answer(tmp_path: Path) -> None:
    found = [artifact(tmp_path / str(index)) for index in range(there.OPEN + 2)]
    with at(beside(kind="device")) as place:
        runners = [place.runner(one) for one in found]
        for run in (*runners, *runners):
            assert np.abs(run({"x": some()})["y"] - truth(some())).max() < 1e-5
        assert len(place._open) == there.OPEN


@pytest.mark.slow
def test_a_file_of_several_pieces_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(there, "PIECE", 100)
    one = artifact(tmp_path, "openvino")
    (tmp_path / "empty").touch()
    with at(beside(kind="device")) as found:
        assert np.abs(found.runner(one)({"x": some()})["y"] - truth(some())).max() < 1e-5


def test_a_killed_worker_is_an_error(tmp_path: Path) -> None:
    one = artifact(tmp_path)
    with at(beside()) as found:
        run = found.runner(one)
        os.kill(found._process.pid, signal.SIGKILL)
        with pytest.raises(EdgeKitError, match="beside: the worker ended: signal SIGKILL"):
            run({"x": some()})


def test_a_worker_that_does_not_start_says_its_last_line() -> None:
    with (
        pytest.raises(EdgeKitError, match="the worker ended: ModuleNotFoundError: No module named 'numpi'"),
        at(beside("import numpi")),
    ):
        pass


HELLO = (
    "import sys, time\nfrom edgekit_runtime.frames import Message, pack\n"
    "sys.stdout.buffer.write(pack(Message({'do': 'hello', 'protocol': 1, 'facts': {'engines': {'onnx': '1'}}})))\n"
    "sys.stdout.buffer.flush()\n"
)


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_and_told(tmp_path: Path) -> None:
    one = artifact(tmp_path)
    with at(beside(HELLO + "time.sleep(600)")) as found:
        found.timeout = 0.6
        with pytest.raises(EdgeKitError, match="no answer within 1 s"):
            found.runner(one)
        assert found._process.poll() is not None


@pytest.mark.slow
def test_a_hanging_worker_ends_with_the_block() -> None:
    with at(beside(HELLO + "time.sleep(600)")) as found:
        process = found._process
    assert process.poll() is not None


@pytest.mark.slow
def test_an_interruption_ends_the_worker() -> None:
    with pytest.raises(KeyboardInterrupt), at(beside(HELLO + "time.sleep(600)")) as found:  # noqa: PT012
        process = found._process
        raise KeyboardInterrupt
    assert process.poll() is not None


def test_what_else_is_printed_there_is_named() -> None:
    with (
        pytest.raises(EdgeKitError, match="'Welcome") as caught,
        at(beside("print('Welcome to this machine, have a lot of fun')")),
    ):
        pass
    assert "login shell" in caught.value.hint


def fetched(name: str) -> str:
    try:
        roots.add(CORES[name], silent)
    except EdgeKitError as error:
        if "there is no" in error.what or "no Debian source" in error.what:
            pytest.skip(error.what)
        raise
    return name


@contextmanager
def emulated(name: str, engine: str) -> Iterator[There]:
    place = find_core(CORES[name], engine)
    assert isinstance(place, Place), place
    with open_at(place, ONE, silent) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("core", "engine"),
    [*((core, engine) for core in ("Haswell", "cortex-a72") for engine in ENTRIES), ("cortex-a7", "tflite")],
)
def test_an_emulated_core_answers_as_this_machine_does(tmp_path: Path, core: str, engine: str) -> None:
    installed = roots.engines_there("armv7l") if core == "cortex-a7" else detect()["engines"]
    with emulated(fetched(core), engine) as found:
        assert found.machine["arch"] == CORES[core].arch
        assert found.machine["model"] == f"{core} (emulated)"
        assert found.machine["engines"][engine] == installed[engine]
        for inside, near in ((False, 1e-6), (True, 1e-6)):
            one = artifact(tmp_path / str(inside), engine, inside)
            answer, here = found.runner(one)({"x": some(3)})["y"], one.in_floats().open_model()({"x": some(3)})["y"]
            assert np.abs(answer - here).max() <= near


@pytest.mark.slow
def test_a_module_of_the_runtime_is_run_on_a_core_as_if_it_were_there(tmp_path: Path) -> None:
    start = command(CORES[fetched("cortex-a7")], tmp_path, ("edgekit_runtime", "--version"))
    done = subprocess.run(start.command, env=dict(start.environment), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["edgekit-runtime", edgekit_runtime.__version__]


def test_a_module_is_not_run_on_a_core_that_was_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(EdgeKitError, match="cortex-a7 is not emulated yet") as caught:
        command(CORES["cortex-a7"], tmp_path / "scratch", ("edgekit_runtime",), tmp_path)
    assert caught.value.hint == "say edgekit emulators add cortex-a7"


def largest(folder: Path, engine: str) -> Artifact:
    """A 1x1 convolution of 64 channels in 8 bits, weights all 127: on inputs all 255 the sum is 255 * 127 * 64."""
    weight = np.full((64, 64, 1, 1), 127, np.int8)
    scale = np.float32(255 * 127 * 64 / 200)
    values = {"s": np.float32(1), "z": np.uint8(0), "w": weight, "ws": np.ones(64, np.float32)}
    values |= {"wz": np.zeros(64, np.int8), "os": scale, "oz": np.uint8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("QuantizeLinear", ["c", "os", "oz"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "os", "oz"], ["y"]),
    ]
    x, y = ((name, TensorSpec(name, "float32", (1, 64, 8, 8))) for name in ("x", "y"))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(spec.shape)) for name, spec in (x, y)]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "largest", infos[:1], infos[1:], weights)
    folder.mkdir()
    path = folder / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    if engine == "openvino":
        import openvino as ov

        ov.save_model(ov.convert_model(path), folder / "model.xml", compress_to_fp16=False)
        path.unlink()
        path = folder / "model.xml"
    return Artifact(engine, "int8", path, (plain(x[1]),), (plain(y[1]),))


def share(name: str, engine: str, folder: Path) -> float:
    """How much of the right sum that convolution gives on a core."""
    with emulated(fetched(name), engine) as found:
        answer = found.runner(largest(folder, engine))({"x": np.full((1, 64, 8, 8), 255, np.float32)})["y"]
    return float(answer.mean()) / (255 * 127 * 64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "engine", "right"),
    [
        ("Haswell", "onnx", 0.5),
        ("Haswell", "openvino", 0.5),
        ("Nehalem", "onnx", 1.0),
        ("cortex-a72", "onnx", 1.0),
        ("cortex-a72", "openvino", 1.0),
        ("cortex-a76", "onnx", 1.0),
        ("cortex-a76", "openvino", 1.0),
    ],
)
def test_avx2_without_vnni_loses_half_of_an_all_largest_sum(
    tmp_path: Path, name: str, engine: str, right: float
) -> None:
    assert share(name, engine, tmp_path / "largest") == pytest.approx(right, abs=0.01)


def test_a_target_of_ones_own_may_name_a_core(tmp_path: Path) -> None:
    own = replace(find_target("rpi4"), name="mine", emulate="neoverse-n1")
    assert isinstance(own, Target)
    found = find_place(own, "onnx", tmp_path)
    assert isinstance(found, Absent)
    assert "neoverse-n1" in found.hint


@pytest.mark.slow
def test_why_pip_fetched_no_wheels_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip begins the line with ERROR."""
    (tmp_path / "root/usr/bin").mkdir(parents=True)
    (tmp_path / "root/usr/bin/python3.11").touch()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EdgeKitError, match=r"No matching distribution found for nothing-there"):
        roots._make_site("aarch64", {"nothing-there": "1"}, tmp_path / "root", tmp_path / "site", lambda words: None)
