"""What `/metrics` tells: the server's counters, each model's numbers, the process, and whatever others measure.

Refuses nothing. Labels are names of models and words of ours, never a client's: their number is bounded."""

from collections.abc import Iterable, Mapping

from edgekit_runtime.counters import Counters
from edgekit_runtime.families import Family
from edgekit_runtime.metrics import models, server
from edgekit_runtime.service import Service

Selftests = Mapping[tuple[str, str], tuple[bool, int]]
"""By model and version: whether its last self-test passed, and when that was in milliseconds since 1970."""


def families(
    service: Service,
    counters: Counters,
    connections: int,
    more: Iterable[Family] = (),
    selftests: Selftests | None = None,
    triton: bool = False,
) -> list[Family]:
    """All of it, as of now; `more` is what others measure. `triton` adds the models' numbers under Triton's names.

    Runs on the event loop.
    """
    lanes = service.lanes()
    found = [
        *server.families(counters, connections),
        *server.process(),
        *models.families(lanes, selftests or {}),
        *more,
    ]
    if triton:
        from edgekit_runtime.metrics.triton import families as under_their_names

        found += under_their_names(lanes)
    return found
