"""What an artifact takes of a machine: memory in a fresh process, and latency beside its float file.

Refuses to time for another architecture than this machine's, unless a device was given to measure on."""

import json
import resource
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.footprint import measure as measure_footprint
from edgekit_runtime.tensors import Feeds

from edgekit.answers import digest, here, machine
from edgekit.job import Job
from edgekit.making import probes
from edgekit.model import Artifact
from edgekit.places.over_ssh import over_ssh
from edgekit.places.there import open_at
from edgekit.plan import Candidate
from edgekit.slowness import why_not_faster
from edgekit.target import Target
from edgekit.timing import Latency, interleaved, summary

FASTER = 0.97
"""An artifact counts as faster from this part of its float file's time down: what is nearer may be luck in how two
files happen to lie in memory, which no number of rounds averages out."""


@dataclass(frozen=True)
class Timed:
    """Latency of an artifact and of its float file on one thread, and where that was; `threads` are medians in ms
    by number of threads. `float_ms` is what float takes in that format, timed in turn with the floats of the other
    formats, so that candidates of different formats can be compared; None where they are not.
    None and empty where nothing was timed: `words` says why."""

    words: str
    made: Latency | None = None
    source: Latency | None = None
    threads: Mapping[int, float] | None = None
    slow: str | None = None
    float_ms: float | None = None

    @property
    def cost_ms(self) -> float | None:
        """What one inference takes, as candidates are ranked by it: at the best number of threads, and relative to
        float where that is known in all formats, since a machine is not as fast now as it was a minute ago."""
        if self.made is None:
            return None
        threads = self.threads or {1: self.made.median_ms}
        one = self.made.median_ms if self.float_ms is None else self.made.ratio * self.float_ms
        return one * min(threads.values()) / threads[1]

    @property
    def faster(self) -> bool:
        """Whether the artifact is faster than its float file beyond the machine's noise, or was not timed."""
        return self.made is None or self.made.high < FASTER


def peak_mb(job: Job, candidate: Candidate, artifact: Artifact) -> float:
    """The peak memory of a fresh process that loads the artifact and answers once, in MB."""

    def fill(folder: Path) -> None:
        job.tell(f"measuring the memory of {candidate.title}")
        feeds = probes(job.model, job)[0]
        inside = {port.inside.name: port.inward(feeds[port.spec.name]) for port in artifact.in_floats().inputs}
        found = measure_footprint(artifact.format, artifact.path, inside, here(candidate.options))
        (folder / "footprint.json").write_text(json.dumps(found))

    basis = {"artifact": digest(artifact), "machine": machine()["model"], "threads": candidate.options.threads}
    home = job.cache.folder("footprint", basis, fill)
    return float(json.loads((home / "footprint.json").read_text())["peak_mb"])


def peak_of_build_mb() -> float:
    """The most memory that this process, or one that it started, held so far, in MB (Linux counts in kB)."""
    used = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(max(used) * 1024 / 1e6, 1)


def timed(job: Job, target: Target, candidate: Candidate, made: Artifact, source: Artifact) -> Timed:
    """Latency beside the float artifact's, on the device that was named, else here where this machine is of the
    target's architecture; with the operators' reason where it is not faster. With `--best` for each number of
    threads, too."""
    found, device = machine(), job.order.measure_on
    if device is None and found["arch"] != target.arch:
        return Timed(f"not measured: this machine is {found['arch']}, {target.name} is {target.arch}")
    if device is None and candidate.options.device != "cpu":
        return Timed(f"not measured: no {candidate.options.device} is used here")
    several = sorted({1, min(target.threads, found["cores"])}) if job.order.best and device is None else [1]

    def fill(folder: Path) -> None:
        job.tell(f"timing {candidate.title} beside float32{f' on {device}' if device else ''}")
        feeds = probes(job.model, job)[0]
        if device is not None:
            pairs, where = {1: _there(job, device, made, source, feeds)}, device
        else:
            pairs, where = {threads: _here(made, source, feeds, threads) for threads in several}, ""
        first = pairs[1]
        fast = first["made"].high < FASTER or digest(made) == digest(source)
        slow = None if fast or where else _reason(made, source, feeds)
        kept = {
            "made": asdict(first["made"]),
            "source": asdict(first["float"]),
            "threads": {str(threads): pair["made"].median_ms for threads, pair in pairs.items()},
            "slow": slow,
        }
        (folder / "latency.json").write_text(json.dumps(kept))

    basis = {
        "float": digest(source), "made": digest(made), "machine": device or found["model"], "threads": several,
    }  # fmt: skip
    raw = json.loads((job.cache.folder("latency", basis, fill) / "latency.json").read_text())
    made_latency, source_latency = (
        Latency(**{**raw[side], "shape": tuple(raw[side]["shape"])}) for side in ("made", "source")
    )
    threads = {int(count): ms for count, ms in raw["threads"].items()}
    return Timed(_where(target, device), made_latency, source_latency, threads, raw["slow"])


def _here(made: Artifact, source: Artifact, feeds: Feeds, threads: int) -> dict[str, Latency]:
    options = EngineOptions(threads=threads)
    runners = {"float": source.in_floats().open_model(options), "made": made.in_floats().open_model(options)}
    return interleaved(runners, feeds)


def _there(job: Job, device: str, made: Artifact, source: Artifact, feeds: Feeds) -> dict[str, Latency]:
    with open_at(over_ssh(device), EngineOptions(threads=1), job.tell) as there:
        return summary(there.time({"float": source, "made": made}, feeds))


def _where(target: Target, device: str | None) -> str:
    """What was timed where, in words."""
    if device is not None:
        return f"measured on {device}, 1 thread"
    found = machine()
    lacking = [feature for feature in found["isa"] if "vnni" in feature and feature not in target.isa]
    words = f"measured on this machine ({found['model']}), 1 thread"
    return f"{words}; it has {', '.join(lacking)}, which the target has not" if lacking else words


def floats_in_turn(job: Job, sources: Mapping[str, Artifact]) -> dict[str, float]:
    """Median ms of the float artifact of each format, timed in turn in one process."""

    def fill(folder: Path) -> None:
        job.tell("timing float32 in each format in turn")
        runners = {format: one.in_floats().open_model(EngineOptions(threads=1)) for format, one in sources.items()}
        found = interleaved(runners, probes(job.model, job)[0])
        medians = {format: latency.median_ms for format, latency in found.items()}
        (folder / "floats.json").write_text(json.dumps(medians))

    basis = {"machine": machine()["model"], **{format: digest(one) for format, one in sources.items()}}
    home = job.cache.folder("latency", basis, fill)
    medians: dict[str, float] = json.loads((home / "floats.json").read_text())
    return medians


def with_threads(candidate: Candidate, found: Timed) -> Candidate:
    """The candidate at the number of threads that was the fastest, where several were tried."""
    if not found.threads or len(found.threads) < 2:
        return candidate
    fastest = min(found.threads, key=lambda count: found.threads[count])  # type: ignore[index]
    return replace(candidate, options=replace(candidate.options, threads=fastest))


def _reason(made: Artifact, source: Artifact, feeds: Feeds) -> str:
    try:
        return why_not_faster(made, source, feeds)
    except Unsupported as error:
        return error.what
