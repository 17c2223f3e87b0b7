"""ONNX files, their external data with them.

Refuses damaged files, data outside the file's folder, and inputs that are no tensors of numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from edgekit_runtime.engines import open_model, read_specs
from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.tensors import Runner, TensorSpec

from edgekit.model import Axes, Facts, Model, Origin
from edgekit.sources.files import digest
from edgekit.sources.onnx_data import data_files, nodes, tensors
from edgekit.sources.onnx_shapes import UNNAMED, reshaped, with_common_batch

WHOLE = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
"""Operators of a model that is quantized already, with all that begin with QLinear."""


def fingerprint(origin: Origin) -> str:
    """Of the file, of its external data, and of the shapes that the user gave."""
    return digest([origin.path, *data_files(load(origin.path), origin.path)], repr(origin.shapes))


def read(origin: Origin) -> Model:
    """The model in the file, with the sizes that the user gave.

    Raises:
        EdgeKitError: it is damaged, unsafe, or the sizes do not fit.
    """
    path, proto = origin.path, load(origin.path)
    data_files(proto, path)
    known = _facts(proto)
    specs, axes = _inputs(proto)
    if origin.shapes:
        path, proto = reshaped(proto, path, origin.shapes, axes)
        specs, axes = _inputs(proto)
    outputs = _outputs(proto, path)
    axes = with_common_batch(path, specs, axes)
    return Model(
        name=origin.path.stem,
        kind="onnx",
        forms={"onnx": path},
        inputs=specs,
        outputs=outputs,
        axes=axes,
        run=_runner(path),
        facts=known,
    )


def load(path: Path) -> onnx.ModelProto:
    """The graph, without its external data.

    Raises:
        EdgeKitError: this is no ONNX file, or half of one.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's decoders share no base class
        raise EdgeKitError(f"{path} is damaged or no ONNX file", hint="export or copy it again") from error
    if not proto.opset_import or not proto.graph.output:
        raise EdgeKitError(f"{path} holds no ONNX model", hint="export or copy it again")
    return proto


def _inputs(proto: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], dict[str, Axes]]:
    """What the user must feed, old files' weights left out, and names for what is free."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    weights |= {tensor.values.name for tensor in proto.graph.sparse_initializer}
    specs, axes = [], {}
    for value in proto.graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type == onnx.TensorProto.STRING:
            raise Unsupported(f"input {value.name} is no tensor of numbers", hint="cut the model behind that input")
        if not kind.HasField("shape"):
            raise Unsupported(f"input {value.name} has no rank", hint=f"export it with sizes for {value.name}")
        axes[value.name] = tuple(_axis(value.name, i, dim) for i, dim in enumerate(kind.shape.dim))
        shape = tuple(n if isinstance(n, int) else None for n in axes[value.name])
        specs.append(TensorSpec(value.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name, shape))
    return tuple(specs), axes


def _axis(name: str, position: int, dim: Any) -> int | str:
    if dim.dim_value > 0:
        return int(dim.dim_value)
    return str(dim.dim_param) or ("batch" if position == 0 else f"{name}{UNNAMED}{position}")


def _outputs(proto: onnx.ModelProto, path: Path) -> tuple[TensorSpec, ...]:
    """As ONNX Runtime sees them; where the file names no rank, the rank that comes out."""
    try:
        outputs = read_specs("onnx", path)[1]
    except Unsupported as error:
        raise EdgeKitError(error.what, hint=_complaint(path) or "export it again") from error
    known = {value.name for value in proto.graph.output if value.type.tensor_type.HasField("shape")}
    if strings := [spec.name for spec in outputs if spec.dtype in ("object", "string") or "(" in spec.dtype]:
        raise Unsupported(f"output {strings[0]} is no tensor of numbers", hint="cut the model before that output")
    return tuple(spec if spec.name in known or spec.shape else _observed(spec, proto, path) for spec in outputs)


def _observed(spec: TensorSpec, proto: onnx.ModelProto, path: Path) -> TensorSpec:
    """An output of unknown rank with the rank that a run gives; left as it is where no random feed runs."""
    feeds = {}
    for entry in _inputs(proto)[0]:
        sizes = [n if n is not None else 1 if axis == 0 else 16 for axis, n in enumerate(entry.shape)]
        feeds[entry.name] = np.ones(sizes, entry.dtype)
    try:
        rank = open_model("onnx", path)(feeds)[spec.name].ndim
    except Exception:  # ONNX Runtime's errors share no base class below Exception
        return spec
    return TensorSpec(spec.name, spec.dtype, (None,) * rank)


def _runner(path: Path) -> Runner:
    """The reference: ONNX Runtime, opened when first asked."""
    opened: list[Runner] = []

    def run(feeds: dict[str, Any]) -> dict[str, Any]:
        if not opened:
            opened.append(open_model("onnx", path))
        return opened[0](feeds)

    return run


def _complaint(path: Path) -> str:
    """What ONNX's own checker says of a file that does not load."""
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # the checker raises ValidationError and whatever its C++ part does
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"export it again: {lines[0][:200]}" if lines else ""
    return ""


def _facts(proto: onnx.ModelProto) -> Facts:
    """Operators of all graphs, and what the weights are."""
    ops = Counter(node.op_type for node in nodes(proto))
    weights = list(_weights(proto))
    parameters = sum(count for count, _ in weights)
    half = sum(
        count for count, tensor in weights if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    )
    integer = any(name in WHOLE or name.startswith("QLinear") for name in ops)
    return Facts(
        dict(ops),
        parameters,
        sum(count * _width(tensor.data_type) // 8 for count, tensor in weights),
        "int8" if integer else "float16" if 2 * half > parameters else "float32",
    )


def _weights(proto: onnx.ModelProto) -> Iterator[tuple[int, onnx.TensorProto]]:
    for tensor in tensors(proto):
        yield int(np.prod(tensor.dims, dtype=np.int64)), tensor


def _width(data_type: int) -> int:
    """Bits of one number of an ONNX type."""
    name = onnx.TensorProto.DataType.Name(data_type)
    if name in ("INT4", "UINT4", "FLOAT4E2M1"):
        return 4
    return (
        8
        if data_type == onnx.TensorProto.STRING
        else 8 * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type)).itemsize
    )


__all__: Sequence[str] = ["fingerprint", "load", "read"]
