"""Parity, metrics, the paired interval, the verdict."""

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.evidence import Budget, Quality, choose_metric, judge, measure, parity, parse_budget


def one_hot(classes: np.ndarray) -> list[np.ndarray]:
    return list(np.eye(10, dtype=np.float32)[classes])


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


def test_the_same_answers_lose_nothing_but_few_of_them_prove_little() -> None:
    labels = np.arange(50) % 10
    quality = measure("top1", one_hot(labels), one_hot(labels), labels)
    assert quality.drop == 0
    assert judge(quality, Budget(0.5, "pt")).outcome == "inconclusive"


def test_ten_thousand_of_the_same_answers_pass_half_a_point() -> None:
    labels = np.arange(10_000) % 10
    assert judge(measure("top1", one_hot(labels), one_hot(labels), labels), Budget(0.5, "pt")).outcome == "passed"


def test_a_model_over_budget_is_missed() -> None:
    labels = np.arange(1000) % 10
    worse = labels.copy()
    worse[:100] = (worse[:100] + 1) % 10
    verdict = judge(measure("top1", one_hot(labels), one_hot(worse), labels), Budget(0.5, "pt"))
    assert verdict.outcome == "missed"
    assert "+10.00pt" in verdict.why


def test_too_few_samples_are_told_with_how_many_would_do() -> None:
    labels = np.arange(400) % 10
    verdict = judge(measure("top1", one_hot(labels), one_hot(labels), labels), Budget(0.2, "pt"))
    assert verdict.outcome == "inconclusive"
    assert verdict.needed is not None
    assert verdict.needed > 400


def test_a_nan_is_within_no_budget() -> None:
    assert judge(Quality("cosine", 9, 1.0, np.nan, np.nan, np.nan, np.nan), Budget(50, "%")).outcome == "missed"


def test_an_upper_bound_at_the_drop_itself_is_no_division_by_zero() -> None:
    assert judge(Quality("mae", 9, 1.0, 1.1, 0.1, 0.1, 0.2), Budget(10, "%")).outcome in ("missed", "inconclusive")


def test_top5_finds_the_label_among_five() -> None:
    scores = [np.arange(10, dtype=np.float32)] * 40
    assert measure("top5", scores, scores, np.full(40, 5)).value == 1.0
    assert measure("top5", scores, scores, np.full(40, 4)).value == 0.0


def test_mean_absolute_error_grows_where_the_model_got_worse() -> None:
    labels = np.linspace(0, 1, 200)
    good, bad = [np.array([v]) for v in labels], [np.array([v + 0.5]) for v in labels]
    assert measure("mae", good, bad, labels).drop == pytest.approx(0.5)


@pytest.mark.parametrize(("text", "size", "unit"), [("0.5pt", 0.5, "pt"), ("1%", 1.0, "%"), (" 2 pt ", 2.0, "pt")])
def test_budgets_read(text: str, size: float, unit: str) -> None:
    assert parse_budget(text) == Budget(size, unit)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0.5", "-1pt", "half", "1 percent"])
def test_a_budget_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(EdgeKitError) as caught:
        parse_budget(text)
    assert "0.5pt" in caught.value.hint


def test_points_of_a_mean_error_are_refused() -> None:
    with pytest.raises(EdgeKitError, match="no points"):
        judge(Quality("mae", 100, 1.0, 1.0, 0.0, 0.0, 0.0), Budget(1, "pt"))


def test_the_metric_fits_the_labels() -> None:
    scores, number = np.zeros(10), np.zeros(1)
    assert choose_metric(None, np.array([1, 2]), scores) == "top1"
    assert choose_metric(None, np.array([1.5, 2]), number) == "mae"
    assert choose_metric(None, None, scores) == "agreement"
    assert choose_metric(None, None, np.zeros((4, 4))) == "cosine"
    with pytest.raises(EdgeKitError, match="needs labels"):
        choose_metric("top1", None, scores)
    with pytest.raises(EdgeKitError, match="no metric"):
        choose_metric("accuracy", None, scores)


def test_a_metric_of_the_users_own_is_paired_too(tmp_path) -> None:
    (tmp_path / "own.py").write_text(
        "def score(outputs, labels):\n    return [float(o.argmax() == l) for o, l in zip(outputs, labels)]\n"
    )
    labels = np.arange(300) % 10
    worse = labels.copy()
    worse[:30] = (worse[:30] + 1) % 10
    quality = measure(f"{tmp_path / 'own.py'}:score", one_hot(labels), one_hot(worse), labels)
    assert quality.drop == pytest.approx(0.1)
    assert 0.05 < quality.low < 0.1 < quality.high < 0.15


def test_an_image_of_scores_is_not_compared_with_an_image_of_classes() -> None:
    scores, classes = [np.zeros((4, 8, 8), np.float32)] * 3, np.zeros((3, 8, 8), np.int64)
    with pytest.raises(EdgeKitError, match="cannot be compared"):
        measure("mae", scores, scores, classes)
