"""Where the user's tensors meet the artifact's: names, layout, integer types and a fixed batch differ there.

Refuses integers that do not fit the artifact's narrower type, NaN where it holds integers, and sizes that it has
fixed otherwise; never changes a number otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.tensors import Array, Feeds, Runner, TensorSpec, check_feeds, dequantized, quantized


@dataclass(frozen=True)
class Port:
    """One tensor twice: `spec` as the user sends or gets it, `inside` as the artifact holds it.

    `order` transposes the user's axes into the artifact's (`inside = value.transpose(order)`);
    None leaves them. The user's side is the same for every artifact of one source model, so
    that a client need not know which engine answers.
    """

    spec: TensorSpec
    inside: TensorSpec
    order: tuple[int, ...] | None = None

    def inward(self, value: Array) -> Array:
        """The user's array as the artifact wants it."""
        if self.order is not None:
            value = value.transpose(self.order)
        if not self.inside.accepts(value.shape):
            raise BadRequest(
                f"{self.spec.name}: this artifact takes {self.inside}, got {list(value.shape)} in its layout"
            )
        return np.ascontiguousarray(_turned(value, self.spec, self.inside)).reshape(value.shape)

    def outward(self, value: Array) -> Array:
        """The artifact's array as the user gets it."""
        value = _turned(value, self.inside, self.spec)
        return value if self.order is None else value.transpose(np.argsort(self.order))

    def same(self) -> bool:
        """Whether both sides are the same but for their name."""
        return self.order is None and replace(self.inside, name=self.spec.name) == self.spec

    def fixed_batch(self) -> int | None:
        """The artifact's fixed first size where the user's is free; None where both agree."""
        cut = self.cut()
        return cut[1] if cut is not None and cut[0] == 0 else None

    def cut(self) -> tuple[int, int] | None:
        """The first (axis, size) that the artifact has fixed where the user's is free: along it a batch is cut."""
        for axis, size in enumerate(self.spec.shape):
            inside = axis if self.order is None else self.order.index(axis)
            if size is None and inside < len(self.inside.shape) and (fixed := self.inside.shape[inside]) is not None:
                return axis, fixed
        return None


def connect(run: Runner, inputs: Sequence[Port], outputs: Sequence[Port]) -> Runner:
    """A runner on the user's tensors, from an engine's runner on the artifact's.

    Where the artifact has a fixed batch and the user's is free, the batch is cut into pieces
    and the answers are joined again.

    Raises:
        BadRequest: the feeds do not fit the user's specs.
    """
    specs = [port.spec for port in inputs]
    cuts = {port.spec.name: cut for port in inputs if (cut := port.cut()) is not None}
    if len({size for _, size in cuts.values()}) > 1:
        raise BadRequest(f"inputs with different fixed batches: {cuts}")

    def renamed(feeds: Feeds) -> Feeds:
        answer = run({inside: np.asarray(feeds[name], order="C") for name, inside in names[0]})
        return {name: answer[inside] for name, inside in names[1]}

    def turned(feeds: Feeds) -> Feeds:
        answer = run({port.inside.name: port.inward(feeds[port.spec.name]) for port in inputs})
        return {port.spec.name: port.outward(answer[port.inside.name]) for port in outputs}

    names = [[(port.spec.name, port.inside.name) for port in side] for side in (inputs, outputs)]
    once = renamed if all(port.same() for port in (*inputs, *outputs)) else turned

    def connected(feeds: Feeds) -> Feeds:
        check_feeds(specs, feeds)
        return _in_pieces(once, feeds, cuts, outputs) if cuts else once(feeds)

    return connected


def _in_pieces(once: Runner, feeds: Feeds, cuts: dict[str, tuple[int, int]], outputs: Sequence[Port]) -> Feeds:
    """Run a batch of any size through an artifact of a fixed one; the last piece is padded with its own last row."""
    rows = {name: feeds[name].shape[axis] for name, (axis, _) in cuts.items()}
    total, size = max(rows.values()), next(iter(cuts.values()))[1]
    if set(rows.values()) != {total} or total == 0:
        raise BadRequest(f"inputs with different or empty batches: {rows}")
    answers = []
    for start in range(0, total, size):
        piece = dict(feeds)
        for name, (axis, _) in cuts.items():
            rows_wanted = np.minimum(np.arange(start, start + size), total - 1)
            piece[name] = feeds[name].take(rows_wanted, axis=axis) if total != size else feeds[name]
        answers.append(once(piece))
    return {port.spec.name: _joined(port, [answer[port.spec.name] for answer in answers], total) for port in outputs}


def _joined(port: Port, parts: list[Array], total: int) -> Array:
    """The pieces of one output, in order, without the padding."""
    free = [axis for axis, size in enumerate(port.spec.shape) if size is None]
    cut = port.cut()
    if cut is None and not free:
        if len(parts) > 1 and not all(np.array_equal(parts[0], part) for part in parts):
            raise BadRequest(
                f"{port.spec.name} has no batch axis to join by", hint="send one batch of the artifact's size"
            )
        return parts[0]
    axis = cut[0] if cut is not None else free[0]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)
    if whole.shape[axis] < total:
        raise BadRequest(f"{port.spec.name} has no batch axis to join by", hint="send one batch of the artifact's size")
    return whole if whole.shape[axis] == total else whole.take(np.arange(total), axis=axis)


def _turned(value: Array, have: TensorSpec, want: TensorSpec) -> Array:
    """`value` from one side's type to the other's: by scale and zero point where a side has them."""
    same = None in (have.scale, want.scale) or (have.scale, have.zero_point) == (want.scale, want.zero_point)
    if have.dtype == want.dtype and same:
        return value
    if have.scale is not None:
        value = dequantized(value, have)
    if want.scale is not None:
        return quantized(value, want)
    return _narrowed(value, want)


def _narrowed(value: Array, wanted: TensorSpec) -> Array:
    """Integers or floats in another type; an integer that would wrap is refused."""
    if np.issubdtype(value.dtype, np.integer) and np.issubdtype(np.dtype(wanted.dtype), np.integer) and value.size:
        limits = np.iinfo(wanted.dtype)
        if value.min() < limits.min or value.max() > limits.max:
            raise BadRequest(f"{wanted.name}: values from {value.min()} to {value.max()} do not fit {wanted.dtype}")
    return value.astype(wanted.dtype, copy=False)
