"""Carry a bundle to a device that has a runtime: only what is not there, as deltas or from where it stopped.

Refuses nothing itself: the device verifies all, tries and installs it; what it refuses is told in its words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.signature import SIGNATURE
from edgekit_runtime.verified import Vouched

from edgekit.flash import carrying, remote
from edgekit.flash.differing import Delta
from edgekit.flash.facts import Facts
from edgekit.flash.line import AGAIN, Line
from edgekit.flash.moving import Moved, Piece, stream, stream_bytes

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Terms:
    """How the device is to install it, as `edgekit-runtime install` has it; `shadow` are its words for comparing the
    version with the live one first, none for making it live at once."""

    probation: float = 300.0
    again: bool = False
    roll_back_on_drift: bool = False
    downgrade: bytes | None = None
    shadow: tuple[str, ...] = ()

    def words(self, leave: str = "/dev/stdin") -> list[str]:
        """As options; the device finds the leave to go back at `leave`."""
        found = ["--probation", f"{self.probation:g}"]
        found += ["--again"] if self.again else []
        found += ["--roll-back-on-drift"] if self.roll_back_on_drift else []
        found += self.shadow
        return [*found, "--downgrade", leave] if self.downgrade is not None else found


@dataclass(frozen=True)
class Rest:
    """What is still to be sent: by digest, each file once; `deltas` stand for some. `there` of all files are on the
    device as a whole."""

    pieces: tuple[tuple[str, Piece], ...]
    there: int
    of: int
    deltas: Mapping[str, Delta] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes to send."""
        return self.delta_bytes + sum(left(piece) for sha256, piece in self.pieces if sha256 not in self.deltas)

    @property
    def delta_bytes(self) -> int:
        """Bytes of these that are deltas."""
        return sum(len(delta.content) for delta in self.deltas.values())

    @property
    def delta_files(self) -> int:
        """Bytes of the files that the deltas stand for."""
        return sum(piece.size for sha256, piece in self.pieces if sha256 in self.deltas)

    @property
    def written(self) -> int:
        """Bytes that are written there."""
        return sum(piece.size if sha256 in self.deltas else left(piece) for sha256, piece in self.pieces)


def left(piece: Piece) -> int:
    """Bytes from its offset on."""
    return piece.size - piece.offset


def rest(bundle: Path, manifest: Manifest, there: Any, deltas: Mapping[str, Delta] | None = None) -> Rest:
    """The files that the answer of `have` does not tell of; `deltas` stand for those whose base it tells of."""
    told = there if isinstance(there, dict) else {}
    objects, parts = told.get("objects"), told.get("parts")
    has = set(objects) if isinstance(objects, list) and all(isinstance(one, str) for one in objects) else set()
    begun = parts if isinstance(parts, dict) else {}
    wanted = {entry.sha256: (name, entry.size) for name, entry in sorted(manifest.files.items())}
    pieces = {}
    for sha256, (name, size) in wanted.items():
        if sha256 not in has:
            got = carrying.count(begun.get(sha256))
            pieces[sha256] = Piece(bundle / name, size, got if got <= size else 0)
    fit = {
        sha256: delta
        for sha256, delta in (deltas or {}).items()
        if sha256 in pieces and delta.base in has and delta.spares(pieces[sha256])
    }
    return Rest(tuple(pieces.items()), len(wanted) - len(pieces), len(wanted), fit)


def send(line: Line, facts: Facts, rest: Rest, moved: Moved) -> None:
    """Send these files, each from where it stopped; where the device makes nothing of a delta, the file itself.

    Raises:
        EdgeKitError: the device did not take one.
    """
    for sha256, piece in rest.pieces:
        if delta := rest.deltas.get(sha256):
            if _by_delta(line, facts, (sha256, piece.size), delta, moved):
                continue
            moved.more(left(piece))
        words = ("receive", sha256, "--offset", str(piece.offset), "--size", str(piece.size))
        done = remote.asked(line, facts.homes, *words, send=stream(piece, moved), seconds=carrying.HOURS)
        if not isinstance(done, dict) or done.get("complete") is not True:
            raise EdgeKitError(f"{line.where} has not got all of {piece.path.name}", hint=AGAIN)


def _by_delta(line: Line, facts: Facts, file: tuple[str, int], delta: Delta, moved: Moved) -> bool:
    """Whether the device made the file. It may have another base than it says, or a runtime that knows no deltas.

    Raises:
        EdgeKitError: the connection was lost.
    """
    words = ("receive", file[0], "--size", str(file[1]), "--delta", delta.base)
    command = remote.command(facts.homes, *words, "--json")
    done = line.run(command, stream_bytes(delta.content, moved), carrying.HOURS)
    try:
        said = remote.answered(line, done)
    except EdgeKitError:
        return False
    return done.status == 0 and isinstance(said, dict) and said.get("complete") is True


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
