"""The zoo: real models and real data as files, in every form that people have them. Each is made once and kept.

Refuses nothing: what cannot be fetched or made raises, since a test without its model proves nothing."""

from dataclasses import dataclass
from pathlib import Path

from examples.efficientnet_lite0.photos import Photos
from tests.zoo.making import ROOT, made

EXAMPLE = ROOT / "examples" / "efficientnet_lite0"
NETS = Path(__file__).parent / "nets"


@dataclass(frozen=True)
class EfficientNet:
    """[N, 3, 224, 224] -> [N, 1000]. `data` holds x, 48 ready crops of the evaluation photos; no labels."""

    factory: str
    weights: Path
    data: Path
    photos: Photos
    preprocess: Path = EXAMPLE / "preprocess.toml"
    labels: Path = EXAMPLE / "labels.txt"
    chelsea: Path = ROOT / "fixtures" / "chelsea.jpg"


@dataclass(frozen=True)
class TorchNet:
    """A classifier with one output, `scores`, as PyTorch users have it.

    `onnx` has every free axis dynamic, `pt2` the batch alone, `torchscript` is a trace,
    `static_onnx` has batch 1 and no free axis. The data is arrays named as the input, and label;
    `ruined` is `calibration` a thousand times too large, or all ids 0.
    """

    factory: str
    safetensors: Path
    pth: Path
    pt2: Path
    torchscript: Path
    onnx: Path
    static_onnx: Path
    test: Path
    calibration: Path
    ruined: Path


def efficientnet_lite0() -> EfficientNet:
    """EfficientNet-Lite0 as published; top-1 of `chelsea` is 285, "Egyptian cat"."""
    folder = made("efficientnet:efficientnet_lite0", ["../../examples/efficientnet_lite0/photos.py"], ["pillow"])
    photos = Photos(folder / "calibration", folder / "evaluation", folder / "labelled")
    return EfficientNet(f"{EXAMPLE / 'model.py'}:model", folder / "efficientnet-lite0.pth", folder / "data.npz", photos)


def fashion_cnn() -> TorchNet:
    """A CNN trained on Fashion-MNIST: x [N, 1, 28, 28] in 0..1 -> 10 classes; tested on 10,000, calibrated on 512."""
    return _torch_net("fashion", "fashion_cnn")


def sensor_gru() -> TorchNet:
    """A GRU on the hours of a day's power demand: series [N, T, 1] -> 2 seasons; tested on 1,029, calibrated on 67."""
    return _torch_net("sensor", "sensor_gru")


def text_classifier() -> TorchNet:
    """Embedding, LSTM, linear: ids [N, T], the bytes of a text -> 10 languages; tested on 2,000, calibrated on 800."""
    return _torch_net("text", "text_classifier")


def transformer() -> TorchNet:
    """Two transformer encoder layers on the data of `text_classifier`; T is at most 256, and 32 in `static_onnx`."""
    return _torch_net("text", "transformer")


def _torch_net(module: str, function: str) -> TorchNet:
    libraries = ["torch", "onnxscript"]
    folder = made(f"{module}:{function}", ["makers/torch_files.py", f"nets/{module}.py"], libraries)
    return TorchNet(
        factory=f"{NETS / module}.py:{function}",
        safetensors=folder / "model.safetensors",
        pth=folder / "model.pth",
        pt2=folder / "model.pt2",
        torchscript=folder / "model.pt",
        onnx=folder / "model.onnx",
        static_onnx=folder / "static.onnx",
        test=folder / "test.npz",
        calibration=folder / "calibration.npz",
        ruined=folder / "ruined.npz",
    )
