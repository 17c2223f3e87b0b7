"""What works: every source of the zoo, in every format, at every precision, made and checked; as README's table.

`python -m tests.matrix --write` puts it into README.md. Refuses nothing: a refusal is a cell with its reason."""

import re
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
YES = "yes"
REASON = re.compile(r"- \*\*(?P<model>.+?)\*\* \((?P<sources>.+?)\) (?P<where>[A-Z][^:]+?): (?P<why>.+)")

Cells = dict[tuple[str, str], str]
"""(format, precision) -> YES, or why not."""


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
    found += [
        Row("silero-vad", ".onnx with state", lambda: _plain(zoo.silero_vad(), "onnx")),
        Row("silero-vad", ".onnx without branches", lambda: _plain(zoo.silero_vad(), "ifless")),
        Row("silero-vad", ".onnx, fixed sizes", lambda: Words(model=str(zoo.silero_vad().fixed))),
        Row("wake word", ".tflite, int8 with state", lambda: _plain(zoo.wakeword(), "tflite")),
    ]
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


def fill(row: Row) -> Cells:
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
        plan = make_plan(
            model.facts, prepared.routes, find_target(TARGET), Wishes(format, precision, data=bool(job.order.data))
        )
        candidate = plan.candidates[0]
        made, _ = float_artifact(job, candidate.steps, format)
        if made.precision != precision:
            made, far = quantized_artifact(job, candidate, made)
            worst = min(one.cosine for one in far)
            if worst < LEAST_COSINE:
                return f"too far from float: cosine {worst:.2f}"
    except EdgeKitError as error:
        return _reason(error)
    return YES


def _reason(error: EdgeKitError) -> str:
    """Why not, without what differs from one machine or run to the next."""
    words = error.what.removeprefix(f"nothing to build for {TARGET}: ").partition("  [Caused by")[0]
    words = re.sub(r": worst difference.*", "", words)
    return re.sub(r"\d+ ?% of", "few of", re.sub(r" \(\d+\)", "", words))


def line(row: Row, cells: Cells) -> str:
    """The row of README's table."""
    told = [" ".join(SHORT[p] if cells[format, p] == YES else "··" for p in PRECISIONS) for format in FORMATS]
    return f"| {row.model} | {row.source} | {' | '.join(told)} |"


def reasons(cells: Cells) -> dict[str, str]:
    """Why not -> the cells that it holds for, such as "TFLite i8 w8"."""
    found: dict[str, dict[str, list[str]]] = {}
    for (format, precision), words in cells.items():
        if words != YES:
            why = words.removeprefix(f"{TITLES[format]} {precision}: ")
            found.setdefault(why, {}).setdefault(TITLES[format], []).append(SHORT[precision])
    return {
        why: ", ".join(f"{where} {' '.join(what)}" for where, what in places.items()) for why, places in found.items()
    }


def text(filled: list[tuple[Row, Cells]]) -> str:
    """The table, then each reason once for each model, with the sources that it holds for."""
    head = [f"| model | source | {' | '.join(TITLES[f] for f in FORMATS)} |", "| --- | --- |" + " --- |" * len(FORMATS)]
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for row, cells in filled:
        for why, where in reasons(cells).items():
            grouped.setdefault((row.model, where, why), []).append(row.source)
    told = [f"- **{model}** ({'; '.join(sources)}) {where}: {why}" for (model, where, why), sources in grouped.items()]
    return "\n".join([BEGIN, *head, *(line(row, cells) for row, cells in filled), "", "Why not:", "", *told, END])


def said(row: Row) -> tuple[list[str], dict[str, str]]:
    """What README says of a row: its line of the table, and its reasons."""
    lines = README.read_text(encoding="utf-8").splitlines()
    told = {}
    for found in filter(None, map(REASON.fullmatch, lines)):
        if found["model"] == row.model and row.source in found["sources"].split("; "):
            told[found["why"]] = found["where"]
    return [found for found in lines if found.startswith(f"| {row.model} | {row.source} |")], told


def main() -> None:
    """Print the matrix, or write it into README.md."""
    filled = []
    for row in rows():
        click.echo(f"{row.model}, {row.source}", err=True)
        filled.append((row, fill(row)))
    table = text(filled)
    if "--write" not in sys.argv:
        click.echo(table)
        return
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(before + table + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
