"""The three engines on real files, float and integer, and what they refuse."""

import subprocess
import sys

import numpy as np
import pytest
from edgekit_runtime import engines
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engines import EngineOptions, open_model, read_specs
from edgekit_runtime.errors import NotFound, Unsupported

from tests.runtime.bundles import ENTRIES, make_bundle, some, truth, write_model

every = pytest.mark.parametrize("engine", list(ENTRIES))


@pytest.mark.slow
@every
@pytest.mark.parametrize("rows", [1, 3])
def test_a_float_file_answers_as_numpy_does(tmp_path, engine, rows):
    run = open_bundle(make_bundle(tmp_path / "b", engine)).open_model()
    assert np.abs(run({"x": some(rows)})["y"] - truth(some(rows))).max() < 1e-5


@pytest.mark.slow
@every
@pytest.mark.parametrize("rows", [1, 3])
def test_an_int8_nhwc_file_of_batch_one_answers_the_same_user(tmp_path, engine, rows):
    bundle = open_bundle(make_bundle(tmp_path / "b", engine, inside=True))
    assert [spec.dtype for spec in read_specs(engine, bundle.folder / bundle.manifest.entry)[0]] == ["int8"]
    answer = bundle.open_model()({"x": some(rows)})["y"]
    assert answer.dtype == np.float32
    assert np.abs(answer - truth(some(rows))).max() < 0.06


@every
def test_the_file_tells_its_own_inputs_and_outputs(tmp_path, engine):
    write_model(tmp_path / ENTRIES[engine], engine)
    (x,), (y,) = read_specs(engine, tmp_path / ENTRIES[engine])
    assert (x.name, x.dtype, x.shape[0], y.name, y.shape) == ("x", "float32", None, "y", (None, 4))


@pytest.mark.slow
@every
def test_batches_may_change_from_call_to_call(tmp_path, engine):
    run = open_bundle(make_bundle(tmp_path / "b", engine)).open_model()
    for rows in (2, 1, 5, 2):
        assert np.abs(run({"x": some(rows)})["y"] - truth(some(rows))).max() < 1e-5


@pytest.mark.slow
@every
def test_an_answer_stays_as_it_was_after_the_next_call(tmp_path, engine):
    run = open_bundle(make_bundle(tmp_path / "b", engine)).open_model()
    first = run({"x": some(1, 1)})["y"]
    kept = first.copy()
    run({"x": some(1, 2)})
    assert np.array_equal(first, kept)


@pytest.mark.slow
@every
def test_arrays_straight_from_the_wire_are_taken(tmp_path, engine):
    run = open_bundle(make_bundle(tmp_path / "b", engine)).open_model()
    wire = np.frombuffer(b"!" + some(2).tobytes(), np.uint8)[1:].view(np.float32).reshape(2, 3, 2, 2)
    assert not wire.flags.writeable
    assert np.abs(run({"x": wire})["y"] - truth(some(2))).max() < 1e-5


@pytest.mark.slow
@every
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, engine, damage):
    path = tmp_path / ENTRIES[engine]
    write_model(path, engine)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"\x00\xff" * 500, "empty": b""}[damage])
    with pytest.raises(Unsupported, match="does not load") as caught:
        open_model(engine, path)
    assert "\n" not in caught.value.what


@pytest.mark.slow
@every
def test_feeds_that_a_file_cannot_run_are_an_error_of_ours(tmp_path, engine):
    write_model(tmp_path / ENTRIES[engine], engine)
    run = open_model(engine, tmp_path / ENTRIES[engine])
    with pytest.raises(Unsupported, match="does not run"):
        run({"x": np.zeros((1, 3, 5, 5), np.float32)})
    good = some(1) if engine != "tflite" else np.ascontiguousarray(some(1).transpose(0, 2, 3, 1))
    assert np.abs(run({"x": good})["y"] - truth(some(1))).max() < 1e-5


def test_litert_is_not_given_empty_inputs(tmp_path):
    run = open_bundle(make_bundle(tmp_path / "b", "tflite")).open_model()
    with pytest.raises(Unsupported, match="empty"):
        run({"x": some(0)})


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "device"), [("onnx", "gpu"), ("tflite", "gpu"), ("openvino", "npu")])
def test_a_device_that_is_not_there_is_refused(tmp_path, engine, device):
    write_model(tmp_path / ENTRIES[engine], engine)
    with pytest.raises(Unsupported):
        open_model(engine, tmp_path / ENTRIES[engine], EngineOptions(device=device))


def test_an_unknown_engine_and_a_missing_one_get_different_hints(tmp_path, monkeypatch):
    with pytest.raises(NotFound) as unknown:
        open_model("tensorflow", tmp_path)
    monkeypatch.setitem(engines.ENGINES, "onnx", "edgekit_runtime.engines.no_such_module")
    with pytest.raises(NotFound) as missing:
        open_model("onnx", tmp_path)
    assert "use one of" in unknown.value.hint
    assert "./runtime[onnx]" in missing.value.hint


def test_importing_the_runtime_loads_numpy_and_nothing_heavier():
    heavy = ["PIL", "onnxruntime", "openvino", "ai_edge_litert", "uvicorn", "asyncio", "http.client", "scipy", "torch"]
    code = f"import sys, edgekit_runtime; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
