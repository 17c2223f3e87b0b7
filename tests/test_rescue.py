"""What a tool's own default ruins, `edgekit build` wins back: both losses on the same 10,000 test images.

Refuses a ruined case that the default survives, and a rescue that is over half a point on any count."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache as once
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.tensors import Feeds

from benchmarks.defaults import DEFAULTS
from benchmarks.defaults.making import Absent, Entry, default
from edgekit.mixing import Kept, frozen_then_squeezed
from edgekit.model import Artifact
from edgekit.quantizers import Wish, quantize, sensitivity
from edgekit.recipes import Recipe
from tests import zoo
from tests.commands import Done, edgekit

RUINED, BUDGET = 0.05, 0.005

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """A model, and the calibration data that it is quantized by."""

    net: zoo.TorchNet
    calibration: Path

    def build(self, format: str, *words: object) -> Done:
        """`edgekit build` of it for one format."""
        return edgekit(
            "build", self.net.factory, "--weights", self.net.safetensors, "--target", "x86-64-v4", "--format", format,
            "--data", self.net.test, "--calibration", self.calibration, "--json", *words,
        )  # fmt: skip

    def in_float(self, format: str, cache: Path) -> Entry:
        """Its float file, in a bundle in the working folder."""
        done = self.build(format, "--precision", "float32", "--out", "float", "--cache", cache)
        assert done.code == 0, done.err
        return entry_of(Path("float").absolute())

    def right(self, entry: Entry) -> float:
        """The share of the test images that a file tells rightly."""
        with np.load(self.net.test) as test:
            x, labels = test["x"], test["label"]
        assert len(x) == 10_000
        return float(np.mean(entry.scores(x).argmax(1) == labels))


def huge_channels() -> Case:
    """Four channels inside are 300 times as large as the others; the data are what the net was made for."""
    net = zoo.fashion_outliers()
    return Case(net, net.calibration)


def bright_images() -> Case:
    """One calibration image in 51 is 50 times as bright."""
    return Case(zoo.fashion_cnn(), zoo.fashion_outlying())


def entry_of(folder: Path) -> Entry:
    """The file in a bundle."""
    manifest = open_bundle(folder).manifest
    options = EngineOptions(precision="float32") if manifest.format == "openvino" else EngineOptions()
    return Entry("", manifest.format, folder / manifest.entry, manifest.inputs, manifest.outputs, options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("case", "format"),
    [(huge_channels, "onnx"), (huge_channels, "openvino"), (huge_channels, "tflite"), (bright_images, "onnx")],
)
def test_what_the_tools_default_ruins_the_search_wins_back(
    case: Callable[[], Case], format: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ruined = case()
    source = ruined.in_float(format, cache)
    tool = next(one for one in DEFAULTS if one.format == format)
    with np.load(ruined.calibration) as data:
        made = default(tool, source, data["x"], lambda words: None)
    assert not isinstance(made, Absent), made
    in_float = ruined.right(source)
    lost = in_float - ruined.right(made)

    done = ruined.build(
        format,
        "--precision",
        "int8",
        "--smaller",
        "--max-drop",
        "0.5pt",
        "--out",
        "rescued",
        "--cache",
        cache,
    )  # smaller is enough: these nets are too small to be faster
    assert done.code == 0, done.err
    (facts,) = done.json()
    (picked,) = (one for one in facts["candidates"] if one["verdict"] == "passed")
    pick = f"{picked['title']}, {picked['recipe'] or 'plain'}"
    quality = open_bundle(tmp_path / "rescued").manifest.evidence["quality"]
    won = in_float - ruined.right(entry_of(tmp_path / "rescued"))
    told = (
        f"{case.__name__}, {format}, n = 10,000, float {100 * in_float:.2f} %: {tool.title} loses {100 * lost:+.2f} "
        f"points; {pick} {100 * won:+.2f}, at most {100 * quality['high']:+.2f}"
    )
    print(told)  # noqa: T201
    assert lost > RUINED, told
    assert won <= quality["high"] <= BUDGET, told
    assert quality["drop"] == pytest.approx(won, abs=0.0005), told


@pytest.mark.parametrize("format", ["onnx", "openvino", "tflite"])
def test_the_operators_around_huge_channels_are_found_and_in_float_they_are_enough(
    format: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What writes the channels and what reads them. OpenVINO rounds only what goes into an operator, the others what
    comes out of it too."""
    monkeypatch.chdir(tmp_path)
    case = huge_channels()
    entry = case.in_float(format, cache)
    source = Artifact(format, "float32", entry.path, entry.inputs, entry.outputs)
    with np.load(case.net.test) as test:
        x, labels = test["x"][:500], test["label"][:500]
    wish = Wish(Recipe("int8"), lambda: samples(case.calibration), 512, statistics=tmp_path / "statistics")
    tried: dict[Kept, float] = {}

    @once
    def stands(kept: Kept) -> bool:
        folder = tmp_path / f"q{len(tried)}"
        folder.mkdir()
        made = quantize(source, replace(wish, recipe=Recipe("int8", keep=kept)), folder, lambda words: None)
        quantized = replace(entry, path=made.path, inputs=made.inputs, outputs=made.outputs)
        tried[kept] = float(np.mean(quantized.scores(x).argmax(1) == labels))
        return tried[kept] > 0.9

    (tmp_path / "scratch").mkdir()
    groups = sensitivity(source, wish, tmp_path / "scratch", lambda words: None)
    assert not stands(())
    kept = frozen_then_squeezed(groups, stands)
    assert kept is not None, tried
    around = 1 if format == "openvino" else 2
    assert sum(set(group.operators) <= set(kept) for group in groups) == around, tried
    assert len(tried) <= 4, tried  # none, one, two, and what the squeeze tries


def samples(path: Path) -> Iterator[Feeds]:
    """The images of an `.npz`, one by one."""
    with np.load(path) as data:
        x = data["x"]
    for i in range(len(x)):
        yield {"x": x[i : i + 1]}
