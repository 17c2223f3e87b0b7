"""A running server in the terminal, looked at again and again: what `edgekit-runtime top` shows, as text to write.

Refuses a server that does not answer, or answers something else, with what to do. Light: heavy things come later."""

import argparse
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from edgekit_runtime.errors import EdgeKitError

if TYPE_CHECKING:
    from edgekit_runtime.top_rates import Look

DEFAULT = "http://127.0.0.1:8000"
OVER = 10.0
"""Rates and percentiles are of about so many seconds."""
SMALLEST = 20
"""Columns of the narrowest picture."""
BEGIN, HOME, END = "\x1b[?1049h\x1b[?25l", "\x1b[H", "\x1b[?25h\x1b[?1049l"
"""A screen of its own without a cursor; its first place; back to what was there."""
REST_OF_LINE, REST = "\x1b[K", "\x1b[J"


@dataclass(frozen=True)
class Wanted:
    """What to ask, how often, and how to show it; `live` draws each picture over the one before."""

    place: str = DEFAULT
    token: str = ""
    ca: Path | None = None
    once: bool = False
    json: bool = False
    interval: float = 1.0
    live: bool = False
    color: bool = False
    encoding: str = "utf-8"
    size: Callable[[], tuple[int, int]] = lambda: (80, 24)


def add(one: argparse.ArgumentParser) -> None:
    """Declare the options."""
    one.add_argument("server", nargs="?", default=DEFAULT, metavar="URL", help=f"or unix:PATH ({DEFAULT})")
    one.add_argument("--token", type=Path, metavar="FILE", help="a token for metrics is in there (or EDGEKIT_TOKEN)")
    one.add_argument("--tls-ca", type=Path, metavar="FILE", help="trust this certificate, for https")
    one.add_argument("--once", action="store_true", help="print one picture and end")
    one.add_argument("--json", action="store_true", help="print a line of JSON each time")
    one.add_argument("--interval", type=_interval, default=1.0, metavar="S", help="seconds between two looks (1)")


def wanted(given: argparse.Namespace, environ: Mapping[str, str], out: TextIO) -> Wanted:
    """What the words, the environment and the terminal ask for.

    Raises:
        EdgeKitError: the token's file does not read.
    """
    tty = out.isatty() and environ.get("TERM") != "dumb"
    token = _read_token(given.token) if given.token else environ.get("EDGEKIT_TOKEN", "").strip()
    return Wanted(
        given.server, token, given.tls_ca, given.once, given.json, given.interval,
        live=tty and not given.once and not given.json,
        color=tty and not given.json and not environ.get("NO_COLOR"),
        encoding=out.encoding or "utf-8",
        size=lambda: _size(environ, out),
    )  # fmt: skip


def frames(wanted: Wanted, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """What to write, piece by piece, until interrupted; write `after(wanted)` at the end, however it comes.

    A live picture outlasts a server that restarts: it says so and asks on.

    Raises:
        EdgeKitError: the server does not answer, or not this.
    """
    from edgekit_runtime.top_asking import look

    looks: deque[Look] = deque()
    began = False
    while True:
        trouble = None
        try:
            looks.append(look(wanted.place, wanted.token, wanted.ca))
        except EdgeKitError as error:
            if not looks or not wanted.live:
                raise
            trouble = error
        while len(looks) > 2 and looks[-1].at - looks[1].at >= OVER:
            looks.popleft()
        text = _json(looks) if wanted.json else _picture(looks, wanted, trouble)
        yield (BEGIN if wanted.live and not began else "") + text
        began = True
        if wanted.once:
            return
        sleep(wanted.interval)


def after(wanted: Wanted) -> str:
    """What gives the terminal back as it was."""
    return END if wanted.live else ""


def _json(looks: "deque[Look]") -> str:
    from edgekit_runtime.top_rates import key, models, now, to_json

    last = looks[-1]
    found = now(looks[0] if len(looks) > 1 else None, last)
    told = [{**model, "now": to_json(found[key(model)])} for model in models(last)]
    return json.dumps({**last.status, "models": told}, separators=(",", ":")) + "\n"


def _picture(looks: "deque[Look]", wanted: Wanted, trouble: EdgeKitError | None) -> str:
    from edgekit_runtime.top_rates import now
    from edgekit_runtime.top_text import picture
    from edgekit_runtime.top_words import Look as Shown
    from edgekit_runtime.top_words import rendered, row, words

    columns, lines_there = wanted.size()
    # one column is left free: a terminal that wraps after its last one would make an empty line of it
    unicode = wanted.encoding.lower().replace("-", "").startswith("utf")
    shown = Shown(max(SMALLEST, columns - 1), wanted.color, unicode)
    lines = picture(looks[-1], now(looks[0] if len(looks) > 1 else None, looks[-1]), wanted.place, shown)
    if trouble is not None:
        lines = [*row("", [(words(trouble.what), "red"), (words(trouble.hint), "")], shown, 0), [], *lines]
    drawn = [rendered(line, shown) for line in lines]
    if wanted.live:
        drawn = drawn[: max(1, lines_there - 1)]
        text = HOME + "".join(f"{line}{REST_OF_LINE}\n" for line in drawn) + REST
    else:
        text = "\n".join(drawn) + ("\n" if wanted.once else "\n\n")
    return text.encode(wanted.encoding, "backslashreplace").decode(wanted.encoding)


def _size(environ: Mapping[str, str], out: TextIO) -> tuple[int, int]:
    """Columns and lines: COLUMNS and LINES where they are set, else the terminal's own."""
    import os

    try:
        columns, lines = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        columns, lines = 80, 24
    said = [environ.get(name, "") for name in ("COLUMNS", "LINES")]
    told = [int(one) if one.isdecimal() and 0 < int(one) < 10_000 else 0 for one in said]
    return told[0] or columns or 80, told[1] or lines or 24


def _read_token(path: Path) -> str:
    try:
        text = path.read_bytes()[:4096].decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text or len(text.split()) != 1:
        raise EdgeKitError(f"{path} holds no token", hint="write what `edgekit-runtime token new` printed into it")
    return text


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError("say 0.1 to 3600 seconds")
    return value
