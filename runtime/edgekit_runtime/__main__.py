"""The command `edgekit-runtime`: run, serve, install, status, rollback, top, token, unit, inspect and more. Prints.

Refuses with `error:` and `hint:` on stderr and exit code 1; 2 is wrong usage."""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edgekit_runtime import __version__, option_words, options, options_store, options_watch, show
from edgekit_runtime.answer import top
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.engines import placement
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.inputs import read_inputs
from edgekit_runtime.manifest import to_json
from edgekit_runtime.muted import muted
from edgekit_runtime.printable import safe
from edgekit_runtime.selftest import selftest

if TYPE_CHECKING:
    from edgekit_runtime.logs import Form


def main(arguments: Sequence[str] | None = None, name: str = "edgekit-runtime") -> int:
    """Run the command line, by whose `name` it was called; gives the exit code."""
    given, rest = _parser(name).parse_known_args(arguments)
    if rest:
        _strange(given.usage, rest)
    given.words = list(sys.argv[1:] if arguments is None else arguments)[1:]
    warnings.simplefilter("ignore")  # libraries warn their developers, not this command's user
    verb: Callable[[argparse.Namespace], int] = given.verb
    try:
        code = verb(given)
        sys.stdout.flush()
        return code
    except EdgeKitError as error:
        sys.stderr.write(safe(f"error: {error.what}\n" + (f"hint: {error.hint}\n" if error.hint else "")))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left; Python would complain once more while it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run(given: argparse.Namespace) -> int:
    """Run a bundle on one input, or on each line of JSON that comes in."""
    bundle = open_bundle(given.bundle)
    if given.input is None:
        return _filter(bundle, given)
    specs = [port.spec for port in bundle.manifest.inputs]
    feeds = read_inputs(given.input, specs, bundle.preprocess())
    with muted():
        answer = bundle.open_model()(feeds)
    rows = top(answer, bundle.labels(), given.top)
    if given.json:
        return _say_json(show.answer_json(bundle, answer, rows), indent=None)
    return _say(show.best(rows) if rows else show.outputs(answer))


def serve(given: argparse.Namespace) -> int:
    """Serve bundles over HTTP and gRPC until interrupted."""
    from edgekit_runtime.service import open_service
    from edgekit_runtime.serving import inherited, serve, supervised
    from edgekit_runtime.unmade import unmade

    _log(given.log_format)
    options_watch.check(given)
    where, guard, policy = inherited(os.environ, options.where(given)), options.guard(given), options.policy(given)
    with ExitStack() as stack:
        slots = None
        if given.device is not None:
            from edgekit_runtime.slots import open_slots

            slots = open_slots(given.device)
            stack.callback(slots.close)
            policy = replace(policy, source=slots.source)
        with muted():
            service = open_service(given.bundle, options.aliases(given), policy)
        begun = stack.enter_context(unmade(given.state))
        watch = replace(options_watch.watch(given), slots=slots)
        serve(service, where, guard, supervised(os.environ), watch, begun(_say_at if given.json else _say_served))
    return 0


def on_device(given: argparse.Namespace) -> int:
    """Do something to a device's folder."""
    from edgekit_runtime.store_verbs import Edge, act

    def tell(line: str) -> None:
        sys.stderr.write(safe(line) + "\n")
        sys.stderr.flush()

    try:
        told = act(given, Edge(tell, sys.stdin.buffer))
    except EdgeKitError as error:
        if given.json:
            _say_json({"outcome": "refused", "reason": error.reason, "error": error.what, "hint": error.hint})
        raise
    _say_json(told.facts) if given.json else _say(told.words)
    return told.code


def token_new(given: argparse.Namespace) -> int:
    """Make a token, print it once and keep its hash."""
    from edgekit_runtime.tokens import add_token

    return _say(add_token(given.file, given.name, given.scope))


def token_list(given: argparse.Namespace) -> int:
    """Show whose tokens there are, and for what."""
    from edgekit_runtime.tokens import list_tokens

    return _say(list_tokens(given.file))


def token_revoke(given: argparse.Namespace) -> int:
    """Let a token in no more."""
    from edgekit_runtime.tokens import revoke_token

    revoke_token(given.file, given.name)
    return 0


def unit(given: argparse.Namespace) -> int:
    """Write a systemd unit that serves these bundles."""
    from edgekit_runtime import unit as asked
    from edgekit_runtime.unit_text import units

    options_watch.check(given)
    options.policy(given), options.aliases(given), options.where(given)  # or the unit would fail when it starts
    words = asked.typed(options.add, given.words)
    made = units(asked.understood(given, words, asked.installed_systemd()))
    if given.out:
        asked.write(made, given.out)
        return 0
    return _say("\n".join(f"# {name}\n{text}" for name, text in made.items()).rstrip("\n"))


def view(given: argparse.Namespace) -> int:
    """Show a running server in the terminal, as it works."""
    from edgekit_runtime import top as shown

    wanted = shown.wanted(given, os.environ, sys.stdout)
    try:
        for piece in shown.frames(wanted):
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        sys.stdout.write(shown.after(wanted))
        sys.stdout.flush()
    return 0


def prometheus(given: argparse.Namespace) -> int:
    """Write alert rules, a Grafana dashboard and an example configuration for Prometheus."""
    from edgekit_runtime.monitoring_files import write_monitoring_files

    return _say("\n".join(map(str, write_monitoring_files(given.out))))


def inspect(given: argparse.Namespace) -> int:
    """Show what is in a bundle, and who signed it."""
    from edgekit_runtime.signed_by import signer_here

    bundle = open_bundle(given.bundle)
    signed = signer_here(bundle, given.trust, given.device, time.time())
    if given.json:
        return _say_json({**to_json(bundle.manifest), "signed": signed.facts()})
    return _say("\n".join([show.page(bundle, signed.words), *_placed(bundle)]))


def _placed(bundle: Bundle) -> list[str]:
    """Where its operators run here; nothing for the CPU."""
    manifest = bundle.manifest
    try:
        found = placement(manifest.engine, bundle.place(manifest.entry), manifest.options)
    except EdgeKitError as error:
        return [f"{'runs on':<12}not here: {error.what}"]
    return [] if found is None else [f"{'runs on':<12}{found.text()}"]


def check(given: argparse.Namespace) -> int:
    """Replay the recorded inputs of a bundle; with --score have it take the exam that it brings."""
    bundle, exam = open_bundle(given.bundle), None
    with muted():
        run = bundle.open_model()
        result = selftest(bundle, run)
    if given.score:
        from edgekit_runtime.scored import score

        exam = score(bundle, run, _say_done, given.seconds)
    if given.json:
        worst = result.worst if result.worst != float("inf") else None
        told = {**asdict(result), "worst": worst, "passed": result.passed}
        _say_json({**told, "exam": None if exam is None else asdict(exam)} if given.score else told)
    else:
        _say("\n".join([show.verdict(result), *([] if exam is None else [exam.text()])]))
    return 0 if result.passed and (exam is None or exam.outcome != "missed") else 1


def detect(given: argparse.Namespace) -> int:
    """Print a target profile of this machine."""
    from edgekit_runtime.detect import detect, profile

    return _say(profile(detect()).rstrip("\n"))


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, description="Run EdgeKit bundles on this device.")
    parser.add_argument("--version", action="version", version=f"edgekit-runtime {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    one = _verb(verbs, "run", run)
    one.add_argument("bundle", type=Path, metavar="BUNDLE")
    one.add_argument(
        "--input",
        action="append",
        metavar="FILE",
        help="photo.jpg, sound.wav, text.txt, x.npy, x.npz or NAME=FILE; repeatable; without it: lines of JSON",
    )
    one.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    one.add_argument("--top", type=option_words.whole, default=5, metavar="N", help="how many labels to print (5)")

    one.add_argument("--strict", action="store_true", help="with lines of JSON: stop at the first that fails")

    from edgekit_runtime import top as shown
    from edgekit_runtime import unit as asked

    shown.add(_verb(verbs, "top", view))
    options.add(_verb(verbs, "serve", serve))
    one = _verb(verbs, "unit", unit)
    asked.add(one)
    options.add(one)
    _add_token(verbs)
    options_store.add(verbs, lambda verbs, name, words: _verb(verbs, name, on_device, words))

    for name, verb in (("inspect", inspect), ("selftest", check)):
        one = _verb(verbs, name, verb)
        one.add_argument("bundle", type=Path, metavar="BUNDLE")
        one.add_argument("--json", action="store_true", help="print it as JSON")
        if name == "inspect":
            one.add_argument("--trust", type=Path, metavar="FILE", help="whose signatures count, by this document")
            options_store.add_device(one)
    one.add_argument(
        "--score", action="store_true", help="score it here on the samples that it brings, as its build did"
    )
    one.add_argument(
        "--seconds", type=option_words.positive, default=120.0, metavar="S", help="at most so long with --score (120)"
    )
    one = _verb(verbs, "prometheus", prometheus)
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write them to")
    _verb(verbs, "detect", detect)
    return parser


def _add_token(verbs: Any) -> None:
    actions = verbs.add_parser("token", help="Make, list and revoke tokens.").add_subparsers(
        required=True, metavar="ACTION"
    )
    for name, verb in (("new", token_new), ("list", token_list), ("revoke", token_revoke)):
        one = _verb(actions, name, verb)
        if name != "list":
            one.add_argument("name", metavar="NAME", help="whose it is")
        if name == "new":
            scopes = ("infer", "metrics", "admin")
            one.add_argument("--scope", action="append", required=True, choices=scopes, help="repeatable")
        one.add_argument("--file", type=Path, required=True, help="where the hashes are kept")


def _verb(
    verbs: Any, name: str, verb: Callable[[argparse.Namespace], int], words: str | None = None
) -> argparse.ArgumentParser:
    words = words or verb.__doc__
    made: argparse.ArgumentParser = verbs.add_parser(name, help=words, description=words)
    made.set_defaults(verb=verb, usage=made)
    return made


def _strange(verb: argparse.ArgumentParser, rest: Sequence[str]) -> NoReturn:
    """Tell what the verb does not know, with its own usage and what may have been meant."""
    from difflib import get_close_matches

    known = [word for action in verb._actions for word in action.option_strings]
    near = get_close_matches(rest[0].partition("=")[0], known, 1) if rest[0].startswith("-") else []
    more = f"; did you mean {near[0]}?" if near else ""
    if not rest[0].startswith("-"):
        more = "; write --input before a file" if "--input" in known else "; write all bundles side by side"
    verb.error(f"unrecognized arguments: {' '.join(rest)}{more}")


def _log(form: "Form") -> None:
    """Our own log to a stderr of its own: it is to be seen while engines open their files, and theirs is muted."""
    from edgekit_runtime.logs import setup

    setup(form, os.fdopen(os.dup(2), "w", errors="backslashreplace"), os.environ.get("JOURNAL_STREAM", ""))


def _filter(bundle: Bundle, given: argparse.Namespace) -> int:
    from edgekit_runtime.filtering import Filter, run_filter

    if sys.stdin.isatty():
        sys.stderr.write("reading lines of JSON from the terminal, Ctrl-D ends; or give --input FILE (see --help)\n")

    def out(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return run_filter(bundle, sys.stdin.buffer, out, Filter(top=given.top, strict=given.strict))


def _say_done(done: int, of: int) -> None:
    sys.stderr.write(f"exam: {done:,} of {of:,} samples\n")
    sys.stderr.flush()


def _say_served(at: Mapping[str, Any]) -> None:
    served = ", ".join(at["models"]) or "no models yet"
    places = [f"{name} {at[name]}" for name in ("grpc", "admin", "admin_grpc") if at[name]]
    first = [at["http"], f"unix:{at['unix']}" if at["unix"] else None]
    _say(f"serving {served} at {', '.join([*filter(None, first), *places])} (stop with Ctrl-C)")
    sys.stdout.flush()


def _say_at(at: Mapping[str, Any]) -> None:
    _say_json(at, indent=None)
    sys.stdout.flush()


def _say(text: str) -> int:
    sys.stdout.write(safe(text) + "\n")
    return 0


def _say_json(value: object, indent: int | None = 2) -> int:
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
