"""What the tensors of a float TFLite file hold on the calibration samples, gathered once and kept for the next recipe.

Refuses samples that the file does not run with; holds one sample at a time, and a histogram for each tensor."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from edgekit_runtime.tensors import Array, Feeds

from edgekit.model import Tell
from edgekit.quantizers.feeding import Calibration
from edgekit.quantizers.tflite_graph import Graph
from edgekit.quantizers.tflite_ranges import Histogram, new_histogram
from edgekit.quiet import quiet

Statistics = Mapping[str, Histogram]
"""By the name of the tensor."""

LARGEST = 3e38
"""Beyond it a value stands for infinity, such as what masks attention, and has no part in a range."""


def statistics(graph: Graph, samples: Calibration, folder: Path | None, tell: Tell) -> Statistics:
    """The histogram of every float tensor that the file computes; from `folder`, if it was kept there for the same
    bytes, and kept there whole or not at all."""
    kept = folder / f"tflite-{hashlib.sha256(graph.content).hexdigest()[:24]}.npz" if folder is not None else None
    if kept is not None and kept.is_file():
        return _read(kept)
    found = _gathered(graph, samples, tell)
    if kept is not None:
        _write(kept, found)
    return found


def every_tensor(graph: Graph, content: bytes, samples: Iterable[Feeds]) -> Iterable[Mapping[str, Array]]:
    """For each sample the float tensors that are no constants, by name; `content` may be another file than the
    graph's, with tensors of the same names in float."""
    wanted = [
        (number, index, tensor.name.decode())
        for number, subgraph in enumerate(graph.model.subgraphs)
        for index, tensor in enumerate(subgraph.tensors)
        if tensor.type == schema.TensorType.FLOAT32 and not graph.is_constant(tensor) and tensor.name
    ]
    with quiet():
        interpreter = Interpreter(model_content=content, num_threads=1, experimental_preserve_all_tensors=True)
    for feeds in samples:
        with quiet():
            _run(interpreter, feeds)
        yield {
            name: value for number, index, name in wanted if (value := _held(interpreter, index, number)) is not None
        }


def _gathered(graph: Graph, samples: Calibration, tell: Tell) -> dict[str, Histogram]:
    found: dict[str, Histogram] = {}
    step = max(1, len(samples) // 4)
    for number, tensors in enumerate(every_tensor(graph, graph.content, samples), start=1):
        if number % step == 0:
            tell(f"calibrating: sample {number}")
        for name, value in tensors.items():
            value = _finite(value)
            if name in found:
                found[name].add(value)
            else:
                found[name] = new_histogram(value)
    return found


def _run(interpreter: Any, feeds: Feeds) -> None:
    """One inference of the main graph from a fresh state, with the shapes of the feeds."""
    details = interpreter.get_input_details()
    for detail in details:
        if tuple(detail["shape"]) != feeds[detail["name"]].shape:
            interpreter.resize_tensor_input(detail["index"], feeds[detail["name"]].shape, strict=True)
    interpreter.allocate_tensors()
    interpreter.reset_all_variables()
    for detail in details:
        interpreter.set_tensor(detail["index"], feeds[detail["name"]])
    interpreter.invoke()


def _held(interpreter: Any, index: int, subgraph: int) -> Array | None:
    """A tensor's value; None where it has none, as in a branch that was not taken."""
    try:
        value: Array = interpreter.get_tensor(index, subgraph)
    except ValueError:
        return None
    return value if value.size else None


def _finite(value: Array) -> Array:
    """Values beyond LARGEST and NaN as zeros, unless there is nothing else."""
    if np.isfinite(value).all() and float(np.abs(value).max()) < LARGEST:
        return value
    real = np.abs(value) < LARGEST
    return np.where(real, value, np.float32(0)) if real.any() else np.nan_to_num(value)


def _write(path: Path, found: Statistics) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{number}.{part}": np.asarray(getattr(seen, part))
        for number, seen in enumerate(found.values())
        for part in ("lows", "highs", "counts", "power")
    }
    descriptor, scratch = tempfile.mkstemp(prefix=".keeping-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, names=np.array(list(found), np.str_), **arrays)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _read(path: Path) -> dict[str, Histogram]:
    with np.load(path) as kept:
        return {
            str(name): Histogram(kept[f"{n}.lows"], kept[f"{n}.highs"], kept[f"{n}.counts"], int(kept[f"{n}.power"]))
            for n, name in enumerate(kept["names"])
        }
