"""The families of the server itself: requests, refusals, connections, its process.

Refuses nothing; what this system does not tell of a process is left out."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgekit_runtime.counters import Counters
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.version import __version__

STARTED = time.time()
COUNTED: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "edgekit_http_requests_begun_total": ("HTTP requests of which at least one byte came.", "", ()),
    "edgekit_http_requests_total": ("HTTP answers sent, by status.", "code", ()),
    "edgekit_refused_total": (
        "What was refused, by reason; bug is a fault of the server or of an engine.",
        "reason",
        ("bad_request", "bug", "busy", "late", "not_found", "unauthenticated"),
    ),
    "edgekit_connections_total": ("Connections taken.", "", ()),
    "edgekit_clients_gone_total": ("Requests whose client left before the answer.", "", ()),
    "edgekit_grpc_requests_total": ("gRPC calls answered, by status code.", "code", ()),
}
"""By name: what is counted, the label, and its values that are told before they first occur, so that the first one
is seen as a rise."""


def families(counters: Counters, connections: int) -> Iterator[Family]:
    """What is counted beside the models."""
    by_name: dict[str, dict[str, int]] = {name: dict.fromkeys(first, 0) for name, (_, _, first) in COUNTED.items()}
    for (name, value), count in list(counters.counts.items()):
        if name in by_name:
            by_name[name][value] = count
    for name, (words, label, _) in COUNTED.items():
        found = by_name[name]
        if label:
            samples = tuple(Sample(found[value], ((label, value),)) for value in sorted(found))
        else:
            samples = (Sample(sum(found.values())),)
        yield Family(name, "counter", words, samples)
    yield Family("edgekit_connections", "gauge", "Connections now.", (Sample(connections),))
    yield Family(
        "edgekit_runtime_info",
        "gauge",
        "Always 1; the label tells which edgekit-runtime this is.",
        (Sample(1, (("version", __version__),)),),
    )


def process() -> Iterator[Family]:
    """The process, under the names that every program's exporter gives it."""
    yield Family(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
        (Sample(STARTED),),
    )
    yield Family(
        "process_cpu_seconds_total", "counter", "CPU time that the process took.", (Sample(time.process_time()),)
    )
    resident = _resident()
    samples = () if resident is None else (Sample(resident),)
    yield Family("process_resident_memory_bytes", "gauge", "Memory that the process holds.", samples)


def _resident() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:  # no Linux
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
