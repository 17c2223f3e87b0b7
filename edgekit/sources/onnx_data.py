"""Everything in an ONNX graph, and the files beside it that hold its weights.

Refuses external data that is outside the model's folder, a link, missing or too short."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from edgekit_runtime.errors import EdgeKitError

AGAIN = "export or copy the model again, with the files beside it"


def nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the graph, of the graphs inside nodes, of the functions."""
    for node in [*proto.graph.node, *(node for function in proto.functions for node in function.node)]:
        yield from _with_inner(node)


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor: initializers and attributes of all graphs."""
    yield from _of_graph(proto.graph)
    for node in nodes(proto):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _of_graph(graph)


def data_files(proto: onnx.ModelProto, path: Path) -> list[Path]:
    """The files of external data, each safe and long enough.

    Raises:
        EdgeKitError: one is not.
    """
    found: dict[str, Path] = {}
    for tensor in tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in found:
            found[location] = _safe(path, location)
        _refuse_short(tensor, entries, found[location], path)
    return sorted(found.values())


def _with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for attribute in node.attribute:
        for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            for inner in graph.node:
                yield from _with_inner(inner)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices


def _safe(path: Path, location: str) -> Path:
    """The file that `location` names, inside the model's folder and a file itself."""
    parts = PurePosixPath(location.replace("\\", "/")).parts
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).drive) or "\0" in location
    if not parts or absolute or ".." in parts:
        raise EdgeKitError(f"{path.name}: its external data {location!r} is outside its folder", hint=AGAIN)
    place = path.parent
    for part in parts:
        place = place / part
        if place.is_symlink():
            raise EdgeKitError(
                f"{path.name}: its external data {location!r} is a link", hint="copy the file itself there"
            )
    if not place.is_file():
        raise EdgeKitError(f"{path.name}: its external data {location!r} is missing", hint=AGAIN)
    return place


def _refuse_short(tensor: onnx.TensorProto, entries: dict[str, str], file: Path, path: Path) -> None:
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else _bytes(tensor)
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeKitError(
            f"{path.name}: the place of {tensor.name} in {file.name} does not read", hint=AGAIN
        ) from error
    if offset < 0 or length < _bytes(tensor) or offset + length > file.stat().st_size:
        raise EdgeKitError(
            f"{path.name}: its external data {file.name} is too short: {tensor.name} needs "
            f"{offset + max(length, _bytes(tensor))} bytes of {file.stat().st_size}",
            hint=AGAIN,
        )


def _bytes(tensor: onnx.TensorProto) -> int:
    count = int(np.prod(tensor.dims, dtype=np.int64))
    if onnx.TensorProto.DataType.Name(tensor.data_type) in ("INT4", "UINT4", "FLOAT4E2M1"):
        return (count + 1) // 2
    return count * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
