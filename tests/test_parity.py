"""How far two runs of the same feeds are apart."""

import numpy as np
import pytest

from edgekit.parity import parity


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_gone_nan_is_not_the_same_model(bad: float) -> None:
    found = parity([{"y": np.ones((1, 2))}] * 2, [{"y": np.array([[1, bad]])}, {"y": np.ones((1, 2))}])[0]
    assert not found.within(1e9)


def test_another_shape_is_not_the_same_model() -> None:
    assert not parity([{"y": np.ones((1, 2))}], [{"y": np.ones((1, 3))}])[0].within(1e9)


def test_unsigned_outputs_do_not_wrap() -> None:
    a, b = np.array([[0]], np.uint8), np.array([[255]], np.uint8)
    assert parity([{"y": a}], [{"y": b}])[0].worst == 255


def test_agreement_counts_the_best_class() -> None:
    a, b = np.array([[0.0, 1], [1, 0]]), np.array([[0.0, 2], [0, 1]])
    assert parity([{"y": a}], [{"y": b}])[0].agreement == 0.5
