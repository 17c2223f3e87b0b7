"""What ai-edge-quantizer is to do to each kind of operator, by precision.

Refuses 4-bit weights where convolutions hold most of them, and precisions that TFLite does not have."""

import re
from typing import Any

from edgekit_runtime.errors import Unsupported

from edgekit.quantizers import Wish
from edgekit.quantizers.tflite_graph import Graph
from edgekit.quiet import quiet
from edgekit.recipes import Recipe

HALF = "float16"
MIN_MAX = "min_max_uniform_quantize"
LEAST_ERROR = "OCTAV"
BLOCK = 32
LONGEST = 10_000
"""Letters of an operator's names at which the tool cuts them."""

DENSE_OP = "FULLY_CONNECTED"
DENSE = {DENSE_OP, "EMBEDDING_LOOKUP"}
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")
LAYERS = {*DENSE, "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}

SLOW = {
    *("HARD_SWISH", "GELU", "RSQRT", "SQRT", "DIV", "SQUARED_DIFFERENCE"),
    *("SELECT", "SELECT_V2", "SOFTMAX", "BATCH_MATMUL"),
}
"""Operators whose integer kernels are reference code, slower than float ones with the conversions around them:
a hard-swish net ran at 3.9 times the float latency with them in int8, and at 0.77 with them in float."""


def recipe(graph: Graph, wish: Wish) -> list[dict[str, Any]]:
    """The rules in the tool's own form, later ones above earlier ones.

    Raises:
        Unsupported: this graph, or LiteRT, has no such recipe.
    """
    asked = wish.recipe
    _refuse_unfit(graph, asked)
    kept = [_no("*", scope_of(graph, name)) for name in asked.keep]
    if wish.precision == "int8":
        return [*_static(graph, wish), *kept]
    if wish.precision == "int8-weights":
        dense = (_dynamic(op, 8, granularity=_scales(asked)) for op in sorted(DENSE))
        return [*(_weights_only(op, 8) for op in CONVOLUTIONS), *dense, *kept]
    if wish.precision == "int4-weights":
        return [*_four_bit(graph), *kept]
    if wish.precision == HALF:
        return [_weights_only("*", 16, dtype="FLOAT", algorithm="float_casting"), *kept]
    raise Unsupported(
        f"tflite has no precision {wish.precision!r}", hint="use float16, int8, int8-weights, int4-weights"
    )


def operators(graph: Graph, wish: Wish) -> tuple[str, ...]:
    """The operators that the tool puts in int8 by the wish's rules, by the names of their results, in order."""
    with quiet():
        from ai_edge_quantizer.recipe_manager import RecipeManager
        from ai_edge_quantizer.utils.tfl_flatbuffer_utils import TFL_OP_CODE_TO_NAME, get_op_scope

        manager = RecipeManager()
        manager.load_quantization_recipe(recipe(graph, wish))
    main, found = graph.model.subgraphs[0], []
    for op in main.operators:
        kind = TFL_OP_CODE_TO_NAME.get(graph.model.operatorCodes[op.opcodeIndex].builtinCode)
        if kind is None or not len(op.outputs):
            continue
        algorithm, _ = manager.get_quantization_configs(kind, get_op_scope(op, main.tensors))
        if algorithm != "no_quantize":
            found.append(main.tensors[op.outputs[0]].name.decode())
    return tuple(found)


def scope_of(graph: Graph, name: str) -> str:
    """The tool knows an operator by the names of its results, each with a semicolon behind it; the whole of it, since
    a name may go on, after a semicolon, where another ends."""
    main = graph.model.subgraphs[0]
    results = ([main.tensors[index].name.decode() for index in op.outputs if index >= 0] for op in main.operators)
    found = next((names for names in results if names[:1] == [name]), [name])
    return f"^{re.escape(''.join(f'{one};' for one in found if one)[:LONGEST])}$"


def _refuse_unfit(graph: Graph, asked: Recipe) -> None:
    if asked.reduce_range:
        raise Unsupported(
            "7-bit weights are no use in LiteRT, whose 8-bit arithmetic is exact on every CPU",
            hint="leave the reduced range out",
        )
    static = asked.ranges != "minmax" or asked.equalize or asked.smooth or asked.correct_bias or not asked.per_channel
    if asked.precision != "int8" and static:
        raise Unsupported(f"{asked.precision} in TFLite knows no {asked.words}", hint="use --precision int8 for that")
    names = {tensor.name.decode() for tensor in graph.model.subgraphs[0].tensors}
    if strangers := [name for name in asked.keep if name not in names]:
        raise Unsupported(f"no operator of this model makes {strangers[0]!r}", hint="name operators by their results")


def _static(graph: Graph, wish: Wish) -> list[dict[str, Any]]:
    """Everything in int8, BATCH_MATMUL per tensor: LiteRT's integer kernel takes a scale for each channel of its
    weights for a scale of 0, and answers zero to everything.

    With float inputs and outputs, unless it has to be integers as a whole, what is slow in int8 and what follows the
    last layer stays in float, and that layer multiplies integers but answers in float: integer outputs tie. Where
    dense layers prevail, nothing but layers and lookups is in int8.
    """
    weights, dynamic = "CHANNELWISE" if wish.recipe.per_channel else "TENSORWISE", _scales(wish.recipe)
    rules = [_integer("*", weights), _integer("BATCH_MATMUL", "TENSORWISE")]
    rules.append(_dynamic("EMBEDDING_LOOKUP", 8, granularity=dynamic))
    if wish.integer_io or wish.whole:
        return rules
    kinds = set(map(graph.op_name, graph.model.subgraphs[0].operators))
    slow = kinds - LAYERS - {"GATHER"} if _mostly_dense(graph) else SLOW
    rules += [_no(op) for op in ("INPUT", "OUTPUT", *sorted(slow))]
    for chain in graph.last_layers():
        if chain[-1].op == DENSE_OP:
            rules += [_no("*", scope_of(graph, step.result)) for step in chain[:-1]]
            last = weights if dynamic == "CHANNELWISE" else dynamic
            rules.append(_dynamic(DENSE_OP, 8, scope_of(graph, chain[-1].result), last))
    return rules


def _scales(asked: Recipe) -> str:
    """One scale for each row of weights that meet float numbers (`_dynamic`); one for all where the engine is old:
    tflite-runtime 2.14 takes several scales for a scale of 0 there, and answers with the bias alone. Integer inputs
    it multiplies rightly by every row's own."""
    return "TENSORWISE" if asked.dense_per_tensor else "CHANNELWISE"


def _mostly_dense(graph: Graph) -> bool:
    """Transformers and unrolled recurrent nets: there each run of integers between operators that are slow in int8
    costs its conversions (a transformer took .76 of the float time with its layers alone in int8, .87 with more)."""
    kinds = [graph.op_name(op) for op in graph.model.subgraphs[0].operators]
    return kinds.count(DENSE_OP) > sum(kind in LAYERS - DENSE for kind in kinds)


def _four_bit(graph: Graph) -> list[dict[str, Any]]:
    """Blocks of 32, or one scale per row where a width is no multiple of 32; embeddings by the least error."""
    total = sum(weight.size for weight in graph.weights)
    dense = [weight for weight in graph.weights if weight.op in DENSE]
    share = sum(weight.size for weight in dense) / max(total, 1)
    if share < 0.5:
        raise Unsupported(
            f"4-bit weights are for dense layers and embeddings, which hold {share:.0%} of the weights",
            hint="use --precision int8-weights",
        )
    blocks = all(weight.shape[-1] % BLOCK == 0 for weight in dense)
    granularity = f"BLOCKWISE_{BLOCK}" if blocks else "CHANNELWISE"
    embedding = _rule("EMBEDDING_LOOKUP", _computed(4, granularity), algorithm=LEAST_ERROR)
    return [embedding, _dynamic(DENSE_OP, 4, granularity=granularity)]


def _rule(op: str, config: dict[str, Any], scope: str = ".*", algorithm: str = MIN_MAX) -> dict[str, Any]:
    return {"regex": scope, "operation": op, "algorithm_key": algorithm, "op_config": config}


def _no(op: str, scope: str = ".*") -> dict[str, Any]:
    return _rule(op, {}, scope, "no_quantize")


def _computed(bits: int, granularity: str = "CHANNELWISE") -> dict[str, Any]:
    weights = {"num_bits": bits, "symmetric": True, "granularity": granularity, "dtype": "INT"}
    return {"weight_tensor_config": weights, "compute_precision": "INTEGER", "explicit_dequantize": False}


def _integer(op: str, granularity: str) -> dict[str, Any]:
    """Integer weights and activations. Weights keep their whole range: what OCTAV cuts off wins little in 8 bits, and
    it gives a channel of zeros the scale 0, which takes its layer off the fast kernels."""
    activations = {"num_bits": 8, "symmetric": False, "granularity": "TENSORWISE", "dtype": "INT"}
    return _rule(op, {"activation_tensor_config": activations, **_computed(8, granularity)})


def _dynamic(op: str, bits: int, scope: str = ".*", granularity: str = "CHANNELWISE") -> dict[str, Any]:
    """Integer weights; activations are float outside the operator and rounded row by row inside: faster than float
    for dense layers, twice as slow for convolutions."""
    return _rule(op, _computed(bits, granularity), scope)


def _weights_only(op: str, bits: int, dtype: str = "INT", algorithm: str = MIN_MAX) -> dict[str, Any]:
    """Stored small, computed in float."""
    weights = {"num_bits": bits, "symmetric": True, "granularity": "CHANNELWISE", "dtype": dtype}
    config = {"weight_tensor_config": weights, "compute_precision": "FLOAT", "explicit_dequantize": True}
    return _rule(op, config, algorithm=algorithm)
