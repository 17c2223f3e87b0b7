"""Why a quantized file is not faster than the float one, in one line, by operators as both really run.

Refuses nothing, and claims no more than the profiles show: an engine that tells no times is told of by counts."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from edgekit_runtime.detect import detect
from edgekit_runtime.tensors import Feeds

from edgekit.layers import Cost, profile
from edgekit.model import Artifact

CONVERSIONS = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "FakeQuantize", "Convert"),
    *("QUANTIZE", "DEQUANTIZE", "CAST"),
}
"""Kernels that turn one type of number into another, as the engines name them."""

LAYOUT = re.compile(
    "(?i)reorder|reshape|transpose|flatten|squeeze|shape|slice|split|concat|gather|pad|pack|broadcast|expand|tile"
)
"""Kernels that only move numbers. Gather moves integers as fast as anything."""

PIECES, OUTSIDE = "DELEGATE", " (no XNNPACK)"
"""As `edgekit.layers.tflite` tells of them."""
DOT = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm", "svei8mm"}
"""CPU features that multiply and add up several 8-bit numbers at once."""
HALF = {"fphp", "asimdhp", "avx512_fp16", "amx_fp16"}
"""CPU features that compute in float16."""

TINY_MS = 0.1
WORTH = 0.1
"""The share of the time from which something is worth naming."""
LEAST_MS = 0.005
"""What a profile of operators can tell apart: it counts in microseconds."""


def why_not_faster(made: Artifact, source: Artifact, feeds: Feeds) -> str:
    """One line for a person, from both files' profiles on one sample and this machine's CPU.

    Raises:
        Unsupported: one of the files does not run here.
    """
    return reason(made.precision, profile(made, feeds), profile(source, feeds), detect()["isa"])


def reason(precision: str, made: Sequence[Cost], source: Sequence[Cost], isa: Sequence[str]) -> str:
    """The same from plain values: what the quantized and the float file cost, and the CPU's features."""
    net, real = _Net(tuple(made)), _Net(tuple(source))
    if precision == "float16":
        said = [_half(net, real, isa)]
    elif precision.endswith("-weights"):
        said = [_stored(net)]
    else:
        said = [_mixed(net, real), _no_dot(net, isa)]
    said += [_pieces(net, real), *_grown(net, real), _tiny(net, real)]
    return "; ".join(filter(None, said)) or _nothing(net, real)


@dataclass(frozen=True)
class _Net:
    """What a file costs. Times are NaN where the engine tells none."""

    costs: tuple[Cost, ...]

    @cached_property
    def total(self) -> float:
        return sum(cost.ms for cost in self.costs if cost.kernel != PIECES)

    @cached_property
    def conversions(self) -> tuple[int, float]:
        """How many conversions of type there are, and their time."""
        found = [cost for cost in self.costs if cost.kernel in CONVERSIONS]
        return sum(cost.count for cost in found), sum(cost.ms for cost in found)

    @cached_property
    def computing(self) -> tuple[Cost, ...]:
        """The kernels that neither convert nor only move."""
        return tuple(c for c in self.costs if c.kernel not in {*CONVERSIONS, PIECES} and not LAYOUT.search(c.kernel))

    @cached_property
    def pieces(self) -> int:
        return sum(cost.count for cost in self.costs if cost.kernel == PIECES)

    def of(self, family: str) -> tuple[int, float]:
        """How many operators of a family there are, and their time."""
        found = [cost for cost in self.costs if _family(cost.kernel) == family]
        return sum(cost.count for cost in found), sum(cost.ms for cost in found)


def _family(kernel: str) -> str:
    """The operator that a kernel is for, whatever it computes in: QLinearConv and FusedConv are Conv."""
    plain = re.sub(r"^(QLinear|DynamicQuantize|Fused|Nhwc|Q(?=[A-Z][a-z]))", "", kernel)
    return re.sub(r"(IntegerToFloat|Integer|NBits|BlockQuantized|Quantized(Legacy)?|Compressed)$", "", plain)


def _mixed(net: _Net, real: _Net) -> str:
    """What stayed in float, and the conversions around it."""
    integers = sum(cost.count for cost in net.computing if cost.integer)
    floats = [cost for cost in net.computing if not cost.integer]
    (count, ms), left = net.conversions, sum(cost.ms for cost in floats)
    if not integers:
        return "no operator computes in integers"
    if count <= real.conversions[0] or ms + left < WORTH * net.total:  # times that are NaN pass
        return ""
    if not floats and math.isnan(ms) and count <= 2:  # those of the input and the output
        return ""
    named = [_share(cost, net) for cost in sorted(floats, key=lambda cost: (-cost.count, cost.kernel))]
    taking = "" if math.isnan(ms) else f" that take{'s' * (count == 1)} {100 * ms / net.total:.0f} % of the time"
    if not named:
        return f"{_counted(count)} between float and integers{taking}"
    one = len(floats) == 1 and floats[0].count == 1
    return f"{_listed(named)} {'stays' if one else 'stay'} in float, with {_counted(count)}{taking}"


def _share(cost: Cost, net: _Net) -> str:
    """`HardSigmoid (6)`, or `14 of 27 Conv` where the others of its kind compute in integers."""
    family = _family(cost.kernel)
    whole = net.of(family)[0]
    return f"{cost.count} of {whole} {family}" if whole > cost.count else f"{family} ({cost.count})"


def _no_dot(net: _Net, isa: Sequence[str]) -> str:
    if not isa or DOT & set(isa) or not any(cost.integer for cost in net.computing):
        return ""
    arm = any(feature in isa for feature in ("asimd", "neon"))
    return f"no 8-bit dot product on this CPU (no {'asimddp' if arm else 'VNNI'}): integer kernels gain little"


def _half(net: _Net, real: _Net, isa: Sequence[str]) -> str:
    casts = net.conversions[0] - real.conversions[0]
    between = f", with {_counted(casts)} at each call" if casts > 0 else ""
    if HALF & set(isa):
        return between.removeprefix(", ")
    return f"float16 is only stored: this CPU computes it in float32{between}"


def _stored(net: _Net) -> str:
    rounding = [f"{cost.kernel} ({cost.count})" for cost in net.computing if cost.integer]
    but = f", except {_listed(rounding)}: what comes in is rounded there at each call" if rounding else ""
    return f"weights are stored as integers but computed in float{but}"


def _pieces(net: _Net, real: _Net) -> str:
    if net.pieces <= max(real.pieces, 1):
        return ""
    left = {cost.kernel.removesuffix(OUTSIDE): cost.count for cost in net.costs if cost.kernel.endswith(OUTSIDE)}
    more = {kernel: count for kernel, count in left.items() if count > real.of(f"{kernel}{OUTSIDE}")[0]}
    why = f"XNNPACK has no kernel for {_listed([f'{kernel} ({count})' for kernel, count in more.items()])} here and"
    return f"{why if more else 'XNNPACK'} runs the file in {net.pieces} pieces, the float one in {real.pieces}"


def _grown(net: _Net, real: _Net) -> list[str]:
    """The two operators that take longest beside the float file's."""
    if not real.total > 0 or not net.total > 0:
        return []
    kernels = {_family(cost.kernel): cost.kernel for cost in net.costs if cost.kernel not in CONVERSIONS}
    found = []
    for family, kernel in kernels.items():
        (count, ms), (before, float_ms) = net.of(family), real.of(family)
        if ms - float_ms >= max(WORTH * real.total, LEAST_MS):
            beside = f"in float {float_ms:.2g}" if before else "which the float file does not run"
            beside += f" ({before})" if before and before != count else ""
            found.append((ms - float_ms, f"{kernel} ({count}) takes {ms:.2g} ms, {beside}"))
    return [words for _, words in sorted(found, reverse=True)[:2]]


def _tiny(net: _Net, real: _Net) -> str:
    if not 0 < real.total < TINY_MS:
        return ""
    ms = net.conversions[1]
    part = f", of which conversions are {ms:.2g}" if ms > 0 else ""
    took = f"by the engine's profile it takes {net.total:.2g} ms{part}, in float {real.total:.2g}"
    return f"so small a net has little to save: {took}"


def _nothing(net: _Net, real: _Net) -> str:
    if math.isnan(net.total):
        rounded = sum(cost.count for cost in net.computing if cost.integer)
        number = sum(cost.count for cost in net.computing)
        return f"{rounded} of {number} operators compute in integers; none stands out"
    if net.total < (1 - WORTH) * real.total:
        return f"operator by operator it is faster: {net.total:.2g} ms, in float {real.total:.2g}"
    return f"its operators take {net.total:.2g} ms, in float {real.total:.2g}; none stands out"


def _counted(conversions: int) -> str:
    return f"{conversions} conversion{'s' * (conversions != 1)}"


def _listed(words: Sequence[str], most: int = 3) -> str:
    """`a, b and c`; of more than `most`, how many others."""
    shown = [*words[:most], f"{len(words) - most} more"] if len(words) > most else list(words)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
