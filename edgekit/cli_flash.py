"""The commands that reach devices: `edgekit flash`, `status`, `logs`, `rollback` and `devices`.

Refuses to change a device that nobody agreed to: without a terminal, --yes has to be said."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from edgekit_runtime.errors import EdgeKitError, NotFound

if TYPE_CHECKING:
    from edgekit.flash.checks import Check
    from edgekit.flash.facts import Homes
    from edgekit.flash.flashing import Flashed, Order, Plan
    from edgekit.flash.line import Line
    from edgekit.flash.names import Device
    from edgekit.flash.typed import Typed

F = TypeVar("F", bound=Callable[..., Any])
MARKS = {"ok": "ok", "warning": "warning", "refusal": "REFUSED"}


def _there_options(command: F) -> F:
    for option in (
        click.option("--ssh-config", type=Path, metavar="FILE", help="Another ssh configuration than yours."),
        click.option("--device", metavar="DIR", help="The device's folder (/var/lib/edgekit)."),
        click.option("--prefix", metavar="DIR", help="Where runtimes lie there (/opt/edgekit)."),
        click.option("--user", is_flag=True, help="Without root: all of it below ~/.local/share/edgekit."),
        click.option("--json", "as_json", is_flag=True, help="The same facts for machines."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("bundle", type=Path)
@click.argument("where", metavar="ssh://[USER@]HOST[:PORT]|NAME|file://FOLDER|image:FILE")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Check and plan; change nothing there.")
@click.option("--probation", type=click.FloatRange(0), default=300.0, show_default=True, metavar="SECONDS")
@click.option("--roll-back-on-drift", is_flag=True, help="A drift alarm in probation has it go back too.")
@click.option("--again", is_flag=True, help="Even if the device went back from this version before.")
@click.option(
    "--shadow",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="First compare it with the live version on so many of the live requests.",
)
@click.option("--shadow-requests", type=click.IntRange(1, 1_000_000), metavar="N", help="Compare so many (500).")
@click.option("--shadow-seconds", type=click.FloatRange(0), metavar="SECONDS", help="Within this time (a day).")
@click.option("--agreement", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE", help="Alike for sure (0.98).")
@click.option("--slower", type=click.FloatRange(0, min_open=True), metavar="TIMES", help="At most so slow (1.2).")
@click.option("--downgrade", type=Path, metavar="FILE", help="A signed leave to install an older release.")
@click.option("--serve", metavar="WORDS", help="Options of `edgekit-runtime serve`, kept for later flashes.")
@click.option("--start", is_flag=True, help="Start the server where no systemd does.")
@click.option("--keys", type=Path, metavar="FOLDER", help="Where your keys lie.")
@click.option("--partition", type=int, metavar="N", help="Of an image with several roots: this one.")
@click.option("--in-place", is_flag=True, help="Write into the image itself, not into a copy that takes its place.")
@click.option("--python", multiple=True, metavar="3.11", help="Of a stick's devices; repeatable.")
@click.option("--no-deltas", is_flag=True, help="Send whole files even where the device has older ones like them.")
@click.option("--quiet", is_flag=True, help="No progress.")
@_there_options
def flash(bundle: Path, where: str, yes: bool, dry_run: bool, **rest: Any) -> None:
    """Put BUNDLE on a device: checked first, planned, then carried, tried there, and served.

    Over ssh, by your own configuration and known hosts. The runtime is installed where there is none: the device
    needs no network. The same again after a lost connection goes on where it stopped. image: and file: prepare a
    card, a mounted root or a stick; such a device installs at its next start.
    """
    from edgekit.flash.offline import is_offline
    from edgekit.flash.typed import Typed

    typed = Typed(bundle, where, **rest)
    (_offline if is_offline(where) else _over_ssh)(typed, yes, dry_run)


def _over_ssh(typed: Typed, yes: bool, dry_run: bool) -> None:
    from edgekit.flash import checks, flashing, telling
    from edgekit.flash.line import AGAIN
    from edgekit.flash.typed import order as order_of

    tell, as_json, where, order = _tell(typed.quiet), typed.as_json, typed.where, order_of(typed)
    flashing.manifest_of(order.bundle)  # before anybody is asked
    with _line(order.device, typed.ssh_config) as line:
        plan = flashing.prepare(line, order, tell)
        if not as_json:
            _show(plan, order)
        if refused := checks.refused(plan.checks):
            if as_json:
                click.echo(json.dumps(telling.to_json(plan)))
            raise EdgeKitError(f"{where} is not flashed: {refused[0].words}", hint=refused[0].hint)
        if dry_run or plan.nothing_to_do:
            if as_json:
                click.echo(json.dumps(telling.to_json(plan) | {"dry_run": dry_run}))
            return
        _agree(yes)
        try:
            done = flashing.carry_out(line, order, plan, tell)
        except KeyboardInterrupt:
            raise EdgeKitError(f"stopped; {where} may still be ending its last step", hint=AGAIN) from None
    if as_json:
        click.echo(json.dumps(telling.to_json(plan) | asdict(done), default=str))
        return
    click.echo(f"{done.name} {done.version} ({done.id}) {_outcome(done)} on {where}")
    if done.receipt:
        click.echo(f"receipt  {done.receipt}")
    if done.next:
        click.echo(f"start it there: {done.next}")


def _offline(typed: Typed, yes: bool, dry_run: bool) -> None:
    """The same for a card's image, a mounted root or a folder that is carried over."""
    from edgekit.flash import checks, offline, staging
    from edgekit.flash.typed import wishes

    tell, as_json = _tell(typed.quiet), typed.as_json
    prepared = offline.prepare(wishes(typed), tell)
    plan = prepared.plan
    if not as_json:
        _show_checks(plan.checks, staging.lines(plan))
    if dry_run or plan.done or checks.refused(plan.checks):
        if as_json:
            click.echo(json.dumps(staging.to_json(plan) | {"dry_run": dry_run}))
        if refused := checks.refused(plan.checks):
            raise EdgeKitError(f"{typed.where} is not flashed: {refused[0].words}", hint=refused[0].hint)
        return
    _agree(yes)
    done = offline.carry_out(prepared, tell)
    if as_json:
        click.echo(json.dumps(staging.to_json(plan) | asdict(done), default=str))
        return
    click.echo(f"{done.name} {done.version} ({done.id}) {done.outcome}: {plan.where}")
    if done.next:
        click.echo(done.next)


def _show_checks(found: Sequence[Check], lines: Sequence[str]) -> None:
    for check in found:
        click.echo(f"{MARKS[check.state]:<8} {check.name}: {check.words}")
        if check.hint and check.state != "ok":
            click.echo(f"{'':<8}   {check.hint}")
    if not any(check.state == "refusal" for check in found):
        click.echo("")
        for words in lines:
            click.echo(f"- {words}")


def _outcome(done: Flashed) -> str:
    words = {"serving": "is served", "live": "is live", "unchanged": "was there already"}
    words["shadowing"] = "is compared with the live version"
    return "is served" if done.served else words.get(done.outcome, done.outcome)


@click.command()
@click.argument("where", metavar="DEVICE")
@_there_options
def status(where: str, **rest: Any) -> None:
    """What DEVICE (an ssh:// address or a name) has installed, serves and trusts."""
    from edgekit.flash import remote
    from edgekit.flash.line import printable

    as_json = rest.pop("as_json")
    with _at(where, **rest) as (line, homes):
        if as_json:
            click.echo(json.dumps(remote.asked(line, homes, "status"), indent=1))
            return
        done = line.run(remote.command(homes, "status"))
        if done.status:
            remote.answered(line, done)
        for one in done.out.splitlines():
            click.echo(printable(one))


@click.command()
@click.argument("where", metavar="DEVICE")
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=50, show_default=True, metavar="N")
@click.option("-f", "--follow", is_flag=True, help="And what comes, until Ctrl-C.")
@_there_options
def logs(where: str, lines: int, follow: bool, as_json: bool, **rest: Any) -> None:
    """The last lines of the server's log on DEVICE."""
    from edgekit.flash import remote, running

    with _at(where, **rest) as (line, homes):
        script = running.log_script(homes, lines, follow, as_json)
        done = line.follow(script, _as_json if as_json else click.echo, seconds=7 * 86_400.0 if follow else 900.0)
        if done.status == remote.NO_RUNTIME:
            raise remote.no_runtime(line)
        if done.status:
            raise EdgeKitError(f"{line.where}: {done.last()}", hint=f"edgekit status {where}")


def _as_json(line: str) -> None:
    """A line of a log as the journal has it: a server without one writes plain lines."""
    try:
        told = isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        told = False
    click.echo(line if told else json.dumps({"MESSAGE": line}))


@click.command()
@click.argument("where", metavar="DEVICE")
@click.argument("model")
@click.option("--to", metavar="ID", help="This version; else the one before.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_there_options
def rollback(where: str, model: str, to: str | None, yes: bool, as_json: bool, **rest: Any) -> None:
    """Have DEVICE go back to the version of MODEL before the one that is live."""
    from edgekit.flash import remote

    with _at(where, **rest) as (line, homes):
        _agree(yes, f"have {where} go back with {model}?", "say --yes")
        words = ("rollback", model, *(("--to", to) if to else ()))
        done = remote.followed(line, homes, _tell(as_json), *words)
    click.echo(json.dumps(done) if as_json else f"{model} is {done.get('version')} ({done.get('id')}) again on {where}")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def devices(context: click.Context, as_json: bool) -> None:
    """Names for devices, and the key that each showed at its first flash."""
    from edgekit.flash import names

    if context.invoked_subcommand is not None:
        return
    found = names.listed(names.default_file())
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
        return
    for one in found:
        click.echo(f"{one.name:<20} {one.url:<40} {'key known' if one.key else 'not flashed yet'}")
    if not found:
        click.echo("no devices yet; edgekit devices add NAME ssh://user@host")


@devices.command("add")
@click.argument("name")
@click.argument("url", metavar="ssh://[USER@]HOST[:PORT]")
def devices_add(name: str, url: str) -> None:
    """Give the device at an address a NAME; one that has another address gets this one."""
    from edgekit.flash import names

    file = names.default_file()
    before = next((one for one in names.listed(file) if one.name == name), None)
    names.add(file, name, url)
    was = f"; it was {before.url}" if before is not None and before.url != url else ""
    forgotten = ", whose key is forgotten" if was and before is not None and before.key else ""
    click.echo(f"{name} is {url}{was}{forgotten}")


@devices.command("key")
@click.argument("where", metavar="DEVICE")
@_there_options
def devices_key(where: str, ssh_config: Path | None, as_json: bool, **homes: Any) -> None:
    """Print the public key of DEVICE, for `edgekit encrypt --for`: the one that it showed first, else asked for."""
    from edgekit_runtime.keypair import read_public

    from edgekit.flash import facts, names, typed

    device = names.find(names.default_file(), where)
    pem = None if device.key is None else device.key.encode()
    if pem is None:
        with _line(device, ssh_config) as line:
            pem = facts.asked(line, typed.homes(**homes)).key
    if pem is None:
        raise NotFound(
            f"{where} shows no key yet", hint=f"it makes one at its first flash: edgekit flash BUNDLE {where}"
        )
    key = read_public(pem)
    told = {"device": where, "fingerprint": key.fingerprint, "pem": key.pem.decode()}
    click.echo(json.dumps(told) if as_json else key.pem.decode(), nl=as_json)


@devices.command("trust")
@click.argument("where", metavar="DEVICE")
@click.option("--keys", "home", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the keys lie.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@_there_options
def devices_trust(
    where: str, home: Path | None, dry_run: bool, ssh_config: Path | None, as_json: bool, **homes: Any
) -> None:
    """Bring DEVICE what you trust and revoked, without a bundle."""
    from edgekit import keys
    from edgekit.flash import facts, flashing, names, typed

    with _line(names.find(names.default_file(), where), ssh_config) as line:
        found = facts.asked(line, typed.homes(**homes))
        will = flashing.bring_trust(line, found, home or keys.default_home(), dry_run)
    if as_json:
        serial = None if will.trust is None else will.trust.serial
        click.echo(
            json.dumps({"sent": 0 if dry_run else len(will.documents), "serial": serial, "words": will.check.words})
        )
        return
    click.echo(f"{where}: {will.check.words}{'; nothing was sent' if dry_run else ''}")


@devices.command("remove")
@click.argument("name")
def devices_remove(name: str) -> None:
    """Forget NAME, and the key that it showed."""
    from edgekit.flash import names

    names.remove(names.default_file(), name)
    click.echo(f"{name} is forgotten")


@devices.command("forget-key")
@click.argument("name")
def devices_forget_key(name: str) -> None:
    """Take another key from NAME at its next flash: it was set up anew."""
    from edgekit.flash import names

    file = names.default_file()
    names.remember(file, names.find(file, name), None)
    click.echo(f"the next key that {name} shows is kept")


@contextmanager
def _at(where: str, ssh_config: Path | None, **homes: Any) -> Iterator[tuple[Line, Homes]]:
    """A line to a device by whichever words make a command root's there, and where its things lie."""
    from edgekit.flash import facts, names, typed

    asked = typed.homes(**homes)
    with _line(names.find(names.default_file(), where), ssh_config) as line:
        found = facts.asked(line, asked)
        yield line.as_root(found.root or ()), found.homes


def _line(device: Device, ssh_config: Path | None) -> AbstractContextManager[Line]:
    from edgekit.flash.line import connected

    return connected(device.url, ssh_config)


def _show(plan: Plan, order: Order) -> None:
    from edgekit.flash import telling

    _show_checks(plan.checks, telling.lines(plan, order))


def _agree(yes: bool, question: str = "go on?", hint: str = "say --yes, or --dry-run to see the plan alone") -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise EdgeKitError("nobody is here to ask", hint=hint)
    click.confirm(question, abort=True)


def _tell(quiet: bool) -> Callable[[str], None]:
    """Progress, line by line on standard error."""
    return (lambda words: None) if quiet else (lambda words: click.echo(words, err=True))
