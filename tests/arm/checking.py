"""What every cell has to be: as here within the bundle's tolerance, or ruled out by its target, and as README says.

Refuses a cell that README's page does not have, or has otherwise."""

from collections.abc import Sequence

from tests.arm import page
from tests.arm.replaying import Cell


def check(cells: Sequence[Cell]) -> None:
    """The cells of one core and engine."""
    assert cells
    assert not (bad := [cell for cell in cells if not cell.good]), bad
    core, engine = cells[0].core, cells[0].engine
    told = [(cell.bundle, cell.outcome, cell.why) for cell in page.kept() if (cell.core, cell.engine) == (core, engine)]
    assert [(cell.bundle, cell.outcome, cell.why) for cell in cells] == told, "say python -m tests.arm --write"
