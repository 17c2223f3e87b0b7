"""How far the answers of a TFLite model move when some of its operators alone are in int8.

Refuses what the quantizer refuses; a group that cannot be quantized alone has the error NaN."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.tensors import Feeds

from edgekit.model import Artifact, Tell
from edgekit.quantizers import Wish
from edgekit.quantizers.feeding import calibration, probed
from edgekit.quantizers.tflite_graph import Graph
from edgekit.quantizers.tflite_ports import ports
from edgekit.quantizers.tflite_recipes import operators
from edgekit.quantizers.tflite_static import Prepared, prepared, static
from edgekit.recipes import Group, grouped


def sensitivities(graph: Graph, artifact: Artifact, wish: Wish, scratch: Path, tell: Tell) -> tuple[Group, ...]:
    """The groups in the order of execution, each with its relative squared error on up to 16 samples."""
    wish = replace(wish, integer_io=False, recipe=replace(wish.recipe, keep=(), correct_bias=False))
    calibration(artifact, wish)
    probes, wish = probed(wish)
    ready = prepared(graph, wish, calibration(artifact, wish), tell)
    names = operators(ready.graph, wish)
    run = artifact.open_model()
    pairs = [(feeds, run(feeds)) for feeds in probes]
    groups = grouped(names)
    found = []
    for number, group in enumerate(groups, start=1):
        tell(f"measuring the sensitivity of group {number} of {len(groups)}")
        alone = replace(wish, recipe=replace(wish.recipe, keep=tuple(name for name in names if name not in group)))
        found.append(Group(group, _error(ready, artifact, alone, scratch, pairs)))
    return tuple(found)


def _error(
    ready: Prepared, artifact: Artifact, wish: Wish, scratch: Path, pairs: Sequence[tuple[Feeds, Feeds]]
) -> float:
    """`pairs` are samples and the float answers to them."""
    path = scratch / "group.tflite"
    try:
        path.write_bytes(static(ready, wish, lambda words: None))
        inputs, outputs = ports(artifact, path, integer_io=False)
        run = replace(artifact, path=path, inputs=inputs, outputs=outputs).open_model()
        answers = [run(feeds) for feeds, _ in pairs]
    except (EdgeKitError, OSError):
        return float("nan")
    except Exception:  # ai-edge-quantizer raises whatever it meets; the other groups can be had all the same
        return float("nan")
    finally:
        path.unlink(missing_ok=True)
    wanted = [floats for _, floats in pairs]
    return float(np.mean([_moved(name, wanted, answers) for name in wanted[0]]))


def _moved(name: str, wanted: list[Feeds], answers: list[Feeds]) -> float:
    """Squared distance of one output over all samples, in parts of its squared size."""
    far = size = 0.0
    for before, after in zip(wanted, answers, strict=True):
        one, other = (feeds[name].astype(np.float64) for feeds in (before, after))
        far, size = far + float(((one - other) ** 2).sum()), size + float((one**2).sum())
    return far / size if size else float(far > 0)
