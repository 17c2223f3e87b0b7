"""ONNX -> TFLite by onnx2tf, in an environment of its own. The batch is fixed to 1, LSTM and GRU are written out.

Refuses free sizes other than the batch (onnx2tf gets them wrong without a word) and whatever answers differently."""

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime as ort
from edgekit_runtime.errors import Unsupported

from edgekit.converters.matching import difference, example_feeds, match
from edgekit.converters.onnx_dense import dense
from edgekit.converters.onnx_unroll import GATES, unroll
from edgekit.isolated import call, environment
from edgekit.model import Artifact, Model, Tell

REQUIREMENTS = Path(__file__).with_name("onnx2tf-requirements.txt")
OTHERS = "use --format onnx or --format openvino"
TOLERANCE, TOLERANCE_HALF = 1e-3, 5e-2
"""How far an answer may be off, in parts of the largest number in it; the second where the source is not float32."""
REFUSAL = re.compile(r"op=(?P<op>\S+) node=(?P<node>\S+) reason_code=\S+ message=(?P<why>.*)")
"""How onnx2tf says which operator it cannot convert."""


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.tflite` into `folder`: images with channels last, everything else laid out as in the source.

    Raises:
        Unsupported: sizes are free, an operator has no way to TFLite, or the file's numbers are not the model's.
        EdgeKitError: onnx2tf's environment cannot be made.
    """
    _refuse_free_sizes(model)
    with tempfile.TemporaryDirectory(prefix="edgekit-onnx2tf-") as scratch:
        source = Path(scratch) / "model.onnx"
        graph = dense(unroll(_folded(_fixed(model), source)))
        source.write_bytes(onnx.shape_inference.infer_shapes(graph, data_prop=True).SerializeToString())
        artifact = _matched(model, _onnx2tf(source, model, tell))
        _refuse_memory(model, artifact)
        folder.mkdir(parents=True, exist_ok=True)
        target = shutil.copyfile(artifact.path, folder / "model.tflite")
    return replace(artifact, path=target, notes=_notes(model))


def _refuse_free_sizes(model: Model) -> None:
    """Raise unless all that is free is one batch: first axis of some input, of one name wherever it is."""
    free = {name for axes in model.axes.values() for name in axes if isinstance(name, str)}
    batch = {axes[0] for axes in model.axes.values() if axes and isinstance(axes[0], str)}
    if len(free) > 1 or free != batch:
        wish, axes = next((name, axes) for name, axes in model.axes.items() if any(isinstance(n, str) for n in axes))
        sizes = "x".join(str(1 if n in batch else 32) if isinstance(n, str) else str(n) for n in axes)
        raise Unsupported(
            f"ONNX to TFLite needs fixed sizes; free are {', '.join(sorted(free))}",
            hint=f"fix them, for example with --shape {wish}={sizes}",
        )


def _fixed(model: Model) -> onnx.ModelProto:
    """The source with the sizes of `model.inputs` and a batch of 1; sizes inside it are to be inferred anew."""
    graph = onnx.load(str(model.forms["onnx"]))
    if graph.ByteSize() >= 2**31:
        raise Unsupported("the model is above 2 GB, too large for TFLite", hint=OTHERS)
    sizes = {spec.name: [1 if n is None else n for n in spec.shape] for spec in model.inputs}
    for value in list(graph.graph.input):
        if value.name not in sizes:  # old exporters list the weights as inputs too
            graph.graph.input.remove(value)
            continue
        dims = value.type.tensor_type.shape
        del dims.dim[:]
        dims.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in sizes[value.name])
    for value in graph.graph.output:
        value.type.tensor_type.ClearField("shape")
    del graph.graph.value_info[:]
    return graph


def _folded(graph: onnx.ModelProto, scratch: Path) -> onnx.ModelProto:
    """Where a graph branches or recurs: without the branches that are never taken, with what is constant made so.

    ONNX Runtime takes a branch away in its first pass and folds what was inside it in its second.
    """
    if not {node.op_type for node in graph.graph.node} & {"If", *GATES}:
        return graph
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(scratch)
    settings.log_severity_level = 3
    for _ in range(2):
        try:
            ort.InferenceSession(graph.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            why = _last_line(str(error))
            raise Unsupported(f"the model does not load with fixed sizes: {why}", hint=OTHERS) from error
        graph = onnx.load(str(scratch))
    used = {node.domain for node in graph.graph.node}
    kept = [entry for entry in graph.opset_import if entry.domain in used]
    del graph.opset_import[:]
    graph.opset_import.extend(kept)
    return graph


def _onnx2tf(source: Path, model: Model, tell: Tell) -> Path:
    """The float32 file that onnx2tf makes of `source`, beside it. What else it writes there is of no use."""
    kept = [spec.name for spec in model.inputs if len(spec.shape) != 4]
    python = environment("onnx2tf", REQUIREMENTS, tell)
    tell("converting by onnx2tf")
    keep = ["-kat", *kept] if kept else []
    ran = call(python, [python.parent / "onnx2tf", "-i", source, "-o", source.parent, "-n", *keep], tell)
    made = source.with_name(f"{source.stem}_float32.tflite")
    if ran.returncode or not made.is_file():
        raise Unsupported(f"onnx2tf cannot convert this model: {_reason(ran.stdout, ran.returncode)}", hint=OTHERS)
    return made


def _reason(output: str, status: int) -> str:
    """The one line that matters of what onnx2tf printed."""
    if refusal := REFUSAL.search(output):
        return f"operator {refusal['op']} (node {refusal['node']}): {refusal['why']}"[:300]
    if status < 0:
        return f"it was ended by signal {-status}" + (", memory may have run out" if status == -9 else "")
    errors = [line.strip() for line in output.splitlines() if re.match(r"\s*(\w+\.)*\w*(Error|Exception)\b", line)]
    return errors[-1][:300] if errors else _last_line(output)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["without a word"])[-1][:300]


def _matched(model: Model, made: Path) -> Artifact:
    """The file with its ports, once it has answered as the model does."""
    try:
        return match(model, "tflite", made)
    except Unsupported as error:
        if custom := re.search(r"unresolved custom op: (?:ONNX_)?(\w+)", error.what):
            raise Unsupported(f"onnx2tf has no way to write the operator {custom[1]}", hint=OTHERS) from error
        raise


def _refuse_memory(model: Model, artifact: Artifact) -> None:
    """Raise if several calls or a larger batch, cut into several calls, get other answers than the source gives.

    A file that keeps a state from one call to the next, or a model that mixes its batch, is right only the first time.
    """
    run = artifact.open_model()
    allowed = TOLERANCE if model.facts.precision == "float32" else TOLERANCE_HALF
    for rows in (1, 2, 3):
        feeds = example_feeds(model, rows, seed=rows)
        try:
            wanted = model.run(feeds)
        except Exception:  # any framework, any error: random numbers may not suit it; parity on real data follows
            return
        answer = run(feeds)
        worst = max(difference(value, answer[name]) for name, value in wanted.items())
        if not worst <= allowed:
            raise Unsupported(
                f"the converted file answers differently on call {rows}: "
                f"worst difference {worst:.2g} of the output's range",
                hint=OTHERS,
            )


def _notes(model: Model) -> tuple[str, ...]:
    free = any(None in spec.shape for spec in model.inputs)
    return ("the file's batch is 1; larger batches are cut",) if free else ()
