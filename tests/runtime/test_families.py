"""Families as Prometheus' text: numbers, labels, and what must not break a line."""

import math

import pytest
from edgekit_runtime.families import Family, Sample, text


def lines(*samples: Sample, words: str = "Words.") -> list[str]:
    return text([Family("edgekit_x", "gauge", words, samples)]).splitlines()


def test_a_family_says_what_it_is_before_its_samples() -> None:
    assert lines(Sample(1), Sample(2, (("a", "b"),))) == [
        "# HELP edgekit_x Words.",
        "# TYPE edgekit_x gauge",
        "edgekit_x 1",
        'edgekit_x{a="b"} 2',
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (-3.0, "-3"),
        (0.1, "0.1"),
        (1e-9, "1e-09"),
        (2**53 - 1, "9007199254740991"),
        (1e300, "1e+300"),
        (1795344731.595, "1795344731.595"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
    ],
)
def test_numbers_read_back_as_they_were(value: float, told: str) -> None:
    assert lines(Sample(value))[-1] == f"edgekit_x {told}"
    assert float(told) == value or math.isnan(value)


def test_what_a_label_holds_breaks_no_line() -> None:
    told = lines(Sample(1, (("a", 'quote " backslash \\ line\nend'),)), words="two\nlines \\")
    assert told[0] == r"# HELP edgekit_x two\nlines \\"
    assert told[-1] == r'edgekit_x{a="quote \" backslash \\ line\nend"} 1'


def test_a_family_without_samples_is_not_told() -> None:
    assert not any(lines())


def test_a_suffix_stands_before_the_labels() -> None:
    assert lines(Sample(3, (("le", "+Inf"),), "_bucket"))[-1] == 'edgekit_x_bucket{le="+Inf"} 3'
