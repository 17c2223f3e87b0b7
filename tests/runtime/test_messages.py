"""Message classes from our own protos: they are the protocol's, and clash with nobody's."""

from pathlib import Path

import edgekit_runtime
import pytest
from edgekit_runtime import messages
from edgekit_runtime.errors import BadRequest, Exceeded
from edgekit_runtime.messages import classes, read

PROTOS = Path(edgekit_runtime.__file__).parent / "protos"
REQUEST = classes("inference")["inference.ModelInferRequest"]
TRIMMED = {"ModelConfig", "ModelInput", "ModelOutput", "ModelInstanceGroup", "ModelDynamicBatching"}
"""Of these we declare what we tell."""


@pytest.mark.parametrize("name", ["inference", "health"])
def test_a_compiled_set_is_what_its_proto_compiles_to(name, tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    made = tmp_path / "made.pb"
    assert not protoc.main(
        ["protoc", f"-I{PROTOS}", "--include_imports", f"--descriptor_set_out={made}", f"{name}.proto"]
    )
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    held = FileDescriptorSet.FromString((PROTOS / f"{name}.pb").read_bytes())
    assert held == FileDescriptorSet.FromString(made.read_bytes())


def known_to_clients():
    """The messages of the clients' own packages, in protobuf's default pool, by name."""
    health = pytest.importorskip("grpc_health.v1.health_pb2")
    from tritonclient.grpc import model_config_pb2, service_pb2

    tops = [top for file in (service_pb2, model_config_pb2, health) for top in _tops(file.DESCRIPTOR)]
    return {one.full_name: one for top in tops for one in messages._with_nested(top)}


def _tops(file):
    return file.message_types_by_name.values()


def described(field):
    """All that the wire and a client know of a field."""
    inside = field.message_type or field.enum_type
    if field.message_type is not None and inside.GetOptions().map_entry:
        inside = [described(one) for one in inside.fields]
    elif field.enum_type is not None:
        inside = (inside.full_name, [(value.name, value.number) for value in inside.values])
    elif inside is not None:
        inside = inside.full_name
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return field.name, field.number, field.type, field.is_repeated, oneof, inside


@pytest.mark.parametrize("name", sorted([*classes("inference"), *classes("health")]))
def test_a_message_is_the_one_that_clients_know_field_by_field(name):
    ours = {**classes("inference"), **classes("health")}[name].DESCRIPTOR
    known = {field.name: described(field) for field in known_to_clients()[name].fields}
    for field in ours.fields:
        assert described(field) == known[field.name]
    assert name.removeprefix("inference.") in TRIMMED or len(ours.fields) == len(known)


def test_the_classes_of_another_library_in_the_same_process_do_not_clash():
    from tritonclient.grpc import service_pb2

    theirs = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"12"])
    assert service_pb2.ModelInferRequest is not REQUEST
    ours = read(REQUEST, theirs.SerializeToString(), 100)
    assert (ours.model_name, list(ours.raw_input_contents)) == ("m", [b"12"])


def test_a_set_may_import_the_well_known_types(tmp_path, monkeypatch):
    protoc = pytest.importorskip("grpc_tools.protoc")
    (tmp_path / "protos").mkdir()
    (tmp_path / "one.proto").write_text(
        'syntax = "proto3"; package one; import "google/protobuf/any.proto"; import "google/protobuf/wrappers.proto";'
        "message A { google.protobuf.Any any = 1; google.protobuf.Int64Value count = 2; message B { int32 b = 1; } }"
    )
    made = tmp_path / "protos" / "one.pb"
    well_known = Path(protoc.__file__).parent / "_proto"
    assert not protoc.main(["protoc", f"-I{tmp_path}", f"-I{well_known}", f"--descriptor_set_out={made}", "one.proto"])
    monkeypatch.setattr(messages, "__file__", str(tmp_path / "messages.py"))
    found = classes("one")
    assert set(found) == {"one.A", "one.A.B"}
    packed = found["one.A"]()
    packed.any.Pack(found["one.A"](count={"value": 3}))
    inside = found["one.A"]()
    assert packed.any.Unpack(inside)
    assert inside.count.value == 3


@pytest.mark.parametrize(
    "data", [b"\x0a\xff", b"\xff" * 20, b"\x0a", b"\x2a" * messages.UNWEIGHED * 2, b"\xff" * messages.UNWEIGHED * 2]
)
def test_bytes_that_are_no_message_are_refused(data):
    with pytest.raises(BadRequest, match="does not read"):
        read(REQUEST, data, 10**9)


EMPTIES = {
    "raw tensors": b"\x3a\x00",
    "inputs": b"\x2a\x00",
    "outputs": b"\x32\x00",
    "parameters": b"\x22\x00",
    "sizes of one shape": b"\x2a\x86\x80\x20\x1a\x82\x80\x20" + b"\x01" * 0x80002,
}


@pytest.mark.parametrize("name", EMPTIES)
def test_a_small_message_of_very_many_things_is_refused_before_it_is_made(name):
    once = EMPTIES[name]
    data = once * (2 * 2**20 // len(once) + 2)
    with pytest.raises(Exceeded) as caught:
        read(REQUEST, data, 8 * 2**20)
    assert caught.value.limit == "body"


def test_a_large_raw_tensor_is_read():
    sent = REQUEST(model_name="m", raw_input_contents=[bytes(4 * 2**20)])
    assert read(REQUEST, sent.SerializeToString(), 5 * 2**20) == sent


def test_large_typed_contents_are_read():
    sent = REQUEST(model_name="m", inputs=[{"name": "x", "contents": {"fp32_contents": [0.5] * 100_000}}])
    assert read(REQUEST, sent.SerializeToString(), 2**20) == sent
