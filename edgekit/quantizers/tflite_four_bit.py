"""Four-bit weights of dense layers, rounded so that the layer's results stay (GPTQ) where there are samples to tell.

Refuses nothing; layers wider than WIDEST are rounded to the nearest, since GPTQ holds a square of that width."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from edgekit_runtime.tensors import Array

from edgekit.model import Tell
from edgekit.quantizers.feeding import Calibration
from edgekit.quantizers.tflite_graph import Graph
from edgekit.quantizers.tflite_recipes import DENSE_OP, scope_of
from edgekit.quantizers.tflite_static import quantized
from edgekit.quantizers.tflite_statistics import every_tensor

WIDEST = 4096


@dataclass(frozen=True)
class Dense:
    """A dense layer: the name of its input, its weights' place among the tensors, their width, its result's name."""

    taken: str
    weights: int
    width: int
    result: str


def by_error(graph: Graph, rules: list[dict[str, Any]], samples: Calibration, tell: Tell) -> bytes:
    """The file's bytes by `rules`, its dense layers by GPTQ."""
    layers = _layers(graph)
    tell("gathering what the dense layers are given")
    products = _products(graph, layers, samples)
    (config,) = (rule["op_config"] for rule in rules if rule["operation"] == DENSE_OP and rule["op_config"])
    chosen = [
        {"regex": scope_of(graph, layer.result), "operation": DENSE_OP, "algorithm_key": "GPTQ", "op_config": config}
        for layer in layers
        if layer.taken in products
    ]
    kept = [rule for rule in rules if rule["algorithm_key"] == "no_quantize"]
    return quantized(graph, [*(rule for rule in rules if rule not in kept), *chosen, *kept], products)


def _layers(graph: Graph) -> list[Dense]:
    main, found = graph.model.subgraphs[0], []
    for op in main.operators:
        if graph.op_name(op) != DENSE_OP:
            continue
        taken, weights = (main.tensors[index] for index in op.inputs[:2])
        if graph.is_constant(weights) and not graph.is_constant(taken) and weights.shape[1] <= WIDEST:
            result = main.tensors[op.outputs[0]].name.decode()
            found.append(Dense(taken.name.decode(), int(op.inputs[1]), int(weights.shape[1]), result))
    return found


def _products(graph: Graph, layers: Sequence[Dense], samples: Calibration) -> dict[str, dict[str, Array]]:
    """For each layer's input, twice the mean product of its channels with each other, which the tool calls its
    Hessian; summed over all layers of the same weights, such as the steps of an unrolled recurrent net."""
    sums: dict[int, Array] = {}
    rows: dict[int, int] = {}
    for tensors in every_tensor(graph, graph.content, samples):
        for layer in layers:
            if layer.taken in tensors:
                value = tensors[layer.taken].reshape(-1, layer.width)
                product = value.T @ value
                sums[layer.weights] = sums[layer.weights] + product if layer.weights in sums else product
                rows[layer.weights] = rows.get(layer.weights, 0) + len(value)
    ends = {"min": np.zeros((1, 1), np.float32), "max": np.ones((1, 1), np.float32)}
    found: dict[str, dict[str, Array]] = {}
    for layer in layers:
        if layer.weights in sums and np.isfinite(sums[layer.weights]).all():
            mean = np.asarray(sums[layer.weights] * np.float32(2 / rows[layer.weights]))
            found.setdefault(layer.taken, {**ends, "hessian": mean, "num_samples": np.array(rows[layer.weights])})
    return found
