"""What a model says of its inputs, together with what the user said by --shape. Pure.

Refuses a shape for an input that does not exist, and one that the model contradicts."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import TensorSpec

from edgekit.model import Axes, Shape


def settle(specs: Sequence[TensorSpec], wishes: Sequence[Shape]) -> tuple[tuple[TensorSpec, ...], dict[str, Axes]]:
    """The inputs with the sizes that the user fixed, and a name for every axis that stays free.

    A free first axis is the "batch", any other "axisN" unless the user named it.

    Raises:
        EdgeKitError: a wish does not fit the model.
    """
    wished = {wish.name: wish for wish in wishes}
    names = [spec.name for spec in specs]
    for name in wished:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise EdgeKitError(
                f"--shape names the input {name!r}, and the model has {', '.join(names)}",
                hint=f"did you mean {near[0]}?" if near else f"use one of {', '.join(names)}",
            )
    axes = {spec.name: _axes(spec, wished.get(spec.name)) for spec in specs}
    fixed = tuple(
        replace(spec, shape=tuple(n if isinstance(n, int) else None for n in axes[spec.name])) for spec in specs
    )
    return fixed, axes


def _axes(spec: TensorSpec, wish: Shape | None) -> Axes:
    if wish is None:
        return tuple(_free(i) if n is None else n for i, n in enumerate(spec.shape))
    if wish.dtype not in (None, spec.dtype):
        raise EdgeKitError(
            f"--shape says that {spec.name} is {wish.dtype}, and the model takes {spec.dtype}",
            hint=f"leave the dtype out, or say {spec.dtype}",
        )
    fits = len(wish.axes) == len(spec.shape) and all(
        n is None or not isinstance(want, int) or want == n for want, n in zip(wish.axes, spec.shape, strict=True)
    )
    if not fits:
        raise EdgeKitError(
            f"--shape {spec.name}={'x'.join(map(str, wish.axes))} does not fit the model's {spec}",
            hint="give a size for what is free ('?') and leave the rest as it is",
        )
    return tuple(want if n is None else n for want, n in zip(wish.axes, spec.shape, strict=True))


def _free(position: int) -> str:
    return "batch" if position == 0 else f"axis{position}"
