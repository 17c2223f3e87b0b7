"""The time in which a version that is served has to prove itself: recorded inputs, signs of life, runs that fail.

Refuses to call anything good that was not seen: a lane that has no time for its recorded inputs is asked again."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgekit_runtime.errors import BadBundle, Busy, EdgeKitError, Late, NotFound
from edgekit_runtime.lane import Lane
from edgekit_runtime.selftests import fault
from edgekit_runtime.watchdog import probe_of

LOOK_SECONDS = 1.0
LIFE_SECONDS, PATIENCE = 10.0, 30.0
"""How often a sign of life is asked for, and how long is waited for it."""
AGAIN_SECONDS = 2.0
FEW, MOST_BROKEN = 3, 0.1
"""So many runs that the engine did not end well, and more than this part of all: the model is broken. Who may ask can
bring that about with inputs that break it; it is then served in the version before, which is the safe side."""


@dataclass(frozen=True)
class Terms:
    """It must do well for `seconds`; `drifted` says whether there was an alarm that is to end it."""

    seconds: float
    drifted: Callable[[], bool] = lambda: False
    look: float = LOOK_SECONDS


async def shortcoming(lane: Lane, terms: Terms) -> str:
    """Watch the lane until its time is over; why it must not stay, or "" where it has proven itself."""
    before = (lane.stats.broken, lane.stats.executions)

    def worse() -> str:
        drifted = "its inputs or answers drifted from those of its build"
        return _broken(lane, before) or (drifted if terms.drifted() else "")

    if why := await _replayed(lane, worse):
        return why
    end, life = time.monotonic() + terms.seconds, time.monotonic() + LIFE_SECONDS
    alive = probe_of(lambda: [lane], PATIENCE)
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(terms.look, left))
        if why := worse():
            return why
        if time.monotonic() >= life:
            try:
                await alive()
            except EdgeKitError as error:
                return error.what
            except Exception as error:  # a foreign engine's, of any class: a trial that ends by it would never end
                return f"it does not answer: {type(error).__name__}"
            life = time.monotonic() + LIFE_SECONDS
    return _broken(lane, before) or await _replayed(lane, worse)


async def _replayed(lane: Lane, worse: Callable[[], str]) -> str:
    """What is wrong with its answers to the recorded inputs, once it has time for them; or what got `worse` first."""
    runs, since = _runs(lane), time.monotonic()
    while True:
        try:
            off = await fault(lane)
        except (Busy, Late) as error:
            if (now := _runs(lane)) != runs:
                runs, since = now, time.monotonic()
            elif isinstance(error, Late) or time.monotonic() - since > PATIENCE:
                return "it does not answer any more"
            if why := worse():
                return why
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        except NotFound:
            return "" if lane.closing else "it has no recorded inputs"
        except BadBundle as error:
            return error.what
        return f"the self-test failed: {off}" if off else ""


def _runs(lane: Lane) -> int:
    return lane.stats.executions + lane.stats.broken


def _broken(lane: Lane, before: tuple[int, int]) -> str:
    broken, runs = lane.stats.broken - before[0], lane.stats.executions - before[1]
    if broken < FEW or broken <= MOST_BROKEN * (broken + runs):
        return ""
    return f"the engine failed in {broken} of {broken + runs} runs"
