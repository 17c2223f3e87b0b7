"""The context of a distributed trace as W3C Trace Context writes it: the headers `traceparent` and `tracestate`. Pure.

Refuses, by giving None, what the specification calls invalid; of a state that does not read nothing is kept."""

import re
from dataclasses import dataclass

PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SIMPLE = r"[a-z][a-z0-9_\-*/]{0,255}"
TENANT = r"[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
MEMBER = re.compile(rf"({SIMPLE}|{TENANT})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e])")
MOST_MEMBERS = 32
LONGEST = 1024
"""Characters of a traceparent: those of later versions may be longer than ours."""


@dataclass(frozen=True, slots=True)
class Traceparent:
    """Who asked, in hexadecimal: the trace, the caller's own span; whether the caller records it.

    `state` are what vendors along the way have noted, as (key, value), the latest first.
    """

    trace_id: str
    span_id: str
    sampled: bool
    state: tuple[tuple[str, str], ...] = ()


def parse(parent: str, state: str = "") -> Traceparent | None:
    """The context that the headers tell; None where there is none, or none that is valid.

    A header that came several times is joined by commas: that makes a state longer, and a parent invalid.
    """
    if len(parent) > LONGEST:
        return None
    match = PARENT.fullmatch(parent.strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if trace_id == "0" * 32 or span_id == "0" * 16:
        return None
    return Traceparent(trace_id, span_id, bool(int(flags, 16) & 1), _state(state) if state else ())


def text(context: Traceparent) -> str:
    """The header `traceparent` for whoever is asked next, in version 00."""
    return f"00-{context.trace_id}-{context.span_id}-{'01' if context.sampled else '00'}"


def _state(header: str) -> tuple[tuple[str, str], ...]:
    """The members of a tracestate; none of them where one does not read, or they are too many."""
    found: dict[str, str] = {}
    words = [word for part in header.split(",") if (word := part.strip(" \t"))]
    if len(words) > MOST_MEMBERS:
        return ()
    for word in words:
        match = MEMBER.fullmatch(word)
        if match is None:
            return ()
        found.setdefault(match[1], match[2])  # of two with one key, the first is the later one
    return tuple(found.items())
