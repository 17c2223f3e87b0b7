"""Which tensor of a file could hold which tensor of a model, by names, types and sizes. Pure.

Refuses nothing; an assignment that cannot be is not among those it yields."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import TensorSpec

from edgekit.model import Model

Order = tuple[int, ...] | None
RATE = 16000


def is_rate(name: str) -> bool:
    """Whether an integer of this name is a sampling rate: models take few values there, and `RATE` is one."""
    return name.lower() in ("sr", "fs") or "rate" in name.lower()


def batch_names(model: Model) -> set[str]:
    """The names of the free first axes: along those, and no others, a file of one size may be fed in pieces."""
    return {axes[0] for axes in model.axes.values() if axes and isinstance(axes[0], str)}


def assignments(model: Model, insides: Sequence[TensorSpec]) -> Iterator[tuple[Port, ...]]:
    """Every way to give each tensor of the model one of the file's that could hold it, the likeliest first."""
    specs, batch, choices = model.inputs, batch_names(model), []
    for spec in specs:
        fits = [Port(spec, inside, order) for inside in insides for order in orders(spec, inside)]
        axes = model.axes.get(spec.name, ())
        fits = [port for port in fits if (cut := port.cut()) is None or not axes or axes[cut[0]] in batch]
        named = [port for port in fits if plain(port.inside.name) == plain(spec.name)]
        choices.append(named or fits)
    if len(insides) < len(specs):  # a converter may drop what the model does not use
        choices = [[*fits, Port(spec, spec)] for fits, spec in zip(choices, specs, strict=True)]
    for ports in product(*choices):
        names = {port.inside.name for port in ports}
        if len(names) == len(ports) and names >= {inside.name for inside in insides}:
            yield ports


def orders(spec: TensorSpec, inside: TensorSpec) -> list[Order]:
    """The transpositions by which `inside` could hold `spec`."""
    if len(spec.shape) != len(inside.shape) or not _holds(spec, inside):
        return []
    return [order for order in moves(len(spec.shape)) if _fits(spec.shape, inside.shape, order)]


def moves(rank: int) -> list[Order]:
    """As it is, channels first to last, channels last to first."""
    if rank < 3:
        return [None]
    return [None, (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))]


def _holds(spec: TensorSpec, inside: TensorSpec) -> bool:
    want, have = np.dtype(spec.dtype).kind, np.dtype(inside.dtype).kind
    return spec.dtype == inside.dtype or (want == have and want in "iuf") or inside.scale is not None


def _fits(want: tuple[int | None, ...], have: tuple[int | None, ...], order: Order) -> bool:
    """Whether every size agrees; one free axis, the batch, may be fixed in the file: it is cut there."""
    pairs = list(zip((want[axis] for axis in order) if order is not None else want, have, strict=True))
    cuts = sum(outer is None and inner is not None for outer, inner in pairs)
    return cuts <= 1 and all(None in pair or pair[0] == pair[1] for pair in pairs)


def plain(name: str) -> str:
    """A name without what converters put around it."""
    return name.removeprefix("serving_default_").partition(":")[0].lower()
