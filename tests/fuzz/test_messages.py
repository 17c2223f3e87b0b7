"""The gRPC messages of both services, with bytes wrong and with fields that contradict each other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.messages import classes
from edgekit_runtime.protocols import tfserving, tfserving_grpc, v2_grpc
from hypothesis import strategies as st

from tests.fuzz.making import ODD, damaged, fuzz, only_ours
from tests.fuzz.test_parsers import INPUTS, OUTPUTS, fits_and_is_answered, outputs

pytestmark = pytest.mark.slow

WHOLE = [value for value in ODD if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63]


def asked(raw: bool) -> Any:
    """A good ModelInferRequest."""
    message = classes("inference")["inference.ModelInferRequest"](model_name="m", id="1")
    x, s, n = (
        message.inputs.add(name=name, datatype=kind, shape=shape)
        for name, kind, shape in (("x", "FP32", [1, 2]), ("s", "BYTES", [1]), ("n", "INT8", [1]))
    )
    if raw:
        message.raw_input_contents.extend([np.ones(2, np.float32).tobytes(), b"\x01\0\0\0w", b"\x01"])
    else:
        x.contents.fp32_contents.extend([1, 2])
        s.contents.bytes_contents.append(b"w")
        n.contents.int_contents.append(1)
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    message.parameters["timeout"].int64_param = 5_000_000
    return message


@pytest.mark.parametrize("raw", [True, False])
def test_inference_requests(raw: bool) -> None:
    known, kind, reply = (
        v2_grpc.model("m", "1", (INPUTS, OUTPUTS)),
        type(asked(raw)),
        classes("inference")["inference.ModelInferResponse"],
    )

    def check(data: bytes) -> None:
        message = parsed(kind, data)
        found = None if message is None else only_ours(lambda: v2_grpc.read_request(message, known))
        if found is not None:
            only_ours(lambda: v2_grpc.write_response(reply, known, found, outputs()))

    fuzz(damaged([asked(raw).SerializeToString()], 2), check)
    fuzz(
        st.tuples(st.integers(0, 5), st.sampled_from(WHOLE), st.sampled_from(WHOLE)), lambda n: check(twisted(raw, *n))
    )


def twisted(raw: bool, what: int, one: int, other: int) -> bytes:
    """A request with a size, a count or a parameter that cannot be."""
    message = asked(raw)
    if what == 0:
        message.inputs[0].shape[:] = [one, other]
    elif what == 1:
        message.inputs[0].shape.extend([one] * min(abs(other), 40))
    elif what == 2:
        message.outputs[0].parameters["classification"].int64_param = one
    elif what == 3:
        message.parameters["timeout"].int64_param = one
    elif what == 4:
        message.inputs[2].contents.int_contents[:] = [max(min(one, 2**31 - 1), -(2**31))]
    else:
        message.inputs[1].shape[:] = [one]
        message.raw_input_contents.append(one.to_bytes(9, "little", signed=True))
    return bytes(message.SerializeToString())


def parsed(kind: type[Any], data: bytes) -> Any:
    """The message, None where gRPC itself would have refused the bytes."""
    try:
        return kind.FromString(data)
    except Exception:  # protobuf's DecodeError, of whichever implementation
        return None


def predict() -> Any:
    message = tfserving_grpc.message("PredictRequest")
    message.model_spec.name = "m"
    tfserving_grpc.fill_tensor(message.inputs["x"], np.ones((1, 2), np.float32))
    tfserving_grpc.fill_tensor(message.inputs["n"], np.ones(1, np.int8))
    tfserving_grpc.fill_tensor(message.inputs["s"], np.array(["w"], dtype=object))
    message.output_filter.append("y")
    return message


def classify(name: str) -> Any:
    message = tfserving_grpc.message(name)
    message.model_spec.name = "m"
    features = message.input.example_list.examples.add().features.feature
    features["x"].float_list.value.extend([1, 2])
    features["s"].bytes_list.value.append(b"w")
    features["n"].int64_list.value.append(3)
    return message


def multi() -> Any:
    message = tfserving_grpc.message("MultiInferenceRequest")
    message.tasks.add(method_name="tensorflow/serving/classify").model_spec.name = "m"
    message.input.CopyFrom(classify("ClassificationRequest").input)
    return message


@pytest.mark.parametrize(
    ("read", "good"),
    [
        (tfserving_grpc.read_predict, predict),
        (tfserving_grpc.read_classify, lambda: classify("ClassificationRequest")),
        (tfserving_grpc.read_regress, lambda: classify("RegressionRequest")),
        (tfserving_grpc.read_multi, multi),
    ],
)
def test_tensorflow_serving_requests(read: Callable[..., Any], good: Callable[[], Any]) -> None:
    signature, kind = tfserving.Signature(INPUTS, OUTPUTS), type(good())

    def check(data: bytes) -> None:
        message = parsed(kind, data)
        if message is not None:
            fits_and_is_answered(only_ours(lambda: read(message, signature, ("m", 1))))

    fuzz(damaged([good().SerializeToString()], 2), check)
