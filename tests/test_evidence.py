"""Metrics of each sample, of all and of each class, beside the source's."""

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.evidence import Quality, agreement, by_class, choose_metric, joined, measure, score


def one_hot(classes: np.ndarray) -> list[np.ndarray]:
    return list(np.eye(10, dtype=np.float32)[classes])


def measured(metric: str, reference: list[np.ndarray], candidate: list[np.ndarray], labels: np.ndarray) -> Quality:
    return measure(score(metric, reference, candidate, labels))


def test_the_interval_of_a_drop_holds_the_drop() -> None:
    labels = np.arange(1000) % 10
    worse = labels.copy()
    worse[:100] = (worse[:100] + 1) % 10
    quality = measured("top1", one_hot(labels), one_hot(worse), labels)
    assert (quality.reference, quality.value, quality.drop) == (1.0, 0.9, pytest.approx(0.1))
    assert 0.08 < quality.low < 0.1 < quality.high < 0.125


def test_the_class_that_loses_is_named() -> None:
    labels = np.arange(1000) % 10
    worse = np.where(labels == 3, 4, labels)
    found = by_class(score("top1", one_hot(labels), one_hot(worse), labels))
    assert {index: quality.drop for index, quality in found.items() if quality.drop} == {3: 1.0}
    assert found[3].n == 100


def test_parts_of_the_samples_add_up_to_the_whole() -> None:
    labels = np.arange(90) % 10
    worse = (labels + (np.arange(90) % 7 == 0)) % 10
    whole = score("top1", one_hot(labels), one_hot(worse), labels)
    cuts = [(0, 10), (10, 55), (55, 90)]
    parts = [score("top1", one_hot(labels[a:b]), one_hot(worse[a:b]), labels[a:b]) for a, b in cuts]
    assert measure(joined(parts)) == measure(whole)
    assert agreement(joined(parts)) == agreement(whole)


def test_a_nan_has_no_bound() -> None:
    scores = [np.array([1.0])] * 20
    broken = [np.array([np.nan]), *scores[1:]]
    quality = measured("mae", scores, broken, np.ones((20, 1)))
    assert not quality.high <= 1e9


def test_top5_finds_the_label_among_five() -> None:
    scores = [np.arange(10, dtype=np.float32)] * 40
    assert measured("top5", scores, scores, np.full(40, 5)).value == 1.0
    assert measured("top5", scores, scores, np.full(40, 4)).value == 0.0


def test_mean_absolute_error_grows_where_the_model_got_worse() -> None:
    labels = np.linspace(0, 1, 200)
    good, bad = [np.array([v]) for v in labels], [np.array([v + 0.5]) for v in labels]
    assert measured("mae", good, bad, labels).drop == pytest.approx(0.5)


@pytest.mark.parametrize("gain", [1, 2])
def test_a_metric_that_moved_on_no_sample_still_has_a_width(tmp_path, gain: int) -> None:
    """23 samples without a change prove little, whoever wrote the metric."""
    (tmp_path / "own.py").write_text(
        f"def hit(outputs, labels):\n    return [{gain} * (o.argmax() == l) for o, l in zip(outputs, labels)]\n"
        "def share(outputs, labels):\n    return sum(o.argmax() == l for o, l in zip(outputs, labels)) / len(labels)\n"
    )
    labels = np.arange(23) % 10
    some = one_hot(np.where(np.arange(23) % 5 == 0, (labels + 1) % 10, labels))
    hit = measured(f"{tmp_path / 'own.py'}:hit", some, some, labels)
    share = measured(f"{tmp_path / 'own.py'}:share", some, some, labels)
    assert hit.high == pytest.approx(gain * measured("top1", some, some, labels).high)
    assert share.high > 0.08


def test_a_users_metric_of_all_samples_together_is_resampled(tmp_path) -> None:
    (tmp_path / "own.py").write_text(
        "def share(outputs, labels):\n    return sum(o.argmax() == l for o, l in zip(outputs, labels)) / len(labels)\n"
    )
    labels = np.arange(200) % 10
    worse = labels.copy()
    worse[:20] = (worse[:20] + 1) % 10
    parts = [
        score(f"{tmp_path / 'own.py'}:share", one_hot(labels[a:b]), one_hot(worse[a:b]), labels[a:b])
        for a, b in ((0, 50), (50, 200))
    ]
    quality = measure(joined(parts))
    assert quality.drop == pytest.approx(0.1)
    assert quality.low < 0.1 < quality.high < 0.16


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
    quality = measured(f"{tmp_path / 'own.py'}:score", one_hot(labels), one_hot(worse), labels)
    assert quality.drop == pytest.approx(0.1)
    assert 0.05 < quality.low < 0.1 < quality.high < 0.15


def test_an_image_of_scores_is_not_compared_with_an_image_of_classes() -> None:
    scores, classes = [np.zeros((4, 8, 8), np.float32)] * 3, np.zeros((3, 8, 8), np.int64)
    with pytest.raises(EdgeKitError, match="cannot be compared"):
        measured("mae", scores, scores, classes)
