"""What systemd is told and what it passes on, over real sockets; and the watchdog, over a real lane."""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.lane import Lane, LaneOptions
from edgekit_runtime.served import Served
from edgekit_runtime.systemd import _listening, listen_fds, notifier, watchdog_seconds
from edgekit_runtime.tensors import TensorSpec
from edgekit_runtime.watchdog import feed, probe_of, watch

pytestmark = pytest.mark.slow

TELL = """
import os, sys
for number, one in enumerate(sys.argv[1:], start=3):
    os.dup2(int(one), number)
if sys.argv[1:]:
    os.environ.setdefault("LISTEN_PID", str(os.getpid()))
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.systemd import listen_fds
try:
    for name, found in listen_fds(os.environ):
        where = found.getsockname()
        print(name, found.family.name, where if isinstance(where, str) else where[1])
        print(found.get_inheritable(), found.getblocking())
except EdgeKitError as error:
    print("error", error.what)
"""


@pytest.fixture
def systemd(tmp_path):
    """The socket that systemd would read, by its path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(5)
        yield made


def test_systemd_hears_by_path(systemd):
    notify = notifier(systemd.getsockname())
    notify("READY=1\nSTATUS=two models")
    notify("WATCHDOG=1")
    assert systemd.recv(100) == b"READY=1\nSTATUS=two models"
    assert systemd.recv(100) == b"WATCHDOG=1"


def test_systemd_hears_by_abstract_name():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("")  # the kernel picks an abstract name
        made.settimeout(5)
        notifier("@" + made.getsockname()[1:].decode())("READY=1")
        assert made.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, ""])
def test_without_systemd_nothing_is_told(address):
    notifier(address)("READY=1")


def test_a_supervisor_that_is_gone_or_deaf_stops_nobody(tmp_path, systemd, caplog):
    with caplog.at_level(logging.WARNING):
        notifier(str(tmp_path / "none"))("READY=1")
    assert "systemd was not told READY" in caplog.text
    caplog.clear()
    notify = notifier(systemd.getsockname())
    start = time.monotonic()
    with caplog.at_level(logging.WARNING):
        for _ in range(100_000):
            notify("WATCHDOG=1")
            if caplog.text:
                break
    assert "was not told WATCHDOG" in caplog.text
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("address", ["vsock:2:1", "relative", "/", "@"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(EdgeKitError, match="not a Unix socket"):
        notifier(address)


def passed(sockets, env):
    """What a fresh process finds in the sockets passed to it from file descriptor 3 on."""
    fds = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 50) for one in sockets]
    command = [sys.executable, "-c", TELL, *map(str, fds)]
    try:
        done = subprocess.run(
            command, env={**os.environ, **env}, pass_fds=fds, capture_output=True, text=True, timeout=60, check=True
        )
    finally:
        for fd in fds:
            os.close(fd)
    return done.stdout.splitlines()


def test_sockets_that_systemd_opened_are_taken_over_by_name(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        told = passed([tcp, six, unix], {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "http:six"})
        assert told == [
            *(f"http AF_INET {tcp.getsockname()[1]}", "False False"),
            *(f"six AF_INET6 {six.getsockname()[1]}", "False False"),
            *(f"unknown AF_UNIX {tmp_path}/s", "False False"),
        ]


def test_sockets_for_another_process_are_not_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        assert passed([tcp], {"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == []
    assert listen_fds({}) == []
    assert listen_fds({"LISTEN_FDS": "1"}) == []


def test_what_is_not_a_listening_socket_is_refused(tmp_path):
    with socket.socket() as idle, (tmp_path / "f").open("wb") as file:
        assert passed([idle], {"LISTEN_FDS": "1"}) == ["error file descriptor 3 is not a listening stream socket"]
        assert passed([file], {"LISTEN_FDS": "1"}) == ["error file descriptor 3 is not a socket"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        packets.bind(("127.0.0.1", 0))
        assert passed([packets], {"LISTEN_FDS": "1"}) == ["error file descriptor 3 is not a listening stream socket"]
    with pytest.raises(EdgeKitError, match="was not passed"):
        _listening(9_999)
    for count in ("", "x", "-1", "65", "9" * 30):
        with pytest.raises(EdgeKitError, match="number of sockets"):
            listen_fds({"LISTEN_PID": "7", "LISTEN_FDS": count}, pid=7)


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="needs systemd-socket-activate")
def test_systemds_own_activation_is_understood(tmp_path):
    path = tmp_path / "s"
    tool = ["systemd-socket-activate", "-l", str(path), "--fdname=http", sys.executable, "-c", TELL]
    started = subprocess.Popen(tool, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        until = time.monotonic() + 30
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(path)) and time.monotonic() < until:
                time.sleep(0.05)
            told = started.communicate(timeout=60)[0].splitlines()
    finally:
        started.kill()
    assert told == [f"http AF_UNIX {path}", "False False"]


def test_the_watchdogs_interval_is_for_this_process_alone():
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000"}) == 30.0
    assert watchdog_seconds({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, pid=7) == 0.5
    assert watchdog_seconds({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, pid=7) is None
    for text in ("", "0", "-1", "x", "9" * 40):
        assert watchdog_seconds({"WATCHDOG_USEC": text}) is None
    assert watchdog_seconds({}) is None


SPEC = TensorSpec("x", "float32", (None, 2))


def lane(run, queue=8, sample=True):
    feeds = {"x": np.ones((1, 2), np.float32)} if sample else None
    served = Served("m", "1", "fake", (SPEC,), (SPEC,), lambda feeds: {"x": feeds["x"]}, sample=feeds)
    made = Lane(served, LaneOptions(queue=queue))
    made._run = run
    return made


async def until(true):
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def watched(lanes, enough, interval=0.2, after=lambda: None):
    """What systemd was told until that was enough; then the lanes are closed."""
    told = []
    task = asyncio.create_task(watch(lambda: lanes, interval, told.append))
    await until(lambda: enough(told))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    after()
    for one in lanes:
        await one.close()
    return told


def test_each_sign_of_life_is_earned_by_an_inference_of_every_model():
    ran = {"a": 0, "b": 0}

    def one(name):
        def run(feeds):
            ran[name] += 1
            return feeds

        return lane(run)

    start = time.monotonic()
    told = asyncio.run(watched([one("a"), one("b")], lambda told: len(told) >= 4))
    assert set(told) == {"WATCHDOG=1"}
    assert len(told) - 1 <= (time.monotonic() - start) / 0.1
    assert min(ran.values()) >= len(told)


def test_one_engine_that_hangs_ends_the_signs_of_life(caplog):
    free = threading.Event()
    hung = lane(lambda feeds: free.wait(30) and feeds)
    with caplog.at_level(logging.ERROR):
        lanes = [lane(lambda feeds: feeds), hung]
        enough = "model m 1 does not answer"
        assert asyncio.run(watched(lanes, lambda told: caplog.text.count(enough) > 2, after=free.set)) == []


def test_an_engine_that_recovers_is_vouched_for_again():
    calls = []

    def run(feeds):
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("the driver is gone")
        return feeds

    told = asyncio.run(watched([lane(run)], lambda told: len(told) > 2))
    assert len(told) <= len(calls) - 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_gone_nan_is_not_vouched_for(bad, caplog):
    answers = iter([1.0])

    async def story():
        lanes = [lane(lambda feeds: {"x": feeds["x"] * next(answers, bad)})]
        probe = probe_of(lambda: lanes, 1.0)
        await probe()
        with pytest.raises(EdgeKitError, match="NaN or Infinity in x"):
            await probe()

    asyncio.run(story())


def test_a_model_whose_mask_is_always_infinite_is_no_hang():
    async def story():
        lanes = [lane(lambda feeds: {"x": feeds["x"] * -np.inf})]
        probe = probe_of(lambda: lanes, 1.0)
        await probe()
        await probe()

    asyncio.run(story())


def test_a_busy_model_is_alive_and_a_full_queue_that_does_not_move_is_not():
    async def story(work, patience, pause):
        slow = lane(lambda feeds: (work(), feeds)[1], queue=1)
        feeds = {"x": np.ones((1, 2), np.float32)}
        probe = probe_of(lambda: [slow], patience)

        async def load():
            while True:
                with contextlib.suppress(EdgeKitError):
                    await slow.infer(feeds)
                await asyncio.sleep(0.001)

        clients = [asyncio.create_task(load()) for _ in range(4)]
        await asyncio.sleep(0.05)
        try:
            for _ in range(3):
                with contextlib.suppress(EdgeKitError):
                    await probe()
                await asyncio.sleep(pause)
            await probe()
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            free.set()
            await slow.close()

    free = threading.Event()
    asyncio.run(story(lambda: time.sleep(0.05), 1.0, 0.7))
    free.clear()
    with pytest.raises(EdgeKitError, match="does not answer"):
        asyncio.run(story(lambda: free.wait(60), 0.2, 0.15))


def test_a_model_without_a_recording_is_left_out():
    assert asyncio.run(watched([lane(lambda feeds: 1 / 0, sample=False)], lambda told: told))


def test_a_probe_that_never_ends_is_cut_off(caplog):
    async def story():
        told = []
        task = asyncio.create_task(feed(asyncio.Event().wait, 0.1, told.append))
        await until(lambda: caplog.text.count("did not answer within") > 1)
        task.cancel()
        return told

    with caplog.at_level(logging.ERROR):
        assert asyncio.run(story()) == []
