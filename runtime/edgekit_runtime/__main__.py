"""The command `edgekit-runtime`: run, serve, inspect, selftest, detect. The one place here that prints and exits.

Refuses with `error:` and `hint:` on stderr and exit code 1; 2 is wrong usage."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit_runtime import __version__, show
from edgekit_runtime.answer import top
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.inputs import read_inputs
from edgekit_runtime.manifest import to_json
from edgekit_runtime.muted import muted
from edgekit_runtime.selftest import selftest

MB = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    given = _parser().parse_args(arguments)
    warnings.simplefilter("ignore")  # libraries warn their developers, not this command's user
    verb: Callable[[argparse.Namespace], int] = given.verb
    try:
        code = verb(given)
        sys.stdout.flush()
        return code
    except EdgeKitError as error:
        sys.stderr.write(show.safe(f"error: {error.what}\n" + (f"hint: {error.hint}\n" if error.hint else "")))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left; Python would complain once more while it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run(given: argparse.Namespace) -> int:
    """Run a bundle on one input."""
    bundle = open_bundle(given.bundle)
    specs = [port.spec for port in bundle.manifest.inputs]
    feeds = read_inputs(given.input, specs, bundle.preprocess())
    with muted():
        answer = bundle.open_model()(feeds)
    rows = top(answer, bundle.labels(), given.top)
    if given.json:
        return _say_json(show.answer_json(bundle, answer, rows), indent=None)
    return _say(show.best(rows) if rows else show.outputs(answer))


def serve(given: argparse.Namespace) -> int:
    """Serve bundles over HTTP until interrupted."""
    from edgekit_runtime.http import Limits, serve
    from edgekit_runtime.service import open_service

    with muted():
        service = open_service(given.bundle)
    limits = Limits(body=int(given.max_body * MB))
    serve(service, given.host, given.port, limits, lambda at: _tell_served(service.names(), at))
    return 0


def inspect(given: argparse.Namespace) -> int:
    """Show what is in a bundle."""
    bundle = open_bundle(given.bundle)
    return _say_json(to_json(bundle.manifest)) if given.json else _say(show.page(bundle))


def check(given: argparse.Namespace) -> int:
    """Replay the recorded inputs of a bundle."""
    bundle = open_bundle(given.bundle)
    with muted():
        result = selftest(bundle)
    if given.json:
        worst = result.worst if result.worst != float("inf") else None
        _say_json({**asdict(result), "worst": worst, "passed": result.passed})
    else:
        _say(show.verdict(result))
    return 0 if result.passed else 1


def detect(given: argparse.Namespace) -> int:
    """Print a target profile of this machine."""
    from edgekit_runtime.detect import detect, profile

    return _say(profile(detect()).rstrip("\n"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgekit-runtime", description="Run EdgeKit bundles on this device.")
    parser.add_argument("--version", action="version", version=f"edgekit-runtime {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    one = _verb(verbs, "run", run)
    one.add_argument("bundle", type=Path, metavar="BUNDLE")
    one.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="FILE",
        help="photo.jpg, x.npy, x.npz or NAME=x.npy; repeatable",
    )
    one.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    one.add_argument("--top", type=_whole, default=5, metavar="N", help="how many labels to print (5)")

    one = _verb(verbs, "serve", serve)
    one.add_argument("bundle", type=Path, nargs="+", metavar="BUNDLE")
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    one.add_argument("--port", type=_port, default=8000, help="port to listen on (8000); 0 takes a free one")
    one.add_argument("--max-body", type=_positive, default=64, metavar="MB", help="largest request in MiB (64)")

    for name, verb in (("inspect", inspect), ("selftest", check)):
        one = _verb(verbs, name, verb)
        one.add_argument("bundle", type=Path, metavar="BUNDLE")
        one.add_argument("--json", action="store_true", help="print it as JSON")
    _verb(verbs, "detect", detect)
    return parser


def _verb(verbs: Any, name: str, verb: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__)
    made.set_defaults(verb=verb)
    return made


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in MiB")
    return value


def _tell_served(names: Sequence[str], at: str) -> None:
    _say(f"serving {', '.join(names)} at {at} (stop with Ctrl-C)")
    sys.stdout.flush()


def _say(text: str) -> int:
    sys.stdout.write(show.safe(text) + "\n")
    return 0


def _say_json(value: object, indent: int | None = 2) -> int:
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
