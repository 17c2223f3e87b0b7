"""What a person sees in the terminal: plans, tables, progress. Prints; decides nothing.

Refuses colour and moving parts where the output is no terminal."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekit.answers import machine
from edgekit.building import Prepared
from edgekit.outcome import Outcome
from edgekit.plan import Candidate, Plan, bytes_at
from edgekit.report import agreement_words, latency_words, megabytes, quality_words

COLOURS = {
    "passed": "green",
    "screened": "cyan",
    "unbudgeted": "yellow",
    "inconclusive": "yellow",
    "missed": "red",
    "refused": "red",
}
SHOWN = 4
"""Of how many candidates that were not taken the terminal says why."""
STEP_WORDS = {
    "onnx_to_onnx": "take the ONNX graph as it is",
    "onnx_to_openvino": "convert ONNX to OpenVINO IR",
    "onnx_to_tflite": "convert ONNX to TFLite with onnx2tf, in an environment of its own",
    "torch_to_onnx": "export from PyTorch to ONNX",
    "torch_to_tflite": "convert PyTorch to TFLite with litert-torch",
    "torchscript_to_onnx": "export TorchScript to ONNX",
    "torchscript_to_openvino": "convert TorchScript to OpenVINO IR",
    "tflite_to_tflite": "take the TFLite file as it is",
}
QUANTIZERS = {
    ("onnx", "int8"): "quantize with ONNX Runtime: static, per channel",
    ("openvino", "int8"): "quantize with NNCF: static, per channel",
    ("tflite", "int8"): "quantize with ai-edge-quantizer: static, per channel",
}


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A function that shows what is going on, on standard error: a spinner in a terminal, a line for each step else.

    It writes to a descriptor of its own, since standard error is muted while the frameworks work.
    """
    if quiet:
        yield lambda words: None
        return
    with os.fdopen(os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2), "w") as file:
        shown = Console(file=file, highlight=False)
        if shown.is_terminal:
            with shown.status("starting") as status:
                start = time.monotonic()
                yield lambda words: status.update(f"{escape(words)} [dim]({time.monotonic() - start:.0f} s)[/]")
            return
        said: set[str] = set()

        def line(words: str) -> None:
            step = words.split(": ")[0]
            if step not in said:
                said.add(step)
                print(step, file=file, flush=True)

        yield line


def console() -> Console:
    """Standard output; wide enough for a table where it is no terminal."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=100)


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """A table that fits 80 columns, then the rest of each target in words, and where its bundle or report lies."""
    several = len(outcomes) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target",) * several + ("artifact", "size", "quality", "latency (speed)", "memory", "verdict"):
        table.add_column(name, no_wrap=name != "artifact")
    for outcome in outcomes:
        for one in outcome.facts["candidates"]:
            table.add_row(*(outcome.target,) * several, *_cells(one))
    out = console()
    out.print(table)
    for outcome in outcomes:
        out.print()
        out.print(f"[bold]{escape(outcome.target)}[/]  {escape(outcome.why)}", soft_wrap=True)
        for note in _notes(outcome.facts):
            out.print(f"  note    {escape(note)}", soft_wrap=True)
        if outcome.bundle:
            out.print(f"  bundle  {escape(str(outcome.bundle))}", soft_wrap=True)
        out.print(f"  report  {escape(str(outcome.report))}", soft_wrap=True)


def _cells(one: Mapping[str, Any]) -> list[str]:
    """A candidate's row: what was not measured, or not made, is a dash."""
    verdict = f"[{COLOURS[one['verdict']]}]{one['verdict']}[/]"
    if not one["bytes"]:
        return [_named(one), "-", "-", "-", "-", verdict]
    peak = f"{one['peak_mb']:.0f} MB" if one["peak_mb"] else "-"
    quality = quality_words(one["quality"]) + (f" of {one['quality']['n']:,}" if one["quality"] else "")
    return [_named(one), megabytes(one["bytes"]), quality, latency_words(one), peak, verdict]


def _named(one: Mapping[str, Any]) -> str:
    """Such as "ONNX int8, bias corrected"."""
    return ", ".join(filter(None, (one["title"], one["recipe"])))


def _notes(facts: Mapping[str, Any]) -> list[str]:
    """What a person should know beside the table: of the chosen one all, of the others why they are not it."""
    found = []
    others = [one for one in facts["candidates"] if not one["chosen"] and one["verdict"] in ("refused", "missed")]
    for one in others[:SHOWN]:
        found.append(f"{_named(one)} was not taken: {one['why']}")
    if len(others) > SHOWN:
        found.append(f"{len(others) - SHOWN} others were not taken: the report says why")
    for one in (one for one in facts["candidates"] if one["chosen"]):
        if one["agreement"] is not None:
            found.append(
                f"the best class is the source's on {agreement_words(one)} of {one['agreement']['n']:,} samples"
            )
        found += [f"{one['title']}: {note}" for note in one["notes"]]
        lost = one["classes"] and one["classes"][0]["drop"] > 0
        found += [f"the class that loses most: {_class_words(one)}"] if lost else []
        found += [scored["words"] for scored in one["scored_on"]]
        if one["timed"].startswith("not"):
            found.append(f"latency {one['timed']}")
            if facts["goals"]["max_latency_ms"] is not None:
                found.append("--max-latency was not judged: measure on the device with --measure-on ssh://user@host")
    return found + _carried(facts)


def _carried(facts: Mapping[str, Any]) -> list[str]:
    """What a person asked for, or gave data for, and the bundle does not bring."""
    baseline, shadow = facts.get("baseline") or {}, facts.get("shadow") or {}
    found = [f"no baseline for drift: {baseline['why']}"] if baseline.get("why") and facts["data"]["evaluation"] else []
    exam = facts.get("exam") or {}
    if exam.get("n"):
        found.append(
            f"an exam of {exam['n']:,} samples ({megabytes(exam['bytes'])}) is packed: "
            "the device takes it before it serves"
        )
    elif exam.get("asked"):
        found.append(f"no exam is packed: {exam['why']}")
    found += [f"the baseline for drift is of {baseline['of']}"] if baseline.get("of") else []
    missed = shadow.get("asked") and shadow["why"]
    return found + ([f"the float artifact is not carried: {missed}"] if missed else [])


def _class_words(one: Mapping[str, Any]) -> str:
    """The class with the largest drop, and its numbers."""
    worst = one["classes"][0]
    return f"{worst['class']}, {worst['reference'] * 100:.1f} % to {worst['value'] * 100:.1f} % (n = {worst['n']:,})"


def show_plan(prepared: Prepared) -> None:
    """The plan as a person would write it down."""
    out = console()
    for line in plan_lines(prepared):
        out.print(escape(line), soft_wrap=True)


def plan_lines(prepared: Prepared) -> list[str]:
    """The plan, line by line."""
    model, order = prepared.model, prepared.order
    ops = sorted(model.facts.ops.items(), key=lambda item: -item[1])[:5]
    lines = [
        f"{order.name}: {model.kind} model, {model.facts.parameters:,} parameters, "
        f"{megabytes(model.facts.bytes)} in {model.facts.precision}",
        f"  takes {'; '.join(map(str, model.inputs))}",
        f"  gives {'; '.join(map(str, model.outputs))}",
    ]
    if ops:
        others = " and others" if len(model.facts.ops) > len(ops) else ""
        lines.append(f"  made of {', '.join(f'{count} {name}' for name, count in ops)}{others}")
    lines.append(_data_line(prepared))
    for plan, place in zip(prepared.plans, prepared.places, strict=True):
        lines += ["", *_target_lines(prepared, plan, place)]
    return lines


def _data_line(prepared: Prepared) -> str:
    order = prepared.order
    if not order.data:
        return "  no evaluation data: checked against the source on random inputs, no quality will be known"
    apart = (
        f"calibration on {order.calibration}"
        if order.calibration
        else f"up to {order.calibration_samples} of its samples (at most a quarter) calibrate and are not evaluated on"
    )
    return f"  evaluated on {order.data}; {apart}"


def _target_lines(prepared: Prepared, plan: Plan, place: Path) -> list[str]:
    target = plan.target
    lines = [
        f"For {target.title} ({target.name}, {target.arch}, {target.memory_mb:,} MB of memory) "
        "EdgeKit will try, in this order:"
    ]
    shown, later = _rungs(plan)
    for index, candidate in enumerate(shown, start=1):
        size = megabytes(bytes_at(prepared.model.facts, candidate.precision))
        lines.append(f"  {index}. {candidate.name}, about {size}: {candidate.why}.")
        lines += [f"     - {words}" for words in _steps(candidate)]
    lines += [f"  Where {name} does not do, by turns: {'; '.join(hows)}." for name, hows in later.items()]
    lines += [f"  Not {words}." for words in plan.left_out]
    return [
        *lines,
        *_judged_lines(prepared, plan),
        f"  The {'cheapest to run' if prepared.order.best else 'first'} that passes becomes the bundle {place}; "
        "if none does, there is a report and no bundle.",
    ]


def _rungs(plan: Plan) -> tuple[list[Candidate], dict[str, list[str]]]:
    """The first candidate of each format and precision, and how the others of each are made."""
    shown: list[Candidate] = []
    later: dict[str, list[str]] = {}
    for candidate in plan.candidates:
        if candidate.name in later:
            later[candidate.name].append(candidate.how or "as it is")
        else:
            shown.append(candidate)
            later[candidate.name] = []
    return shown, {name: hows for name, hows in later.items() if hows}


def _judged_lines(prepared: Prepared, plan: Plan) -> list[str]:
    """What is done with every candidate of a target."""
    order, arch = prepared.order, machine()["arch"]
    timed = arch == plan.target.arch or order.measure_on
    lines = [
        "  Each is measured: its size, and its peak memory in a fresh process"
        + (
            f", and its latency beside float32's{f' on {order.measure_on}' if order.measure_on else ''}."
            if timed
            else "."
        )
    ]
    if not timed:
        lines.append(f"  Its latency is not: this machine is {arch} (--measure-on ssh://... times it on the device).")
    if order.measure_on or plan.target.emulate:
        where = order.measure_on or f"an emulated {plan.target.emulate}, where that is installed (edgekit emulators)"
        lines.append(f"  The finalist is scored on {where}.")
    goals = order.goals
    if goals.limits:
        lines.append(f"  It may take: {goals.limits}.")
    if not goals.for_size and timed:
        lines.append("  One that is no faster than float32 is not taken (--smaller takes it for its size).")
    if order.data and goals.judged:
        limits = [f"{goals.max_drop}"] if goals.max_drop else []
        limits += [f"{goals.max_class_drop} for each class"] if goals.max_class_drop else []
        return [
            *lines,
            "  It passes if the upper bound of its drop (on the same samples as the source, by samples that the "
            f"search did not see) is within {' and '.join(limits)}.",
        ]
    return [
        *lines,
        "  Without --max-drop its loss is measured and not judged."
        if order.data
        else "  Without --data its loss cannot be known.",
    ]


def _steps(candidate: Candidate) -> list[str]:
    found = []
    for step in candidate.steps:
        name = step.rpartition(".")[2]
        found.append(f"{STEP_WORDS.get(name, name.replace('_', ' '))}, and check its answers against the source's")
    if candidate.precision != "float32":
        how = QUANTIZERS.get((candidate.format, candidate.precision), f"store it as {candidate.precision}")
        found.append(
            f"{how}{', 7-bit weights' if candidate.recipe.reduce_range else ''}, and check it against the float file"
        )
    return found


def plan_json(prepared: Prepared) -> list[dict[str, Any]]:
    """The plans as JSON values."""
    return [
        {
            "target": plan.target.name,
            "bundle": str(place),
            "candidates": [
                {
                    "format": c.format,
                    "precision": c.precision,
                    "why": c.why,
                    "steps": [s.rpartition(".")[2] for s in c.steps],
                }
                for c in plan.candidates
            ],
            "left_out": list(plan.left_out),
        }
        for plan, place in zip(prepared.plans, prepared.places, strict=True)
    ]


def show_comparison(found: Mapping[str, Any]) -> None:
    """Two sides in columns, then how far they are apart."""
    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", found["left"]["title"], found["right"]["title"]):
        table.add_column(escape(name), overflow="fold")
    sides = (found["left"], found["right"])
    table.add_row("size", *(megabytes(side["bytes"]) for side in sides))
    table.add_row("latency, median", *(f"{side['latency']['median_ms']:.2f} ms" for side in sides))
    table.add_row("latency, p90", *(f"{side['latency']['p90_ms']:.2f} ms" for side in sides))
    table.add_row("time beside the first", "1.00x", f"{found['right']['latency']['ratio']:.2f}x")
    out.print(table)
    for row in found["parity"]:
        same = "" if row["agreement"] is None else f", same best class on {row['agreement'] * 100:.1f} %"
        out.print(
            f"{escape(row['output'])}: worst difference {row['worst']:.3g}, cosine {row['cosine']:.5f}{same} "
            f"({found['inputs']} recorded inputs)",
            soft_wrap=True,
        )
