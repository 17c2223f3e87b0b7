"""Deltas: they give back the very file, are never larger than it, and what is wrong with one is refused."""

import hashlib
import io
import lzma
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.alignment import NOWHERE, WINDOW, aligned
from edgekit_runtime.deltas import DICTIONARY, HEADER, MAGIC, RUN, apply, make, most_runs, pieces, read_header
from edgekit_runtime.errors import BadBundle
from edgekit_runtime.tensors import Array
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

SIZE = 60_000


def weights(seed: int = 0, count: int = SIZE) -> Array:
    """int8 weights as networks have them."""
    return np.clip(np.rint(np.random.default_rng(seed).normal(0, 25, count)), -127, 127).astype(np.int8)


def tuned(before: Array, share: float, seed: int = 1) -> Array:
    """`share` of the weights, each a few steps off."""
    dice = np.random.default_rng(seed)
    steps = np.where(dice.random(len(before)) < share, dice.choice([-2, -1, 1, 2], len(before)), 0)
    return np.clip(before + steps, -127, 127).astype(np.int8)


def model(layers: list[Array], lengths: int = 4) -> bytes:
    """A graph: names and a few bytes of parameters of another length each time between the weights of the layers."""
    parts = []
    for index, layer in enumerate(layers):
        head = np.random.default_rng((lengths, index)).integers(0, 256, lengths + index % 3, np.uint8)
        parts += [f"layer.{index}.weight_quantized".encode(), head.tobytes(), layer.tobytes()]
    return b"".join(parts)


def applied(base: bytes, delta: bytes, wanted: bytes) -> bytes:
    out = io.BytesIO()
    apply(io.BytesIO(base), io.BytesIO(delta), out, hashlib.sha256(wanted).hexdigest(), len(wanted))
    return out.getvalue()


def made(base: bytes, new: bytes) -> bytes:
    delta = make(base, new)
    assert delta is not None
    assert applied(base, delta, new) == new
    return delta


def refused(base: bytes, delta: bytes, wanted: bytes, words: str) -> None:
    """That it raises, and that what lay in the file before it stays alone there."""
    out = io.BytesIO(b"before")
    out.seek(0, 2)
    with pytest.raises(BadBundle, match=words) as caught:
        apply(io.BytesIO(base), io.BytesIO(delta), out, hashlib.sha256(wanted).hexdigest(), len(wanted))
    assert caught.value.hint
    assert out.getvalue() == b"before"


OLD = model([weights(seed) for seed in range(3)])
NEW = model([tuned(weights(seed), 0.3) for seed in range(3)], lengths=6)


def forged(old: bytes, new: bytes, body: bytes, size: int | None = None) -> bytes:
    """A delta with a right header and whatever body."""
    digests = hashlib.sha256(old).digest(), hashlib.sha256(new).digest()
    header = HEADER.pack(MAGIC, len(old), digests[0], len(new) if size is None else size, digests[1])
    chain = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": DICTIONARY}]
    return header + lzma.compress(body, lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=chain)


def test_a_fine_tuned_model_takes_a_third_of_its_size_though_its_bytes_are_shifted() -> None:
    assert len(made(OLD, NEW)) < 0.33 * len(NEW)


def test_a_model_of_which_most_weights_changed_and_all_are_shifted_is_still_found() -> None:
    before = [weights(seed) for seed in range(6)]
    new = model([tuned(layer, 0.9) for layer in before], lengths=61)
    assert len(made(model(before), new)) < 0.5 * len(new)


def test_a_last_layer_takes_little_more_than_itself() -> None:
    before = [weights(seed) for seed in range(4)]
    after = [*before[:-1], weights(9)]
    assert len(made(model(before), model(after))) < 1.02 * SIZE


def test_layers_in_another_order_are_found() -> None:
    before = [weights(seed) for seed in range(4)]
    after = model([before[2], before[0], before[3], before[1]])
    assert len(made(model(before), after)) < 8_000


def test_the_same_file_takes_next_to_nothing() -> None:
    assert len(made(OLD, OLD)) < 1_000


def test_a_file_of_another_kind_has_no_delta() -> None:
    noise = np.random.default_rng(5).bytes(SIZE)
    assert make(OLD, noise) is None


def test_a_delta_that_is_no_smaller_than_the_file_packed_alone_is_none() -> None:
    words = b"the same words again. " * 4_000
    assert make(np.random.default_rng(6).bytes(SIZE), words) is None
    assert len(made(b"", words)) < 400


@pytest.mark.parametrize("new", [b"", b"x", b"\0" * 50])
def test_a_file_that_is_small_anyway_has_no_delta(new: bytes) -> None:
    assert make(OLD, new) is None
    assert make(b"", new) is None


def test_files_are_taken_as_well_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "new").write_bytes(NEW)
    assert make(tmp_path / "old", tmp_path / "new") == make(OLD, NEW)


def test_the_header_names_both_files() -> None:
    header = read_header(io.BytesIO(made(OLD, NEW)))
    assert (header.base_sha256, header.base_size) == (hashlib.sha256(OLD).hexdigest(), len(OLD))
    assert (header.sha256, header.size) == (hashlib.sha256(NEW).hexdigest(), len(NEW))


@settings(max_examples=40)
@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 9_000), st.binary(max_size=40)), max_size=6))
def test_whatever_is_put_in_or_taken_out_comes_back(start: bytes, edits: list[tuple[int, bytes]]) -> None:
    old = start + weights(3, 9_000).tobytes()
    new = old
    for place, piece in edits:
        new = new[:place] + piece + new[place + 7 :]
    made(old, new)


@given(st.binary(max_size=3 * WINDOW), st.binary(max_size=3 * WINDOW))
def test_runs_cover_the_new_file_and_stay_within_the_old_one(old: bytes, new: bytes) -> None:
    runs = aligned(np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8))
    assert sum(run.length for run in runs) == len(new)
    assert len(runs) <= most_runs(len(new))
    assert all(run.length > 0 for run in runs)
    assert all(run.start == NOWHERE or 0 <= run.start <= len(old) - run.length for run in runs)


def test_a_wrong_base_is_refused() -> None:
    delta = made(OLD, NEW)
    for base in (NEW, OLD[:-1], OLD + b"\0", b""):
        refused(base, delta, NEW, "another file than the one that is here")


def test_a_delta_for_another_file_is_refused() -> None:
    refused(OLD, made(OLD, NEW), OLD, "makes another file")


def test_a_delta_cut_anywhere_is_refused() -> None:
    delta = made(OLD, NEW)
    for end in [*range(0, HEADER.size + 40, 7), *range(HEADER.size + 40, len(delta), len(delta) // 60), len(delta) - 1]:
        refused(OLD, delta[:end], NEW, "is no delta|is cut|does not unpack")


def test_a_delta_touched_anywhere_is_refused() -> None:
    delta = made(OLD, NEW)
    unseen = []
    for place in [*range(HEADER.size + 40), *range(HEADER.size + 40, len(delta), len(delta) // 60)]:
        broken = bytearray(delta)
        broken[place] ^= 1 + place % 255
        try:
            if applied(OLD, bytes(broken), NEW) != NEW:
                unseen.append(place)
        except BadBundle:
            pass
    assert not unseen


def test_more_after_the_end_is_refused() -> None:
    delta = made(OLD, NEW)
    refused(OLD, delta + b"\0", NEW, "goes on after its end")
    refused(OLD, delta + delta, NEW, "goes on after its end")


@pytest.mark.parametrize(
    ("length", "start"),
    [(0, 0), (len(NEW) + 1, NOWHERE), (2**64 - 1, 0), (10, -2), (10, -(2**63)), (10, len(OLD) - 9), (10, 2**63 - 1)],
)
def test_a_copy_of_what_is_not_there_is_refused(length: int, start: int) -> None:
    body = RUN.pack(length, start) + bytes(100)
    refused(OLD, forged(OLD, NEW, body), NEW, "copies what is not there")


def test_a_bomb_is_refused_once_the_file_is_full() -> None:
    new = bytes(len(NEW))
    bomb = forged(OLD, new, RUN.pack(len(new), NOWHERE) + bytes(40 * 2**20))
    refused(OLD, bomb, new, "makes more than the file")
    refused(OLD, forged(OLD, NEW, bytes(40 * 2**20)), NEW, "copies what is not there")


def test_another_file_of_the_right_size_is_refused() -> None:
    for body in (RUN.pack(len(NEW), NOWHERE) + NEW[:-1] + b"?", RUN.pack(len(NEW), 0)[:8] + bytes(8) + NEW):
        refused(OLD + NEW, forged(OLD + NEW, NEW, body), NEW, "was touched")


def test_a_file_that_ends_early_is_refused() -> None:
    refused(
        OLD, forged(OLD, NEW, RUN.pack(len(NEW) - 1, NOWHERE) + NEW[:-1]), NEW, r"is cut|does not unpack|was touched"
    )
    refused(OLD, forged(OLD, NEW, RUN.pack(len(NEW), NOWHERE) + NEW[:-1]), NEW, r"is cut|does not unpack")


def test_more_runs_than_any_delta_has_are_refused() -> None:
    new = bytes(SIZE)
    tiny = b"".join(RUN.pack(1, NOWHERE) + b"\0" for _ in range(SIZE))
    refused(OLD, forged(OLD, new, tiny), new, "makes more than the file")


def test_a_dictionary_that_a_device_has_no_room_for_is_refused() -> None:
    body = lzma.compress(
        RUN.pack(len(NEW), NOWHERE) + NEW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 512 * 2**20}]
    )
    refused(OLD, forged(OLD, NEW, b"")[: HEADER.size] + body, NEW, "does not unpack")


def test_a_stream_of_empty_blocks_without_end_is_refused() -> None:
    class Endless(io.BytesIO):
        """A header and one xz stream of empty blocks, for ever."""

        served = 0

        def read(self, count: int | None = -1) -> bytes:
            found = super().read(count)
            if found:
                return found
            self.served += 1
            assert self.served < 1_000
            return _empty_block() * 1_000

    stream = lzma.compress(b"", lzma.FORMAT_XZ, lzma.CHECK_NONE)[:12]
    endless = Endless(forged(OLD, NEW, b"")[: HEADER.size] + stream)
    with pytest.raises(BadBundle, match=r"larger than its file|does not unpack"):
        apply(io.BytesIO(OLD), endless, io.BytesIO(), hashlib.sha256(NEW).hexdigest(), len(NEW))


def _empty_block() -> bytes:
    """An xz block that holds nothing."""
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_NONE)
    whole = packer.compress(b"x") + packer.flush()
    header = whole[12 : 12 + (whole[12] + 1) * 4]
    return header + b"\0" * 4  # the chunk that ends LZMA2, and its padding


def test_a_base_that_shrinks_meanwhile_is_refused() -> None:
    class Shrinking(io.BytesIO):
        """All there while it is hashed, and then no more."""

        seeks = 0

        def seek(self, place: int, whence: int = 0) -> int:
            self.seeks += 1
            if self.seeks == 2:
                self.truncate(100)
            return super().seek(place, whence)

    with pytest.raises(BadBundle, match="became shorter"):
        list(pieces(Shrinking(OLD), io.BytesIO(made(OLD, NEW)), hashlib.sha256(NEW).hexdigest(), len(NEW)))


def test_a_header_that_lies_of_sizes_is_refused() -> None:
    delta = made(OLD, NEW)
    magic, base_size, base, size, new = HEADER.unpack(delta[: HEADER.size])
    body = delta[HEADER.size :]
    refused(OLD, HEADER.pack(magic, 2**63, base, size, new) + body, NEW, "another file than the one that is here")
    refused(OLD, HEADER.pack(magic, base_size, base, 2**63, new) + body, NEW, "makes another file")
    refused(OLD, struct.pack("<8s", b"EKDELTA2") + delta[8:], NEW, "is no delta")


def test_a_base_read_in_drips_gives_the_same() -> None:
    class Drip(io.BytesIO):
        """Gives what was asked for in small parts, as a pipe does."""

        def read(self, count: int | None = -1) -> bytes:
            return super().read(min(count, 1_000) if count and count > 0 else count)

    found = pieces(Drip(OLD), Drip(made(OLD, NEW)), hashlib.sha256(NEW).hexdigest(), len(NEW))
    assert b"".join(found) == NEW


MEMORY = """
import hashlib, resource, sys
from edgekit_runtime import deltas
old, delta, out, sha256, size = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(old, "rb") as base, open(delta, "rb") as packed, open(out, "w+b") as file:
    deltas.apply(base, packed, file, sha256, int(size))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_applying_a_delta_to_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    row = weights(0, 2**20)
    old = np.concatenate([np.roll(row, index) ^ np.int8(index) for index in range(64)])
    new = old.copy()
    new[:: 2**12] += 1
    old.tofile(tmp_path / "old")
    difference = (new - old).tobytes()
    (tmp_path / "delta").write_bytes(forged(old.tobytes(), new.tobytes(), RUN.pack(len(new), 0) + difference))
    digest = hashlib.sha256(new.tobytes()).hexdigest()
    words = [str(tmp_path / name) for name in ("old", "delta", "out")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *words, digest, str(len(new))], capture_output=True, text=True, check=True
    )
    assert (tmp_path / "out").read_bytes() == new.tobytes()
    assert int(done.stdout) < 16 * 1024, "kB more than before, for a file of 64 MiB"
