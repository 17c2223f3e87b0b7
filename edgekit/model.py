"""What a trained model is to EdgeKit: where it came from, how to call it, what form it can be converted from.

Pure values; reading and converting live in `sources` and `converters`. Refuses a shape that cannot be read."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.engines import EngineOptions, open_model
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.ports import Port, connect
from edgekit_runtime.tensors import Runner, TensorSpec

from edgekit.quiet import quiet

Tell = Callable[[str], None]
"""Told what is going on, in words, whenever something slow begins or moves on."""

Axes = tuple[int | str, ...]
"""A shape with names for what is free: `("batch", 3, 224, 224)`. The same name is the same size everywhere."""


@dataclass(frozen=True)
class Shape:
    """What the user said of one input: `--shape NAME=1x3x224x224` or `NAME=batch,16:int64`."""

    name: str
    axes: Axes
    dtype: str | None = None

    def example(self, free: int = 2) -> tuple[int, ...]:
        """A concrete shape: every free axis gets `free`."""
        return tuple(n if isinstance(n, int) else free for n in self.axes)


@dataclass(frozen=True)
class Origin:
    """What the user typed of a model: a path or `module:factory`, its weights, the shapes of its inputs."""

    model: str
    weights: Path | None = None
    shapes: tuple[Shape, ...] = ()

    @property
    def path(self) -> Path:
        """The model as a path; meaningless for `module:factory`."""
        return Path(self.model)


@dataclass(frozen=True)
class Facts:
    """What the planner may know: operators by name and count, parameters, their bytes, the precision they come in."""

    ops: Mapping[str, int]
    parameters: int
    bytes: int
    precision: str = "float32"


@dataclass(frozen=True)
class Model:
    """A trained model, read. `run` calls it with the framework it came from: that is the reference.

    `forms` holds what converters can start from, by form name: "onnx", "saved_model", "tflite" are
    paths; "torch", "torchscript", "keras" are objects of those frameworks. `axes` names the free
    dimensions of each input. `inputs` and `outputs` are what a user of any artifact will see.
    """

    name: str
    kind: str
    forms: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: Mapping[str, Axes]
    run: Runner
    facts: Facts


@dataclass(frozen=True)
class Artifact:
    """A converted or quantized file: `path` is what the engine opens, everything beside it belongs to it.

    `notes` say in words what a user must know, such as operators that stayed in float.
    """

    format: str
    precision: str
    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    notes: tuple[str, ...] = field(default=())

    def open_model(self, options: EngineOptions | None = None) -> Runner:
        """The artifact as a function on the user's tensors, by the runtime's own engine, opened without a word."""
        with quiet():
            run = open_model(self.format, self.path, options)
        return connect(run, self.inputs, self.outputs)

    def in_floats(self) -> "Artifact":
        """The same file, called with real numbers even where the user is to see its integers."""
        return replace(self, inputs=tuple(map(_in_floats, self.inputs)), outputs=tuple(map(_in_floats, self.outputs)))

    def files(self) -> list[Path]:
        """All files of the artifact, sorted."""
        return sorted(path for path in self.path.parent.rglob("*") if path.is_file())

    def sha256(self) -> str:
        """A hex digest of the bytes of all files."""
        hasher = hashlib.sha256()
        for path in self.files():
            hasher.update(path.name.encode() + path.read_bytes())
        return hasher.hexdigest()

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files())


def parse_shape(text: str) -> Shape:
    """`x=1x3x224x224`, `ids=batchx16:int64`, with commas where a name holds an x, `rate=:int64` for a scalar.

    Raises:
        EdgeKitError: it does not read so.
    """
    wrong = f"--shape {text!r} does not read as NAME=DIMS[:DTYPE]"
    match = re.fullmatch(r"([^=]+)=([^:]*)(?::(\w+))?", text)
    if not match:
        raise EdgeKitError(wrong, hint="write for example --shape x=1x3x224x224 or --shape ids=batch,16:int64")
    name, dims, dtype = match.groups()
    axes: list[int | str] = []
    for part in re.split(r"," if "," in dims else r"x", dims) if dims else []:
        part = part.strip()
        if part.isdigit() and int(part) > 0:
            axes.append(int(part))
        elif re.fullmatch(r"[A-Za-z_]\w*", part):
            axes.append(part)
        else:
            raise EdgeKitError(
                f"{wrong}: {part!r} is neither a size above 0 nor a name",
                hint="write for example --shape x=1x3x224x224 or --shape ids=batch,16:int64",
            )
    if dtype is not None:
        try:
            dtype = np.dtype(dtype).name
        except TypeError as error:
            raise EdgeKitError(
                f"{wrong}: no dtype {dtype!r}", hint="use float32, float16, int64, int32, ..."
            ) from error
    return Shape(name, tuple(axes), dtype)


def plain(port: TensorSpec) -> Port:
    """A port whose artifact holds the tensor just as the user sees it."""
    return Port(port, port)


def _in_floats(port: Port) -> Port:
    return (
        port if port.spec.scale is None else replace(port, spec=TensorSpec(port.spec.name, "float32", port.spec.shape))
    )
