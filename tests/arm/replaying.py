"""Replay the exhibits on an emulated core: one worker for an engine, every bundle of its format, recorded inputs.

Refuses nothing: what a target rules out, what an engine refuses and what has no wheel there are cells with reasons."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.selftest import selftest

from edgekit.places import Absent
from edgekit.places.cores import CORES
from edgekit.places.emulated import find_core
from edgekit.places.there import There, open_at
from edgekit.target import Target, find_target
from tests.arm.exhibits import WORDS, Exhibit, artifact, exhibits, opened, wanted

STANDS_FOR = {
    "cortex-a53": "rpi3",
    "cortex-a72": "rpi4",
    "cortex-a76": "rpi5",
    "neoverse-n1": None,
    "cortex-a7": "armv7",
    "Nehalem": "x86-64-v2",
    "Haswell": "x86-64-v3",
}
"""The cores, as the page shows them, and the shipped target whose rules hold there."""
ENGINES = ("onnx", "tflite", "openvino")
Outcome = Literal["ran", "refused", "ruled out"]
RAN: Outcome = "ran"
REFUSED: Outcome = "refused"
RULED_OUT: Outcome = "ruled out"


@dataclass(frozen=True)
class Cell:
    """What became of a bundle on a core: it `ran` with a largest difference from here, in parts of the outputs' range
    (`tolerance` is what its manifest allows); its engine `refused` it there; or the target `ruled out` that."""

    core: str
    engine: str
    bundle: str
    precision: str
    outcome: Outcome
    worst: float | None = None
    tolerance: float | None = None
    why: str = ""

    @property
    def good(self) -> bool:
        """Whether it answered as here, or was not to."""
        return self.outcome == RULED_OUT or (
            self.worst is not None and self.tolerance is not None and self.worst <= self.tolerance
        )


def target_of(core: str) -> Target:
    """The target that a core stands for; a server's core goes by the Pi's that has the same instructions."""
    name = STANDS_FOR[core]
    return find_target(name) if name else replace(find_target("rpi5"), name=core, title="ARM server (Neoverse N1)")


def replay(core: str, engine: str, tell: Callable[[str], None]) -> list[Cell]:
    """Every exhibit of the engine's format on a core, one worker for all.

    Raises:
        EdgeKitError: the core cannot be had here, or no worker starts.
    """
    target, shown = target_of(core), exhibits(engine)
    ruled = {one: _why_not(one, target) for one in shown}
    cells = {one: _cell(one, core, RULED_OUT, why=why) for one, why in ruled.items() if why is not None}
    if len(cells) == len(shown):
        return list(cells.values())
    place = find_core(CORES[core], engine)
    if isinstance(place, Absent):
        raise EdgeKitError(place.why, hint=place.hint)
    for one in shown:  # before the worker: two builds and an emulator at once are three for two processors
        if one not in cells:
            opened(one)
    with open_at(place, EngineOptions(threads=1), tell) as there:
        for one in shown:
            if one not in cells:
                cells[one] = _tried(one, core, there)
    return [cells[one] for one in shown]


def _tried(one: Exhibit, core: str, there: There) -> Cell:
    bundle = opened(one)
    try:
        found = selftest(bundle, there.runner(artifact(bundle)))
    except EdgeKitError as error:
        return _cell(one, core, REFUSED, why=error.what)
    return replace(_cell(one, core, RAN), worst=found.worst, tolerance=found.tolerance)


def _cell(one: Exhibit, core: str, outcome: Outcome, why: str = "") -> Cell:
    return Cell(core, one.format, one.title, one.precision, outcome, why=why)


def _why_not(one: Exhibit, target: Target) -> str | None:
    """Why a target is not for a bundle; None where it is."""
    if reason := target.forbids(one.format, one.precision, one.ops):
        return reason
    for field, words in WORDS.items():
        if wanted(target, field, one.format, one.precision) and one.wants() != field:
            return f"built for another target; {target.name} wants {words}"
    return None
