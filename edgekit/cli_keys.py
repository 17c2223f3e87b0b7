"""The verbs for keys: `edgekit key new|list|rotate|revoke|trust|allow`.

Refuses what `keys` refuses; no secret is ever printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from edgekit_runtime.errors import EdgeKitError

if TYPE_CHECKING:
    from edgekit.keys import Key


@click.group("key")
def keys_verbs() -> None:
    """Keys that bundles are signed with, and what devices are to trust.

    A root vouches for the signing keys: keep root.key away from the machine that builds, and bring it for new,
    rotate and revoke. Devices get what they are to trust with the next flash.
    """


def _folder(command: Any) -> Any:
    for option in (
        click.option("--keys", "home", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the keys lie."),
        click.option("--json", "as_json", is_flag=True, help="For machines."),
    ):
        command = option(command)
    return command


@keys_verbs.command()
@click.argument("name", required=False)
@_folder
def new(name: str | None, home: Path | None, as_json: bool) -> None:
    """Make a signing key called NAME (main), and a root where there is none."""
    from edgekit import keys

    home = home or keys.default_home()
    first = not keys.listed(home)
    made = keys.new(home, name or keys.FIRST)
    _show([one for one in keys.listed(home) if one == made or first], as_json)
    if first and not as_json:
        click.echo(f"keep {home / 'root.key'} somewhere safe: who has it can have every device trust them")


@keys_verbs.command("list")
@_folder
def list_(home: Path | None, as_json: bool) -> None:
    """The keys, those of others too, and which are revoked."""
    from edgekit import keys

    found = keys.listed(home or keys.default_home())
    if not found and not as_json:
        click.echo(
            f"no keys in {home or keys.default_home()}; `edgekit key new` makes one, and so does the first build"
        )
    _show(found, as_json)


@keys_verbs.command()
@click.argument("name")
@_folder
def rotate(name: str, home: Path | None, as_json: bool) -> None:
    """Another key in the place of NAME (or root). What the old one signed stays good until it is revoked."""
    from edgekit import keys

    home = home or keys.default_home()
    before = {one.fingerprint for one in keys.listed(home) if name in (one.name, one.fingerprint) and not one.revoked}
    _show([keys.rotate(home, name)], as_json)
    for fingerprint in () if as_json else sorted(before):
        click.echo(f"the old one is trusted until you say: edgekit key revoke {fingerprint[:12]}")


@keys_verbs.command()
@click.argument("name")
@click.option("--why", default="", metavar="WORDS", help="What devices and people are told.")
@_folder
def revoke(name: str, why: str, home: Path | None, as_json: bool) -> None:
    """Trust NAME (or a fingerprint) no more: devices refuse what it signed, from their next flash on."""
    from edgekit import keys

    home = home or keys.default_home()
    _show([keys.revoke(home, name, why or "revoked")], as_json)
    if as_json:
        return
    left = [one for one in keys.listed(home) if one.role == "sign" and one.private and not one.revoked]
    if not left:
        click.echo("no key to sign with is left: edgekit key new NAME")
    click.echo("a device learns of it when a bundle signed by another key is flashed: edgekit flash BUNDLE DEVICE")


@keys_verbs.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it, instead of stdout.")
@_folder
def trust(out: Path | None, home: Path | None, as_json: bool) -> None:
    """What a device is to trust: the document that flash carries along."""
    from edgekit import keys

    _write(keys.trust_document(home or keys.default_home()), out, as_json)


@keys_verbs.command()
@click.argument("name", metavar="MODEL")
@click.argument("release", type=click.IntRange(0), metavar="RELEASE")
@click.option("--days", type=float, default=7.0, show_default=True, metavar="N")
@click.option("--key", metavar="NAME", help="Of the key that signs it.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it, instead of stdout.")
@_folder
def allow(
    name: str, release: int, days: float, key: str | None, out: Path | None, home: Path | None, as_json: bool
) -> None:
    """A signed leave to install releases of MODEL from RELEASE on, below what devices take by themselves.

    RELEASE is the number in the bundle's manifest.json. Give the file to `edgekit flash --downgrade FILE`.
    """
    from edgekit import keys

    _write(keys.allow(home or keys.default_home(), name, release, days, key), out, as_json)


def _write(raw: bytes, out: Path | None, as_json: bool) -> None:
    if out is None:
        click.echo(raw, nl=False)
        return
    try:
        out.write_bytes(raw)
    except OSError as error:
        raise EdgeKitError(f"{out}: {error.strerror}", hint="say --out with another name") from error
    if as_json:
        click.echo(json.dumps({"out": str(out)}))


def _show(found: Sequence[Key], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_facts(one) for one in found], indent=1))
        return
    width = max((16, *(len(one.name) for one in found)))
    for one in found:
        state = f"revoked: {one.revoked}" if one.revoked else str(one.private or "its secret is not here")
        click.echo(f"{one.name:<{width}} {one.role:<5} {one.fingerprint[:16]}  {state}")


def _facts(key: Key) -> dict[str, str | None]:
    """A key for machines; its secret stays where it is."""
    where = None if key.private is None else str(key.private)
    told = {"name": key.name, "role": key.role, "fingerprint": key.fingerprint}
    return {**told, "private": where, "revoked": key.revoked}
