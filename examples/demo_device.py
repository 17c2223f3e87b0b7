"""`make demo-device`: a device behind a real ssh server gets four versions of a model; two of them it does not keep.

Refuses to go on when a step ends otherwise than the story says, with that step's own words."""

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError

from examples.demo import CHELSEA, EXAMPLE, ROOT, WORK, out
from examples.efficientnet_lite0.photos import photos
from examples.efficientnet_lite0.weights import weights
from examples.faulty import crashes_on_black, wrong_scales
from examples.fetch import CannotFetch
from examples.sshd import Server, serving

HOME = WORK / "device"
MODEL = "efficientnet-lite0"
TARGETS = {"x86_64": "x86-64-v3", "aarch64": "rpi5"}
PROBATION = 6
INIT = """#!/bin/sh
# What systemd does on a real device: start the server, and again when it ends.
while :; do
  [ -x {runtime} ] && {runtime} serve --device {folder} --port {port} >> {log} 2>&1
  sleep 1
done
"""


def main() -> int:
    """The story, step by step."""
    started = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    try:
        built = {version: _build(version) for version in (1, 2)}
        (HOME / "sshd").mkdir()
        with serving(HOME / "sshd") as server, _device(HOME / "pi") as port:
            _story(server, port, built)
    except (CannotFetch, EdgeKitError, Unexpected) as error:
        out.print(f"error: {error}", markup=False)
        return 1
    out.print(f"\ndone in {time.monotonic() - started:.0f} s; the device's folder is {_short(HOME / 'pi')}")
    return 0


class Unexpected(Exception):
    """A step ended otherwise than the story says."""


def _story(server: Server, port: int, built: dict[int, Path]) -> None:
    pi = _Pi(server, port)
    _chapter("Version 1 onto a device that has only Python and ssh: no runtime, no network")
    pi.flash(built[1])
    pi.until_good(1)
    _chapter("It serves: a photo, from here")
    out.print(_edgekit("predict", f"http://127.0.0.1:{port}", "--input", CHELSEA, "--top", "3"), markup=False)
    _chapter("Version 2, calibrated otherwise, takes its place without a lost request")
    pi.flash(built[2])
    pi.until_good(2)
    _chapter("Version 3 loads, and answers wrongly: three scales were halved on the way")
    pi.flash(wrong_scales(built[2], HOME / "v3", _secret()), fails="recorded inputs")
    pi.serves(2)
    _chapter("Version 4 passes the replay, and falls over in use: by the first photo that is all black")
    pi.flash(crashes_on_black(built[2], HOME / "v4", _secret()), probation=600)
    pi.serves(4)
    for _ in range(8):
        if pi.version() != "4":
            break
        pi.dark_photo()
    pi.until_good(2)
    _chapter("What the device remembers")
    out.print(pi.runtime("history", MODEL), markup=False)


class _Pi:
    """The device as the story meets it: by ssh, and by its own HTTP."""

    def __init__(self, server: Server, port: int) -> None:
        self._there = ("--ssh-config", server.config, "--device", HOME / "pi" / "lib", "--prefix", HOME / "pi" / "opt")
        self._first = True
        self._url, self._http = server.url(), f"http://127.0.0.1:{port}"

    def flash(self, bundle: Path, fails: str | None = None, probation: int = PROBATION) -> None:
        """Flash it and show what is said; `fails` is a word of the refusal that has to come."""
        out.print(f"[bold]$ edgekit flash {_short(bundle)} ssh://pi --yes --probation {probation}[/]", soft_wrap=True)
        words = ("--keys", HOME.with_name("keys"), "--yes", "--probation", probation, "--quiet")
        done = _ran("flash", bundle, self._url, *words, *self._there)
        told = [line for line in done.stdout.splitlines() if self._first or not line.startswith("ok ")]
        self._first = False
        out.print("\n".join(told).strip(), markup=False, soft_wrap=True)
        if done.returncode:
            out.print(done.stderr.rstrip(), markup=False, soft_wrap=True)
        if (done.returncode == 0) is (fails is not None) or (fails and fails not in done.stderr):
            raise Unexpected(f"flashing {bundle.name} was to {'be refused' if fails else 'go well'}:\n{done.stderr}")

    def runtime(self, *words: str) -> str:
        """What the device's own command says."""
        command = [HOME / "pi/opt/current/bin/edgekit-runtime", *words, "--device", HOME / "pi/lib"]
        return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip()

    def version(self) -> str | None:
        """The version that answers now; None while nothing does."""
        try:
            with urllib.request.urlopen(f"{self._http}/v2/models/{MODEL}", timeout=30) as reply:
                return str(json.load(reply)["versions"][-1])
        except (OSError, ValueError):
            return None

    def serves(self, version: int) -> None:
        """Wait until that version answers, for a minute at most."""
        self._until(lambda: self.version() == str(version), f"version {version} was to answer")
        out.print(f"[green]version {version} answers[/]")

    def until_good(self, version: int) -> None:
        """Wait until that version answers and is no longer on trial."""

        def good() -> bool:
            found = json.loads(self.runtime("status", "--json"))
            slot = next(one for one in found["models"] if one["name"] == MODEL)
            return slot["trial"] is None and self.version() == str(version)

        self._until(good, f"version {version} was to be good")
        out.print(f"[green]version {version} answers, and is kept[/]")

    def dark_photo(self) -> None:
        """Send a photo that is all black, to which version 4 has no answer, and wait until the server is back."""
        from io import BytesIO

        from PIL import Image

        file = BytesIO()
        Image.new("RGB", (320, 320)).save(file, "PNG")
        headers = {"Content-Type": "image/png"}
        request = urllib.request.Request(f"{self._http}/v2/models/{MODEL}/infer", file.getvalue(), headers)
        try:
            urllib.request.urlopen(request, timeout=30).close()
            out.print("a black photo: answered")
        except (OSError, urllib.error.HTTPError) as error:
            out.print(f"a black photo: no answer ({type(error).__name__}); the server is started again", markup=False)
        self._until(lambda: self.version() is not None, "the server was to come back")

    def _until(self, true: Any, what: str) -> None:
        end = time.monotonic() + 120
        while not true():
            if time.monotonic() > end:
                raise Unexpected(f"{what}; see {HOME / 'pi' / 'log'}")
            time.sleep(0.3)


@contextmanager
def _device(folder: Path) -> Iterator[int]:
    """What runs on the device besides ssh: its init. Gives the port of its server."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = {"runtime": folder / "opt/current/bin/edgekit-runtime", "folder": folder / "lib", "port": port}
    (folder / "init").write_text(INIT.format(**words, log=folder / "log"))
    init = subprocess.Popen(["sh", folder / "init"], start_new_session=True)
    try:
        yield port
    finally:
        os.killpg(init.pid, signal.SIGTERM)
        init.wait()


def _build(version: int) -> Path:
    """The bundle of that version; the second is calibrated on fewer photos."""
    file, folders = weights(WORK, out.print), photos(WORK, out.print)
    target = TARGETS.get(platform.machine(), "x86-64-v3")
    place = HOME / f"v{version}"
    words = [
        "build", f"{EXAMPLE / 'model.py'}:model", "--weights", file, "--target", target, "--format", "onnx",
        "--data", folders.evaluation, "--calibration", folders.calibration, "--calibration-samples", 96 // version,
        "--labels", EXAMPLE / "labels.txt", "--metric", "cosine", "--max-drop", "8%", "--name", MODEL,
        "--bundle-version", version, "--release", version, "--keys", HOME.with_name("keys"), "--out", place,
    ]  # fmt: skip
    out.print(f"[bold]$ edgekit build model.py:model --target {target} --bundle-version {version} ...[/]")
    _edgekit(*words)
    return place


def _secret() -> bytes:
    from edgekit.keys import signing_key

    return signing_key(HOME.with_name("keys"))


def _chapter(words: str) -> None:
    out.print(f"\n[bold blue]{words}[/]")


def _ran(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgekit", *map(str, words)]
    environ = {**os.environ, "XDG_CONFIG_HOME": str(HOME / "host"), "XDG_STATE_HOME": str(HOME / "host")}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environ)


def _edgekit(*words: object) -> str:
    done = _ran(*words)
    if done.returncode:
        raise Unexpected(done.stderr)
    return done.stdout.rstrip()


def _short(path: Path) -> str:
    return str(path).removeprefix(f"{ROOT}/")


if __name__ == "__main__":
    raise SystemExit(main())
