"""Decide what to make of a model, before making any of it. Pure: no files, no graphs, no engines.

Refuses what the target, the model or the data rule out, saying what to type instead."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

from edgekit_runtime.engines import ENGINES, EngineOptions
from edgekit_runtime.errors import EdgeKitError

from edgekit.coverage import foreseen
from edgekit.ladder import Rung, ladder
from edgekit.model import Facts
from edgekit.recipes import Recipe
from edgekit.target import PRECISIONS, Target, did_you_mean

FORMATS = tuple(ENGINES)
BITS = {"float32": 32, "float16": 16, "int8": 8, "int8-weights": 8, "int4-weights": 4}
TITLES = {
    format: {"onnx": "ONNX", "tflite": "TFLite", "openvino": "OpenVINO"}.get(format, format) for format in ENGINES
}
ENGINE_TITLES = {**TITLES, "onnx": "ONNX Runtime", "tflite": "LiteRT"}
"""How people write the names of formats, and of the engines that open them."""


@dataclass(frozen=True)
class Wishes:
    """What the user asked for; None where the target's preference decides.

    `data` is whether any was given, `static` whether every size of the model's inputs is fixed, `judged` whether
    the loss has a limit, so that there is something to search for, `best` whether all is to be tried, `emulated`
    whether artifacts will be scored on the target's own instruction set, and `least` the share of a model's operators
    that has to run on the target's accelerator."""

    format: str | None = None
    precision: str | None = None
    data: bool = False
    static: bool = True
    judged: bool = False
    best: bool = False
    emulated: bool = False
    least: float | None = None


@dataclass(frozen=True)
class Candidate:
    """One artifact worth making: its format (its engine has the same name), recipe, steps, and why. `mixed` says
    that the operators which `recipe` is to leave in float are yet to be found."""

    format: str
    recipe: Recipe
    steps: tuple[str, ...]
    options: EngineOptions
    why: str
    mixed: bool = False

    @property
    def precision(self) -> str:
        """What the recipe asks for."""
        return self.recipe.precision

    @property
    def title(self) -> str:
        """Such as "TFLite int8", or "ONNX int8, 99.9 % ranges"."""
        return ", ".join(filter(None, (self.name, self.how)))

    @property
    def name(self) -> str:
        """Such as "TFLite int8"."""
        return f"{TITLES[self.format]} {self.precision}"

    @property
    def how(self) -> str:
        """The recipe in words; empty for the plain one."""
        return ", ".join(filter(None, (self.recipe.words, "the sensitive operators in float" if self.mixed else "")))


@dataclass(frozen=True)
class Plan:
    """The candidates for one target, in the order in which they are tried, and what was left out and why."""

    target: Target
    candidates: tuple[Candidate, ...]
    left_out: tuple[str, ...]


def make_plan(facts: Facts, routes: Mapping[str, tuple[str, ...]], target: Target, wishes: Wishes) -> Plan:
    """Candidates from the cheapest to the dearest: the plain recipe in each format, the target's best engine first,
    then the next rung of each ladder, then the target's next precisions. Without a limit on the loss there is
    nothing to search for: the plain recipe alone.

    `routes` maps each format that the model can be converted to, to the steps that it takes.

    Raises:
        EdgeKitError: nothing is left to try.
    """
    known("format", wishes.format, FORMATS)
    known("precision", wishes.precision, PRECISIONS)
    if wishes.least is not None and all(target.engine_options(one).device == "cpu" for one in target.engines):
        raise EdgeKitError(
            f"--min-accelerated: {target.name} has no accelerator",
            hint="leave it out, or choose a target with one (edgekit targets list)",
        )
    precision = wishes.precision or _preferred(facts, target, wishes)
    searched = wishes.judged or wishes.best
    precisions = [precision]
    if wishes.precision is None and searched and facts.precision == "float32" and precision != "float32":
        precisions += ["float32"] if wishes.best and "float32" in target.precisions else []
        precisions += [other for other in target.precisions if other not in (precision, "float32", "int8")]
    left_out: list[str] = []
    if wishes.precision is None and precision != target.precisions[0] == "int8" and not wishes.data:
        left_out.append("int8, which comes first there: it needs data to calibrate on (--data)")
    candidates: list[Candidate] = []
    for word in precisions:
        candidates += _ladders(facts, routes, target, word, wishes, left_out)
    if not candidates:
        raise EdgeKitError(
            f"nothing to build for {target.name}: {'; '.join(left_out)}",
            hint=_instead(facts, routes, target, precision, wishes),
        )
    return Plan(target, tuple(candidates), tuple(left_out))


def _ladders(
    facts: Facts, routes: Mapping[str, tuple[str, ...]], target: Target, precision: str, wishes: Wishes,
    left_out: list[str],
) -> list[Candidate]:  # fmt: skip
    """The candidates at one precision, rung by rung over the formats; what is ruled out goes to `left_out`."""
    columns: list[list[Candidate]] = []
    for place, format in enumerate((wishes.format,) if wishes.format else target.engines):
        if reason := _ruled_out(facts, routes, target, format, precision, wishes):
            left_out.append(f"{TITLES[format]} {precision}: {reason}")
            continue
        rungs = ladder(format, precision, tuple(facts.ops), format in target.saturates, wishes.emulated)
        if format in target.dense_per_tensor and precision in ("int8", "int8-weights"):
            rungs = tuple(replace(rung, recipe=replace(rung.recipe, dense_per_tensor=True)) for rung in rungs)
        kept = rungs if facts.precision == "float32" and (wishes.judged or wishes.best) else rungs[:1]
        options = _options(target, format, precision, wishes.least)
        made = (_candidate(routes[format], target, rung, options, format, place) for rung in kept)
        columns.append([_foreseen(one, facts) for one in made])
    return [one for row in zip_longest(*columns) for one in row if one is not None]


def known(what: str, word: str | None, words: tuple[str, ...]) -> None:
    """Raise with "did you mean" unless `word` is None or one of `words`."""
    if word is None or word in words:
        return
    raise EdgeKitError(f"no {what} {word!r}{did_you_mean(word, words)}", hint=f"use one of {', '.join(words)}")


def bytes_at(facts: Facts, precision: str) -> int:
    """About what the weights weigh at a precision."""
    return facts.parameters * BITS[precision] // 8


def _preferred(facts: Facts, target: Target, wishes: Wishes) -> str:
    """The target's best precision that can be had: int8 needs data, and a quantized source stays what it is."""
    if facts.precision != "float32":
        return facts.precision
    return next((p for p in target.precisions if p != "int8" or wishes.data), "float32")


def _ruled_out(
    facts: Facts, routes: Mapping[str, tuple[str, ...]], target: Target, format: str, precision: str, wishes: Wishes
) -> str | None:
    """Why a format and precision cannot be had or would do harm; None where nothing speaks against it."""
    if forbidden := target.forbids(format, precision, tuple(facts.ops)):
        return forbidden
    if format not in routes:
        return "this model has no way there"
    if precision == "int8" and facts.precision == "float32" and not wishes.data:
        return "int8 needs data to calibrate on (--data or --calibration)"
    if facts.precision not in ("float32", precision):
        return f"the model is {facts.precision} already; what was lost does not come back at {precision}"
    if target.static_shapes and not wishes.static:
        return f"{target.title} runs nothing with a free size; fix every size with --shape"
    return _too_big(facts, target, precision)


def _too_big(facts: Facts, target: Target, precision: str) -> str | None:
    size = bytes_at(facts, precision) / 1e6
    if size > target.storage_mb:
        return f"its weights alone take {size:,.0f} MB; {target.title} stores {target.storage_mb:,} MB"
    if size > target.memory_mb:
        return f"its weights alone take {size:,.0f} MB; {target.title} has {target.memory_mb:,} MB of memory"
    return None


def _options(target: Target, format: str, precision: str, least: float | None) -> EngineOptions:
    """The target's for an engine. An NVIDIA GPU computes in float16 for a float16 file alone; the wanted share goes to
    accelerators alone."""
    options = target.engine_options(format)
    if options.device in ("cuda", "tensorrt") and precision == "float16":
        options = replace(options, precision="float16")
    return options if least is None or options.device == "cpu" else replace(options, least=least)


def _candidate(
    steps: tuple[str, ...], target: Target, rung: Rung, options: EngineOptions, format: str, place: int
) -> Candidate:
    order = "the best engine" if place == 0 else "the next best engine" if place == 1 else "another engine"
    why = rung.why or f"{ENGINE_TITLES[format]} is {order} on {target.title}"
    if rung.recipe.reduce_range and format in target.saturates and not rung.why:
        why += "; 7-bit weights, since its 8-bit multiply-add saturates"
    if rung.recipe.dense_per_tensor and not rung.why:
        why += "; one scale for all weights of a dense layer with float inputs, since it knows but one"
    return Candidate(format, rung.recipe, steps, options, why, rung.mixed)


def _foreseen(candidate: Candidate, facts: Facts) -> Candidate:
    """With what the target's accelerator takes of a model that is in its format already."""
    told = foreseen(candidate.options, facts, candidate.precision)
    return replace(candidate, why=f"{candidate.why}; {told}") if told else candidate


def _instead(
    facts: Facts, routes: Mapping[str, tuple[str, ...]], target: Target, precision: str, wishes: Wishes
) -> str:
    """The nearest thing that can be had, as something to type."""
    near = sorted(PRECISIONS, key=lambda p: (p != precision, abs(BITS[p] - BITS[precision])))
    for format in dict.fromkeys((wishes.format or target.engines[0], *target.engines)):
        for other in near:
            if _ruled_out(facts, routes, target, format, other, wishes) is None:
                return f"say --format {format} --precision {other}"
    if not wishes.data and precision == "int8":
        return "say --data DATA"
    return "choose another target (edgekit targets list)"
