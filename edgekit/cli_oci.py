"""The commands `edgekit pack`, `push` and `pull`: bundles as images in OCI registries.

Refuses nothing itself; what cannot be sent or had is told with what to type instead."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from edgekit_runtime.errors import EdgeKitError

from edgekit.cli_options import answer_options

if TYPE_CHECKING:
    from edgekit.oci.calls import Access

F = TypeVar("F", bound=Callable[..., Any])


def _access_options(command: F) -> F:
    for option in (
        click.option("--username", metavar="NAME", help="Who you are there; else what `docker login` wrote."),
        click.option("--password-stdin", is_flag=True, help="Read the password from standard input."),
        click.option("--plain-http", is_flag=True, help="No TLS; without it, only on this machine."),
        click.option("--ca", type=Path, metavar="FILE", help="The CA that signed the registry's certificate."),
        click.option(
            "--timeout", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, metavar="SECONDS"
        ),
        click.option("--cache", type=Path, metavar="FOLDER", help="Where fetched content is kept."),
    ):
        command = option(command)
    return answer_options(command)


@click.command()
@click.argument("bundle", type=Path)
@click.option("--out", type=Path, required=True, metavar="DIR.oci", help="The folder of the image.")
@click.option("--dry-run", is_flag=True, help="Say what the image would be; write nothing.")
@answer_options
def pack(bundle: Path, out: Path, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Make an OCI image layout of BUNDLE, as CNCF ModelPack has it. The same bundle gives the same digest."""
    from edgekit.oci import layout
    from edgekit.oci.image import pack as packed_of
    from edgekit.oci.manifest import sizes

    layout.refuse_to_replace(out)
    packed = packed_of(bundle)
    if not dry_run:
        _tell(quiet)(f"writing {len(packed.layers)} files")
        layout.write_layout(packed, out)
    facts = {
        "out": str(out), "digest": packed.descriptor.digest, "files": len(packed.layers),
        "bytes": sizes([layer.descriptor for layer in packed.layers]), "dry_run": dry_run,
        "annotations": dict(packed.annotations),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{'would write' if dry_run else 'wrote'} {out}  {facts['digest']}")
    for key, value in packed.annotations.items():
        click.echo(f"  {key}: {value}")


@click.command()
@click.argument("source", type=Path, metavar="BUNDLE|DIR.oci")
@click.argument("to", metavar="oci://HOST/REPOSITORY:TAG")
@click.option("--delta-from", metavar="oci://...", help="The older image that deltas start from; else what TAG names.")
@click.option("--no-deltas", is_flag=True, help="Make no deltas.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent; send nothing.")
@_access_options
def push(
    source: Path, to: str, delta_from: str | None, no_deltas: bool, dry_run: bool, as_json: bool, quiet: bool,
    cache: Path | None, **access: Any,
) -> None:  # fmt: skip
    """Send a bundle to a registry, with what differs from the image that was there. What is there is not sent again."""
    from edgekit.oci import pushing
    from edgekit.oci.blobs import user_blobs
    from edgekit.oci.reference import parse_reference

    reference = parse_reference(to)
    older = parse_reference(delta_from) if delta_from else None
    sending = pushing.Sending(reference, older, not no_deltas, dry_run)
    sent = pushing.push(source, sending, _access(reference.registry, **access), user_blobs(cache), _tell(quiet))
    click.echo(json.dumps(pushing.to_json(sent)) if as_json else "\n".join(pushing.lines(sent)))


@click.command()
@click.argument("what", metavar="oci://HOST/REPOSITORY:TAG")
@click.option("--out", type=Path, required=True, metavar="FOLDER", help="The bundle's folder.")
@click.option("--base", type=Path, metavar="BUNDLE", help="An older bundle, whose files spare bytes.")
@click.option("--keys", type=Path, metavar="FOLDER", help="Where the keys lie that you trust.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched; fetch no more than manifests and signature.")
@_access_options
def pull(
    what: str, out: Path, base: Path | None, keys: Path | None, dry_run: bool, as_json: bool, quiet: bool,
    cache: Path | None, **access: Any,
) -> None:  # fmt: skip
    """Fetch a bundle from a registry: whole or absent, every byte verified; after a cut it goes on where it was.

    It says who signed the bundle, and refuses one by a key that you revoked. What nobody signed, or a key that you do
    not know, comes with a warning: only devices insist.
    """
    from edgekit.keys import default_home, trusted
    from edgekit.oci import fetching
    from edgekit.oci.blobs import user_blobs
    from edgekit.oci.reference import parse_reference

    reference = parse_reference(what)
    if keys is not None:
        trusted(keys)  # a folder that was named must be one
    wish = fetching.Wish(reference, out, base, dry_run, keys or default_home())
    found = fetching.pull(wish, _access(reference.registry, **access), user_blobs(cache), _tell(quiet))
    click.echo(json.dumps(fetching.to_json(found)) if as_json else "\n".join(fetching.lines(found)))


def _access(
    registry: str, username: str | None, password_stdin: bool, plain_http: bool, ca: Path | None, timeout: float
) -> Access:
    """What the flags say; who we are, else, by Docker's own file."""
    from edgekit.oci.calls import Access
    from edgekit.oci.credentials import Login, find_login

    if bool(username) != password_stdin:
        hint = "say both, as in: edgekit push ... --username NAME --password-stdin < FILE"
        raise EdgeKitError("--username and --password-stdin belong together", hint=hint)
    if ca is not None and not ca.is_file():
        raise EdgeKitError(f"no file at {ca}", hint="give the CA's own file to --ca")
    if username:
        login: Login | None = Login(username, sys.stdin.readline(16_384).rstrip("\r\n"))
    else:
        folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        login = find_login(registry, folder / "config.json")
    return Access(login, plain_http, ca, timeout)


def _tell(quiet: bool) -> Callable[[str], None]:
    """Progress, line by line on standard error."""
    return (lambda words: None) if quiet else (lambda words: click.echo(words, err=True))
