"""The ports of a TFLite file that was made from another one: tensors are renamed by the tool, but keep their places.

Refuses nothing."""

from dataclasses import replace
from pathlib import Path

from edgekit_runtime.engines import read_specs
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import TensorSpec

from edgekit.model import Artifact


def ports(artifact: Artifact, path: Path, integer_io: bool) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of the file at `path`, seen by its user as those of `artifact`, or as integers."""
    sides = zip(
        (artifact.inputs, artifact.outputs), *(read_specs("tflite", p) for p in (artifact.path, path)), strict=True
    )
    made = []
    for given, before, after in sides:
        places = {spec.name: index for index, spec in enumerate(before)}
        made.append(tuple(_port(port, after[places[port.inside.name]], integer_io) for port in given))
    return made[0], made[1]


def _port(port: Port, inside: TensorSpec, integer_io: bool) -> Port:
    spec = port.spec
    if integer_io and inside.scale is not None:
        spec = replace(spec, dtype=inside.dtype, scale=inside.scale, zero_point=inside.zero_point)
    return replace(port, spec=spec, inside=inside)
