"""Quantize a TFLite file by ai-edge-quantizer: static int8, weights alone in 8 or 4 bits, float16 storage.

Refuses files that are already quantized or in float16, and 4 bits for convolutions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit_runtime.engines import read_specs
from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import Feeds, TensorSpec

from edgekit.model import Artifact, Tell
from edgekit.quantizers import Wish
from edgekit.quantizers.coverage import insist
from edgekit.quantizers.feeding import Calibration, calibration, first_run
from edgekit.quantizers.tflite_graph import Graph, coverage, read_graph
from edgekit.quantizers.tflite_recipes import HALF, recipe
from edgekit.quiet import last_line, quiet


def quantize(artifact: Artifact, wish: Wish, folder: Path, tell: Tell) -> Artifact:
    """Write `model.tflite` at `wish.precision` into `folder`.

    Raises:
        Unsupported: this model cannot be had at that precision.
        EdgeKitError: int8 without calibration data.
    """
    graph = read_graph(artifact.path.read_bytes())
    _check_source(graph, artifact)
    rules = recipe(graph, wish)
    samples = calibration(artifact, wish) if wish.precision == "int8" else None
    path = folder / "model.tflite"
    try:
        path.write_bytes(_quantized(graph, rules, samples, tell))
    except (EdgeKitError, OSError):
        raise
    except Exception as error:  # ai-edge-quantizer raises whatever it meets
        nearest = {"int8": "int8-weights", "int4-weights": "int8-weights"}.get(wish.precision, "float32")
        raise Unsupported(
            f"ai-edge-quantizer cannot make {wish.precision}: {last_line(error)}", hint=f"use --precision {nearest}"
        ) from error
    notes = artifact.notes
    if wish.precision == HALF:
        notes += ("weights are stored as float16; a CPU still computes in float32",)
    else:
        covered = coverage(graph, read_graph(path.read_bytes()))
        insist(covered, wish.precision)
        notes += (covered.note(wish.precision),)
    inputs, outputs = _ports(artifact, path, wish.integer_io)
    made = Artifact("tflite", wish.precision, path, inputs, outputs, notes)
    first_run(made, artifact, wish)
    return made


def _quantized(graph: Graph, rules: list[dict[str, Any]], samples: Calibration | None, tell: Tell) -> bytes:
    """The new file's bytes by these rules."""
    with quiet():
        from ai_edge_quantizer.quantizer import Quantizer

        maker = Quantizer(bytearray(graph.content), quantization_recipe=None)
        maker.load_quantization_recipe(rules)
    ranges = _ranges(graph, rules, samples, tell) if samples is not None else None
    with quiet():
        made = maker.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
    return bytes(made)


def _ranges(graph: Graph, rules: list[dict[str, Any]], samples: Calibration, tell: Tell) -> dict[str, Any]:
    """The range of every tensor over all samples: smallest and largest, not the tool's moving average, which clips.

    The samples go in one by one: given together, the tool would hold them all in memory.
    """
    with quiet():
        from ai_edge_quantizer.calibrator import Calibrator
        from ai_edge_quantizer.recipe_manager import RecipeManager
        from ai_edge_quantizer.utils.qsv_utils import min_max_update

        manager = RecipeManager()
        manager.load_quantization_recipe(rules)
        calibrator = Calibrator(graph.content, num_threads=1, qsv_update_func=min_max_update)
    step = max(1, len(samples) // 4)
    for number, feeds in enumerate(samples, start=1):
        if number % step == 0:
            tell(f"calibrating: sample {number}")
        with quiet():
            calibrator.calibrate({graph.signature: [_arguments(graph, feeds)]}, manager)
    ranges: dict[str, Any] = calibrator.get_model_qsvs()
    return ranges


def _arguments(graph: Graph, feeds: Feeds) -> Feeds:
    """Feeds by the names of the signature's arguments; artifacts know tensors by their own names."""
    return {argument: feeds[tensor] for argument, tensor in graph.arguments.items()}


def _ports(artifact: Artifact, path: Path, integer_io: bool) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The ports of the new file. Tensors are renamed by the tool, but keep their places."""
    sides = zip((artifact.inputs, artifact.outputs), read_specs("tflite", artifact.path), _specs(path), strict=True)
    made = []
    for ports, before, after in sides:
        places = {spec.name: index for index, spec in enumerate(before)}
        made.append(tuple(_port(port, after[places[port.inside.name]], integer_io) for port in ports))
    return made[0], made[1]


def _port(port: Port, inside: TensorSpec, integer_io: bool) -> Port:
    spec = port.spec
    if integer_io and inside.scale is not None:
        spec = replace(spec, dtype=inside.dtype, scale=inside.scale, zero_point=inside.zero_point)
    return replace(port, spec=spec, inside=inside)


def _specs(path: Path) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
    return read_specs("tflite", path)


def _check_source(graph: Graph, artifact: Artifact) -> None:
    if graph.is_quantized():
        raise Unsupported(
            f"{artifact.path.name} is already quantized",
            hint=f"use --precision {artifact.precision}, or start from the float model",
        )
    if graph.is_half():
        raise Unsupported(
            f"{artifact.path.name} is in float16 already",
            hint=f"use --precision {artifact.precision}, or start from a float32 model",
        )
