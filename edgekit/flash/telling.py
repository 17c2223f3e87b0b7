"""The plan of a flash, for people and for machines. Pure.

Refuses nothing."""

import shlex
from typing import Any

import edgekit_runtime

from edgekit.flash import checks, running
from edgekit.flash.bundles import Terms
from edgekit.flash.flashing import Order, Plan
from edgekit.flash.moving import megabytes


def lines(plan: Plan, order: Order) -> list[str]:
    """The plan in words."""
    found, manifest = plan.facts, plan.manifest
    if plan.nothing_to_do:
        return [f"{manifest.name} {manifest.version} ({plan.id}) is there and live: nothing to do"]
    told = []
    if house := plan.wheelhouse:
        did = "install" if found.runtime is None else "replace"
        told.append(
            f"{did} the runtime: edgekit-runtime {edgekit_runtime.__version__} with {', '.join(house.engines)}; "
            f"{megabytes(plan.runtime_bytes)} to send in {len(plan.wheels)} of {len(house.wheels)} wheels"
        )
    if plan.documents:
        told.append(f"trust: send {len(plan.documents)} document{'s' if len(plan.documents) > 1 else ''}")
    before = running.live_of(plan.model)
    replaces = f"it replaces {before}" if before else "it is the first of its name"
    if before == plan.id:
        replaces = "it is live already"
    rest = plan.rest
    deltas = (
        f" ({megabytes(rest.delta_bytes)} as deltas, for {megabytes(rest.delta_files)} of files)" if rest.deltas else ""
    )
    told.append(
        f"bundle: {manifest.name} {manifest.version} ({plan.id}); {megabytes(rest.size)} to send{deltas}, "
        f"{rest.there} of {rest.of} files are there; {replaces}"
    )
    told += how(order.terms)
    if order.words not in (None, found.words):
        later = "" if running.supervised(found) or not plan.serves else ", from the server's next start on"
        told.append(f"it serves with other words{later}: {shlex.join(order.words or ()) or 'none'}")
    if running.supervised(found):
        told.append("service: edgekit.service of systemd")
    elif not plan.serves:
        told.append("service: started by us" if order.start else "service: none; no systemd looks after these folders")
    return told


def how(terms: Terms) -> list[str]:
    """How the device installs it, in words."""
    beside = ""
    if terms.shadow:
        beside = f", compared with the live version on {float(terms.shadow[1]):.3g} of its requests"
    drift = ", which a drift alarm ends too" if terms.roll_back_on_drift else ""
    found = [f"it is tried there{beside}, then on probation for {terms.probation:g} s{drift}"]
    found += ["it is installed even if the device went back from it before"] if terms.again else []
    found += ["a signed leave to install an older release goes along"] if terms.downgrade is not None else []
    return found


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan for machines."""
    return {
        "checks": [{"name": c.name, "state": c.state, "words": c.words, "hint": c.hint} for c in plan.checks],
        "refused": bool(checks.refused(plan.checks)),
        "bundle": {"name": plan.manifest.name, "version": plan.manifest.version, "id": plan.id},
        "live": running.live_of(plan.model),
        "runtime_bytes": plan.runtime_bytes,
        "bundle_bytes": plan.rest.size,
        "delta_bytes": plan.rest.delta_bytes,
        "delta_files_bytes": plan.rest.delta_files,
        "files_there": plan.rest.there,
        "trust_documents": len(plan.documents),
        "nothing_to_do": plan.nothing_to_do,
    }
