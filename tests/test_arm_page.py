"""README's page of what runs where is what the last whole run of the emulated cores found."""

from dataclasses import replace

from edgekit.target import PRECISIONS
from tests.arm import page
from tests.arm.replaying import ENGINES, RAN, REFUSED, RULED_OUT, STANDS_FOR, Cell, target_of

CELL = Cell("cortex-a72", "onnx", "dense int8", "int8", RAN, worst=0.01, tolerance=0.1)


def test_readme_has_the_page_of_the_kept_results() -> None:
    assert page.said() == page.text(page.kept()), "say python -m tests.arm --write"


def test_every_core_has_a_cell_for_every_engine_and_precision() -> None:
    told = {(cell.core, cell.engine, cell.precision) for cell in page.kept()}
    assert told == {(core, engine, one) for core in STANDS_FOR for engine in ENGINES for one in PRECISIONS}


def test_every_kept_result_is_within_tolerance_or_ruled_out_with_a_reason() -> None:
    cells = page.kept()
    assert all(cell.good for cell in cells)
    assert all(cell.why for cell in cells if cell.outcome == RULED_OUT)
    assert {cell.outcome for cell in cells} == {RAN, RULED_OUT}


def test_what_is_off_or_no_number_or_refused_is_not_good() -> None:
    assert CELL.good
    for worst in (0.11, float("nan"), float("inf"), None):
        assert not replace(CELL, worst=worst).good
    assert not replace(CELL, outcome=REFUSED, worst=None, tolerance=None, why="no such operator").good


def test_every_core_stands_for_a_target_of_its_kind() -> None:
    for core in STANDS_FOR:
        assert target_of(core).emulate in (core, "cortex-a76")


def test_a_table_for_the_terminal_shows_each_bundle_beside_its_tolerance() -> None:
    cells = [CELL, replace(CELL, core="Haswell", worst=None, tolerance=None, outcome=RULED_OUT, why="it saturates")]
    head, row, _, why = page.grid(cells)
    assert head.split() == ["engine", "bundle", "cortex-a72", "Haswell", "tolerance"]
    assert row.split() == ["ONNX", "Runtime", "dense", "int8", "1e-2", "no", "0.1"]
    assert why == "ONNX Runtime int8 on Haswell: it saturates"


def test_a_refusal_on_one_core_shows_beside_what_ran_on_another() -> None:
    other = replace(CELL, core="cortex-a53", bundle="convolving int8", outcome=REFUSED, worst=None, why="no kernel")
    lines = page.text([CELL, other]).splitlines()
    assert "| ONNX Runtime | ONNX | int8 | no | 1e-2 | - | - | - | - | - |" in lines
    assert "- ONNX Runtime int8 on cortex-a53: it refuses: no kernel" in lines
