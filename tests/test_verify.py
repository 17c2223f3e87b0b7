"""`edgekit verify`: recorded answers replayed on other CPUs, the loss of a saturating one caught, and what is refused.

Refuses the builder's word for another instruction set: real models, real wheels, emulated cores."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle, write_golden
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import BadBundle
from edgekit_runtime.manifest import Golden, to_json
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import Feeds, TensorSpec

from edgekit import verifying
from edgekit.agreeing import judge
from edgekit.evidence import Scores
from edgekit.goals import parse_budget
from edgekit.places import roots
from edgekit.places.cores import CORES
from edgekit.places.emulated import core_named
from edgekit.replaying import Replay, replay
from tests import zoo
from tests.commands import Done, edgekit
from tests.runtime.bundles import listed, make_bundle, some, truth, write_manifest

X, Y = TensorSpec("x", "float32", (None, 2)), TensorSpec("y", "float32", (None, 3))
PORTS = ((Port(X, X),), (Port(Y, Y),))
GOLDEN = Golden("golden.npz", 2, 0.1)
WEIGHTS = np.array([[1, 2, 3], [-1, 0, 1]], np.float32)


def double(feeds: Feeds) -> Feeds:
    """A model of one layer."""
    return {"y": feeds["x"] @ WEIGHTS}


def pair(*rows: tuple[float, float]) -> tuple[Feeds, Feeds]:
    feeds = {"x": np.array(rows, np.float32)}
    return feeds, double(feeds)


def test_what_was_recorded_together_is_asked_apart_too_and_the_other_way_round() -> None:
    asked: list[int] = []

    def run(feeds: Feeds) -> Feeds:
        asked.append(len(feeds["x"]))
        return double(feeds)

    found = replay(GOLDEN, [pair((1, 2)), pair((3, 4)), pair((1, 0), (0, 1), (2, 2))], PORTS, run)
    assert asked == [1, 1, 3, 1, 1, 1, 2]
    assert (found.answers, found.batches, found.worst) == (3, (1, 2, 3), 0.0)
    assert (found.same, found.told) == (5, 5)


def test_a_model_that_answers_otherwise_one_by_one_is_far_off() -> None:
    def run(feeds: Feeds) -> Feeds:
        return {"y": double(feeds)["y"] * (1 if len(feeds["x"]) == 2 else -1)}

    assert replay(GOLDEN, [pair((1, 2), (3, 4))], PORTS, run).worst > 0.1


def test_a_fixed_batch_is_left_as_it_is() -> None:
    fixed = TensorSpec("x", "float32", (2, 2))
    asked: list[int] = []

    def run(feeds: Feeds) -> Feeds:
        asked.append(len(feeds["x"]))
        return double(feeds)

    found = replay(GOLDEN, [pair((1, 2), (3, 4))], ((Port(fixed, fixed),), PORTS[1]), run)
    assert (asked, found.batches) == ([2], ())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_is_infinitely_far(bad: float) -> None:
    found = replay(GOLDEN, [pair((1, 2))], PORTS, lambda feeds: {"y": double(feeds)["y"] * bad})
    assert found.worst == float("inf")


def test_recorded_integers_are_the_numbers_that_they_stand_for() -> None:
    x = TensorSpec("x", "int8", (None, 2), 0.5, -3)
    feeds = {"x": np.array([[1, 3]], np.int8)}
    found = replay(GOLDEN, [(feeds, double({"x": np.array([[2, 3]], np.float32)}))], ((Port(x, x),), PORTS[1]), double)
    assert found.worst == 0.0


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        (({"x": np.ones((1, 3), np.float32)}, {"y": np.ones((1, 3))}), "golden.npz: x: expected"),
        (({"x": np.float32(1)}, {"y": np.ones((1, 3))}), "golden.npz: x: expected"),
        (({}, {"y": np.ones((1, 3))}), "missing input x"),
        (({"x": np.ones((1, 2), np.float32)}, {"z": np.ones((1, 3))}), "records z of y"),
    ],
)
def test_recordings_of_another_model_are_refused(recorded: Any, said: str) -> None:
    with pytest.raises(BadBundle) as caught:
        replay(GOLDEN, [recorded], PORTS, double)
    assert said in caught.value.what


def test_an_answer_recorded_without_a_batch_is_far_off_and_no_crash() -> None:
    recorded = [({"x": np.ones((1, 2), np.float32)}, {"y": np.asarray(1.0)})] * 2
    assert replay(GOLDEN, recorded, PORTS, double).worst == float("inf")


def scores(lost: int, won: int, n: int) -> Scores:
    """Of `n` samples right here and wrong there `lost`, the other way round `won`."""
    here, there = np.ones(n), np.ones(n)
    there[:lost] = 0
    here[lost : lost + won] = 0
    return Scores("top1", here, there)


@pytest.mark.parametrize(
    ("found", "budget", "outcome"),
    [
        (scores(0, 0, 1000), "1pt", "proved"),
        (scores(100, 0, 1000), "1pt", "missed"),
        (scores(1, 0, 50), "1pt", "inconclusive"),
        (scores(100, 0, 1000), None, "missed"),
        (scores(3, 3, 1000), None, "proved"),
    ],
)
def test_a_loss_is_judged_by_its_interval(found: Scores, budget: str | None, outcome: str) -> None:
    scored = judge(found, parse_budget(budget) if budget else None)
    assert scored.outcome == outcome
    assert ("would do" in scored.why) == (outcome == "inconclusive")


def seen(bundle_at: Path, core: str, worst: float, **manifest: Any) -> str:
    """The outcome where the recorded answers are so far off on that core."""
    bundle = open_bundle(bundle_at)
    bundle = replace(bundle, manifest=replace(bundle.manifest, **manifest))
    isa = {"Haswell": ["avx2"], "Nehalem": ["sse4_2"], "cortex-a72": ["asimd"]}[core]
    found = verifying.Verified(
        core, CORES[core], "proved", "", {"isa": isa}, Replay(3, (1,), worst, "y", 3, 3), tolerance=0.1
    )
    return verifying._judged(bundle, found).outcome


def test_a_saturating_multiply_add_is_not_taken_for_rounding(tmp_path: Path) -> None:
    """Within the tolerance, but the quality was measured with sums that were not cut off."""
    bundle = make_bundle(tmp_path / "b")
    built = {"precision": "int8", "provenance": {"machine": {"arch": "x86_64", "isa": ["avx2", "avx512_vnni"]}}}
    assert seen(bundle, "Haswell", 0.05, **built) == "differs"
    assert seen(bundle, "Haswell", 0.005, **built) == "proved"
    assert seen(bundle, "Nehalem", 0.05, **built) == "proved"
    assert seen(bundle, "cortex-a72", 0.05, **built) == "proved"
    assert seen(bundle, "cortex-a72", 0.11, **built) == "differs"
    assert seen(bundle, "Haswell", 0.05, **built | {"precision": "float16"}) == "proved"
    where = {"where": "Haswell, emulated", "n": 32, "worse": False}
    assert seen(bundle, "Haswell", 0.05, **built, evidence={"scored_on": [where]}) == "proved"
    assert seen(bundle, "Haswell", 0.05, **built, evidence={"scored_on": [{**where, "worse": True}]}) == "differs"
    alike = {"machine": {"arch": "x86_64", "isa": ["avx2"]}}
    assert seen(bundle, "Haswell", 0.05, precision="int8", provenance=alike) == "proved"


@pytest.mark.parametrize(
    ("name", "core"),
    [
        ("HASWELL", "Haswell"),
        ("nehalem", "Nehalem"),
        ("armv7", "cortex-a7"),
        ("RPI5", "cortex-a76"),
        ("Cortex-A53", "cortex-a53"),
    ],
)
def test_a_core_is_found_by_its_name_or_a_targets_whatever_their_case(name: str, core: str) -> None:
    assert core_named(name).name == core


@pytest.fixture
def nothing_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle, and a cache with nothing in it on a machine without qemu."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(roots.shutil, "which", lambda name: None)
    return make_bundle(tmp_path / "b", "tflite")


def test_a_dry_run_says_what_would_be_fetched_and_run_and_does_neither(nothing_yet: Path) -> None:
    done = edgekit("verify", nothing_yet, "--on", "rpi4", "--on", "armv7", "--dry-run")
    assert done.code == 0
    assert "would fetch: Python for aarch64, about 25 MB" in done.out
    assert "would fetch: wheels for armv7l: tflite-runtime 2.14.0" in done.out
    assert "would replay 3 recorded answers by tflite on cortex-a7, emulated" in done.out
    facts = edgekit("verify", nothing_yet, "--on", "rpi4", "--dry-run", "--json").json()
    assert [len(one["fetch"]) for one in facts] == [3]
    assert not roots.home().exists()


def test_nothing_is_fetched_where_that_is_forbidden(nothing_yet: Path) -> None:
    done = edgekit("verify", nothing_yet, "--on", "cortex-a7", "--no-fetch")
    assert done.code == 1
    assert "cortex-a7 is not emulated yet: qemu-user-static and Python for armv7l" in done.error()
    assert "MB" in done.error()
    assert "edgekit emulators add cortex-a7" in done.err
    assert not roots.home().exists()


def said_device(folder: Path) -> None:
    manifest = open_bundle(folder).manifest
    write_manifest(folder, to_json(replace(manifest, options=EngineOptions(device="cuda"))))


def touched(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes() + b" ")


def unrecorded(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    listed(folder, replace(open_manifest(folder), golden=None))


def open_manifest(folder: Path) -> Any:
    from edgekit_runtime.bundle import read_manifest

    return read_manifest(folder)


@pytest.mark.parametrize(
    ("spoil", "words", "said"),
    [
        (None, ("--on", "hasvel"), "did you mean 'Haswell'"),
        (None, ("--on", "x86-64-v4"), "no emulated core stands for"),
        (None, ("--on", "armv7"), "engine 'onnx' has no 32-bit ARM build"),
        (None, ("--on", "haswell", "--max-drop", "1pt"), "--max-drop needs data"),
        (None, ("--on", "haswell", "--max-drop", "1", "--data", "x.npz"), "has no unit"),
        (said_device, ("--on", "haswell"), "runs on its cuda, which nothing emulates"),
        (touched, ("--on", "haswell"), "was touched after the build"),
    ],
)
def test_what_cannot_be_verified_is_refused_in_words(
    tmp_path: Path, spoil: Callable[[Path], None] | None, words: tuple[str, ...], said: str
) -> None:
    folder = make_bundle(tmp_path / "b")
    if spoil is not None:
        spoil(folder)
    done = edgekit("verify", folder, *words)
    assert done.code == 1
    assert said in done.error()


def fetched(*cores: str) -> None:
    """The emulated cores, as verify fetches them; skipped where this machine cannot have them."""
    for core in cores:
        done = edgekit("emulators", "add", core, "--quiet")
        if "there is no" in done.err or "no Debian source" in done.err:
            pytest.skip(done.err)
        assert done.code == 0, done.err


@pytest.mark.slow
def test_a_bundle_is_verified_on_several_cores_at_once(tmp_path: Path) -> None:
    fetched("cortex-a7", "cortex-a72")
    folder = make_bundle(tmp_path / "b", "tflite", inside=True)
    done = edgekit("verify", folder, "--on", "armv7", "--on", "rpi4", "--on", "cortex-a72")
    assert done.code == 0, done.err
    table = [line.split() for line in done.out.splitlines()[:3]]
    assert [row[:2] for row in table[1:]] == [["armv7", "cortex-a7"], ["rpi4", "cortex-a72"]]
    assert all(row[-1] == "proved" for row in table[1:])
    assert "neon vfpv4 (armv7l)" in done.out
    assert "ran by     tflite 2.14.0" in done.out
    assert "no time was taken" in done.out


@pytest.mark.slow
def test_a_recorded_answer_that_does_not_come_is_told(tmp_path: Path) -> None:
    fetched("Haswell")
    folder = make_bundle(tmp_path / "b")
    pairs = [({"x": some(1, seed)}, {"y": truth(some(1, seed)) + 0.2 * (seed == 2)}) for seed in range(3)]
    write_golden(folder / "golden.npz", pairs)
    listed(folder, open_manifest(folder))
    done = edgekit("verify", folder, "--on", "haswell", "--json", "--quiet")
    facts = done.json()
    assert (done.code, facts["proved"], done.err) == (3, False, "")
    (one,) = facts["cores"]
    assert one["outcome"] == "differs"
    assert one["worst"] > one["tolerance"] == 0.01
    unrecorded(folder)
    assert "has no recorded inputs" in edgekit("verify", folder, "--on", "haswell", "--quiet").error()


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "code", "outcome"), [("30pt", 0, "proved"), ("0.5pt", 4, "inconclusive")])
def test_data_is_scored_there_and_here(tmp_path: Path, budget: str, code: int, outcome: str) -> None:
    fetched("Nehalem")
    folder, x = make_bundle(tmp_path / "b"), some(60, 5)
    np.savez(tmp_path / "data.npz", x=x, label=truth(x).argmax(1))
    done = edgekit(
        "verify", folder, "--on", "nehalem", "--data", tmp_path / "data.npz", "--max-drop", budget, "--json",
        "--cache", tmp_path / "cache", "--samples", 40,
    )  # fmt: skip
    (one,) = done.json()["cores"]
    assert (done.code, one["outcome"]) == (code, outcome), one["why"]
    assert (one["quality"]["metric"], one["quality"]["n"]) == ("top1", 40)
    assert one["quality"]["value"] == one["quality"]["reference"] == 1.0


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 in 8 bits, built for x86 with VNNI and for AVX2 without, as a user would."""
    fetched("Haswell")
    it, desk = zoo.efficientnet_lite0(), tmp_path_factory.mktemp("builds")
    for name, photos in (("photos", it.photos.evaluation), ("calibration", it.photos.calibration)):
        (desk / name).mkdir()
        for photo in sorted(photos.iterdir())[:: 4 if name == "calibration" else 36]:
            (desk / name / photo.name).symlink_to(photo)
    done: Done = edgekit(
        "build", it.factory, "--weights", it.weights, "--preprocess", it.preprocess, "--data", desk / "photos",
        "--calibration", desk / "calibration", "--metric", "cosine", "--format", "onnx", "--precision", "int8",
        "--smaller", "--target", "x86-64-v4", "--target", "x86-64-v3", "--cache", desk / "cache",
        "--out", desk / "out", "--unsigned",
    )  # fmt: skip
    assert done.code == 0, done.err
    return desk / "out"


@pytest.mark.slow
def test_what_avx2_loses_is_caught_by_the_recorded_answers_alone(builds: Path) -> None:
    """Of the bundle with all 8 bits; that with 7-bit weights, built for AVX2, answers there as recorded."""
    found = {}
    for target in ("x86-64-v4", "x86-64-v3"):
        (folder,) = (one for one in builds.glob("*") if target in one.name)
        done = edgekit("verify", folder, "--on", "haswell", "--json", "--quiet")
        (found[target],) = done.json()["cores"]
        assert done.code == (3 if target == "x86-64-v4" else 0), done.out
    lost, kept = found["x86-64-v4"], found["x86-64-v3"]
    print(json.dumps([lost["why"], kept["why"]]))  # noqa: T201
    assert (lost["outcome"], kept["outcome"]) == ("differs", "proved")
    assert lost["worst"] > 0.05
    assert kept["worst"] < 0.001
    assert "avx2" in lost["isa"]
    assert not {"avx512_vnni", "avx_vnni"} & set(lost["isa"])
