"""How far the answers of an OpenVINO model move when one group of its operators alone computes in integers.

Refuses a model without an operator that int8 can hold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array, Feeds

from edgekit.model import Artifact, Tell
from edgekit.quiet import quiet
from edgekit.recipes import Group, grouped

PASSIVE = {
    *("MaxPool", "AdaptiveMaxPool", "ReduceMax", "Reshape", "Squeeze", "Unsqueeze", "Split", "VariadicSplit"),
    *("Transpose", "Tile", "StridedSlice", "Slice", "ShuffleChannels", "Broadcast", "Pad", "Minimum", "Maximum"),
    *("Convert", "ConvertLike", "Gather", "GatherND", "GatherElements", "Concat", "DepthToSpace", "SpaceToDepth"),
    *("BatchToSpace", "SpaceToBatch", "ScatterUpdate", "ScatterNDUpdate", "ScatterElementsUpdate"),
}
"""What hands integers on as they are: a FakeQuantize before it is for the operators behind it."""


def measured(quantized: Any, artifact: Artifact, feeds: list[Feeds], scratch: Path, tell: Tell) -> tuple[Group, ...]:
    """The operators of `quantized` (float weights, everything behind a FakeQuantize) in groups, measured on `feeds`.

    For each group a copy is made that keeps its FakeQuantize operations and loses all others, so that weights and
    activations of the group alone are rounded; the float artifact's answers are what it is held against.
    """
    operators = int8_operators(quantized)
    if not operators:
        raise Unsupported("no operator of this model can be held in int8", hint="use --precision int8-weights")
    wanted = _answers(artifact, feeds)
    groups = []
    for number, names in enumerate(together := grouped(operators), 1):
        tell(f"measuring sensitivity: group {number} of {len(together)}")
        groups.append(Group(names, _error(wanted, _answers_of_one(quantized, names, artifact, feeds, scratch))))
    return tuple(groups)


def int8_operators(model: Any) -> tuple[str, ...]:
    """The friendly names of the operators that a FakeQuantize feeds, in execution order."""
    fed = {name for _, _, names in _edges(model) for name in names}
    return tuple(op.get_friendly_name() for op in model.get_ordered_ops() if op.get_friendly_name() in fed)


def alone(model: Any, names: Sequence[str]) -> Any:
    """A copy of the model in which only the operators `names` are fed by a FakeQuantize."""
    model = model.clone()
    group = set(names)
    for fake, target, fed in _edges(model):
        if not fed & group:
            target.replace_source_output(fake.input_value(0))
    return model


def _edges(model: Any) -> list[tuple[Any, Any, set[str]]]:
    """(FakeQuantize, an input it feeds, the operators behind that input) for all of them."""
    fakes = [op for op in model.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]
    return [(fake, target, _behind(target)) for fake in fakes for target in fake.output(0).get_target_inputs()]


def _behind(target: Any) -> set[str]:
    """The nearest operators behind an input that compute something."""
    op = target.get_node()
    kind = op.get_type_name()
    table = kind == "Gather" and target.get_index() == 0 and _is_weight(op.input_value(0).get_node())
    if kind in ("Result", "FakeQuantize"):
        return set()
    if kind not in PASSIVE or table:
        return {op.get_friendly_name()}
    return {name for output in op.outputs() for after in output.get_target_inputs() for name in _behind(after)}


def _is_weight(op: Any) -> bool:
    return bool(op.get_type_name() == "FakeQuantize" and op.input_value(0).get_node().get_type_name() == "Constant")


def _answers(artifact: Artifact, feeds: list[Feeds]) -> list[Feeds]:
    run = artifact.open_model()
    return [run(one) for one in feeds]


def _answers_of_one(
    quantized: Any, names: Sequence[str], artifact: Artifact, feeds: list[Feeds], scratch: Path
) -> list[Feeds] | None:
    """What the model with this group alone in integers answers, by the runtime's engine; None if it does not run."""
    from edgekit_runtime.engines.openvino import ov

    folder = scratch / "alone"
    folder.mkdir()
    try:
        with quiet():
            ov.save_model(alone(quantized, names), folder / "model.xml", compress_to_fp16=False)
        return _answers(replace(artifact, path=folder / "model.xml"), feeds)
    except Unsupported:
        return None
    finally:
        rmtree(folder)


def _error(wanted: list[Feeds], got: list[Feeds] | None) -> float:
    """The squared error in parts of the squared answers, the mean over the outputs; NaN where it was not measured."""
    if got is None:
        return float("nan")
    errors = [_relative([a[name] for a in wanted], [b[name] for b in got]) for name in wanted[0]]
    return float(np.mean(errors))


def _relative(wanted: list[Array], got: list[Array]) -> float:
    off = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in zip(wanted, got, strict=True))
    size = sum(float(np.square(a.astype(np.float64)).sum()) for a in wanted)
    return off / size if size else float(off > 0)
