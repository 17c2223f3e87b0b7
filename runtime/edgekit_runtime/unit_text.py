"""The text of the systemd units that run `edgekit-runtime serve`: a service, and its sockets where systemd opens them.

Refuses an address that the service may not or cannot listen on, and words that a unit cannot hold."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.addresses import Address, resolve
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.hardening import NEAR, Needs, hardened, path_word
from edgekit_runtime.limits import MIB

HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
"""What a hardened service does not see, unless it is bound into its view."""
STEPS_SINCE = 254
"""The systemd from which on restarts can wait longer and longer."""
WATCHDOG = 30
"""Seconds; more where ten inferences of a model take more."""


@dataclass(frozen=True)
class Unit:
    """What is to be written: the words after `serve`, what they mean, and for which systemd (None: any)."""

    name: str
    user: bool
    activated: bool
    words: tuple[str, ...]
    http: tuple[Address, ...]
    others: tuple[Address, ...]
    admin: Address | None
    reads: tuple[Path, ...]
    credentials: tuple[tuple[str, Path], ...]
    bundles: tuple[Bundle, ...]
    repository: bool
    memory: int | None
    connections: int
    calls: bool = False
    systemd: int | None = None
    device: Path | None = None


def units(unit: Unit) -> dict[str, str]:
    """The texts by file name: the service first, then its sockets where systemd opens them."""
    made = {f"{unit.name}.service": service(unit)}
    if unit.activated:
        made[f"{unit.name}.socket"] = _socket(unit, "http", unit.http)
        if unit.admin is not None:
            made[f"{unit.name}-admin.socket"] = _socket(unit, "admin", resolve(unit.admin))
    return made


def service(unit: Unit) -> str:
    """The text of the service."""
    sockets = [f"{unit.name}.socket", *([f"{unit.name}-admin.socket"] if unit.admin else [])] if unit.activated else []
    far = [address for address in (*unit.http, *unit.others) if not address.loopback]
    online = bool(far or unit.calls) and not unit.user
    parts = [
        "[Unit]",
        f"Description=EdgeKit: inference with {_models(unit)}",
        *([f"Requires={' '.join(sockets)}", f"After={' '.join(sockets)}"] if sockets else []),
        *(["Wants=network-online.target", "After=network-online.target"] if online else []),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={_command(unit)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        *(f"LoadCredential={name}:{_verbatim(path)}" for name, path in unit.credentials),
        f"WatchdogSec={_watchdog(unit.bundles)}",
        "TimeoutStartSec=300",
        "TimeoutStopSec=30",
        *_restarts(unit.systemd),
        "RestartPreventExitStatus=2",
        "",
        *_resources(unit),
        "",
        *hardened(_needs(unit)),
        "",
        "[Install]",
        *([f"Also={' '.join(sockets)}"] if sockets else []),
        f"WantedBy={'default' if unit.user else 'multi-user'}.target",
    ]
    return "\n".join(parts) + "\n"


def _socket(unit: Unit, name: str, addresses: Sequence[Address]) -> str:
    listen = []
    for address in addresses:
        if address.path is None and address.port == 0:
            raise EdgeKitError("systemd cannot open a port that is not known", hint="say --port NUMBER, or no --socket")
        listen.append(f"ListenStream={_verbatim(address.path) if address.path else address}")
    lines = [
        *("[Unit]", f"Description=EdgeKit: the sockets of {unit.name} ({name})", "", "[Socket]", *listen),
        *(NEAR if all(address.loopback for address in addresses) else []),
        *(f"FileDescriptorName={name}", f"Service={unit.name}.service", "SocketMode=0660", "FreeBind=yes"),
        *("RemoveOnStop=yes", "", "[Install]", "WantedBy=sockets.target"),
    ]
    return "\n".join(lines) + "\n"


def _command(unit: Unit) -> str:
    """The ExecStart. A file that only its owner reads is passed as a credential, whose folder systemd fills in."""
    passed = {str(path): f"${{CREDENTIALS_DIRECTORY}}/{name}" for name, path in unit.credentials}
    words = (sys.executable, "-P", "-m", "edgekit_runtime", "serve", *unit.words)
    return " ".join(passed.get(word) or path_word(word).replace("$", "$$") for word in words)


def _needs(unit: Unit) -> Needs:
    """What the hardening must leave open."""
    every = (*unit.http, *unit.others, *([unit.admin] if unit.admin else []))
    opens = unit.others if unit.activated else every
    folders = [_runtime(one.path, unit.name) for one in opens if one.path and not unit.user]
    return Needs(
        name=unit.name,
        user=unit.user,
        opens=unit.calls or any(one.path is None for one in opens),
        far=unit.calls or not all(one.loopback for one in every),
        low_port=any(one.path is None and 0 < one.port < 1024 for one in opens),
        runtime=tuple(dict.fromkeys(folders)),
        bound=_outermost(path for path in (*unit.reads, *_interpreter()) if hidden(path)),
        python_path=_user_site(),
        devices=frozenset(bundle.manifest.options.device for bundle in unit.bundles) - {"cpu"},
        device=unit.device,
        makes_code=unit.repository or any(bundle.manifest.engine == "openvino" for bundle in unit.bundles),
    )


def _restarts(systemd: int | None) -> list[str]:
    lines = ["Restart=on-failure", "RestartSec=2"]
    if systemd is not None and systemd >= STEPS_SINCE:
        lines += ["RestartSteps=6", "RestartMaxDelaySec=60"]
    return lines


def _resources(unit: Unit) -> list[str]:
    if unit.memory is None:
        memory = [
            "# The memory of these models was not measured, or others may come: --max-memory says it.",
            "MemoryMax=75%",
        ]
    else:
        memory = [f"MemoryMax={math.ceil(unit.memory / MIB)}M"]
    return [*memory, "TasksMax=512", f"LimitNOFILE={max(4096, 2 * unit.connections + 512)}", "LimitCORE=0"]


def _watchdog(bundles: Sequence[Bundle]) -> int:
    costs = [bundle.manifest.evidence.get("cost_ms") for bundle in bundles]
    slowest = max((float(cost) for cost in costs if isinstance(cost, int | float)), default=0.0)
    return max(WATCHDOG, math.ceil(slowest / 100))


def _models(unit: Unit) -> str:
    names = sorted({bundle.manifest.name for bundle in unit.bundles})
    told = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return told or ("the models of a repository" if unit.device is None else "the models of this device")


def _runtime(path: Path, name: str) -> str:
    """The RuntimeDirectory= that holds the socket, or nothing where it lies in the service's own state."""
    if path.is_relative_to(Path("/var/lib") / name):
        return ""
    if not path.is_relative_to("/run") or path.parent == Path("/run") or path.is_relative_to("/run/user"):
        raise EdgeKitError(
            f"the service may not make a socket at {path}", hint=f"say /run/{name}/{path.name}, or give --socket"
        )
    return path.parent.relative_to("/run").as_posix()


def _interpreter() -> list[Path]:
    """Where Python and what it imports lie."""
    import edgekit_runtime

    package = Path(edgekit_runtime.__file__).parent.parent
    return [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent, package]


def _user_site() -> Path | None:
    """The folder of packages installed for one user, which the service's own user would not look into."""
    import site

    if not site.ENABLE_USER_SITE:
        return None
    own = Path(site.getusersitepackages())
    return own if any(path.is_relative_to(own) for path in _interpreter()) else None


def hidden(path: Path) -> bool:
    """Whether the service sees nothing there of its own accord."""
    return any(path.is_relative_to(root) for root in HIDDEN)


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(kept)


def _verbatim(path: Path) -> str:
    """A path that is the rest of its line."""
    path_word(str(path))
    return str(path).replace("%", "%%")
