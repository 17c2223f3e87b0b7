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
        one.add_argument(
            "--device", type=Path, default=FOLDER, metavar="DIR", help=f"the device's folder ({FOLDER})"
        )  # fmt: skip
        one.add_argument("--json", action="store_true", help="print what came of it as JSON")
        _own(name, one)


def _own(name: str, one: argparse.ArgumentParser) -> None:
    if name == "install":
        _install(one)
    elif name == "receive":
        one.add_argument("sha256", metavar="SHA256")
        one.add_argument("--offset", type=_count, default=0, metavar="N", help="bytes that are here already (0)")
        one.add_argument("--size", type=_count, metavar="N", help="bytes of the whole file")
    elif name == "trust":
        one.add_argument("file", type=Path, nargs="+", metavar="FILE", help="trust documents, the oldest first")
    elif name in ("history", "rollback", "pin", "unpin"):
        one.add_argument("name", metavar="NAME", nargs="?" if name == "history" else None, help="of a model")
    if name == "rollback":
        one.add_argument("--to", metavar="ID", help="this version (see history); it is tried first")
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
    one.add_argument("--no-activate", action="store_true", help="verify, keep and try it, but do not serve it")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)
