"""`make field`: a bundle served with its page while photos come in as from a camera at work; then its lens slips.

Refuses, with the reason, a folder in which another one runs; and goes on with no command that failed."""

import argparse
import fcntl
import io
import json
import math
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageEnhance, ImageFilter

from examples.demo import EXAMPLE, ROOT, WORK, out
from examples.efficientnet_lite0.photos import photos
from examples.efficientnet_lite0.weights import weights
from examples.fetch import CannotFetch

MODEL = "efficientnet-lite0"
TRUE_CLASS = re.compile(r"imagenet_\d+_(\d+)-\d+")
"""The photographs' own names tell what is on them; a crop of one shows the same."""
BLUR, SLIPPING = 3.0, 5.0
"""Pixels, and the seconds until it is so bad."""
SHIFT, DAY, SWING, FLICKER = 6, 60.0, 0.04, 0.015
"""Pixels by which no photo lies as the last one; how the light comes and goes, and how it flickers."""
INSPECTED, LATER = 0.35, (2.0, 8.0)
"""The part of the photos that somebody looks at too, and how many seconds later it is said what they were."""
LONGEST_GAP = 4.0
"""Things come unevenly, but there is never more than so many times the usual pause."""


class Stopped(Exception):
    """It cannot go on, in one line."""


@dataclass
class Camera:
    """What took the photos, and what is still to be said of them: (when, id, class)."""

    files: list[Path]
    blur_after: float
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    due: list[tuple[float, str, int]] = field(default_factory=list)
    sent: int = 0
    refused: int = 0

    def take(self, since: float) -> tuple[str, bytes]:
        """The id and the bytes of the next photo, `since` seconds after the first."""
        path, id = self.dice.choice(self.files), uuid.uuid4().hex
        found = TRUE_CLASS.match(path.stem)
        if found and self.dice.random() < INSPECTED:
            self.due.append((since + self.dice.uniform(*LATER), id, int(found[1])))
        blur = BLUR * min(1.0, max(0.0, since - self.blur_after) / SLIPPING)
        return id, _photo(path, self.dice, 1 + SWING * math.sin(2 * math.pi * since / DAY), blur)

    def told(self, since: float) -> list[dict[str, Any]]:
        """What somebody has looked at by now."""
        now = [{"id": id, "label": number} for when, id, number in self.due if when <= since]
        self.due = [one for one in self.due if one[0] > since]
        return now


def main() -> int:
    """Build, serve, send photos until it is interrupted or the time is over."""
    given = _given()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no server is left behind
    try:
        with _alone(given.folder):
            return _field(given)
    except (CannotFetch, Stopped) as error:
        out.print(f"error: {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _field(given: argparse.Namespace) -> int:
    _refuse_taken(given.port)
    file, folders = weights(WORK, out.print), photos(WORK, out.print)
    bundle, state = given.folder / f"{MODEL}-x86-64-v3.edgekit", given.folder / "state"
    build = [
        "build", f"{EXAMPLE / 'model.py'}:model", "--weights", file, "--data", folders.evaluation,
        "--calibration", folders.calibration, "--labels", EXAMPLE / "labels.txt", "--metric", "cosine",
        "--max-drop", "8%", "--name", MODEL, "--target", "x86-64-v3", "--with-float", "--out", bundle,
    ]  # fmt: skip
    if code := subprocess.run([sys.executable, "-m", "edgekit", *map(str, build)], cwd=ROOT).returncode:
        return code
    state.mkdir(exist_ok=True)
    (state / "feedback.json").unlink(missing_ok=True)  # the last run's blurred photos count no more: the lens is new
    camera = Camera(sorted(folders.evaluation.glob("*.jpg")), given.blur_after)
    with _serving(bundle, state, given.port) as (server, url):
        out.print(f"open {url} in a browser; the lens slips after {given.blur_after:g} s (Ctrl-C ends it)")
        try:
            _send(url, camera, server, given)
        except KeyboardInterrupt:
            out.print()
    out.print(f"{camera.sent:,} photos, of which {camera.refused:,} were refused; those worth a look:")
    out.print(f"  edgekit pull-samples {_short(state)} --out pulled", soft_wrap=True)
    return 0


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.field", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (8000)")
    parser.add_argument("--rate", type=float, default=8.0, help="photos a second (8)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long (never)")
    parser.add_argument("--blur-after", type=float, default=120.0, metavar="SECONDS", help="until the lens slips (120)")
    parser.add_argument("--folder", type=Path, default=WORK / "field", help="for the bundle and the server's state")
    given = parser.parse_args()
    if not (given.rate > 0 and given.seconds > 0 and given.blur_after >= 0):
        parser.error("--rate and --seconds are above 0, --blur-after is not below")
    given.folder = given.folder.resolve()
    return given


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder: a second one would write a new bundle under the first one's server."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stopped(f"another one runs in {_short(folder)}: end it, or say --folder DIR") from None
        yield


def _refuse_taken(port: int) -> None:
    """Say it before the build, which takes minutes; the server says it again where somebody was quicker."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except (OSError, OverflowError) as error:
        raise Stopped(f"port {port} cannot be had ({error}): say --port 0") from None


@contextmanager
def _serving(bundle: Path, state: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server and where it listens; it is ended in any case. What is wrong it says itself."""
    command = [
        "serve", bundle, "--port", port, "--json", "--feedback", "--shadow", "0.05",
        "--state", state, "--telemetry-mb", "16", "--keep-samples", "20",
    ]  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "edgekit_runtime", *map(str, command)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        if not line:
            raise Stopped(f"the server did not start (exit code {server.wait()})")
        yield server, json.loads(line)["http"]
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()


def _send(url: str, camera: Camera, server: subprocess.Popen[str], given: argparse.Namespace) -> None:
    """Photo after photo, at uneven times; and, later, what was on some of them."""
    begun, then = time.monotonic(), 0.0
    while (since := time.monotonic() - begun) < given.seconds:
        id, photo = camera.take(since)
        camera.sent += 1
        asked = f"{url}/v2/models/{MODEL}/infer"
        camera.refused += not _post(server, asked, photo, {"Content-Type": "image/jpeg", "X-Request-Id": id})
        if told := camera.told(since):
            _post(server, f"{url}/feedback", json.dumps(told).encode(), {"Content-Type": "application/json"})
        then = max(then, since) + min(camera.dice.expovariate(given.rate), LONGEST_GAP / given.rate)
        time.sleep(max(0.0, min(begun + then, begun + given.seconds) - time.monotonic()))


def _photo(path: Path, dice: random.Random, light: float, blur: float) -> bytes:
    """What the camera makes of it: never quite in the same place, never quite in the same light."""
    photo = Image.open(path).convert("RGB")
    left, top, right, bottom = (dice.randrange(SHIFT) for _ in range(4))
    photo = photo.crop((left, top, photo.width - right, photo.height - bottom))
    photo = ImageEnhance.Brightness(photo).enhance(light + dice.gauss(0, FLICKER))
    if blur:
        photo = photo.filter(ImageFilter.GaussianBlur(blur))
    packed = io.BytesIO()
    photo.save(packed, "JPEG", quality=dice.randint(85, 95))
    return packed.getvalue()


def _post(server: subprocess.Popen[str], url: str, body: bytes, headers: dict[str, str]) -> bool:
    """Whether it was taken. A server that is busy may refuse; one that is gone ends all."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as reply:
            reply.read()
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError as error:
        if (code := server.poll()) is not None:
            raise Stopped(f"the server ended (exit code {code})") from error
        return False


def _short(path: Path) -> str:
    return str(path).removeprefix(f"{ROOT}/")


if __name__ == "__main__":
    sys.exit(main())
