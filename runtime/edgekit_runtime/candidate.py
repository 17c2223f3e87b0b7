"""Tries a verified bundle in a process of its own: replays its recorded inputs, takes its time, memory and its exam.

Refuses nothing itself: it tells, as lines of JSON on stdout, and who started it judges. Ends with who started it."""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import MANIFEST, Bundle, parse_manifest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.scored import SECONDS as SECONDS_OF_EXAM
from edgekit_runtime.scored import score
from edgekit_runtime.selftest import judged, recordings
from edgekit_runtime.served import Served, closed, opened
from edgekit_runtime.tensors import Feeds, Runner

SECONDS, LEAST, MOST = 2.0, 5, 200
"""How long runs are timed, and how many at least and at most."""
EXAM = "taking its exam"
Tell = Callable[[dict[str, Any]], None]


def look(folder: Path, tell: Tell, seconds: float) -> None:
    """Try the bundle in `folder`, whose files were verified by who holds them; tell each stage and what came of it. Its
    exam may take so many seconds."""
    manifest = parse_manifest((folder / MANIFEST).read_bytes(), MANIFEST)
    bundle = Bundle(folder, replace(manifest, encrypted=None))  # who holds its files holds them in clear
    tell({"at": "reading its recorded inputs"})
    golden, pairs = recordings(bundle)
    tell({"at": "opening the model"})
    run = _as_served(bundle, pairs[0][0]).run
    tell({"at": "replaying its recorded inputs"})
    found = judged(golden, pairs, (run(feeds) for feeds, _ in pairs))
    worst = found.worst if found.worst != float("inf") else None
    told = {"pairs": found.pairs, "worst": worst, "output": found.output, "tolerance": found.tolerance}
    tell({"replayed": told, "passed": found.passed, "peak_mb": peak_mb()})
    if not found.passed:
        return
    tell({"at": "being timed"})
    taken = sorted(_times(run, pairs[0][0]))
    p50, p90 = (round(taken[int(len(taken) * share)], 3) for share in (0.5, 0.9))
    tell({"timed": {"p50_ms": p50, "p90_ms": p90, "runs": len(taken)}, "peak_mb": peak_mb()})
    if manifest.exam is not None:
        tell({"at": EXAM})
        scored = score(bundle, run, lambda done, of: tell({"examined": done, "of": of}), seconds)
        tell({"exam": asdict(scored)})


def _as_served(bundle: Bundle, sample: Feeds) -> Served:
    """Opened as a server does it, labels, preprocessing and warm-up too: what fails there is to fail here. The
    recordings, which we hold already, are not read once more: that would count as the model's memory."""
    known = closed(replace(bundle, manifest=replace(bundle.manifest, golden=None)))
    return opened(bundle, replace(known, sample=sample))


def peak_mb(process: int | str = "self") -> float:
    """The most memory that a process held so far, in MB; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


def _times(run: Runner, feeds: Feeds) -> list[float]:
    """Milliseconds of each run; the replay has warmed it up."""
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(taken) < LEAST or (time.perf_counter() < end and len(taken) < MOST):
        start = time.perf_counter()
        run(feeds)
        taken.append((time.perf_counter() - start) * 1000)
    return taken


def _confine(data: int, parent: int) -> None:
    """What it asks for beyond `data` bytes it does not get; when memory is short, it goes before all others; a crash
    leaves no dump; it ends with its `parent`, who started it."""
    import ctypes
    import signal

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if data:
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    set_parent_death_signal = 1  # of prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:  # it died before, of which no signal comes any more
        sys.exit("who started this is gone")
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:  # a container may not let us
        return


def main() -> int:
    """`python -m edgekit_runtime.candidate FOLDER`: try the bundle in FOLDER."""
    parser = argparse.ArgumentParser(prog="python -m edgekit_runtime.candidate", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=int, default=0, help="bytes of memory that it may ask for")
    parser.add_argument("--exam-seconds", type=float, default=SECONDS_OF_EXAM, help="what its exam may take")
    parser.add_argument("--parent", type=int, default=0, help="the process that it ends with")
    given = parser.parse_args()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what an engine prints is no line of ours
    _confine(given.data, given.parent)

    def tell(said: dict[str, Any]) -> None:
        out.write(json.dumps(said) + "\n")
        out.flush()

    try:
        look(given.folder, tell, given.exam_seconds)
    except EdgeKitError as error:
        tell({"error": error.what, "hint": error.hint})
    except MemoryError:
        tell({"memory": True})
    except Exception as error:  # an engine's own errors, of any class: told, and then the process ends
        tell({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "hint": ""})
    return 0


if __name__ == "__main__":
    sys.exit(main())
