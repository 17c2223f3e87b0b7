"""OpenVINO as an engine: opens `.xml` (with its `.bin`) on CPU, Intel GPU or NPU, or on the best there is (AUTO), or
parted among several (HETERO). Imported without its telemetry.

Refuses a file that OpenVINO cannot compile, a device that is not there, and one that takes less of the file than it
must; never lets a plugin pick a lower float precision by itself, or the CPU where the order does not name it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.engines import EngineOptions, Specs
from edgekit_runtime.engines.placed import Placement, check_placement
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Feeds, Runner, TensorSpec
from edgekit_runtime.untold import without_telemetry

with without_telemetry():
    import openvino as ov

__all__ = ["open_model", "ov", "placement", "read_specs"]

HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
SEVERAL = ("auto", "hetero")
NO_WORK = {"Parameter", "Result", "Constant"}
"""Nodes of a model that compute nothing."""


def open_model(path: Path, options: EngineOptions) -> Runner:
    """A runner over one compiled model and one request, at the float precision that `options` names.

    There is one request whatever the hint, since a lane runs one at a time: "throughput" is then what the device makes
    of one stream, not several side by side.
    """
    compiled, model, placed = _compiled(path, options)
    check_placement(placed, options.least, path.name)
    request = compiled.create_infer_request()
    names = _names(model.outputs)
    inputs = {name: index for index, name in enumerate(_names(model.inputs))}

    def run(feeds: Feeds) -> Feeds:
        try:
            answer = request.infer({index: feeds[name] for name, index in inputs.items()}, share_inputs=True)
        except RuntimeError as error:
            raise Unsupported(f"{path.name} does not run in OpenVINO: {_last_line(error)}") from error
        return {name: np.array(answer[index]) for index, name in enumerate(names)}

    return run


def placement(path: Path, options: EngineOptions) -> Placement:
    """Where the file's operators run, asked of OpenVINO itself."""
    return _compiled(path, options)[2]


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


def _compiled(path: Path, options: EngineOptions) -> tuple[Any, Any, Placement]:
    core, model = _read(path)
    devices = _devices(core, options, path.name)
    where = ",".join(devices)
    own = {device: _settings(device, options) for device in devices}
    if options.device in SEVERAL:
        where = f"{options.device.upper()}:{where}"
        settings: dict[str, Any] = {"DEVICE_PROPERTIES": own}
        if options.device == "auto":  # wait for the best device, and stay with it unless the CPU was named too
            falls = "CPU" in devices
            settings |= {"PERFORMANCE_HINT": options.hint.upper(), "ENABLE_STARTUP_FALLBACK": False}
            settings |= {"ENABLE_RUNTIME_FALLBACK": falls}
    else:
        settings = own[where]
    try:
        compiled = core.compile_model(model, where, settings)
        return compiled, model, _placed(core, compiled, model, options.device, where)
    except RuntimeError as error:
        left = _left(core, model, devices[0]) if len(devices) == 1 and devices != ["CPU"] else ""
        raise Unsupported(
            f"{path.name} does not compile in OpenVINO for {options.device}: {_last_line(error)}{left}",
            hint=f"devices here: {_listed(core)}",
        ) from error


def _devices(core: Any, options: EngineOptions, name: str) -> list[str]:
    """The devices to compile for, as OpenVINO names them: of an order those that are there."""
    there: list[str] = list(core.available_devices)
    several = options.device in SEVERAL
    named = [word.upper() for word in options.order] if several else [options.device.upper()]
    wanted = named or sorted(there, key=lambda device: device.startswith("CPU"))
    found = [word for word in wanted if word in there or any(one.startswith(f"{word}.") for one in there)]
    if not found:
        raise Unsupported(
            f"{name} is for {' or '.join(word.lower() for word in wanted)}, and OpenVINO finds none of it here",
            hint=f"install its driver, or take another device; devices here: {_listed(core)}",
        )
    return found


def _listed(core: Any) -> str:
    return ", ".join(core.available_devices) or "none"


def _settings(device: str, options: EngineOptions) -> dict[str, Any]:
    """What is said to one device's plugin."""
    found: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": HINTS[options.precision],
        "PERFORMANCE_HINT": options.hint.upper(),
        "PERFORMANCE_HINT_NUM_REQUESTS": 1,
    }
    return found | ({"INFERENCE_NUM_THREADS": options.threads} if device == "CPU" else {})


def _placed(core: Any, compiled: Any, model: Any, asked: str, where: str) -> Placement:
    """Where the operators run: HETERO tells each operator's device, the others run all of them on one. The CPU is the
    device only where it was asked for by its own name."""
    kinds = {op.get_friendly_name(): op.get_type_name() for op in model.get_ordered_ops()}
    work = {name: kind for name, kind in kinds.items() if kind not in NO_WORK}
    if asked == "hetero":
        affinities: Mapping[str, str] = core.query_model(model, where)
    else:
        used = str(compiled.get_property("EXECUTION_DEVICES")[0]).strip("()")
        affinities = dict.fromkeys(work, used)
    return _counted(work, affinities, asked)


def _counted(work: Mapping[str, str], affinities: Mapping[str, str], asked: str) -> Placement:
    """`work` are kinds of operators by name, `affinities` the devices by name."""
    homes = [affinities.get(name, "CPU") for name in work]
    best = Counter(home for home in homes if home != "CPU").most_common(1)
    if asked == "cpu":
        return Placement("cpu", len(work), {})
    left = Counter(kind for kind, home in zip(work.values(), homes, strict=True) if home == "CPU")
    return Placement(best[0][0].lower() if best else asked, len(work) - left.total(), dict(left))


def _left(core: Any, model: Any, device: str) -> str:
    """The operators that a device does not take, for an error; nothing where it does not tell."""
    try:
        taken = core.query_model(model, device)
    except RuntimeError:
        return ""
    ops = [op for op in model.get_ordered_ops() if op.get_type_name() not in NO_WORK]
    left = Counter(op.get_type_name() for op in ops if op.get_friendly_name() not in taken)
    return f"; it does not take {Placement(device, 0, dict(left)).left_text()}" if left else ""


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
