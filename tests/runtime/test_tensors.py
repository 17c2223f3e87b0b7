"""The tensor rules: what fits a spec, and integers that stand for real numbers."""

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.tensors import TensorSpec, check_feeds, dequantized, quantized

X = TensorSpec("x", "float32", (None, 3))
Q = TensorSpec("q", "int8", (None, 3), 0.5, -10)
U = TensorSpec("u", "uint8", (None,), 0.1, 3)


def test_a_free_size_takes_any_size():
    for rows in (0, 1, 7):
        X.check(np.zeros((rows, 3), np.float32))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((1, 3)), "expected float32, got float64"),
        (np.zeros((1, 4), np.float32), r"expected shape \[\?, 3\], got \[1, 4\]"),
        (np.zeros(3, np.float32), r"got \[3\]"),
    ],
)
def test_a_misfit_says_what_was_wanted_and_what_came(value, words):
    with pytest.raises(BadRequest, match=words):
        X.check(value)


def test_missing_and_extra_inputs_are_named():
    with pytest.raises(BadRequest, match="missing input x"):
        check_feeds([X], {})
    with pytest.raises(BadRequest, match="no such input: z"):
        check_feeds([X], {"x": np.zeros((1, 3), np.float32), "z": np.zeros(1)})


def test_real_numbers_come_back_within_half_a_step():
    values = np.linspace(-58, 68, 300, dtype=np.float32).reshape(-1, 3)
    assert np.abs(dequantized(quantized(values, Q), Q) - values).max() <= 0.25


def test_numbers_beyond_the_range_saturate_and_never_wrap():
    values = np.array([-1e9, 1e9, np.inf, -np.inf], np.float32)
    assert quantized(values, U).tolist() == [0, 255, 255, 0]


def test_a_nan_is_not_made_an_integer():
    with pytest.raises(BadRequest, match="NaN"):
        quantized(np.array([1.0, np.nan], np.float32), U)


def test_a_spec_reads_well():
    assert str(X) == "x: float32[?, 3]"
