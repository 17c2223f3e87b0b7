"""`python -m tests.soak --seconds 600 --rate 200`: a real server under mixed load at a bounded rate, all accounted for.

Refuses (exit 1) a wrong answer, a request that no counter shows, memory that grows, health that is late."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from tests.clients.models import ENGINES
from tests.clients.serving import Running, rss, serving
from tests.runtime.bundles import make_bundle
from tests.soak_acts import ACTS, MAX_BODY, TIMEOUT, Clients, post
from tests.soak_ledger import Ledger, read_metrics

MOST_AT_ONCE = 400
SWAP_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        faults, table = soak(Path(scratch), given.seconds, given.rate)
    sys.stdout.write(table + "\n")
    for fault in faults:
        sys.stdout.write(f"FAULT {fault}\n")
    sys.stdout.write("0 faults\n" if not faults else f"{len(faults)} faults\n")
    return 1 if faults else 0


def soak(folder: Path, seconds: float, rate: float) -> tuple[list[str], str]:
    """The faults found, and the table."""
    ledger, warm_up = Ledger(), max(10.0, min(60.0, seconds / 4))
    with serving(*serve(folder)) as running:
        metrics = asyncio.run(_story(running, folder, ledger, seconds, rate))
    return ledger.judge(metrics, warm_up), ledger.table(metrics, warm_up)


def serve(folder: Path) -> tuple[Any, ...]:
    """What the server of a soak is given: a model of each engine, and a folder of two to swap and to load."""
    bundles = [make_bundle(folder / engine, engine, name=f"tiny-{engine}") for engine in ENGINES]
    for name in ("swapped", "spare"):
        make_bundle(folder / "repository" / f"{name}-1", name=name)
    options = ["--repository", folder / "repository", "--admin", "127.0.0.1:0", "--grpc-port", "0"]
    return (bundles, *options, "--max-body", str(MAX_BODY))


async def _story(running: Running, folder: Path, ledger: Ledger, seconds: float, rate: float) -> dict[str, float]:
    """Load for so long; then wait until all is answered and read the server's counters."""
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    async with grpc.aio.insecure_channel(running.rpc) as channel:
        clients = Clients(running, ledger, service_pb2_grpc.GRPCInferenceServiceStub(channel))
        aside = [asyncio.create_task(_swap(running, folder, ledger)), asyncio.create_task(_weigh(running, ledger))]
        await _load(clients, seconds, rate)
        for task in aside:
            task.cancel()
        for outcome in await asyncio.gather(*aside, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                ledger.fault(f"beside the load: {outcome!r}")
        await asyncio.sleep(2)
        stream = await clients.opened()
        stream[1].write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        before = ledger.answers.copy()
        _, _, text = await clients.read(stream)
        ledger.answers = before  # it does not count itself
        return read_metrics(text.decode())


async def _load(clients: Clients, seconds: float, rate: float) -> None:
    """Begin `rate` acts a second, whether or not those before have ended."""
    ledger, dice = clients.ledger, random.Random(7)
    acts, weights = list(ACTS), list(ACTS.values())
    under_way: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    number = 0
    while (now := time.monotonic() - began) < seconds:
        while number < now * rate:
            number += 1
            act = dice.choices(acts, weights)[0]
            if len(under_way) >= MOST_AT_ONCE:
                ledger.fault("the server does not keep up")
                break
            ledger.sent[act.__name__.removeprefix("as_")] += 1
            task = asyncio.create_task(_done(clients, act))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.sleep(0.005)
    if under_way:
        await asyncio.wait(under_way, timeout=TIMEOUT + 5)
    if under_way:
        ledger.fault(f"{len(under_way)} requests had no end")


async def _done(clients: Clients, act: Any) -> None:
    try:
        await act(clients)
    except Exception as error:  # whatever went wrong with one client is a fault of the run, told at its end
        clients.ledger.fault(f"{act.__name__}: {error!r}"[:300])


async def _swap(running: Running, folder: Path, ledger: Ledger) -> None:
    """Bring a new version of one model and load it, load and unload another, for ever."""
    for version in count(2):
        repository = folder / "repository"
        await asyncio.to_thread(make_bundle, folder / "new", name="swapped", version=str(version))
        (folder / "new").rename(repository / f"swapped-{version}")
        for verb, name in (("load", "swapped"), ("unload", "spare"), ("load", "spare")):
            await asyncio.sleep(SWAP_SECONDS)
            status = await _admin(running, verb, name)
            ledger.answers[status] += 1
            if status != 200:
                ledger.fault(f"{verb} {name}: {status}")
            ledger.swaps += 1
        shutil.rmtree(repository / f"swapped-{version - 1}")


async def _admin(running: Running, verb: str, name: str) -> int:
    """The status of an answer of the admin's address."""
    host, port = running.admin_address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(post(f"/v2/repository/models/{name}/{verb}", b"", "Connection: close"))
    async with asyncio.timeout(TIMEOUT):
        status = int((await reader.read()).split()[1])
    writer.close()
    return status


async def _weigh(running: Running, ledger: Ledger) -> None:
    """Measure the server's memory every half second."""
    began = time.monotonic()
    while True:
        ledger.memory.append((time.monotonic() - began, rss(running.pid)))
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
