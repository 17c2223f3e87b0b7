"""What works: every source of the zoo, in every format, at every precision, made and checked; as README's table.

`python -m tests.matrix --write` puts it into README.md. Refuses nothing: a refusal is a cell with its reason."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from edgekit_runtime.errors import EdgeKitError

from edgekit.building import Prepared, prepare
from edgekit.cache import user_cache
from edgekit.job import Job, open_job
from edgekit.making import float_artifact, quantized_artifact
from edgekit.ordering import Words, parse_order
from edgekit.plan import FORMATS, TITLES, Wishes, make_plan
from edgekit.scoring import LEAST_COSINE
from edgekit.target import PRECISIONS, find_target
from tests import zoo

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- the matrix begins -->", "<!-- the matrix ends -->"
SHORT = {"float32": "f32", "float16": "f16", "int8": "i8", "int8-weights": "w8", "int4-weights": "w4"}
TARGET = "x86-64-v4"


@dataclass(frozen=True)
class Row:
    """A model in one of its source forms; `words` gives the order once the zoo has made the files."""

    model: str
    source: str
    words: Callable[[], Words]


def rows() -> list[Row]:
    """Every source form of every model."""
    found = [Row("EfficientNet-Lite0", "PyTorch factory, .pth", _efficientnet)]
    for title, net in (
        ("Fashion-MNIST CNN", zoo.fashion_cnn),
        ("sensor GRU", zoo.sensor_gru),
        ("text LSTM", zoo.text_classifier),
        ("text transformer", zoo.transformer),
    ):
        found += _torch_rows(title, net)
    found += [
        Row("Fashion-MNIST Keras CNN", source, lambda attribute=attribute: _plain(zoo.fashion_keras(), attribute))
        for source, attribute in (
            (".keras", "keras"), (".h5", "h5"), ("SavedModel", "saved_model"), (".tflite", "tflite"),
            (".tflite, int8", "tflite_int8"),
        )
    ]  # fmt: skip
    found += [Row("sensor Keras LSTM", ".keras", lambda: _plain(zoo.keras_lstm(), "keras"))]
    found += [
        Row("basic-pitch", source, lambda attribute=attribute: _plain(zoo.basic_pitch(), attribute))
        for source, attribute in (("SavedModel", "saved_model"), (".onnx", "onnx"), (".tflite", "tflite"))
    ]
    found += [Row("silero-vad", ".onnx with state", lambda: _plain(zoo.silero_vad(), "onnx"))]
    return found


def _torch_rows(title: str, net: Callable[[], zoo.TorchNet]) -> list[Row]:
    def words(attribute: str, weights: bool = False) -> Callable[[], Words]:
        def order() -> Words:
            it = net()
            said = Words(model=str(getattr(it, attribute)), data=str(it.test), calibration=str(it.calibration))
            return Words(**{**vars(said), "weights": str(it.safetensors)}) if weights else said

        return order

    return [
        Row(title, "PyTorch factory, .safetensors", words("factory", weights=True)),
        Row(title, ".pt2", words("pt2")),
        Row(title, "TorchScript", words("torchscript")),
        Row(title, ".onnx, free sizes", words("onnx")),
        Row(title, ".onnx, fixed sizes", words("static_onnx")),
    ]


def _efficientnet() -> Words:
    it = zoo.efficientnet_lite0()
    return Words(
        model=it.factory, weights=str(it.weights), shape=("x=batch,3,224,224",), preprocess=str(it.preprocess),
        data=str(it.photos.evaluation), calibration=str(it.photos.calibration),
    )  # fmt: skip


def _plain(it: object, attribute: str) -> Words:
    calibration = getattr(it, "calibration", None)
    data = getattr(it, f"data_{attribute}", None) or getattr(it, "test", None) or it.data  # type: ignore[attr-defined]
    return Words(
        model=str(getattr(it, attribute)), data=str(data), calibration=str(calibration) if calibration else None
    )


def fill(row: Row) -> dict[tuple[str, str], str]:
    """(format, precision) -> "yes", or why not, for one row; every "yes" was made, run and compared."""
    words = row.words()
    order = parse_order(Words(**{**vars(words), "target": (TARGET,), "calibration_samples": 32}))
    try:
        prepared = prepare(order, lambda said: None)
        job = open_job(prepared.order, prepared.model, prepared.fingerprint, user_cache(), lambda said: None)
    except EdgeKitError as error:
        return {(format, precision): _reason(error) for format in FORMATS for precision in PRECISIONS}
    return {
        (format, precision): _cell(prepared, job, format, precision) for format in FORMATS for precision in PRECISIONS
    }


def _cell(prepared: Prepared, job: Job, format: str, precision: str) -> str:
    model = prepared.model
    try:
        plan = make_plan(model.facts, prepared.routes, find_target(TARGET), Wishes(format, precision, data=True))
        candidate = plan.candidates[0]
        made, _ = float_artifact(job, candidate.steps, format)
        if made.precision != precision:
            made, far = quantized_artifact(job, candidate, made)
            worst = min(one.cosine for one in far)
            if worst < LEAST_COSINE:
                return f"too far from float: cosine {worst:.2f}"
    except EdgeKitError as error:
        return _reason(error)
    return "yes"


def _reason(error: EdgeKitError) -> str:
    words = error.what.removeprefix(f"nothing to build for {TARGET}: ")
    return words.replace(str(Path.home()), "~")


def lines(row: Row, cells: dict[tuple[str, str], str]) -> list[str]:
    """The row of README's table, then a line for each reason."""
    told = [" ".join(SHORT[p] if cells[format, p] == "yes" else "·" * 2 for p in PRECISIONS) for format in FORMATS]
    found = [f"| {row.model} | {row.source} | {' | '.join(told)} |"]
    reasons: dict[str, list[str]] = {}
    for (format, precision), words in cells.items():
        if words != "yes":
            reasons.setdefault(_without(words, format, precision), []).append(f"{TITLES[format]} {SHORT[precision]}")
    return found + [f"- {row.model}, {row.source}: {', '.join(where)}: {words}" for words, where in reasons.items()]


def _without(words: str, format: str, precision: str) -> str:
    return words.removeprefix(f"{TITLES[format]} {precision}: ")[:200]


def text(filled: list[list[str]]) -> str:
    """The table and the reasons."""
    head = ["| model | source | ONNX | TFLite | OpenVINO |", "| --- | --- | --- | --- | --- |"]
    reasons = [line for found in filled for line in found[1:]]
    return "\n".join([BEGIN, *head, *(found[0] for found in filled), "", "Why not:", "", *reasons, END])


def main() -> None:
    """Print the matrix, or write it into README.md."""
    filled = []
    for row in rows():
        click.echo(f"{row.model}, {row.source}", err=True)
        filled.append(lines(row, fill(row)))
    table = text(filled)
    if "--write" not in sys.argv:
        click.echo(table)
        return
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(before + table + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
