"""Debian's Prometheus for tests: promtool, and a server on a free port of loopback that scrapes what it is told to.

Refuses to leave a server behind; a machine where it can neither be found nor fetched skips the test."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples import fetch

START_SECONDS = 30.0


@dataclass(frozen=True)
class Prometheus:
    """Where it listens."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What the expression gives now; one that Prometheus does not understand fails the test."""
        found: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """The one number that it gives; None where it gives nothing."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def api(self, what: str, **words: str) -> Any:
        """The data that its API answers."""
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(address, timeout=20) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{words}: {error.read().decode()}") from error
        assert told["status"] == "success", told
        assert not told.get("warnings"), told
        return told["data"]


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`: this machine's, or Debian's, unpacked once."""
    found = shutil.which(name)
    if found:
        return found
    try:
        return str(fetch.debian("prometheus", {}) / "usr" / "bin" / name)
    except fetch.CannotFetch as error:
        pytest.skip(f"no {name} here: {error}")


def promtool(*words: str | Path, given: str | None = None) -> "subprocess.CompletedProcess[str]":
    """One run of promtool."""
    command = [program("promtool"), *map(str, words)]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def scraping(
    folder: Path, targets: Sequence[str], *options: str, rules: Path | None = None, path: str = "/metrics"
) -> Iterator[Prometheus]:
    """A server that scrapes these host:port each second under the job "edgekit", until the end of the block."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [
            {"job_name": "edgekit", "metrics_path": path, "static_configs": [{"targets": list(targets)}]}
        ],
    }
    (folder / "prometheus.json").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    port = _free_port()
    words = ["--config.file", str(folder / "prometheus.json"), "--storage.tsdb.path", str(folder / "data")]
    command = [program("prometheus"), *words, "--web.listen-address", f"127.0.0.1:{port}", *options]
    log = folder / "prometheus.log"
    with (
        log.open("wb") as sink,
        subprocess.Popen(command, stdout=sink, stderr=sink, env={**os.environ, "GOMAXPROCS": "1"}) as process,
    ):
        try:
            one = Prometheus(f"http://127.0.0.1:{port}")
            assert until(lambda: process.poll() is not None or _ready(one)), log.read_text()
            assert process.poll() is None, log.read_text()
            yield one
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def until(true: Callable[[], Any], seconds: float = START_SECONDS) -> bool:
    """Whether `true()` becomes true in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _ready(one: Prometheus) -> bool:
    try:
        with urllib.request.urlopen(f"{one.url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
