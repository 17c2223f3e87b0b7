"""A session of ONNX Runtime bound to memory of its device: one copy in and one copy out, nothing allocated anew.

Refuses a tensor of another type than the model's: ONNX Runtime would read its bytes as if they were of that type."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from edgekit_runtime.errors import BadRequest
from edgekit_runtime.tensors import Array, Feeds, Runner, TensorSpec


def bindable(specs: Sequence[TensorSpec]) -> bool:
    """Whether all tensors are of types that numpy has, and no texts."""
    try:
        return all(np.dtype(spec.dtype).kind in "biuf" for spec in specs)
    except TypeError:  # bfloat16, int4, a sequence or a map
        return False


def bound(session: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], device: str, index: int) -> Runner:
    """A runner over buffers on `device`, kept from run to run while the shapes stay. Not for two threads at once."""
    names = [spec.name for spec in outputs]
    binding = session.io_binding()
    held: dict[str, Any] = {}
    given: dict[str, Any] = {}

    def fill(spec: TensorSpec, value: Array) -> None:
        if value.dtype != np.dtype(spec.dtype):
            raise BadRequest(f"{spec.name}: {value.dtype.name} is not {spec.dtype}", hint=f"send {spec.dtype}")
        if spec.name not in held or tuple(held[spec.name].shape()) != value.shape:
            held[spec.name] = _buffer(value.shape, spec.dtype, device, index)
            binding.bind_ortvalue_input(spec.name, held[spec.name])
        held[spec.name].update_inplace(np.ascontiguousarray(value))

    def keep(answer: Feeds) -> None:
        """Memory of its own for each output that is as large as the file says; others get new memory in each run."""
        for spec in outputs:
            if spec.name not in given and spec.shape == answer[spec.name].shape and answer[spec.name].size:
                given[spec.name] = _buffer(spec.shape, spec.dtype, device, index)
                binding.bind_ortvalue_output(spec.name, given[spec.name])

    def forget() -> None:
        held.clear()
        given.clear()
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()

    def run(feeds: Feeds) -> Feeds:
        if any(feeds[spec.name].size == 0 for spec in inputs):  # there is nothing to bind
            return dict(zip(names, session.run(names, feeds), strict=True))
        try:
            for spec in inputs:
                fill(spec, feeds[spec.name])
            for name in names:
                if name not in given:  # each time: what the last run put there would have to fit
                    binding.bind_output(name, device, index)
            session.run_with_iobinding(binding)
            answer = dict(zip(names, map(_fetched, binding.get_outputs()), strict=True))
            keep(answer)
        except BaseException:
            forget()  # memory that was too little for this may do for the next
            raise
        return answer

    return run


def _fetched(value: Any) -> Array:
    """An array of its own: from the CPU's memory it would be a view of what the next run fills."""
    array: Array = value.numpy()
    return array.copy() if value.device_name() == "cpu" else array


def _buffer(shape: Sequence[int | None], dtype: str, device: str, index: int) -> Any:
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type, device, index)
