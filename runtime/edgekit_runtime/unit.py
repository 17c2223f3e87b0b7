"""From the words of `edgekit-runtime unit` to what its systemd units are to say.

Refuses a bundle that is not whole, or that the service's own user could not read."""

import argparse
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgekit_runtime.addresses import Address, parse_address, require_token, resolve, unix_address
from edgekit_runtime.bundle import is_bundle, open_bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.limits import MIB, Limits
from edgekit_runtime.unit_text import Unit, hidden

SECRETS = ("tokens", "tls_cert", "tls_key", "tls_client_ca", "send_headers")
MARGIN = 1.25
"""MemoryMax over the measured peaks."""
BESIDE = 64 * MIB
"""For the process itself."""


def add(one: argparse.ArgumentParser) -> None:
    """Declare the options that `unit` has beside those of `serve`."""
    group = one.add_argument_group("the unit")
    group.add_argument("--user", action="store_true", help="for `systemctl --user`, which allows less hardening")
    group.add_argument("--socket", action="store_true", help="let systemd open the sockets, and start us when asked")
    group.add_argument("--name", default="edgekit", help="what the service is called (edgekit)")
    group.add_argument("--out", type=Path, metavar="DIR", help="write NAME.service (and .socket) into DIR")


def typed(declare: Callable[[argparse.ArgumentParser], None], arguments: Sequence[str]) -> tuple[str, ...]:
    """The words for `serve` out of those typed after `unit`, paths made absolute; `declare` adds serve's options."""
    parser = argparse.ArgumentParser(add_help=False)
    add(parser)
    ours = {action.dest for action in parser._actions}  # argparse has no other way to ask what was declared
    declare(parser)
    for action in parser._actions:
        action.type = _absolute if action.type is Path else _as_typed
        action.default = argparse.SUPPRESS
    found = vars(parser.parse_args(list(arguments)))
    words: list[str] = []
    last: list[str] = []
    for action in parser._actions:
        if action.dest in ours or action.dest not in found:
            continue
        value = found[action.dest]
        if not action.option_strings:
            last += value if isinstance(value, list) else [value]
        elif action.nargs == 0:
            words.append(action.option_strings[-1])
        else:
            for one in value if isinstance(value, list) else [value]:
                option = action.option_strings[-1]
                words += [f"{option}={one}"] if one.startswith("-") else [option, one]
    return (*words, *last)


def understood(given: argparse.Namespace, words: tuple[str, ...], systemd: int | None = None) -> Unit:
    """The unit for the options of `unit` and `serve`, of which `words` are serve's as `typed` gives them.

    Raises:
        EdgeKitError: a bundle is not whole, or the service could not read or open what it needs.
    """
    folders = [Path(os.path.abspath(folder)) for folder in given.bundle]
    repository = None if given.repository is None else Path(os.path.abspath(given.repository))
    inside = sorted(filter(is_bundle, repository.iterdir())) if repository is not None and repository.is_dir() else []
    reads = [*folders, *([repository] if repository else []), *_hook(given.on_drift)]
    device = None if given.device is None else Path(os.path.abspath(given.device))
    _check_state(given)
    _check_device(given, device)
    credentials = []
    for name in SECRETS:
        path = getattr(given, name)
        if path is not None and not given.user and not _open_to_all(Path(os.path.abspath(path))):
            credentials.append((name.replace("_", "-"), Path(os.path.abspath(path))))
    if not given.user:
        for folder in reads:
            _check_readable(folder)
    http = [*resolve(Address(given.host, given.port)), *([] if given.unix is None else [_place(f"unix:{given.unix}")])]
    grpc = [] if given.grpc_port is None else [Address(given.host, given.grpc_port)]
    more = [_place(given.admin_grpc)] if given.admin_grpc else []
    admin = _place(given.admin) if given.admin else None
    require_token([*http, *grpc, *more, *([admin] if admin else [])], given.tokens)
    return Unit(
        name=_plain(given.name),
        user=given.user,
        activated=given.socket,
        words=words,
        http=tuple(http),
        others=(*grpc, *more),
        admin=admin,
        reads=tuple(reads),
        credentials=tuple(credentials),
        bundles=tuple(open_bundle(folder) for folder in [*folders, *inside]),
        repository=repository is not None or device is not None,
        memory=_memory(given, [*folders, *inside]),
        connections=given.max_connections,
        calls=given.otlp is not None or given.remote_write is not None,
        systemd=systemd,
        device=device,
    )


def write(texts: Mapping[str, str], folder: Path) -> None:
    """Put the units into `folder`. Raises `EdgeKitError` where that cannot be."""
    try:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise EdgeKitError(f"{folder}: {error.strerror}", hint="name a folder that you may write to") from error


def installed_systemd() -> int | None:
    """The version of this machine's systemd; None where there is none."""
    import re
    import subprocess

    try:
        done = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"systemd (\d+)", done.stdout)
    return int(found[1]) if found else None


def _memory(given: argparse.Namespace, folders: Sequence[Path]) -> int | None:
    """Bytes: what the user allows; else what the models took when they were measured, and room for requests."""
    if given.max_memory is not None:
        return int(given.max_memory * MIB)
    peaks = [open_bundle(folder).manifest.evidence.get("peak_mb") for folder in folders]
    if (
        given.repository is not None
        or given.device is not None
        or not all(isinstance(peak, int | float) for peak in peaks)
    ):
        return None
    bodies = max(Limits().buffered, int(2 * given.max_body * MIB))
    return int(sum(float(peak) * 1e6 for peak in peaks if peak) * MARGIN) + 2 * bodies + BESIDE


def _hook(command: str | None) -> list[Path]:
    """The program to run when a model drifts, which the service has to see."""
    if command is None:
        return []
    from edgekit_runtime.hook import Hook

    program = Path(Hook(command).words[0])
    if "/" in command.split()[0] and not command.lstrip("'\"").startswith("/"):
        raise EdgeKitError("the command for drift has a relative path", hint=f"say --on-drift {program}")
    return [program]


def _check_state(given: argparse.Namespace) -> None:
    """Raise where the service's own user could not write its state."""
    folder = Path("/var/lib") / given.name
    if given.state is None or given.user or Path(os.path.abspath(given.state)).is_relative_to(folder):
        return
    raise EdgeKitError(f"the service may not write to {given.state}", hint=f"say --state {folder}")


def _check_device(given: argparse.Namespace, device: Path | None) -> None:
    """Raise where the service could not see the folder that it is to write to."""
    if device is not None and hidden(device) and not given.user:
        raise EdgeKitError(f"the service may not write to {device}", hint=f"say --device /var/lib/{given.name}")


def _place(text: str) -> Address:
    """An address of the command line; a Unix socket's path made absolute."""
    if not text.startswith("unix:"):
        return parse_address(text)
    return unix_address(Path(os.path.abspath(text.removeprefix("unix:"))))


def _open_to_all(path: Path) -> bool:
    """Whether any user can read the file where it lies."""
    try:
        readable = path.stat().st_mode & stat.S_IROTH and not hidden(path)
        return bool(readable) and all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    except OSError as error:
        raise EdgeKitError(f"{path} does not read: {error.strerror}", hint="name a file that is there") from error


def _check_readable(folder: Path) -> None:
    """Raise where the service's own user could not read the folder; parents that are hidden are bound over."""
    if not folder.exists():
        raise EdgeKitError(f"no folder {folder}", hint="name a folder that `edgekit build` made")
    if not hidden(folder):
        for parent in folder.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                raise EdgeKitError(f"{parent} is closed to the service's own user", hint=f"chmod o+x {parent}")
    for path in (folder, *folder.rglob("*")):
        wanted = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
        if path.stat().st_mode & wanted != wanted:
            raise EdgeKitError(f"{path} is closed to the service's own user", hint=f"chmod -R o+rX '{folder}'")


def _plain(name: str) -> str:
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum() or len(name) > 60:
        raise EdgeKitError(f"{name!r} cannot name a service", hint="use letters, digits, - _")
    return name


def _absolute(text: str) -> str:
    return os.path.abspath(text)


def _as_typed(text: str) -> str:
    """An address with a relative path is of the folder we are in, not of the service's."""
    return "unix:" + os.path.abspath(text.removeprefix("unix:")) if text.startswith("unix:") else text
