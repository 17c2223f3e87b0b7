"""Look inside ONNX files: intermediate tensors as outputs of a scratch copy, and ONNX Runtime's own profile.

Refuses a file that ONNX Runtime cannot load, as its engine does."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from edgekit_runtime.engines import EngineOptions, open_model
from edgekit_runtime.engines.onnx import CRASHING
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Array, Feeds, Runner

from edgekit.layers import Cost, Layer
from edgekit.layers.sums import Moments, Step, add, costs, inside, layers, often
from edgekit.model import Artifact
from edgekit.quantizers.onnx_graph import load, save, value
from edgekit.quiet import last_line, quiet

MOVES = {
    *("Reshape", "Transpose", "Identity", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Expand"),
    *("Tile", "Pad", "DepthToSpace", "SpaceToDepth", "Dropout", "Cast", "QuantizeLinear", "DequantizeLinear"),
    *("Shape", "Size", "Constant", "ConstantOfShape", "Range", "NonZero"),
}
"""Operators that compute nothing of their own."""

INTEGER = {"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat", "QAttention"}
"""Kernels that compute in integers, whatever they take."""

ROUNDING = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}


@dataclass(frozen=True)
class _Partner:
    """The tensor of a file that stands for one of the float file, and how its integers are meant."""

    name: str
    scale: Array | None = None
    zero: Array | None = None

    def read(self, answer: Mapping[str, Any]) -> Array | None:
        """Its real numbers; None where it holds something else."""
        value = answer[self.name]
        if self.scale is not None:
            zero = np.float32(0) if self.zero is None else self.zero.astype(np.float32)
            real: Array = (value.astype(np.float32) - zero) * self.scale
            return real
        return value if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating) else None


def errors(made: Artifact, source: Artifact, feeds: Sequence[Feeds]) -> tuple[Layer, ...]:
    """Layers by the names of tensors. Of a rounded tensor the integers are read, not their DequantizeLinear: as an
    output that one would keep its neighbours from running in integers."""
    real, rounded = load(source.path), load(made.path)
    steps = _steps(real.graph)
    own, partners = _partners(steps, real.graph), _partners(steps, rounded.graph)
    names = [name for name in partners if name in own]
    sums: Moments = {}
    with TemporaryDirectory(prefix="edgekit-") as scratch:
        run_real = _exposed(real, [own[name].name for name in names], Path(scratch) / "real.onnx")
        run_made = _exposed(rounded, [partners[name].name for name in names], Path(scratch) / "made.onnx")
        for sample in feeds:
            wanted, found = run_real(inside(source, sample)), run_made(inside(made, sample))
            for name in names:
                value, other = (one[name].read(answer) for one, answer in ((own, wanted), (partners, found)))
                if value is not None and other is not None:
                    add(sums, name, value, other)
    return layers(steps, sums)


def profile(artifact: Artifact, feeds: Feeds) -> tuple[Cost, ...]:
    """Kernels as they run after ONNX Runtime's fusions; of each node the median time of some runs on one thread."""
    given = inside(artifact, feeds)
    with TemporaryDirectory(prefix="edgekit-") as scratch:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(scratch) / "profile")
        try:
            with quiet():
                session = ort.InferenceSession(
                    str(artifact.path), settings, providers=["CPUExecutionProvider"], disabled_optimizers=CRASHING
                )
                runs = often(lambda: session.run(None, given))
                events = json.loads(Path(session.end_profiling()).read_text())
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            raise Unsupported(f"{artifact.path.name} does not run in ONNX Runtime: {last_line(error)}") from error
    return costs(_rows(events, runs))


def _steps(graph: onnx.GraphProto) -> list[Step]:
    """The nodes that depend on an input, in order; what is folded into constants is no step."""
    alive, before = {info.name for info in graph.input} - {tensor.name for tensor in graph.initializer}, -1
    while len(alive) > before:  # again, since not every tool that writes float16 keeps nodes in order
        before = len(alive)
        for node in graph.node:
            if alive.intersection(node.input):
                alive.update(filter(None, node.output))
    steps = []
    for node in graph.node:
        takes, computes = tuple(name for name in node.input if name in alive), node.op_type not in MOVES
        for gives in filter(None, node.output if takes else ()):
            steps.append(Step(node.name or gives, node.op_type, takes, gives, computes))
            computes = False  # one layer for an operator, by its first result
    return steps


def _partners(steps: Sequence[Step], graph: onnx.GraphProto) -> dict[str, _Partner]:
    """Float tensor -> its partner, for those that have one. What an Identity made of it is as good."""
    partners = {name: _Partner(name) for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in partners:
            scale, zero = (value(graph, name) for name in (*node.input[1:3], "")[:2])
            if scale is not None and scale.size == 1:
                partners[node.input[0]] = _Partner(node.output[0], scale, zero)
    again = {step.takes[0]: step.gives for step in steps if step.op == "Identity"}
    names = {step.gives: again.get(step.gives, "") for step in steps if step.computes}
    found = {name: partners.get(name) or partners.get(other) for name, other in names.items()}
    return {name: partner for name, partner in found.items() if partner is not None}


def _exposed(model: onnx.ModelProto, names: Sequence[str], path: Path) -> Runner:
    """A runner that gives the tensors `names` too."""
    known = {info.name for info in model.graph.output}
    for name in dict.fromkeys(names):
        if name not in known:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    save(model, path)
    with quiet():
        return open_model("onnx", path, EngineOptions())


def _rows(events: list[dict[str, Any]], runs: int) -> list[tuple[str, bool, float]]:
    """(kernel, integer, ms of one inference) of each node of a profile."""
    taken: dict[str, list[float]] = defaultdict(list)
    kernels: dict[str, tuple[str, bool]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["name"]].append(event["dur"] / 1000)
            kernels[event["name"]] = (event["args"]["op_name"], _in_integers(event["args"]))
    return [(*kernels[name], median(times) * len(times) / runs) for name, times in taken.items()]


def _in_integers(told: Mapping[str, Any]) -> bool:
    kernel, types = told["op_name"], [next(iter(one), "") for one in told.get("input_type_shape", [])]
    return kernel in INTEGER or (kernel not in ROUNDING and bool(types) and types[0] in ("int8", "uint8"))
