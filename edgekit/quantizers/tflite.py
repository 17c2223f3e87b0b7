"""Quantize a TFLite file by ai-edge-quantizer: static int8, weights alone in 8 or 4 bits, float16 storage.

Refuses files that are already quantized or in float16, and 4 bits for convolutions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.model import Artifact, Tell
from edgekit.quantizers import Wish
from edgekit.quantizers.coverage import insist
from edgekit.quantizers.feeding import calibration, first_run
from edgekit.quantizers.tflite_four_bit import by_error
from edgekit.quantizers.tflite_graph import Graph, coverage, read_graph
from edgekit.quantizers.tflite_ports import ports
from edgekit.quantizers.tflite_recipes import HALF, recipe
from edgekit.quantizers.tflite_sensitivity import sensitivities
from edgekit.quantizers.tflite_static import prepared, quantized, static
from edgekit.quiet import last_line
from edgekit.recipes import Group


def quantize(artifact: Artifact, wish: Wish, folder: Path, tell: Tell) -> Artifact:
    """Write `model.tflite` at `wish.precision` into `folder`.

    Raises:
        Unsupported: this model cannot be had at that precision.
        EdgeKitError: int8 without calibration data.
    """
    graph = _source(artifact)
    path = folder / "model.tflite"
    with _said(wish.precision):
        path.write_bytes(_made(graph, artifact, wish, tell))
    notes = artifact.notes
    if wish.precision == HALF:
        notes += ("weights are stored as float16; a CPU still computes in float32",)
    else:
        covered = coverage(graph, read_graph(path.read_bytes()))
        insist(covered, wish.precision)
        notes += (covered.note(wish.precision),)
    inputs, outputs = ports(artifact, path, wish.integer_io)
    made = Artifact("tflite", wish.precision, path, inputs, outputs, notes)
    first_run(made, artifact, wish)
    return made


def sensitivity(artifact: Artifact, wish: Wish, scratch: Path, tell: Tell) -> tuple[Group, ...]:
    """The operators that int8 could hold, by the names of their results, and what each group alone does.

    Raises:
        Unsupported: this model cannot be had in int8.
        EdgeKitError: there is no calibration data.
    """
    wish = replace(wish, recipe=replace(wish.recipe, precision="int8"))
    graph = _source(artifact)
    with _said(wish.precision):
        return sensitivities(graph, artifact, wish, scratch, tell)


def _made(graph: Graph, artifact: Artifact, wish: Wish, tell: Tell) -> bytes:
    rules = recipe(graph, wish)
    if wish.precision == "int8":
        return static(prepared(graph, wish, calibration(artifact, wish), tell), wish, tell)
    if wish.precision == "int4-weights" and wish.calibration is not None:
        return by_error(graph, rules, calibration(artifact, wish), tell)
    return quantized(graph, rules)


@contextmanager
def _said(precision: str) -> Iterator[None]:
    """What ai-edge-quantizer raises, in one line."""
    try:
        yield
    except (EdgeKitError, OSError):
        raise
    except Exception as error:  # ai-edge-quantizer raises whatever it meets
        nearest = {"int8": "int8-weights", "int4-weights": "int8-weights"}.get(precision, "float32")
        raise Unsupported(
            f"ai-edge-quantizer cannot make {precision}: {last_line(error)}", hint=f"use --precision {nearest}"
        ) from error


def _source(artifact: Artifact) -> Graph:
    """The float file.

    Raises:
        Unsupported: it is quantized or in float16 already.
    """
    graph = read_graph(artifact.path.read_bytes())
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
    return graph
