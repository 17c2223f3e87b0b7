"""The routes for what comes back from the field: true labels for answers, and the samples that were kept.

Refuses what is no feedback, labels and ids beyond their lengths, and to give samples anywhere but to the admin."""

import re
from collections.abc import Awaitable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from edgekit_runtime.errors import BadRequest, EdgeKitError, Exceeded, Forbidden
from edgekit_runtime.exchange import Request, Response, json_response
from edgekit_runtime.feedback import LONGEST_ID, Feedback, Judged
from edgekit_runtime.protocols import jsons
from edgekit_runtime.routes import Parts, Route
from edgekit_runtime.threads import in_thread
from edgekit_runtime.told_labels import LONGEST_LABEL

if TYPE_CHECKING:
    from edgekit_runtime.samples import Samples
    from edgekit_runtime.service import Service

MOST = 1_000
"""Labels in one request."""
MOST_BODY = 2**20
HINT = 'send {"id": "...", "label": "cat"} ("label": [...] of a request of several rows), or a list of such'
TOLD = {"id", "label", "model"}
BY_ROW = ("answer", "label", "right", "index")
TAR = (b"content-type", b"application/x-tar")
NAMES = {"model": 200, "version": 200, "after": 64}
"""What a query may say, and how long it may be."""


def routes(feedback: Feedback | None, samples: "Samples | None") -> list[Route]:
    """The routes; None for what is switched off."""

    def tell(service: "Service", request: Request, parts: Parts) -> Response | Awaitable[Response]:
        if feedback is None:
            raise Forbidden("no feedback is taken here", hint="serve with --feedback")
        asked, alone = read(request, service)
        told = [_judged(feedback, one, service) for one in asked]
        if alone and isinstance(told[0], EdgeKitError):
            raise told[0]
        said = [_said(one, feed) for one, feed in zip(told, asked, strict=True)]
        response = json_response(said[0] if alone else said)
        judged = [one[0] for one in told if not isinstance(one, EdgeKitError) and len(one) == 1]  # more are not kept
        return response if samples is None or not judged else _noted(samples, judged, response)

    def export(service: "Service", request: Request, parts: Parts) -> Awaitable[Response]:
        store, asked = _on(samples), _query(request)
        model, version, after = asked.get("model"), asked.get("version"), asked.get("after", "")
        return in_thread(lambda: Response(200, b"".join(store.export(model, version, after)), [TAR]))

    def index(service: "Service", request: Request, parts: Parts) -> Awaitable[Response]:
        store, after = _on(samples), _query(request, ("after",)).get("after", "")
        return in_thread(lambda: json_response(store.index(after)))

    return [
        Route("POST", re.compile("/feedback"), "infer", tell=tell),
        Route("GET", re.compile("/samples"), "admin", tell=export),
        Route("GET", re.compile("/samples/index"), "admin", tell=index),
    ]


def read(request: Request, service: "Service") -> tuple[list[dict[str, Any]], bool]:
    """The body's objects, checked, and whether there is one that is in no list.

    Raises:
        BadRequest: it is no feedback.
        Exceeded: there is too much of it.
    """
    if len(request.body) > MOST_BODY:
        raise Exceeded(f"feedback of more than {MOST_BODY} bytes", hint="send fewer labels at once")
    raw = jsons.plain(jsons.read(request.body, service.policy.limits))
    every = raw if isinstance(raw, list) else [raw]
    if sum(map(_labels, every)) > MOST:
        raise Exceeded(f"more than {MOST} labels at once", hint="send them in several requests")
    if not every:
        raise BadRequest("an empty list of labels", hint=HINT)
    for one in every:
        _check(one)
    return every, not isinstance(raw, list)


def _labels(one: Any) -> int:
    """How many labels it tells."""
    label = one.get("label") if isinstance(one, dict) else None
    return len(label) if isinstance(label, list) and label else 1


def _check(one: Any) -> None:
    if not isinstance(one, dict) or not {"id", "label"} <= one.keys() or not one.keys() <= TOLD:
        raise BadRequest("feedback is an id and a label, and may name the model", hint=HINT)
    id, model = one["id"], one.get("model")
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
        raise BadRequest(f"an id is a text of 1 to {LONGEST_ID} characters", hint=HINT)
    if model is not None and (not isinstance(model, str) or len(model) > NAMES["model"]):
        raise BadRequest("a model is named by a text", hint=HINT)
    for label in one["label"] if isinstance(one["label"], list) else [one["label"]]:
        if not isinstance(label, str | int) or isinstance(label, bool):
            raise BadRequest("a label is a word, or the number of its class", hint=HINT)
        if isinstance(label, str) and not 0 < len(label) <= LONGEST_LABEL:
            raise BadRequest(f"a label has 1 to {LONGEST_LABEL} characters", hint=HINT)


def _judged(feedback: Feedback, one: dict[str, Any], service: "Service") -> tuple[Judged, ...] | EdgeKitError:
    """The judgement of each row; what is refused of one label of a list must not lose the others."""
    model, label = one.get("model"), one["label"]
    name = None if model is None else service.aliases.get(model, (model, None))[0]
    try:
        return feedback.tell_rows(one["id"], label if isinstance(label, list) else (label,), name)
    except EdgeKitError as error:
        return error


def _said(told: tuple[Judged, ...] | EdgeKitError, asked: dict[str, Any]) -> dict[str, Any]:
    """What is answered; lists, where a list of labels was told."""
    if isinstance(told, EdgeKitError):
        return {"id": asked["id"], "error": told.what, "hint": told.hint}
    first = asdict(told[0])
    if not isinstance(asked["label"], list):
        return first
    return first | {key: [getattr(one, key) for one in told] for key in BY_ROW}


async def _noted(samples: "Samples", judged: list[Judged], response: Response) -> Response:
    """The answer, once the labels are with the samples that were kept."""

    def note() -> None:
        for one in judged:
            samples.told(one.model, one.id, one.label, one.index)

    await in_thread(note)
    return response


def _on(samples: "Samples | None") -> "Samples":
    if samples is None:
        raise Forbidden("no samples are kept here", hint="serve with --keep-samples MB")
    return samples


def _query(request: Request, names: tuple[str, ...] = tuple(NAMES)) -> dict[str, str]:
    """What the query says.

    Raises:
        BadRequest: something else than these, or one of them twice.
    """
    hint = f"say ?{'=...&'.join(names)}=... or less"
    try:
        found = parse_qs(request.query, keep_blank_values=True, max_num_fields=16, errors="strict")
    except ValueError as error:
        raise BadRequest("the query does not read", hint=hint) from error
    if any(name not in names or len(values) != 1 or len(values[0]) > NAMES[name] for name, values in found.items()):
        raise BadRequest("the query says what is not asked for here, or something twice", hint=hint)
    return {name: values[0] for name, values in found.items()}
