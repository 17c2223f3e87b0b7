"""TensorFlow Serving's messages: requests to tensors, outputs to responses, a model's status and signature. Pure.

Refuses inputs that are missing or too many, outputs that there are not, and other signatures than a bundle's one."""

from collections.abc import Callable, Mapping, Sequence

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.messages import classes as messages
from edgekit_runtime.protocols import tfserving_examples as examples_of
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.protocols.tfserving import DEFAULT, Signature
from edgekit_runtime.protocols.tfserving_status import CLASSIFY, DTYPES, PREDICT, REGRESS, Version, sizes
from edgekit_runtime.protocols.tfserving_tensors import Message, array, fill_tensor
from edgekit_runtime.protocols.tfserving_values import Encoded, with_samples
from edgekit_runtime.tensors import Array, Feeds, TensorSpec

Named = tuple[str, int]
"""A model's name and the number of its version."""


def message(name: str) -> Message:
    """A new message of the package tensorflow.serving."""
    return messages("tensorflow_serving")[f"tensorflow.serving.{name}"]()


def read_predict(request: Message, signature: Signature, named: Named) -> Asked:
    """The inference that a PredictRequest asks for.

    Raises:
        BadRequest: it does not fit the model.
    """
    if request.model_spec.signature_name not in ("", DEFAULT):
        raise BadRequest(
            f'Serving signature key "{request.model_spec.signature_name[:100]}" not found.', hint=f"use {DEFAULT}"
        )
    known = {spec.name for spec in signature.inputs}
    if not known.issuperset(request.inputs):
        raise _unlike(request.inputs, sorted(known - set(request.inputs)), signature)
    specs = _filtered(request.output_filter, signature.outputs)

    def write(outputs: Mapping[str, Array]) -> Message:
        response = message("PredictResponse")
        fill_spec(response.model_spec, named, DEFAULT)
        for spec in specs:
            fill_tensor(response.outputs[spec.name], outputs[spec.name])
        return response

    return Asked(_inputs(request.inputs, signature), write)


def read_classify(request: Message, signature: Signature, named: Named) -> Asked:
    """The classification that a ClassificationRequest asks for."""
    return _read_one(request, signature, named, CLASSIFY)


def read_regress(request: Message, signature: Signature, named: Named) -> Asked:
    """The regression that a RegressionRequest asks for."""
    return _read_one(request, signature, named, REGRESS)


def read_multi(request: Message, signature: Signature, named: Named) -> Asked:
    """The classifications and regressions of one input that a MultiInferenceRequest asks for."""
    tasks = [(task.method_name, task.model_spec.signature_name) for task in request.tasks]
    if len({task.model_spec.name for task in request.tasks}) > 1:
        raise BadRequest("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    if len(set(tasks)) != len(tasks):
        raise BadRequest("a task is asked for twice", hint="ask for each method once")
    for method, name in tasks:
        if method not in (CLASSIFY, REGRESS):
            raise BadRequest(f"Unsupported signature method_name: {method[:100]}", hint=f"use {CLASSIFY} or {REGRESS}")
        examples_of.check_signature(name, method)
    given = _examples(request.input)

    def write(outputs: Mapping[str, Array]) -> Message:
        response = message("MultiInferenceResponse")
        for method, name in tasks:
            result = response.results.add()
            fill_spec(result.model_spec, named, name)
            part = result.classification_result if method == CLASSIFY else result.regression_result
            FILL[method](part, outputs, signature, len(given))
        return response

    return Asked(examples_of.feeds_of(given, signature), write)


def fill_spec(spec: Message, named: Named, signature_name: str) -> None:
    """Write who answered."""
    spec.name, spec.version.value, spec.signature_name = *named, signature_name


def metadata(signature: Signature, named: Named) -> Message:
    """The GetModelMetadataResponse with the one signature, packed as clients unpack it."""
    found = message("SignatureDefMap")
    described = found.signature_def[DEFAULT]
    described.method_name = PREDICT
    for side, specs in ((described.inputs, signature.inputs), (described.outputs, signature.outputs)):
        for spec in specs:
            info = side[spec.name]
            info.name = f"{spec.name}:0"
            info.dtype = info.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name[DTYPES[spec.dtype]].number
            info.tensor_shape.SetInParent()
            for size in sizes(spec):
                info.tensor_shape.dim.add().size = size
    response = message("GetModelMetadataResponse")
    fill_spec(response.model_spec, named, "")
    packed = response.metadata["signature_def"]
    packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    packed.value = found.SerializeToString()
    return response


def status(versions: Sequence[Version]) -> Message:
    """The GetModelStatusResponse."""
    response = message("GetModelStatusResponse")
    for version in versions:
        told = response.model_version_status.add()
        told.version = version.number
        told.state = told.State.Value(version.state)
        told.status.error_code, told.status.error_message = (2 if version.reason else 0), version.reason
    return response


def _read_one(request: Message, signature: Signature, named: Named, method: str) -> Asked:
    examples_of.check_signature(request.model_spec.signature_name, method)
    given = _examples(request.input)

    def write(outputs: Mapping[str, Array]) -> Message:
        response = message("ClassificationResponse" if method == CLASSIFY else "RegressionResponse")
        fill_spec(response.model_spec, named, request.model_spec.signature_name or DEFAULT)
        FILL[method](response.result, outputs, signature, len(given))
        return response

    return Asked(examples_of.feeds_of(given, signature), write)


def _classified(result: Message, outputs: Mapping[str, Array], signature: Signature, count: int) -> None:
    for row in examples_of.classes(outputs, signature, count):
        classified = result.classifications.add()
        for label, score in row:
            classified.classes.add(label=label, score=score)


def _regressed(result: Message, outputs: Mapping[str, Array], signature: Signature, count: int) -> None:
    for value in examples_of.values(outputs, signature, count):
        result.regressions.add(value=value)


FILL: Mapping[str, Callable[[Message, Mapping[str, Array], Signature, int], None]] = {
    CLASSIFY: _classified,
    REGRESS: _regressed,
}


def _filtered(names: Sequence[str], outputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The outputs asked for, all where none is."""
    by_name = {spec.name: spec for spec in outputs}
    for name in names:
        if name not in by_name:
            raise BadRequest(
                f"output tensor alias not found in signature: {name[:100]} Outputs expected to be in the set "
                f"{{{', '.join(by_name)}}}."
            )
    if len(set(names)) != len(names):
        raise BadRequest("duplicate output tensor alias", hint="name each output once in output_filter")
    return [by_name[name] for name in names] if names else list(outputs)


def _inputs(sent: Mapping[str, Message], signature: Signature) -> Feeds | Callable[[], Feeds]:
    encoded = signature.encoded
    found = _samples(sent, encoded, signature) if encoded is not None else []
    if encoded is None or not found:
        if missing := [spec.name for spec in signature.inputs if spec.name not in sent]:
            raise _unlike(sent, missing, signature)
        return {spec.name: array(sent[spec.name], spec) for spec in signature.inputs}
    others = [spec for spec in signature.inputs if spec.name != encoded.input and spec.name in sent]
    ready = {spec.name: array(sent[spec.name], spec) for spec in others}
    return lambda: with_samples(ready, found, encoded, signature.inputs)


def _samples(sent: Mapping[str, Message], encoded: Encoded, signature: Signature) -> list[bytes]:
    """The strings that are for preprocessing: those of a text, and those for an input that is no string itself."""
    spec = next(spec for spec in signature.inputs if spec.name == encoded.input)
    if encoded.input not in sent or (spec.dtype == "object" and encoded.kind != "text"):
        return []
    return list(sent[encoded.input].string_val)


def _unlike(sent: Mapping[str, Message], missing: Sequence[str], signature: Signature) -> BadRequest:
    extra = sorted(set(sent) - {spec.name for spec in signature.inputs})
    return BadRequest(
        f"input size does not match signature: Sent extra: {{{', '.join(extra)[:200]}}}. "
        f"Missing but required: {{{', '.join(missing)}}}.",
        hint=f"send {', '.join(map(str, signature.inputs))}",
    )


def _examples(sent: Message) -> list[examples_of.Example]:
    kind = sent.WhichOneof("kind")
    if kind is None:
        raise BadRequest("Input is empty.", hint="send an example_list")
    listed = getattr(sent, kind)
    context = _example(listed.context) if kind == "example_list_with_context" else {}
    return examples_of.merged([_example(example) for example in listed.examples], context)


def _example(example: Message) -> examples_of.Example:
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = list(getattr(feature, kind).value) if kind else []
    return found
