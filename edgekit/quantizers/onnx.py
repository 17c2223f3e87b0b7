"""Quantize an ONNX file: dispatch by precision, and what every ONNX precision has in common.

Refuses files that are already quantized or in float16, and results that are quantized in name only."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
from edgekit_runtime.errors import Unsupported

from edgekit.model import Artifact, Tell
from edgekit.quantizers import Wish
from edgekit.quantizers.coverage import Coverage, insist
from edgekit.quantizers.feeding import calibration, first_run
from edgekit.quantizers.onnx_graph import INTEGER_OPS, all_nodes, is_float16, load, save, weights
from edgekit.quantizers.onnx_int8 import static_int8
from edgekit.quantizers.onnx_prepared import prepared, ready
from edgekit.quantizers.onnx_sensitivity import sensitivities
from edgekit.quantizers.onnx_weights import four_bit, half, weights_as_int8
from edgekit.recipes import Group

WEIGHTS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "float16": half,
    "int8-weights": weights_as_int8,
    "int4-weights": four_bit,
}
"""Precision -> the pass that needs no data."""


def quantize(artifact: Artifact, wish: Wish, folder: Path, tell: Tell) -> Artifact:
    """Write `model.onnx` at `wish.precision` into `folder`.

    Raises:
        Unsupported: this model cannot be had at that precision.
        EdgeKitError: int8 without calibration data.
    """
    precision = wish.precision
    if wish.integer_io:
        raise Unsupported(
            "an ONNX artifact keeps float inputs and outputs", hint="leave --integer-io out, or use --format tflite"
        )
    source = load(artifact.path)
    _check_source(source, artifact)
    if precision == "int8":
        samples = calibration(artifact, wish)
        tell("preparing the graph")
        before = ready(artifact.path)
        after = static_int8(before, samples, wish, tell)
    elif precision in WEIGHTS:
        tell(f"writing the weights as {precision.removesuffix('-weights')}")
        before = source if precision == "float16" else prepared(artifact.path)
        after = WEIGHTS[precision](before)
    else:
        raise Unsupported(f"onnx has no precision {precision!r}", hint=f"use int8, {', '.join(WEIGHTS)}")
    notes = artifact.notes
    if precision != "float16":
        covered = coverage(before, after)
        insist(covered, precision)
        notes += (covered.note(precision),)
    path = folder / "model.onnx"
    after.graph.ClearField("value_info")
    save(after, path)
    made = replace(artifact, precision=precision, path=path, notes=notes)
    first_run(made, artifact, wish)
    return made


def sensitivity(artifact: Artifact, wish: Wish, scratch: Path, tell: Tell) -> tuple[Group, ...]:
    """Groups of operators, by the names that `Recipe.keep` takes, with what each alone does to the answers.

    Raises:
        Unsupported: int8 could hold nothing of this model.
        EdgeKitError: there are no calibration data.
    """
    _check_source(load(artifact.path), artifact)
    return sensitivities(artifact, wish, tell)


def coverage(before: onnx.ModelProto, after: onnx.ModelProto) -> Coverage:
    """Which of the weights of `before` are no longer float in `after`, and which operators hold the others."""
    was, still = weights(before), weights(after)
    left = {name: weight for name, weight in still.items() if name in was}
    users = Counter(op for weight in left.values() for op in weight.users)
    total = sum(weight.size for weight in was.values())
    return Coverage(total, total - sum(weight.size for weight in left.values()), users)


def _check_source(model: onnx.ModelProto, artifact: Artifact) -> None:
    if found := sorted({node.op_type for node in all_nodes(model.graph)} & INTEGER_OPS):
        raise Unsupported(
            f"{artifact.path.name} is already quantized (it holds {', '.join(found[:3])})",
            hint=f"use --precision {artifact.precision}, or start from the float model",
        )
    if is_float16(model):
        raise Unsupported(
            f"{artifact.path.name} is already in float16",
            hint=f"use --precision {artifact.precision}, or start from the float32 model",
        )
