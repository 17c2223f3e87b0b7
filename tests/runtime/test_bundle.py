"""A bundle opens whole or not at all."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.bundle import MANIFEST, describe, open_bundle, read_golden, write_golden
from edgekit_runtime.errors import BadBundle, NotFound

from tests.runtime.bundles import LABELS, make_bundle, some, write_manifest


@pytest.fixture
def folder(tmp_path):
    return make_bundle(tmp_path / "b")


def change(folder, **fields):
    raw = json.loads((folder / MANIFEST).read_text())
    write_manifest(folder, raw | fields)


def test_a_whole_bundle_opens(folder):
    bundle = open_bundle(folder)
    assert bundle.labels() == LABELS
    assert len(bundle.golden()) == 3
    assert bundle.preprocess().resize == (2, 2)


def test_no_bundle_is_not_a_bad_one(tmp_path):
    with pytest.raises(NotFound):
        open_bundle(tmp_path / "nothing")
    with pytest.raises(NotFound):
        open_bundle(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "golden.npz"])
def test_a_touched_bundle_is_refused(folder, name):
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(BadBundle, match=f"{name} was touched"):
        open_bundle(folder)


def test_a_longer_file_is_refused(folder):
    with (folder / "labels.txt").open("a") as file:
        file.write("wolf\n")
    with pytest.raises(BadBundle, match="touched"):
        open_bundle(folder)


def test_a_missing_file_is_refused(folder):
    (folder / "labels.txt").unlink()
    with pytest.raises(BadBundle, match=r"labels\.txt is missing"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "sub/extra.bin"])
def test_an_unlisted_file_is_refused(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(BadBundle, match="does not list"):
        open_bundle(folder)


def test_a_link_in_place_of_a_file_is_refused(folder, tmp_path):
    shutil.move(folder / "labels.txt", tmp_path / "elsewhere")
    (folder / "labels.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadBundle, match="not a plain file"):
        open_bundle(folder)


def test_a_linked_folder_is_refused(folder, tmp_path):
    (folder / "sub").symlink_to(tmp_path)
    with pytest.raises(BadBundle):
        open_bundle(folder)


def test_a_linked_manifest_is_refused(folder, tmp_path):
    shutil.move(folder / MANIFEST, tmp_path / "m.json")
    (folder / MANIFEST).symlink_to(tmp_path / "m.json")
    with pytest.raises(BadBundle, match="link"):
        open_bundle(folder)


def test_a_pipe_in_place_of_a_file_does_not_hang(folder):
    (folder / "labels.txt").unlink()
    os.mkfifo(folder / "labels.txt")
    with pytest.raises(BadBundle, match="not a plain file"):
        open_bundle(folder)


def test_a_path_that_climbs_out_is_refused(folder, tmp_path):
    (tmp_path / "x").write_text("secret")
    entry = describe(tmp_path / "x")
    raw = json.loads((folder / MANIFEST).read_text())
    outside = raw["files"] | {"../x": {"sha256": entry.sha256, "size": entry.size}}
    change(folder, files=outside, labels="../x")
    with pytest.raises(BadBundle, match="outside the bundle"):
        open_bundle(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"null"])
def test_a_manifest_that_is_no_json_is_refused(folder, text):
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(BadBundle):
        open_bundle(folder)


@pytest.mark.parametrize("wrong", [{"input": "z"}, {"resiz": 3}, {"std": 0}])
def test_preprocessing_that_cannot_be_is_refused_when_opened(folder, wrong):
    raw = json.loads((folder / MANIFEST).read_text())
    change(folder, preprocess=raw["preprocess"] | wrong)
    with pytest.raises(BadBundle):
        open_bundle(folder)


def test_recordings_come_back_as_they_went(tmp_path):
    words = np.array([["a", "bü"]], dtype=object)
    pairs = [
        ({"x": some(), "serving/a:0": np.int64(3)}, {"y": np.array([True]), "file": np.zeros((0, 2), np.float16)}),
        ({"x": some(2), "serving/a:0": np.int64(4)}, {"y": np.array([False]), "file": words}),
    ]
    write_golden(tmp_path / "g.npz", pairs)
    for recorded, wanted in zip(read_golden(tmp_path / "g.npz"), pairs, strict=True):
        for side, want in zip(recorded, wanted, strict=True):
            assert side.keys() == want.keys()
            assert all(np.array_equal(side[k], want[k]) and side[k].dtype == want[k].dtype for k in want)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize("kind", ["pickle", "npy of objects", "garbage", "truncated", "names"])
def test_recordings_that_are_none_are_refused_and_never_unpickled(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path, buffer = tmp_path / "g.npz", io.BytesIO()
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "npy of objects":
        np.savez(path, **{"0/in/x": np.array([Evil()], dtype=object)})
    elif kind == "names":
        np.savez(path, surprise=np.zeros(2))
    else:
        np.savez(buffer, **{"0/in/x": np.zeros(100)})
        path.write_bytes(b"PK\x03\x04 junk" if kind == "garbage" else buffer.getvalue()[:200])
    with pytest.raises(BadBundle, match="does not read"):
        read_golden(path)
    assert not (tmp_path / "pwned").exists()
