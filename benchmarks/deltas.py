"""How large a delta to a fine-tuned model is: the file whole, packed by xz, and as a delta from the version before it.

`python benchmarks/deltas.py [--model digits|lite0] [--json FILE]`. Really trains, fine-tunes (the last layer, or all)
and quantizes anew each time; shows bsdiff and zstd --patch-from beside it where they are installed.
Exits 1 where a delta does not give back the very file, or is not smaller than it."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import numpy as np
import torch
from edgekit_runtime import deltas
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.tensors import Array

import edgekit

LITE0 = Path(__file__).resolve().parents[1] / "examples" / "efficientnet_lite0"
CHANGES = ("last layer", "all layers, a little", "all layers, more")
STEPS = {"last layer": (1e-2, 20), "all layers, a little": (1e-4, 20), "all layers, more": (1e-3, 40)}
"""Step size and steps of the fine-tuning."""


@dataclass(frozen=True)
class Row:
    """One change of one file, in bytes; `changed` is the share of the bytes at the same place that differ."""

    file: str
    change: str
    changed: float
    whole: int
    xz: int | None
    delta: int | None
    bsdiff: int | None
    zstd: int | None
    made_s: float
    applied_s: float


def digits() -> torch.nn.Module:
    """A small convolutional network: x [N, 1, 8, 8] -> [N, 10] scores, 300,000 weights."""
    nn = torch.nn

    class Net(nn.Module):
        """Its input is called x."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(), nn.Linear(512, 400), nn.ReLU(), nn.Linear(400, 10),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.layers(x)
            return scores

    return Net().eval()


@dataclass(frozen=True)
class Case:
    """A trained network, what it is tuned with, and how to quantize it: weights and a folder to a file."""

    network: torch.nn.Module
    x: torch.Tensor
    label: torch.Tensor
    build: Callable[[Path, str, Path], Path]


def main() -> None:
    """Run as a program."""
    command()


@click.command()
@click.option("--model", type=click.Choice(["digits", "lite0"]), default="digits", show_default=True)
@click.option("--format", "formats", multiple=True, type=click.Choice(["onnx", "tflite", "openvino"]))
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write all numbers there.")
def command(model: str, formats: tuple[str, ...], file: Path | None) -> None:
    """Print the table."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        case = {"digits": _digits, "lite0": _lite0}[model](folder)
        rows = [row for format in formats or ("onnx", "tflite") for row in _rows(case, format, folder)]
    _show(model, rows)
    if file is not None:
        file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    sys.exit(any(row.delta is None for row in rows))


def _digits(folder: Path) -> Case:
    from tests import tiny

    data, (x, label) = tiny.write_digits(folder), tiny.digits()
    images = x.reshape(-1, 1, 8, 8)
    np.savez(data, x=images, label=label)
    network = digits()
    _train(list(network.parameters()), network, (torch.tensor(images), torch.tensor(label)), (1e-3, 300))

    def build(weights: Path, format: str, out: Path) -> Path:
        return _built(
            f"{__file__}:digits", format, out, weights=str(weights), data=str(data), shape="x=batch,1,8,8"
        )  # fmt: skip

    return Case(network, torch.tensor(images[:600]), torch.tensor(label[:600]), build)


def _lite0(folder: Path) -> Case:
    from edgekit_runtime.preprocess import apply, parse_preprocess

    from examples.efficientnet_lite0 import model
    from examples.efficientnet_lite0.photos import photos
    from examples.efficientnet_lite0.weights import weights

    published, data = weights(folder, _tell), photos(folder, _tell)
    network = model.model()
    network.load_state_dict(torch.load(published, weights_only=True))
    read = parse_preprocess(model.PREPROCESS)
    lines = (data.labelled / "labels.csv").read_text().splitlines()[1:]
    names, classes = zip(*(line.split(",") for line in lines), strict=True)
    seen = [apply(read, data.labelled / name)["x"] for name in names]

    def build(found: Path, format: str, out: Path) -> Path:
        return _built(
            f"{LITE0 / 'model.py'}:model", format, out, weights=str(found), data=str(data.evaluation),
            calibration=str(data.calibration), preprocess=str(LITE0 / "preprocess.toml"), shape="x=batch,3,224,224",
        )  # fmt: skip

    return Case(network, torch.tensor(np.concatenate(seen)), torch.tensor(list(map(int, classes))), build)


def _built(source: str, format: str, out: Path, **words: str) -> Path:
    (outcome,) = edgekit.build(
        source, target="x86-64-v4", format=format, precision="int8", out=str(out), tell=_tell, **words
    )  # fmt: skip
    assert outcome.bundle is not None, outcome.why
    entry = outcome.bundle / open_bundle(outcome.bundle).manifest.entry
    return entry.with_suffix(".bin") if format == "openvino" else entry


def _rows(case: Case, format: str, folder: Path) -> list[Row]:
    """The file before, and after each change of the trained network."""
    trained = {name: value.clone() for name, value in case.network.state_dict().items()}
    files = []
    for index, change in enumerate(("", *CHANGES)):
        case.network.load_state_dict(trained)
        if change:
            every = list(case.network.parameters())
            _train(every[-2:] if "last" in change else every, case.network, (case.x, case.label), STEPS[change])
        weights = folder / f"{format}-{index}.pth"
        torch.save(case.network.state_dict(), weights)
        files.append(case.build(weights, format, folder / f"{format}-{index}.edgekit"))
    case.network.load_state_dict(trained)
    return [_row(files[0], new, change) for new, change in zip(files[1:], CHANGES, strict=True)]


def _train(
    weights: list[torch.nn.Parameter], network: torch.nn.Module, data: tuple[torch.Tensor, torch.Tensor],
    how: tuple[float, int],
) -> None:  # fmt: skip
    rate, steps = how
    tune, dice = torch.optim.Adam(weights, rate), torch.Generator().manual_seed(1)
    for _ in range(steps):
        some = torch.randint(len(data[0]), (min(64, len(data[0])),), generator=dice)
        tune.zero_grad()
        torch.nn.functional.cross_entropy(network(data[0][some]), data[1][some]).backward()  # type: ignore[no-untyped-call]
        tune.step()


def _row(old: Path, new: Path, change: str) -> Row:
    before, after = old.read_bytes(), new.read_bytes()
    began = time.perf_counter()
    delta = deltas.make(old, new)
    made, applied = time.perf_counter(), 0.0
    if delta is not None:
        out = io.BytesIO()
        with old.open("rb") as base:
            deltas.apply(base, io.BytesIO(delta), out, hashlib.sha256(after).hexdigest(), len(after))
        assert out.getvalue() == after
        applied = time.perf_counter() - made
    alone = deltas.make(b"", after)
    return Row(
        new.name, change, _changed(before, after), len(after), alone and len(alone), delta and len(delta),
        _bsdiff(before, after), _zstd(old, new), made - began, applied,
    )  # fmt: skip


def _changed(before: bytes, after: bytes) -> float:
    least = min(len(before), len(after))
    one, other = (np.frombuffer(content[:least], np.uint8) for content in (before, after))
    differ: Array = one != other
    return float(differ.mean())


def _bsdiff(before: bytes, after: bytes) -> int | None:
    try:
        import bsdiff4  # type: ignore[import-not-found]
    except ModuleNotFoundError:
        return None
    return len(bsdiff4.diff(before, after))


def _zstd(old: Path, new: Path) -> int | None:
    if shutil.which("zstd") is None:
        return None
    command = ["zstd", "--patch-from", str(old), "-19", "--long=27", "-q", "-c", str(new)]
    return len(subprocess.run(command, check=True, capture_output=True).stdout)


def _show(model: str, rows: list[Row]) -> None:
    click.echo(f"{model}, int8; kB; each time trained, fine-tuned and quantized anew")
    click.echo(
        f"{'file':<14} {'changed':<22} {'bytes':>6} {'whole':>8} {'xz':>8} {'bsdiff':>8} {'zstd':>8} "
        f"{'delta':>8} {'of whole':>8}   made, applied"
    )
    for row in rows:
        sizes = " ".join(
            f"{'-' if one is None else format(one / 1e3, ',.1f'):>8}"
            for one in (row.whole, row.xz, row.bsdiff, row.zstd, row.delta)
        )
        ratio = "-" if row.delta is None else f"{row.delta / row.whole:.1%}"
        click.echo(
            f"{row.file:<14} {row.change:<22} {row.changed:>6.0%} {sizes} {ratio:>8}   "
            f"{row.made_s:.1f} s, {row.applied_s:.2f} s"
        )


def _tell(words: str) -> None:
    click.echo(words, err=True)


if __name__ == "__main__":
    main()
