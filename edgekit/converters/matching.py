"""Which tensor of a converted file is which of the source: by name, by type and shape, and always by the numbers.

Refuses a file whose numbers are not the source's, whatever its names say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import numpy as np
from edgekit_runtime.engines import open_model, read_specs
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.ports import Port, connect
from edgekit_runtime.tensors import Array, Feeds, Runner, TensorSpec

from edgekit.fitting import RATE, assignments, batch_names, is_rate, moves, orders, plain
from edgekit.model import Artifact, Model

TOLERANCE = {"float32": 5e-3, "bfloat16": 5e-2, "float16": 5e-2}
"""How far an answer may be off, in parts of the largest number in it; anything else counts as int8."""
TOLERANCE_INT8 = 0.25
SURE = 1e-5
"""An assignment this near needs no other to be tried."""
MOST_TRIALS = 256
TRIALS = ((2, 8), (2, 32), (2, 64), (1, 128), (1, 224), (2, 576))
"""Sizes for a free batch and for other free axes, until the source model runs on one."""

SIZES_HINT = "fix the sizes that are free, as in --shape x=1x3x224x224, or use another --format"


@dataclass(frozen=True)
class _Question:
    """What was asked of the source and answered, and the file that is to answer the same."""

    run: Runner
    insides: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    feeds: Feeds
    wanted: Feeds
    allowed: float


@dataclass(frozen=True)
class _Trial:
    """One way to connect the file, and how far its answer was off at worst."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    worst: float


def match(model: Model, format: str, path: Path, precision: str = "float32", notes: tuple[str, ...] = ()) -> Artifact:
    """The file at `path`, made from `model`, with its ports.

    Raises:
        Unsupported: it does not load, lacks a tensor of the model, or answers differently.
    """
    inside_inputs, inside_outputs = read_specs(format, path)
    ways = list(islice(assignments(model, inside_inputs), MOST_TRIALS))
    if not ways:
        raise Unsupported(
            f"the inputs of the {format} file do not fit: {_words(inside_inputs)} for {_words(model.inputs)}",
            hint=SIZES_HINT,
        )
    sample = _reference(model, ways[0])
    if sample is None:
        trial = _by_names(ways, model.outputs, inside_outputs)
    else:
        allowed = max(_tolerance(precision), _tolerance(model.facts.precision))
        trial = _by_numbers(ways, _Question(open_model(format, path), inside_outputs, model.outputs, *sample, allowed))
        _refuse_other_sizes(model, connect(open_model(format, path), trial.inputs, trial.outputs), sample[0], allowed)
    return Artifact(format, precision, path, trial.inputs, trial.outputs, notes)


def example_feeds(model: Model, free: Mapping[str, int] | int = 2, seed: int = 0, high: int = 10) -> Feeds:
    """Random feeds of the user's tensors: normal floats, integers from 1 to below `high`; `free` sizes what is free."""
    chance = np.random.default_rng(seed)
    feeds = {}
    for spec in model.inputs:
        axes = model.axes.get(spec.name, tuple("?" if n is None else n for n in spec.shape))
        shape = [n if isinstance(n, int) else free if isinstance(free, int) else free.get(n, 2) for n in axes]
        feeds[spec.name] = _random(chance, spec, shape, 2 if "mask" in spec.name.lower() else high)
    return feeds


def difference(want: Array, got: Array) -> float:
    """How far `got` is off, in parts of the largest finite number wanted; infinite where shapes or NaNs differ.

    For integers and truth values: the share that is not equal.
    """
    if want.shape != got.shape:
        return np.inf
    if not want.size:
        return 0.0
    if want.dtype.kind not in "fc":
        return float(np.mean(want != got))
    want, got = want.astype(np.float64), got.astype(np.float64)
    odd = ~np.isfinite(want)
    if not np.array_equal(want[odd], got[odd], equal_nan=True) or not np.isfinite(got[~odd]).all():
        return np.inf
    if odd.all():
        return 0.0
    return float(np.abs(want[~odd] - got[~odd]).max() / max(np.abs(want[~odd]).max(), 1e-6))


def _tolerance(precision: str) -> float:
    return TOLERANCE.get(precision, TOLERANCE_INT8)


def _random(chance: np.random.Generator, spec: TensorSpec, shape: Sequence[int], high: int) -> Array:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "b":
        return chance.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        if spec.scale is not None:
            return chance.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
        if is_rate(spec.name):
            return np.full(shape, min(RATE, np.iinfo(dtype).max), dtype)
        return np.asarray(chance.integers(1, max(high, 2), shape)).astype(dtype)
    return np.asarray(chance.standard_normal(shape)).astype(dtype)


def _reference(model: Model, ports: Sequence[Port]) -> tuple[Feeds, Feeds] | None:
    """Feeds on which the source model runs, of the sizes that the file has fixed, and its answer."""
    cuts = [(port.spec.name, cut) for port in ports if (cut := port.cut()) is not None and port.spec.name in model.axes]
    fixed = {str(model.axes[name][axis]): size for name, (axis, size) in cuts}
    batch = batch_names(model)
    free = {n for axes in model.axes.values() for n in axes if isinstance(n, str)}
    for (rows, size), high in product(TRIALS if free else TRIALS[:1], (10, 2)):
        sizes = {name: rows if name in batch else size for name in free} | fixed
        feeds = example_feeds(model, sizes, high=high)
        try:
            return feeds, model.run(feeds)
        except Exception:  # any framework, any error: these numbers may simply not suit the model
            continue
    return None


def _refuse_other_sizes(model: Model, run: Runner, feeds: Feeds, allowed: float) -> None:
    """Ask once more with other sizes of all that is free: exporters may bake in those of their example."""
    sizes = {
        name: size + 1
        for spec in model.inputs
        for name, size in zip(model.axes.get(spec.name, ()), feeds[spec.name].shape, strict=False)
        if isinstance(name, str)
    }
    try:
        others = example_feeds(model, sizes, seed=1)
        wanted = model.run(others)
    except Exception:  # any framework, any error: the source itself may not take these sizes
        return
    if not sizes:
        return
    try:
        got = run(others)
        worst = max(difference(value, got[name]) for name, value in wanted.items())
    except Exception as error:  # ONNX Runtime's errors share no base class below Exception
        line = str(error).strip().partition("\n")[0][:300]
        raise Unsupported(f"the converted file does not take other sizes: {line}", hint=SIZES_HINT) from error
    if worst > allowed:
        raise Unsupported(
            f"the converted file is right at one size and wrong at another: worst difference {worst:.2g}",
            hint=SIZES_HINT,
        )


def _by_numbers(ways: Sequence[tuple[Port, ...]], question: _Question) -> _Trial:
    """The assignment under which the file answers as the source did."""
    everything = tuple(Port(inside, inside) for inside in question.insides)
    best: _Trial | None = None
    failure = ""
    for ports in ways:
        try:
            answers = connect(question.run, ports, everything)(dict(question.feeds))
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            failure = failure or str(error).strip().partition("\n")[0][:300]
            continue
        trial = _nearest(ports, question, answers)
        best = trial if best is None or trial.worst < best.worst else best
        if best.worst <= SURE:
            break
    if best is None:
        raise Unsupported(f"the converted file does not run: {failure}", hint="use another --format, or fix the shapes")
    if best.worst > question.allowed:
        raise Unsupported(
            "the converted file answers differently from the source: "
            f"worst difference {best.worst:.2g} of the output's range",
            hint="use another --format, or fix the shapes that are free",
        )
    return best


def _nearest(inputs: tuple[Port, ...], question: _Question, answers: Feeds) -> _Trial:
    """Each output of the model with the file's output that is nearest to it."""
    found: list[Port] = []
    worst = 0.0
    for spec in question.outputs:
        options = [
            (difference(question.wanted[spec.name], port.outward(answers[inside.name])), port)
            for inside in question.insides
            if answers[inside.name].ndim == question.wanted[spec.name].ndim
            for port in (Port(spec, inside, order) for order in moves(answers[inside.name].ndim))
        ]
        if not options:
            return _Trial(inputs, (), np.inf)
        off, port = min(options, key=lambda option: _rank(option[0], option[1], question.allowed, found))
        found.append(port)
        worst = max(worst, off)
    return _Trial(inputs, tuple(found), worst)


def _rank(off: float, port: Port, allowed: float, found: Sequence[Port]) -> tuple[bool, bool, bool, float]:
    """Near enough, not yet given away, of the same name, nearest: in this order."""
    inside = port.inside.name
    taken = inside in {other.inside.name for other in found}
    return off > allowed, taken, plain(inside) != plain(port.spec.name), off


def _by_names(ways: Sequence[tuple[Port, ...]], outputs: Sequence[TensorSpec], insides: Sequence[TensorSpec]) -> _Trial:
    """The only assignment there is, or the one by equal names, for a model that runs on no random numbers."""
    choices = []
    for spec in outputs:
        fits = [Port(spec, inside, order) for inside in insides for order in orders(spec, inside)]
        same = [port for port in fits if port.inside.name == spec.name and port.order is None]
        choices.append(same or fits)
    by_name = all(port.inside.name == port.spec.name and port.order is None for port in ways[0])
    if (len(ways) > 1 and not by_name) or any(len(fits) != 1 for fits in choices):
        raise Unsupported(
            "the model does not run on random numbers, and names and shapes alone do not tell its tensors apart",
            hint=SIZES_HINT,
        )
    return _Trial(ways[0], tuple(fits[0] for fits in choices), 0.0)


def _words(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs)) or "none"
