"""Debian's docker-registry for tests, on a free port of loopback; nginx and a cutting line before it, skopeo beside it.

Refuses to leave a server behind; a machine where they can neither be found nor fetched skips the test."""

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from examples import fetch
from tests.prometheus_server import until
from tests.runtime.certificates import Paths

USER, PASSWORD = "keeper", "open sesame"
HASHED = "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy"
"""PASSWORD in bcrypt, as `htpasswd -B` writes it."""


@dataclass(frozen=True)
class Registry:
    """Where it listens (host:port), and what it keeps."""

    address: str
    data: Path

    def blob(self, digest: str) -> Path:
        """Where it keeps a blob."""
        name = digest.removeprefix("sha256:")
        return self.data / "docker" / "registry" / "v2" / "blobs" / "sha256" / name[:2] / name / "data"


def program(package: str, path: str) -> str:
    """A Debian program: this machine's, or unpacked once."""
    found = shutil.which(Path(path).name)
    if found:
        return found
    try:
        return str(fetch.debian(package, {}) / path)
    except fetch.CannotFetch as error:
        pytest.skip(f"no {package} here: {error}")


@contextmanager
def serving(
    folder: Path, login: bool = False, tls: Paths | None = None, token: dict[str, str] | None = None
) -> Iterator[Registry]:
    """The registry, until the end of the block; with a login (USER, PASSWORD), TLS, or a server of tokens if asked."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}", "secret": "for tests"}
    if tls is not None:
        http["tls"] = {"certificate": str(tls.cert), "key": str(tls.key)}
    config: dict[str, Any] = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": http,
    }
    if login:
        (folder / "htpasswd").write_text(f"{USER}:{HASHED}\n", encoding="utf-8")
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    if token is not None:
        config["auth"] = {"token": token}
    (folder / "registry.yml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    command = [program("docker-registry", "usr/bin/docker-registry"), "serve", str(folder / "registry.yml")]
    with _running(command, folder / "registry.log", port):
        yield Registry(f"127.0.0.1:{port}", folder / "data")


@contextmanager
def gathering(folder: Path, registry: Registry) -> Iterator[str]:
    """nginx as people put it before a registry: it hands a request on once it has all of it. Its host:port."""
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; worker_processes 1;\n"
        f"pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        f"events {{ worker_connections 64; }}\nhttp {{ access_log off; client_max_body_size 0;\n"
        + "".join(
            f" {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f" server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{registry.address};\n"
        "  proxy_set_header Host $http_host; } } }\n",
        encoding="utf-8",
    )
    command = [program("nginx", "usr/sbin/nginx"), "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    with _running(command, folder / "nginx.out", port, ready="/v2/"):
        yield f"127.0.0.1:{port}"


def skopeo(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """One run of skopeo, over plain HTTP."""
    path = program("skopeo", "usr/bin/skopeo")
    env = {**os.environ, "HOME": "/nonexistent", "NO_PROXY": "*"}
    if not shutil.which("skopeo"):
        try:
            roots = [fetch.debian(package, {}) for package in ("libgpgme11", "libassuan0")]
        except fetch.CannotFetch as error:
            pytest.skip(f"no skopeo here: {error}")
        env["LD_LIBRARY_PATH"] = ":".join(str(found) for root in roots for found in root.glob("usr/lib/*-linux-gnu"))
    command = [path, "--insecure-policy", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)


@dataclass
class Line:
    """A line to a server that can be cut: `up` and `down` count the bytes that went over it, `cuts` how often it was.

    After `limit` bytes in the direction `way` ("up" or "down") since the last cut it is cut, `left` more times."""

    address: str
    to: tuple[str, int]
    way: str = "up"
    limit: int = 0
    left: int = 0
    up: int = 0
    down: int = 0
    cuts: int = 0
    since: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, way: str, size: int) -> bool:
        """Note `size` bytes; whether the connection is to be cut now."""
        with self.lock:
            setattr(self, way, getattr(self, way) + size)
            self.since += size if way == self.way else 0
            if way != self.way or not self.left or self.since < self.limit:
                return False
            self.left, self.cuts, self.since = self.left - 1, self.cuts + 1, 0
            return True


@contextmanager
def line(to: str, way: str = "up", limit: int = 0, cuts: int = 0) -> Iterator[Line]:
    """A TCP line to host:port, until the end of the block."""
    host, _, port = to.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as door:
        made = Line(f"127.0.0.1:{door.getsockname()[1]}", (host, int(port)), way, limit, cuts)
        threading.Thread(target=_accept, args=(door, made), daemon=True).start()
        try:
            yield made
        finally:
            door.shutdown(socket.SHUT_RDWR)


def _accept(door: socket.socket, made: Line) -> None:
    with suppress(OSError):
        while True:
            near = door.accept()[0]
            far = socket.create_connection(made.to)
            for way, source, sink in (("up", near, far), ("down", far, near)):
                threading.Thread(target=_pump, args=(made, way, source, sink), daemon=True).start()


def _pump(made: Line, way: str, source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(2**14):
            if made.count(way, len(piece)):
                for end in (source, sink):
                    if way == "up":  # no polite farewell: what is on its way is lost, too
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)
                    end.close()
                return
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def _running(command: list[str], log: Path, port: int, ready: str = "") -> Iterator[None]:
    with (
        log.open("wb") as sink,
        subprocess.Popen(command, stdout=sink, stderr=sink, env={**os.environ, "GOMAXPROCS": "2"}) as process,
    ):
        try:
            assert until(lambda: process.poll() is not None or _answers(port, ready)), log.read_text(errors="replace")
            assert process.poll() is None, log.read_text(errors="replace")
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(port: int, ready: str) -> bool:
    try:
        if ready:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{port}{ready}", timeout=5):
                return True
        socket.create_connection(("127.0.0.1", port), 1).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        time.sleep(0.05)
        return False
    return True


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
