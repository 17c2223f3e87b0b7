"""OpenVINO as an engine: opens `.xml` (with its `.bin`) on CPU, Intel GPU or NPU. Imported without its telemetry.

Refuses a file that OpenVINO cannot compile; never lets the plugin pick a lower float precision by itself."""

from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.engines import EngineOptions, Specs
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Feeds, Runner, TensorSpec
from edgekit_runtime.untold import without_telemetry

with without_telemetry():
    import openvino as ov

__all__ = ["open_model", "ov", "read_specs"]

HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def open_model(path: Path, options: EngineOptions) -> Runner:
    """A runner over one compiled model and one request, at the float precision that `options` names."""
    core, model = _read(path)
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[options.precision], "PERFORMANCE_HINT": "LATENCY"}
    if options.device == "cpu":
        settings["INFERENCE_NUM_THREADS"] = options.threads
    try:
        request = core.compile_model(model, options.device.upper(), settings).create_infer_request()
    except RuntimeError as error:
        raise Unsupported(
            f"{path.name} does not compile in OpenVINO for {options.device}: {_last_line(error)}",
            hint=f"devices here: {', '.join(core.available_devices)}",
        ) from error
    names = _names(model.outputs)
    inputs = {name: index for index, name in enumerate(_names(model.inputs))}

    def run(feeds: Feeds) -> Feeds:
        try:
            answer = request.infer({index: feeds[name] for name, index in inputs.items()}, share_inputs=True)
        except RuntimeError as error:
            raise Unsupported(f"{path.name} does not run in OpenVINO: {_last_line(error)}") from error
        return {name: np.array(answer[index]) for index, name in enumerate(names)}

    return run


def read_specs(path: Path) -> Specs:
    """Inputs and outputs of the file; a dynamic dimension is free."""
    _, model = _read(path)
    return _specs(model.inputs), _specs(model.outputs)


def _read(path: Path) -> tuple[Any, Any]:
    core = ov.Core()
    try:
        return core, core.read_model(path)
    except RuntimeError as error:
        raise Unsupported(f"{path.name} does not load in OpenVINO: {_last_line(error)}") from error


def _specs(ports: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name,
            np.dtype(port.get_element_type().to_dtype()).name,
            tuple(None if n.is_dynamic else n.get_length() for n in port.get_partial_shape()),
        )
        for name, port in zip(_names(ports), ports, strict=True)
    )


def _names(ports: Any) -> list[str]:
    """A port's shortest name, or the name of the node behind it: converters do not always name tensors."""
    return [
        min(port.get_names(), key=lambda n: (len(n), n)) if port.get_names() else _node_name(port) for port in ports
    ]


def _node_name(port: Any) -> str:
    node = port.get_node()
    source = node.input_value(0).get_node() if node.get_type_name() == "Result" else node
    return f"{source.get_friendly_name()}:{port.get_index()}"


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
