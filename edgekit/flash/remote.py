"""The verbs of the runtime on a device: `edgekit-runtime WORDS --device DIR --json` over the line, and its answers.

Refuses an answer that is no JSON; a refusal of the device is told in its own words."""

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edgekit_runtime.errors import Busy, EdgeKitError, NotFound

from edgekit.flash.facts import Homes
from edgekit.flash.line import AGAIN, Done, Line

NO_RUNTIME = 127
"""The status of a shell that finds no program."""


def no_runtime(line: Line) -> NotFound:
    """What is told of a device that was never flashed."""
    return NotFound(f"there is no runtime on {line.where}", hint=f"edgekit flash BUNDLE ssh://{line.where}")


def command(homes: Homes, *words: str) -> str:
    """The shell's words for a verb there."""
    return shlex.join([f"{homes.prefix}/current/bin/edgekit-runtime", *words, "--device", homes.device])


def asked(line: Line, homes: Homes, *words: str, send: Iterable[bytes] = (), seconds: float = 900.0) -> Any:
    """What a verb answers.

    Raises:
        EdgeKitError: the device refused, or there is no runtime there.
    """
    return answered(line, line.run(command(homes, *words, "--json"), send, seconds))


def followed(line: Line, homes: Homes, tell: Callable[[str], None], *words: str, send: Iterable[bytes] = ()) -> Any:
    """As `asked`, for a verb that tells its steps while it works: on stderr, which is turned round with stdout."""
    script = f"{command(homes, *words, '--json')} 3>&1 1>&2 2>&3"
    said_anyway = ("error:", "hint:", "sh: ")
    done = line.follow(script, lambda words: None if words.startswith(said_anyway) else tell(words), send)
    return answered(line, Done(done.status, done.err.encode(), done.out.decode(errors="replace")))


def answered(line: Line, done: Done) -> Any:
    """The JSON of an answer; the error that it says."""
    text = done.out.decode(errors="replace")
    first = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
    try:
        said = json.loads(text[first : max(text.rfind("}"), text.rfind("]")) + 1]) if first >= 0 else None
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, Mapping) and said.get("outcome") == "refused":
        raise _refusal(line, said)
    if said is None and done.status == NO_RUNTIME:
        raise no_runtime(line)
    if said is None:
        raise _in_words(line, done)
    return said


def _refusal(line: Line, said: Mapping[str, Any]) -> EdgeKitError:
    kind = Busy if said.get("reason") == Busy.reason else EdgeKitError
    wrong = kind(f"{line.where}: {_text(said.get('error'))}", hint=_text(said.get("hint")))
    wrong.reason = _text(said.get("reason"))[:40]
    return wrong


def _in_words(line: Line, done: Done) -> EdgeKitError:
    """What a verb says to people where it gives no JSON: a line `error: ...` and one `hint: ...`."""
    told = dict(one.split(": ", 1) for one in done.err.splitlines() if one.startswith(("error: ", "hint: ")))
    if "error" not in told:
        return EdgeKitError(f"{line.where}: {done.last()}", hint=AGAIN)
    return EdgeKitError(f"{line.where}: {_text(told['error'])}", hint=_text(told.get("hint", AGAIN)))


def _text(value: object) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(value or "")[:1000])
