"""Receipts that devices signed, verified and kept: what was installed where, and how it did there.

Refuses a receipt that the device's own key did not sign, or that is of another bundle."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import Untrusted
from edgekit_runtime.keypair import read_public
from edgekit_runtime.receipts import read_receipt


def default_folder() -> Path:
    """Below XDG_STATE_HOME or ~/.local/state."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "edgekit" / "receipts"


def keep(folder: Path, device: str, receipt: object, key: bytes, digest: str) -> tuple[Path, Mapping[str, Any]]:
    """Verify a receipt of the device called `device` for the manifest with this digest, and write it down.

    Raises:
        Untrusted: the device did not sign it, or it is for another bundle.
    """
    said = read_receipt(receipt, read_public(key))
    if said.get("manifest") != digest:
        raise Untrusted(
            f"the receipt of {device} is for another bundle", hint="look at the device yourself: edgekit status"
        )
    when = said.get("when")
    stamp = f"{when:.0f}" if isinstance(when, int | float) and 0 <= when < 2**53 else "0"
    place = folder / _plain(device) / f"{stamp}-{_plain(str(said.get('name')))}-{digest[:12]}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.with_name(f".{place.name}.{os.getpid()}")
    scratch.write_text(json.dumps(receipt, indent=1) + "\n", encoding="utf-8")
    scratch.replace(place)
    return place, said


def _plain(word: str) -> str:
    """A name as a file can have it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip(".-")[:100] or "device"
