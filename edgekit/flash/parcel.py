"""What is brought to a device that cannot be reached: runtime, service, trust and bundle, and the program for them.

Refuses nothing itself: `offline` has checked all of it. Pure but for reading the files that it names.

All of a bundle goes into it, never a delta: it is written where it is read, and what is on the device may change."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from edgekit_runtime.manifest import Manifest

from edgekit.flash.at_rest import Item
from edgekit.flash.bundles import Terms
from edgekit.flash.carrying import wish_of
from edgekit.flash.facts import Homes
from edgekit.flash.wheels import Wheelhouse

ARRIVED = "arrived"
"""The folder of parcels, in that of the runtimes."""
BOOT_UNIT = "edgekit-install.service"
UNITS = "etc/systemd/system"
LEAVE = "leave.json"
"""The signed leave to install an older release, in a parcel."""
MADE = "# made by edgekit flash"
INSTALL = """#!/bin/sh
# Run this on the device, as root: sh install.sh
here=$(cd "$(dirname "$0")" && pwd) || exit 1
command -v python3 > /dev/null || { echo "edgekit: there is no python3 here" >&2; exit 1; }
if [ "$(id -u)" != 0 ]; then exec sudo python3 -I "$here/arrival.py" "$here"; fi
exec python3 -I "$here/arrival.py" "$here"
"""


@dataclass(frozen=True)
class Parcel:
    """Its name among others (older releases sort first), and its files by their names within it."""

    name: str
    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(item.size for item in self.items)

    @property
    def label(self) -> bytes:
        """The file that says what the parcel is, and that is written last: without it there is no parcel."""
        source = self.items[-1].source
        assert isinstance(source, bytes)
        return source


@dataclass(frozen=True)
class Contents:
    """What goes into a parcel. `houses`: the runtime's wheels by the device's Python; None: it has its runtime.
    `serve`: the words to serve with; None: as before."""

    bundle: Path
    manifest: Manifest
    digest: str
    arch: str
    trust: tuple[bytes, ...]
    houses: Mapping[str, Wheelhouse] | None
    homes: Homes
    terms: Terms
    serve: tuple[str, ...] | None = None


def parcel_of(contents: Contents) -> Parcel:
    """Make it. The same contents give the same label, and others another one."""
    manifest, homes, terms = contents.manifest, contents.homes, contents.terms
    names = sorted([*manifest.files, "manifest.json", "model.sig"])
    items = [Item(f"bundle/{name}", contents.bundle / name) for name in names]
    trust = [Item(f"trust/{number}.json", raw) for number, raw in enumerate(contents.trust)]
    wheels = {wheel.sha256: wheel for house in (contents.houses or {}).values() for wheel in house.wheels}
    items += [*trust, *(Item(f"wheels/{sha256}", wheel.path) for sha256, wheel in sorted(wheels.items()))]
    own = files("edgekit.flash")
    items += [Item(name, own.joinpath(name).read_bytes()) for name in ("hands.py", "arrival.py")]
    items.append(Item("install.sh", INSTALL.encode(), 0o755))
    items += [Item(LEAVE, terms.downgrade, 0o600)] if terms.downgrade is not None else []
    runtimes = None
    if contents.houses is not None:
        runtimes = {python: wish_of(house, homes) for python, house in sorted(contents.houses.items())}
    label = {
        "name": manifest.name, "version": manifest.version, "target": manifest.target, "arch": contents.arch,
        "prefix": homes.prefix, "device": homes.device, "trust": [item.path for item in trust],
        "install": replace(terms, downgrade=None).words(), "leave": LEAVE if terms.downgrade is not None else None,
        "serve": None if contents.serve is None else list(contents.serve), "runtimes": runtimes,
        "manifest": contents.digest,
        "files": {one.path: hashlib.sha256(one.source).hexdigest() for one in items if isinstance(one.source, bytes)},
    }  # fmt: skip
    items.append(Item("parcel.json", json.dumps(label, indent=1).encode() + b"\n"))
    return Parcel(f"{manifest.release:012d}-{manifest.name}-{contents.digest[:12]}", tuple(items))


def in_root(parcel: Parcel, homes: Homes) -> list[Item]:
    """The parcel in a root file system, with the unit that installs it at the next start; in the order of writing."""
    folder = f"{homes.prefix.strip('/')}/{ARRIVED}/{parcel.name}"
    counts = [Item(f"{folder}/{name}", b"0") for name in ("starts", "failures")]  # of an earlier try to install it
    items = [*counts, *(Item(f"{folder}/{one.path}", one.source, one.mode) for one in parcel.items)]
    unit = Item(f"{UNITS}/{BOOT_UNIT}", boot_unit(homes).encode())
    return [*items, unit, Item(f"{UNITS}/multi-user.target.wants/{BOOT_UNIT}", link=f"/{UNITS}/{BOOT_UNIT}")]


def boot_unit(homes: Homes) -> str:
    """Installs what was brought while the device was off. What runs already is started first, and waits for nothing."""
    folder = f"{homes.prefix}/{ARRIVED}"
    first = f'for a in {folder}/*/arrival.py; do exec python3 -I "$$a" --boot {folder}; done'
    lines = (
        MADE, "[Unit]", "Description=EdgeKit: install what was brought while the device was off",
        f"ConditionPathExistsGlob={folder}/*/parcel.json", "After=edgekit.service local-fs.target", "",
        "[Service]", "# Not oneshot: the start of the machine does not wait for it.", "Type=exec",
        f"ExecStart=/bin/sh -c '{first}'", "RuntimeMaxSec=3600", "",
        "[Install]", "WantedBy=multi-user.target",
    )  # fmt: skip
    return "\n".join(lines) + "\n"
