"""The facts of one opened model, and how a bundle becomes one. Knows no queue, no protocol, no socket.

Refuses nothing itself; opening a bundle that is not whole, or does not run here, does."""

from dataclasses import dataclass, replace

import numpy as np

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.preprocess import Preprocess
from edgekit_runtime.tensors import Array, Feeds, Runner, TensorSpec

CLOSE = 1e-3
"""How far (in parts of an output's range) a row may move when others run beside it; the engines' own kernels
for other sizes sum in another order."""


@dataclass(frozen=True)
class Served:
    """One opened model. An engine's request is not reentrant: one thread at a time may call `run`.

    `sample` is one recorded input, for the warm-up and for whoever wants to know that the engine still runs.
    """

    name: str
    version: str
    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    run: Runner
    labels: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    manifest: Manifest | None = None
    sample: Feeds | None = None
    bundle: Bundle | None = None

    @property
    def peak_mb(self) -> float | None:
        """The peak memory in MB that the build measured; None where it did not."""
        found = (self.manifest.evidence if self.manifest else {}).get("peak_mb")
        return float(found) if isinstance(found, int | float) else None

    def batchable(self) -> bool:
        """Whether the first axis of every input and output is a batch of free size."""
        return all(spec.shape[:1] == (None,) for spec in (*self.inputs, *self.outputs))


def closed(bundle: Bundle) -> Served:
    """What a bundle says of its model, without opening the engine: `run` is not to be called yet."""

    def run(feeds: Feeds) -> Feeds:
        raise EdgeKitError("the model is not open yet")

    manifest = bundle.manifest
    recorded = bundle.golden()[:1]
    return Served(
        manifest.name,
        manifest.version,
        manifest.engine,
        tuple(port.spec for port in manifest.inputs),
        tuple(port.spec for port in manifest.outputs),
        run,
        bundle.labels(),
        bundle.preprocess(),
        manifest,
        recorded[0][0] if recorded else None,
        bundle,
    )


def opened(bundle: Bundle, known: Served | None = None) -> Served:
    """The bundle's model, open and warm: its recorded input went through it, so that no client waits for that.

    Raises:
        EdgeKitError: it does not run here.
    """
    served = replace(known or closed(bundle), run=bundle.open_model())
    if served.sample is not None:
        served.run(served.sample)
    return served


def rows_keep_apart(served: Served) -> bool:
    """Whether two samples in one batch answer as each alone does: only then may requests share a run."""
    if served.sample is None or not served.batchable():
        return False
    one, other = served.sample, {name: _blank(value) for name, value in served.sample.items()}
    pair = {name: np.concatenate([one[name], other[name]]) for name in one}
    try:
        alone, beside, together = served.run(one), served.run(other), served.run(pair)
    except EdgeKitError:  # it does not run such a batch at all
        return False
    rows = len(next(iter(one.values())))
    if any(len(value) != rows for answer in (alone, beside) for value in answer.values()):
        return False
    return all(_close(np.concatenate([alone[name], beside[name]]), together[name]) for name in alone)


def _blank(value: Array) -> Array:
    """Another sample of that type: all zeros, or the same words."""
    return value if value.dtype.kind == "O" else np.zeros_like(value)


def _close(alone: Array, together: Array) -> bool:
    if alone.shape != together.shape:
        return False
    if alone.dtype.kind not in "fiu":
        return bool(np.array_equal(alone, together))
    span = float(np.ptp(alone.astype(np.float64))) or 1.0
    off = np.abs(alone.astype(np.float64) - together.astype(np.float64))
    return bool(np.all(off <= max(CLOSE, 0.02 if alone.dtype.kind in "iu" else 0.0) * span))
