"""A whole emulated arm64 machine with systemd and ssh whose power can be cut; built once, minutes, outside the tree.

Refuses to run where the script for it is not beside this repository, and to build without root and Debian's tools."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit.isolated import default_cache

SCRIPT = Path(__file__).parents[2] / "shared" / "tools" / "arm64-machine.sh"
PARTS = ("vmlinuz", "initrd.gz", "pristine.qcow2", "booted.qcow2", "config", "id", "known_hosts", ".arm-machine")
TOOLS = ("qemu-system-aarch64", "qemu-img", "qemu-aarch64-static", "mmdebstrap", "mke2fs", "cpio", "ssh")


def missing() -> str | None:
    """Why there can be no such machine here; None where there can."""
    if not SCRIPT.is_file():
        return "the script that makes the emulated machine is not here"
    if (_home() / ".built").is_file():
        return None
    if os.geteuid() != 0:
        return "building the emulated machine takes root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    return f"the emulated machine takes {', '.join(lacking)}" if lacking else None


class CannotBuild(Exception):
    """The machine could not be made here; says why."""


@dataclass(frozen=True)
class Machine:
    """A machine in its folder. Times measured in it are nobody's."""

    folder: Path

    @property
    def ssh_config(self) -> Path:
        """By this ssh reaches it, under the name `device`; written anew at each start."""
        return self.folder / "ssh_config"

    def start(self, *words: str) -> None:
        """Switch it on and wait for ssh; with `--from-saved` a new one that had booted, else from its own disk."""
        self._say("start", *words)

    def cut(self) -> None:
        """The power fails."""
        self._say("cut")

    def ssh(self, command: str, seconds: float = 300) -> str:
        """What a shell line there prints. Raises CalledProcessError where it fails."""
        words = ["ssh", "-F", str(self.ssh_config), "device", command]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds).stdout

    def until(self, command: str, seconds: float = 300) -> str:
        """What it prints as soon as it succeeds."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.ssh(command)
            except subprocess.CalledProcessError as error:
                if time.monotonic() > end:
                    raise AssertionError(f"{command}: {error.stderr or error.stdout}") from error
                time.sleep(1)

    def get(self, path: str, port: int = 8000) -> object:
        """The JSON that its own server answers to a GET."""
        line = (
            f"import urllib.request as u;print(u.urlopen('http://127.0.0.1:{port}{path}',timeout=60).read().decode())"
        )
        return json.loads(self.until(f'python3 -c "{line}"'))

    def _say(self, verb: str, *words: str) -> None:
        done = subprocess.run(["bash", SCRIPT, verb, self.folder, *words], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """A new machine, on and booted, in `folder`; off at the end."""
    home = _built()
    for name in PARTS:
        shutil.copy(home / name, folder / name)
    made = Machine(folder)
    made.start("--from-saved")
    try:
        yield made
    finally:
        made.cut()


def _home() -> Path:
    return default_cache() / "tests" / "machine"


def _built() -> Path:
    """The folder of the machine that all are copies of."""
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    command = ["bash", SCRIPT, "build", home, "--packages", "libstdc++6"]  # the engines and numpy need that library
    for _ in range(2):  # its first boot is saved over a monitor that may miss the last word
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        if done.returncode == 0:
            return home
        subprocess.run(["bash", SCRIPT, "cut", home], capture_output=True, timeout=60)
    raise CannotBuild(done.stdout + done.stderr)
