"""The commands that reach devices: `edgekit flash`, `status`, `logs`, `rollback` and `devices`.

Refuses to change a device that nobody agreed to: without a terminal, --yes has to be said."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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

F = TypeVar("F", bound=Callable[..., Any])
MARKS = {"ok": "ok", "warning": "warning", "refusal": "REFUSED"}


def _there_options(command: F) -> F:
    for option in (
        click.option("--ssh-config", "config", type=Path, metavar="FILE", help="Another ssh configuration than yours."),
        click.option("--device", metavar="DIR", help="The device's folder (/var/lib/edgekit)."),
        click.option("--prefix", metavar="DIR", help="Where runtimes lie there (/opt/edgekit)."),
        click.option("--user", "own", is_flag=True, help="Without root: all of it below ~/.local/share/edgekit."),
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
@click.option("--agreement", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE", help="Alike for sure (0.98).")
@click.option("--slower", type=click.FloatRange(0, min_open=True), metavar="TIMES", help="At most so slow (1.2).")
@click.option("--downgrade", type=Path, metavar="FILE", help="A signed leave to install an older release.")
@click.option("--serve", "words", metavar="WORDS", help="Options of `edgekit-runtime serve`, kept for later flashes.")
@click.option("--start", is_flag=True, help="Start the server where no systemd does.")
@click.option("--keys", "home", type=Path, metavar="FOLDER", help="Where your keys lie.")
@click.option("--partition", type=int, metavar="N", help="Of an image with several roots: this one.")
@click.option("--in-place", is_flag=True, help="Write into the image itself, not into a copy that takes its place.")
@click.option("--python", "pythons", multiple=True, metavar="3.11", help="Of a stick's devices; repeatable.")
@click.option("--no-deltas", is_flag=True, help="Send whole files even where the device has older ones like them.")
@click.option("--quiet", is_flag=True, help="No progress.")
@_there_options
def flash(bundle: Path, where: str, yes: bool, dry_run: bool, **rest: Any) -> None:
    """Put BUNDLE on a device: checked first, planned, then carried, tried there, and served.

    Over ssh, by your own configuration and known hosts. The runtime is installed where there is none: the device
    needs no network. The same again after a lost connection goes on where it stopped. image: and file: prepare a
    card, a mounted root or a stick; such a device installs at its next start.
    """
    from edgekit.flash import checks, flashing, telling
    from edgekit.flash.offline import is_offline

    local = {name: rest.pop(name) for name in ("partition", "in_place", "pythons")}
    if is_offline(where):
        _offline(bundle, where, yes, dry_run, {**rest, **local})
        return
    if said := [name for name, value in local.items() if value]:
        raise EdgeKitError(f"--{said[0].replace('_', '-')} is for image: and file: alone", hint="leave it out")
    config, as_json, tell = rest.pop("config"), rest["as_json"], _tell(rest["quiet"])
    beside = {name: rest.pop(name) for name in ("shadow", "shadow_requests", "agreement", "slower")}
    order = _order(bundle, where, **rest, shadowed=_shadow(beside))
    with _line(order.device, config) as line:
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
        done = flashing.carry_out(line, order, plan, tell)
    if as_json:
        click.echo(json.dumps(telling.to_json(plan) | asdict(done), default=str))
        return
    click.echo(f"{done.name} {done.version} ({done.id}) {_outcome(done)} on {where}")
    if done.receipt:
        click.echo(f"receipt  {done.receipt}")
    if done.next:
        click.echo(f"start it there: {done.next}")


def _offline(bundle: Path, where: str, yes: bool, dry_run: bool, rest: dict[str, Any]) -> None:
    """The same for a card's image, a mounted root or a folder that is carried over."""
    from edgekit import keys
    from edgekit.flash import checks, offline

    meant = ("home", "quiet", "as_json", "probation", "partition", "in_place", "pythons")
    if said := [name for name, value in rest.items() if value and name not in meant]:
        option = {"own": "user", "words": "serve", "config": "ssh-config"}.get(said[0], said[0].replace("_", "-"))
        raise EdgeKitError(f"--{option} says nothing to a device at rest", hint="leave it out, or flash over ssh://")
    more = {"pythons": rest["pythons"]} if rest["pythons"] else {}
    wishes = offline.Wishes(
        bundle, where, rest["home"] or keys.default_home(), rest["partition"], rest["in_place"],
        probation=rest["probation"], **more,
    )  # fmt: skip
    tell, as_json = _tell(rest["quiet"]), rest["as_json"]
    prepared = offline.prepare(wishes, tell)
    plan = prepared.plan
    if not as_json:
        _show_checks(plan.checks, offline.lines(plan))
    if dry_run or plan.done or checks.refused(plan.checks):
        if as_json:
            click.echo(json.dumps(offline.to_json(plan) | {"dry_run": dry_run}))
        if refused := checks.refused(plan.checks):
            raise EdgeKitError(f"{where} is not flashed: {refused[0].words}", hint=refused[0].hint)
        return
    _agree(yes)
    done = offline.carry_out(prepared, tell)
    if as_json:
        click.echo(json.dumps(offline.to_json(plan) | asdict(done), default=str))
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
    from edgekit.flash import running

    with _at(where, **rest) as (line, homes):
        script = running.log_script(homes, lines, follow, as_json)
        done = line.follow(script, click.echo, seconds=7 * 86_400.0 if follow else 900.0)
        if done.status:
            raise EdgeKitError(f"{line.where}: {done.last()}", hint="see `edgekit status`")


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
        _agree(yes, f"have {where} go back with {model}?")
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
    """Call the device at URL NAME."""
    from edgekit.flash import names

    click.echo(f"{names.add(names.default_file(), name, url).name} is {url}")


@devices.command("key")
@click.argument("where", metavar="DEVICE")
@_there_options
def devices_key(where: str, config: Path | None, as_json: bool, **homes: Any) -> None:
    """Print the public key of DEVICE, for `edgekit encrypt --for`: the one that it showed first, else asked for."""
    from edgekit_runtime.keypair import read_public

    from edgekit.flash import facts, names

    device = names.find(names.default_file(), where)
    pem = None if device.key is None else device.key.encode()
    if pem is None:
        with _line(device, config) as line:
            pem = facts.asked(line, _homes(**homes)).key
    if pem is None:
        raise NotFound(
            f"{where} shows no key yet", hint=f"it makes one at its first flash: edgekit flash BUNDLE {where}"
        )
    key = read_public(pem)
    told = {"device": where, "fingerprint": key.fingerprint, "pem": key.pem.decode()}
    click.echo(json.dumps(told) if as_json else key.pem.decode(), nl=as_json)


@devices.command("remove")
@click.argument("name")
def devices_remove(name: str) -> None:
    """Forget NAME, and the key that it showed."""
    from edgekit.flash import names

    names.remove(names.default_file(), name)


@devices.command("forget-key")
@click.argument("name")
def devices_forget_key(name: str) -> None:
    """Take another key from NAME at its next flash: it was set up anew."""
    from edgekit.flash import names

    file = names.default_file()
    names.remember(file, names.find(file, name), None)


def _order(
    bundle: Path, where: str, *, probation: float, roll_back_on_drift: bool, again: bool, downgrade: Path | None,
    words: str | None, start: bool, home: Path | None, no_deltas: bool, quiet: bool, as_json: bool,
    shadowed: tuple[str, ...], **homes: Any,
) -> Order:  # fmt: skip
    """What was typed, as one value."""
    from edgekit import keys
    from edgekit.cache import user_cache
    from edgekit.flash import names, receipts
    from edgekit.flash.bundles import Terms
    from edgekit.flash.differing import Kept
    from edgekit.flash.flashing import Order
    from edgekit.oci.blobs import user_blobs

    try:
        leave = downgrade.read_bytes() if downgrade else None
    except OSError as error:
        raise EdgeKitError(f"{downgrade} does not read: {error.strerror}", hint="name the signed leave") from error
    file = names.default_file()
    return Order(
        bundle,
        names.find(file, where),
        _homes(**homes),
        Terms(probation, again, roll_back_on_drift, leave, shadowed),
        None if words is None else tuple(shlex.split(words)),
        start,
        home or keys.default_home(),
        file,
        receipts.default_folder(),
        None if no_deltas else Kept(user_blobs(), user_cache()),
    )


def _shadow(said: Mapping[str, float | None]) -> tuple[str, ...]:
    """The words of `edgekit-runtime install` that have a version compared first."""
    found = {name.replace("_", "-"): value for name, value in said.items() if value is not None}
    if found and "shadow" not in found:
        raise EdgeKitError(f"--{next(iter(found))} says nothing without --shadow", hint="say --shadow 0.1 too")
    return tuple(word for name, value in found.items() for word in (f"--{name}", f"{value:.10g}"))


def _homes(device: str | None, prefix: str | None, own: bool) -> Homes:
    from edgekit.flash.facts import Homes

    for folder in (device, prefix):
        if folder is not None and (not os.path.isabs(folder) or not folder.isprintable()):
            raise EdgeKitError(f"{folder!r} is no folder of the device", hint="write it from / on")
    usual = Homes("", "", True) if own else Homes()
    return Homes(prefix or usual.prefix, device or usual.device, own, device is None and prefix is None)


@contextmanager
def _at(where: str, config: Path | None, **homes: Any) -> Iterator[tuple[Line, Homes]]:
    """A line to a device by whichever words make a command root's there, and where its things lie."""
    from edgekit.flash import facts, names

    with _line(names.find(names.default_file(), where), config) as line:
        found = facts.asked(line, _homes(**homes))
        yield line.as_root(found.root or ()), found.homes


def _line(device: Device, config: Path | None) -> AbstractContextManager[Line]:
    from edgekit.flash.line import connected

    return connected(device.url, config)


def _show(plan: Plan, order: Order) -> None:
    from edgekit.flash import telling

    _show_checks(plan.checks, telling.lines(plan, order))


def _agree(yes: bool, question: str = "go on?") -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise EdgeKitError("nobody is here to ask", hint="say --yes, or --dry-run to see the plan alone")
    click.confirm(question, abort=True)


def _tell(quiet: bool) -> Callable[[str], None]:
    """Progress, line by line on standard error."""
    return (lambda words: None) if quiet else (lambda words: click.echo(words, err=True))
