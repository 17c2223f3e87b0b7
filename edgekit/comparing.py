"""Two models side by side on the same inputs: bundles, or a bundle and its source.

Refuses two that do not take the same inputs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import Bundle, is_bundle, open_bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Feeds, Runner, TensorSpec

from edgekit import sources
from edgekit.model import Tell
from edgekit.ordering import parse_origin
from edgekit.parity import parity
from edgekit.timing import interleaved


@dataclass(frozen=True)
class Side:
    """One of the two: what it is in words, its size in bytes, how to call it, what to feed it."""

    title: str
    bytes: int
    run: Runner
    inputs: tuple[TensorSpec, ...]
    feeds: tuple[Feeds, ...]


def open_side(where: str, weights: str | None, shapes: Sequence[str], tell: Tell) -> Side:
    """A bundle, or a source model, as one side of a comparison."""
    tell(f"opening {where}")
    if is_bundle(Path(where)):
        return _bundle_side(open_bundle(Path(where)))
    model = sources.read(parse_origin(where, weights, shapes))
    return Side(f"{model.name} ({model.kind}, the source)", model.facts.bytes, model.run, model.inputs, ())


def _bundle_side(bundle: Bundle) -> Side:
    manifest = bundle.manifest
    return Side(
        f"{manifest.name} ({manifest.format} {manifest.precision} for {manifest.target})",
        sum(entry.size for name, entry in manifest.files.items() if name.split(".")[0] == manifest.entry.split(".")[0]),
        bundle.open_model(),
        tuple(port.spec for port in manifest.inputs),
        tuple(feeds for feeds, _ in bundle.golden()),
    )


def compare(left: Side, right: Side, tell: Tell) -> dict[str, Any]:
    """Agreement, latency and size of two sides on the recorded inputs of the first that has any, as JSON values.

    Raises:
        EdgeKitError: they take different inputs, or neither has recorded any.
    """
    if {s.name for s in left.inputs} != {s.name for s in right.inputs}:
        raise EdgeKitError(
            f"{left.title} takes {', '.join(map(str, left.inputs))}; "
            f"{right.title} takes {', '.join(map(str, right.inputs))}",
            hint="compare models of the same inputs",
        )
    feeds = left.feeds or right.feeds
    if not feeds:
        raise EdgeKitError("neither side is a bundle, so there are no recorded inputs", hint="give at least one bundle")
    tell("running both on the recorded inputs")
    far = parity((left.run(feed) for feed in feeds), (right.run(feed) for feed in feeds))
    tell("timing both in turn")
    times = interleaved({"left": left.run, "right": right.run}, feeds[0])
    return {
        side: {"title": one.title, "bytes": one.bytes, "latency": asdict(times[side])}
        for side, one in (("left", left), ("right", right))
    } | {"inputs": len(feeds), "parity": [asdict(one) for one in far]}
