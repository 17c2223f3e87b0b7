"""Store what NNCF's weight compression leaves (LSTM, GRU) as int8 with a scale per channel.

Refuses nothing: a constant that no weighted operator uses stays as it is."""

from typing import Any

import numpy as np

from edgekit.quantizers.openvino_graph import all_ops, user

RECURRENT = {"LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell"}


def recurrent_as_int8(model: Any) -> None:
    """Replace each float weight of a recurrent operator by Convert and Multiply of integers, in place."""
    from edgekit_runtime.engines.openvino import ov

    ops = ov.opset13

    for constant in all_ops(model):
        if constant.get_type_name() != "Constant" or user(constant) not in RECURRENT:
            continue
        if len(constant.get_output_shape(0)) < 2 or constant.get_output_element_type(0).get_type_name() != "f32":
            continue
        weight = np.asarray(constant.data)
        scale = np.abs(weight).max(axis=-1, keepdims=True) / np.float32(127)
        scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
        integers = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        whole = ops.multiply(ops.convert(ops.constant(integers), "f32"), ops.constant(scale))
        for target in constant.output(0).get_target_inputs():
            target.replace_source_output(whole.output(0))
