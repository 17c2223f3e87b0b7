"""What a v2 server says of itself, and of what it refuses, in words that tell a person what to type instead.

Refuses nothing itself: it makes the errors; what comes from a server is made safe for a terminal."""

import json
from collections.abc import Sequence
from typing import Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.printable import safe

from edgekit.calling import Answer, Ask, Place
from edgekit.posting import nearest

OURS = "edgekit-runtime"


def only_model(ask: Ask, place: Place) -> str:
    """The name of the one model that a server has.

    Raises:
        EdgeKitError: it has none, or several, or does not say.
    """
    names = _names(ask)
    if names is None:
        raise stranger(ask, place)
    if len(names) == 1:
        return names[0]
    if not names:
        raise EdgeKitError(f"{place} serves no models now", hint="load one, or ask again in a moment")
    raise EdgeKitError(f"{place} serves {len(names)} models: {_listing(names)}", hint=f"say {place}/{names[0]}")


def _names(ask: Ask) -> list[str] | None:
    """The models that a server lists, as KServe's servers do or as Triton does; None where it does neither."""
    answer = ask("GET", "/v2/models", None, {})
    if answer.status in (401, 403):
        raise _unknown(answer)
    found = decoded(answer.body) if answer.status == 200 else None
    listed = found.get("models") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        answer = ask("POST", "/v2/repository/index", b'{"ready": true}', {"Content-Type": "application/json"})
        listed = decoded(answer.body) if answer.status == 200 else None
    if not isinstance(listed, list):
        return None
    names = [one.get("name") if isinstance(one, dict) else one for one in listed]
    return sorted({safe(name) for name in names if isinstance(name, str)})


def decoded(text: bytes) -> Any:
    """The JSON value in an answer; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} others" if len(names) > 10 else "")


def stranger(ask: Ask, place: Place) -> EdgeKitError:
    """A server that is not ours, or does not list its models."""
    answer = ask("GET", "/v2", None, {})
    said = decoded(answer.body)
    if answer.status == 200 and isinstance(said, dict) and isinstance(said.get("name"), str):
        return EdgeKitError(f"{safe(said['name'])} at {place} does not list its models", hint=f"say {place}/NAME")
    return EdgeKitError(
        f"what answers at {place} is no server of the v2 protocol", hint="give the address that edgekit-runtime printed"
    )


def said(answer: Answer) -> tuple[str, str]:
    """The error and the hint in an answer, as one line each."""
    found = decoded(answer.body)
    found = found if isinstance(found, dict) else {}
    words = (found.get("error") or f"status {answer.status}", found.get("hint") or "")
    what, hint = (" ".join(safe(str(one)).split())[:500] for one in words)
    return what, hint


def _unknown(answer: Answer) -> EdgeKitError:
    what, hint = said(answer)
    own = "say --token FILE, or set EDGEKIT_TOKEN" if answer.status == 401 else "use a token with the scope infer"
    return EdgeKitError(f"not allowed: {what}", hint=hint if answer.status == 403 and hint else own)


def refusal(ask: Ask, place: Place, answer: Answer, asked: int) -> EdgeKitError:
    """What to do about an answer that is none."""
    what, hint = said(answer)
    before = f"after {asked:,} answers: " if asked else ""
    if answer.status in (401, 403):
        return _unknown(answer)
    if answer.status == 404:
        names = _names(ask)
        if names is None:
            return stranger(ask, place)
        if place.name not in names:
            has = _listing(names) or "none"
            return EdgeKitError(
                f"no model {place.name!r} there{nearest(place.name or '', names)}", hint=f"it has {has}"
            )
        return EdgeKitError(
            f"model {place.name} has no version {place.version!r}", hint=hint or f"say {place}/{place.name}"
        )
    if answer.status == 503:
        wait = answer.headers.get("retry-after", "")
        again = f"try again in {wait} s" if wait.isascii() and wait.isdigit() else "try again in a moment"
        return EdgeKitError(f"{before}{place} is busy: {what}", hint=again)
    if answer.status == 504:
        return EdgeKitError(f"{before}{place} gave up: {what}", hint=hint or "ask again when it has less to do")
    if answer.status >= 500:
        return EdgeKitError(f"{before}{place} failed: {what}", hint=hint or "look into its log")
    return EdgeKitError(f"{before}refused: {what}", hint=hint or _advice(ask))


def _advice(ask: Ask) -> str:
    """A hint for a refusal that brought none: other servers know nothing of photos."""
    said = decoded(ask("GET", "/v2", None, {}).body)
    name = safe(str(said.get("name", ""))) if isinstance(said, dict) else ""
    return "look at the model's inputs" if name == OURS else f"{name or 'this server'} takes arrays only: give x.npy"
