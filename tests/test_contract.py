"""The budget is a contract: three networks on the 10,000 test images of Fashion-MNIST, in each format, and what it
says is computed again by other means.

Refuses a passed build whose numbers are not found again, and a missed one whose reasons are not true."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.selftest import selftest
from edgekit_runtime.tensors import Array

from edgekit.userland import load_function
from tests import zoo
from tests.commands import Done, edgekit

FORMATS = ("onnx", "tflite", "openvino")
NETS = ("fashion_cnn", "fashion_depthwise", "fashion_transformer")
BUDGET = 0.005

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(net: zoo.TorchNet, format: str, cache: Path, calibration: Path | None = None) -> Done:
    return edgekit(
        "build", net.factory, "--weights", net.safetensors, "--target", "x86-64-v4", "--format", format,
        "--precision", "int8", "--smaller", "--data", net.test, "--calibration", calibration or net.calibration,
        "--max-drop", "0.5pt", "--out", "b", "--json", "--cache", cache,
    )  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_int8_keeps_half_a_point_or_says_truly_why_not(name: str, format: str, cache: Path, desk: Path) -> None:
    net: zoo.TorchNet = getattr(zoo, name)()
    done = build(net, format, cache)
    (facts,) = done.json()
    assert done.code in (0, 3, 4), done.err
    print(f"{name} {format}: exit {done.code}: {facts['why']}")  # noqa: T201
    if done.code == 0:
        kept(net, format, open_bundle(desk / "b"))
    else:
        assert not (desk / "b").exists()
        assert facts["why"] in done.error()
        truly_missed(facts)


def kept(net: zoo.TorchNet, format: str, bundle: Bundle) -> None:
    """The bundle's evidence is what comes out when the bundle and the source are run here once more."""
    evidence = bundle.manifest.evidence
    quality = evidence["quality"]
    assert (bundle.manifest.format, bundle.manifest.precision, quality["n"]) == (format, "int8", 10_000)
    assert quality["reference"] >= 0.88
    assert quality["high"] <= BUDGET
    assert evidence["confirmed"]["high"] <= BUDGET
    assert selftest(bundle).passed
    with np.load(net.test) as data:
        images, labels = data["x"], data["label"]
    mine, theirs = (found.argmax(1) == labels for found in (answers(bundle, images), source_answers(net, images)))
    assert quality["value"] == pytest.approx(mine.mean(), abs=1e-9)
    assert quality["reference"] == pytest.approx(theirs.mean(), abs=1e-9)
    assert quality["drop"] == pytest.approx(theirs.mean() - mine.mean(), abs=1e-9)
    worse = theirs.astype(int) - mine.astype(int)
    low, high = bootstrapped(worse)
    assert (quality["low"], quality["high"]) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))
    for one in evidence["classes"]:
        rows = labels == int(one["class"])
        assert (one["n"], one["drop"]) == (rows.sum(), pytest.approx(worse[rows].mean(), abs=1e-9))


def answers(bundle: Bundle, images: Array) -> Array:
    """What the bundle answers, in batches of its own size."""
    run, (port,), (out,) = bundle.open_model(), bundle.manifest.inputs, bundle.manifest.outputs
    size = port.spec.shape[0] or 100
    return np.concatenate(
        [run({port.spec.name: images[i : i + size]})[out.spec.name] for i in range(0, len(images), size)]
    )


def source_answers(net: zoo.TorchNet, images: Array) -> Array:
    """What the source answers in PyTorch itself."""
    import torch

    module = load_function(net.factory)()
    module.load_state_dict(torch.load(net.pth, weights_only=True))
    module.eval()
    with torch.no_grad():
        return np.concatenate([module(torch.from_numpy(images[i : i + 500])).numpy() for i in range(0, 10_000, 500)])


def bootstrapped(worse: Array) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of -1, 0 and 1, by resampling how many there are of each."""
    counts = np.array([(worse == value).sum() for value in (-1, 0, 1)])
    drawn = np.random.default_rng(0).multinomial(len(worse), counts / len(worse), 20_000)
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / len(worse), [0.025, 0.975])
    return float(low), float(high)


def truly_missed(facts: dict[str, Any]) -> None:
    """Every candidate was refused with a reason, lost too much by its own numbers, or is neither smaller nor faster."""
    assert facts["candidates"]
    for one in facts["candidates"]:
        assert one["verdict"] in ("refused", "missed", "inconclusive"), one["title"]
        assert one["why"], one["title"]
        if one["verdict"] == "refused" or slower(one) or not one["bytes"]:
            continue
        last = one["confirmed"] or one["screened"]
        over = last["drop"] >= last["allowed"] if one["verdict"] == "missed" else last["high"] > last["allowed"]
        assert over or one["quality"]["high"] > BUDGET, (one["title"], one["why"])


def slower(one: dict[str, Any]) -> bool:
    """Whether it is no smaller than float and no faster either, by its own numbers."""
    latency = one["latency"]
    return latency is not None and one["bytes"] >= one["float_bytes"] and not latency["high"] < 0.97


@pytest.mark.parametrize("format", FORMATS)
def test_a_ruined_calibration_set_is_refused_with_the_report(format: str, cache: Path, desk: Path) -> None:
    net = zoo.fashion_cnn()
    done = build(net, format, cache, net.ruined)
    assert done.code == 3, done.err
    assert sorted(path.name for path in desk.iterdir()) == ["b.report.html", "b.report.json"]
    assert "over 0.5pt" in done.error()
    (facts,) = done.json()
    truly_missed(facts)
    (nearest,) = (one for one in facts["candidates"] if one["chosen"])
    assert nearest["why"] in done.error()
    assert nearest["quality"]["n"] == 10_000
    assert nearest["quality"]["low"] > 0.05
