"""The search and mixed precision: order, what is confirmed, when it ends; and the error rate of it all, simulated."""

import sys

import numpy as np
import pytest

from benchmarks.error_rate import OVER, WITHIN, Case, rate
from edgekit.mixing import frozen_then_squeezed, most_of_the_error
from edgekit.recipes import Group
from edgekit.searching import Found, Steps, search

Kind = tuple[str, str, float, bool]
"""A made-up candidate: its name, how it stands, its cost, whether it is confirmed."""


def searched(*candidates: Kind, best: bool = False, late: bool = False) -> tuple[str | None, list[str], Found[Kind]]:
    """(the pick, what was confirmed in order, all that was found)."""
    confirmed: list[str] = []

    def confirm(one: Kind, alpha: float) -> Kind:
        confirmed.append(one[0])
        return one

    steps = Steps[Kind, Kind](
        lambda one: one,
        lambda one: one[1],  # type: ignore[arg-type, return-value]
        lambda one: one[2],
        lambda one: one[2],
        confirm,
        lambda one: one[3] and one[0] in confirmed,
        lambda one: False,
        lambda one: one[0][0],
        lambda one: one[0].endswith("slow"),
    )
    found = search(candidates, steps, best, lambda: late)
    return found.pick[0] if found.pick else None, confirmed, found


def test_the_first_that_is_confirmed_is_taken_and_nothing_dearer_is_made() -> None:
    pick, confirmed, found = searched(("a", "out", 1, True), ("b", "good", 2, True), ("c", "good", 1, True))
    assert (pick, confirmed, found.untried) == ("b", ["b"], 1)


def test_a_doubtful_one_is_confirmed_when_nothing_else_is_left() -> None:
    pick, confirmed, _ = searched(("a", "doubtful", 1, True), ("b", "good", 2, False))
    assert (pick, confirmed) == ("a", ["b", "a"])


def test_the_best_is_the_one_that_costs_the_least() -> None:
    pick, confirmed, _ = searched(("a", "good", 2, True), ("b", "good", 1, False), ("c", "good", 1.5, True), best=True)
    assert (pick, confirmed) == ("c", ["b", "c"])


def test_of_one_kind_the_first_good_one_is_enough() -> None:
    pick, _, found = searched(("a1", "good", 2, True), ("b", "good", 3, True), ("a2", "good", 2, True), best=True)
    assert (pick, found.untried) == ("a1", 1)


def test_where_one_is_too_slow_no_other_of_its_kind_is_made() -> None:
    pick, _, found = searched(("a slow", "out", 1, True), ("a2", "good", 1, True), ("b", "good", 3, True))
    assert (pick, [one[0] for one in found.tried]) == ("b", ["a slow", "b"])


def test_where_the_first_of_a_kind_is_not_confirmed_the_next_takes_its_place() -> None:
    pick, confirmed, _ = searched(("a1", "good", 2, False), ("b", "good", 3, True), ("a2", "good", 2, True), best=True)
    assert (pick, confirmed) == ("a2", ["a1", "a2"])


def test_when_the_time_is_over_the_first_attempt_was_still_made() -> None:
    pick, _, found = searched(("a", "out", 1, True), ("b", "good", 1, True), late=True)
    assert (pick, len(found.tried), found.untried) == (None, 1, 1)


def test_the_sensitive_are_frozen_then_squeezed() -> None:
    groups = [Group((name,), error) for name, error in zip("abcdefgh", (1, 9, 2, 8, 3, 7, 4, 5), strict=True)]
    kept = frozen_then_squeezed(groups, lambda kept: {"b", "f"} <= set(kept))
    assert kept == ("b", "f")


def test_a_model_that_only_half_in_float_would_save_is_not_called_int8() -> None:
    groups = [Group((name,), 1.0) for name in "abcdefgh"]
    assert frozen_then_squeezed(groups, lambda kept: len(kept) > 4) is None


def test_what_could_not_be_measured_counts_as_sensitive() -> None:
    groups = [Group(("a",), 0.1), Group(("b",), np.nan), Group(("c",), 0.2), Group(("d",), 0.0)]
    assert frozen_then_squeezed(groups, lambda kept: "b" in kept) == ("b",)


def test_without_samples_to_screen_on_most_of_the_error_is_kept_in_float() -> None:
    groups = [Group((name,), error) for name, error in zip("abcdef", (0.0, 80.0, 1.0, 15.0, 2.0, 2.0), strict=True)]
    assert most_of_the_error(groups) == ("b", "d")


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in OVER if case.shares], ids=lambda case: case.title)
def test_a_model_over_budget_passes_in_at_most_one_build_of_twenty(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """2,000 simulated builds of the whole search; the rate is printed."""
    passed, _ = rate(case, 2_000)
    with capsys.disabled():
        sys.stdout.write(f"\n{case.title}: {passed * 100:.1f} % of 2,000 builds passed\n")
    assert passed <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("case", "least"), list(zip(WITHIN, (0.95, 0.6, 0.3, 0.5, 0.5, 0.85), strict=True)))
def test_a_model_within_budget_mostly_passes(case: Case, least: float, capsys: pytest.CaptureFixture[str]) -> None:
    passed, _ = rate(case, 500)
    with capsys.disabled():
        sys.stdout.write(f"\n{case.title}: power {passed * 100:.1f} % of 500 builds\n")
    assert passed >= least
