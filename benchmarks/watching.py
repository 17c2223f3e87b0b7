"""What it costs to be watched: the same bundle served with the drift watch and without it, in turn.

Run it with `python -m benchmarks.watching [ROUNDS]`. Refuses a bundle without a baseline, and a wrong answer.

EfficientNet-Lite0 in int8 is asked with a tensor, and with a photo that the server decodes; the ratios are watched to
not, round by round: of requests a second, and of the processor's time for each, which a busy machine disturbs less."""

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekit_runtime.bundle import open_bundle

from benchmarks.load import Load, Wrong
from benchmarks.serving_peers import Started, wire
from benchmarks.serving_peers.generator import Generator, prepared
from benchmarks.serving_peers.models import ROOT, ServedModel, lite0
from benchmarks.serving_peers.ours import edgekit

ROUNDS = 11
SECONDS = 2.0
CONNECTIONS = (1, 8)
PHOTO = ROOT / "fixtures" / "chelsea.jpg"


def main(rounds: int) -> None:
    """Measure, print a line for each way to ask."""
    model = lite0(_tell)
    if open_bundle(model.bundle).manifest.baseline is None:
        raise SystemExit("error: the bundle has no baseline\nhint:  rm -r demo/bundles, then make demo")
    with TemporaryDirectory(prefix="edgekit-") as folder, ExitStack() as stack:
        scratch, generator = Path(folder), stack.enter_context(Generator())
        watched = stack.enter_context(edgekit([model.bundle], model.name, scratch / "watched.log"))
        alone = stack.enter_context(edgekit([model.bundle, "--no-drift"], model.name, scratch / "alone.log"))
        for name, request in (("a tensor", _tensor(model)), ("a photo", _photo(model))):
            pair = [_load(scratch, f"{name[2:]}-{place}", one, request) for place, one in enumerate((watched, alone))]
            for count in CONNECTIONS:
                rates: list[list[float]] = [[], []]
                works: list[list[float]] = [[], []]
                for turn in range(rounds):
                    _tell(f"{name}, {count} connections: round {turn + 1} of {rounds}")
                    for place in (0, 1) if turn % 2 else (1, 0):
                        one, before = (watched, alone)[place], (watched, alone)[place].cpu
                        told = generator.run(replace(pair[place], connections=count))
                        rates[place].append(told.rate)
                        works[place].append((one.cpu - before) / told.answered)
                _say(f"{name}, {count} conn", "requests/s", rates)
                _say("", "processor", works)


def _load(scratch: Path, name: str, one: Started, request: bytes) -> Load:
    sent, expected = prepared(scratch, name, one.at["binary"], request)
    return Load(one.at["binary"], sent, expected, seconds=SECONDS)


def _tensor(model: ServedModel) -> bytes:
    return wire.FORMS["binary"].request(model.name, model.input, model.x)


def _photo(model: ServedModel) -> bytes:
    body = PHOTO.read_bytes()
    head = f"POST /v2/models/{model.name}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _say(name: str, what: str, both: Sequence[Sequence[float]]) -> None:
    found = [one / other for one, other in zip(*both, strict=True)]
    middle, low, high = statistics.median(found), min(found), max(found)
    sys.stdout.write(f"{name:<17} {what:<10} {middle:.3f} [{low:.3f}, {high:.3f}], {len(found)} rounds\n")


def _tell(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line}\r")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    except Wrong as error:
        raise SystemExit(f"error: {error}") from error
