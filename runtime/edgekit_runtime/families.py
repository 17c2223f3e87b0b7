"""What is measured, as families of samples in Prometheus' sense, and the text that Prometheus reads. Pure.

Refuses nothing: names and labels are ours."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Labels = tuple[tuple[str, str], ...]
Kind = Literal["counter", "gauge", "histogram"]
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One number; `suffix` is "_bucket", "_sum" or "_count" in a histogram, else empty."""

    value: float
    labels: Labels = ()
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name; `words` say in a sentence what is counted, the unit is in the name."""

    name: str
    kind: Kind
    words: str
    samples: tuple[Sample, ...]


def text(families: Iterable[Family]) -> str:
    """Prometheus' text format, version 0.0.4; families without samples are left out."""
    lines: list[str] = []
    known: dict[Labels, str] = {}
    for family in families:
        if not family.samples:
            continue
        lines += [f"# HELP {family.name} {_escaped(family.words)}", f"# TYPE {family.name} {family.kind}"]
        for one in family.samples:
            labels = known.get(one.labels)
            if labels is None:
                labels = known[one.labels] = _labels(one.labels)
            lines.append(f"{family.name}{one.suffix}{labels} {_number(one.value)}")
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in labels) + "}"


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', r"\"")


def _escaped(words: str) -> str:
    return words.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    if type(value) is int:
        return str(value)
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
