"""The commands of `edgekit-runtime` that work on a device's folder, from words to what they do; see `store_verbs`.

Refuses words that are none. Declares only: each command's part is imported when it runs."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit_runtime.option_words import number

FOLDER = Path("/var/lib/edgekit")
VERBS = {
    "install": "Verify a bundle, try it here, and serve it: on trial first, with the way back kept.",
    "status": "Show what is installed and served on this device.",
    "history": "Show what happened to the models of this device.",
    "rollback": "Go back to the version before, or to another one that is here.",
    "pin": "Keep a version, whatever comes after it.",
    "unpin": "Let gc remove a version when nothing else needs it.",
    "gc": "Remove versions and files that nothing needs.",
    "have": "Tell which files are here, as JSON: for who carries others here.",
    "receive": "Take a file from stdin, from where it stopped, and keep it once it is whole.",
    "trust": "Follow trust documents: whose bundles may be installed here.",
}
Declare = Callable[[Any, str, str], argparse.ArgumentParser]


def add(verbs: Any, declare: Declare) -> None:
    """Declare the commands; `declare` makes a parser of a name and a sentence."""
    for name, words in VERBS.items():
        one = declare(verbs, name, words)
        one.set_defaults(does=name)
        add_device(one)
        one.add_argument("--json", action="store_true", help="print what came of it as JSON")
        _own(name, one)


def add_device(one: argparse.ArgumentParser) -> None:
    """Declare where the device's folder is."""
    one.add_argument("--device", type=Path, default=FOLDER, metavar="DIR", help=f"the device's folder ({FOLDER})")


def _own(name: str, one: argparse.ArgumentParser) -> None:
    if name == "install":
        _install(one)
    elif name == "receive":
        one.add_argument("sha256", metavar="SHA256")
        one.add_argument("--offset", type=_count, default=0, metavar="N", help="bytes that are here already (0)")
        one.add_argument("--size", type=_count, metavar="N", help="bytes of the whole file")
        one.add_argument("--delta", metavar="BASE_SHA256", help="a delta from this file comes; takes --size")
    elif name == "trust":
        one.add_argument("file", type=Path, nargs="+", metavar="FILE", help="trust documents, the oldest first")
    elif name in ("history", "rollback", "pin", "unpin"):
        one.add_argument("name", metavar="NAME", nargs="?" if name == "history" else None, help="of a model")
    if name == "rollback":
        one.add_argument("--to", metavar="ID", help="this version (see history); it is tried first")
        one.add_argument("--shadow", action="store_true", help="drop what is in shadow; what is live stays")
    elif name in ("pin", "unpin"):
        one.add_argument("id", metavar="ID", nargs="?", help="of a version; without it the one that is live")


def _install(one: argparse.ArgumentParser) -> None:
    one.add_argument("path", type=Path, metavar="BUNDLE", help="a folder that `edgekit build` made and signed")
    one.add_argument(
        "--trust", type=Path, action="append", default=[], metavar="FILE", help="follow this first; repeatable"
    )
    one.add_argument("--downgrade", type=Path, metavar="FILE", help="a signed leave to go back below the floor")
    one.add_argument("--again", action="store_true", help="even if this version was rolled back here before")
    one.add_argument(
        "--probation", type=number, default=300.0, metavar="S", help="it must do well for so many seconds (300)"
    )
    one.add_argument("--roll-back-on-drift", action="store_true", help="a drift alarm meanwhile ends it too")
    _shadow(one)
    one.add_argument("--no-activate", action="store_true", help="verify, keep and try it, but do not serve it")


def _shadow(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--shadow", type=share, metavar="SHARE", help="answer this part of the live requests too, and decide by that"
    )
    one.add_argument("--shadow-requests", type=positive, default=500, metavar="N", help="requests to compare (500)")
    one.add_argument(
        "--shadow-seconds", type=number, default=86_400.0, metavar="S", help="within so many seconds (86400)"
    )
    one.add_argument(
        "--agreement", type=share, default=0.98, metavar="SHARE", help="so many must agree, for certain (0.98)"
    )
    one.add_argument(
        "--slower", type=number, default=1.2, metavar="TIMES", help="its time, in parts of the live one's (1.2)"
    )


def share(text: str) -> float:
    """A number above 0 up to 1."""
    value = number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: say a number above 0, up to 1")
    return value


def positive(text: str) -> int:
    """A whole number from 1 to a million."""
    value = _count(text) if len(text) < 8 else 0
    if not 0 < value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of requests: say 1 to 1000000")
    return value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)
