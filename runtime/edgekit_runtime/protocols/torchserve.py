"""What TorchServe answers, as JSON: predictions, errors, the list of models and a model's description. Pure.

Refuses nothing itself; `refusal` writes what others refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit_runtime.errors import EdgeKitError, Exceeded, NotFound
from edgekit_runtime.protocols import jsons
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

MOST_LISTED = 100
TYPES = {
    400: "BadRequestException",
    401: "InvalidKeyException",
    403: "InvalidKeyException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    408: "RequestTimeoutException",
    413: "TooLongFrameException",
    501: "UnsupportedOperationException",
    503: "ServiceUnavailableException",
    504: "RequestTimeoutException",
}
"""The exceptions of TorchServe's front end, by the status that they become."""


Best = Callable[[Feeds], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told of a served model; `delay_ms` and `batch` are how requests are put together."""

    name: str
    version: str
    engine: str
    batch: int
    delay_ms: int
    queue: int
    waiting: int
    seconds: float


def reply(outputs: Feeds, specs: Sequence[TensorSpec], best: Best, wrapped: bool = False) -> bytes:
    """The outputs as TorchServe's handlers give them: for one sample its answer, for several a list of them.

    An answer is what `best` says of the sample's outputs (labels with scores), or the output as nested lists where
    it says nothing; several outputs by name.
    """
    sizes = {len(outputs[spec.name]) if spec.shape[:1] in ((None,), (1,)) else -1 for spec in specs}
    count = sizes.pop() if len(sizes) == 1 else -1
    if count < 0:  # no batch to be told apart
        answers: Any = best(outputs) or _listed(outputs)
    else:
        samples = [{name: value[i : i + 1] for name, value in outputs.items()} for i in range(count)]
        answers = [best(one) or _listed({name: value[0] for name, value in one.items()}) for one in samples]
        answers = answers[0] if count == 1 and not wrapped else answers
    return jsons.write({"predictions": answers} if wrapped else answers)


def refusal(error: EdgeKitError, status: int, name: str, version: str | None) -> dict[str, Any]:
    """The body of an error: the three fields that TorchServe's clients read, and ours."""
    kind, message = TYPES.get(status, "InternalServerException"), error.what
    if isinstance(error, NotFound) and error.what == "no such model":
        kind, message = "ModelNotFoundException", f"Model not found: {name[:200]}"
    elif isinstance(error, NotFound) and version:
        kind = "ModelVersionNotFoundException"
        message = f"Model version: {version[:200]} does not exist for model: {name[:200]}"
    elif isinstance(error, Exceeded):
        kind = TYPES[413]
    said = {"code": status, "type": kind, "message": message, "error": error.what}
    return {**said, "hint": error.hint} if error.hint else said


def models(names: Sequence[str], limit: int, start: int) -> dict[str, Any]:
    """A page of the list of models. They have no URL here; clients get the name in its place."""
    limit = limit if 0 <= limit <= MOST_LISTED else MOST_LISTED
    page = [{"modelName": name, "modelUrl": name} for name in names[start : start + limit]]
    last = start + limit
    return {"nextPageToken": str(last), "models": page} if last < len(names) else {"models": page}


def description(facts: Facts) -> dict[str, Any]:
    """One version of a model, as it runs here: one engine, always loaded."""
    return {
        "modelName": facts.name,
        "modelVersion": facts.version,
        "modelUrl": facts.name,
        "engine": facts.engine,
        "runtime": "edgekit",
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": facts.batch,
        "maxBatchDelay": facts.delay_ms,
        "responseTimeout": round(facts.seconds),
        "loadedAtStartup": True,
        "workers": [{"id": "0", "status": "READY", "gpu": False}],
        "jobQueueStatus": {"remainingCapacity": max(facts.queue - facts.waiting, 0), "pendingRequests": facts.waiting},
    }


def _listed(outputs: Mapping[str, Array]) -> Any:
    """One output's values; several by name."""
    made = {name: _plain(value) for name, value in outputs.items()}
    return next(iter(made.values())) if len(made) == 1 else made


def _plain(value: Any) -> Any:
    found = np.asarray(value)
    if found.dtype.kind in "OUS":
        return _words(found.tolist())
    return np.ascontiguousarray(found) if found.ndim else found.item()


def _words(value: Any) -> Any:
    if isinstance(value, list):
        return [_words(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
