"""Carry a bundle to a device that has a runtime: only the files that are not there, from where one stopped; install it.

Refuses nothing itself: the device verifies all, tries it and tells; what it refuses is told in its words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.signature import SIGNATURE
from edgekit_runtime.verified import Vouched

from edgekit.flash import carrying, remote
from edgekit.flash.facts import Facts
from edgekit.flash.line import AGAIN, Line
from edgekit.flash.moving import Moved, Piece, stream

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Terms:
    """How the device is to install it, as `edgekit-runtime install` has it."""

    probation: float = 300.0
    again: bool = False
    roll_back_on_drift: bool = False
    downgrade: bytes | None = None

    def words(self) -> list[str]:
        """As options."""
        found = ["--probation", f"{self.probation:g}"]
        found += ["--again"] if self.again else []
        found += ["--roll-back-on-drift"] if self.roll_back_on_drift else []
        return [*found, "--downgrade", "/dev/stdin"] if self.downgrade is not None else found


@dataclass(frozen=True)
class Rest:
    """What is still to be sent: by digest, each file once. `there` of all files are on the device as a whole."""

    pieces: tuple[tuple[str, Piece], ...]
    there: int
    of: int

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(piece.size - piece.offset for _, piece in self.pieces)


def everything(bundle: Path, manifest: Manifest) -> Rest:
    """All files, for a device without a runtime to ask."""
    return rest(bundle, manifest, {})


def rest(bundle: Path, manifest: Manifest, there: Any) -> Rest:
    """The files that the answer of `have` does not tell of.

    Which bytes stand for a file is decided here alone: a delta from a file that both sides have goes in the same place.
    """
    told = there if isinstance(there, dict) else {}
    objects, parts = told.get("objects"), told.get("parts")
    has = set(objects) if isinstance(objects, list) and all(isinstance(one, str) for one in objects) else set()
    begun = parts if isinstance(parts, dict) else {}
    wanted = {entry.sha256: (name, entry.size) for name, entry in sorted(manifest.files.items())}
    pieces = []
    for sha256, (name, size) in wanted.items():
        if sha256 not in has:
            got = carrying.count(begun.get(sha256))
            pieces.append((sha256, Piece(bundle / name, size, got if got <= size else 0)))
    return Rest(tuple(pieces), len(wanted) - len(pieces), len(wanted))


def send(line: Line, facts: Facts, rest: Rest, moved: Moved) -> None:
    """Send these files, each from where it stopped.

    Raises:
        EdgeKitError: the device did not take one.
    """
    for sha256, piece in rest.pieces:
        words = ("receive", sha256, "--offset", str(piece.offset), "--size", str(piece.size))
        done = remote.asked(line, facts.homes, *words, send=stream(piece, moved), seconds=carrying.HOURS)
        if not isinstance(done, dict) or done.get("complete") is not True:
            raise EdgeKitError(f"{line.where} has not got all of {piece.path.name}", hint=AGAIN)


def trust(line: Line, facts: Facts, documents: Sequence[bytes]) -> None:
    """Have the device follow these trust documents, one after the other."""
    for raw in documents:
        remote.asked(line, facts.homes, "trust", "/dev/stdin", send=[raw])


def install(line: Line, facts: Facts, vouched: Vouched, terms: Terms, tell: Callable[[str], None]) -> dict[str, Any]:
    """Have the device verify, try and serve it; what came of it, its steps told as they happen."""
    contents = {MANIFEST: vouched.raw_manifest, SIGNATURE: vouched.raw_signature}
    folder = carrying.stage(line, facts, f"flash-{vouched.digest[:12]}", contents)
    given = [terms.downgrade] if terms.downgrade is not None else []
    done = remote.followed(line, facts.homes, tell, "install", folder, *terms.words(), send=given)
    if not isinstance(done, dict):
        raise EdgeKitError(f"{line.where} does not answer as it should", hint=AGAIN)
    return done
