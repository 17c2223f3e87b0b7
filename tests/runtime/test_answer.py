"""From scores to words."""

import numpy as np
import pytest
from edgekit_runtime.answer import top

LABELS = ("cat", "dog", "bird")


def test_scores_become_shares_of_one():
    rows = top({"y": np.array([[1.0, 3.0, 2.0]], np.float32)}, LABELS, 2)
    assert [label for label, _ in rows] == ["dog", "bird"]
    assert rows[0][1] == pytest.approx(np.exp(3) / np.exp([1, 2, 3]).sum())


def test_a_distribution_stays_as_it_is():
    assert top({"y": np.array([[0.25, 0.5, 0.25]])}, LABELS, 3)[0] == ("dog", 0.5)


def test_a_tie_keeps_the_order_of_the_labels():
    assert [label for label, _ in top({"y": np.array([[2, 2, 2]], np.int8)}, LABELS, 3)] == list(LABELS)


def test_great_scores_do_not_overflow():
    assert top({"y": np.array([1e30, -1e30, 0], np.float32)}, LABELS, 1) == [("cat", 1.0)]


def test_the_output_with_one_value_per_label_is_the_one():
    assert top({"a": np.zeros((1, 7)), "b": np.array([[0, 0, 9.0]])}, LABELS, 1)[0][0] == "bird"


@pytest.mark.parametrize(
    "value", [np.zeros((1, 4)), np.full((1, 3), np.nan), np.zeros((0, 3)), np.array("x"), np.float32(1)]
)
def test_what_is_no_scores_gets_no_words(value):
    assert top({"y": np.asarray(value)}, LABELS, 3) == []


def test_without_labels_there_are_no_words():
    assert top({"y": np.zeros((1, 3))}, (), 3) == []
