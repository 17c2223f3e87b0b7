"""Every source of the zoo in every format at every precision: what README says of it is what happens."""

import pytest

from tests.matrix import README, Row, fill, lines, rows

ROWS = rows()


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=[f"{row.model}, {row.source}" for row in ROWS])
def test_readme_says_of_a_source_what_happens(row: Row) -> None:
    readme = README.read_text(encoding="utf-8").splitlines()
    said = [
        line
        for line in readme
        if line.startswith((f"| {row.model} | {row.source} |", f"- {row.model}, {row.source}: "))
    ]
    assert said == lines(row, fill(row))


@pytest.mark.slow
@pytest.mark.parametrize("title", ["EfficientNet-Lite0", "Fashion-MNIST CNN"])
def test_image_models_get_all_formats_at_int8(title: str) -> None:
    row = next(row for row in ROWS if row.model == title)
    cells = fill(row)
    assert all(cells[format, "int8"] == "yes" for format in ("onnx", "tflite", "openvino"))
