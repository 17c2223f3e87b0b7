"""Names for devices, and the public key that each showed first: devices.toml in the user's own settings.

Refuses a name that is no plain word, an address that is none, and a device whose key has changed."""

import json
import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from edgekit_runtime.errors import EdgeKitError, NotFound, Untrusted
from edgekit_runtime.keypair import read_public
from edgekit_runtime.manifest import PLAIN

from edgekit.places.over_ssh import over_ssh
from edgekit.target import did_you_mean


@dataclass(frozen=True)
class Device:
    """A device: its name (its address where it was given none), its address, and its key's PEM once it was seen."""

    name: str
    url: str
    key: str | None = None


def default_file() -> Path:
    """Below XDG_CONFIG_HOME or ~/.config."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgekit" / "devices.toml"


def listed(file: Path) -> list[Device]:
    """All that is known, by name.

    Raises:
        EdgeKitError: the file does not read.
    """
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (ValueError, OSError) as error:
        raise EdgeKitError(
            f"{file} does not read: {error}", hint="mend it, or remove it and add the devices again"
        ) from error
    found = []
    for name, fields in sorted(raw.items()):
        match fields:
            case {"url": str(url), "key": str(key)}:
                found.append(Device(name, url, key))
            case {"url": str(url)}:
                found.append(Device(name, url))
            case _:
                raise EdgeKitError(
                    f"{file}: {name} has no url", hint=f'write [{json.dumps(name)}] and url = "ssh://..."'
                )
    return found


def add(file: Path, name: str, url: str) -> Device:
    """Give an address a name; another address for a known name begins anew, without the key.

    Raises:
        EdgeKitError: it is no plain word, or no address.
    """
    if not PLAIN.fullmatch(name):
        raise EdgeKitError(f"{name!r} cannot name a device", hint="use letters, digits, . _ -")
    over_ssh(url)
    before = next((one for one in listed(file) if one.name == name), None)
    known = next((one for one in listed(file) if one.url == url and one.key), None)
    device = Device(name, url, known.key if known else None)
    if before is not None and before.url == url:
        return before
    _write(file, [*(one for one in listed(file) if one.name != name), device])
    return device


def remove(file: Path, name: str) -> None:
    """Forget a device, its key too."""
    found = find(file, name)
    _write(file, [one for one in listed(file) if one.name != found.name])


def find(file: Path, where: str) -> Device:
    """The device of that name or address; an address that has no name is one of its own.

    Raises:
        NotFound: nothing has that name.
    """
    every = listed(file)
    for one in every:
        if where in (one.name, one.url):
            return one
    if "://" not in where:
        near = did_you_mean(where, [one.name for one in every])
        looks = f": ssh://{where}" if {".", "@", ":"} & set(where) else ""
        hint = f"edgekit devices add NAME ssh://user@host, or give the address{looks}"
        raise NotFound(f"no device {where!r}{near}", hint=hint)
    over_ssh(where)
    return Device(where, where)


def same_key(device: Device, key: bytes | None) -> None:
    """Raise `Untrusted` where a device that showed a key shows another one, or none."""
    if device.key is None:
        return
    if key is None:
        raise Untrusted(
            f"{device.name} had a key and shows none now: it was set up anew, or is another device",
            hint=f"if that is right: edgekit devices forget-key {device.name}",
            reason="other_device",
        )
    if read_public(key) != read_public(device.key.encode()):
        raise Untrusted(
            f"{device.name} shows another key ({read_public(key).fingerprint[:12]}) than at its first flash",
            hint=f"if it was set up anew: edgekit devices forget-key {device.name}",
            reason="other_device",
        )


def remember(file: Path, device: Device, key: bytes | None) -> None:
    """Keep the key that a device showed at first."""
    pem = None if key is None else read_public(key).pem.decode()
    if pem != device.key:
        _write(file, [*(one for one in listed(file) if one.name != device.name), replace(device, key=pem)])


def host_of(device: Device) -> str:
    """The device's host, for words and for file names."""
    return urlsplit(device.url).hostname or device.name


def _write(file: Path, devices: list[Device]) -> None:
    """Whole or as it was. JSON's texts are TOML's too."""
    lines = ["# Devices that `edgekit flash` knows: addresses, and the key that each showed first."]
    for one in sorted(devices, key=lambda device: device.name):
        lines += ["", f"[{json.dumps(one.name)}]", f"url = {json.dumps(one.url)}"]
        lines += [f"key = {json.dumps(one.key)}"] if one.key else []
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scratch.replace(file)
