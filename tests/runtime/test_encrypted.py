"""Encryption for one device: what was encrypted comes back there, and nowhere else, and not if anything was changed."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from edgekit_runtime.encrypted import (
    CHUNK,
    TAG,
    BundleKey,
    Encrypted,
    Plain,
    check,
    decrypt,
    encrypt,
    new_key,
    parse,
    stored_size,
    to_json,
    unwrap,
)
from edgekit_runtime.errors import BadBundle, EdgeKitError, Untrusted
from edgekit_runtime.held import View
from edgekit_runtime.keypair import new_private_key, public_of
from hypothesis import given, settings
from hypothesis import strategies as st

PRIVATE, OTHER = new_private_key(), new_private_key()
KEY, WRAPPED, EPHEMERAL = new_key("cats", "1.2", public_of(PRIVATE))
FIELD = Encrypted(KEY.device, WRAPPED, EPHEMERAL, {"model.onnx": Plain("0" * 64, 10)})
SIZES = (0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 77)


def content(size: int) -> bytes:
    return hashlib.shake_128(b"weights").digest(size)


def plain(raw: bytes) -> Plain:
    return Plain(hashlib.sha256(raw).hexdigest(), len(raw))


def encrypted(raw: bytes, key: BundleKey = KEY, file: str = "model.onnx") -> bytes:
    return b"".join(encrypt(key, file, [raw]))


def decrypted(stored: bytes, wanted: Plain, key: BundleKey = KEY, file: str = "model.onnx") -> bytes:
    return b"".join(decrypt(key, file, wanted, [stored]))


def refused(stored: bytes, wanted: Plain, key: BundleKey = KEY, file: str = "model.onnx") -> None:
    with pytest.raises(Untrusted, match="does not decrypt") as caught:
        decrypted(stored, wanted, key, file)
    assert caught.value.reason == "touched"
    assert caught.value.hint


@pytest.mark.parametrize("size", SIZES)
def test_what_was_encrypted_comes_back_at_every_size(size: int) -> None:
    raw = content(size)
    stored = encrypted(raw)
    assert len(stored) == stored_size(size)
    assert decrypted(stored, plain(raw)) == raw


@settings(max_examples=30)
@given(st.lists(st.integers(0, 400_000), max_size=8), st.integers(1, 700_000))
def test_how_the_bytes_are_cut_makes_no_difference(lengths: list[int], step: int) -> None:
    raw = content(sum(lengths))
    ends = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    stored = b"".join(encrypt(KEY, "f", [raw[a:b] for a, b in pairwise(ends)]))
    assert stored == encrypted(raw, file="f")
    cut = [stored[begin : begin + step] for begin in range(0, len(stored), step)]
    assert b"".join(decrypt(KEY, "f", plain(raw), cut)) == raw


def test_the_device_unwraps_the_key_and_no_other_does() -> None:
    assert unwrap(FIELD, PRIVATE, "cats", "1.2") == KEY
    with pytest.raises(Untrusted, match="was encrypted for the device") as caught:
        unwrap(FIELD, OTHER, "cats", "1.2")
    assert caught.value.reason == "other_device"


def test_a_field_that_names_another_device_does_not_give_it_the_key() -> None:
    with pytest.raises(Untrusted, match="does not unwrap"):
        unwrap(replace(FIELD, device=public_of(OTHER).fingerprint), OTHER, "cats", "1.2")


@pytest.mark.parametrize(("name", "version"), [("dogs", "1.2"), ("cats", "1.3"), ("cats1", ".2")])
def test_the_key_of_another_bundle_or_version_does_not_unwrap(name: str, version: str) -> None:
    with pytest.raises(Untrusted, match="does not unwrap") as caught:
        unwrap(FIELD, PRIVATE, name, version)
    assert caught.value.reason == "touched"


def test_a_key_or_a_point_that_was_exchanged_does_not_unwrap() -> None:
    _, wrapped, ephemeral = new_key("cats", "1.2", public_of(PRIVATE))
    off_the_curve = "BA" + "A" * 85 + "="
    for field in (
        replace(FIELD, key=wrapped), replace(FIELD, ephemeral=ephemeral), replace(FIELD, ephemeral=off_the_curve)
    ):  # fmt: skip
        assert parse(to_json(field)) == field
        with pytest.raises(Untrusted, match="does not unwrap"):
            unwrap(field, PRIVATE, "cats", "1.2")


def test_another_bundles_key_decrypts_nothing() -> None:
    raw = content(1000)
    for name, version in (("cats", "1.2"), ("dogs", "1.2")):
        other, _, _ = new_key(name, version, public_of(PRIVATE))
        refused(encrypted(raw), plain(raw), key=other)
    refused(encrypted(raw), plain(raw), key=replace(KEY, version="1.3"))
    refused(encrypted(raw), plain(raw), key=replace(KEY, device="0" * 64))


@pytest.mark.parametrize("size", [0, 1000, CHUNK, 2 * CHUNK + 77])
def test_a_touched_chunk_is_refused(size: int) -> None:
    raw = content(size)
    stored = encrypted(raw)
    for place in {0, len(stored) // 2, len(stored) - TAG, len(stored) - 1}:
        refused(stored[:place] + bytes([stored[place] ^ 1]) + stored[place + 1 :], plain(raw))


def test_swapped_and_repeated_chunks_are_refused() -> None:
    raw = content(3 * CHUNK + 5)
    stored, step = encrypted(raw), CHUNK + TAG
    first, second, third, last = (stored[begin : begin + step] for begin in range(0, len(stored), step))
    for order in ((second, first, third, last), (first, third, second, last), (first, first, third, last)):
        refused(b"".join(order), plain(raw))
    refused(first + second + third + last + last, plain(raw))
    refused(second + third + last, plain(raw))


@pytest.mark.parametrize("size", [2 * CHUNK, 2 * CHUNK + 5])
def test_a_file_cut_at_a_chunk_is_refused(size: int) -> None:
    """Even where its size and digest are said to be those of what is left."""
    raw = content(size)
    stored, step = encrypted(raw), CHUNK + TAG
    for chunks in (0, 1, 2):
        if chunks * step < len(stored):
            refused(stored[: chunks * step], plain(raw))
            refused(stored[: chunks * step], plain(raw[: chunks * CHUNK]))


def test_a_file_cut_or_lengthened_anywhere_is_refused() -> None:
    raw = content(CHUNK + 50)
    stored = encrypted(raw)
    for end in (1, TAG - 1, TAG, CHUNK, CHUNK + TAG + 1, CHUNK + TAG + TAG, len(stored) - 1):
        refused(stored[:end], plain(raw))
    refused(stored + b"\0", plain(raw))
    refused(stored + bytes(3 * CHUNK), plain(raw))


def test_a_renamed_file_is_refused() -> None:
    raw = content(1000)
    refused(encrypted(raw), plain(raw), file="labels.txt")
    refused(encrypted(raw, file="a"), plain(raw), file="b")


def test_what_decrypts_but_is_not_what_the_manifest_says_is_refused() -> None:
    raw = content(1000)
    refused(encrypted(raw), plain(content(999)))
    refused(encrypted(raw), replace(plain(raw), sha256="0" * 64))
    refused(encrypted(b""), plain(b"x"))


def test_chunks_that_never_end_are_refused_at_the_size_that_was_promised() -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        for chunk in encrypt(KEY, "f", (content(CHUNK) for _ in range(1_000))):
            asked += 1
            yield chunk

    with pytest.raises(Untrusted, match="does not decrypt"):
        list(decrypt(KEY, "f", Plain("0" * 64, CHUNK), endless()))
    assert asked < 10


def test_the_same_bytes_are_never_encrypted_alike() -> None:
    again, _, _ = new_key("cats", "1.2", public_of(PRIVATE))
    raw = bytes(3 * CHUNK)
    both = encrypted(raw), encrypted(raw, key=again), encrypted(raw, file="other")
    chunks = [stored[begin : begin + 1000] for stored in both for begin in range(0, len(stored), CHUNK + TAG)]
    assert len(set(chunks)) == len(chunks)


def test_what_is_held_is_let_go_when_a_chunk_late_in_the_file_is_touched() -> None:
    raw = content(2 * CHUNK)
    stored = encrypted(raw)
    view = View()
    try:
        with pytest.raises(Untrusted):
            view.add("model.onnx", decrypt(KEY, "model.onnx", plain(raw), [stored[:-1] + b"\0"]))
        assert not (view.folder / "model.onnx").is_symlink()
        view.add("model.onnx", decrypt(KEY, "model.onnx", plain(raw), [stored]))
        assert (view.folder / "model.onnx").read_bytes() == raw
    finally:
        view.close()


def test_no_secret_is_shown() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert repr(KEY.secret) not in repr(KEY)
    assert "secret" not in repr(KEY)


def test_the_field_reads_back() -> None:
    assert parse(to_json(FIELD)) == FIELD


@pytest.mark.parametrize(
    "wrong",
    [
        None, [], {}, {**to_json(FIELD), "more": 1}, {**to_json(FIELD), "for": "me"}, {**to_json(FIELD), "for": 7},
        {**to_json(FIELD), "for": "A" * 64}, {**to_json(FIELD), "key": "AA=="}, {**to_json(FIELD), "key": 5},
        {**to_json(FIELD), "key": "not base64"}, {**to_json(FIELD), "key": "é"},
        {**to_json(FIELD), "ephemeral": WRAPPED},
        {**to_json(FIELD), "files": ["a"]}, {**to_json(FIELD), "files": {"a": {"size": 1}}},
        {**to_json(FIELD), "files": {"a": {"size": -1, "sha256": "0" * 64}}},
        {**to_json(FIELD), "files": {"a": {"size": True, "sha256": "0" * 64}}},
        {**to_json(FIELD), "files": {"a": {"size": 2**60, "sha256": "0" * 64}}},
        {**to_json(FIELD), "files": {"a": {"size": 1, "sha256": "x"}}},
        {**to_json(FIELD), "files": {"a": {"size": 1, "sha256": "0" * 64, "more": 1}}},
    ],
)  # fmt: skip
def test_a_field_that_does_not_read_is_refused(wrong: object) -> None:
    with pytest.raises(BadBundle, match="does not read"):
        parse(wrong)


def test_encrypted_files_must_be_listed_and_as_large_as_their_chunks() -> None:
    check(FIELD, {"model.onnx": 10 + TAG, "report.json": 5})
    with pytest.raises(BadBundle, match="is not among its files"):
        check(FIELD, {"report.json": 5})
    for size in (10, 10 + TAG - 1, 10 + 2 * TAG):
        with pytest.raises(BadBundle, match=r"'model.onnx' of 10 bytes takes 26"):
            check(FIELD, {"model.onnx": size})


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(EdgeKitError, match="no private key"):
        unwrap(FIELD, b"nothing", "cats", "1.2")


def test_reading_the_field_needs_no_cryptography() -> None:
    code = f"""
import sys
from edgekit_runtime.encrypted import check, parse
check(parse({to_json(FIELD)!r}), {{"model.onnx": 26}})
print("cryptography" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


MEMORY = """
import hashlib, resource
from edgekit_runtime.encrypted import CHUNK, Plain, decrypt, encrypt, new_key
from edgekit_runtime.keypair import new_private_key, public_of
key, _, _ = new_key("a", "1", public_of(new_private_key()))
chunk = bytes(CHUNK)
digest = hashlib.sha256()
for _ in range(300):
    digest.update(chunk)
for _ in decrypt(key, "f", Plain(hashlib.sha256(chunk).hexdigest(), CHUNK), encrypt(key, "f", [chunk])):
    pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in decrypt(key, "f", Plain(digest.hexdigest(), 300 * CHUNK), encrypt(key, "f", (chunk for _ in range(300)))):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_decrypting_a_large_file_takes_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 * 1024, "kB more than before, for a file of 300 MiB"
