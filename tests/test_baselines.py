"""The baseline that a build records, by hand beside by `edgekit build`; and the float artifact that it carries."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.drift import Recorder, reader, to_json
from edgekit_runtime.errors import BadBundle
from edgekit_runtime.tensors import Array, quantized

from tests import tiny
from tests.commands import Done, edgekit

pytestmark = pytest.mark.slow

TARGET = "x86-64-v4"


def build(shelf: Path, *words: object, model: str = "digits.onnx") -> Done:
    return edgekit("build", shelf / model, "--target", TARGET, "--cache", shelf / "cache", "--smaller", *words)


def by_hand(bundle: Bundle, x: Array) -> Any:
    """The baseline of these inputs in this order, taken by the device's own reader from what the bundle answers."""
    manifest, run, recorder = bundle.manifest, bundle.open_model(), Recorder()
    inputs, outputs = (tuple(port.spec for port in side) for side in (manifest.inputs, manifest.outputs))
    read = reader(inputs, outputs, bundle.preprocess(), len(bundle.labels()))
    for start in range(0, len(x), 32):
        feeds = {"x": x[start : start + 32]}
        if inputs[0].scale is not None:
            feeds = {"x": quantized(feeds["x"], inputs[0])}
        for reading in read(feeds, run(feeds)):
            recorder.add(reading)
    return to_json(recorder.baseline())


def evaluated(x: Array) -> Array:
    """The samples that are evaluated where `x` calibrates nothing, in the build's own order."""
    return x[np.random.default_rng(0).permutation(len(x))]


def apart(folder: Path) -> Array:
    """Writes calibration.npz and evaluation.npz; the samples of the latter."""
    x, label = tiny.digits()
    np.savez(folder / "calibration.npz", x=x[:200], label=label[:200])
    np.savez(folder / "evaluation.npz", x=x[200:800], label=label[200:800])
    return x[200:800]


def steps(shelf: Path, step: str) -> dict[str, int]:
    """Of every finished step of this kind its inode, which tells if it was made anew."""
    return {home.name: home.stat().st_ino for home in (shelf / "cache" / "steps" / step).iterdir()}


@pytest.mark.parametrize("form", ["onnx", pytest.param("tflite", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_baseline_is_what_the_devices_reader_gives_for_the_same_samples(shelf: Path, desk: Path, form: str) -> None:
    x = apart(desk)
    words = ("--data", "evaluation.npz", "--calibration", "calibration.npz", "--format", form, "--out", "b", "--json")
    facts = build(shelf, *words).json()[0]
    bundle = open_bundle(desk / "b")
    assert bundle.manifest.baseline == "baseline.json"
    told = json.loads((desk / "b" / "baseline.json").read_bytes())
    assert told == by_hand(bundle, evaluated(x))
    found = bundle.baseline()
    assert found is not None
    assert found.n == facts["baseline"]["n"] == 600
    assert [feature.name for feature in found.features] == facts["baseline"]["features"]
    assert facts["baseline"]["bytes"] == (desk / "b" / "baseline.json").stat().st_size < 100_000
    assert facts["baseline"]["why"] is None


@pytest.mark.slow
def test_where_io_stays_integer_the_baseline_is_of_integers(shelf: Path, desk: Path) -> None:
    x = apart(desk)
    words = ("--data", "evaluation.npz", "--calibration", "calibration.npz", "--format", "tflite", "--integer-io")
    build(shelf, *words, "--out", "b", "--with-float")
    bundle = open_bundle(desk / "b")
    assert bundle.manifest.inputs[0].spec.scale is not None
    assert json.loads((desk / "b" / "baseline.json").read_bytes()) == by_hand(bundle, evaluated(x))
    run = bundle.open_shadow()
    assert run is not None
    (feeds, answer), *_ = bundle.golden()
    far = run(feeds)["scores"].astype(int) - answer["scores"].astype(int)
    assert np.abs(far).max() <= 26  # a tenth of what 8 bits hold


@pytest.mark.slow
def test_a_model_of_a_fixed_batch_of_one_has_a_baseline_of_every_sample(shelf: Path, desk: Path) -> None:
    x = apart(desk)
    tiny.write_model(desk, "one.onnx", batch=1)
    words = ("--data", "evaluation.npz", "--calibration", "calibration.npz", "--format", "onnx", "--out", "b")
    done = build(desk, *words, "--cache", shelf / "cache", model="one.onnx")
    assert done.code == 0, done.err
    bundle, recorder = open_bundle(desk / "b"), Recorder()
    specs = [tuple(port.spec for port in side) for side in (bundle.manifest.inputs, bundle.manifest.outputs)]
    read, run = reader(*specs, None, 0), bundle.open_model()
    for one in evaluated(x):
        for reading in read({"x": one[None]}, run({"x": one[None]})):
            recorder.add(reading)
    assert json.loads((desk / "b" / "baseline.json").read_bytes()) == to_json(recorder.baseline())


def pulled(folder: Path, at_random: int) -> Array:
    """An archive as `edgekit pull-samples` leaves it, of samples of which so many were kept at random; those."""
    x = apart(folder)
    (folder / "pulled" / "labelled").mkdir(parents=True)
    (folder / "evaluation.npz").rename(folder / "pulled" / "labelled" / "tensors.npz")
    file = "labelled/tensors.npz"
    whys = [["confidence", "random"] if row % 3 == 0 and row < 3 * at_random else ["drift"] for row in range(len(x))]
    rows = [{"file": file, "row": row, "why": why} for row, why in enumerate(whys)]
    rows += [{"file": f"un{file}", "row": row, "why": ["random"]} for row in range(len(x))]
    (folder / "pulled" / "samples.json").write_text(json.dumps({"samples": rows}))
    order = np.random.default_rng(0).permutation(len(x))
    return x[np.array([row for row in order if "random" in whys[row]], int)]


@pytest.mark.parametrize("form", ["onnx", pytest.param("tflite", marks=pytest.mark.slow)])
def test_of_pulled_samples_those_that_were_kept_at_random_make_the_baseline(shelf: Path, desk: Path, form: str) -> None:
    x = pulled(desk, 50)
    words = ("--data", "pulled/labelled/tensors.npz", "--calibration", "calibration.npz", "--format", form)
    facts = build(shelf, *words, "--out", "b", "--json").json()[0]
    bundle = open_bundle(desk / "b")
    assert len(x) == facts["baseline"]["n"] == 50
    assert facts["baseline"]["of"] == "the 50 of these 600 samples that a device kept at random"
    assert json.loads((desk / "b" / "baseline.json").read_bytes()) == by_hand(bundle, x)


def test_of_pulled_samples_that_are_all_odd_there_is_no_baseline(shelf: Path, desk: Path) -> None:
    pulled(desk, 0)
    words = (
        "--data",
        "pulled/labelled/tensors.npz",
        "--calibration",
        "calibration.npz",
        "--format",
        "onnx",
        "--name",
        "odd",
    )
    facts = build(shelf, *words, "--out", "b", "--json").json()[0]
    assert "kept these samples for being odd" in facts["baseline"]["why"]
    assert open_bundle(desk / "b").manifest.baseline is None


@pytest.mark.slow
def test_without_data_there_is_no_baseline_and_it_is_said(shelf: Path, desk: Path) -> None:
    facts = build(shelf, "--format", "onnx", "--out", "b", "--json").json()[0]
    assert open_bundle(desk / "b").manifest.baseline is None
    assert facts["baseline"] == {"n": 0, "bytes": 0, "features": [], "why": "there was no evaluation data (--data)"}
    for name in ("report.html", "MODEL_CARD.md"):
        assert "no baseline, since there was no evaluation data" in (desk / "b" / name).read_text()


@pytest.mark.slow
def test_a_touched_baseline_is_refused(shelf: Path, desk: Path) -> None:
    build(shelf, "--data", shelf / "digits.npz", "--format", "onnx", "--out", "b")
    place = desk / "b" / "baseline.json"
    told = json.loads(place.read_bytes())
    place.write_text(json.dumps({**told, "n": told["n"] + 1}))
    with pytest.raises(BadBundle, match=r"baseline\.json was touched"):
        open_bundle(desk / "b")
    place.unlink()
    with pytest.raises(BadBundle, match=r"baseline\.json is missing"):
        open_bundle(desk / "b")


@pytest.mark.slow
def test_what_was_recorded_once_is_not_recorded_again(shelf: Path, desk: Path) -> None:
    order = ("--data", shelf / "digits.npz", "--format", "onnx")
    build(shelf, *order, "--out", "a", "--name", "first")
    kept = {step: steps(shelf, step) for step in ("baseline", "answers")}
    done = build(shelf, *order, "--out", "b", "--name", "second", "--json")
    assert done.code == 0
    assert "remembered" not in done.json()[0]
    assert all(kept.values())
    assert kept == {step: steps(shelf, step) for step in ("baseline", "answers")}
    assert (desk / "a" / "baseline.json").read_bytes() == (desk / "b" / "baseline.json").read_bytes()


def test_an_unchanged_order_is_a_copy_with_baseline_and_float_artifact(shelf: Path, desk: Path) -> None:
    order = ("--data", shelf / "digits.npz", "--format", "onnx", "--max-drop", "2pt", "--with-float", "--json")
    first = build(shelf, *order, "--name", "copied", "--out", "a").json()[0]
    begun = time.process_time()
    again = build(shelf, *order, "--name", "copied", "--out", "b").json()[0]
    assert time.process_time() - begun < 1
    assert "remembered" not in first
    assert again["remembered"]
    assert (again["baseline"], again["shadow"]) == (first["baseline"], first["shadow"])
    one, other = (open_bundle(desk / name) for name in ("a", "b"))
    assert one.manifest == other.manifest
    assert one.baseline() == other.baseline() is not None
    assert other.open_shadow() is not None
    unasked = build(shelf, *order[:-2], "--json", "--name", "copied", "--out", "c").json()[0]
    assert "remembered" not in unasked


@pytest.mark.slow
def test_nothing_is_answered_for_the_baseline_that_was_not_scored(
    shelf: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit import baselines

    def never(*given: object) -> Any:
        raise AssertionError("it was answered anew")

    monkeypatch.setattr(baselines, "_anew", never)
    x = apart(desk)
    words = ("--data", "evaluation.npz", "--calibration", "calibration.npz", "--format", "onnx", "--out", "b")
    assert edgekit(
        "build", shelf / "digits.onnx", "--target", TARGET, "--cache", desk / "cache", "--smaller", *words
    ).code == 0  # fmt: skip
    assert len(list((desk / "cache" / "steps" / "baseline").iterdir())) == 1
    assert json.loads((desk / "b" / "baseline.json").read_bytes()) == by_hand(open_bundle(desk / "b"), evaluated(x))


def test_with_float_carries_the_float_artifact_and_it_answers_as_the_source_does(shelf: Path, desk: Path) -> None:
    words = ("--data", shelf / "digits.npz", "--format", "onnx", "--max-drop", "2pt", "--json", "--with-float")
    facts = build(shelf, *words, "--out", "b").json()[0]
    bundle = open_bundle(desk / "b")
    assert bundle.manifest.precision == "int8"
    assert bundle.manifest.shadow is not None
    assert bundle.manifest.shadow.entry in bundle.manifest.files
    size = sum(entry.size for name, entry in bundle.manifest.files.items() if name.startswith("float/"))
    assert facts["shadow"] == {"asked": True, "bytes": size, "why": None}
    assert "--with-float" in facts["command"]
    run, source = bundle.open_shadow(), _float_scores
    assert run is not None
    for feeds, _ in bundle.golden():
        np.testing.assert_allclose(run(feeds)["scores"], source(shelf, feeds["x"]), atol=1e-5)


def _float_scores(shelf: Path, x: Array) -> Array:
    import onnxruntime

    (scores,) = onnxruntime.InferenceSession(shelf / "digits.onnx").run(["scores"], {"x": x})
    return np.asarray(scores)


def test_a_touched_float_artifact_is_refused(shelf: Path, desk: Path) -> None:
    build(shelf, "--data", shelf / "digits.npz", "--format", "onnx", "--max-drop", "2pt", "--with-float", "--out", "b")
    (entry,) = (desk / "b" / "float").iterdir()
    entry.write_bytes(entry.read_bytes() + b"\0")
    with pytest.raises(BadBundle, match=r"float/.* was touched"):
        open_bundle(desk / "b")


@pytest.mark.slow
def test_a_float_winner_says_that_there_is_nothing_to_compare(shelf: Path, desk: Path) -> None:
    words = ("--data", shelf / "digits.npz", "--format", "onnx", "--precision", "float32", "--with-float")
    done = build(shelf, *words, "--out", "b")
    assert open_bundle(desk / "b").manifest.shadow is None
    assert not (desk / "b" / "float").exists()
    assert "the float artifact is not carried: what runs is the float32 file itself" in done.out


def test_the_float_artifact_is_carried_only_where_it_was_asked_for(shelf: Path, desk: Path) -> None:
    facts = build(shelf, "--data", shelf / "digits.npz", "--format", "onnx", "--out", "b", "--json").json()[0]
    assert open_bundle(desk / "b").manifest.shadow is None
    assert not facts["shadow"]["asked"]


def test_the_project_file_may_ask_for_the_float_artifact(shelf: Path, desk: Path) -> None:
    for name in ("digits.onnx", "digits.npz"):
        shutil.copy(shelf / name, desk)
    assert edgekit("init", "digits.onnx", "--target", TARGET, "--data", "digits.npz").code == 0
    drafted = (desk / "edgekit.toml").read_text()
    assert "\n# with_float = true" in drafted
    (desk / "edgekit.toml").write_text(drafted.replace("\n# with_float", "\nwith_float"))
    words = ("--format", "onnx", "--max-drop", "3pt", "--smaller", "--cache", shelf / "cache", "--out", "b")
    assert edgekit("build", *words).code == 0
    assert open_bundle(desk / "b").manifest.shadow is not None
    (desk / "edgekit.toml").write_text(drafted.replace("\n# with_float = true", "\nwith_float = 'yes'"))
    assert "with_float is 'yes'" in edgekit("build").error()
