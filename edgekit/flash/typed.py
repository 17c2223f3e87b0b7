"""What was typed after `edgekit flash`, made the order of a flash over ssh, or the wishes for a device at rest.

Refuses a word that says nothing where it was typed, what is no number, and words that no server would start with."""

import argparse
import io
import ipaddress
import math
import os
import shlex
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.addresses import require_token
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.trust import MAX_DOCUMENT

from edgekit import keys
from edgekit.cache import user_cache
from edgekit.flash import names, receipts
from edgekit.flash.bundles import Terms
from edgekit.flash.differing import Kept
from edgekit.flash.facts import Homes
from edgekit.flash.flashing import Order
from edgekit.flash.staging import Wishes
from edgekit.oci.blobs import user_blobs

IMAGE = "image:"
AT_REST: Mapping[str, str] = {"python": "file:", "partition": IMAGE, "in_place": IMAGE}
"""Words for a device at rest, and what place they are for."""
NOT_AT_REST: Mapping[str, str] = {
    "ssh_config": "nobody is asked over ssh",
    "device": "its unit installs into the usual folders",
    "prefix": "its unit installs into the usual folders",
    "user": "root installs it when the device starts",
    "start": "the device's own systemd starts the server",
}
"""Words that say nothing to a device at rest, and why."""


@dataclass(frozen=True)
class Typed:
    """Each word under the name of its option."""

    bundle: Path
    where: str
    probation: float = 300.0
    roll_back_on_drift: bool = False
    again: bool = False
    shadow: float | None = None
    shadow_requests: int | None = None
    shadow_seconds: float | None = None
    agreement: float | None = None
    slower: float | None = None
    downgrade: Path | None = None
    serve: str | None = None
    start: bool = False
    keys: Path | None = None
    partition: int | None = None
    in_place: bool = False
    python: tuple[str, ...] = ()
    no_deltas: bool = False
    quiet: bool = False
    as_json: bool = False
    ssh_config: Path | None = None
    device: str | None = None
    prefix: str | None = None
    user: bool = False


def order(typed: Typed) -> Order:
    """Of a flash over ssh."""
    for name, place in AT_REST.items():
        if getattr(typed, name):
            raise EdgeKitError(f"{_option(name)} is for {place} alone", hint="leave it out")
    file = names.default_file()
    return Order(
        typed.bundle,
        names.find(file, typed.where),
        homes(typed.device, typed.prefix, typed.user),
        terms(typed),
        served_with(typed.serve),
        typed.start,
        typed.keys or keys.default_home(),
        file,
        receipts.default_folder(),
        _kept(typed),
    )


def wishes(typed: Typed) -> Wishes:
    """For a device at rest."""
    for name, why in NOT_AT_REST.items():
        if getattr(typed, name):
            what = f"{_option(name)} says nothing to a device at rest: {why}"
            raise EdgeKitError(what, hint="leave it out, or flash over ssh://")
    for name, place in AT_REST.items():
        if getattr(typed, name) and not typed.where.startswith(place):
            raise EdgeKitError(f"{_option(name)} is for {place} alone", hint="leave it out")
    return Wishes(
        typed.bundle,
        typed.where,
        typed.keys or keys.default_home(),
        typed.partition,
        typed.in_place,
        typed.python,
        terms(typed),
        served_with(typed.serve),
        _kept(typed),
    )


def terms(typed: Typed) -> Terms:
    """How the device is to install it."""
    told = {
        "shadow": typed.shadow, "shadow-requests": typed.shadow_requests, "shadow-seconds": typed.shadow_seconds,
        "agreement": typed.agreement, "slower": typed.slower,
    }  # fmt: skip
    beside = {name: value for name, value in told.items() if value is not None}
    for name, value in {"probation": typed.probation, **beside}.items():
        if not math.isfinite(value):
            raise EdgeKitError(f"--{name} {value} is no number", hint="say one that has an end")
    if beside and "shadow" not in beside:
        raise EdgeKitError(f"--{next(iter(beside))} says nothing without --shadow", hint="say --shadow 0.1 too")
    if beside and typed.downgrade is not None:
        raise EdgeKitError("--shadow and --downgrade do not go together", hint="leave one of them out")
    words = tuple(word for name, value in beside.items() for word in (f"--{name}", f"{value:.10g}"))
    return Terms(typed.probation, typed.again, typed.roll_back_on_drift, _leave(typed.downgrade), words)


def homes(device: str | None, prefix: str | None, user: bool) -> Homes:
    """Where things lie on a device that is reached over ssh."""
    for folder in (device, prefix):
        if folder is not None and (not os.path.isabs(folder) or not folder.isprintable()):
            raise EdgeKitError(f"{folder!r} is no folder of the device", hint="write it from / on")
    usual = Homes("", "", True) if user else Homes()
    return Homes(prefix or usual.prefix, device or usual.device, user, device is None and prefix is None)


def served_with(said: str | None) -> tuple[str, ...] | None:
    """The words of `edgekit-runtime serve`, as its own parser takes them: a unit with wrong ones would never start."""
    if said is None:
        return None
    from edgekit_runtime import options, options_watch

    parser = argparse.ArgumentParser(prog="--serve", add_help=False, allow_abbrev=False)
    options.add(parser)
    told = io.StringIO()
    try:
        words = tuple(shlex.split(said))
        with redirect_stderr(told):
            given = parser.parse_args(words)
    except ValueError as error:
        raise EdgeKitError(f"--serve does not read: {error}", hint="close what is quoted") from error
    except SystemExit as error:
        last = (told.getvalue().strip().splitlines() or ["it does not read"])[-1]
        raise EdgeKitError(last.replace(": error", ""), hint="see edgekit-runtime serve --help") from error
    if given.bundle or given.device is not None or given.repository is not None:
        what = "--serve names what is to be served: that is what was flashed"
        raise EdgeKitError(what, hint="leave bundles, --device and --repository out")
    given.device = Path("/")
    options_watch.check(given)
    options.policy(given), options.aliases(given)
    where = options.where(given)
    found = [one for one in (where.http, where.grpc, where.admin, where.admin_grpc) if one is not None]
    require_token([one for one in found if _is_number(one.host)], given.tokens)
    return words


def _leave(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise EdgeKitError(f"{path} does not read: {error.strerror}", hint="name the signed leave") from error
    if len(raw) > MAX_DOCUMENT:
        raise EdgeKitError(f"{path} is too large for a signed leave", hint="name what edgekit key allow wrote")
    return raw


def _kept(typed: Typed) -> Kept | None:
    return None if typed.no_deltas else Kept(user_blobs(), user_cache())


def _is_number(host: str) -> bool:
    """Whether it is an IP address; what a name means, the device alone knows."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
