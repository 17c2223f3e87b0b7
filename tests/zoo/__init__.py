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


@dataclass(frozen=True)
class KerasCnn:
    """image [N, 28, 28, 1] in 0..1 -> 10 logits. `tflite_int8` has integers at its input and output too."""

    keras: Path
    h5: Path
    saved_model: Path
    tflite: Path
    tflite_int8: Path
    test: Path
    calibration: Path


@dataclass(frozen=True)
class KerasLstm:
    """series [N, 24, 1] -> 2 logits, on the data of `sensor_gru`."""

    keras: Path
    saved_model: Path
    test: Path
    calibration: Path


@dataclass(frozen=True)
class BasicPitch:
    """Sound [N, 43844, 1] -> contour, note, onset. `data` calls the input input_2, `data_onnx` as `onnx` does."""

    saved_model: Path
    onnx: Path
    tflite: Path
    data: Path
    data_onnx: Path


@dataclass(frozen=True)
class SileroVad:
    """input [N, 576], state [2, N, 128], sr (a scalar, in `onnx`, `op15` and `ifless`) -> output [N, 1], stateN.

    `half` has no sr; `fixed` neither sr nor a free size; `sequence` takes input [T, 576] with h and
    c [1, 1, 128]. `data` (speech) and `noise` hold the feeds of `onnx`, a frame a sample.
    """

    onnx: Path
    op15: Path
    ifless: Path
    half: Path
    fixed: Path
    sequence: Path
    data: Path
    noise: Path


@dataclass(frozen=True)
class Wakeword:
    """Streaming, state in resource variables: input_audio int8 [1, 3, 40] -> uint8 [1, 1].

    `data` is random, and float as EdgeKit's users see it.
    """

    tflite: Path
    data: Path


def efficientnet_lite0() -> EfficientNet:
    """EfficientNet-Lite0 as published; top-1 of `chelsea` is 285, "Egyptian cat"."""
    folder = made("efficientnet:efficientnet_lite0", ["../../examples/efficientnet_lite0/photos.py"], ["pillow"])
    photos = Photos(folder / "calibration", folder / "evaluation", folder / "labelled")
    return EfficientNet(f"{EXAMPLE / 'model.py'}:model", folder / "efficientnet-lite0.pth", folder / "data.npz", photos)


def fashion_cnn() -> TorchNet:
    """A CNN trained on Fashion-MNIST: x [N, 1, 28, 28] in 0..1 -> 10 classes; tested on 10,000, calibrated on 512."""
    return _torch_net("fashion:fashion_cnn", "fashion:fashion_cnn")


def fashion_depthwise() -> TorchNet:
    """Like `fashion_cnn`, in the manner of MobileNetV3: depthwise, hard-swish, squeeze-and-excitation."""
    return _torch_net("depthwise:fashion_depthwise", "depthwise:fashion_depthwise", "makers/fashion.py")


def fashion_transformer() -> TorchNet:
    """Like `fashion_cnn`, a vision transformer: patches as tokens, two encoder layers."""
    return _torch_net("patches:fashion_transformer", "patches:fashion_transformer", "makers/fashion.py")


def fashion_outliers() -> TorchNet:
    """`fashion_cnn` with the same answers, and four channels inside that are 300 times as large as the others."""
    return _torch_net("outliers:fashion_outliers", "fashion:fashion_cnn", "makers/fashion.py")


def fashion_outlying() -> Path:
    """The calibration images of `fashion_cnn`, 2 % of them 50 times as bright."""
    return made("outliers:fashion_outlying", ["makers/fashion.py"], []) / "calibration.npz"


def sensor_gru() -> TorchNet:
    """A GRU on the hours of a day's power demand: series [N, T, 1] -> 2 seasons; tested on 1,029, calibrated on 67."""
    return _torch_net("sensor:sensor_gru", "sensor:sensor_gru")


def text_classifier() -> TorchNet:
    """Embedding, LSTM, linear: ids [N, T], the bytes of a text -> 10 languages; tested on 2,000, calibrated on 800."""
    return _torch_net("text:text_classifier", "text:text_classifier")


def transformer() -> TorchNet:
    """Two transformer encoder layers on the data of `text_classifier`; T is at most 256, and 64 in `static_onnx`."""
    return _torch_net("text:transformer", "text:transformer")


def fashion_keras() -> KerasCnn:
    """A CNN in Keras trained on Fashion-MNIST; tested on 10,000, calibrated on 512."""
    folder = made("keras:fashion_keras", ["makers/fashion.py"], ["tensorflow-cpu", "keras"])
    return KerasCnn(
        keras=folder / "model.keras",
        h5=folder / "model.h5",
        saved_model=folder / "saved_model",
        tflite=folder / "float.tflite",
        tflite_int8=folder / "int8.tflite",
        test=folder / "test.npz",
        calibration=folder / "calibration.npz",
    )


def keras_lstm() -> KerasLstm:
    """An LSTM in Keras on the data of `sensor_gru`."""
    folder = made("keras:keras_lstm", ["makers/sensor.py"], ["tensorflow-cpu", "keras"])
    return KerasLstm(*(folder / name for name in ("model.keras", "saved_model", "test.npz", "calibration.npz")))


def basic_pitch() -> BasicPitch:
    """Spotify's basic-pitch as published in three formats that agree; windows of speech."""
    folder = made("published:basic_pitch", [], [])
    names = ("saved_model", "model.onnx", "model.tflite", "data.npz", "data_onnx.npz")
    return BasicPitch(*(folder / name for name in names))


def silero_vad() -> SileroVad:
    """Silero's voice activity detector as published in six ONNX files; frames of speech and of noise."""
    folder = made("published:silero_vad", [], [])
    return SileroVad(
        onnx=folder / "silero_vad.onnx",
        op15=folder / "silero_vad_16k_op15.onnx",
        ifless=folder / "silero_vad_op18_ifless.onnx",
        half=folder / "silero_vad_half.onnx",
        fixed=folder / "silero_vad_openvino_16k.onnx",
        sequence=folder / "silero_vad_16k_sequence.onnx",
        data=folder / "speech.npz",
        noise=folder / "noise.npz",
    )


def wakeword() -> Wakeword:
    """The "hey Jarvis" model of microWakeWord."""
    folder = made("published:wakeword", [], ["ai-edge-litert"])
    return Wakeword(folder / "model.tflite", folder / "data.npz")


def centerface() -> Path:
    """The CenterFace detector: an ONNX file whose input says 10x3x32x32, though the net takes other sizes."""
    return made("published:centerface", [], []) / "model.onnx"


def _torch_net(made_by: str, net: str, *also: str) -> TorchNet:
    """Made by "module:function" of the makers, a `net` "module:function" of the nets; `also` are other sources."""
    libraries = ["torch", "onnxscript"]
    module, function = net.split(":")
    folder = made(made_by, ["makers/torch_files.py", f"nets/{module}.py", *also], libraries)
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
