"""TorchScript, and every other file that PyTorch calls `.pt` or `.pth`: what is inside decides, not the name.

Refuses pickled models without unpickling them, and weights that come without a model."""

import torch
from edgekit_runtime.errors import EdgeKitError

from edgekit.model import Facts, Model, Origin
from edgekit.quiet import quiet
from edgekit.sources import torch_exported
from edgekit.sources.files import digest
from edgekit.sources.torch_archive import Content, look, pickled
from edgekit.sources.torch_calls import Flat, TorchForm, facts, learn, one_line, pick_shapes, runner, specs


def fingerprint(origin: Origin) -> str:
    """Of the file and of the shapes that the user gave."""
    return digest([origin.path], repr(origin.shapes))


def read(origin: Origin) -> Model:
    """The model in the file, if there is one that is data.

    Raises:
        EdgeKitError: there is none, it is damaged, or its inputs have no sizes.
    """
    content = look(origin.path)
    if content == Content.EXPORTED:
        return torch_exported.read(origin)
    if content in (Content.WEIGHTS, Content.CODE):
        raise pickled(origin.path)
    if content == Content.NOTHING:
        raise EdgeKitError(f"{origin.path} is damaged or no file of PyTorch's", hint="export or copy it again")
    return _read_script(origin)


def _read_script(origin: Origin) -> Model:
    with quiet():
        try:
            module = torch.jit.load(str(origin.path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except Exception as error:  # the reader raises RuntimeError, ValueError and its own
            raise EdgeKitError(
                f"{origin.path} does not load as TorchScript: {one_line(error)}", hint="save or copy it again"
            ) from error
    arguments = module.forward.schema.arguments[1:]
    names = [argument.name for argument in arguments]
    needed = [argument.name for argument in arguments if not argument.has_default_value()]
    shapes = pick_shapes(names, needed, {shape.name: shape for shape in origin.shapes})
    given = [shape.name for shape in shapes]

    def call(script: torch.nn.Module, *tensors: torch.Tensor) -> object:
        return script(**dict(zip(given, tensors, strict=True)))

    flat = Flat(module, call)
    with quiet():
        outputs, example = learn(flat, shapes)
    inputs, axes = specs(shapes)
    known = facts(module)
    return Model(
        name=origin.path.stem,
        kind="torchscript",
        forms={"torchscript": TorchForm(flat, example)},
        inputs=inputs,
        outputs=outputs,
        axes=axes,
        run=runner(flat, inputs),
        facts=Facts(_ops(module), known.parameters, known.bytes, known.precision),
    )


def _ops(module: torch.jit.ScriptModule) -> dict[str, int]:
    """Operators of the whole graph, its methods inlined."""
    ops: dict[str, int] = {}
    for node in module.inlined_graph.nodes():
        space, _, name = node.kind().partition("::")
        if space == "aten":
            ops[name] = ops.get(name, 0) + 1
    return ops
