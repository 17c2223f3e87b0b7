"""What the tests of emulated cores share: a core that is fetched or skipped, its cells, and the table at the end."""

from collections.abc import Callable
from dataclasses import asdict

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.places import roots
from edgekit.places.cores import CORES
from tests.arm import page
from tests.arm.replaying import Cell, replay

CELL = "cell of what runs where"
NOT_HERE = ("there is no", "no Debian source", "emulated on x86_64 machines only")

Fetch = Callable[[str], str]
Show = Callable[[str, str], list[Cell]]


@pytest.fixture
def fetch() -> Fetch:
    """Fetches a core as `edgekit emulators add` does; skips where this machine cannot have it, with the reason."""

    def fetched(core: str) -> str:
        try:
            roots.add(CORES[core], lambda words: None)
        except EdgeKitError as error:
            if any(words in error.what for words in NOT_HERE) or "check the network" in error.hint:
                pytest.skip(error.what)
            raise
        return core

    return fetched


@pytest.fixture
def show(fetch: Fetch, record_property: Callable[[str, object], None]) -> Show:
    """Replays every bundle of an engine on a core, and tells the table at the end."""

    def shown(core: str, engine: str) -> list[Cell]:
        cells = replay(fetch(core), engine, lambda words: None)
        for cell in cells:
            record_property(CELL, asdict(cell))
        return cells

    return shown


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Core x engine x bundle, of the tests that ran, in whichever process."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    told = [raw for report in reports for name, raw in getattr(report, "user_properties", ()) if name == CELL]
    cells = {(raw["core"], raw["engine"], raw["bundle"]): Cell(**raw) for raw in told}
    if cells:
        terminalreporter.section("largest difference from x86, in parts of the outputs' range")
        for line in page.grid(list(cells.values())):
            terminalreporter.write_line(line)
