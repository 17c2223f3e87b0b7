"""Devices for the tests of flashing: folders behind a real OpenSSH server, and a link to them that can be cut.

Refuses nothing; the servers that were started there are ended with the test."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import MANIFEST, read_manifest
from edgekit_runtime.device import Device
from edgekit_runtime.running import server as server_of

from edgekit import keys
from edgekit.bundle import seal
from examples.sshd import Server
from tests.runtime.bundles import make_bundle

WRAPPER = '''#!{python} -S
"""ssh, whose connection breaks at the step of that number: before it, amid it, or once it is done."""
import os, signal, subprocess, sys, time

folder, real = {folder!r}, {real!r}
at = int(open(folder + "/at").read())
how = open(folder + "/how").read()
if "ControlMaster=yes" in sys.argv:
    open(folder + "/master", "w").write(str(os.getpid()))
    os.execv(real, ["ssh", *sys.argv[1:]])
with open(folder + "/steps", "a") as steps:
    steps.write("x")
    step = steps.tell()


def cut():
    os.kill(int(open(folder + "/master").read()), signal.SIGKILL)


if step == at and how == "before":
    cut()
    sys.exit(255)
if step != at:
    os.execv(real, ["ssh", *sys.argv[1:]])
if how == "after":
    subprocess.run([real, *sys.argv[1:]])
    cut()
    sys.exit(255)
process = subprocess.Popen([real, *sys.argv[1:]], stdin=subprocess.PIPE)
left = 30_000
while left and (piece := os.read(0, left)):
    process.stdin.write(piece)
    process.stdin.flush()
    left -= len(piece)
if not left:
    time.sleep(0.2)
cut()
process.kill()
process.wait()
sys.exit(255)
'''


@dataclass(frozen=True)
class There:
    """A device: the server before it, its folders, and what of ours lies here."""

    server: Server
    folder: Path

    @property
    def device(self) -> Path:
        return self.folder / "device"

    @property
    def prefix(self) -> Path:
        return self.folder / "prefix"

    @property
    def url(self) -> str:
        return self.server.url()

    def words(self) -> list[str]:
        """The options that name it."""
        words = ["--ssh-config", self.server.config, "--device", self.device, "--prefix", self.prefix, "--user"]
        return [str(word) for word in words]

    def live(self, name: str = "tiny") -> str | None:
        """The version that it would serve, by its manifest; all of its bytes are there."""
        store = Device(self.device).store
        slot = store.slot(name)
        if slot is None or slot.live is None:
            return None
        version = store.version(name, slot.live)
        for file, entry in version.manifest.files.items():
            with store.files(version).open(file) as opened:
                assert len(opened.read()) == entry.size
        return version.manifest.version


@contextmanager
def a_device(server: Server, folder: Path) -> Iterator[There]:
    """An empty one."""
    folder.mkdir(parents=True, exist_ok=True)
    found = There(server, folder)
    try:
        yield found
    finally:
        stop(found)


def stop(there: There) -> None:
    """End the server that was started there."""
    for _ in range(100):
        running = server_of(there.device)
        if running is None:
            return
        os.kill(running.pid, signal.SIGTERM)
        time.sleep(0.1)


def a_bundle(folder: Path, version: str = "1", release: int = 1, sign: bool = True, noise: int = 0) -> Path:
    """A tiny ONNX bundle of that version, signed by our first key; with so many bytes that no other has."""
    make_bundle(folder, version=version)
    if noise:
        (folder / "report.html").write_bytes(os.urandom(noise))
    manifest = replace(read_manifest(folder), release=release)
    (folder / MANIFEST).unlink()
    seal(folder, manifest, keys.signing_key(keys.default_home()) if sign else None)
    return folder


@dataclass(frozen=True)
class Said:
    """What a run of the command line said."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> Any:
        """Its JSON."""
        return json.loads(self.out.splitlines()[-1])


def edgekit(*words: str | Path, path: Path | None = None) -> Said:
    """Run `edgekit WORDS` as its own process; `path` comes first in PATH."""
    env = {**os.environ, **({"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"} if path else {})}
    command = [sys.executable, "-m", "edgekit", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=600)
    return Said(done.returncode, done.stdout, done.stderr)


def breaking(folder: Path, at: int, how: str) -> Path:
    """A folder for PATH whose ssh loses its connection at that step."""
    folder.mkdir()
    (folder / "at").write_text(str(at))
    (folder / "how").write_text(how)
    (folder / "steps").touch()
    real = shutil.which("ssh")
    assert real
    (folder / "ssh").write_text(WRAPPER.format(python=sys.executable, folder=str(folder), real=real))
    (folder / "ssh").chmod(stat.S_IRWXU)
    return folder


def steps(folder: Path) -> int:
    """How many steps were begun through it."""
    return (folder / "steps").stat().st_size
