"""What a day of telemetry writes to the disk: each second committed to the file, and as it is kept now, in one run.

Run it with `python -m benchmarks.wear [HOURS] [FOLDER]`. Refuses a file system whose writes the system does not count.

An hour of seconds is put, as many numbers changing as a busy server's do. The files are forced to disk every 30 of
them, as the system does of itself about every half minute. Counted is what the system takes up to write
(/proc/self/io); the journal of the file system is not in it: a commit costs it about 12 kB more, in either way."""

import os
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekit_runtime.families import Family, Sample
from edgekit_runtime.telemetry.boots import Boot
from edgekit_runtime.telemetry.ring import TOGETHER, Ring

HOUR, DAY, BACK = 3600, 86_400, 30
START = 1_790_000_000_000
COUNTERS, HISTOGRAMS, BUCKETS, GAUGES, STILL = 12, 4, 16, 16, 50
"""Together 150 series, as a server of one model has, of which those STILL do not change."""


def main(hours: float, folder: Path) -> None:
    """Print both, and how much less it is."""
    each = written(folder, hours, 0)
    now = written(folder, hours, TOGETHER)
    sys.stdout.write(f"each second committed   {each / 1e6:8,.1f} MB a day\n")
    sys.stdout.write(f"as it is kept           {now / 1e6:8,.1f} MB a day: {each / now:.1f} times less\n")


def written(folder: Path, hours: float, together: int) -> float:
    """Bytes a day, from so many hours; those of the first ten minutes, in which the files grow, are not among them."""
    with TemporaryDirectory(dir=folder, prefix="wear-") as scratch, ExitStack() as stack:
        at, seconds, before = [0], round(hours * HOUR), 0
        ring = Ring(Path(scratch), 64 * 2**20, boot=Boot("a boot", lambda: at[0] * 1000), together=together)
        stack.callback(ring.close)
        opened: dict[str, int] = {}
        for at[0], families in enumerate(measured(600 + seconds)):
            assert ring.put(families, START + at[0] * 1000)
            if at[0] % BACK == 0:
                for path in Path(scratch).iterdir():
                    if path.name not in opened:  # closing one would let go of SQLite's lock on it
                        opened[path.name] = os.open(path, os.O_RDONLY)
                        stack.callback(os.close, opened[path.name])
                    os.fsync(opened[path.name])
            if at[0] == 599:
                before = taken()
        made = taken() - before
        if not made:
            raise SystemExit(f"error: the system does not count what is written in {folder}\nhint:  name another")
        return made / seconds * DAY


def taken() -> int:
    """Bytes that this process had the system write."""
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(told["write_bytes"])


def measured(seconds: int) -> Iterator[list[Family]]:
    """What a busy server measures, second by second."""
    drawn = random.Random(0)
    counts = [0.0] * COUNTERS
    buckets = [[0.0] * BUCKETS for _ in range(HISTOGRAMS)]
    still = Family("still", "gauge", "Does not change.", tuple(Sample(n / 7, (("n", str(n)),)) for n in range(STILL)))
    for _ in range(seconds):
        counts = [one + drawn.randrange(30) for one in counts]
        for one in buckets:
            for _ in range(10):
                for place in range(min(BUCKETS - 1, round(drawn.gauss(8, 1))), BUCKETS):
                    one[place] += 1
        yield [
            still,
            Family(
                "counts_total", "counter", "Grow.", tuple(Sample(c, (("n", str(n)),)) for n, c in enumerate(counts))
            ),
            Family("heats", "gauge", "Vary.", tuple(Sample(drawn.random(), (("n", str(n)),)) for n in range(GAUGES))),
            *(_histogram(n, one, drawn) for n, one in enumerate(buckets)),
        ]


def _histogram(n: int, counts: list[float], drawn: random.Random) -> Family:
    rest = (Sample(counts[-1] * drawn.uniform(0.9, 1.1), (), "_sum"), Sample(counts[-1], (), "_count"))
    below = (Sample(count, (("le", str(at)),), "_bucket") for at, count in enumerate(counts))
    return Family(f"took_{n}_seconds", "histogram", "How long.", (*below, *rest))


if __name__ == "__main__":
    main(float((sys.argv[1:] or ["1"])[0]), Path((sys.argv[2:] or ["."])[0]))
