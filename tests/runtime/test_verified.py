"""Nothing but what was verified is opened, and it is opened from the bytes that were verified."""

import base64
import gc
import hashlib
import io
import json
import os
import socket
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.bundle import MANIFEST, MAX_MANIFEST, PIECE, checked, describe, open_bundle, read_manifest
from edgekit_runtime.errors import BadBundle, EdgeKitError, Untrusted
from edgekit_runtime.files import Files, in_folder
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.manifest import FileEntry, to_json
from edgekit_runtime.signature import MAX_FILE, SIGNATURE, signed
from edgekit_runtime.trust import Key, Revoked
from edgekit_runtime.verified import open_verified, vouch

from benchmarks import tampering
from tests.runtime.bundles import (
    BIAS,
    ENTRIES,
    LABELS,
    WEIGHTS,
    add_baseline,
    add_shadow,
    make_bundle,
    some,
    truth,
    write_manifest,
    write_model,
)  # fmt: skip
from tests.runtime.signing import (
    NOW,
    bytes_of,
    digests,
    in_memory,
    read_signature,
    relisted,
    rules,
    sign_folder,
    trusting,
)  # fmt: skip

ROOT, BENCH = new_private_key(), new_private_key()
TRUST = trusting(ROOT, bench=BENCH)


@pytest.fixture
def folder(tmp_path):
    return sign_folder(relisted(make_bundle(tmp_path / "b"), release=10), BENCH)


def reason(folder_or_files, by=None):
    """Why it is refused."""
    files = folder_or_files if isinstance(folder_or_files, Files) else in_folder(folder_or_files)
    with pytest.raises(Untrusted) as raised:
        open_verified(files, by or rules(TRUST))
    assert raised.value.reason in Untrusted.REASONS
    return raised.value.reason


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


@contextmanager
def opened(folder, by=None):
    held = open_verified(in_folder(folder), by or rules(TRUST))
    try:
        yield held
    finally:
        held.close()


def flip(path, at=None):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 if at is None else at] ^= 1
    path.write_bytes(raw)


def test_a_signed_bundle_opens_and_says_by_whom(folder):
    with opened(folder) as held:
        assert held.signed_by == "bench"
        assert held.digest == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        assert np.allclose(held.bundle.open_model()({"x": some(2)})["y"], truth(some(2)), atol=1e-5)
        assert held.bundle.labels() == LABELS
        assert len(held.bundle.golden()) == 3


def test_a_signed_bundle_opens_as_an_unsigned_one_does_where_nobody_asks_who_signed(folder):
    assert open_bundle(folder).labels() == LABELS


def test_an_unsigned_bundle_is_refused(folder):
    (folder / SIGNATURE).unlink()
    assert reason(folder) == "unsigned"


def test_a_broken_signature_is_refused(folder):
    raw = json.loads((folder / SIGNATURE).read_text())
    value = bytearray(base64.b64decode(raw["dsseEnvelope"]["signatures"][0]["sig"]))
    value[-1] ^= 1
    raw["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(value).decode()
    (folder / SIGNATURE).write_text(json.dumps(raw))
    assert reason(folder) == "signature"


@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "sub/extra.bin", ".git/config", "model.sig.bak"])
def test_an_unlisted_file_is_refused(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    assert reason(folder) == "unlisted"


@pytest.mark.parametrize("name", ["labels.txt", "model.onnx", MANIFEST])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    assert reason(folder) == "missing"


def test_a_folder_named_like_a_file_is_not_the_file(folder):
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").mkdir()
    assert reason(folder) == "missing"


@pytest.mark.parametrize("name", ["labels.txt", "model.onnx", "golden.npz", MANIFEST])
def test_a_touched_or_truncated_file_is_refused(folder, name):
    whole = (folder / name).read_bytes()
    for changed in (whole[:-1], whole + b"\0", b"", bytes([whole[0] ^ 1]) + whole[1:]):
        (folder / name).write_bytes(changed)
        assert reason(folder) == "touched"


def test_a_manifest_and_a_list_that_were_both_changed_do_not_fit_the_signature(folder):
    (folder / "labels.txt").write_text("a\nb\nc\nd\n")
    relisted(folder)
    assert reason(folder) == "touched"


def test_a_key_that_is_not_trusted_is_refused(folder):
    assert reason(folder, rules(trusting(ROOT, other=new_private_key()))) == "wrong_key"
    assert reason(folder, rules(trusting(ROOT))) == "wrong_key"


def test_the_root_signs_no_bundles(folder):
    assert reason(sign_folder(folder, ROOT)) == "wrong_key"


def test_a_revoked_key_is_refused(folder):
    gone = Revoked(public_of(BENCH).fingerprint, "lost", NOW)
    assert reason(folder, rules(replace(TRUST, revoked=(gone,)))) == "revoked"


def test_an_expired_key_is_refused(folder):
    timed = replace(TRUST, keys=(Key("bench", public_of(BENCH), until=NOW - 1),))
    assert reason(folder, rules(timed)) == "expired"


def test_an_expired_bundle_is_refused_and_one_that_is_about_to_is_not(folder):
    sign_folder(relisted(folder, expires=NOW), BENCH)
    with opened(folder):
        pass
    assert reason(folder, rules(TRUST, now=NOW + 1)) == "expired"


def test_a_clock_in_1970_lets_nothing_expired_in_where_a_later_time_was_seen(folder):
    sign_folder(relisted(folder, expires=NOW - 10), BENCH)
    clock, seen = 12.0, float(NOW)
    assert reason(folder, rules(TRUST, now=max(clock, seen))) == "expired"


def test_a_release_below_the_floor_is_refused_and_the_floor_itself_is_not(folder):
    assert reason(folder, rules(TRUST, floor=11)) == "downgrade"
    with opened(folder, rules(TRUST, floor=10)):
        pass


def test_the_floor_is_asked_for_the_name_of_the_bundle(folder):
    asked = []
    with opened(folder, replace(rules(TRUST), floor=lambda name: asked.append(name) or 0)):
        assert asked == ["tiny"]


def test_a_bundle_for_another_target_is_refused_and_for_any_it_is_not(folder):
    assert reason(folder, rules(TRUST, target="rpi5")) == "other_target"
    with opened(folder, rules(TRUST, target=None)):
        pass


@pytest.mark.parametrize("schema", [0, 2, 99, None, "1", [1]])
def test_a_schema_that_this_runtime_does_not_read_is_refused(folder, schema):
    write_manifest(folder, to_json(read_manifest(folder)) | {"schema": schema})
    assert reason(sign_folder(folder, BENCH)) == "schema"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": 1}', "", "9" * 5000, '{"schema": ' + "9" * 400 + "}"])
def test_a_manifest_that_does_not_read_is_refused_though_it_is_signed(folder, text):
    (folder / MANIFEST).write_text(text)
    assert reason(sign_folder(folder, BENCH)) == "schema"


def test_a_manifest_and_a_signature_that_disagree_are_refused_though_both_are_ours(folder):
    entry = describe(folder / "labels.txt")
    raw = json.loads((folder / MANIFEST).read_text())
    for files in (
        {name: told for name, told in raw["files"].items() if name != "golden.npz"},
        raw["files"] | {"more.bin": {"sha256": entry.sha256, "size": 1}},
        raw["files"] | {"golden.npz": {"sha256": entry.sha256, "size": entry.size}},
    ):
        fields = {"golden": None} if "golden.npz" not in files else {}
        write_manifest(folder, raw | {"files": files} | fields)
        assert reason(sign_folder(folder, BENCH)) == "signature"


def test_a_size_that_the_manifest_tells_wrong_is_refused(folder):
    raw = json.loads((folder / MANIFEST).read_text())
    for size in (10**30, raw["files"]["labels.txt"]["size"] + 1, 0):
        raw["files"]["labels.txt"]["size"] = size
        write_manifest(folder, raw)
        assert reason(sign_folder(folder, BENCH)) == "touched"


def test_a_signature_that_leaves_the_manifest_out_is_refused(folder):
    told = digests(folder)
    del told[SIGNATURE], told[MANIFEST]
    (folder / SIGNATURE).write_bytes(signed("b", told, BENCH))
    assert reason(folder) == "touched"


def test_a_signature_that_lists_itself_is_refused(folder):
    (folder / SIGNATURE).write_bytes(signed("b", digests(folder), BENCH))
    assert reason(folder) == "missing"


def test_an_older_bundle_with_its_own_signature_is_a_downgrade(folder, tmp_path):
    older = sign_folder(relisted(make_bundle(tmp_path / "old"), release=9), BENCH)
    assert reason(older, rules(TRUST, floor=10)) == "downgrade"
    (folder / MANIFEST).write_bytes((older / MANIFEST).read_bytes())
    assert reason(folder) == "touched"


@pytest.mark.parametrize("kind", ["link", "linked folder", "dead link", "pipe", "socket"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(folder, tmp_path, kind):
    path = folder / "labels.txt"
    if kind == "linked folder":
        (folder / "sub").symlink_to(tmp_path)
    else:
        path.rename(tmp_path / "elsewhere")
    if kind in ("link", "dead link"):
        path.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "nothing"))
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    with pytest.raises(BadBundle, match="plain file"):
        open_verified(in_folder(folder), rules(TRUST))


class Endless(io.BytesIO):
    """Zeros for ever, and a test that fails where more of them are taken than the largest limit."""

    def __init__(self):
        super().__init__()
        self.left = MAX_MANIFEST + 1

    def read(self, size=-1):
        assert 0 <= size <= self.left, "read without a limit"
        self.left -= size
        return bytes(size)


@pytest.mark.parametrize("name", [SIGNATURE, MANIFEST, "model.onnx"])
def test_a_file_without_an_end_is_refused_in_bounded_memory(folder, name):
    good = bytes_of(folder)
    files = Files("there", frozenset(good), lambda n: Endless() if n == name else io.BytesIO(good[n]))
    assert reason(files) == ("signature" if name == SIGNATURE else "touched")


@pytest.mark.parametrize(("name", "limit"), [(SIGNATURE, MAX_FILE), (MANIFEST, MAX_MANIFEST)])
def test_no_more_than_the_limit_is_read_of_what_is_read_whole(folder, name, limit):
    asked, good = [], bytes_of(folder)

    class Counting(io.BytesIO):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    files = Files("there", frozenset(good), lambda n: (Counting if n == name else io.BytesIO)(good[n]))
    vouch(files, rules(TRUST))
    assert all(0 <= size <= limit + 1 for size in asked)
    assert asked


def test_a_file_that_went_between_the_look_and_the_read_is_missing(folder):
    files = in_folder(folder)
    (folder / "golden.npz").unlink()
    assert reason(files) == "missing"
    os.mkfifo(folder / "golden.npz")
    assert reason(files) == "missing"


def test_a_disk_that_fails_is_a_refusal(folder):
    def broken(name):
        raise OSError(5, "Input/output error")

    assert reason(Files("there", in_folder(folder).names, broken)) == "missing"


@pytest.mark.slow
def test_too_many_files_are_refused(folder):
    (folder / "many").mkdir()
    for number in range(10_000):
        os.mknod(folder / "many" / str(number))
    with pytest.raises(BadBundle, match="10000"):
        open_verified(in_folder(folder), rules(TRUST))


@pytest.mark.parametrize("engine", ENTRIES)
def test_each_engine_opens_the_bytes_that_were_verified_whatever_becomes_of_the_disk(tmp_path, engine):
    folder = sign_folder(make_bundle(tmp_path / "b", engine), BENCH)
    with opened(folder) as held:
        for path in folder.iterdir():
            path.write_bytes(b"swapped")
        assert reason(folder) != "unsigned"
        assert np.allclose(held.bundle.open_model()({"x": some(2)})["y"], truth(some(2)), atol=1e-4)
        assert held.bundle.labels() == LABELS


@pytest.mark.parametrize("engine", ENTRIES)
def test_a_model_swapped_for_another_good_one_after_it_was_verified_does_not_answer(tmp_path, engine, monkeypatch):
    folder = sign_folder(make_bundle(tmp_path / "b", engine), BENCH)
    with opened(folder) as held:
        monkeypatch.setattr("tests.runtime.bundles.WEIGHTS", -WEIGHTS)
        write_model(folder / ENTRIES[engine], engine)  # a real model, which answers otherwise
        assert not np.allclose(open_raw(held, folder)({"x": some()})["y"], truth_of(WEIGHTS), atol=0.1)
        assert np.allclose(held.bundle.open_model()({"x": some()})["y"], truth_of(WEIGHTS), atol=1e-4)


def truth_of(weights):
    return some().reshape(1, 12) @ weights + BIAS


def open_raw(held, folder):
    """The model that lies on the disk, unverified."""
    return replace(held.bundle, folder=folder).open_model()


@pytest.mark.parametrize("engine", ENTRIES)
def test_closing_frees_descriptors_folder_and_memory_once_the_engine_has_let_go(tmp_path, engine):
    folder = sign_folder(make_bundle(tmp_path / "b", engine), BENCH)
    warm = open_bundle(folder).open_model()  # what an engine opens once and keeps
    warm({"x": some()})
    before, held = descriptors(), open_verified(in_folder(folder), rules(TRUST))
    run, view = held.bundle.open_model(), held.bundle.folder
    assert descriptors() != before
    held.close()
    held.close()
    assert not view.exists()
    assert np.allclose(run({"x": some()})["y"], truth(some()), atol=1e-4)  # what is loaded stays
    del run, held
    gc.collect()
    assert descriptors() == before
    assert "memfd:" not in Path("/proc/self/maps").read_text()


def test_a_refusal_leaves_nothing_behind(folder):
    before, views = descriptors(), set(Path("/dev/shm").glob(f"edgekit-{os.getpid()}-*"))
    flip(folder / "model.onnx")
    assert reason(folder) == "touched"
    assert descriptors() == before
    assert set(Path("/dev/shm").glob(f"edgekit-{os.getpid()}-*")) == views


def test_preprocessing_that_does_not_fit_is_refused_and_leaves_nothing_behind(folder):
    raw = to_json(read_manifest(folder))
    raw["preprocess"] = raw["preprocess"] | {"input": "z"}
    write_manifest(folder, raw)
    before = descriptors()
    with pytest.raises(BadBundle):
        open_verified(in_folder(sign_folder(folder, BENCH)), rules(TRUST))
    assert descriptors() == before


def test_shadow_and_baseline_open_from_the_verified_bytes_too(tmp_path):
    folder = sign_folder(add_shadow(add_baseline(make_bundle(tmp_path / "b"), 50)), BENCH)
    with opened(folder) as held:
        for path in folder.iterdir():
            path.write_bytes(b"swapped")
        assert held.bundle.baseline() is not None
        assert np.allclose(held.bundle.open_shadow()({"x": some()})["y"], truth(some()), atol=1e-5)


def with_external_data(folder):
    """The bundle with the model's weights in files beside it, one of them in a folder."""
    import onnx
    from onnx.external_data_helper import set_external_data

    path = make_bundle(folder) / "model.onnx"
    model = onnx.load(path)
    (folder / "weights").mkdir()
    for tensor, name in zip(model.graph.initializer, ("w.bin", "weights/b.bin"), strict=True):
        set_external_data(tensor, location=name)
        (folder / name).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return sign_folder(relisted(folder), BENCH)


def test_weights_beside_an_onnx_model_are_verified_and_loaded_from_memory(tmp_path):
    folder = with_external_data(tmp_path / "b")
    with opened(folder) as held:
        for path in (folder / "w.bin", folder / "weights/b.bin"):
            path.write_bytes(bytes(path.stat().st_size))
        assert np.allclose(held.bundle.open_model()({"x": some(2)})["y"], truth(some(2)), atol=1e-5)
    assert not held.bundle.folder.exists()


@pytest.mark.parametrize("name", ["w.bin", "weights/b.bin"])
def test_touched_weights_beside_an_onnx_model_are_refused(tmp_path, name):
    folder = with_external_data(tmp_path / "b")
    flip(folder / name)
    assert reason(folder) == "touched"
    (folder / name).unlink()
    assert reason(folder) == "missing"


def test_weights_that_nobody_listed_are_not_found(tmp_path):
    folder = with_external_data(tmp_path / "b")
    raw = to_json(read_manifest(folder))
    del raw["files"]["w.bin"]
    write_manifest(folder, raw)
    (folder / "w.bin").rename(tmp_path / "w.bin")
    with opened(sign_folder(folder, BENCH)) as held:
        (folder / "w.bin").write_bytes((tmp_path / "w.bin").read_bytes())
        with pytest.raises(EdgeKitError, match="does not load"):
            held.bundle.open_model()


@pytest.mark.slow
def test_every_byte_of_a_signed_bundle_counts(tmp_path):
    found = tampering.table(tmp_path)
    assert sum(row.tried for row in found) > 5000
    assert not [row for row in found if row.wrong or not row.tried]


def test_the_table_of_tampering_tells_what_was_let_in(tmp_path):
    data = bytes_of(sign_folder(make_bundle(tmp_path / "b"), BENCH))
    way = tampering.Class("nothing done", lambda: iter([data]), frozenset({"touched"}))
    assert tampering.tried(way, rules(TRUST)).wrong == 1
    assert reason(in_memory({**data, SIGNATURE: b""}))


SPARSE = 4 * 2**30 + 5
SPARSE_SHA256 = "6a35801e10f6013c8dac965d101bb1bf91076e838cdd7073ce032544e734dfbe"
"""Of 4 GiB and 4 bytes of nothing, and an "x"; as sha256sum tells it."""


def sparse(path, last):
    """4 GiB and 4 bytes of nothing, and one byte; it takes no room."""
    with path.open("wb") as file:
        file.seek(SPARSE - 1)
        file.write(last)
    return path


@pytest.mark.slow
def test_a_file_beyond_4_gib_is_signed_with_its_right_digest(tmp_path):
    entry = describe(sparse(tmp_path / "large.bin", b"x"))
    assert entry == FileEntry(SPARSE_SHA256, SPARSE)
    raw = signed("b", {"large.bin": entry.sha256}, BENCH)
    assert read_signature(raw, BENCH).files == {"large.bin": SPARSE_SHA256}


@pytest.mark.slow
def test_the_last_byte_of_a_file_beyond_4_gib_counts(tmp_path):
    sparse(tmp_path / "large.bin", b"y")
    with in_folder(tmp_path).open("large.bin") as file, pytest.raises(Untrusted) as raised:
        assert max(map(len, checked("large.bin", file, FileEntry(SPARSE_SHA256, SPARSE)))) <= PIECE
    assert raised.value.reason == "touched"
