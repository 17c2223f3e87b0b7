"""A session bound to its device's memory, with the CPU as the device: the same calls as on a GPU."""

import numpy as np
import onnxruntime as ort
import pytest
from edgekit_runtime.engines import bound
from edgekit_runtime.engines.onnx import _specs
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.tensors import TensorSpec

from tests.gpu import nets


@pytest.fixture(scope="module", params=["batch", 2])
def both(request, tmp_path_factory):
    """(a bound runner, the bare session), with a free batch and a fixed one."""
    path = nets.write(tmp_path_factory.mktemp("bound"), model=nets.cnn(request.param))
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return bound.bound(session, *_specs(session), "cpu", 0), session


def test_a_bound_session_answers_as_the_bare_one(both):
    run, session = both
    for seed in range(4):
        x = nets.photos(2, seed=seed)
        assert np.array_equal(run({"x": x})["y"], session.run(None, {"x": x})[0])


def test_an_answer_stays_when_the_next_run_fills_the_same_memory(both):
    run, _ = both
    answers = [run({"x": nets.photos(2, seed=seed)})["y"] for seed in range(4)]
    kept = [answer.copy() for answer in answers]
    run({"x": nets.photos(2, seed=9)})
    assert all(map(np.array_equal, answers, kept))
    assert not np.array_equal(answers[0], answers[1])


def test_batches_may_change_from_run_to_run_where_they_are_free(both):
    run, session = both
    for rows in (2, 1, 5, 2, 2) if session.get_inputs()[0].shape[0] != 2 else (2, 2):
        x = nets.photos(rows, seed=rows)
        assert np.array_equal(run({"x": x})["y"], session.run(None, {"x": x})[0])


def test_after_a_run_that_fails_the_next_one_is_right(both):
    run, session = both
    x = nets.photos(2, seed=3)
    run({"x": x})
    with pytest.raises(Exception, match="invalid dimensions"):
        run({"x": np.zeros((2, 4, nets.SIDE, nets.SIDE), np.float32)})
    assert np.array_equal(run({"x": x})["y"], session.run(None, {"x": x})[0])


def test_an_input_of_another_type_is_refused_before_its_bytes_are_misread(both):
    run, _ = both
    with pytest.raises(BadRequest, match="x: float64 is not float32"):
        run({"x": nets.photos(2).astype(np.float64)})


def test_an_input_that_is_a_view_is_copied_in_its_order(both):
    run, session = both
    x = nets.photos(2, seed=5).transpose(0, 1, 3, 2)
    assert not x.flags.c_contiguous
    assert np.array_equal(run({"x": x})["y"], session.run(None, {"x": np.ascontiguousarray(x)})[0])


def test_texts_and_types_that_numpy_lacks_are_not_bound():
    assert bound.bindable([TensorSpec("x", "float16", (1,)), TensorSpec("m", "bool", (1,))])
    for dtype in ("object", "bfloat16", "int4", "seq(tensor(float))"):
        assert not bound.bindable([TensorSpec("x", dtype, (1,))])
