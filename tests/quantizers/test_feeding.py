"""The samples that sensitivity is measured on: spread over all, and not those that set the ranges."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.tensors import Feeds

from edgekit.quantizers import Wish
from edgekit.quantizers.feeding import PROBES, probed
from edgekit.recipes import Recipe


def wish(count: int, statistics: Path | None = None) -> Wish:
    """A wish whose samples are numbered."""

    def numbered() -> Iterator[Feeds]:
        for number in range(count):
            yield {"x": np.array([number])}

    return Wish(Recipe("int8"), numbered, count, statistics=statistics)


def numbers(feeds: Iterator[Feeds] | list[Feeds]) -> list[int]:
    return [int(one["x"][0]) for one in feeds]


@pytest.mark.parametrize("count", [2 * PROBES, 67, 500, 512, 1029])
def test_where_there_are_enough_the_probes_set_no_range_and_nothing_is_lost(count: int) -> None:
    probes, others = probed(wish(count))
    assert others.calibration is not None
    for _ in range(2):  # anew at each call
        rest = numbers(others.calibration())
        assert len(probes) == PROBES
        assert len(rest) == others.samples
        assert sorted(numbers(probes) + rest) == list(range(count))
    assert max(numbers(probes)) > 0.7 * count


@pytest.mark.parametrize("count", [1, 5, PROBES, 2 * PROBES - 1])
def test_where_there_are_few_all_of_them_set_the_ranges(count: int) -> None:
    asked = wish(count)
    probes, same = probed(asked)
    assert same is asked
    assert len(probes) == min(count, PROBES)


def test_statistics_of_the_others_are_kept_apart_from_those_of_all(tmp_path: Path) -> None:
    _, others = probed(wish(100, tmp_path))
    assert others.statistics is not None
    assert others.statistics != tmp_path
    assert others.statistics.is_relative_to(tmp_path)
