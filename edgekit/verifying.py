"""Verify a bundle on another CPU, emulated: its recorded answers replayed there by its own engine, its quality scored.

Refuses what nothing emulates, and to fetch an emulator where that is forbidden. Proves nothing of speed."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.detect import PACKAGES, saturating
from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.selftest import recordings

from edgekit.agreeing import Scored, Wish, score_beside
from edgekit.elsewhere import ALIKE
from edgekit.model import Artifact, Tell
from edgekit.places import Place, roots
from edgekit.places.cores import Core
from edgekit.places.emulated import core_named, find_core
from edgekit.places.there import There, open_at
from edgekit.replaying import Replay, replay

NOT_PROVED = (
    "how fast it is there: emulation is a hundred times slower than the core, so no time was taken",
    "the GPU or the NPU of a device: only its CPU is emulated",
    "kernels of features that the emulated core has not: the engine took those that fit the features above",
    "the memory, the heat and the operating system of a device: this ran with this machine's",
)


@dataclass(frozen=True)
class Verified:
    """What came of a bundle on the core that `on` named. `there` are the machine's facts as the worker told them.

    "proved": it answers there as recorded, and scores as here where data was given. "differs": it answers otherwise.
    "missed": the data shows that it loses there. "inconclusive": the data is too little to tell against the budget.
    "refused": its engine cannot run it there.
    """

    on: str
    core: Core
    outcome: str
    why: str
    there: dict[str, Any] = field(default_factory=dict)
    replay: Replay | None = None
    tolerance: float = 0.0
    scored: Scored | None = None
    notes: tuple[str, ...] = ()


def cores_of(names: Sequence[str]) -> dict[str, Core]:
    """The core that each name stands for, whatever its case: its own, or a target's; each core once.

    Raises:
        EdgeKitError: a name stands for none.
    """
    found: dict[str, Core] = {}
    for name in names:
        core = core_named(name)
        if core not in found.values():
            found[name] = core
    return found


def refuse_unfit(bundle: Bundle, core: Core) -> None:
    """Raise where the bundle cannot be run on the core, fetched or not.

    Raises:
        EdgeKitError: it is for an accelerator, or no build of its engine can be had for the core.
    """
    device = bundle.manifest.options.device
    if device != "cpu":
        raise EdgeKitError(
            f"{bundle.manifest.name} runs on its {device}, which nothing emulates",
            hint="flash it to the device, which replays the recorded answers before it serves, or build it for a CPU",
        )
    place = find_core(core, bundle.manifest.engine)
    if not isinstance(place, Place) and not roots.missing(core):
        raise EdgeKitError(place.why, hint=place.hint)


def verify(bundle: Bundle, on: str, core: Core, wish: Wish, tell: Tell) -> Verified:
    """Run the bundle's recorded inputs on the core, which is there, and score the data there and here.

    Raises:
        EdgeKitError: the core was not fetched, the data does not open, or the worker does not start.
    """
    manifest = bundle.manifest
    golden, pairs = recordings(bundle)
    place = find_core(core, manifest.engine)
    if not isinstance(place, Place):
        raise EdgeKitError(place.why, hint=f"say {place.hint}" if roots.missing(core) else place.hint)
    entry = bundle.place(manifest.entry)
    artifact = Artifact(manifest.engine, manifest.precision, entry, manifest.inputs, manifest.outputs)
    found = Verified(on, core, "proved", "", tolerance=golden.tolerance)
    with open_at(place, manifest.options, tell) as there:
        found = replace(found, there=dict(there.machine), notes=_notes(bundle, there))
        try:
            run = there.runner(artifact)
            tell(f"replaying {len(pairs)} recorded answers on {place.words}")
            found = replace(found, replay=replay(golden, pairs, (manifest.inputs, manifest.outputs), run))
            if wish.data is not None:
                found = replace(found, scored=score_beside(_identity(bundle), artifact, bundle, there, wish, tell))
        except Unsupported as error:
            return replace(found, outcome="refused", why=f"it does not run there: {error.what}")
    return _judged(bundle, found)


def fetch(core: Core, allowed: bool, tell: Tell) -> None:
    """What emulating the core takes, fetched where it is not there.

    Raises:
        EdgeKitError: it is missing and may not be fetched, or cannot be.
    """
    absent = roots.missing(core)
    if absent and not allowed:
        size = sum(part.megabytes for part in absent)
        words = " and ".join(part.words.partition(":")[0] for part in absent)
        raise EdgeKitError(
            f"{core.name} is not emulated yet: {words} missing, about {size} MB",
            hint=f"leave out --no-fetch, or say edgekit emulators add {core.name}",
        )
    if absent:
        roots.add(core, tell)


def _judged(bundle: Bundle, found: Verified) -> Verified:
    """With its outcome, and why in words."""
    seen, scored = found.replay, found.scored
    assert seen is not None
    said = f"largest difference {seen.worst:.2g} of the range at {seen.output}"
    if not seen.worst <= found.tolerance:
        why = f"it answers otherwise than recorded: {said}, over the tolerance of {found.tolerance:g}"
        return replace(found, outcome="differs", why=why)
    within = f"it answers as recorded: {said}, within {found.tolerance:g}"
    if scored is not None:
        return replace(found, outcome=scored.outcome, why=f"{within}; {scored.why}")
    if seen.worst > ALIKE and _saturates_there_alone(bundle, found):
        why = (
            f"{said}: more than rounding does ({ALIKE:g}), since this core's 8-bit multiply-add saturates and that of "
            f"the machine that recorded them does not; --data DATA would tell what is lost"
        )
        return replace(found, outcome="differs", why=why)
    return replace(found, why=within)


def _saturates_there_alone(bundle: Bundle, found: Verified) -> bool:
    """Whether 8-bit sums are cut off there and were not where the answers were recorded, and nobody scored it there."""
    manifest = bundle.manifest
    machine = manifest.provenance.get("machine")
    built = machine if isinstance(machine, dict) else {}
    isa = built.get("isa")
    cut_there = manifest.engine in saturating(found.core.arch, list(found.there["isa"]))
    cut_here = manifest.engine in saturating(str(built.get("arch")), [*map(str, isa)] if isinstance(isa, list) else [])
    return manifest.precision == "int8" and cut_there and not cut_here and not _scored_well(bundle, found.core)


def _scored_well(bundle: Bundle, core: Core) -> bool:
    """Whether the build itself scored it on that core, and shipped it."""
    listed = bundle.manifest.evidence.get("scored_on")
    words = f"{core.name}, emulated"
    return isinstance(listed, list) and any(
        isinstance(one, dict) and one.get("where") == words and bool(one.get("n")) and not one.get("worse")
        for one in listed
    )


def _notes(bundle: Bundle, there: There) -> tuple[str, ...]:
    """What is not as it was when the bundle was proven."""
    engine, tools = bundle.manifest.engine, bundle.manifest.provenance.get("tools")
    ran = there.machine["engines"].get(engine)
    names = [name for names in PACKAGES.get(engine, {}).values() for name in names]
    proven = next((tools[name] for name in names if name in tools), None) if isinstance(tools, dict) else None
    if proven is None or proven == ran:
        return ()
    return (f"{engine} {ran} ran there; the bundle was proven with {proven}",)


def _identity(bundle: Bundle) -> str:
    """A hex digest of all that answers: the files and how they are run."""
    manifest = bundle.manifest
    files = {name: entry.sha256 for name, entry in manifest.files.items()}
    return hashlib.sha256(json.dumps([files, manifest.engine, manifest.entry], sort_keys=True).encode()).hexdigest()
