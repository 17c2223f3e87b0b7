"""The command `edgekit encrypt`: a bundle that one device alone can open.

Refuses what `encrypting` refuses; no key is ever printed."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("encrypt")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--for", "device", type=click.Path(path_type=Path), required=True, metavar="DEVICE.pub", help="The device's key."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the encrypted bundle goes.")
@click.option("--key", metavar="NAME", help="The key to sign it with (the only one, or main).")
@click.option("--keys", "home", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the keys lie.")
@click.option("--json", "as_json", is_flag=True, help="The same facts for machines.")
def encrypt(bundle: Path, device: Path, out: Path | None, key: str | None, home: Path | None, as_json: bool) -> None:
    """Encrypt BUNDLE so that only the device with that key can open it, in memory alone.

    Manifest, report, model card, SBOM and provenance stay readable. What this does not stop is in the README.
    """
    from edgekit import keys
    from edgekit.encrypting import encrypt_bundle, read_device
    from edgekit.vouching import signer_of

    public, home = read_device(device), home or keys.default_home()
    by = signer_of(bundle, home)
    if by.name is None:
        click.echo(f"warning: {bundle} is {by.words}; what is made of it is signed with your key", err=True)
    secret = keys.signing_key(home, key, lambda words: click.echo(words, err=True))
    place = out or bundle.absolute().with_name(f"{bundle.absolute().stem}-{public.fingerprint[:12]}.edgekit")
    made = encrypt_bundle(bundle, public, place, secret)
    if as_json:
        facts = {"place": str(made.place), "for": made.device, "encrypted": made.encrypted, "readable": made.readable}
        click.echo(json.dumps(facts))
        return
    click.echo(f"{made.place}, for the device {made.device[:12]} alone")
    click.echo(f"encrypted: {', '.join(made.encrypted)}")
    click.echo(f"readable:  {', '.join(['manifest.json', *made.readable])}")
