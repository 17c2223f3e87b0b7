"""PyTorch's exported programs, `.pt2`: a graph, its weights and its sizes, as data.

Refuses a program that brings code along, and a shape that contradicts the one it was exported with."""

from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import TensorSpec

from edgekit.model import Axes, Facts, Model, Origin
from edgekit.quiet import quiet
from edgekit.sources.exported_safety import refuse_code
from edgekit.sources.files import digest
from edgekit.sources.shapes import settle
from edgekit.sources.torch_archive import Content, look, pickled
from edgekit.sources.torch_calls import Flat, TorchForm, facts, one_line, outputs, runner


def fingerprint(origin: Origin) -> str:
    """Of the file and of the shapes that the user gave."""
    return digest([origin.path], repr(origin.shapes))


def read(origin: Origin) -> Model:
    """The program in the file.

    Raises:
        EdgeKitError: it is damaged, unsafe to load, or the shapes do not fit it.
    """
    program = _load(origin.path)
    flat, tensors, found, symbols = _opened(program)
    inputs, axes = settle(found, origin.shapes)
    if not origin.shapes:
        axes = symbols
    example = _examples(program, tensors, inputs)
    with quiet():
        sample = outputs(flat, example)
    return Model(
        name=origin.path.stem,
        kind="torch",
        forms={"torch": TorchForm(flat, example, None if origin.shapes else program)},
        inputs=inputs,
        outputs=_output_specs(program, sample, inputs),
        axes=axes,
        run=runner(flat, inputs),
        facts=_facts(program),
    )


def _load(path: Path) -> torch.export.ExportedProgram:
    content = look(path)
    if content in (Content.WEIGHTS, Content.CODE):
        raise pickled(path)
    if content == Content.TORCHSCRIPT:
        raise EdgeKitError(f"{path} holds TorchScript, not an exported program", hint=f"rename it to {path.stem}.pt")
    if content != Content.EXPORTED:
        raise EdgeKitError(f"{path} holds {content.value}, not an exported program", hint="export or copy it again")
    with quiet():
        try:
            refuse_code(path)
            program = torch.export.load(path)
        except EdgeKitError:
            raise
        except Exception as error:  # PyTorch's readers raise many things on a damaged file
            raise EdgeKitError(
                f"{path} does not load as an exported program: {one_line(error)}",
                hint="export it again with this version of PyTorch, or copy it again",
            ) from error
    program._guards_code = []  # Python that `module()` would run; every feed is checked against the specs anyway
    return program


def _opened(
    program: torch.export.ExportedProgram,
) -> tuple[Flat, tuple[str, ...], tuple[TensorSpec, ...], dict[str, Axes]]:
    """The program as a flat module, its tensors' names, their specs and the names of their free axes."""
    tree = program.call_spec.in_spec
    assert tree is not None
    signature = [spec for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    places = [i for i, spec in enumerate(signature) if hasattr(spec.arg, "name") and not hasattr(spec.arg, "value")]
    constants = [getattr(spec.arg, "value", None) for spec in signature]
    names = tuple(signature[i].arg.name for i in places)

    def call(module: torch.nn.Module, *tensors: torch.Tensor) -> Any:
        flat = list(constants)
        for place, tensor in zip(places, tensors, strict=True):
            flat[place] = tensor
        arguments, keywords = pytree.tree_unflatten(flat, tree)
        return module(*arguments, **keywords)

    with quiet():
        module = program.module(check_guards=False)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    found, symbols = [], {}
    for name in names:
        value = values[name]
        if not isinstance(value, torch.Tensor):
            raise EdgeKitError(f"input {name} is a number, not a tensor", hint="export the model with tensors alone")
        shape = tuple(n if isinstance(n, int) else None for n in value.shape)
        found.append(TensorSpec(name, str(value.dtype).removeprefix("torch."), shape))
        symbols[name] = tuple(_axis(i, n) for i, n in enumerate(value.shape))
    return Flat(module, call), names, tuple(found), _batch_named(symbols)


def _axis(position: int, size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)


def _batch_named(symbols: dict[str, Axes]) -> dict[str, Axes]:
    """The same, with the symbol of the first axis called "batch"."""
    first = next((axes[0] for axes in symbols.values() if axes and isinstance(axes[0], str)), None)
    return {name: tuple("batch" if n == first else n for n in axes) for name, axes in symbols.items()}


def _examples(
    program: torch.export.ExportedProgram, names: tuple[str, ...], inputs: tuple[TensorSpec, ...]
) -> tuple[torch.Tensor, ...]:
    """The tensors that the program was exported with, or others of the sizes that it was exported for."""
    if program.example_inputs is not None:
        given = [value for value in pytree.tree_leaves(program.example_inputs) if isinstance(value, torch.Tensor)]
        if len(given) == len(names) and all(spec.accepts(v.shape) for spec, v in zip(inputs, given, strict=True)):
            return tuple(given)
    hints = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and "val" in n.meta}
    made = []
    for spec in inputs:
        sizes = [
            n if n is not None else getattr(getattr(h, "node", None), "hint", None) or 2
            for n, h in zip(spec.shape, hints[spec.name].shape, strict=True)
        ]
        dtype = getattr(torch, spec.dtype)
        made.append(torch.randn(sizes).to(dtype) if dtype.is_floating_point else torch.ones(sizes, dtype=dtype))
    return tuple(made)


def _output_specs(
    program: torch.export.ExportedProgram, sample: dict[str, torch.Tensor], inputs: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """Sizes as the graph says, free where it says a symbol and the user left something free."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    named = [values.get(name) for name in program.graph_signature.user_outputs if isinstance(name, str)]
    symbolic = [value for value in named if isinstance(value, torch.Tensor)]
    free = any(n is None for spec in inputs for n in spec.shape)
    specs = []
    for i, (name, value) in enumerate(sample.items()):
        sizes = symbolic[i].shape if free and len(symbolic) == len(sample) else value.shape
        shape = tuple(
            int(got) if isinstance(size, int) or not free else None
            for size, got in zip(sizes, value.shape, strict=True)
        )
        specs.append(TensorSpec(name, str(value.dtype).removeprefix("torch."), shape))
    return tuple(specs)


def _facts(program: torch.export.ExportedProgram) -> Facts:
    """Parameters of the module, operators of the graph."""
    ops: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            name = str(node.target).removeprefix("aten.").partition(".")[0]
            ops[name] = ops.get(name, 0) + 1
    known = facts(program.module(check_guards=False))
    return Facts(ops, known.parameters, known.bytes, known.precision)
