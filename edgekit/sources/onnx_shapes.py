"""Other sizes for the inputs of an ONNX model: fixed ones, or free ones by name, whatever the file has baked in.

Refuses a shape for no input, of another rank or type, and sizes that the model does not run on."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
from edgekit_runtime.engines import open_model
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Array, Runner, TensorSpec

from edgekit.fitting import RATE, is_rate
from edgekit.model import Axes, Shape

UNNAMED = ".axis"
"""In the names of axes that the file leaves without one."""
TOO_BIG = 1 << 30
"""Weights beyond this lie in a file beside the graph: a protobuf ends at 2 GiB."""


def reshaped(
    proto: onnx.ModelProto, path: Path, shapes: Sequence[Shape], axes: Mapping[str, Axes]
) -> tuple[Path, onnx.ModelProto]:
    """The model with inputs of these shapes, in a file that lives as long as this process.

    Raises:
        EdgeKitError: the shapes do not fit the model.
    """
    values = {value.name: value for value in proto.graph.input if value.name in axes}
    renamed: dict[str, int | str] = {}
    for shape in shapes:
        if shape.name not in values:
            raise EdgeKitError(f"no such input: {shape.name}", hint=f"the inputs are {', '.join(values)}")
        renamed |= _set_shape(values[shape.name], shape, axes[shape.name])
    for value in values.values():  # an axis of the same name is of the same size
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in renamed:
                _set(dim, renamed[dim.dim_param])
    if all(_axes_of(value) == axes[name] for name, value in values.items()):
        return path, proto
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    _forget_sizes(whole)
    folder = Path(tempfile.mkdtemp(prefix="edgekit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rewritten = folder / path.name
    save(whole, path, rewritten)
    problem = _problem(rewritten, proto, axes)
    if problem and _narrower(values, axes) and not _problem(path, proto, axes):
        return path, proto  # a branch that is never taken may contradict fixed sizes; the file takes them as it is
    if problem:
        words = ", ".join(f"{shape.name}={'x'.join(map(str, shape.axes))}" for shape in shapes)
        was = " ".join(f"--shape {name}={','.join(map(str, old))}" for name, old in axes.items() if old)
        raise EdgeKitError(f"the model does not run on {words}: {problem}", hint=f"it was made for {was}")
    return rewritten, whole


def with_common_batch(path: Path, specs: Sequence[TensorSpec], axes: Mapping[str, Axes]) -> dict[str, Axes]:
    """The axes, with those that came without a name called "batch" where nothing else runs."""
    unnamed = [n for shape in axes.values() for n in shape if isinstance(n, str) and UNNAMED in n]
    if len(axes) < 2 or not 0 < len(unnamed) <= 4:
        return dict(axes)
    run = open_model("onnx", path)
    for count in range(len(unnamed) + 1):
        for batched in combinations(unnamed, count):
            tried = {name: tuple("batch" if n in batched else n for n in shape) for name, shape in axes.items()}
            if any(_runs(run, specs, tried, size) for size in (7, 64, 576)):
                return tried
    return dict(axes)


def _runs(run: Runner, specs: Sequence[TensorSpec], axes: Mapping[str, Axes], size: int) -> bool:
    sizes = {
        spec.name: [n if isinstance(n, int) else 3 if n == "batch" else size for n in axes[spec.name]] for spec in specs
    }
    try:
        run({spec.name: _ones(spec.name, sizes[spec.name], spec.dtype) for spec in specs})
    except Exception:  # ONNX Runtime's errors share no base class below Exception
        return False
    return True


def save(proto: onnx.ModelProto, source: Path, target: Path) -> None:
    """Write a graph that came from `source` to `target` with its weights: in the file, or in one beside it."""
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    onnx.external_data_helper.load_external_data_for_model(whole, str(source.parent))
    big = whole.ByteSize() > TOO_BIG
    onnx.save(whole, target, save_as_external_data=big, location=f"{target.name}.data" if big else None)


def _set_shape(value: onnx.ValueInfoProto, shape: Shape, axes: Axes) -> dict[str, int | str]:
    """Give an input its shape; returns what became of the names that it had."""
    kind = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
    if shape.dtype not in (None, dtype):
        raise EdgeKitError(f"input {shape.name} is {dtype}, not {shape.dtype}", hint=f"say {dtype}, or leave it out")
    if len(shape.axes) != len(axes):
        raise EdgeKitError(
            f"input {shape.name} has {len(axes)} axes, not {len(shape.axes)}",
            hint=f"say --shape {shape.name}={','.join(map(str, axes))} with sizes for the names",
        )
    renamed = {}
    for dim, want in zip(kind.shape.dim, shape.axes, strict=True):
        if dim.dim_param and dim.dim_param != want:
            renamed[str(dim.dim_param)] = want
        _set(dim, want)
    return renamed


def _set(dim: onnx.TensorShapeProto.Dimension, want: int | str) -> None:
    if isinstance(want, int):
        dim.dim_value = want
    else:
        dim.dim_param = want


def _axes_of(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _forget_sizes(proto: onnx.ModelProto) -> None:
    """Drop every size that followed from the old ones, and infer anew those of the outputs."""
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    if proto.ByteSize() > TOO_BIG:
        return
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    for output, found in zip(proto.graph.output, inferred.graph.output, strict=True):
        if found.type.tensor_type.HasField("shape"):
            output.CopyFrom(found)


def _narrower(values: Mapping[str, onnx.ValueInfoProto], axes: Mapping[str, Axes]) -> bool:
    """Whether the new sizes are ones that the old allowed."""
    pairs = [pair for name, old in axes.items() for pair in zip(old, _axes_of(values[name]), strict=True)]
    return all(isinstance(old, str) or old == new for old, new in pairs)


def _problem(path: Path, proto: onnx.ModelProto, axes: Mapping[str, Axes]) -> str:
    """What ONNX Runtime says of one run at the sizes of `proto`, free ones small; nothing where it runs."""
    feeds = {}
    for value in proto.graph.input:
        if value.name in axes:
            dims = value.type.tensor_type.shape.dim
            sizes = [dim.dim_value or (1 if axis == 0 else 64) for axis, dim in enumerate(dims)]
            kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            feeds[value.name] = _ones(value.name, sizes, kind.name)
    try:
        open_model("onnx", path)(feeds)
    except Exception as error:  # ONNX Runtime's errors share no base class below Exception
        return " ".join(str(error).split()).rpartition("failed:")[2][:200]
    return ""


def _ones(name: str, sizes: Sequence[int], dtype: str) -> Array:
    return np.full(sizes, RATE if is_rate(name) and np.dtype(dtype).kind in "iu" else 1, dtype)
