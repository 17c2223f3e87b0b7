"""The loop closed: built, served, asked, told what was right, and built again with what the device kept."""

import csv
import io
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from edgekit_runtime.bundle import open_bundle
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests import tiny
from tests.commands import edgekit

pytestmark = pytest.mark.slow

TARGET = "x86-64-v4"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PREPROCESS = 'kind = "image"\ninput = "photo"\nchannels = "GRAY"\nscale = 0.004166666666666667\nlayout = "NCHW"\n'
"""A pixel of 240 is a digit's 16."""
BUILT, FIELD, TOLD = 600, 120, 80
"""Digits of the build, photos that are asked in the field, and of how many of those somebody tells what they are."""


def photo(x: Any) -> bytes:
    """A digit as a PNG of 8 by 8."""
    held = io.BytesIO()
    Image.fromarray(np.rint(x.reshape(8, 8) * 240).astype(np.uint8)).save(held, "PNG")
    return held.getvalue()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx, which takes photos, photos by class, labels.txt and preprocess.toml."""
    folder = tmp_path_factory.mktemp("loop")
    model = onnx.load(tiny.write_model(folder))
    model.graph.node.insert(0, helper.make_node("Reshape", ["photo", "flat"], ["x"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 64]), "flat"))
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("photo", TensorProto.FLOAT, ["batch", 1, 8, 8]))
    onnx.save(model, folder / "model.onnx")
    (folder / "labels.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "preprocess.toml").write_text(PREPROCESS)
    x, label = tiny.digits()
    for place in range(BUILT):
        home = folder / "photos" / WORDS[label[place]]
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{place}.png").write_bytes(photo(x[place]))
    return folder


def build(shelf: Path, *words: object) -> Any:
    """A build of the model that must do well, and its facts."""
    given = ("--labels", shelf / "labels.txt", "--preprocess", shelf / "preprocess.toml", "--cache", shelf / "cache")
    done = edgekit(
        "build", shelf / "model.onnx", "--target", TARGET, "--format", "onnx", "--name", "digits", "--smaller",
        "--json", *given, *words,
    )  # fmt: skip
    assert done.code == 0, done.err
    return done.json()[0]


@contextmanager
def served(bundle: Path, state: Path) -> Iterator[tuple[str, str]]:
    """The real server: its public address and its admin's."""
    admin = f"unix:{state.parent / 'admin.sock'}"
    command = [
        sys.executable, "-m", "edgekit_runtime", "serve", bundle, "--port", "0", "--json", "--admin", admin,
        "--state", state, "--keep-samples", "50", "--feedback",
    ]  # fmt: skip
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = process.stdout.readline()
        assert told, process.stderr.read().decode()
        try:
            yield json.loads(told)["http"], admin
        finally:
            process.terminate()
            process.communicate(timeout=20)


def posted(url: str, body: bytes, **headers: str) -> Any:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, body, named), timeout=20) as answer:
        return json.load(answer)


def asked(at: str, place: int, content: bytes) -> str:
    """The word that the server has for a photo, which is asked about by its own id."""
    said = posted(f"{at}/v2/models/digits/infer", content, Content_Type="image/png", X_Request_Id=f"field-{place}")
    return str(said["parameters"]["top"][0]["label"])


def kept(admin: str, out: Path) -> int:
    """How many samples the device keeps by now."""
    done = edgekit("pull-samples", admin, "--out", out, "--dry-run", "--json")
    return int(done.json()["kept"]) if done.code == 0 else 0


def test_what_a_device_kept_and_was_told_is_the_data_of_the_next_build(shelf: Path, tmp_path: Path) -> None:
    first = build(shelf, "--data", shelf / "photos", "--out", tmp_path / "first", "--with-float")
    assert first["baseline"]["n"] == first["data"]["evaluation"]["n"]
    assert open_bundle(tmp_path / "first").manifest.shadow is not None
    x, label = tiny.digits()
    truth = {f"field-{place}": WORDS[label[place]] for place in range(BUILT, BUILT + FIELD)}
    out = tmp_path / "pulled"
    with served(tmp_path / "first", tmp_path / "state") as (at, admin):
        right = 0
        for place in range(BUILT, BUILT + FIELD):
            right += asked(at, place, photo(x[place])) == truth[f"field-{place}"]
            time.sleep(0.02)  # what comes faster than the monitor may look at it, it leaves out
        assert right > 0.85 * FIELD
        deadline = time.monotonic() + 20
        while kept(admin, out) < FIELD // 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        told = [{"id": id, "label": word} for id, word in list(truth.items())[:TOLD]]
        posted(f"{at}/feedback", json.dumps(told).encode(), Content_Type="application/json")
        done = edgekit("pull-samples", admin, "--out", out, "--json", "--quiet")
        assert done.code == 0, done.err
        again = edgekit("pull-samples", admin, "--out", out, "--json", "--quiet").json()
    found = done.json()
    assert found["new"] == found["kept"] >= FIELD // 2
    assert again["new"] == 0
    assert (found["labelled"] > 0, found["unlabelled"] > 0) == (True, True)
    rows = {row["id"]: row for row in json.loads((out / "samples.json").read_text())["samples"]}
    by_file = {row["file"].split("/")[1]: truth[id] for id, row in rows.items() if row["label"] is not None}
    with (out / "labelled" / "labels.csv").open() as file:
        assert {row["file"]: row["label"] for row in csv.DictReader(file)} == by_file
    second = build(shelf, "--data", out / "labelled", "--calibration", out / "unlabelled", "--out", tmp_path / "second")
    assert second["data"]["evaluation"]["n"] == found["labelled"]
    assert second["data"]["evaluation"]["labelled"]
    assert second["data"]["calibration"]["n"] == found["unlabelled"]
    assert second["candidates"][0]["quality"]["metric"] == "top1"
    at_random = sum(row["label"] is not None and "random" in row["why"] for row in rows.values())
    assert second["baseline"]["n"] == at_random > 0
    assert "kept at random" in second["baseline"]["of"]
    third = build(shelf, "--data", out / "labelled", "--out", tmp_path / "third")
    assert third["data"]["evaluation"]["n"] + third["data"]["calibration"]["n"] == found["labelled"]
    assert open_bundle(tmp_path / "second").manifest.baseline is not None
