"""What ai-edge-quantizer is to do to each kind of operator, by precision.

Refuses 4-bit weights where convolutions hold most of them, and precisions that TFLite does not have."""

import re
from typing import Any

from edgekit_runtime.errors import Unsupported

from edgekit.quantizers import Wish
from edgekit.quantizers.tflite_graph import Graph, Step

HALF = "float16"
MIN_MAX = "min_max_uniform_quantize"
BLOCK = 32
DENSE = {"FULLY_CONNECTED", "EMBEDDING_LOOKUP"}
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")

SLOW = (
    *("HARD_SWISH", "GELU", "RSQRT", "SQRT", "DIV", "SQUARED_DIFFERENCE"),
    *("SELECT", "SELECT_V2", "SOFTMAX", "BATCH_MATMUL"),
)
"""Operators whose integer kernels are reference code, slower than float ones with the conversions around them:
a hard-swish net ran at 3.9 times the float latency with them in int8, and at 0.77 with them in float."""


def recipe(graph: Graph, wish: Wish) -> list[dict[str, Any]]:
    """The rules in the tool's own form, later ones above earlier ones.

    Raises:
        Unsupported: this graph has no recipe at that precision.
    """
    if wish.precision == "int8":
        return _static(graph, wish.integer_io)
    if wish.precision == "int8-weights":
        return [_weights_only(op, 8) for op in CONVOLUTIONS] + [_dynamic(op, 8) for op in sorted(DENSE)]
    if wish.precision == "int4-weights":
        return _four_bit(graph)
    if wish.precision == HALF:
        return [_weights_only("*", 16, dtype="FLOAT", algorithm="float_casting")]
    raise Unsupported(
        f"tflite has no precision {wish.precision!r}", hint="use float16, int8, int8-weights, int4-weights"
    )


def _static(graph: Graph, integer_io: bool) -> list[dict[str, Any]]:
    """Everything in int8, BATCH_MATMUL per tensor: LiteRT's integer kernel takes a scale for each channel of its
    weights for a scale of 0, and answers zero to everything.

    With float inputs and outputs, what is slow in int8 and what follows the last layer stays in float, and that
    layer multiplies integers but answers in float: integer outputs tie.
    """
    activations = {"num_bits": 8, "symmetric": False, "granularity": "TENSORWISE", "dtype": "INT"}
    everything = _rule("*", {"activation_tensor_config": activations, **_computed(8)})
    rules = [everything, _dynamic("EMBEDDING_LOOKUP", 8)]
    if integer_io:
        return [*rules, _rule("BATCH_MATMUL", {"activation_tensor_config": activations, **_computed(8, "TENSORWISE")})]
    rules += [_no(op) for op in ("INPUT", "OUTPUT", *SLOW)]
    for chain in graph.last_layers():
        if chain[-1].op == "FULLY_CONNECTED":
            rules += [_no("*", _scope(step)) for step in chain[:-1]]
            rules.append(_dynamic("FULLY_CONNECTED", 8, _scope(chain[-1])))
    return rules


def _four_bit(graph: Graph) -> list[dict[str, Any]]:
    """Blocks of 32 for the dense layers, one scale per row where the width is no multiple of 32."""
    total = sum(weight.size for weight in graph.weights)
    dense = [weight for weight in graph.weights if weight.op in DENSE]
    share = sum(weight.size for weight in dense) / max(total, 1)
    if share < 0.5:
        raise Unsupported(
            f"4-bit weights are for dense layers and embeddings, which hold {share:.0%} of the weights",
            hint="use --precision int8-weights",
        )
    blocks = all(weight.shape[-1] % BLOCK == 0 for weight in dense)
    return [_dynamic(op, 4, granularity=f"BLOCKWISE_{BLOCK}" if blocks else "CHANNELWISE") for op in sorted(DENSE)]


def _scope(step: Step) -> str:
    """The tool knows an operator by the name of its result."""
    return f"^{re.escape(step.result)};$"


def _rule(op: str, config: dict[str, Any], scope: str = ".*", algorithm: str = MIN_MAX) -> dict[str, Any]:
    return {"regex": scope, "operation": op, "algorithm_key": algorithm, "op_config": config}


def _no(op: str, scope: str = ".*") -> dict[str, Any]:
    return _rule(op, {}, scope, "no_quantize")


def _computed(bits: int, granularity: str = "CHANNELWISE") -> dict[str, Any]:
    weights = {"num_bits": bits, "symmetric": True, "granularity": granularity, "dtype": "INT"}
    return {"weight_tensor_config": weights, "compute_precision": "INTEGER", "explicit_dequantize": False}


def _dynamic(op: str, bits: int, scope: str = ".*", granularity: str = "CHANNELWISE") -> dict[str, Any]:
    """Integer weights; activations are float outside the operator and rounded row by row inside: faster than float
    for dense layers, twice as slow for convolutions."""
    return _rule(op, _computed(bits, granularity), scope)


def _weights_only(op: str, bits: int, dtype: str = "INT", algorithm: str = MIN_MAX) -> dict[str, Any]:
    """Stored small, computed in float."""
    weights = {"num_bits": bits, "symmetric": True, "granularity": "CHANNELWISE", "dtype": dtype}
    config = {"weight_tensor_config": weights, "compute_precision": "FLOAT", "explicit_dequantize": True}
    return _rule(op, config, algorithm=algorithm)
