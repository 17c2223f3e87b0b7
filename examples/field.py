"""`make field`: a bundle served with its page while real photos come in; after a while they are blurred, and it shows.

Refuses to go on when the build fails or the port is taken, with the command's own error."""

import argparse
import io
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

from PIL import Image, ImageFilter

from examples.demo import EXAMPLE, ROOT, WORK, out
from examples.efficientnet_lite0.photos import photos
from examples.efficientnet_lite0.weights import weights
from examples.fetch import CannotFetch

MODEL = "efficientnet-lite0"
BUNDLE = WORK / "field" / "efficientnet-lite0-x86-64-v3.edgekit"
BLUR = 3.0
"""Pixels: as a lens that has slipped out of focus."""
TRUE_CLASS = re.compile(r"imagenet_\d+_(\d+)-\d+")
"""The photographs' own names tell what is on them; a crop of one shows the same."""


def main() -> int:
    """Build, serve, send photos until it is interrupted or the time is over."""
    given = _given()
    try:
        file, folders = weights(WORK, out.print), photos(WORK, out.print)
    except CannotFetch as error:
        out.print(f"error: {error}")
        return 1
    build = [
        "build", f"{EXAMPLE / 'model.py'}:model", "--weights", file, "--data", folders.evaluation,
        "--calibration", folders.calibration, "--labels", EXAMPLE / "labels.txt", "--metric", "cosine",
        "--max-drop", "8%", "--name", MODEL, "--target", "x86-64-v3", "--with-float", "--out", BUNDLE,
    ]  # fmt: skip
    if code := subprocess.run([sys.executable, "-m", "edgekit", *map(str, build)], cwd=ROOT).returncode:
        return code
    serve = [
        "serve", BUNDLE, "--port", given.port, "--json", "--feedback", "--shadow", "0.05",
        "--state", WORK / "state", "--keep-samples", "20",
    ]  # fmt: skip
    (WORK / "state").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "edgekit_runtime", *map(str, serve)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            return 1
        url = json.loads(line)["http"]
        out.print(f"open {url} in a browser; the photos blur after {given.blur_after:g} s (Ctrl-C ends it)")
        try:
            _send(url, sorted(folders.evaluation.glob("*.jpg")), given)
        except KeyboardInterrupt:
            pass
        finally:
            server.terminate()
    return 0


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make field", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=8.0, help="photos a second (8)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long (never)")
    parser.add_argument("--blur-after", type=float, default=120.0, help="seconds until the photos blur (120)")
    return parser.parse_args()


def _send(url: str, files: list[Path], given: argparse.Namespace) -> None:
    dice, begun = random.Random(0), time.monotonic()
    while (since := time.monotonic() - begun) < given.seconds:
        path = dice.choice(files)
        known = uuid.uuid4().hex
        headers = {"Content-Type": "image/jpeg", "X-Request-Id": known}
        _post(f"{url}/v2/models/{MODEL}/infer", _photo(path, dice, since > given.blur_after), headers)
        if told := TRUE_CLASS.match(path.stem):
            label = (EXAMPLE / "labels.txt").read_text().splitlines()[int(told[1])]
            told_later = json.dumps({"id": known, "label": label}).encode()
            _post(f"{url}/feedback", told_later, {"Content-Type": "application/json"})
        time.sleep(max(0.0, begun + since + 1 / given.rate - time.monotonic()))


def _photo(path: Path, dice: random.Random, blurred: bool) -> bytes:
    """A crop, shifted by some pixels, so that none is sent twice."""
    photo = Image.open(path).convert("RGB")
    left, top = dice.randrange(6), dice.randrange(6)
    photo = photo.crop((left, top, photo.width - dice.randrange(6), photo.height - dice.randrange(6)))
    if blurred:
        photo = photo.filter(ImageFilter.GaussianBlur(BLUR))
    packed = io.BytesIO()
    photo.save(packed, "JPEG", quality=90)
    return packed.getvalue()


def _post(url: str, body: bytes, headers: dict[str, str]) -> None:
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        reply.read()


if __name__ == "__main__":
    sys.exit(main())
