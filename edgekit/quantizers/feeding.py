"""Calibration samples as an artifact wants them, one at a time, and the first run of a file just written.

Refuses a wish without data, data without samples, and a file that does not load or answers with NaN."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import Array, Feeds, quantized

from edgekit.model import Artifact
from edgekit.quantizers import Wish
from edgekit.quiet import last_line

GUESS = 16
"""A free size, where there are no data to take it from."""

PROBES = 16
"""On how many samples the sensitivity of operators is measured."""


@dataclass(frozen=True)
class Calibration:
    """The samples of a wish as feeds of the artifact's own tensors: iterable anew, never held in memory together."""

    artifact: Artifact
    wish: Wish

    def __iter__(self) -> Iterator[Feeds]:
        assert self.wish.calibration is not None
        for feeds in self.wish.calibration():
            yield inside(self.artifact, feeds)

    def __len__(self) -> int:
        return self.wish.samples


def calibration(artifact: Artifact, wish: Wish) -> Calibration:
    """The wish's samples for this artifact.

    Raises:
        EdgeKitError: there are none.
    """
    if wish.calibration is None:
        raise EdgeKitError(
            f"{wish.precision} needs calibration data", hint="give --data, or use --precision int8-weights"
        )
    if next(wish.calibration(), None) is None:
        raise EdgeKitError("the calibration data hold no samples", hint="give --calibration data with some samples")
    return Calibration(artifact, wish)


def probed(wish: Wish) -> tuple[list[Feeds], Wish]:
    """Up to PROBES samples, spread over all, on which to measure sensitivity; and the wish to calibrate by: on the
    others, where they are at least as many, since ranges that these samples themselves set cut off nothing of them.
    """
    whole = wish.calibration
    assert whole is not None
    step = max(1, wish.samples // PROBES)
    probes = list(islice(whole(), 0, PROBES * step, step))
    if wish.samples < 2 * PROBES:
        return probes, wish

    def others() -> Iterator[Feeds]:
        return (feeds for place, feeds in enumerate(whole()) if place % step or place >= PROBES * step)

    statistics = None if wish.statistics is None else wish.statistics / "without-probes"
    return probes, replace(wish, calibration=others, samples=wish.samples - len(probes), statistics=statistics)


def inside(artifact: Artifact, feeds: Feeds) -> Feeds:
    """A user's sample as the artifact's arrays, repeated where the artifact's batch is fixed."""
    return {port.inside.name: port.inward(_filled(port, feeds[port.spec.name])) for port in artifact.inputs}


def first_run(made: Artifact, source: Artifact, wish: Wish) -> None:
    """Open `made` with the runtime's engine and run it once.

    Raises:
        Unsupported: it does not load or run, or gives NaN or infinity where its source does not.
    """
    run = made.open_model()
    feeds = next(wish.calibration(), None) if wish.calibration is not None else None
    feeds = _random(source.inputs) if feeds is None else feeds
    try:
        wanted = source.open_model()(feeds)
    except Exception:  # any engine's error: a made-up feed that the float file cannot take proves nothing of the other
        return
    try:
        answer = run({port.spec.name: _asked(port, feeds[port.spec.name]) for port in made.inputs})
    except Exception as error:  # every engine raises its own kind
        raise Unsupported(
            f"the {made.precision} {made.format} file does not run: {last_line(error)}", hint=_other(made)
        ) from error
    for name, value in answer.items():
        if _finite(wanted[name]) and not _finite(value):
            raise Unsupported(f"output {name} is NaN or infinite at {made.precision}", hint=_other(made))


def _asked(port: Port, value: Array) -> Array:
    """A sample as the user of integer inputs would send it."""
    integers = port.spec.scale is not None and np.issubdtype(value.dtype, np.floating)
    return quantized(value, port.spec) if integers else value


def _filled(port: Port, value: Array) -> Array:
    size = port.fixed_batch()
    return value if size is None or len(value) == size else np.resize(value, (size, *value.shape[1:]))


def _random(ports: tuple[Port, ...]) -> Feeds:
    rng = np.random.default_rng(0)
    feeds = {}
    for port in ports:
        shape = [n if n is not None else 1 if axis == 0 else GUESS for axis, n in enumerate(port.spec.shape)]
        dtype = np.dtype(port.spec.dtype)
        value = rng.random(shape) if np.issubdtype(dtype, np.floating) else np.ones(shape)
        feeds[port.spec.name] = np.asarray(value).astype(dtype)
    return feeds


def _finite(value: Array) -> bool:
    return not np.issubdtype(value.dtype, np.floating) or bool(np.isfinite(value).all())


def _other(made: Artifact) -> str:
    return f"use --precision {'float32' if made.precision in ('float16', 'int8-weights') else 'int8-weights'}"
