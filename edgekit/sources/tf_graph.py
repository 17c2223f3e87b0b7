"""A TensorFlow model as a frozen graph: variables made constants, calls written out, the user's names on it.

Refuses nothing; TensorFlow's own errors pass, for the callers to cut to one line."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
from edgekit_runtime.tensors import Shape

from edgekit.quiet import quiet
from edgekit.sources.tf_calls import tensorflow

PLUMBING = {"Const", "Identity", "NoOp", "Placeholder", "PartitionedCall", "StatefulPartitionedCall", "_Arg", "_Retval"}


@dataclass(frozen=True)
class Frozen:
    """A graph without variables; `inputs` and `outputs` give the tensor in it by the user's name."""

    graph: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def ops(self) -> dict[str, int]:
        """Operators by name and count, of the graph and of its functions."""
        names = Counter(node.op for node in self._nodes())
        return {name: count for name, count in sorted(names.items()) if name not in PLUMBING}

    def constants(self) -> tuple[int, int]:
        """How many real numbers the graph holds, and in how many bytes."""
        count = size = 0
        for node in self._nodes():
            if node.op == "Const":
                dtype = tensorflow().as_dtype(node.attr["dtype"].type)
                numbers = int(np.prod([d.size for d in node.attr["value"].tensor.tensor_shape.dim]))
                if dtype.is_floating:
                    count, size = count + numbers, size + numbers * dtype.size
        return count, size

    def _nodes(self) -> list[Any]:
        """The nodes of the graph and of every function that it calls, directly or not."""
        functions = {function.signature.name: function for function in self.graph.library.function}
        nodes = list(self.graph.node)
        for node in nodes:  # grows while it is walked
            for value in node.attr.values():
                for call in _called(value):
                    if function := functions.pop(call.name, None):
                        nodes.extend(function.node_def)
        return nodes


def dressed(frozen: Frozen, shapes: Mapping[str, Shape]) -> Frozen:
    """The same graph with the user's names on its tensors and inputs of these shapes; what follows is inferred anew."""
    tf = tensorflow()
    with quiet():
        graph = tf.Graph()
        with graph.as_default():
            dtypes = {node.name: node.attr["dtype"].type for node in frozen.graph.node if node.op == "Placeholder"}
            inputs = {
                name: tf.compat.v1.placeholder(dtypes[tensor.partition(":")[0]], shapes[name], _plain(name))
                for name, tensor in frozen.inputs.items()
            }
            found = tf.graph_util.import_graph_def(
                frozen.graph,
                name="inner",
                input_map={tensor: inputs[name] for name, tensor in frozen.inputs.items()},
                return_elements=list(frozen.outputs.values()),
            )
            outputs = {
                name: tf.identity(tensor, _plain(name)) for name, tensor in zip(frozen.outputs, found, strict=True)
            }
            kept = [tensor.op.name for tensor in [*inputs.values(), *outputs.values()]]
            cut = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), kept)
    return Frozen(
        cut,
        {name: tensor.name for name, tensor in inputs.items()},
        {name: tensor.name for name, tensor in outputs.items()},
    )


def with_list_batch(frozen: Frozen, batch: int) -> Frozen:
    """The same graph, in which the lists of recurrent layers hold elements of `batch` rows, where that is open."""
    graph = type(frozen.graph)()
    graph.CopyFrom(frozen.graph)
    for nodes in [graph.node, *(function.node_def for function in graph.library.function)]:
        lists = {name.partition(":")[0] for node in nodes if node.op.startswith("TensorList") for name in node.input}
        for node in nodes:
            if node.op == "Const" and node.name in lists:
                value = tensorflow().make_ndarray(node.attr["value"].tensor)
                if value.ndim == 1 and value.size > 1 and value[0] == -1 and (value[1:] > 0).all():
                    value = np.concatenate([[batch], value[1:]]).astype(value.dtype)
                    node.attr["value"].tensor.CopyFrom(tensorflow().make_tensor_proto(value))
    return Frozen(unshaped(graph), frozen.inputs, frozen.outputs)


def freeze_function(function: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Frozen:
    """A TensorFlow function frozen, what it calls written out in it; the names are in its own order."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    made = convert_variables_to_constants_v2(function, lower_control_flow=False)
    return Frozen(
        made.graph.as_graph_def(),
        {name: tensor.name for name, tensor in zip(inputs, made.inputs, strict=True)},
        {name: tensor.name for name, tensor in zip(outputs, made.outputs, strict=True)},
    )


def concrete(frozen: Frozen) -> Any:
    """The graph as a TensorFlow function from named tensors to named tensors."""
    tf = tensorflow()
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(frozen.graph, name=""), [])
    find: Callable[[str], Any] = wrapped.graph.get_tensor_by_name
    return wrapped.prune(
        {name: find(tensor) for name, tensor in frozen.inputs.items()},
        {name: find(tensor) for name, tensor in frozen.outputs.items()},
    )


def unshaped(graph: Any) -> Any:
    """A copy without the shapes that were inferred before: freezing changes what functions take.

    Its functions get new names, since TensorFlow knows each by its name for the life of the process.
    """
    copy = type(graph)()
    copy.CopyFrom(graph)
    token = uuid4().hex[:8]
    fresh = {function.signature.name: f"{function.signature.name}_{token}" for function in copy.library.function}
    for function in copy.library.function:
        function.signature.name = fresh[function.signature.name]
        function.attr.pop("_input_shapes", None)
        function.attr.pop("api_implements", None)
        for argument in function.signature.input_arg:
            del argument.handle_data[:]
    del copy.library.gradient[:]
    for node in [*copy.node, *(node for function in copy.library.function for node in function.node_def)]:
        node.op = fresh.get(node.op, node.op)
        node.attr.pop("_output_shapes", None)
        for value in node.attr.values():
            for called in _called(value):
                called.name = fresh.get(called.name, called.name)
    return copy


def inlined(graph: Any, kept: Sequence[str]) -> Any:
    """The graph with the functions that it calls written out in it, loops kept as loops."""
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow.python.grappler import tf_optimizer

    for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
        if "_lower_using_switch_merge" in node.attr:
            node.attr["_lower_using_switch_merge"].b = False
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.append("function")
    meta = meta_graph_pb2.MetaGraphDef(graph_def=graph)
    meta.collection_def["train_op"].node_list.value.extend(kept)
    return tf_optimizer.OptimizeGraph(config, meta)


def _called(value: Any) -> list[Any]:
    """The functions that a node's attribute names."""
    return [value.func] if value.HasField("func") else list(value.list.func)


def _plain(name: str) -> str:
    """A name that TensorFlow takes for a node."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name) if re.match(r"[A-Za-z0-9]", name) else "x" + re.sub(r"\W", "_", name)
