"""From a photo, a sound or a text to the tensors a model was trained on, by the same code on host and device.

Refuses unknown or impossible settings, and what is no such thing, or too much of it."""

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.preprocess.kinds import LogMel, Photo, Preprocess, Sound, Source, Text
from edgekit_runtime.preprocess.media import media, sniff
from edgekit_runtime.preprocess.settings import guess
from edgekit_runtime.tensors import Feeds

__all__ = [
    "LogMel", "Photo", "Preprocess", "Sound", "Source", "Text",
    "apply", "media", "parse_preprocess", "sniff", "to_json",
]  # fmt: skip

KINDS = {
    "image": "edgekit_runtime.preprocess.image",
    "audio": "edgekit_runtime.preprocess.audio",
    "text": "edgekit_runtime.preprocess.text",
}
"""What can be preprocessed, by the module that does it: `read(raw, folder)` parses, `feeds(wanted, source)` does."""


def parse_preprocess(raw: Mapping[str, Any], folder: Path | None = None) -> Preprocess:
    """The preprocessing that `raw` (decoded TOML or JSON) declares.

    Args:
        folder: the bundle whose files it names; without one they are paths as the user writes them.

    Raises:
        EdgeKitError: a setting is missing, unknown, of the wrong type or impossible, or a file is not there.
    """
    if not isinstance(raw, Mapping):
        raise EdgeKitError(
            "the preprocessing is not a table of settings", hint='write kind = "image", input = "x", ...'
        )
    for key in ("kind", "input"):
        if not isinstance(raw.get(key), str) or not raw[key]:
            raise EdgeKitError(
                f"preprocessing lacks {key}",
                hint='write kind = "image" (or "audio", "text") and input = "NAME OF THE INPUT"',
            )
    if raw["kind"] not in KINDS:
        raise EdgeKitError(f"preprocessing kind = {raw['kind']!r} is not known", hint=guess(raw["kind"], list(KINDS)))
    wanted: Preprocess = _module(raw["kind"]).read(raw, folder)
    return wanted


def to_json(wanted: Preprocess) -> dict[str, Any]:
    """The JSON object that `parse_preprocess` reads back."""
    told = asdict(wanted)
    told.pop("words", None)  # those are in the file `vocab`
    if told.get("features") is not None:
        told |= {"features": "log-mel", **told["features"]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in told.items() if value is not None}


def apply(preprocess: Preprocess, source: Source) -> Feeds:
    """The input tensors of one photo, sound or text, with a batch of one where the layout has an N.

    Raises:
        BadRequest: it is no such thing, too large, or too small.
        EdgeKitError: Pillow is needed and not installed.
    """
    feeds: Feeds = _module(preprocess.kind).feeds(preprocess, source)
    return feeds


def _module(kind: str) -> Any:
    return importlib.import_module(KINDS[kind])
