"""The running server: binds the addresses, serves them on one event loop, ends when it is told to.

Refuses an address that cannot be had, one beyond loopback without tokens, and gRPC where it is not installed."""

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgekit_runtime.addresses import Address, bind_unix, require_token, resolve
from edgekit_runtime.counters import Counters
from edgekit_runtime.edge import Edge
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.http import Desk
from edgekit_runtime.http1 import Connection
from edgekit_runtime.parsing import require_parser
from edgekit_runtime.routes import protocols
from edgekit_runtime.service import Service
from edgekit_runtime.systemd import listen_fds, notifier, watchdog_seconds
from edgekit_runtime.tls import TlsFiles, doubts, http_context, read_pem
from edgekit_runtime.tokens import Tokens
from edgekit_runtime.watching import Watch, Watching

log = logging.getLogger("edgekit_runtime.serving")

NAMES = ("http", "unix", "grpc", "admin", "admin_grpc")
BACKLOG = 1024
GRACEFUL_SECONDS = 10.0
SWITCH_SECONDS = 0.001
"""How long a thread that reads or writes a large body keeps the event loop waiting for Python's lock."""

Tell = Callable[[Mapping[str, Any]], None]
"""Told where the server listens, once it does."""


@dataclass(frozen=True)
class Where:
    """The addresses: `http` and `unix` for everybody, `admin` and `admin_grpc` for who may change what is served.
    `inherited` are listening sockets by name, from systemd."""

    http: Address | None = None
    unix: Address | None = None
    grpc: Address | None = None
    admin: Address | None = None
    admin_grpc: Address | None = None
    inherited: Sequence[tuple[str, socket.socket]] = ()

    def named(self) -> dict[str, Address]:
        """Those that are set."""
        every = {"http": self.http, "unix": self.unix, "grpc": self.grpc, "admin": self.admin}
        every["admin_grpc"] = self.admin_grpc
        return {name: address for name, address in every.items() if address is not None}


@dataclass(frozen=True)
class Guard:
    """Who may ask: tokens, and TLS with or without a CA for clients. None: everybody who can connect."""

    tokens: Tokens | None = None
    tls: TlsFiles | None = None


@dataclass(frozen=True)
class Supervisor:
    """What systemd wants to hear: `notify` sends it a state; `watchdog` is how many seconds it waits for a sign of
    life (None: for ever)."""

    notify: Callable[[str], None] = lambda state: None
    watchdog: float | None = None


def supervised(env: Mapping[str, str]) -> Supervisor:
    """What systemd said in the environment."""
    return Supervisor(notifier(env.get("NOTIFY_SOCKET")), watchdog_seconds(env))


def inherited(env: Mapping[str, str], where: Where) -> Where:
    """The addresses, with the sockets that systemd opened in place of those that the command line names."""
    found = listen_fds(env)
    names = {name for name, _ in found}
    if names - {"admin"}:
        where = replace(where, http=None, unix=None)
    return replace(where, inherited=found, admin=None if "admin" in names else where.admin)


def serve(service: Service, where: Where, guard: Guard, supervisor: Supervisor, watch: Watch, tell: Tell) -> None:
    """Serve until SIGINT or SIGTERM, then answer what is under way.

    Raises:
        EdgeKitError: an address cannot be had, or asks for what is not there.
    """
    require_parser()
    beside = [Address(*one.getsockname()[:2]) for _, one in where.inherited if one.family != socket.AF_UNIX]
    require_token([*where.named().values(), *beside], guard.tokens)
    if guard.tls is not None and (doubt := doubts(read_pem(guard.tls).cert)):
        log.warning("%s: %s", guard.tls.cert, doubt)
    _more_files()
    sys.setswitchinterval(SWITCH_SECONDS)
    faulthandler.enable()  # a watchdog's SIGABRT then leaves every thread's stack in the log
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_until_told(Server(service, where, guard, supervisor, watch), tell))


async def _until_told(server: "Server", tell: Tell) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    await server.run(tell, stop)


class Server:
    """All listeners over one service, on the loop that runs it."""

    def __init__(
        self, service: Service, where: Where, guard: Guard, supervisor: Supervisor, watch: Watch | None = None
    ) -> None:
        self.service, self.where, self.guard, self.supervisor = service, where, guard, supervisor
        self.counters = Counters()
        self.edges: list[Edge] = []
        self.watching = Watching(service, self.counters, self._connections, watch or Watch())
        self._servers: list[asyncio.Server] = []
        self._grpcs: list[Any] = []
        self._reloading: asyncio.Future[None] | None = None

    async def run(self, tell: Tell, stop: asyncio.Event) -> None:
        """Serve until `stop`, then answer what is under way."""
        async with AsyncExitStack() as stack:
            public, admin = self._edge(False), self._edge(True)
            for edge in (public, admin):
                edge.tick(asyncio.get_running_loop().time())
                self._keep(stack, edge.sweep())
            await self.watching.run(stack)
            stack.push_async_callback(self._close)  # what is told while the last answers go out is watched still
            at = await self._listen(stack, public, admin)
            if self.supervisor.watchdog is not None:
                from edgekit_runtime.watchdog import watch

                self._keep(stack, watch(self.service.open_lanes, self.supervisor.watchdog, self.supervisor.notify))
            if (slots := self.watching.watch.slots) is not None:
                await slots.begin(self.service, at.get("http") or f"unix:{at.get('unix', '')}")
            tell({**dict.fromkeys(NAMES), **at, "models": self.service.names()})
            gc.collect()
            gc.freeze()  # what is there now stays: looking through it again and again would only delay answers
            self.supervisor.notify("READY=1")
            await stop.wait()
            self.supervisor.notify("STOPPING=1")
            self.service.ready = False

    async def _close(self) -> None:
        """Take no more connections, answer what is under way, let go of the models."""
        for server in self._servers:
            server.close()
        ends = [edge.close(GRACEFUL_SECONDS) for edge in self.edges]
        await asyncio.gather(*ends, *(server.stop(GRACEFUL_SECONDS) for server in self._grpcs))
        await self.service.close()

    async def _listen(self, stack: AsyncExitStack, public: Edge, admin: Edge) -> dict[str, str]:
        """Open every address."""
        at: dict[str, str] = {}
        named = self.where.named()
        for name, edge in (("http", public), ("unix", public), ("admin", admin)):
            address = named.get(name)
            if address is None:
                continue
            sockets = _bound(address)
            if address.path is not None:  # only now is it ours: what was there before is not to be removed
                stack.callback(_remove, address.path, _mark(address.path))
            for listening in reversed(sockets):
                at[name] = await self._http(edge, listening, name)
        for name, listening in self.where.inherited:
            known = "admin" if name == "admin" else "unix" if listening.family == socket.AF_UNIX else "http"
            at[known] = await self._http(admin if name == "admin" else public, listening, known)
        for name in ("grpc", "admin_grpc"):
            if name in named:
                at[name] = await self._grpc(named[name], name == "admin_grpc")
        return at

    def _edge(self, admin: bool) -> Edge:
        allow = None if self.guard.tokens is None else self.guard.tokens.allow
        routes = [*self.watching.routes(), *protocols()]
        desk = Desk(self.service, routes, self.counters, allow, admin, self.watching.ids)
        edge = desk.edge
        self.edges.append(edge)
        return edge

    async def _http(self, edge: Edge, listening: socket.socket, name: str) -> str:
        tls = self.guard.tls if listening.family != socket.AF_UNIX else None
        more: dict[str, Any] = (
            {} if tls is None else {"ssl": http_context(tls), "ssl_handshake_timeout": 10, "ssl_shutdown_timeout": 1}
        )
        server = await asyncio.get_running_loop().create_server(
            partial(Connection, edge), sock=listening, backlog=BACKLOG, **more
        )
        self._servers.append(server)
        if listening.family == socket.AF_UNIX:
            path = str(listening.getsockname())
            return path if name == "unix" else f"unix:{path}"
        host, port = listening.getsockname()[:2]
        return f"{'http' if tls is None else 'https'}://{Address(host, port)}"

    async def _grpc(self, address: Address, admin: bool) -> str:
        try:
            from edgekit_runtime.grpc import start
        except ModuleNotFoundError as error:
            raise EdgeKitError(
                f"gRPC needs {error.name}, which is not installed",
                hint="install edgekit-runtime with its [grpc] extra: pip install './runtime[grpc]'",
            ) from error
        tokens, tls = self.guard.tokens, self.guard.tls
        server, port = await start(
            self.service,
            str(address),
            self.counters,
            None if tokens is None else tokens.allow,
            None if tls is None or address.path is not None else read_pem(tls),
            admin,
        )
        self._grpcs.append(server)
        return str(address) if address.path is not None else str(Address(address.host, port))

    def _connections(self) -> int:
        return sum(len(edge.connections) for edge in self.edges)

    def reload(self) -> None:
        """Load what is new in the repository, or live in the device's store, beside everything else."""
        slots = self.watching.watch.slots
        self._reloading = asyncio.ensure_future(self._load_all() if slots is None else slots.reload())

    async def _load_all(self) -> None:
        for name in sorted({entry.name for entry in self.service.index()}):
            try:
                await self.service.load(name)
            except EdgeKitError as error:
                log.warning("%s", error.what)

    def _keep(self, stack: AsyncExitStack, work: Any) -> None:
        task = asyncio.ensure_future(work)
        stack.callback(task.cancel)


def _bound(address: Address) -> list[socket.socket]:
    """Listening sockets, one for each address that a name has, all on one port; the first is the one to tell."""
    if address.path is not None:
        return [bind_unix(address.path)]
    made: list[socket.socket] = []
    for one in sorted(resolve(address), key=lambda place: ":" in place.host):
        port = one.port or (made[0].getsockname()[1] if made else 0)
        try:
            family = socket.AF_INET6 if ":" in one.host else socket.AF_INET
            made.append(socket.create_server((one.host, port), family=family, backlog=BACKLOG))
        except (OSError, OverflowError) as error:
            if not made:
                why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
                raise EdgeKitError(
                    f"cannot listen on {address}: {why}", hint="choose another address, or another --port"
                ) from error
            log.warning("not listening on %s: %s", one, error)
    return made


def _mark(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_ino, found.st_ctime_ns


def _remove(path: Path, mark: tuple[int, int]) -> None:
    """Remove our socket, unless another server has put its own there since."""
    with suppress(FileNotFoundError):
        if _mark(path) == mark:
            path.unlink()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made


def _more_files() -> None:
    """As many open files as the system lets us have: each connection is one."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
