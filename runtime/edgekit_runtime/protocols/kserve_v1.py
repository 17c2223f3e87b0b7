"""KServe's V1 protocol: what its client reads beside `:predict`, which is TensorFlow Serving's row form. Pure.

Refuses `:explain`: there is no explainer here."""

from collections.abc import Sequence
from typing import Any

from edgekit_runtime.errors import NotOffered


def models(names: Sequence[str]) -> dict[str, Any]:
    """What GET /v1/models answers."""
    return {"models": list(names)}


def readiness(name: str, ready: bool) -> dict[str, Any]:
    """What its client reads of GET /v1/models/NAME."""
    return {"name": name, "ready": ready}


def explain() -> NotOffered:
    """The answer to `:explain`."""
    return NotOffered("this server does not explain its answers", hint="ask :predict, or keep the explainer on its own")
