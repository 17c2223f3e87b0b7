"""TensorFlow Serving's examples: features by name, read for `:classify` and `:regress` in JSON and in gRPC. Pure.

Refuses features of another size or type than the model's inputs, and models whose outputs are no scores or values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.exchange import JSON, Response
from edgekit_runtime.limits import Limits
from edgekit_runtime.protocols import jsons
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.protocols.tfserving import DEFAULT, Signature, read_object
from edgekit_runtime.protocols.tfserving_status import CLASSIFY, REGRESS
from edgekit_runtime.protocols.tfserving_values import Encoded, array, decoded, is_b64, text_of, with_samples
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

Example = Mapping[str, Sequence[Any]]
"""The values of each feature: numbers, booleans, text or bytes."""


def read_classify(body: bytes, signature: Signature) -> Asked:
    """The classification that a JSON body asks for.

    Raises:
        BadRequest: it does not read, or does not fit the model.
    """
    examples = _read(body, CLASSIFY, signature.limits)
    return Asked(feeds_of(examples, signature), lambda outputs: _results(classes(outputs, signature, len(examples))))


def read_regress(body: bytes, signature: Signature) -> Asked:
    """The regression that a JSON body asks for.

    Raises:
        BadRequest: it does not read, or does not fit the model.
    """
    examples = _read(body, REGRESS, signature.limits)
    return Asked(feeds_of(examples, signature), lambda outputs: _results(values(outputs, signature, len(examples))))


def check_signature(name: str, method: str) -> None:
    """Raise `BadRequest` unless the signature is the one there is, or the method's own name."""
    if name not in ("", DEFAULT, method):
        raise BadRequest(f"No signature was found with the name: {name[:100]}", hint=f"use {DEFAULT}")


def merged(examples: Sequence[Example], context: Example) -> list[Example]:
    """Each example with the features that all share.

    Raises:
        BadRequest: there is no example, or one repeats a feature of the context.
    """
    if not examples:
        raise BadRequest("there are no examples", hint="send at least one")
    for example in examples:
        if twice := sorted(example.keys() & context.keys()):
            raise BadRequest(f"feature {twice[0][:100]} is both in the context and in an example", hint="give it once")
    return [{**context, **example} for example in examples]


def feeds_of(examples: Sequence[Example], signature: Signature) -> Feeds | Callable[[], Feeds]:
    """The inputs of all examples as one batch; a function that makes them where samples are to be decoded."""
    encoded, alone = signature.encoded, len(signature.inputs) == 1
    found = None if encoded is None else _samples(examples, encoded, alone)
    if encoded is None or found is None:
        return {
            spec.name: _batch([_feature(one, spec.name, alone) for one in examples], spec) for spec in signature.inputs
        }
    others = [spec for spec in signature.inputs if spec.name != encoded.input and spec.name in examples[0]]
    ready = {spec.name: _batch([_feature(one, spec.name, False) for one in examples], spec) for spec in others}
    return lambda: with_samples(ready, found, encoded, signature.inputs)


def classes(outputs: Mapping[str, Array], signature: Signature, count: int) -> list[list[tuple[str, float]]]:
    """Label and score of each class, for each of `count` examples; an empty label where the bundle has none."""
    tables = [outputs[spec.name] for spec in signature.outputs]
    scored = [table for table in tables if table.dtype.kind in "fiu" and table.ndim == 2 and len(table) == count]
    if not scored:
        raise BadRequest("no output of the model is [batch_size, num_classes] scores", hint="ask :predict")
    scored.sort(key=lambda table: (table.shape[1] != len(signature.labels), table.dtype.kind != "f"))
    scores = scored[0]
    words = [table for table in tables if table.dtype.kind in "OUS" and table.shape == scores.shape]
    if words:
        labels = [[_word(item) for item in row] for row in words[0].tolist()]
    else:
        known = len(signature.labels) == scores.shape[1]
        labels = [list(signature.labels) if known else [""] * scores.shape[1]] * count
    return [list(zip(names, row, strict=True)) for names, row in zip(labels, _floats(scores), strict=True)]


def values(outputs: Mapping[str, Array], signature: Signature, count: int) -> list[float]:
    """The one value of each of `count` examples."""
    for spec in signature.outputs:
        value = outputs[spec.name]
        if value.dtype.kind in "fiu" and value.shape in ((count,), (count, 1)):
            found: list[float] = _floats(value.reshape(count))
            return found
    raise BadRequest("no output of the model is [batch_size] or [batch_size, 1] values", hint="ask :predict")


def _read(body: bytes, method: str, limits: Limits) -> list[Example]:
    raw = read_object(body, limits)
    name = raw.get("signature_name", "")
    if not isinstance(name, str):
        raise BadRequest("'signature_name' must be text")
    check_signature(name, method)
    examples = raw.get("examples")
    if not isinstance(examples, list):
        raise BadRequest("'examples' must be a list of objects", hint='send {"examples": [{"FEATURE": VALUE}]}')
    return merged([_example(item) for item in examples], _example(raw.get("context", {})))


def _example(raw: object) -> Example:
    if not isinstance(raw, dict):
        raise BadRequest("an example is not a JSON object", hint='send {"FEATURE": VALUE}')
    return {name: [_value(item, name) for item in _listed(value)] for name, value in raw.items()}


def _listed(value: object) -> Sequence[Any]:
    if isinstance(value, jsons.Numbers):
        found: list[Any] = value.tolist()
        return found
    return value if isinstance(value, list) else [value]


def _value(item: object, name: str) -> Any:
    if isinstance(item, dict) and is_b64(item):
        return decoded(item)
    if item is None or isinstance(item, dict | list):
        raise BadRequest(f"feature {name[:100]} holds more than numbers, text and b64", hint="send a flat list")
    return item


def _feature(example: Example, name: str, alone: bool) -> Sequence[Any]:
    """The feature for the input `name`; where there is one of each, they belong together whatever their names."""
    if name in example:
        return example[name]
    if alone and len(example) == 1:
        return next(iter(example.values()))
    raise BadRequest(f"an example lacks the feature {name}", hint="name the features as the model's inputs")


def _batch(rows: Sequence[Sequence[Any]], spec: TensorSpec) -> Array:
    size = len(rows[0])
    if any(len(row) != size for row in rows):
        raise BadRequest(f"feature {spec.name} has a different number of values in each example")
    if not spec.shape or spec.shape[1:].count(None) > 1:
        raise BadRequest(f"examples do not tell the shape of {spec}", hint="ask :predict")
    flat = array([_suited(item, spec) for row in rows for item in row], TensorSpec(spec.name, spec.dtype, (None,)))
    try:
        made = flat.reshape(len(rows), *(-1 if size is None else size for size in spec.shape[1:]))
    except ValueError as error:
        raise BadRequest(f"feature {spec.name} has {size} values", hint=f"the model takes {spec}") from error
    spec.check(made)
    return made


def _suited(item: Any, spec: TensorSpec) -> Any:
    """Bytes as text; a boolean is a whole number here, as in TensorFlow's examples."""
    if isinstance(item, bytes):
        return text_of(item, spec.name)
    dtype = np.dtype(spec.dtype)
    if isinstance(item, bool) and dtype.kind in "iu":
        return int(item)
    return bool(item) if dtype.kind == "b" and type(item) is int and item in (0, 1) else item


def _samples(examples: Sequence[Example], encoded: Encoded, alone: bool) -> list[bytes] | None:
    """The encoded samples in the features for preprocessing; None where these are tensors."""
    rows = [_feature(example, encoded.input, alone) for example in examples]
    kinds = (bytes, str) if encoded.kind == "text" else (bytes,)
    if not any(isinstance(item, kinds) for row in rows for item in row):
        return None
    if not all(len(row) == 1 and isinstance(row[0], kinds) for row in rows):
        raise BadRequest(f"feature {encoded.input} is not one encoded sample in each example")
    return [row[0].encode("utf-8", "replace") if isinstance(row[0], str) else row[0] for row in rows]


def _floats(value: Array) -> list[Any]:
    made: list[Any] = (value if value.dtype.kind == "f" else value.astype(np.float64)).tolist()
    return made


def _word(item: object) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


def _results(found: Sequence[Any]) -> Response:
    return Response(200, jsons.write({"results": found}), [JSON])
