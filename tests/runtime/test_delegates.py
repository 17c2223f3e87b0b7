"""TFLite's external delegates: real libraries, compiled here, loaded by name by the real interpreter."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.engines import EngineOptions, open_model, parse_options, read_specs
from edgekit_runtime.engines.delegates import DELEGATES
from edgekit_runtime.engines.tflite import placement
from edgekit_runtime.errors import Unsupported

SOURCE = Path(__file__).parent / "adding_delegate.c"
MARK = 1000.0
ADD, NONE = 0, -1
compiler = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(compiler is None, reason="no C compiler (cc) to make a delegate with")


def compiled(folder: Path, name: str, claimed: int, source: Path = SOURCE) -> Path:
    """A library of that name in `folder`, found by the loader by its name from when it was opened once."""
    library = folder / DELEGATES[name].library
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-DCLAIMED={claimed}", f"-DMARK={MARK}f"]
    line = [compiler or "cc", *flags, f"-Wl,-soname,{library.name}", "-o", str(library), str(source)]
    subprocess.run(line, check=True, capture_output=True)
    return library


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the libraries of three delegates; this process finds them as if it were on the loader's path."""
    folder = tmp_path_factory.mktemp("lib")
    stranger = folder / "stranger.c"
    stranger.write_text("int answer(void) { return 42; }\n")
    made = [compiled(folder, "vx", ADD), compiled(folder, "ethosu", NONE), compiled(folder, "qnn", NONE, stranger)]
    kept = [ctypes.CDLL(str(library)) for library in made]
    yield folder
    assert len(kept) == 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = tanh(x + 1) + (x + 1), x [?, 4]: three operators, two of them ADD with a TANH between."""
    path = tmp_path_factory.mktemp("model") / "sums.tflite"
    path.write_bytes(sums())
    return path


def sums() -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, buffer: int, rows: int) -> object:
        made = schema.TensorT()
        made.name, made.buffer, made.type, made.shape = name.encode(), buffer, schema.TensorType.FLOAT32, [rows, 4]
        made.shapeSignature = [-1, 4] if buffer == 0 else None
        return made

    def operator(code: int, inputs: list[int], output: int) -> object:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, [output]
        if code == 0:
            made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
        return made

    graph, model = schema.SubGraphT(), schema.ModelT()
    graph.tensors = [tensor(name, int(name == "one"), 1) for name in ("x", "one", "more", "bent", "y")]
    graph.operators = [operator(0, [0, 1], 2), operator(1, [2], 3), operator(0, [3, 2], 4)]
    graph.inputs, graph.outputs = [0], [4]
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.frombuffer(np.ones(4, np.float32).tobytes(), np.uint8)
    model.operatorCodes = [schema.OperatorCodeT(), schema.OperatorCodeT()]
    for code, kind in zip(model.operatorCodes, (schema.BuiltinOperator.ADD, schema.BuiltinOperator.TANH), strict=True):
        code.builtinCode = code.deprecatedBuiltinCode = kind
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def on(name: str | None, least: float = 0.0, **settings: str) -> EngineOptions:
    return EngineOptions(device="delegate", delegate=name, least=least, settings=tuple(settings.items()))


def x(rows: int) -> np.ndarray:
    return np.linspace(-1, 1, rows * 4, dtype=np.float32).reshape(rows, 4)


@needs_compiler
@pytest.mark.parametrize("rows", [1, 3])
def test_a_delegates_operators_are_computed_by_it_and_the_others_by_the_cpu(installed, model, rows):
    answer = open_model("tflite", model, on("vx"))({"x": x(rows)})["y"]
    more = x(rows) + 1 + MARK  # each sum of the test's delegate is MARK too large
    assert np.abs(answer - (np.tanh(more) + more + MARK)).max() < 1e-3
    plain = open_model("tflite", model)({"x": x(rows)})["y"]
    assert np.abs(plain - (np.tanh(x(rows) + 1) + x(rows) + 1)).max() < 1e-5


@needs_compiler
def test_batches_may_change_from_call_to_call_on_a_delegate(installed, model):
    run = open_model("tflite", model, on("vx"))
    for rows in (2, 1, 5, 2):
        assert run({"x": x(rows)})["y"].shape == (rows, 4)
        assert (run({"x": x(rows)})["y"] > 2 * MARK - 2).all()


@needs_compiler
def test_what_the_delegate_took_is_counted(installed, model):
    found = placement(model, on("vx"))
    assert (found.device, found.accelerated, dict(found.left)) == ("vx", 2, {"TANH": 1})
    assert found.text() == "vx: 2 of 3 operators (66%); on the CPU: TANH"
    assert dict(placement(model, on("ethosu")).left) == {"ADD": 2, "TANH": 1}
    assert placement(model, EngineOptions()).text() == "cpu: 3 of 3 operators (100%)"


@needs_compiler
def test_a_model_of_which_too_little_runs_there_is_refused_with_its_operators(installed, model):
    assert open_model("tflite", model, on("vx", least=0.6))
    with pytest.raises(Unsupported, match=r"2 of 3 operators \(66%\) run on vx, wanted are 90%.*: TANH$"):
        open_model("tflite", model, on("vx", least=0.9))
    with pytest.raises(Unsupported, match="0 of 3 operators"):
        open_model("tflite", model, on("ethosu", least=0.1))


def test_a_delegate_that_is_not_installed_says_which_file_where_and_what_to_do(model):
    with pytest.raises(Unsupported) as caught:
        open_model("tflite", model, on("armnn", backends="CpuAcc"))
    assert "libarmnnDelegate.so" in caught.value.what
    assert "LD_LIBRARY_PATH" in caught.value.what
    assert "Arm NN's release" in caught.value.hint
    assert "\n" not in caught.value.what


@needs_compiler
def test_a_library_that_is_no_delegate_is_refused(installed, model):
    with pytest.raises(Unsupported, match="is no TFLite delegate: no tflite_plugin_create_delegate"):
        open_model("tflite", model, on("qnn", backend_type="htp"))


@needs_compiler
def test_a_delegate_without_its_device_says_so_in_its_own_words(installed, model, capfd):
    with pytest.raises(Unsupported, match="does not start here: no NPU answers"):
        open_model("tflite", model, on("vx", device_id="unplugged"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", [None, "", "libvx_delegate.so", "/tmp/evil.so", "../evil", "VX"])
def test_a_bundle_cannot_name_a_library(model, name):
    with pytest.raises(Unsupported, match="delegate") as caught:
        open_model("tflite", model, on(name))
    assert "edgetpu, vx, qnn" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("qnn", "library_path", "libQnnHtp.so"),
        ("qnn", "backend_type", "/tmp/evil.so"),
        ("qnn", "op_package_info", "evil"),
        ("vx", "cache_file_path", "x"),
        ("vx", "device_id", "../../etc/passwd"),
        ("armnn", "dynamic-backends-path", "x"),
        ("edgetpu", "device", ""),
    ],
)
def test_a_bundle_cannot_have_a_delegate_load_or_write_files(model, name, key, value):
    with pytest.raises(Unsupported, match=r"cannot set|plain word"):
        open_model("tflite", model, on(name, **{key: value}))


def test_no_setting_of_the_table_names_a_file():
    settings = {(name, key) for name, one in DELEGATES.items() for key in one.settings}
    assert not [one for one in settings if any(word in one[1] for word in ("path", "dir", "file", "location", "cache"))]


def test_every_delegate_of_the_table_has_a_source_and_a_way_to_it():
    for one in DELEGATES.values():
        assert one.source.startswith("https://")
        assert one.install
        assert "/" not in one.library


@needs_compiler
@pytest.mark.slow
def test_the_loader_finds_a_library_where_the_devices_owner_says(installed, model):
    """In a process of its own, with nothing opened before."""
    said = {"device": "delegate", "delegate": "vx", "settings": {"device_id": "0"}}
    assert parse_options(said).settings == (("device_id", "0"),)
    code = (
        "import sys; from pathlib import Path\n"
        "from edgekit_runtime.engines import parse_options\n"
        "from edgekit_runtime.engines.tflite import placement\n"
        f"print(placement(Path(sys.argv[1]), parse_options({said!r})).text())"
    )
    line = [sys.executable, "-c", code, str(model)]
    there = subprocess.run(line, env={**os.environ, "LD_LIBRARY_PATH": str(installed)}, capture_output=True, text=True)
    assert there.stdout.strip() == "vx: 2 of 3 operators (66%); on the CPU: TANH"
    assert there.stderr == ""
    away = subprocess.run(line, cwd=installed, capture_output=True, text=True)  # the working folder is no such place
    assert away.returncode == 1
    assert "libvx_delegate.so does not load" in away.stderr


def test_specs_are_read_without_a_delegate(model):
    assert [spec.shape for spec in read_specs("tflite", model)[0]] == [(None, 4)]
