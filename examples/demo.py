"""`make demo`: one real model, three targets, three formats; then a photo goes in and labels come out, also over HTTP.

Refuses to go on when a step fails, with that step's own error."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edgekit.plan import TITLES
from edgekit.report import agreement_words, latency_words, megabytes
from examples.efficientnet_lite0.photos import photos
from examples.efficientnet_lite0.weights import weights
from examples.fetch import CannotFetch

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "efficientnet_lite0"
CHELSEA = ROOT / "fixtures" / "chelsea.jpg"
WORK = ROOT / "demo"
TARGETS = ("rpi5", "x86-64-v3", "x86-64-v4")
"""Their best engines are LiteRT, ONNX Runtime and OpenVINO."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def main() -> int:
    """The demo, step by step."""
    started = time.monotonic()
    try:
        file, folders = weights(WORK, out.print), photos(WORK, out.print)
    except CannotFetch as error:
        out.print(f"error: {error}")
        return 1
    words = [
        "build", f"{EXAMPLE / 'model.py'}:model", "--weights", file,
        "--data", folders.evaluation, "--calibration", folders.calibration,
        "--labels", EXAMPLE / "labels.txt", "--metric", "cosine", "--max-drop", "8%", "--name", "efficientnet-lite0",
        "--out", WORK / "bundles",
    ]  # fmt: skip
    for target in TARGETS:
        words += ["--target", target]
    out.print(f"[bold]$ edgekit {' '.join(_short(word) for word in words)}[/]", soft_wrap=True)
    outcomes = json.loads(_edgekit("edgekit", *words, "--json"))
    show(outcomes)
    for outcome in outcomes:
        _run(Path(outcome["bundle"]))
    _ask(Path(outcomes[-1]["bundle"]))
    out.print(
        f"\ndone in {time.monotonic() - started:.0f} s; the bundles and their reports are in {_short(WORK / 'bundles')}"
    )
    return 0


def show(outcomes: list[dict[str, Any]]) -> None:
    """One row for each bundle."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "format", "precision", "size", "agreement", "latency (speed)", "memory", "verdict"):
        table.add_column(name, no_wrap=True)
    for outcome in outcomes:
        one = next(one for one in outcome["candidates"] if one["chosen"])
        table.add_row(
            outcome["target"]["name"], TITLES[one["format"]], one["precision"], megabytes(one["bytes"]),
            agreement_words(one), latency_words(one), f"{one['peak_mb']:.0f} MB", one["verdict"],
        )  # fmt: skip
    out.print()
    out.print(table)
    out.print(
        f"[dim]float32 is {megabytes(one['float_bytes'])}; "
        f"agreement is with the source on {one['agreement']['n']} photos;\n"
        "latency: one thread, here, and how many times as fast as float32;\n"
        "memory: the peak of a fresh process.[/]\n"
    )


def _run(bundle: Path) -> None:
    """The five best labels of the photo, from the command line."""
    out.print(f"[bold]$ edgekit-runtime run {_short(bundle)} --input {_short(CHELSEA)}[/]", soft_wrap=True)
    out.print(_edgekit("edgekit_runtime", "run", bundle, "--input", CHELSEA, "--top", "5"))


def _ask(bundle: Path) -> None:
    """The same photo, sent as it is to a server."""
    with _serving(bundle) as url:
        where = f"{url}/v2/models/efficientnet-lite0/infer"
        out.print(
            f"[bold]$ curl --data-binary @{_short(CHELSEA)} -H 'Content-Type: image/jpeg' {where}[/]", soft_wrap=True
        )
        request = urllib.request.Request(where, CHELSEA.read_bytes(), {"Content-Type": "image/jpeg"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            answer = json.load(reply)
    for entry in answer["parameters"]["top"][:5]:
        out.print(f"  {entry['label']:<30} {entry['score']:.3f}")


@contextmanager
def _serving(bundle: Path) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "edgekit_runtime", "serve", str(bundle), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/v2/health/ready", timeout=1).close()
                break
            except OSError:
                if server.poll() is not None:
                    assert server.stderr is not None
                    raise SystemExit(f"the server did not start: {server.stderr.read()}") from None
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def _edgekit(module: str, *words: object) -> str:
    """Run a command; its progress is shown, its output returned."""
    done = subprocess.run([sys.executable, "-m", module, *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout.rstrip("\n")


def _short(word: object) -> str:
    text = str(word)
    return text.removeprefix(f"{ROOT}/")


if __name__ == "__main__":
    sys.exit(main())
