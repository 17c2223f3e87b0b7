"""Numbers and facts in words, for the page, the model card and the terminal.

Refuses nothing: what is missing, or not a finite number, is a dash."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgekit.evidence import SHARES

Facts = Mapping[str, Any]

NONE = "-"
MINUS = "\u2212"
TIMES = "\u00d7"
SHIPPED = ("passed", "unbudgeted")
VERDICTS = {
    "passed": ("✓", "passed"),
    "screened": ("○", "good, not needed"),
    "unbudgeted": ("○", "no budget set"),
    "inconclusive": ("?", "too few samples"),
    "missed": ("✕", "missed"),
    "refused": ("\u2013", "not made"),
}


def number(value: Any) -> float | None:
    """The value where it is a finite number, else None."""
    fit = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fit else None


def listed(value: Any) -> list[Any]:
    """The value where it is a list, else none."""
    return list(value) if isinstance(value, list | tuple) else []


def mapped(value: Any) -> Facts:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def candidates(facts: Facts) -> list[Facts]:
    """All that were tried, in the order of the build."""
    return [one for one in listed(facts.get("candidates")) if isinstance(one, Mapping)]


def best_of(facts: Facts) -> Facts:
    """The chosen candidate; where none was chosen, the first."""
    tried = candidates(facts)
    return next((one for one in tried if one.get("chosen")), tried[0] if tried else {})


def who(one: Facts) -> str:
    """A candidate's name: `ONNX int8, percentile ranges`."""
    recipe = one.get("recipe")
    return f"{one.get('title') or 'unnamed'}{f', {recipe}' if recipe else ''}"


def shipped(one: Facts) -> bool:
    """Whether it is the one that became the bundle."""
    return bool(one.get("chosen")) and one.get("verdict") in SHIPPED


def sentence(facts: Facts) -> str:
    """The verdict in one sentence."""
    told = facts.get("sentence")
    return str(told) if told else f"{titled(facts)}: {facts.get('verdict', 'not judged')}: {facts.get('why', '')}."


def titled(facts: Facts) -> str:
    """Such as `lite0 on Raspberry Pi 5`."""
    target = mapped(facts.get("target"))
    return f"{facts.get('name', 'model')} on {target.get('title') or target.get('name') or 'a device'}"


def megabytes(size: float) -> str:
    """Bytes in words: 5.1 MB, 84 kB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def bytes_words(size: Any) -> str:
    """The same, where the size is known at all."""
    known = number(size)
    return megabytes(known) if known else NONE


def memory_words(peak: Any) -> str:
    """Such as `41 MB`."""
    known = number(peak)
    return f"{known:.0f} MB" if known else NONE


def milliseconds(value: Any) -> str:
    """Three figures: `4.90 ms`, `128 ms`."""
    known = number(value)
    if known is None:
        return NONE
    return f"{known:.{max(0, 2 - int(math.log10(known)))}f} ms" if known >= 0.1 else f"{known:.3f} ms"


def quality_words(quality: Facts | None) -> str:
    """Such as `top1 90.95 %`."""
    return NONE if not quality else f"{quality['metric']} {value_words(quality['metric'], quality['value'])}"


def value_words(metric: Any, value: Any) -> str:
    """A metric's value: `90.95 %` for shares, four figures else."""
    known = number(value)
    if known is None:
        return "not a number"
    return f"{known * 100:.2f} %" if metric in SHARES else f"{known:.4g}"


def unit(metric: Any) -> str:
    """Of a drop: points for shares, nothing else."""
    return "pt" if metric in SHARES else ""


def change(metric: Any, value: Any, bare: bool = False) -> str:
    """A drop with its sign, a real minus: `+0.12 pt`; `bare` leaves the unit out."""
    known = number(value)
    if known is None:
        return NONE
    words = f"{known * 100:+.2f}" if metric in SHARES else f"{known:+.3g}"
    return f"{words}{'' if bare or metric not in SHARES else ' pt'}".replace("-", MINUS)


def interval(metric: Any, found: Facts) -> str:
    """Such as `+0.05 to +0.29`."""
    return f"{change(metric, found.get('low'), bare=True)} to {change(metric, found.get('high'), bare=True)}"


def worse_words(metric: Any) -> str:
    """What a drop of this metric is called."""
    return "increase of mae" if metric == "mae" else f"drop in {metric}"


def agreement_words(candidate: Facts) -> str:
    """Such as `82.0 %`: how often the best class is the source's."""
    return share(mapped(candidate.get("agreement")).get("value"))


def share(value: Any) -> str:
    """A share in percent, one decimal."""
    known = number(value)
    return NONE if known is None else f"{known * 100:.1f} %"


def count(value: Any) -> str:
    """A whole number with its thousands apart."""
    known = number(value)
    return NONE if known is None else f"{known:,.0f}"


def latency_words(candidate: Facts) -> str:
    """Such as `4.90 ms (1.92x)`: the median, and how many times as fast as float32."""
    latency = mapped(candidate.get("latency"))
    median, ratio = number(latency.get("median_ms")), number(latency.get("ratio"))
    if median is None:
        return NONE
    faster = "" if candidate.get("precision") == "float32" or not ratio else f" ({1 / ratio:.2f}x)"
    return f"{median:.2f} ms{faster}"


def allowed(facts: Facts, one: Facts) -> float | None:
    """The largest drop that the budget allows, in the metric's own units; None where none was set."""
    told = goals(facts).get("max_drop")
    quality = mapped(one.get("quality"))
    return _amount(told, number(quality.get("reference")))


def goals(facts: Facts) -> Facts:
    """What was asked for, those goals alone that were set."""
    told = dict(mapped(facts.get("goals"))) or {"max_drop": facts.get("budget")}
    return {name: value for name, value in told.items() if value not in (None, False, "")}


def _amount(told: Any, reference: float | None) -> float | None:
    words = str(told or "").strip()
    try:
        size = float(words.removesuffix("pt").removesuffix("%"))
    except ValueError:
        return None
    if not math.isfinite(size):
        return None
    return size / 100 if words.endswith("pt") else size / 100 * abs(reference) if reference is not None else None


def class_allowed(facts: Facts) -> float | None:
    """The largest drop that one class may have, as a share."""
    return _amount(goals(facts).get("max_class_drop"), None)


def goal_words(facts: Facts) -> list[str]:
    """Every goal that was set, in words."""
    set_goals = goals(facts)
    words: dict[str, Callable[[Any], str]] = {
        "max_drop": lambda v: f"drop at most {v}",
        "max_class_drop": lambda v: f"no class drops more than {v}",
        "max_latency_ms": lambda v: f"latency at most {number(v) or 0:g} ms",
        "max_bytes": lambda v: f"size at most {bytes_words(v)}",
        "max_memory_mb": lambda v: f"memory at most {memory_words(v)}",
        "smaller": lambda v: "smaller than float",
    }
    return [words[name](value) for name, value in set_goals.items() if name in words]


def carried(facts: Facts) -> list[str]:
    """What the bundle brings for the device to watch itself by, or why it does not; empty without a bundle."""
    baseline, shadow = mapped(facts.get("baseline")), mapped(facts.get("shadow"))
    lines = []
    if baseline.get("why"):
        lines.append(f"Drift: no baseline, since {baseline['why']}.")
    elif baseline:
        which = baseline.get("of") or f"{count(baseline.get('n'))} evaluation samples"
        of = f"{len(listed(baseline.get('features')))} features of {which}"
        size = bytes_words(baseline.get("bytes"))
        lines.append(f"Drift: {of} ({size}) are the baseline that the device holds its own against.")
    if shadow.get("why"):
        lines.append(f"Float artifact: not carried, since {shadow['why']}.")
    elif shadow:
        size = bytes_words(shadow.get("bytes"))
        lines.append(f"Float artifact: carried ({size}), for the device to compare a share of its answers with.")
    return lines


def not_measured(facts: Facts) -> list[str]:
    """What the evidence leaves open, each in a line that stands alone."""
    best, details = best_of(facts), mapped(facts.get("details"))
    data = mapped(facts.get("data"))
    if best.get("verdict") == "refused":
        return ["Everything: no artifact could be made, so there was nothing to measure."]
    gaps: Sequence[tuple[bool, str]] = (
        (not best.get("quality"), "Quality: there was no evaluation data, or the artifact could not be made."),
        (not best.get("latency"), f"Latency: {best.get('timed') or 'not timed'}."),
        (not best.get("peak_mb"), "Memory: the peak was not measured."),
        (not listed(best.get("classes")), "Classes: no labelled classes, so no class was looked at by itself."),
        (not listed(best.get("scored_on")), "Other processors: scored on the instruction set of the builder only."),
        (not listed(details.get("layers")), "Layers: the error inside the network was not compared layer by layer."),
        (not data.get("calibration"), "Calibration: no data was used, so nothing can be said of its coverage."),
    )
    return [words.replace("..", ".") for missing, words in gaps if missing]
