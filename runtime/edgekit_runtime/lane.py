"""One model's way to its engine: a bounded queue, batches, one thread; a quick model is run where it is asked.

Refuses more requests than the queue holds, and gives up those whose deadline or client is gone."""

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from edgekit_runtime.errors import BadRequest, Busy, EdgeKitError, Late, NotFound
from edgekit_runtime.limits import Limits
from edgekit_runtime.pace import Pace
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.protocols.v2_settings import Settings
from edgekit_runtime.served import Served
from edgekit_runtime.stats import Stats
from edgekit_runtime.tensors import Feeds, Runner, check_feeds

SLACK_SECONDS = 0.01
"""How long before its deadline a request is not waited with for others."""
PROBES = 5
Known = TypeVar("Known")
Observer = Callable[["Lane", Asked, Feeds, Feeds, int], None]
"""Told of each answered request: its lane, what was asked, the inputs and the outputs. On the event loop: be quick."""


@dataclass(frozen=True)
class Batching:
    """Requests that run together: at most `size` rows, waiting at most `delay` seconds for more; a row count in
    `preferred` is not waited beyond."""

    size: int = 1
    delay: float = 0.0
    preferred: tuple[int, ...] = ()


@dataclass(frozen=True)
class LaneOptions:
    """`queue` is how many requests may wait; `limits` bound what protocols read for the model."""

    queue: int = 128
    batching: Batching = field(default_factory=Batching)
    refuse_nan: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True, eq=False)
class _Turn:
    feeds: Feeds
    rows: int
    done: "asyncio.Future[Feeds]"
    since: int
    deadline: float | None
    even: bool
    counted: bool = True
    started: int = 0
    ended: int = 0


_Outcome = tuple[_Turn, Feeds | None, BaseException | None]


class Lane:
    """Runs one `Served`. All methods belong to the event loop; the engine's thread is the lane's own.

    `settings` say whether it is traced, `observer` is told of each answer. `loaded_ms` is when it came, in
    milliseconds since 1970. `paused` takes requests before the engine is open; they run after `resume`.
    """

    def __init__(
        self,
        served: Served,
        options: LaneOptions | None = None,
        settings: Settings | None = None,
        paused: bool = False,
    ) -> None:
        self.served = served
        self.options = options or LaneOptions()
        self.stats = Stats()
        self.settings = settings or Settings()
        self.observer: Observer | None = None
        self.loaded_ms = time.time_ns() // 1_000_000
        self.users = 0
        self._known: dict[Callable[[Served], Any], Any] = {}
        self.strings = any(spec.dtype == "object" for spec in served.inputs)
        self.closing = False
        self._run: Runner = served.run
        self._paused = paused
        self._idle = asyncio.Event()
        self._room = threading.Condition()
        self._turns: deque[_Turn] = deque()
        self._busy = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches = self.options.batching.size > 1 and served.batchable()
        self._pace = Pace()
        self._over: EdgeKitError | None = None
        self._ended = False
        if not paused:
            self._pace_of_sample()

    @property
    def quick(self) -> bool:
        """Whether small requests can be run at once on the event loop."""
        return self._pace.quick

    @property
    def paused(self) -> bool:
        """Whether the engine is still to be opened."""
        return self._paused

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._turns)

    def known(self, make: Callable[[Served], Known]) -> Known:
        """What `make` makes of the lane's model, made when it is first asked for: what a protocol has to know."""
        found: Known | None = self._known.get(make)
        if found is None:
            found = self._known[make] = make(self.served)
        return found

    def now(self, feeds: Feeds) -> tuple[Feeds, int] | None:
        """The answer and the engine's nanoseconds, where the model is quick and free; else None: use `infer`.

        Raises:
            BadRequest: the feeds do not fit.
        """
        # in this order: the thread says that it is busy before it empties the queue
        if self._turns or self._busy or self._paused:
            return None
        size = 0
        for value in feeds.values():
            if value.dtype.kind == "O":  # strings do not tell their size
                return None
            size += value.nbytes
        if not self._pace.fits(size):
            return None
        start = time.perf_counter_ns()
        self._refuse(feeds)
        try:
            answer = self._run(feeds)
        except BaseException as error:
            self._broke(error)
            raise
        took = time.perf_counter_ns() - start
        self._pace.learn(size, took)
        self.stats.executed(_rows(feeds), took)
        return answer, took

    async def infer(self, feeds: Feeds, deadline: float | None = None) -> Feeds:
        """Queue the request and wait for its answer, until `deadline` on the loop's clock.

        Raises:
            Busy: the queue is full.
            Late: the deadline came first.
            BadRequest: the feeds do not fit.
        """
        answer, _, _ = await self.timed(feeds, deadline)
        return answer

    async def probe(self, feeds: Feeds, deadline: float | None = None) -> Feeds:
        """As `infer`, alone and not counted: for what the server asks of itself."""
        answer, _, _ = await self.timed(feeds, deadline, counted=False)
        return answer

    async def timed(self, feeds: Feeds, deadline: float | None = None, counted: bool = True) -> tuple[Feeds, int, int]:
        """As `infer`, with the nanoseconds spent waiting and in the engine."""
        self._refuse(feeds)
        check_feeds(self.served.inputs, feeds)
        loop = self._loop = asyncio.get_running_loop()
        rows = _rows(feeds)
        even = self._batches and counted and rows > 0 and all(value.shape[:1] == (rows,) for value in feeds.values())
        turn = _Turn(feeds, rows, loop.create_future(), time.perf_counter_ns(), deadline, even, counted)
        self._enter(turn)
        timer = None if deadline is None else loop.call_at(deadline, _expire, turn)
        try:
            answer = await turn.done
        except Late:
            self.stats.late += counted
            raise
        except asyncio.CancelledError:
            self.stats.cancelled += counted
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if not turn.started:
                self._leave(turn)
        return answer, turn.started - turn.since, turn.ended - turn.started

    def resume(self, served: Served, options: LaneOptions) -> None:
        """The engine is open: run what waits."""
        self.served, self._run, self.options = served, served.run, options
        self._known = {}
        self._batches = options.batching.size > 1 and served.batchable()
        with self._room:
            self._paused = False
            self._room.notify()

    def fail(self, error: EdgeKitError) -> None:
        """The engine did not open: whoever waits, or still comes, is told so."""
        with self._room:
            self._over = error
            turns, self._turns = list(self._turns), deque()
        for turn in turns:
            _deliver(turn, None, error)

    async def close(self, seconds: float = 60.0) -> None:
        """Answer what was taken, let go of the engine. One that hangs is waited for so long and then left alone.

        To be called once nobody finds the lane any more.
        """
        for _ in range(2):  # who found it just before may only now begin
            await asyncio.sleep(0)
        self.closing = True
        if self.users:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        with self._room:
            self._ended = True
            self._room.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, seconds)
        self._pace = Pace()
        self._run = _gone
        self.served = replace(self.served, run=_gone)

    def left(self) -> None:
        """One user less; see `users`."""
        self.users -= 1
        if self.closing and not self.users:
            self._idle.set()

    def _refuse(self, feeds: Feeds) -> None:
        if not self.options.refuse_nan:
            return
        for name, value in feeds.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise BadRequest(f"{name}: holds NaN or Infinity, which this server refuses", hint="send numbers")

    def _enter(self, turn: _Turn) -> None:
        with self._room:
            if self._over is not None:
                raise self._over
            if self._ended:
                raise NotFound("the model was unloaded", hint="ask again: another version may be there")
            if len(self._turns) >= self.options.queue:
                self.stats.rejected += turn.counted
                raise Busy(f"{len(self._turns)} requests are waiting for this model", "try again later", self._wait())
            self._turns.append(turn)
            self._room.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"lane-{self.served.name}", daemon=True)
            self._thread.start()

    def _leave(self, turn: _Turn) -> None:
        with self._room:
            if turn in self._turns:
                self._turns.remove(turn)

    def _wait(self) -> int:
        """How many seconds the queue is long."""
        return max(1, min(60, math.ceil(self._mean() * self.options.queue)))

    def _mean(self) -> float:
        """Seconds that the engine takes for a request."""
        return self.stats.infer.ns / 1e9 / max(self.stats.infer.count, 1)

    def _work(self) -> None:
        """The engine's thread."""
        while True:
            turns = self._next()
            if not turns:
                return
            self._execute(turns)
            del turns

    def _next(self) -> list[_Turn]:
        """The turns to run together; none when the lane closes."""
        with self._room:
            self._busy = False
            while True:
                while self._turns and not self._paused:
                    self._busy = True  # before the queue looks empty: `now` asks for both without the lock
                    turn = self._turns.popleft()
                    if not turn.done.done():
                        turn.started = time.perf_counter_ns()
                        return self._gathered(turn)
                    self._busy = False
                if self._ended and not self._turns:
                    return []
                self._room.wait()

    def _gathered(self, first: _Turn) -> list[_Turn]:
        """The turn with those behind it that fit into one batch; the lock is held, and let go of while waiting."""
        batching, turns, rows = self.options.batching, [first], first.rows
        if not first.even or first.rows >= batching.size:
            return turns
        until = first.since / 1e9 + batching.delay
        while True:
            room = 2 * self._mean() + SLACK_SECONDS
            until = min([until, *(turn.deadline - room for turn in turns if turn.deadline is not None)])
            while self._turns and _fit(first, self._turns[0]) and rows + self._turns[0].rows <= batching.size:
                turn = self._turns.popleft()
                if not turn.done.done():
                    turns.append(turn)
                    rows += turn.rows
            left = until - time.perf_counter()
            if rows >= batching.size or rows in batching.preferred or self._turns or left <= 0 or self.closing:
                break
            self._room.wait(left)
        now = time.perf_counter_ns()
        for turn in turns:
            turn.started = now
        return turns

    def _execute(self, turns: list[_Turn]) -> None:
        now = time.monotonic()
        live = [turn for turn in turns if not turn.done.done() and (turn.deadline is None or turn.deadline > now)]
        outcomes: list[_Outcome] = [(turn, None, _late()) for turn in turns if turn not in live]
        if len(live) > 1:
            outcomes += self._together(live)
        else:
            outcomes += [(turn, *self._alone(turn)) for turn in live]
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(_deliver_all, outcomes)

    def _alone(self, turn: _Turn) -> tuple[Feeds | None, BaseException | None]:
        start = time.perf_counter_ns()
        try:
            answer = self._run(turn.feeds)
        except Exception as error:  # whatever the engine raises belongs to whoever asked, not to this thread
            turn.ended = time.perf_counter_ns()
            self._broke(error)
            return None, error
        turn.ended = time.perf_counter_ns()
        self._pace.learn(sum(value.nbytes for value in turn.feeds.values()), turn.ended - start)
        if turn.counted:
            self.stats.executed(turn.rows, turn.ended - start)
        return answer, None

    def _broke(self, error: BaseException) -> None:
        """Count a run that failed, unless it was for what was asked."""
        self.stats.broken += not isinstance(error, BadRequest)

    def _together(self, turns: list[_Turn]) -> list[_Outcome]:
        rows = sum(turn.rows for turn in turns)
        start = time.perf_counter_ns()
        try:
            answer = self._run({name: np.concatenate([turn.feeds[name] for turn in turns]) for name in turns[0].feeds})
        except Exception:  # one of them may be to blame: each is tried alone
            return [(turn, *self._alone(turn)) for turn in turns]
        if any(value.shape[:1] != (rows,) for value in answer.values()):  # whose is which, nobody can tell
            return [(turn, *self._alone(turn)) for turn in turns]
        end = time.perf_counter_ns()
        self.stats.executed(rows, end - start)
        pieces: list[_Outcome] = []
        at = 0
        for turn in turns:
            turn.ended = end
            pieces.append((turn, {name: value[at : at + turn.rows] for name, value in answer.items()}, None))
            at += turn.rows
        return pieces

    def _pace_of_sample(self) -> None:
        sample = self.served.sample
        if sample is None:
            return
        size = sum(value.nbytes for value in sample.values())
        for _ in range(PROBES):
            start = time.perf_counter_ns()
            self._run(sample)
            took = time.perf_counter_ns() - start
            self._pace.learn(size, took)
            if not self._pace.quick:
                return


def _rows(feeds: Feeds) -> int:
    for value in feeds.values():
        return int(value.shape[0]) if value.ndim else 1
    return 1


def _fit(one: _Turn, other: _Turn) -> bool:
    return other.even and all(value.shape[1:] == other.feeds[name].shape[1:] for name, value in one.feeds.items())


def _deliver_all(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        _deliver(*outcome)


def _deliver(turn: _Turn, answer: Feeds | None, error: BaseException | None) -> None:
    if turn.done.done():
        return
    if error is not None:
        turn.done.set_exception(error)
    elif answer is not None:
        turn.done.set_result(answer)


def _expire(turn: _Turn) -> None:
    _deliver(turn, None, _late())


def _late() -> Late:
    return Late("the deadline came before the answer", hint="allow more time, or send less at once")


def _gone(feeds: Feeds) -> Feeds:
    raise NotFound("the model was unloaded")
