"""Every source of the zoo in every format at every precision: what README says of it is what happens."""

import pytest

from tests.matrix import YES, Row, fill, line, reasons, rows, said

pytestmark = pytest.mark.slow

ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.model}, {row.source}" for row in ROWS])
def test_readme_says_of_a_source_what_happens(row: Row) -> None:
    cells = fill(row)
    assert said(row) == ([line(row, cells)], reasons(cells))


@pytest.mark.parametrize("title", ["EfficientNet-Lite0", "Fashion-MNIST CNN"])
def test_image_models_get_all_formats_at_int8(title: str) -> None:
    cells = fill(next(row for row in ROWS if row.model == title))
    assert all(cells[format, "int8"] == YES for format in ("onnx", "tflite", "openvino"))
