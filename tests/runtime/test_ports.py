"""Where the user's tensors meet the artifact's. The engines here are lambdas; test_engines has real ones."""

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.ports import Port, connect
from edgekit_runtime.tensors import TensorSpec


def spec(name, dtype, *shape, scale=None, zero=None):
    return TensorSpec(name, dtype, shape, scale, zero)


X = spec("x", "float32", None, 2)
Y = spec("y", "float32", None, 2)


def test_the_layout_is_turned_both_ways():
    port = Port(spec("x", "float32", None, 3, 4, 5), spec("i", "float32", None, 4, 5, 3), order=(0, 2, 3, 1))
    value = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    inside = port.inward(value)
    assert inside.shape == (2, 4, 5, 3)
    assert inside.flags.c_contiguous
    assert np.array_equal(port.outward(inside), value)


def test_integer_files_take_and_give_floats():
    inside = spec("q", "int8", None, 2, scale=0.5, zero=1)
    port = Port(X, inside)
    assert port.inward(np.array([[1.0, -2.0]], np.float32)).tolist() == [[3, -3]]
    assert port.outward(np.array([[3, -3]], np.int8)).tolist() == [[1.0, -2.0]]


def test_a_user_of_float64_gets_float64_from_an_integer_file():
    port = Port(spec("y", "float64", None, 2), spec("q", "int8", None, 2, scale=0.5, zero=0))
    assert port.outward(np.array([[1, 2]], np.int8)).dtype == np.float64


def test_integers_with_another_scale_are_turned_by_their_meaning():
    port = Port(spec("x", "uint8", 2, scale=0.5, zero=0), spec("q", "int8", 2, scale=1.0, zero=-5))
    assert port.inward(np.array([2, 8], np.uint8)).tolist() == [-4, -1]


def test_integer_io_passes_untouched():
    same = spec("x", "int8", None, 2, scale=0.5, zero=1)
    value = np.array([[1, -7]], np.int8)
    assert Port(same, same).inward(value).tolist() == [[1, -7]]


def test_an_id_that_would_wrap_is_refused():
    port = Port(spec("ids", "int64", None), spec("ids", "int32", None))
    assert port.inward(np.array([5], np.int64)).dtype == np.int32
    with pytest.raises(BadRequest, match="do not fit int32"):
        port.inward(np.array([2**31], np.int64))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_batch_of_any_size_goes_through_a_file_of_a_fixed_one(rows, size):
    seen = []
    port = Port(X, spec("i", "float32", size, 2))

    def run(feeds):
        seen.append(feeds["i"].shape)
        return {"o": feeds["i"] * 2}

    value = np.random.default_rng(0).random((rows, 2), np.float32)
    answer = connect(run, [port], [Port(Y, spec("o", "float32", size, 2))])({"x": value})
    assert np.array_equal(answer["y"], value * 2)
    assert set(seen) == {(size, 2)}


def test_a_state_with_its_batch_on_the_second_axis_is_cut_there():
    state = Port(spec("s", "float32", 2, None, 3), spec("s", "float32", 2, 1, 3))
    next_state = Port(spec("t", "float32", 2, None, 3), spec("t", "float32", 2, 1, 3))
    run = connect(
        lambda f: {"t": f["s"] + f["i"][:, None]},
        [Port(spec("x", "float32", None, 3), spec("i", "float32", 1, 3)), state],
        [next_state],
    )
    x, s = np.random.default_rng(0).random((4, 3), np.float32), np.random.default_rng(1).random((2, 4, 3), np.float32)
    assert np.array_equal(run({"x": x, "s": s})["t"], s + x[None])


def test_inputs_of_different_batches_are_refused():
    ports = [Port(X, spec("a", "float32", 1, 2)), Port(spec("z", "float32", None, 2), spec("b", "float32", 1, 2))]
    run = connect(lambda f: {"o": f["a"]}, ports, [Port(Y, spec("o", "float32", 1, 2))])
    with pytest.raises(BadRequest, match="different or empty batches"):
        run({"x": np.zeros((2, 2), np.float32), "z": np.zeros((3, 2), np.float32)})
    with pytest.raises(BadRequest, match="different or empty batches"):
        run({"x": np.zeros((0, 2), np.float32), "z": np.zeros((0, 2), np.float32)})


def test_a_size_that_the_file_has_fixed_is_not_left_to_the_engine():
    port = Port(spec("x", "float32", None, None), spec("i", "float32", None, 16))
    with pytest.raises(BadRequest, match="this artifact takes"):
        port.inward(np.zeros((16, 20), np.float32))


def test_an_output_without_a_batch_is_not_joined():
    port, out = Port(X, spec("i", "float32", 1, 2)), Port(spec("y", "float32", 2), spec("o", "float32", 2))
    same = connect(lambda f: {"o": np.ones(2, np.float32)}, [port], [out])
    assert same({"x": np.zeros((3, 2), np.float32)})["y"].tolist() == [1, 1]
    with pytest.raises(BadRequest, match="no batch axis"):
        connect(lambda f: {"o": f["i"][0]}, [port], [out])({"x": np.eye(2, dtype=np.float32)})
