"""The budget on a real model and real data: the Fashion-MNIST CNN on its 10,000 test images, in each format."""

from pathlib import Path

import pytest
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.selftest import selftest

from tests import zoo
from tests.commands import Done, edgekit

FORMATS = ("onnx", "tflite", "openvino")


def build(calibration: Path, format: str) -> Done:
    net = zoo.fashion_cnn()
    return edgekit(
        "build", net.factory, "--weights", net.safetensors, "--target", "x86-64-v4", "--format", format,
        "--data", net.test, "--calibration", calibration, "--max-drop", "0.5pt", "--out", "b", "--json",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_int8_is_within_half_a_point_of_float(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = build(zoo.fashion_cnn().calibration, format)
    assert done.code == 0, done.err
    bundle = open_bundle(tmp_path / "b")
    quality = bundle.manifest.evidence["quality"]
    assert (bundle.manifest.format, bundle.manifest.precision, quality["n"]) == (format, "int8", 10_000)
    assert quality["reference"] >= 0.9
    assert quality["high"] <= 0.005
    assert selftest(bundle).passed


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_ruined_calibration_set_is_refused_with_the_report(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = build(zoo.fashion_cnn().ruined, format)
    assert done.code == 3, done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.report.html", "b.report.json"]
    assert "n = 10,000" in done.error()
