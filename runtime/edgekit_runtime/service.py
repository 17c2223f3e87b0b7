"""The models that are served: found by name, version or alias; loaded, swapped and unloaded while requests run.

Refuses a model or version that is not served, one that does not fit into memory, and to load anything but the
bundles of the one folder it was given."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime import repository
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import BadRequest, Busy, EdgeKitError, Exceeded, Forbidden, NotFound
from edgekit_runtime.lane import Batching, Lane, LaneOptions, Observer
from edgekit_runtime.limits import Limits
from edgekit_runtime.protocols.v2_settings import Settings
from edgekit_runtime.repository import Source
from edgekit_runtime.served import Served, closed, opened, rows_keep_apart

if TYPE_CHECKING:
    from edgekit_runtime.traces import Tracer

log = logging.getLogger("edgekit_runtime.service")

HISTORY = 100
"""Changes that are remembered."""
LAST_SECONDS = 5.0
"""How long a server that ends waits for an engine that hangs."""
CLOSED = ("this server does not load or unload models", "start it with --repository DIR")


@dataclass(frozen=True)
class Entry:
    """One line of the repository's index; `state` is READY, LOADING, UNLOADING or UNAVAILABLE."""

    name: str
    version: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Change:
    """What became of a model: "loaded", "replaced" (by a newer version), "rolled back" (by an older one), "unloaded",
    "failed", "proven good", "shadowing", "promoted", "dropped", "drift raised" or "drift cleared", and why. `when_ms`
    is in milliseconds since 1970."""

    when_ms: int
    what: str
    model: str
    version: str
    why: str = ""


@dataclass(frozen=True)
class Policy:
    """What the server may do by itself: where bundles lie that it may load, how much memory its models may take
    (in MB, by the peak that each build measured), how each is run. `source` stands for `repository` where the bundles
    lie otherwise than side by side in a folder."""

    repository: Path | None = None
    max_memory: float | None = None
    lane: LaneOptions = field(default_factory=LaneOptions)
    limits: Limits = field(default_factory=Limits)
    source: Source | None = None


class Service:
    """The lanes by name and version. All methods belong to the event loop."""

    def __init__(
        self,
        models: Sequence[Served] = (),
        aliases: Mapping[str, tuple[str, str | None]] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.policy = policy or Policy()
        folder = self.policy.repository
        self._source = self.policy.source or (None if folder is None else repository.Folder(folder))
        self._wanted = replace(self.policy.lane, limits=self.policy.limits)
        self.aliases = dict(aliases or {})
        self.settings = Settings()
        self.tracer: Tracer | None = None
        self.ids = False  # whether each request needs an id, by which it is known later
        self.ready = True
        self.history: deque[Change] = deque(maxlen=HISTORY)
        self.on_change: Callable[[Change], None] = lambda change: None
        self.beside_mb = 0.0  # what versions in shadow take
        self._observer: Observer | None = None
        self._lanes: dict[str, dict[str, Lane]] = {}
        self._found: dict[tuple[str, str | None], Lane] = {}
        self._states: dict[tuple[str, str], Entry] = {}
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Future[None]] = set()
        for served in models:
            self._put(Lane(served, self._options(served), self.settings))

    def observe(self, observer: Observer | None) -> None:
        """Have all lanes, those to come too, tell `observer` of their answers."""
        self._observer = observer
        for lane in self.lanes():
            lane.observer = observer

    def find(self, name: str, version: str | None = None) -> Lane:
        """The lane of that name or alias, the newest where no version or label is given.

        Raises:
            NotFound: it is not served.
        """
        lane = self._found.get((name, version))
        if lane is None:
            lane = self._look(name, version)
            if len(self._found) < 1000:
                self._found[name, version] = lane
        return lane

    def names(self) -> list[str]:
        """The names of the served models."""
        return sorted(self._lanes)

    def versions(self, name: str) -> list[str]:
        """The served versions of a model, oldest first; numbers in them count as numbers."""
        return list(self._lanes.get(name, ()))

    def lanes(self) -> list[Lane]:
        """All of them, by name and age."""
        return [lane for name in self.names() for lane in self._lanes[name].values()]

    def open_lanes(self) -> list[Lane]:
        """Those whose engine is open."""
        return [lane for lane in self.lanes() if not lane.paused]

    def number(self, served: Served) -> int:
        """The version for protocols that want a number: itself where it is one, else its place by age from 1."""
        if served.version.isdigit():
            return int(served.version[:18])
        known = self.versions(served.name)
        return known.index(served.version) + 1 if served.version in known else 0

    def index(self) -> list[Entry]:
        """What is served, what is being changed, and what lies in the repository beside."""
        known = {(e.name, e.version): e for e in self._states.values()}
        known |= {
            (n, v): Entry(n, v, "READY") for n, lanes in self._lanes.items() for v in lanes if (n, v) not in known
        }
        for manifest in () if self._source is None else self._source.manifests():
            key = (manifest.name, manifest.version)
            known.setdefault(key, Entry(*key, "UNAVAILABLE", "not loaded"))
        return [known[key] for key in sorted(known)]

    async def load(self, name: str, why: str = "") -> None:
        """Serve the newest bundle of that name in the repository, in place of the versions that are served now.

        Beside the old one where there is memory for both, else after it: requests wait meanwhile. An old
        version answers what it has taken. Loading what is served already, byte for byte, does nothing. `why` is told
        in the history.

        Raises:
            Forbidden: there is no repository.
            NotFound: no such bundle is in it.
            BadRequest: the newest is not whole.
            EdgeKitError: it does not run here; what was served is served on.
        """
        if self._source is None:
            raise Forbidden(*CLOSED)
        await self._whole(self._load(name, self._source, why))

    async def _whole(self, change: Coroutine[Any, Any, None]) -> None:
        """A change that goes on to its end, whether or not who asked for it is still there."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _load(self, name: str, source: Source, why: str) -> None:
        async with self._changing:
            newest = await asyncio.to_thread(source.newest, name)
            known = self._lanes.get(name, {}).get(newest.manifest.version)
            if known is None or known.served.manifest != newest.manifest:
                await self._swap(newest, why)

    async def unload(self, name: str) -> None:
        """Serve no version of that model any more, once all that it took is answered.

        Raises:
            Forbidden: there is no repository, so it could not come back.
            NotFound: it is not served.
        """
        if self._source is None:
            raise Forbidden(*CLOSED)
        await self._whole(self._unload(name))

    async def _unload(self, name: str) -> None:
        async with self._changing:
            if name not in self._lanes:
                raise NotFound("no such model", hint=self._hint())
            taken = [self._take(name, version) for version in self.versions(name)]
            await self._end(taken)
            for lane in taken:
                self._changed("unloaded", lane.served)

    async def close(self) -> None:
        """Answer what is under way and let go of all engines."""
        self.ready = False
        await asyncio.gather(*(lane.close(LAST_SECONDS) for lane in self.lanes()))

    def _look(self, name: str, version: str | None) -> Lane:
        if name not in self._lanes and name in self.aliases:
            name, pinned = self.aliases[name]
            version = version or pinned
        lanes = self._lanes.get(name)
        if not lanes:
            raise NotFound("no such model", hint=self._hint())
        if version is None or (version == "0" and version not in lanes):  # TensorFlow Serving's clients say 0
            return next(reversed(lanes.values()))
        if version not in lanes and self.aliases.get(version, ("",))[0] == name:
            version = self.aliases[version][1]
            if version is None:
                return next(reversed(lanes.values()))
        if version in lanes:
            return lanes[version]
        for lane in lanes.values():
            if str(self.number(lane.served)) == version:
                return lane
        raise NotFound(f"model {name} has no such version", hint=f"use one of {', '.join(lanes)}")

    def _hint(self) -> str:
        return f"this server has {', '.join(self.names())}" if self._lanes else "this server has no models now"

    def _options(self, served: Served) -> LaneOptions:
        """As the policy says; requests are batched only where a sample answers in company as it does alone."""
        wanted = self._wanted
        if wanted.batching.size > 1 and not rows_keep_apart(served):
            log.warning("%s: requests are not batched: its samples do not keep apart", served.name)
            return replace(wanted, batching=Batching())
        return wanted

    def _put(self, lane: Lane) -> None:
        name, version = lane.served.name, lane.served.version
        if version in self._lanes.get(name, {}):
            raise BadRequest(f"model {name} version {version} is given twice", hint="serve it once")
        lane.observer = self._observer
        lanes = {**self._lanes.get(name, {}), version: lane}
        self._lanes[name] = {key: lanes[key] for key in sorted(lanes, key=repository.age)}
        self._found.clear()

    def _take(self, name: str, version: str) -> Lane:
        lane = self._lanes[name].pop(version)
        if not self._lanes[name]:
            del self._lanes[name]
        self._found.clear()
        return lane

    async def _swap(self, bundle: Bundle, why: str) -> None:
        served, old = closed(bundle), self.versions(bundle.manifest.name)
        key = (served.name, served.version)
        self._states[key] = Entry(*key, "LOADING")
        try:
            if self._fits(served, leaving=[]):
                lane = await asyncio.to_thread(self._lane, bundle, served)
                before = [self._take(served.name, version) for version in old]
                self._put(lane)
            elif old and self._fits(served, leaving=old):
                before = await self._one_after_the_other(bundle, served, old)
            else:
                raise Exceeded(
                    f"model {served.name} takes {served.peak_mb:g} MB, more than --max-memory leaves",
                    hint="unload another model first",
                    limit="memory",
                )
        except EdgeKitError as error:
            self._changed("failed", served, error.what)
            raise
        finally:
            del self._states[key]
        self._changed(_step(old, served.version), served, why)
        await self._end(before)

    def remark(self, what: str, served: Served, why: str = "") -> None:
        """Tell the history what became of a model that is served, or of a version in shadow of one."""
        self._changed(what, served, why)

    def fits(self, served: Served) -> bool:
        """Whether the model fits into the memory that the policy allows, beside all others."""
        return self._fits(served, [])

    def _changed(self, what: str, served: Served, why: str = "") -> None:
        change = Change(time.time_ns() // 1_000_000, what, served.name, served.version, why)
        self.history.append(change)
        self.on_change(change)

    def _lane(self, bundle: Bundle, served: Served) -> Lane:
        ready = opened(bundle, served)
        if ready.preprocess is not None and ready.preprocess.kind == "image" and find_spec("PIL") is None:
            log.warning("%s: tensors only, no photos: Pillow is not installed (the extra [image])", ready.name)
        return Lane(ready, self._options(ready), self.settings)

    async def _one_after_the_other(self, bundle: Bundle, served: Served, old: list[str]) -> list[Lane]:
        """The new lane takes requests at once; they wait until the old engines are gone and the new one is open."""
        lane = Lane(served, self._wanted, self.settings, paused=True)
        before = [self._take(served.name, version) for version in old]
        self._put(lane)
        await self._end(before)
        try:
            ready = await asyncio.to_thread(opened, bundle, served)
            options = await asyncio.to_thread(self._options, ready)
        except BaseException:
            self._take(served.name, served.version)
            lane.fail(Busy("the new version of the model did not open", "try again: the old one is coming back"))
            await lane.close()
            await self._reopen(before)
            raise
        lane.resume(ready, options)
        return []

    async def _reopen(self, before: list[Lane]) -> None:
        """The old versions again, from the repository where they still lie there."""
        for lane in before:
            old, bundle = lane.served, None
            if self._source is not None and old.manifest is not None:
                bundle = await asyncio.to_thread(self._source.again, old.manifest)
            if bundle is None:
                log.error("%s version %s is no longer in the repository", old.name, old.version)
            else:
                self._put(await asyncio.to_thread(self._lane, bundle, closed(bundle)))

    async def _end(self, lanes: list[Lane]) -> None:
        """Let lanes that nobody finds any more answer what they took, then free their memory."""
        keys = {(lane.served.name, lane.served.version) for lane in lanes}
        ending = {key: Entry(*key, "UNLOADING") for key in keys if key not in self._states}
        self._states |= ending
        await asyncio.gather(*(lane.close() for lane in lanes))
        for key in ending:
            del self._states[key]
        if lanes:
            await asyncio.to_thread(_give_back)

    def _fits(self, served: Served, leaving: Sequence[str]) -> bool:
        """Whether the model's measured peak fits beside the others (without `leaving`, of its own name)."""
        if self.policy.max_memory is None:
            return True
        if served.peak_mb is None:
            raise BadRequest(
                f"model {served.name} has no measured peak memory", hint="build it again with edgekit build"
            )
        others = [
            one.served for one in self.lanes() if not (one.served.name == served.name and one.served.version in leaving)
        ]
        return self.beside_mb + sum(one.peak_mb or 0.0 for one in others) + served.peak_mb <= self.policy.max_memory


def open_service(
    folders: Sequence[Path], aliases: Mapping[str, tuple[str, str | None]] | None = None, policy: Policy | None = None
) -> Service:
    """Open and warm up the bundles in `folders`, and the newest of each name in the policy's repository.

    Raises:
        EdgeKitError: one of them is not whole, does not run here or does not fit, or two are the same.
    """
    service = Service((), aliases, policy)
    given = [open_bundle(folder) for folder in folders]
    taken, source = {bundle.manifest.name for bundle in given}, service._source
    for bundle in given:
        _first(service, bundle)
    for beside in () if source is None else source.start():
        other: Bundle | None = None if beside.manifest.name in taken else beside
        while source is not None and other is not None:
            try:
                _first(service, other)
                break
            except EdgeKitError as error:
                other = source.instead(other, error)
    for alias, (name, version) in service.aliases.items():
        if alias in service.names():
            raise BadRequest(f"alias {alias} is the name of a model", hint="choose another word")
        service.find(name, version)
    return service


def _first(service: Service, bundle: Bundle) -> None:
    """Serve it, where there is no other of its name yet. Raises `EdgeKitError`, whatever its engine raises."""
    try:
        _open_first(service, bundle)
    except EdgeKitError:
        raise
    except Exception as error:  # a foreign engine's, of any class: it is this model's, and nobody else's
        name = f"{bundle.manifest.name} {bundle.manifest.version}"
        log.exception("%s does not open", name)
        what = f"{name} does not open: {type(error).__name__}"
        raise EdgeKitError(what, hint="see the log; build it for this device's target, with its engine") from error


def _open_first(service: Service, bundle: Bundle) -> None:
    served = closed(bundle)
    if not service._fits(served, []):
        raise Exceeded(
            f"model {served.name} takes {served.peak_mb:g} MB, more than --max-memory leaves",
            hint="raise --max-memory, or serve fewer models",
            limit="memory",
        )
    service._put(service._lane(bundle, served))
    service._changed("loaded", served)


def _step(old: Sequence[str], version: str) -> str:
    """What serving `version` after the `old` ones is."""
    if not old:
        return "loaded"
    return "rolled back" if repository.age(version) < max(map(repository.age, old)) else "replaced"


def _give_back() -> None:
    """Return the freed memory to the system: the C library keeps it otherwise."""
    import ctypes
    import gc

    gc.unfreeze()
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
