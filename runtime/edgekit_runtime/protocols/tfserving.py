"""TensorFlow Serving's `:predict` as JSON: a request body to tensors, outputs to a reply, in rows or in columns. Pure.

Refuses bodies in both forms or in neither, inputs that are missing or too many, and signatures other than the one that
a bundle has. NaN and Infinity are read and written as the tokens NaN, Infinity and -Infinity."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.exchange import JSON, Response
from edgekit_runtime.limits import Limits
from edgekit_runtime.protocols import jsons
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.protocols.tfserving_values import Encoded, array, is_b64, samples, with_samples
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

DEFAULT = "serving_default"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives; `encoded` where its bundle preprocesses photos, sounds or texts."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    labels: Sequence[str] = ()
    encoded: Encoded | None = None
    limits: Limits = field(default_factory=Limits)


def read_predict(body: bytes, signature: Signature) -> Asked:
    """The inference that `body` asks for, in the row form (`instances`) or the column form (`inputs`).

    Raises:
        BadRequest: it does not read, or does not fit the model.
    """
    raw = read_object(body, signature.limits)
    named = raw.get("signature_name", DEFAULT)
    if named not in (DEFAULT, ""):
        raise BadRequest(
            f'Serving signature name: "{str(named)[:100]}" not found in signature def', hint=f"use {DEFAULT}"
        )
    rows = "instances" in raw
    if rows == ("inputs" in raw):
        raise BadRequest("a body has either 'instances' or 'inputs'", hint='send {"instances": [...]}')
    columns = _rows(raw["instances"], signature) if rows else _columns(raw["inputs"], signature)
    feeds = tensors(columns, signature)
    write = _write_rows if rows else _write_columns
    return Asked(feeds, lambda outputs: write(signature.outputs, outputs))


def read_object(body: bytes, limits: Limits) -> Mapping[str, Any]:
    """The JSON object that a body holds."""
    raw = jsons.read(body, limits)
    if not isinstance(raw, dict):
        raise BadRequest("the body is not a JSON object", hint='send {"instances": [...]}')
    return raw


def tensors(columns: Mapping[str, Any], signature: Signature) -> Feeds | Callable[[], Feeds]:
    """The inputs from their JSON values by name; a function that makes them where samples are to be decoded."""
    encoded = signature.encoded
    found = samples(columns[encoded.input], encoded) if encoded is not None and encoded.input in columns else None
    if encoded is None or found is None:
        if missing := [spec.name for spec in signature.inputs if spec.name not in columns]:
            raise BadRequest(f"missing named input {', '.join(missing)}", hint=_takes(signature))
        return {spec.name: array(columns[spec.name], spec) for spec in signature.inputs}
    name = encoded.input
    others = [spec for spec in signature.inputs if spec.name != name and spec.name in columns]
    ready = {spec.name: array(columns[spec.name], spec) for spec in others}
    return lambda: with_samples(ready, found, encoded, signature.inputs)


def _rows(instances: object, signature: Signature) -> Mapping[str, Any]:
    """The values of each input, one per instance."""
    if isinstance(instances, jsons.Numbers):
        return _alone(instances, signature)
    if not isinstance(instances, list):
        raise BadRequest("'instances' must be a list", hint='send {"instances": [...]}')
    if not instances:
        raise BadRequest("no values in 'instances'", hint="send at least one")
    if not isinstance(instances[0], dict) or is_b64(instances[0]):
        return _alone(instances, signature)
    names = instances[0].keys()
    _known(names, signature)
    for place, instance in enumerate(instances):
        if not isinstance(instance, dict) or instance.keys() != names:
            raise BadRequest(
                f"item {place} of 'instances' is not an object with the keys {', '.join(names)}",
                hint="give all instances the same inputs",
            )
    return {name: [instance[name] for instance in instances] for name in names}


def _columns(inputs: object, signature: Signature) -> Mapping[str, Any]:
    if not isinstance(inputs, dict) or is_b64(inputs):
        return _alone(inputs, signature)
    _known(inputs.keys(), signature)
    return inputs


def _known(names: Collection[str], signature: Signature) -> None:
    if extra := sorted(set(names) - {spec.name for spec in signature.inputs}):
        raise BadRequest(f"no such input: {', '.join(extra)[:200]}", hint=_takes(signature))


def _alone(value: object, signature: Signature) -> Mapping[str, Any]:
    """The one input whose name may be left out: the only one, or the one that a sample is for."""
    if len(signature.inputs) == 1:
        return {signature.inputs[0].name: value}
    if signature.encoded is not None and samples(value, signature.encoded) is not None:
        return {signature.encoded.input: value}
    raise BadRequest(f"the model takes {len(signature.inputs)} inputs: name each", hint=_takes(signature))


def _takes(signature: Signature) -> str:
    return f"send {', '.join(map(str, signature.inputs))}"


def _write_rows(specs: Sequence[TensorSpec], outputs: Mapping[str, Array]) -> Response:
    sizes = {spec.name: outputs[spec.name].shape[:1] for spec in specs}
    if len(set(sizes.values())) != 1 or () in sizes.values():
        told = ", ".join(f"{name} {list(size)}" for name, size in sizes.items())
        raise BadRequest(f"the outputs have no common batch size: {told}", hint="send 'inputs' instead of 'instances'")
    columns = [_plain(spec.name, outputs[spec.name]) for spec in specs]
    if len(columns) == 1:
        return Response(200, jsons.write({"predictions": columns[0]}), [JSON])
    names = [spec.name for spec in specs]
    lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
    return Response(200, jsons.write({"predictions": rows}), [JSON])


def _write_columns(specs: Sequence[TensorSpec], outputs: Mapping[str, Array]) -> Response:
    columns = {spec.name: _plain(spec.name, outputs[spec.name]) for spec in specs}
    alone = columns[specs[0].name] if len(specs) == 1 else columns
    return Response(200, jsons.write({"outputs": alone}), [JSON])


def _plain(name: str, value: Array) -> Any:
    """A tensor as JSON writes it: an array or nested lists, or one value where it has no axes."""
    if value.dtype.kind not in "OUS":
        return np.ascontiguousarray(value) if value.ndim else value.item()
    binary = name.endswith("_bytes")
    made = np.empty(value.size, object)
    made[:] = [_string(item, binary) for item in value.ravel().tolist()]
    return made.reshape(value.shape).tolist()


def _string(item: object, binary: bool) -> Any:
    if not binary:
        return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
    import binascii

    data = item if isinstance(item, bytes) else str(item).encode()
    return {"b64": binascii.b2a_base64(data, newline=False).decode()}
