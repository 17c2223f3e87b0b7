"""How a PyTorch module is called: tensors in by name, tensors out by name, whatever it nests them in.

Refuses inputs of unknown size, sizes that the module does not run on, and outputs that are no tensors."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Feeds, Runner, TensorSpec

from edgekit.model import Axes, Facts, Origin, Shape

SIZES = ((2, 4), (16, 32), (64, 128), (224, 448))
"""Two sizes for every free axis but the batch, until the module runs on both: what differs in its outputs is free."""


class Flat(torch.nn.Module):
    """Any module as one that takes its tensors in order and gives a flat tuple: what converters like best."""

    def __init__(self, module: torch.nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def train(self, mode: bool = True) -> "Flat":
        """The same: the module inside came in evaluation mode, and exported ones refuse to be told."""
        return self

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(value for _, value in leaves(self.call(self.module, *tensors)))


@dataclass(frozen=True)
class TorchForm:
    """What converters start from: a flat module and tensors to trace it with; the program where it came as one."""

    flat: Flat
    example: tuple[torch.Tensor, ...]
    program: Any = None


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a nested output with names for them: keys and fields as they are, places as numbers."""
    if isinstance(value, torch.Tensor):
        yield name or "output", value
        return
    items: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        items = list(zip(value._fields, value, strict=True))
    elif isinstance(value, tuple | list):
        items = [(str(i) if name else f"output_{i}", item) for i, item in enumerate(value)]
    elif is_dataclass(value):
        items = [(entry.name, getattr(value, entry.name)) for entry in fields(value)]
    for key, item in items:
        yield from leaves(item, f"{name}_{key}" if name else key)


def tensor_inputs(module: torch.nn.Module, origin: Origin) -> tuple[Shape, ...]:
    """The inputs of `forward` that are to be tensors, in its order, with the shapes that the user gave.

    Raises:
        EdgeKitError: an input has no shape, or a shape no input.
    """
    given = {shape.name: shape for shape in origin.shapes}
    parameters = list(inspect.signature(module.forward).parameters.values())
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        names = [*(p.name for p in named), *(name for name in given if name not in {p.name for p in named})]
    else:
        named, names = parameters, [p.name for p in parameters]
    return pick_shapes(names, [p.name for p in named if p.default is p.empty], given)


def pick_shapes(names: Sequence[str], needed: Sequence[str], given: Mapping[str, Shape]) -> tuple[Shape, ...]:
    """The given shapes in the order of `names`.

    Raises:
        EdgeKitError: a needed one is missing, or one is for no input.
    """
    if strange := sorted(given.keys() - set(names)):
        raise EdgeKitError(f"no such input: {', '.join(strange)}", hint=f"the inputs are {', '.join(names) or 'none'}")
    if missing := [name for name in needed if name not in given]:
        raise EdgeKitError(
            f"inputs of unknown size: {', '.join(missing)}",
            hint="say " + " ".join(f"--shape {name}=1x3x224x224" for name in missing) + " (with the true sizes)",
        )
    return tuple(given[name] for name in names if name in given)


def by_name(names: Sequence[str]) -> Callable[..., Any]:
    """A call that passes its tensors under these names, or in order where `forward` takes `*args`."""

    def call(module: torch.nn.Module, *tensors: torch.Tensor) -> Any:
        parameters = inspect.signature(module.forward).parameters.values()
        if any(p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY) for p in parameters):
            return module(*tensors)
        return module(**dict(zip(names, tensors, strict=True)))

    return call


def learn(flat: Flat, shapes: Sequence[Shape]) -> tuple[tuple[TensorSpec, ...], tuple[torch.Tensor, ...]]:
    """The outputs of the module, and tensors that it runs on, by running it on two sizes of everything free.

    Raises:
        EdgeKitError: it runs on none.
    """
    free = any(isinstance(n, str) for shape in shapes for n in shape.axes)
    failure: EdgeKitError | None = None
    for small, large in SIZES if free else SIZES[:1]:
        try:
            example = examples(shapes, small)
            first = outputs(flat, example)
            second = outputs(flat, examples(shapes, large)) if free else first
        except EdgeKitError as error:
            failure = failure or error
            continue
        if not first:
            raise EdgeKitError("the model gives no tensor", hint="return a tensor, or a tuple or dict of tensors")
        return tuple(_spec(name, first[name], second[name]) for name in first), example
    assert failure is not None
    raise failure


def outputs(flat: Flat, tensors: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """What the module gives for `tensors`, by name."""
    try:
        with torch.no_grad():
            found = list(leaves(flat.call(flat.module, *tensors)))
    except Exception as error:  # the module is the user's code: it may raise anything
        sizes = ", ".join("x".join(map(str, tensor.shape)) or "scalar" for tensor in tensors)
        raise EdgeKitError(
            f"the model does not run on inputs of {sizes}: {one_line(error)}",
            hint="say the sizes that it was made for, as in --shape x=1x3x224x224, and the type, as in ids=1x16:int64",
        ) from error
    return dict(found)


def examples(shapes: Sequence[Shape], size: int) -> tuple[torch.Tensor, ...]:
    """Tensors of these shapes: normal floats, integers of one; the batch is 2 or, for large sizes, 3."""
    chance = torch.Generator().manual_seed(0)
    made = []
    for shape in shapes:
        dtype = getattr(torch, shape.dtype or "float32")
        rows = 2 if size in {small for small, _ in SIZES} else 3
        sizes = [n if isinstance(n, int) else rows if axis == 0 else size for axis, n in enumerate(shape.axes)]
        made.append(
            torch.randn(sizes, generator=chance).to(dtype)
            if dtype.is_floating_point
            else torch.ones(sizes, dtype=dtype)
        )
    return tuple(made)


def runner(flat: Flat, inputs: Sequence[TensorSpec]) -> Runner:
    """The module as a function on named arrays: the reference that artifacts are held to."""

    def run(feeds: Feeds) -> Feeds:
        tensors = tuple(torch.from_numpy(feeds[spec.name].copy()) for spec in inputs)
        return {name: value.detach().cpu().numpy() for name, value in outputs(flat, tensors).items()}

    return run


def specs(shapes: Sequence[Shape]) -> tuple[tuple[TensorSpec, ...], dict[str, Axes]]:
    """The inputs as the user will see them, and the names of their free axes."""
    return (
        tuple(
            TensorSpec(
                shape.name, shape.dtype or "float32", tuple(n if isinstance(n, int) else None for n in shape.axes)
            )
            for shape in shapes
        ),
        {shape.name: shape.axes for shape in shapes},
    )


def facts(module: torch.nn.Module) -> Facts:
    """Layers by the class of PyTorch's that they are, parameters and their bytes."""
    layers = Counter(
        next(
            (base.__name__ for base in type(layer).__mro__ if base.__module__.startswith("torch.nn.modules.")), "Module"
        )
        for layer in module.modules()
        if not list(layer.children()) or list(layer.parameters(recurse=False))
    )
    weights = [*module.parameters(), *module.buffers()]
    half = sum(w.numel() for w in weights if w.dtype in (torch.float16, torch.bfloat16))
    total = sum(w.numel() for w in weights)
    return Facts(
        dict(layers),
        sum(p.numel() for p in module.parameters()),
        sum(w.numel() * w.element_size() for w in weights),
        "float16" if 2 * half > total else "float32",
    )


def one_line(error: BaseException) -> str:
    """The line of a framework's error that matters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _spec(name: str, first: torch.Tensor, second: torch.Tensor) -> TensorSpec:
    shape = tuple(a if a == b else None for a, b in zip(first.shape, second.shape, strict=True))
    return TensorSpec(name, str(first.dtype).removeprefix("torch."), shape)
