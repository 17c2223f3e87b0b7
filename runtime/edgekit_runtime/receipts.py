"""Receipts: what was installed on a device, and how it did there, signed by the device's own key.

Refuses a receipt that another key signed, or that was changed since."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgekit_runtime.device import Device
from edgekit_runtime.disk import REAL, make_folder, plain_errors, replace
from edgekit_runtime.dsse import MAX_PAYLOAD, read_json
from edgekit_runtime.keypair import PublicKey, envelope, opened, public_of
from edgekit_runtime.version import __version__

RECEIPT = "application/vnd.edgekit.receipt+json"
KEPT = 200
"""Receipts that stay on the device."""


@dataclass(frozen=True)
class Receipt:
    """Version `version` of model `name`, whose manifest has this SHA-256, by the key `signer` (name and fingerprint):
    its `outcome`, and what the trial measured; None where it did not come so far. `why` says why it was refused, `exam`
    how it did in the one that it brings (the fields of `scored.Scored`)."""

    name: str
    version: str
    id: str
    manifest: str
    signer: str
    fingerprint: str
    outcome: str
    why: str = ""
    worst: float | None = None
    tolerance: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    peak_mb: float | None = None
    exam: Mapping[str, Any] | None = None


def issue(device: Device, receipt: Receipt) -> dict[str, Any]:
    """Sign it, keep it, and give it as a DSSE envelope (a JSON object)."""
    key, now = device.key(), device.now()
    facts = {**asdict(receipt), "device": public_of(key).fingerprint, "runtime": __version__, "when": now}
    made = envelope(key, RECEIPT, json.dumps(facts, sort_keys=True).encode())
    folder = device.folder / "receipts"
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(now, 0)))
    with plain_errors(str(folder)):
        make_folder(REAL, folder)
        replace(REAL, folder / f"{when}-{receipt.name}-{receipt.id}.json", json.dumps(made).encode())
        for old in sorted(one for one in REAL.names(folder) if one.endswith(".json"))[:-KEPT]:
            REAL.unlink(folder / old)
    return made


def read_receipt(raw: object, device: PublicKey) -> Mapping[str, Any]:
    """What a receipt (decoded JSON) says. Raises `Untrusted` where this device did not sign it."""
    said: Mapping[str, Any] = read_json(opened(raw, {device.fingerprint: device}, RECEIPT), MAX_PAYLOAD)
    return said
