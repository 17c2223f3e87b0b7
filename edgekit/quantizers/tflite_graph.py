"""Look into a TFLite file: its signature, its weights and their types, its last layers.

Refuses a file that is no TFLite flatbuffer; a file without a signature is given one, which the quantizer needs."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from edgekit_runtime.errors import Unsupported

from edgekit.quantizers.coverage import Coverage
from edgekit.quiet import last_line

OPS = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
FLOATS = {schema.TensorType.FLOAT32, schema.TensorType.FLOAT16}
WEIGHTED = {
    *("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "FULLY_CONNECTED", "BATCH_MATMUL"),
    *("EMBEDDING_LOOKUP", "GATHER", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "LSTM"),
}
TAIL = {"SOFTMAX", "LOGISTIC", "RESHAPE", "TANH", "LOG_SOFTMAX", "SQUEEZE"}
"""What may stand between the last layer and an output."""


@dataclass(frozen=True)
class Weight:
    """A constant that a weighted operator uses."""

    shape: tuple[int, ...]
    type: int
    op: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Step:
    """An operator and the name of the tensor it makes."""

    op: str
    result: str


@dataclass(frozen=True)
class Graph:
    """A TFLite file, its name for the signature to run, and that signature's arguments by the tensors they are."""

    content: bytes
    model: Any
    signature: str
    arguments: Mapping[str, str]

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """The weights, each once however many operators use it."""
        found: dict[int, Weight] = {}
        for subgraph in self.model.subgraphs:
            makers = self._makers(subgraph)
            for op in subgraph.operators:
                name = self.op_name(op)
                for index in op.inputs if name in WEIGHTED else ():
                    tensor = subgraph.tensors[_stored(makers, index, self)]
                    if tensor.buffer and self._is_weight(tensor):
                        shape = tuple(map(int, tensor.shape))
                        found.setdefault(tensor.buffer, Weight(shape, tensor.type, name))
        return tuple(found.values())

    def last_layers(self) -> Iterator[tuple[Step, ...]]:
        """For each output the operators from there back to a layer, which comes last."""
        main = self.model.subgraphs[0]
        makers = self._makers(main)
        for index in main.outputs:
            chain: list[Step] = []
            while (op := makers.get(index)) is not None:
                chain.append(Step(self.op_name(op), main.tensors[index].name.decode()))
                if chain[-1].op not in TAIL:
                    break
                index = op.inputs[0]
            if chain:
                yield tuple(chain)

    def op_name(self, op: Any) -> str:
        """The operator's name in the schema."""
        code = self.model.operatorCodes[op.opcodeIndex]
        return str(OPS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM"))

    def is_quantized(self) -> bool:
        """Whether any weight is an integer already."""
        return any(weight.type not in FLOATS for weight in self.weights)

    def is_half(self) -> bool:
        """Whether the weights are mostly float16."""
        half = sum(weight.size for weight in self.weights if weight.type == schema.TensorType.FLOAT16)
        return 2 * half > sum(weight.size for weight in self.weights)

    def is_constant(self, tensor: Any) -> bool:
        """Whether the tensor's values stand in the file."""
        buffer = self.model.buffers[tensor.buffer]
        return bool(buffer.size > 1 or (buffer.data is not None and len(buffer.data) > 0))

    def _is_weight(self, tensor: Any) -> bool:
        integers = tensor.type in (schema.TensorType.INT32, schema.TensorType.INT64, schema.TensorType.BOOL)
        return self.is_constant(tensor) and len(tensor.shape) >= 2 and not integers

    def _makers(self, subgraph: Any) -> dict[int, Any]:
        return {index: op for op in subgraph.operators for index in op.outputs}


def read_graph(content: bytes) -> Graph:
    """The file as an object, with a signature.

    Raises:
        Unsupported: the bytes are no TFLite model.
    """
    try:
        model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
        if not model.signatureDefs:
            _sign(model)
            content = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
        signature = model.signatureDefs[0]
        tensors = model.subgraphs[signature.subgraphIndex].tensors
        arguments = {pair.name.decode(): tensors[pair.tensorIndex].name.decode() for pair in signature.inputs}
    except Exception as error:  # a damaged flatbuffer raises anything from struct.error to AttributeError
        raise Unsupported(f"not a TFLite model: {last_line(error)}", hint="export the model again") from error
    return Graph(content, model, signature.signatureKey.decode(), arguments)


def coverage(before: Graph, after: Graph) -> Coverage:
    """Which of the float weights of `before` became integers."""
    total = sum(weight.size for weight in before.weights)
    left = [weight for weight in after.weights if weight.type in FLOATS]
    return Coverage(total, total - sum(weight.size for weight in left), Counter(weight.op for weight in left))


def whole(graph: Graph) -> Any:
    """The model with every constant inside it, to be changed and written: large files keep theirs behind the tables."""
    model = deepcopy(graph.model)
    for buffer in model.buffers:
        if buffer.size > 1 and (buffer.data is None or not len(buffer.data)):
            buffer.data = np.frombuffer(graph.content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def _stored(makers: Mapping[int, Any], index: int, graph: Graph) -> int:
    """The tensor that is stored, past the DEQUANTIZE that weight-only files put before an operator."""
    op = makers.get(index)
    return int(op.inputs[0]) if op is not None and graph.op_name(op) == "DEQUANTIZE" else int(index)


def _sign(model: Any) -> None:
    """Add the signature `serving_default` over the main subgraph."""
    main, signature = model.subgraphs[0], schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_argument(f"input_{place}", index) for place, index in enumerate(main.inputs)]
    signature.outputs = [_argument(f"output_{place}", index) for place, index in enumerate(main.outputs)]
    model.signatureDefs = [signature]


def _argument(name: str, index: int) -> Any:
    pair = schema.TensorMapT()
    pair.name, pair.tensorIndex = name.encode(), int(index)
    return pair
