"""Protobuf message classes from `protos/NAME.pb`, in a pool of their own, and the one function that reads messages.

Refuses to touch protobuf's default pool (a process may also hold another library's classes of the same names), and
bytes that do not read or would take far more memory as a message than they are."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgekit_runtime.errors import BadRequest, Exceeded, NotFound

HINT = "install edgekit-runtime with its [grpc] extra: pip install './runtime[grpc]'"
UNWEIGHED = 256 * 1024
"""Bytes that are read without a look at what is in them: they cannot become more than some megabytes."""
ITEM = 64
"""What one string or message takes at least, in bytes, however few of them it is on the wire."""
DEEP = 100
"""Protobuf reads no message that is nested deeper."""


@cache
def classes(name: str) -> Mapping[str, type[Any]]:
    """Every message class that `protos/NAME.pb` holds, nested ones too, by full name: "inference.ModelInferRequest".

    The file is a serialized FileDescriptorSet. What it imports is in it or is one of protobuf's well-known types.

    Raises:
        NotFound: protobuf is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise NotFound("protobuf is not installed here", hint=HINT) from error
    held = Path(__file__).with_name("protos").joinpath(f"{name}.pb").read_bytes()
    inside = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(held).file}
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()

    def add(path: str) -> None:
        if path not in added:
            added.add(path)
            file = inside.get(path) or _well_known(path)
            for needed in file.dependency:
                add(needed)
            pool.Add(file)

    for path in inside:
        add(path)
    tops = [top for path in inside for top in pool.FindFileByName(path).message_types_by_name.values()]
    found = {one.full_name: message_factory.GetMessageClass(one) for top in tops for one in _with_nested(top)}
    return MappingProxyType(found)


def read(kind: type[Any], data: bytes, room: int) -> Any:
    """The message of class `kind` in `data`; `room` is how many bytes of memory it may take.

    Raises:
        BadRequest: it does not read.
        Exceeded: it would take more.
    """
    from google.protobuf.message import DecodeError

    try:
        if len(data) > UNWEIGHED:
            _weigh(kind.DESCRIPTOR, data, room)
        return kind.FromString(data)
    except (DecodeError, IndexError) as error:
        raise BadRequest(f"the message does not read as {kind.DESCRIPTOR.full_name}") from error


def _weigh(kind: Any, data: bytes, room: int) -> None:
    """Raise unless the fields of `data` fit into `room`: two bytes on the wire can be an empty string or message."""
    at, weight = 0, 0
    open_messages = [(kind, len(data))]
    while open_messages:
        kind, end = open_messages[-1]
        if at >= end:
            open_messages.pop()
            continue
        tag, at = _varint(data, at)
        field, wire = kind.fields_by_number.get(tag >> 3), tag & 7
        if wire == 2:
            size, at = _varint(data, at)
            if field is not None and field.message_type is not None and len(open_messages) < DEEP:
                weight += ITEM
                open_messages.append((field.message_type, min(at + size, end)))
            else:
                weight += _spread(field, size)
                at += size
        else:
            weight += 16
            at = _varint(data, at)[1] if wire == 0 else at + {1: 8, 5: 4}.get(wire, 0)
        if weight > room:
            raise Exceeded(f"the message would take more than {room} bytes", hint="send less, or raw tensors")


def _spread(field: Any, size: int) -> int:
    """What `size` bytes of a field take in memory: a packed varint of one byte is a number of up to eight."""
    if field is None or field.cpp_type in (field.CPPTYPE_STRING, field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return size + ITEM
    if field.cpp_type == field.CPPTYPE_BOOL:
        return size
    return size * (8 if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 4)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next field begins. An IndexError where the bytes end before it does."""
    first = data[at]
    if first < 128:
        return first, at + 1
    value, shift = first & 127, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise IndexError


def _with_nested(message: Any) -> Iterator[Any]:
    if not message.GetOptions().map_entry:
        yield message
        for inner in message.nested_types:
            yield from _with_nested(inner)


def _well_known(path: str) -> Any:
    """Protobuf's own description of one of its types: google/protobuf/any.proto and the like."""
    from importlib import import_module

    from google.protobuf import descriptor_pb2

    made = descriptor_pb2.FileDescriptorProto()
    import_module(path.removesuffix(".proto").replace("/", ".") + "_pb2").DESCRIPTOR.CopyToProto(made)
    return made
