"""Budgets and goals: how they are written, and what is within them."""

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.goals import Budget, Goals, parse_amount, parse_budget


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
        Budget(1, "pt").allows("mae", 1.0)


def test_percent_are_of_what_the_source_has() -> None:
    assert Budget(2, "%").allows("mae", 0.5) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("flag", "text", "kind", "amount"),
    [
        ("--max-latency", "20ms", "time", 20.0),
        ("--budget-time", "10m", "time", 600_000.0),
        ("--max-size", "5MB", "size", 5e6),
        ("--max-memory", "1 GiB", "size", 2.0**30),
    ],
)
def test_times_and_sizes_read(flag: str, text: str, kind: str, amount: float) -> None:
    assert parse_amount(flag, text, kind) == amount  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["20", "fast", "0ms", "-3ms", "20 parsecs"])
def test_a_time_that_does_not_read_is_told_with_one_that_does(text: str) -> None:
    with pytest.raises(EdgeKitError) as caught:
        parse_amount("--max-latency", text, "time")
    assert "--max-latency 20ms" in caught.value.hint


def test_what_was_not_measured_is_over_no_goal() -> None:
    goals = Goals(max_latency_ms=1.0, max_memory_mb=10.0)
    assert goals.exceeded(10**9, None, None) is None
    assert "--max-memory" in str(goals.exceeded(10, 11.0, None))
    assert "--max-latency" in str(goals.exceeded(10, 9.0, 1.1))
    assert "--max-latency" in str(goals.exceeded(10, 9.0, float("nan")))
    assert "--max-size" in str(Goals(max_bytes=9).exceeded(10, None, None))
