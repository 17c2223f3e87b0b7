"""Words and small pictures for a terminal, of a bounded width: numbers with units, bars, rows that wrap. Pure.

Refuses to pass on what a terminal would obey, and to write beyond the width that it is given."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from unicodedata import combining, east_asian_width

from edgekit_runtime.printable import safe

STYLES = {"bold": "1", "dim": "2", "red": "31", "yellow": "33", "green": "32"}
HEIGHTS, PLAIN_HEIGHTS = " ▁▂▃▄▅▆▇█", " .:-=+*%#"
BINS = 12
"""Cells of a small histogram; more bins are put together."""
LONGEST = 300

Piece = tuple[str, str]
"""Text, and the name of its style or nothing."""
Line = list[Piece]


@dataclass(frozen=True)
class Look:
    """How wide a line may be, and what the terminal can show."""

    columns: int = 80
    color: bool = False
    unicode: bool = True

    @property
    def ellipsis(self) -> str:
        """What stands for the rest of a text."""
        return "…" if self.unicode else "~"


def words(value: object) -> str:
    """A server's text on one line, safe for a terminal."""
    return safe(str(value)[:LONGEST].replace("\n", " ")) if isinstance(value, str | int | float) else ""


def cells(text: str) -> int:
    """How many columns a text takes: some letters take two, and some none."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)


def clipped(text: str, columns: int, look: Look) -> str:
    """The text in at most so many columns."""
    if cells(text) <= columns:
        return text
    kept = ""
    for one in text:
        if cells(kept + one) > columns - 1:
            break
        kept += one
    return kept + look.ellipsis if columns > 0 else ""


def row(title: str, parts: Iterable[Piece], look: Look, indent: int = 10) -> list[Line]:
    """A title and its parts, two spaces apart, on as many lines as they need."""
    indent = min(indent, look.columns // 3)
    room = look.columns - indent
    first = clipped(title, indent - 1, look)
    lines: list[Line] = []
    line: Line = [(first + " " * (indent - cells(first)), "dim")]
    used = 0
    for text, style in parts:
        if not text:
            continue
        text = clipped(text, room, look)
        if used and used + 2 + cells(text) > room:
            lines.append(line)
            line, used = [(" " * indent, "")], 0
        line += [("  ", "")] if used else []
        line.append((text, style))
        used += (2 if used else 0) + cells(text)
    return [*lines, line] if used else lines


def rendered(line: Line, look: Look) -> str:
    """The line with its colours, where there are some."""
    if not look.color:
        return "".join(text for text, _ in line).rstrip()
    return "".join(f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style and text.strip() else text for text, style in line)


def bar(share: float, look: Look, width: int = 8) -> str:
    """A share of 1 as a bar."""
    full = round(min(1.0, max(0.0, share)) * width)
    return ("█" * full + "░" * (width - full)) if look.unicode else ("#" * full + "." * (width - full))


def bins(shares: Sequence[float], look: Look) -> str:
    """A small histogram: the heights are shares of the tallest."""
    if len(shares) > BINS:
        step = len(shares) / BINS
        shares = [sum(shares[int(i * step) : int((i + 1) * step)]) for i in range(BINS)]
    heights, tallest = HEIGHTS if look.unicode else PLAIN_HEIGHTS, max(shares, default=0.0)
    if tallest <= 0:
        return ""
    return "".join(heights[0 if one <= 0 else 1 + min(7, int(one / tallest * 7.999))] for one in shares)


def seconds(value: float) -> str:
    """How long something took: three figures and a unit."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.3g} s"


def span(value: float) -> str:
    """How long something lasts, roughly."""
    whole = int(max(0.0, value))
    for size, name, less, less_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // less
            return f"{whole // size} {name} {rest} {less_name}" if rest and size > 60 else f"{whole // size} {name}"
    return f"{whole} s"


def size(value: float) -> str:
    """Bytes in the unit a person would use."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}" if value < 999.5 * unit else f"{value / unit:.0f} {name}"
    return f"{value:.0f} bytes"


def percent(share: float) -> str:
    """A share of 1, as a person says it."""
    return f"{share * 100:.1f} %"


def clock(ms: float | None) -> str:
    """The time of day here of so many milliseconds since 1970; nothing where there is no such time."""
    try:
        return "" if ms is None else time.strftime("%H:%M:%S", time.localtime(ms / 1000))
    except (OverflowError, OSError, ValueError):
        return ""
