"""What became of an order: an outcome for each target, where it lies, and the same order found again.

Refuses to recall what could not be made, or was left undone: that is tried again."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekit import sources
from edgekit.answers import machine
from edgekit.bundle import build_time, copy_files, whole_folder
from edgekit.cache import Cache, key
from edgekit.data import raw_fingerprint
from edgekit.elsewhere import can_score
from edgekit.job import Order, vocabulary
from edgekit.model import Origin
from edgekit.report import page
from edgekit.target import find_target
from edgekit.watching import watched


@dataclass(frozen=True)
class Outcome:
    """What became of one target. `verdict` is passed or unbudgeted (there is a `bundle`), or missed,
    inconclusive or refused (there is none, and `hint` says what to do). `facts` is what `--json` prints."""

    target: str
    verdict: str
    why: str
    hint: str
    bundle: Path | None
    report: Path
    facts: dict[str, Any]


BUILT = ("passed", "unbudgeted")
WORST_LAST = ("passed", "unbudgeted", "inconclusive", "missed", "screened", "refused")


def place_of(order: Order, name: str, target: str) -> Path:
    """Where the bundle goes: `--out` itself for one target, a folder in it for several, the working folder without."""
    own = f"{name}-{target}.edgekit"
    if order.out is None:
        return Path(own)
    return order.out if len(order.targets) == 1 else order.out / own


def keep_report(place: Path, facts: dict[str, Any]) -> Path:
    """Write the report of a build without a bundle beside where the bundle would be."""
    stem = place.name.removesuffix(".edgekit")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.with_name(f"{stem}.report.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    kept = place.with_name(f"{stem}.report.html")
    kept.write_text(page(facts), encoding="utf-8")
    return kept


def model_fingerprint(origin: Origin, cache: Cache) -> str:
    """The model's fingerprint; of a model that the user's code makes, what it was when the same files were there:
    to make it anew takes a framework that is slow to import."""
    if sources.kind(origin) != "module:factory":
        return sources.fingerprint(origin)
    note = cache.root / "fingerprints" / f"{key('fingerprint', [repr(origin), str(Path.cwd())])}.json"
    try:
        known = json.loads(note.read_text())
        if not cache.fresh and all(raw_fingerprint(path) == digest for path, digest in known["files"].items()):
            return str(known["fingerprint"])
    except (OSError, ValueError, KeyError):
        pass  # there is no such note, or it does not read: it is written anew
    with watched() as files:
        fingerprint = sources.fingerprint(origin)
    files |= {str(origin.weights)} if origin.weights is not None else set()
    kept = {str(Path(path).resolve()): raw_fingerprint(str(Path(path).resolve())) for path in sorted(files)}
    note.parent.mkdir(parents=True, exist_ok=True)
    scratch = note.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps({"files": kept, "fingerprint": fingerprint}))
    scratch.replace(note)
    return fingerprint


def basis_of(order: Order, cache: Cache, signer: str | None) -> dict[str, Any] | None:
    """All that a build depends on, where it can be told without building; None where it cannot. `signer` is the
    fingerprint of the key that signs."""
    built, read = build_time(), (order.data, order.calibration, vocabulary(order))
    data = {where: raw_fingerprint(where) for where in read if where is not None}
    if None in data.values() or ":" in (order.metric or "") or order.measure_on:
        return None
    return {
        "order": {key: str(value) for key, value in vars(replace(order, out=None, command="", keys=Path())).items()},
        "signer": signer,
        "model": model_fingerprint(order.origin, cache),
        "targets": [asdict(find_target(name)) for name in order.targets],
        "data": data,
        "machine": machine(),
        "built": built,
        "elsewhere": [can_score(order, find_target(name)) for name in order.targets],
    }


def remember(basis: Mapping[str, Any] | None, cache: Cache, outcomes: tuple[Outcome, ...]) -> None:
    """Keep what was found, so that the same order is a copy the next time; what could not be made, or was left
    undone when the time was over, is tried again."""
    if basis is None or any(outcome.verdict == "refused" for outcome in outcomes):
        return
    if basis["order"]["budget_time_s"] != "None" and any(outcome.facts["untried"] for outcome in outcomes):
        return

    def fill(folder: Path) -> None:
        for index, outcome in enumerate(outcomes):
            if outcome.bundle is not None:
                copy_files(outcome.bundle, folder / str(index))
        kept = [{**outcome.facts, "why": outcome.why, "hint": outcome.hint} for outcome in outcomes]
        (folder / "facts.json").write_text(json.dumps(kept))

    cache.folder("bundles", basis, fill)


def remembered(order: Order, basis: Mapping[str, Any] | None, cache: Cache) -> tuple[Outcome, ...]:
    """The outcomes of the same order before, bundles and reports copied into place; empty where there was none."""
    home = None if basis is None else cache.find("bundles", basis)
    if home is None:
        return ()
    return tuple(
        _recalled(place_of(order, facts["name"], facts["target"]["name"]), facts, home / str(index))
        for index, facts in enumerate(json.loads((home / "facts.json").read_text()))
    )


def _recalled(place: Path, facts: dict[str, Any], kept: Path) -> Outcome:
    """One outcome as it was; `kept` holds its bundle, where there was one."""
    told = {**facts, "remembered": True}
    if facts["verdict"] not in BUILT:
        report = keep_report(place, facts)
        told |= {"bundle": None, "report": str(report)}
        return Outcome(facts["target"]["name"], facts["verdict"], facts["why"], facts["hint"], None, report, told)
    with whole_folder(place) as scratch:
        copy_files(kept, scratch)
    told |= {"bundle": str(place)}
    return Outcome(facts["target"]["name"], facts["verdict"], facts["why"], "", place, place / "report.html", told)
