"""Replaying recorded answers, and what an artifact takes of the machine."""

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle, read_manifest, write_golden
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import BadBundle, Unsupported
from edgekit_runtime.footprint import measure
from edgekit_runtime.selftest import selftest

from tests.runtime.bundles import ENTRIES, listed, make_bundle, some, write_model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(make_bundle(tmp_path_factory.mktemp("s") / "b"))


@pytest.mark.parametrize("engine", list(ENTRIES))
def test_a_bundle_passes_its_own_recordings(tmp_path, engine):
    result = selftest(open_bundle(make_bundle(tmp_path / "b", engine, inside=True)))
    assert result.passed
    assert result.pairs == 3


def test_the_difference_is_told_in_parts_of_the_range(bundle):
    recorded = np.concatenate([answer["y"].ravel() for _, answer in bundle.golden()])
    run = bundle.open_model()
    shift = np.float32(0.25 * np.ptp(recorded))
    result = selftest(bundle, lambda feeds: {"y": run(feeds)["y"] + shift})
    assert result.worst == pytest.approx(0.25, rel=1e-3)
    assert result.output == "y"
    assert not result.passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_gone_nan_does_not_pass(bundle, bad):
    run = bundle.open_model()
    result = selftest(bundle, lambda feeds: {"y": run(feeds)["y"] * np.float32(bad)})
    assert result.worst == float("inf")
    assert not result.passed


def test_an_answer_of_another_shape_or_name_does_not_pass(bundle):
    assert not selftest(bundle, lambda feeds: {"y": np.zeros((1, 3), np.float32)}).passed
    assert not selftest(bundle, lambda feeds: {"z": np.zeros((1, 4), np.float32)}).passed


def test_the_footprint_is_measured_in_a_process_of_its_own(tmp_path):
    write_model(tmp_path / "m.tflite", "tflite", inside=True)
    feeds = {"x_in": np.zeros((1, 2, 2, 3), np.int8)}
    told = measure("tflite", tmp_path / "m.tflite", feeds, EngineOptions())
    assert told.keys() == {"peak_mb", "engine_mb", "load_s", "first_s"}
    assert 10 < told["engine_mb"] <= told["peak_mb"] < 500
    assert told["load_s"] > 0


def test_a_footprint_that_cannot_be_measured_says_why(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"junk")
    with pytest.raises(Unsupported, match="does not load"):
        measure("onnx", tmp_path / "m.onnx", {"x": some()}, EngineOptions())


@pytest.mark.parametrize("kept", [(), (0,), (0, 2)])
def test_recordings_that_lack_an_output_prove_nothing_and_are_refused(tmp_path, kept):
    folder = make_bundle(tmp_path / "b")
    pairs = open_bundle(folder).golden()
    write_golden(
        folder / "golden.npz", [(feeds, answer if n in kept else {}) for n, (feeds, answer) in enumerate(pairs)]
    )
    with pytest.raises(BadBundle, match=r"recording \d has no output 'y'"):
        selftest(open_bundle(listed(folder, read_manifest(folder))), lambda feeds: {"y": np.zeros((1, 4), np.float32)})
