"""The options of `edgekit-runtime serve`, from words to values.

Refuses words that are none, folders of the wrong kind, and an option without the one that it needs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.limits import MIB, Limits

if TYPE_CHECKING:
    from edgekit_runtime.lane import Batching
    from edgekit_runtime.service import Policy
    from edgekit_runtime.serving import Guard, Where
    from edgekit_runtime.watching import Watch


def add(one: argparse.ArgumentParser) -> None:
    """Declare the options."""
    models = one.add_argument_group("models")
    models.add_argument("bundle", type=Path, nargs="*", metavar="BUNDLE", help="a folder that `edgekit build` made")
    models.add_argument("--repository", type=Path, metavar="DIR", help="a folder of bundles: the newest of each name")
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
    _add_watching(one.add_argument_group("watching"))
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


def _add_watching(watch: argparse._ArgumentGroup) -> None:
    watch.add_argument("--no-page", action="store_true", help="show no page at /")
    watch.add_argument("--no-drift", action="store_true", help="do not compare requests with the build's samples")
    watch.add_argument(
        "--drift-rate", type=positive, default=0.01, metavar="N", help="false alarms a day and model (0.01)"
    )
    watch.add_argument(
        "--drift-samples", type=positive, metavar="N", help="look at N a second at most, where they follow each other"
    )
    watch.add_argument("--on-drift", metavar="COMMAND", help="run this when drift begins or ends; facts on its stdin")
    watch.add_argument("--feedback", action="store_true", help="take true labels later: POST /feedback")
    watch.add_argument(
        "--shadow", type=share, default=0.0, metavar="SHARE", help="of the requests, asked of the float model too (0)"
    )
    watch.add_argument("--state", type=Path, metavar="DIR", help="keep telemetry, samples and feedback there")
    watch.add_argument("--keep-samples", type=positive, metavar="MB", help="keep telling inputs in --state (off)")
    watch.add_argument("--telemetry-mb", type=positive, default=64.0, metavar="MB", help="its ring in --state (64)")
    watch.add_argument("--otlp", metavar="URL", help="send telemetry to this OpenTelemetry collector")
    watch.add_argument("--remote-write", metavar="URL", help="send it to this Prometheus")
    watch.add_argument("--send-headers", type=Path, metavar="FILE", help="Name: value, a line each, sent with both")
    watch.add_argument("--traces", type=share, metavar="SHARE", help="of the requests, traced to --otlp")
    watch.add_argument("--triton-metrics", action="store_true", help="tell metrics by Triton's names too")
    watch.add_argument("--log-format", choices=("text", "ecs"), default="text", help="ecs: a line of JSON each")


def policy(given: argparse.Namespace) -> "Policy":
    """How the models are run."""
    from edgekit_runtime.lane import LaneOptions
    from edgekit_runtime.service import Policy

    _check_folders(given.bundle, given.repository)
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
        raise EdgeKitError("nothing to serve", hint="name a bundle, or --repository DIR")
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


def watch(given: argparse.Namespace) -> "Watch":
    """What the server watches and tells of itself; opens what is kept on disk."""
    from edgekit_runtime.monitor import Wishes
    from edgekit_runtime.watching import Watch

    _check_watch(given)
    samples = feedback = telemetry = tracer = hook = None
    if given.keep_samples:
        from edgekit_runtime.samples import Samples

        samples = Samples(given.state / "samples", int(given.keep_samples * MIB))
    if given.feedback:
        from edgekit_runtime.feedback import Feedback

        feedback = Feedback()
    if given.on_drift:
        from edgekit_runtime.hook import Hook

        hook = Hook(given.on_drift)
    if given.traces is not None:
        from edgekit_runtime.traces import Tracer

        tracer = Tracer(given.otlp, given.traces)
    if given.state is not None:
        from edgekit_runtime.telemetering import Telemetry, Wanted

        size = int(given.telemetry_mb * MIB)
        telemetry = Telemetry(Wanted(given.state, size, given.otlp, given.remote_write, given.send_headers))
    wishes = Wishes(not given.no_drift, given.drift_rate, given.drift_samples, given.shadow, samples, feedback)
    return Watch(not given.no_page, given.triton_metrics, wishes, given.state, telemetry, tracer, hook)


def _check_watch(given: argparse.Namespace) -> None:
    """Raise where an option needs another one."""
    for option, needs in (("keep_samples", "state"), ("otlp", "state"), ("remote_write", "state"), ("traces", "otlp")):
        if getattr(given, option) is not None and getattr(given, needs) is None:
            words, wanted = (f"--{name.replace('_', '-')}" for name in (option, needs))
            said = "DIR: what is kept, or not sent yet, lies there" if needs == "state" else "URL"
            raise EdgeKitError(f"{words} without {wanted}", hint=f"say {wanted} {said}")


def whole(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def wholes(text: str) -> tuple[int, ...]:
    """Some of them."""
    try:
        return tuple(whole(item) for item in text.split(","))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} does not read: write whole numbers, like 4,8") from error


def port(text: str) -> int:
    """A port, 0 for a free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: write a number from 0 to 65535")
    return int(text)


def host(text: str) -> str:
    """A name or an IP address; an IPv6 address may stand in brackets."""
    import ipaddress

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if not text or ":" in text or "/" in text or "[" in text:
            raise argparse.ArgumentTypeError(f"{text!r} is not a host: write --host 0.0.0.0 --port 8000") from None
        return text


def number(text: str) -> float:
    """A number of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more: write it without a unit")
    return value


def share(text: str) -> float:
    """A part of a whole, from 0 to 1."""
    value = number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share: write a number from 0 to 1")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = number(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
