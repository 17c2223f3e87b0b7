"""Carry a runtime to a device: what is not there yet, from the byte on where the last try ended; then make it the one.

Refuses nothing itself; what the device refuses is told in its own words."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from edgekit_runtime.errors import Busy, EdgeKitError

from edgekit.flash.facts import Facts, Homes
from edgekit.flash.line import AGAIN, Done, Line
from edgekit.flash.moving import Moved, Piece, stream
from edgekit.flash.wheels import OF_THE_SYSTEM, Wheel, Wheelhouse

BUSY, WRONG = 75, 76
"""What `hands` ends with."""
BEGIN = (
    "import os,sys\n"
    "n={size}\n"
    "s=b''\n"
    "while len(s)<n:\n"
    " g=os.read(0,n-len(s))\n"
    " if not g: sys.exit(1)\n"
    " s+=g\n"
    "exec(compile(s,'edgekit','exec'),{{'__name__':'__main__'}})\n"
)
"""Read exactly our file from standard input, and run it: what follows on standard input is for it."""
HOURS = 6 * 3600.0
"""Seconds: a slow line carries a runtime all the same."""
LINK = "/usr/local/bin/edgekit-runtime"


def up_to_date(facts: Facts, wheelhouse: Wheelhouse) -> bool:
    """Whether the device has this very runtime, and it starts."""
    return facts.runtime is not None and facts.starts is not None and facts.runtime.get("digest") == wheelhouse.digest


def newer_there(facts: Facts, version: str, engines: Sequence[str]) -> bool:
    """Whether the device has a runtime of a later version that has the engines: it is left alone."""
    if facts.runtime is None or facts.starts is None:
        return False
    there = facts.runtime.get("engines")
    has_all = isinstance(there, list) and all(engine in there for engine in engines)
    return has_all and _number(facts.starts) > _number(version)


def missing(line: Line, facts: Facts, wheelhouse: Wheelhouse) -> list[tuple[Wheel, int]]:
    """The wheels that are not on the device as a whole, and how many bytes of each are."""
    there = _hands(line, "have", facts.homes.prefix)
    if not isinstance(there, dict):
        raise EdgeKitError(f"{line.where} does not say what it has", hint=AGAIN)
    found = [(wheel, count(there.get(wheel.sha256))) for wheel in wheelhouse.wheels]
    return [(wheel, got if got <= wheel.size else 0) for wheel, got in found if got != wheel.size]


def send(line: Line, facts: Facts, wheels: Sequence[tuple[Wheel, int]], moved: Moved) -> None:
    """Send the rest of these wheels in one go."""
    if not wheels:
        return
    told = json.dumps([[wheel.sha256, wheel.size, got] for wheel, got in wheels])

    def pieces() -> Iterator[bytes]:
        yield told.encode() + b"\n"
        for wheel, got in wheels:
            yield from stream(Piece(wheel.path, wheel.size, got), moved)

    _hands(line, "receive", facts.homes.prefix, pieces())


def unpack(line: Line, facts: Facts, wheelhouse: Wheelhouse) -> str:
    """Make the wheels that are on the device its runtime; what it is called there."""
    wish = json.dumps(wish_of(wheelhouse, facts.homes)).encode() + b"\n"
    done = _hands(line, "unpack", facts.homes.prefix, [wish])
    return str(done.get("runtime", "")) if isinstance(done, dict) else ""


def wish_of(wheelhouse: Wheelhouse, homes: Homes) -> dict[str, object]:
    """What `hands` is told to make a runtime of, on the device."""
    return {
        "digest": wheelhouse.digest,
        "wheels": [{"sha256": wheel.sha256, "name": wheel.name, "size": wheel.size} for wheel in wheelhouse.wheels],
        "system_site": wheelhouse.platform.arch in OF_THE_SYSTEM,
        "facts": wheelhouse.facts(),
        "link": LINK if homes.usual and not homes.own else None,
    }


def stage(line: Line, facts: Facts, name: str, contents: Mapping[str, bytes]) -> str:
    """Put small files where the device takes bundles in; the folder that they are in then."""
    head = json.dumps([name, {file: len(data) for file, data in contents.items()}]).encode() + b"\n"
    return str(_hands(line, "stage", facts.homes.device, [head, *contents.values()]))


def _hands(line: Line, verb: str, folder: str, more: Sequence[bytes] | Iterator[bytes] = ()) -> Any:
    """What `hands` answers on the device."""
    code = files("edgekit.flash").joinpath("hands.py").read_bytes()

    def pieces() -> Iterator[bytes]:
        yield code
        yield from more

    command = shlex.join(["python3", "-I", "-c", BEGIN.format(size=len(code)), verb, folder])
    done = line.run(command, pieces(), seconds=HOURS)
    if done.status == 0:
        try:
            return json.loads(done.out)
        except ValueError as error:
            raise EdgeKitError(f"{line.where} does not answer as it should", hint=AGAIN) from error
    raise _wrong(line, done)


def _wrong(line: Line, done: Done) -> EdgeKitError:
    if done.status == BUSY:
        return Busy(f"{line.where}: {done.last()}", hint="wait until it ends, then run this again")
    full = "No space left" in done.err
    hint = "remove files there, then run the same again" if full else AGAIN
    return EdgeKitError(f"{line.where}: {done.last()}", hint=hint)


def count(value: object) -> int:
    """A number of bytes that a device told; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
