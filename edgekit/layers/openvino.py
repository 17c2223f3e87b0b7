"""Look inside OpenVINO models: intermediate tensors by further Results, and the CPU plugin's own counters.

Refuses a model that the CPU plugin cannot compile or run."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from edgekit_runtime.engines import read_specs
from edgekit_runtime.engines.openvino import ov
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array, Feeds

from edgekit.layers import Cost, Layer
from edgekit.layers.sums import Moments, Step, add, costs, inside, layers, often
from edgekit.model import Artifact
from edgekit.quiet import last_line, quiet

MOVES = {
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "VariadicSplit", "StridedSlice", "Slice"),
    *("Broadcast", "Tile", "Pad", "Convert", "ConvertLike", "FakeQuantize", "DepthToSpace", "SpaceToDepth"),
    *("ShapeOf", "Result", "ReadValue", "Assign", "Range"),
}
"""Operators that compute nothing of their own."""

FUSED = {
    *("Add", "Subtract", "Multiply", "Relu", "PRelu", "Elu", "Clamp", "Sigmoid", "HardSigmoid", "HSigmoid", "HSwish"),
    *("Swish", "Gelu", "Mish", "Tanh", "SoftPlus"),
}
"""Operators that the plugin works out together with what stands before them, where that has no other user."""

NOTHING = {"Parameter", "Result", "Constant"}
UNTOUCHED = {"Reorder", "Reshape", "Transpose", "Concat", "Split", "VariadicSplit"}
"""Operators that often cost nothing at all: the plugin counts them as not run."""

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}


def errors(made: Artifact, source: Artifact, feeds: Sequence[Feeds]) -> tuple[Layer, ...]:
    """Layers by the friendly names of operators; a FakeQuantize behind one stands for it in the quantized file."""
    real, rounded = _read(source), _read(made)
    steps, after = _steps(real), _last_of_each(rounded)
    names = [step.gives for step in _compared(steps, after)]
    own = _last_of_each(real)
    run_real = _runner(source, real, [own[name].output(0) for name in names])
    run_made = _runner(made, rounded, [after[name].output(0) for name in names])
    sums: Moments = {}
    for sample in feeds:
        found = zip(names, run_real(inside(source, sample)), run_made(inside(made, sample)), strict=True)
        for name, wanted, got in found:
            if wanted.dtype.kind == "f":
                add(sums, name, wanted, got)
    return layers(steps, sums)


def profile(artifact: Artifact, feeds: Feeds) -> tuple[Cost, ...]:
    """Operators as the CPU plugin runs them, after its fusions, on one thread."""
    request, model = _request(artifact, _read(artifact), {"PERF_COUNT": True})
    given = inside(artifact, feeds)
    arrays = [given[name] for name in _order(artifact)]
    try:
        warm = often(lambda: request.infer(arrays), seconds=0)
        before = _counters(request)
        runs = often(lambda: request.infer(arrays))
    except RuntimeError as error:
        raise Unsupported(f"{artifact.path.name} does not run in OpenVINO: {last_line(error)}") from error
    left = {op.get_friendly_name() for op in model.get_runtime_model().get_ops()}
    rows = []
    for name, (kernel, how, ms) in _counters(request).items():
        if name not in left or kernel in NOTHING or how == "undef" or (not ms and kernel in UNTOUCHED):
            continue
        # The counters are means since the first call, which makes kernels: what the warm-up took goes off.
        taken = max(0.0, (ms * (warm + runs) - before[name][2] * warm) / runs)
        rows.append((kernel, how.rpartition("_")[2].lower() in ("i8", "u8"), taken))
    return costs(rows)


def _read(artifact: Artifact) -> Any:
    try:
        return ov.Core().read_model(artifact.path)
    except RuntimeError as error:
        raise Unsupported(f"{artifact.path.name} does not load in OpenVINO: {last_line(error)}") from error


def _steps(model: Any) -> list[Step]:
    """The operators that depend on an input, in order; a further output of one has a name of its own."""
    alive: set[str] = set()
    steps = []
    for op in model.get_ordered_ops():
        kind, name = op.get_type_name(), op.get_friendly_name()
        takes = tuple(_tensor(value) for value in op.input_values())
        if kind == "Parameter":
            alive.add(name)
        elif alive.intersection(takes):
            gives = [_tensor(value) for value in op.outputs()]
            alive.update(gives)
            takes = tuple(one for one in takes if one in alive)
            steps += [Step(name, kind, takes, one, kind not in MOVES and one == name) for one in gives]
    return steps


def _compared(steps: Sequence[Step], after: dict[str, Any]) -> list[Step]:
    """The steps to compare: those in both files, without what is worked out together with the next and not rounded
    in between: as an output it would be kept apart from that."""
    users = Counter(name for step in steps for name in step.takes)
    swallowed = {
        step.takes[0]
        for step in steps
        if step.op in FUSED and len(step.takes) == 1 and users[step.takes[0]] == 1 and step.gives in after
    }
    return [
        step
        for step in steps
        if step.computes
        and step.gives in after
        and (step.gives not in swallowed or after[step.gives].get_type_name() == "FakeQuantize")
    ]


def _last_of_each(model: Any) -> dict[str, Any]:
    """Operator's name -> the FakeQuantize behind it, or itself where there is none."""
    found = {}
    for op in model.get_ordered_ops():
        users = [target.get_node() for target in op.output(0).get_target_inputs()] if op.get_output_size() else []
        found[op.get_friendly_name()] = next((user for user in users if user.get_type_name() == "FakeQuantize"), op)
    return found


def _tensor(value: Any) -> str:
    """A name for an operator's output: the operator's for the first."""
    name, index = value.get_node().get_friendly_name(), value.get_index()
    return f"{name}:{index}" if index else str(name)


def _runner(artifact: Artifact, model: Any, outputs: Sequence[Any]) -> Callable[[Feeds], list[Array]]:
    """A function that gives these outputs; the arrays are good until the next call."""
    places = {_tensor(result.input_value(0)): place for place, result in enumerate(model.get_results())}
    more = [value for value in outputs if _tensor(value) not in places]
    if more:
        model.add_outputs(more)
    places |= {_tensor(value): len(places) + place for place, value in enumerate(more)}
    wanted = [places[_tensor(value)] for value in outputs]
    request, _ = _request(artifact, model, {})
    order = _order(artifact)

    def run(feeds: Feeds) -> list[Array]:
        try:
            request.infer([feeds[name] for name in order], share_outputs=True)
        except RuntimeError as error:
            raise Unsupported(f"{artifact.path.name} does not run in OpenVINO: {last_line(error)}") from error
        return [request.get_output_tensor(place).data for place in wanted]

    return run


def _request(artifact: Artifact, model: Any, more: dict[str, Any]) -> tuple[Any, Any]:
    """An inference request and the compiled model."""
    try:
        with quiet():
            compiled = ov.Core().compile_model(model, "CPU", {**SETTINGS, **more})
            return compiled.create_infer_request(), compiled
    except RuntimeError as error:
        raise Unsupported(f"{artifact.path.name} does not compile in OpenVINO: {last_line(error)}") from error


def _order(artifact: Artifact) -> list[str]:
    """The inputs in the model's order."""
    return [spec.name for spec in read_specs("openvino", artifact.path)[0]]


def _counters(request: Any) -> dict[str, tuple[str, str, float]]:
    """Name -> (kind, how it runs, mean ms of a call)."""
    return {
        info.node_name: (info.node_type, info.exec_type, info.real_time.total_seconds() * 1000)
        for info in request.profiling_info
    }
