"""What runs where, as a file beside the tests, a table in the terminal and the page in README.

Refuses nothing: what did not run is a cell with its reason."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from edgekit.places import Absent
from edgekit.places.emulated import find_place
from edgekit.plan import ENGINE_TITLES, TITLES
from edgekit.target import PRECISIONS, list_targets
from tests.arm.replaying import ENGINES, RAN, RULED_OUT, STANDS_FOR, Cell, target_of
from tests.matrix import README

RESULTS = Path(__file__).with_name("results.json")
BEGIN, END = "<!-- what runs where begins -->", "<!-- what runs where ends -->"
NONE, NO = "-", "no"
"""In a table: not run, and ruled out or refused."""


def kept() -> list[Cell]:
    """The results that are kept beside the tests."""
    return [Cell(**raw) for raw in json.loads(RESULTS.read_text(encoding="utf-8"))]


def keep(cells: Iterable[Cell]) -> None:
    """Keep results beside the tests, the differences to two digits."""
    raw = [asdict(cell) for cell in cells]
    for one in raw:
        one["worst"] = None if one["worst"] is None else float(f"{one['worst']:.2g}")
    lines = ",\n".join(json.dumps({key: value for key, value in one.items() if value not in (None, "")}) for one in raw)
    RESULTS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def number(worst: float) -> str:
    """A difference as the tables show it."""
    return "0" if worst == 0 else f"{worst:.0e}".replace("e-0", "e-")


def grid(cells: Sequence[Cell]) -> list[str]:
    """Core x engine x bundle, for a terminal: the largest difference from here, and what the bundle allows."""
    cores = [core for core in STANDS_FOR if any(cell.core == core for cell in cells)]
    told = {(cell.engine, cell.bundle, cell.core): _told(cell) for cell in cells}
    allowed = {(cell.engine, cell.bundle): cell.tolerance for cell in cells if cell.tolerance is not None}
    rows = [("engine", "bundle", *cores, "tolerance")]
    for engine in ENGINES:
        for bundle in dict.fromkeys(cell.bundle for cell in cells if cell.engine == engine):
            limit = allowed.get((engine, bundle))
            found = [told.get((engine, bundle, core), NONE) for core in cores]
            rows.append((ENGINE_TITLES[engine], bundle, *found, NONE if limit is None else f"{limit:g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, "", *(f"{where}: {why}" for why, where in _reasons(cells).items())]


def text(cells: Sequence[Cell]) -> str:
    """The page: engine x architecture x format x precision, then why not, then what was not run."""
    cores = list(STANDS_FOR)
    head = ["engine", "format", "precision", *(f"{core}<br>{target_of(core).arch}" for core in cores)]
    lines = [BEGIN, f"| {' | '.join(head)} |", "| --- | --- | --- |" + " --- |" * len(cores)]
    for engine in ENGINES:
        for precision in _precisions(cells, engine):
            told = [_worst([c for c in _of(cells, engine, precision) if c.core == core]) for core in cores]
            lines.append(f"| {ENGINE_TITLES[engine]} | {TITLES[engine]} | {precision} | {' | '.join(told)} |")
    lines += ["", "Why not:", "", *(f"- {where}: {why}" for why, where in _reasons(cells).items())]
    return "\n".join([*lines, "", "Not run here:", "", *_not_run(), END])


def said() -> str:
    """The page as README has it."""
    _, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    page, end, _ = rest.partition(END)
    return begin + page + end


def write(page: str) -> None:
    """Put the page into README, in place of the one that is there."""
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    assert begin, f"README has no {BEGIN}"
    README.write_text(before + page + rest.partition(END)[2], encoding="utf-8")


def _told(cell: Cell) -> str:
    return number(cell.worst) if cell.worst is not None else NO


def _of(cells: Iterable[Cell], engine: str, precision: str) -> list[Cell]:
    return [cell for cell in cells if cell.engine == engine and _precision(cell) == precision]


def _precision(cell: Cell) -> str:
    """With what the target wanted beside: a bundle's name without its network's."""
    return cell.bundle.partition(" ")[2]


def _precisions(cells: Iterable[Cell], engine: str) -> list[str]:
    mine = [cell for cell in cells if cell.engine == engine]
    return [word for _, word in sorted({(PRECISIONS.index(cell.precision), _precision(cell)) for cell in mine})]


def _worst(cells: Sequence[Cell]) -> str:
    """The largest difference of the bundles that ran; "some" where not all of them were to."""
    ran = [cell.worst for cell in cells if cell.worst is not None]
    if not ran:
        return NO if cells else NONE
    return number(max(ran)) + ("" if len(ran) == len(cells) else ", some")


def _reasons(cells: Iterable[Cell]) -> dict[str, str]:
    """Why not -> on which cores which engines and precisions, such as "OpenVINO int8 on cortex-a53, cortex-a72"."""
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for cell in cells:
        if cell.outcome != RAN:
            why = cell.why if cell.outcome == RULED_OUT else f"it refuses: {cell.why}"
            cores = found.setdefault(why, {}).setdefault((cell.engine, cell.precision), [])
            cores += [cell.core] if cell.core not in cores else []
    told = {}
    for why, places in found.items():
        alike: dict[tuple[str, str], list[str]] = {}
        for (engine, precision), cores in places.items():
            alike.setdefault((ENGINE_TITLES[engine], ", ".join(cores)), []).append(precision)
        told[why] = "; ".join(f"{engine}{_all_but(some)} on {where}" for (engine, where), some in alike.items())
    return told


def _all_but(precisions: Sequence[str]) -> str:
    """Nothing where it holds for all of them."""
    return "" if set(precisions) == set(PRECISIONS) else f" {', '.join(precisions)}"


def _not_run() -> list[str]:
    """The accelerators of the shipped targets: nothing emulates one."""
    told = []
    for target in list_targets():
        for engine in target.engines:
            found = find_place(target, engine) if target.engine_options(engine).device != "cpu" else None
            if isinstance(found, Absent):
                told.append(f"- {target.name}: {found.why}")
    return told
