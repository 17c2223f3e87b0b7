"""The options of `edgekit-runtime serve`, from words to values.

Refuses words that are none, folders of the wrong kind, and an option without the one that it needs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime import options_watch
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.limits import MIB, Limits
from edgekit_runtime.option_words import host, number, port, positive, whole, wholes

if TYPE_CHECKING:
    from edgekit_runtime.lane import Batching
    from edgekit_runtime.service import Policy
    from edgekit_runtime.serving import Guard, Where


def add(one: argparse.ArgumentParser) -> None:
    """Declare the options."""
    models = one.add_argument_group("models")
    models.add_argument("bundle", type=Path, nargs="*", metavar="BUNDLE", help="a folder that `edgekit build` made")
    models.add_argument("--repository", type=Path, metavar="DIR", help="a folder of bundles: the newest of each name")
    models.add_argument("--device", type=Path, metavar="DIR", help="a device's folder: what is installed there")
    models.add_argument(
        "--alias", action="append", default=[], metavar="ALIAS=NAME[@VERSION]", help="a second name; repeatable"
    )
    models.add_argument(
        "--max-memory", type=positive, metavar="MB", help="what all models together may take (no limit)"
    )
    models.add_argument(
        "--batch", type=whole, default=1, metavar="N", help="run up to N samples together (1: each alone)"
    )
    models.add_argument(
        "--batch-delay", type=number, default=0.0, metavar="MS", help="wait so long for more of them (0)"
    )
    models.add_argument(
        "--batch-preferred", type=wholes, default=(), metavar="N,N", help="sizes at which to wait no longer"
    )
    models.add_argument("--refuse-nan", action="store_true", help="refuse inputs with NaN or Infinity")

    where = one.add_argument_group("addresses")
    where.add_argument("--host", type=host, default="127.0.0.1", help="address to listen on (127.0.0.1)")
    where.add_argument("--port", type=port, default=8000, help="port to listen on (8000); 0 takes a free one")
    where.add_argument("--unix", type=Path, metavar="PATH", help="listen on this Unix socket as well")
    where.add_argument("--grpc-port", type=port, metavar="PORT", help="speak gRPC there; needs the extra [grpc]")
    where.add_argument("--admin", metavar="ADDRESS", help="load and unload there: HOST:PORT or unix:PATH (off)")
    where.add_argument("--admin-grpc", metavar="ADDRESS", help="the same by gRPC (off)")

    guard = one.add_argument_group("who may ask")
    guard.add_argument("--tokens", type=Path, metavar="FILE", help="ask for one of these (see edgekit-runtime token)")
    guard.add_argument("--tls-cert", type=Path, metavar="FILE", help="speak TLS with this certificate")
    guard.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    guard.add_argument("--tls-client-ca", type=Path, metavar="FILE", help="take only clients this CA has signed")

    _add_limits(one.add_argument_group("limits"))
    options_watch.add(one.add_argument_group("watching"))
    one.add_argument("--json", action="store_true", help="say where it listens as one line of JSON")


def _add_limits(limits: argparse._ArgumentGroup) -> None:
    held = Limits()
    for name, kind, default, unit, words in (
        ("--max-body", positive, held.body / MIB, "MIB", "largest request, packed or unpacked (64)"),
        ("--max-connections", whole, held.connections, "N", "connections at once; half from one address (1024)"),
        ("--queue", whole, held.queue, "N", "requests waiting for a model; others get 503 (128)"),
        ("--deadline", number, held.deadline, "S", "seconds an answer may take, else 504 (60; 0: any)"),
        ("--header-seconds", positive, held.header_seconds, "S", "seconds for a client to send a head (10)"),
        ("--body-seconds", positive, held.body_seconds, "S", "seconds for a client to send a body (30)"),
    ):
        limits.add_argument(name, type=kind, default=default, metavar=unit, help=words)


def policy(given: argparse.Namespace) -> "Policy":
    """How the models are run."""
    from edgekit_runtime.lane import LaneOptions
    from edgekit_runtime.service import Policy

    if given.device is None or given.repository is not None or given.bundle:
        _check_folders(given.bundle, given.repository)
    if given.device is not None and given.repository is not None:
        raise EdgeKitError("--device and --repository: both say what to serve", hint="leave one of them out")
    body, connections = int(given.max_body * MIB), given.max_connections
    held = Limits()
    limits = Limits(
        body=body,
        buffered=max(held.buffered, 2 * body),
        connections=connections,
        per_address=max(held.per_address, connections // 2),
        queue=given.queue,
        deadline=given.deadline,
        header_seconds=given.header_seconds,
        body_seconds=given.body_seconds,
    )
    lane = LaneOptions(given.queue, _batching(given), given.refuse_nan)
    return Policy(given.repository, given.max_memory, lane, limits)


def _check_folders(bundles: Sequence[Path], repository: Path | None) -> None:
    """Raise where there is nothing to serve, or a bundle and a folder of bundles are taken for each other."""
    from edgekit_runtime.bundle import is_bundle

    if not bundles and repository is None:
        raise EdgeKitError("nothing to serve", hint="name a bundle, or --repository DIR, or --device DIR")
    if repository is not None and not repository.is_dir():
        raise EdgeKitError(f"no folder {repository}", hint="name the folder in which your bundles lie")
    if repository is not None and is_bundle(repository):
        raise EdgeKitError(f"{repository} is a bundle, not a folder of bundles", hint=f"say serve {repository}")
    for folder in bundles:
        if not is_bundle(folder) and any(map(is_bundle, _inside(folder))):
            raise EdgeKitError(f"{folder} is a folder of bundles, not a bundle", hint=f"say --repository {folder}")


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # who opens it as a bundle says what it is instead
        return []


def _batching(given: argparse.Namespace) -> "Batching":
    from edgekit_runtime.lane import Batching

    if given.batch == 1 and (given.batch_delay or given.batch_preferred):
        wanted = "--batch-delay" if given.batch_delay else "--batch-preferred"
        raise EdgeKitError(f"{wanted} without --batch: nothing runs together", hint=f"say --batch 8 with {wanted}")
    if max(given.batch_preferred, default=1) > given.batch:
        raise EdgeKitError(
            f"--batch-preferred {max(given.batch_preferred)} is more than --batch {given.batch}",
            hint=f"say --batch {max(given.batch_preferred)}",
        )
    return Batching(given.batch, given.batch_delay / 1000, given.batch_preferred)


def aliases(given: argparse.Namespace) -> dict[str, tuple[str, str | None]]:
    """Other names of models."""
    from edgekit_runtime.manifest import PLAIN

    made: dict[str, tuple[str, str | None]] = {}
    for text in given.alias:
        alias, _, rest = text.partition("=")
        name, _, version = rest.partition("@")
        if not alias or not name:
            raise EdgeKitError(f"--alias {text} does not read", hint="write --alias prod=NAME or prod=NAME@VERSION")
        if not PLAIN.fullmatch(alias):
            raise EdgeKitError(f"{alias!r} cannot name a model", hint="use letters, digits, . _ -")
        if alias in made:
            raise EdgeKitError(f"--alias {alias} is given twice", hint="let it stand for one model")
        made[alias] = (name, version or None)
    return made


def where(given: argparse.Namespace) -> "Where":
    """The addresses."""
    from edgekit_runtime.addresses import Address, parse_address, unix_address
    from edgekit_runtime.serving import Where

    return Where(
        http=Address(given.host, given.port),
        unix=None if given.unix is None else unix_address(given.unix),
        grpc=None if given.grpc_port is None else Address(given.host, given.grpc_port),
        admin=None if given.admin is None else parse_address(given.admin),
        admin_grpc=None if given.admin_grpc is None else parse_address(given.admin_grpc),
    )


def guard(given: argparse.Namespace) -> "Guard":
    """Tokens and certificates."""
    from edgekit_runtime.serving import Guard
    from edgekit_runtime.tls import tls_files
    from edgekit_runtime.tokens import Tokens

    tls = tls_files(given.tls_cert, given.tls_key, given.tls_client_ca)
    return Guard(None if given.tokens is None else Tokens(given.tokens), tls)
