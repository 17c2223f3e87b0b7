"""Every parser of what a client or a file says: whatever comes, it gives a value that fits, or an error of ours."""

import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.limits import Limits
from edgekit_runtime.manifest import parse
from edgekit_runtime.manifest import to_json as manifest_json
from edgekit_runtime.preprocess import apply, parse_preprocess
from edgekit_runtime.protocols import jsons, multipart, tfserving, tfserving_examples
from edgekit_runtime.tensors import TensorSpec, check_feeds
from edgekit_runtime.tokens import make_token, parse_tokens
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.making import changed, damaged, fuzz, only_ours, texts, values

pytestmark = pytest.mark.slow

INPUTS = (TensorSpec("x", "float32", (None, 2)), TensorSpec("s", "object", (None,)), TensorSpec("n", "int8", (None,)))
OUTPUTS = (TensorSpec("y", "float32", (None, 2)), TensorSpec("t", "object", (None,)))
LIMITS = Limits()


def outputs() -> dict[str, Any]:
    """What a model of OUTPUTS might answer."""
    words = np.empty(1, dtype=object)
    words[:] = ["\u00fc"]
    return {"y": np.array([[np.nan, 1]], np.float32), "t": words}


def fits_and_is_answered(asked: Any) -> None:
    """What was read fits the model, and can be answered."""
    if asked is None:
        return
    feeds = only_ours(asked.feeds) if callable(asked.feeds) else asked.feeds
    if feeds is not None:
        only_ours(lambda: check_feeds(INPUTS, feeds))
    only_ours(lambda: asked.write(outputs()))


def test_json() -> None:
    good = {"a": [1, 2.5, -3e5, "x\u00fc", True, None], "b": [[1, 2], [3, 4]], "c": {"d": list(range(100))}}

    def check(text: bytes) -> None:
        value = only_ours(lambda: jsons.read(text, LIMITS))
        if value is None:
            return
        try:
            same = json.loads(text)
        except (ValueError, RecursionError):
            pytest.fail("it reads what is not JSON")
        assert equal(jsons.plain(value), same)

    fuzz(texts(good, ["a", "b"]), check)


def equal(one: Any, other: Any) -> bool:
    """The same JSON values; a NaN is itself, and a whole number beyond 64 bits may come as a float."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(other, int) and abs(other) >= 2**63 and isinstance(one, float):
        return one == float(other)
    return bool(one == other) or (one != one and other != other)


@pytest.mark.parametrize(
    "read", [tfserving.read_predict, tfserving_examples.read_classify, tfserving_examples.read_regress]
)
def test_tensorflow_servings_json(read: Callable[..., Any]) -> None:
    signature = tfserving.Signature(INPUTS, OUTPUTS)
    row = {"x": [1, 2], "s": "w", "n": 3}
    good: dict[str, Any] = {"instances": [row, row], "signature_name": "serving_default"}
    if read is not tfserving.read_predict:
        good = {"examples": [row, {"x": [1, 2], "n": 1}], "context": {"s": "w"}}
    words = ["instances", "inputs", "examples", "context", "x", "s", "n", "b64", "signature_name"]
    fuzz(texts(good, words), lambda text: fits_and_is_answered(only_ours(lambda: read(text, signature))))


def test_tensorflow_servings_columns() -> None:
    signature = tfserving.Signature(INPUTS, OUTPUTS)
    good = {"inputs": {"x": [[1, 2]], "s": [{"b64": "d29yZA=="}], "n": [3]}}
    fuzz(
        texts(good, ["inputs", "x", "s", "n", "b64"]),
        lambda text: fits_and_is_answered(only_ours(lambda: tfserving.read_predict(text, signature))),
    )


FORM = b'--b\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\nContent-Type: image/png\r\n\r\nPNG'
FORM += b'\r\n--b\r\nContent-Disposition: form-data; name="k"\r\n\r\nv\r\n--b--\r\n'


def test_forms() -> None:
    kinds = [b"multipart/form-data; boundary=b", b'multipart/form-data; boundary="b"', b"multipart/form-data"]
    strategy = st.tuples(damaged([FORM], 3), st.one_of(st.sampled_from(kinds), damaged(kinds)))

    def check(given: tuple[bytes, bytes]) -> None:
        parts = only_ours(lambda: multipart.read_parts(*given))
        for part in parts or []:
            assert part.name is not None

    fuzz(strategy, check)


def photos() -> list[bytes]:
    """A small photo in each format."""
    made = []
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        made.append(buffer.getvalue())
    return made


def test_photos() -> None:
    wanted = parse_preprocess({"kind": "image", "input": "x", "resize": [2, 2]})

    def check(data: bytes) -> None:
        feeds = only_ours(lambda: apply(wanted, data))
        assert feeds is None or feeds["x"].shape == (1, 3, 2, 2)

    fuzz(st.one_of(damaged(photos(), 3), st.binary(max_size=100)), check)


def sounds() -> list[bytes]:
    """A short sound in each width, mono and stereo."""
    made = []
    for width in (1, 2, 3, 4):
        for channels in (1, 2):
            buffer = io.BytesIO()
            with wave.open(buffer, "wb") as file:
                file.setparams((channels, width, 8000, 0, "NONE", ""))
                file.writeframes(np.random.default_rng(width).bytes(width * channels * 400))
            made.append(buffer.getvalue())
    return made


@pytest.mark.parametrize("features", [None, "log-mel"])
def test_sounds(features: str | None) -> None:
    raw = {"kind": "audio", "input": "x", "rate": 16000, "samples": 1600, "features": features}
    wanted = parse_preprocess({key: value for key, value in raw.items() if value is not None})

    def check(data: bytes) -> None:
        feeds = only_ours(lambda: apply(wanted, data))
        assert feeds is None or feeds["x"].dtype == np.float32

    fuzz(st.one_of(damaged(sounds(), 3), st.binary(max_size=100)), check)


@pytest.mark.parametrize(
    "tokens",
    [
        {"tokenizer": "none", "layout": "N"},
        {"tokenizer": "characters", "alphabet": "abc \u00fc\U0001f600", "unknown_id": 9, "max_length": 8, "pad": True},
        {"tokenizer": "bytes", "max_length": 8, "lower": True},
        {"tokenizer": "wordpiece", "max_length": 8, "mask": "m"},
    ],
)
def test_texts(tokens: dict[str, Any], tmp_path: Path) -> None:
    if tokens["tokenizer"] == "wordpiece":
        (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\nc\n")
        tokens = {**tokens, "vocab": str(tmp_path / "vocab.txt")}
    wanted = parse_preprocess({"kind": "text", "input": "x", **tokens})
    anything = st.one_of(st.binary(max_size=60), st.text().map(str.encode), st.text("abc \u0308\u0130").map(str.encode))
    fuzz(anything, lambda data: only_ours(lambda: apply(wanted, data)))


SOUND = {"kind": "audio", "input": "x", "rate": 16000, "samples": 16000, "features": "log-mel", "n_mels": 40}
IMAGE = {"kind": "image", "input": "x", "resize": 256, "crop": [224, 224], "mean": [1, 2, 3], "std": 2.0}
IMAGE |= {"layout": "NCHW", "dtype": "float32", "channels": "RGB", "scale": 0.5, "interpolation": "bilinear"}


def test_settings_of_preprocessing() -> None:
    words = [*IMAGE, *SOUND, "RGB", "GRAY", "NHW", "text", "vocab", "wordpiece"]
    settings = st.one_of(changed(IMAGE, words), changed(SOUND, words), values(words))
    fuzz(settings, lambda raw: only_ours(lambda: parse_preprocess(raw)))


def a_manifest() -> dict[str, Any]:
    spec = {"name": "x", "dtype": "int8", "shape": [None, 2], "scale": 0.5, "zero_point": 1}
    port = {"spec": {"name": "x", "dtype": "float32", "shape": [None, 2]}, "inside": spec, "order": [0, 1]}
    return {
        "schema": 1,
        "name": "m",
        "version": "1",
        "target": "here",
        "format": "onnx",
        "precision": "int8",
        "engine": "onnx",
        "entry": "m.onnx",
        "inputs": [port],
        "outputs": [{**port, "spec": {**port["spec"], "name": "y"}}],
        "files": {"m.onnx": {"sha256": "0" * 64, "size": 3}, "l": {"sha256": "0" * 64, "size": 3}},
        "options": {"threads": 1, "device": "cpu", "precision": "float32"},
        "preprocess": None,
        "labels": "l",
        "golden": {"file": "l", "count": 1, "tolerance": 0.1},
        "evidence": {"peak_memory_bytes": 1},
        "provenance": {},
    }


def test_manifests() -> None:
    good = a_manifest()
    words = [*good, "spec", "inside", "order", "dtype", "shape", "../m", "/etc/passwd", "complex64", "object", "sha256"]

    def check(raw: object) -> None:
        found = only_ours(lambda: parse(raw))
        if found is not None:
            json.dumps(manifest_json(found))

    fuzz(st.one_of(changed(good, words), values(words)), check)


def test_files_of_tokens() -> None:
    lines = "".join(make_token(f"t{n}", ["infer", "admin"])[1] + "\n" for n in range(2)).encode()
    fuzz(damaged([lines]), lambda data: only_ours(lambda: parse_tokens(data.decode("utf-8", "replace"))))
