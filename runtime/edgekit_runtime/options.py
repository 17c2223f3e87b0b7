"""The options of `edgekit-runtime serve`, from words to values.

Refuses words that are none, and options that need each other."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.limits import MIB, Limits

if TYPE_CHECKING:
    from edgekit_runtime.service import Policy
    from edgekit_runtime.serving import Guard, Where


def add(one: argparse.ArgumentParser) -> None:
    """Declare the options."""
    models = one.add_argument_group("models")
    models.add_argument("bundle", type=Path, nargs="*", metavar="BUNDLE")
    models.add_argument("--repository", type=Path, metavar="DIR", help="serve the newest bundle of each name in DIR")
    models.add_argument(
        "--alias", action="append", default=[], metavar="ALIAS=NAME[@VERSION]", help="another name; repeatable"
    )
    models.add_argument("--max-memory", type=positive, metavar="MB", help="what all models may take together")
    models.add_argument("--batch", type=whole, default=1, metavar="N", help="run up to N waiting samples together (1)")
    models.add_argument("--batch-delay", type=number, default=0.0, metavar="MS", help="wait for more this long (0)")
    models.add_argument("--batch-preferred", type=wholes, default=(), metavar="N,N", help="sizes not waited beyond")
    models.add_argument("--refuse-nan", action="store_true", help="refuse inputs with NaN or Infinity")

    where = one.add_argument_group("addresses")
    where.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    where.add_argument("--port", type=port, default=8000, help="port to listen on (8000); 0 takes a free one")
    where.add_argument("--unix", type=Path, metavar="PATH", help="a Unix socket to listen on as well")
    where.add_argument("--grpc-port", type=port, metavar="PORT", help="speak gRPC there; needs the extra [grpc]")
    where.add_argument("--admin", metavar="ADDRESS", help="load and unload there: HOST:PORT or unix:PATH (off)")
    where.add_argument("--admin-grpc", metavar="ADDRESS", help="the same by gRPC (off)")

    guard = one.add_argument_group("who may ask")
    guard.add_argument("--tokens", type=Path, metavar="FILE", help="ask for a token (see edgekit-runtime token)")
    guard.add_argument("--tls-cert", type=Path, metavar="FILE", help="speak TLS with this certificate")
    guard.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    guard.add_argument("--tls-client-ca", type=Path, metavar="FILE", help="take only clients this CA has signed")

    held = Limits()
    limits = one.add_argument_group("limits")
    for name, kind, default, unit, words in (
        ("--max-body", positive, held.body / MIB, "MB", "largest request in MiB (64)"),
        ("--max-connections", whole, held.connections, "N", "clients at once (1024)"),
        ("--queue", whole, held.queue, "N", "requests waiting for a model (128)"),
        ("--deadline", number, held.deadline, "S", "longest answer (60; 0: any)"),
        ("--header-seconds", positive, held.header_seconds, "S", "for a client to send a head (10)"),
        ("--body-seconds", positive, held.body_seconds, "S", "for a client to send a body (30)"),
    ):
        limits.add_argument(name, type=kind, default=default, metavar=unit, help=words)
    one.add_argument("--json", action="store_true", help="say where it listens as one line of JSON")


def policy(given: argparse.Namespace) -> "Policy":
    """How the models are run."""
    from edgekit_runtime.lane import Batching, LaneOptions
    from edgekit_runtime.service import Policy

    if given.repository is not None and not given.repository.is_dir():
        raise EdgeKitError(f"no folder {given.repository}", hint="name the folder in which your bundles lie")
    if not given.bundle and given.repository is None:
        raise EdgeKitError("nothing to serve", hint="name a bundle, or --repository DIR")
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
    batching = Batching(given.batch, given.batch_delay / 1000, given.batch_preferred)
    return Policy(given.repository, given.max_memory, LaneOptions(given.queue, batching, given.refuse_nan), limits)


def aliases(given: argparse.Namespace) -> dict[str, tuple[str, str | None]]:
    """Other names of models."""
    made: dict[str, tuple[str, str | None]] = {}
    for text in given.alias:
        alias, _, rest = text.partition("=")
        name, _, version = rest.partition("@")
        if not alias or not name:
            raise EdgeKitError(f"--alias {text} does not read", hint="write --alias prod=NAME or prod=NAME@VERSION")
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


def whole(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def wholes(text: str) -> tuple[int, ...]:
    """Some of them."""
    return tuple(whole(item) for item in text.split(","))


def port(text: str) -> int:
    """A port, 0 for a free one."""
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def number(text: str) -> float:
    """A number of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = number(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
