"""The service on a device: its user, its folder, its unit where systemd runs; else the command that starts it.

Refuses nothing itself; a service that does not come up is told with where to look."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any

from edgekit_runtime.errors import EdgeKitError

from edgekit.flash import remote
from edgekit.flash.facts import Facts, Homes
from edgekit.flash.line import AGAIN, Line

ACCOUNT = """
id -u edgekit >/dev/null 2>&1 && exit 0
if command -v systemd-sysusers >/dev/null 2>&1; then
  printf 'u edgekit - "EdgeKit runtime" {device} /usr/sbin/nologin\\n' | systemd-sysusers - && exit 0
fi
if command -v useradd >/dev/null 2>&1; then
  useradd --system --user-group --home-dir {device} --no-create-home --shell /usr/sbin/nologin edgekit && exit 0
fi
adduser -S -D -H -h {device} edgekit 2>/dev/null || \\
  adduser --system --group --no-create-home --home {device} --disabled-login edgekit
"""
FOLDER = """umask 022
[ -d {device} ] || mkdir -p {device} || exit 1
if [ {account} = yes ] && [ "$(stat -c %U {device})" = root ]; then
  chown -R edgekit:edgekit {device} && chmod 0750 {device}
fi
"""
UNIT = """d=$(mktemp -d) || exit 1
trap 'rm -rf "$d"' EXIT
{unit} --out "$d" >/dev/null || exit 1
mkdir -p {units} || exit 1
cmp -s "$d/{name}.service" {units}/{name}.service && exit 0
cp "$d/{name}.service" {units}/.{name}.service.new && chmod 0644 {units}/.{name}.service.new || exit 1
mv {units}/.{name}.service.new {units}/{name}.service || exit 1
sync
{systemctl} daemon-reload || exit 1
echo changed
"""
LOG = "serve.log"


def has_account(homes: Homes) -> bool:
    """Whether the device folder is to belong to a user of its own: only the usual one, made by us, does."""
    return homes.usual and not homes.own


def prepare(line: Line, facts: Facts) -> None:
    """The user and the folder. Both may be there."""
    homes = facts.homes
    device = shlex.quote(homes.device)
    if has_account(homes):
        _do(line, ACCOUNT.format(device=device), "has no user for the service")
    account = "yes" if has_account(homes) else "no"
    _do(line, FOLDER.format(device=device, account=account), f"has no folder {homes.device}")


def keep_words(line: Line, homes: Homes, words: Sequence[str]) -> None:
    """Remember what the server is started with, for the next flash."""
    place = shlex.quote(f"{homes.prefix}/serve.json")
    text = shlex.quote(json.dumps(list(words)))
    _do(line, f"printf '%s\\n' {text} >{place}.new && mv {place}.new {place}", "does not keep a file")


def start_command(homes: Homes, words: Sequence[str]) -> str:
    """What starts the server by hand."""
    return f"{remote.command(homes, 'serve')}{''.join(f' {shlex.quote(word)}' for word in words)}"


def supervised(facts: Facts) -> bool:
    """Whether systemd can look after the service: not in folders of somebody's choice."""
    return facts.systemd is not None and facts.homes.usual


def enable(line: Line, facts: Facts, words: Sequence[str], restart: bool) -> str:
    """Have systemd start the service now and at each boot; again where its unit or its runtime (`restart`) changed."""
    homes = facts.homes
    own = ["--user"] if homes.own else []
    systemctl = "systemctl --user" if homes.own else "systemctl"
    units = '"$HOME/.config/systemd/user"' if homes.own else "/etc/systemd/system"
    unit = f"{remote.command(homes, 'unit', *own)}{''.join(f' {shlex.quote(word)}' for word in words)}"
    script = UNIT.format(unit=unit, units=units, systemctl=systemctl, name="edgekit")
    changed = "changed" in _do(line, script, "does not take the unit")
    again = "restart" if restart or changed else "start"
    _do(line, f"{systemctl} enable --quiet edgekit && {systemctl} {again} edgekit", "does not start the service")
    return f"systemd {'restarted' if again == 'restart' else 'runs'} edgekit.service"


def start(line: Line, facts: Facts, words: Sequence[str]) -> str:
    """Start the server without a supervisor, detached from us."""
    homes = facts.homes
    log = shlex.quote(f"{homes.device}/{LOG}")
    detached = "setsid nohup" if {"setsid", "nohup"} <= facts.tools else "nohup"
    _do(line, f"{detached} {start_command(homes, words)} </dev/null >>{log} 2>&1 &", "does not start the server")
    return f"started; its log is {homes.device}/{LOG}"


def awaited(line: Line, facts: Facts, name: str, id: str, tell: Callable[[str], None], seconds: float = 240.0) -> bool:
    """Whether the server serves this version within so many seconds; what it says meanwhile that matters is told."""
    end, told = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        status = remote.asked(line, facts.homes, "status")
        model = model_of(status, name)
        if model is not None and model.get("served") == id:
            return True
        if model is not None and live_of(model) != id:
            raise EdgeKitError(
                f"{line.where} went back to another version of {name}", hint=f"edgekit logs ssh://{line.where}"
            )
        server = status.get("server") if isinstance(status, dict) else None
        words = "the server runs, and loads the model" if server else "waiting for the server"
        if words != told:
            tell(words)
            told = words
        time.sleep(1)
    return False


def model_of(status: Any, name: str) -> dict[str, Any] | None:
    """What a status says of one model."""
    models = status.get("models") if isinstance(status, dict) else None
    found = [one for one in models if isinstance(one, dict)] if isinstance(models, list) else []
    return next((one for one in found if one.get("name") == name), None)


def live_of(model: dict[str, Any] | None, which: str = "live") -> str | None:
    """The id of a model's live (or previous) version."""
    one = model.get(which) if model else None
    id = one.get("id") if isinstance(one, dict) else None
    return id if isinstance(id, str) else None


def _do(line: Line, script: str, wrong: str) -> str:
    done = line.run(script)
    if done.status:
        raise EdgeKitError(f"{line.where} {wrong}: {done.last()}", hint=AGAIN)
    return done.out.decode(errors="replace")


def log_script(homes: Homes, count: int, follow: bool, as_json: bool) -> str:
    """What shows the last lines of the server's log: of the journal, else of the file beside the device's store."""
    log = shlex.quote(f"{homes.device}/{LOG}")
    own = " --user" if homes.own else ""
    journal = (
        f"journalctl{own} -u edgekit -n {count} --no-pager{' -o json' if as_json else ''}{' -f' if follow else ''}"
    )
    tail = f"tail -n {count}{' -f' if follow else ''} {log}"
    active = f"systemctl{own} is-active -q edgekit 2>/dev/null"
    nothing = f"[ -e {shlex.quote(f'{homes.prefix}/current')} ] || [ -f {log} ] || exit {remote.NO_RUNTIME}"
    return f"{nothing}; if [ -f {log} ] && ! {active}; then exec {tail}; else exec {journal}; fi"
