"""`edgekit pull-samples`: what a device's own store exports, merged again and again; and what a stranger may send."""

import io
import json
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.samples import Candidate, Samples
from PIL import Image

from edgekit.calling import Access
from edgekit.collection import collecting
from edgekit.data import open_data
from edgekit.dataset import Wanted
from edgekit.parcels import Parcel, open_parcel
from edgekit.pulling import Pulled, Wish, lines, pull
from tests.commands import edgekit

NAME = "0" * 32


def photo(seed: int) -> bytes:
    """A small PNG."""
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(held, "PNG")
    return held.getvalue()


def candidate(seed: int, source: bytes | None = None, kind: str = "image", model: str = "m", **feeds: Any) -> Candidate:
    """A sample as it was answered; a photo unless `feeds` are given."""
    tensors = feeds or {"x": np.full((1, 2), seed, np.float32)}
    sent = source if source is not None else None if feeds else photo(seed)
    answer = {"y": np.array([[0.5, 0.5]], np.float32)}
    return Candidate(model, "1", f"id-{seed}", 1000 + seed, tensors, sent, kind, answer, "cat", 0.5, None)


@pytest.fixture
def store(tmp_path: Path) -> Samples:
    return Samples(tmp_path / "state" / "samples", 50 * 2**20)


@contextmanager
def serving(answer: Callable[[str, dict[str, str]], tuple[int, bytes]]) -> Iterator[str]:
    """The address of a server that answers GET by `answer(path, query)`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, body = answer(parts.path, {key: value for key, (value,) in parse_qs(parts.query).items()})
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def device(store: Samples, most: int = 2**24) -> Iterator[tuple[str, list[str]]]:
    """The store behind HTTP, in parts of `most` bytes: where, and the paths that were asked for."""
    asked: list[str] = []

    def answer(path: str, query: dict[str, str]) -> tuple[int, bytes]:
        asked.append(path)
        try:
            if path == "/samples/index":
                return 200, json.dumps(store.index(**query)).encode()
            return 200, b"".join(store.export(**query, most=most))
        except EdgeKitError as error:
            return 404, json.dumps({"error": error.what, "hint": error.hint}).encode()

    with serving(answer) as at:
        yield at, asked


def got(where: str, out: Path, **wish: Any) -> Pulled:
    return pull(where, Access(), Wish(out, **wish), lambda words: None)


def held(out: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def fill(store: Samples, count: int = 12, labelled: int = 8) -> None:
    for seed in range(count):
        store.consider(candidate(seed))
    for seed in range(labelled):
        store.told("m", f"id-{seed}", ("cat", "dog")[seed % 2], seed % 2)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 20_000, 2**24])
def test_every_sample_comes_with_its_label_in_parts_of_any_size(store: Samples, tmp_path: Path, most: int) -> None:
    fill(store)
    with device(store, most) as (at, _):
        found = got(at, tmp_path / "out")
    assert (found.kept, found.new, found.labelled, found.unlabelled) == (12, 12, 8, 4)
    table = (tmp_path / "out" / "labelled" / "labels.csv").read_text().splitlines()
    assert table[0] == "file,label"
    told = dict(line.split(",") for line in table[1:])
    by_content = {photo(seed): ("cat", "dog")[seed % 2] for seed in range(8)}
    assert {
        by_content[(tmp_path / "out" / "labelled" / file).read_bytes()] == label for file, label in told.items()
    } == {True}
    assert len(told) == 8
    assert len(list((tmp_path / "out" / "unlabelled").iterdir())) == 4
    listed = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert {row["id"] for row in listed["samples"]} == {f"id-{seed}" for seed in range(12)}
    assert all((tmp_path / "out" / row["file"]).is_file() for row in listed["samples"])


def test_a_second_pull_asks_for_nothing_that_is_here(store: Samples, tmp_path: Path) -> None:
    fill(store)
    with device(store) as (at, asked):
        got(at, tmp_path / "out")
        before = held(tmp_path / "out")
        asked.clear()
        again = got(at, tmp_path / "out")
    assert asked == ["/samples/index"]
    assert again.new == 0
    assert (again.labelled, again.unlabelled) == (8, 4)
    assert held(tmp_path / "out") == before


def test_a_label_that_is_told_later_moves_the_sample(store: Samples, tmp_path: Path) -> None:
    fill(store, labelled=0)
    with device(store, 1) as (at, asked):
        got(at, tmp_path / "out")
        assert not (tmp_path / "out" / "labelled").exists()
        store.told("m", "id-3", "dog", 1)
        asked.clear()
        found = got(at, tmp_path / "out")
    assert asked == ["/samples/index", "/samples"]
    assert (found.new, found.labelled, found.unlabelled) == (0, 1, 11)
    assert photo(3) not in [path.read_bytes() for path in (tmp_path / "out" / "unlabelled").iterdir()]
    assert len(held(tmp_path / "out")) == 12 + 2


def test_samples_of_two_devices_are_merged_by_their_content(tmp_path: Path) -> None:
    one, other = (Samples(tmp_path / name, 2**24) for name in ("one", "other"))
    for seed in range(5):
        one.consider(candidate(seed))
        other.consider(replace(candidate(seed + 3), id=f"id-{seed}", when_ms=seed))
    for store in (one, other):
        with device(store) as (at, _):
            found = got(at, tmp_path / "out")
    assert (found.new, found.unlabelled) == (3, 8)


def test_a_dry_run_says_how_many_and_how_large_and_writes_nothing(store: Samples, tmp_path: Path) -> None:
    fill(store)
    with device(store) as (at, asked):
        done = edgekit("pull-samples", at, "--out", tmp_path / "out", "--dry-run", "--json")
        assert done.code == 0, done.err
        found = done.json()
        assert (found["kept"], found["new"], found["dry_run"]) == (12, 12, True)
        assert found["bytes"] == store.index()["bytes"]
        assert not (tmp_path / "out").exists()
        assert "/samples" not in asked
        assert "12 of them are new" in edgekit("pull-samples", at, "--out", tmp_path / "out", "--dry-run").out


def test_the_command_says_the_two_commands_that_use_it(store: Samples, tmp_path: Path) -> None:
    fill(store)
    with device(store) as (at, _):
        done = edgekit("pull-samples", at, "--out", tmp_path / "out", "--quiet")
    assert done.code == 0, done.err
    assert "12 new of 12 samples" in done.out
    assert f"--data {tmp_path / 'out' / 'labelled'}\n" in done.out
    assert f"--calibration {tmp_path / 'out' / 'unlabelled'}\n" in done.out


def test_tensors_become_one_archive_that_a_build_takes(store: Samples, tmp_path: Path) -> None:
    from edgekit_runtime.tensors import TensorSpec

    for seed in range(9):
        store.consider(candidate(seed, x=np.full((1, 3), seed, np.float32), file=np.array([[seed]], np.int64)))
    for seed in range(0, 6):
        store.told("m", f"id-{seed}", "cat", seed % 2)
    wanted = Wanted((TensorSpec("x", "float32", (None, 3)), TensorSpec("file", "int64", (None, 1))), 2)
    with device(store, 1) as (at, asked):
        found = got(at, tmp_path / "out")
        assert (found.labelled, found.unlabelled) == (6, 3)
        data = open_data(str(tmp_path / "out" / "labelled" / "tensors.npz"), wanted)
        assert data.labels is not None
        assert len(data) == 6
        for i in range(6):
            assert data.feeds(i)["x"][0, 0] % 2 == data.labels[i]
            assert data.feeds(i)["file"][0, 0] == data.feeds(i)["x"][0, 0]
        store.told("m", "id-7", "cat", 1)
        assert got(at, tmp_path / "out").labelled == 7
        asked.clear()
        assert got(at, tmp_path / "out").new == 0
        assert asked == ["/samples/index"]
    data = open_data(str(tmp_path / "out" / "labelled" / "tensors.npz"), wanted)
    assert sorted(float(data.feeds(i)["x"][0, 0]) for i in range(7)) == [0, 1, 2, 3, 4, 5, 7]
    rest = open_data(str(tmp_path / "out" / "unlabelled" / "tensors.npz"), wanted)
    assert sorted(float(rest.feeds(i)["x"][0, 0]) for i in range(len(rest))) == [6, 8]
    assert f"--data {tmp_path / 'out' / 'labelled' / 'tensors.npz'}" in "\n".join(lines(found))


def test_tensors_of_several_shapes_strings_and_not_finite_ones_are_kept_apart(store: Samples, tmp_path: Path) -> None:
    for seed in range(4):
        store.consider(candidate(seed, x=np.full((1, 3), seed, np.float32)))
    store.consider(candidate(10, x=np.zeros((1, 5), np.float32)))
    store.consider(candidate(11, x=np.full((1, 3), np.nan, np.float32)))
    store.consider(candidate(12, x=np.array([["a"]], object)))
    store.consider(candidate(13, x=np.array([["much longer"]], object)))
    with device(store, 1) as (at, _):
        got(at, tmp_path / "out")
    side = tmp_path / "out" / "unlabelled"
    assert sorted(path.name for path in side.iterdir()) == [
        "not-finite.npz",
        "tensors-2.npz",
        "tensors-3.npz",
        "tensors.npz",
    ]
    shapes = {path.name: np.load(path)["x"].shape for path in side.iterdir()}
    assert shapes["tensors.npz"] == (4, 3)
    assert {shapes["tensors-2.npz"], shapes["tensors-3.npz"]} == {(2, 1), (1, 5)}
    (words,) = (np.load(path)["x"] for path in side.iterdir() if shapes[path.name] == (2, 1))
    assert sorted(words.ravel().tolist()) == ["a", "much longer"]


def test_samples_on_a_card_are_read_where_they_lie(store: Samples, tmp_path: Path) -> None:
    fill(store)
    state = tmp_path / "state"
    before = held(state)
    (one, *_) = (path for path in (state / "samples").iterdir() if path.is_dir())
    for where in (str(state), f"file://{state}", str(state / "samples")):
        found = got(where, tmp_path / "out")
        assert (found.kept, found.labelled, found.unlabelled) == (12, 8, 4)
    assert held(state) == before
    (one / "facts.json").write_text("{")
    assert got(str(state), tmp_path / "rest").kept == 11
    with pytest.raises(EdgeKitError, match="holds no samples"):
        got(str(tmp_path / "out"), tmp_path / "none")


def test_of_several_models_one_is_named(store: Samples, tmp_path: Path) -> None:
    fill(store, 3, 0)
    store.consider(candidate(7, model="other"))
    with device(store) as (at, _):
        with pytest.raises(EdgeKitError, match="keeps samples of 2 models") as caught:
            got(at, tmp_path / "out")
        assert "'m', 'other'" in caught.value.hint
        assert got(at, tmp_path / "out", model="other").kept == 1
        with pytest.raises(EdgeKitError, match="keeps no samples of 'third'"):
            got(at, tmp_path / "new", model="third")
        with pytest.raises(EdgeKitError, match="holds samples of other, these are of m"):
            got(at, tmp_path / "out", model="m")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_else_is_left_alone(store: Samples, tmp_path: Path) -> None:
    fill(store)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with device(store) as (at, asked):
        assert "holds something else" in edgekit("pull-samples", at, "--out", tmp_path / "mine").error()
    assert held(tmp_path / "mine") == {"thesis.txt": b"all of it"}
    assert not asked


def test_two_pulls_into_one_folder_wait_for_each_other(store: Samples, tmp_path: Path) -> None:
    fill(store)
    with device(store) as (at, _), collecting(tmp_path / "out"), pytest.raises(EdgeKitError, match="another pull"):
        got(at, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_refused_is_told_with_the_servers_hint(tmp_path: Path) -> None:
    told = json.dumps({"error": "this is switched off here", "hint": "serve with --admin ADDRESS\x1b[2J"}).encode()
    with serving(lambda path, query: (403, told)) as at:
        done = edgekit("pull-samples", at, "--out", tmp_path / "out")
    assert "this is switched off here" in done.error()
    assert "\x1b" not in done.err
    with serving(lambda path, query: (401, b"{}")) as at:
        assert "--token FILE" in edgekit("pull-samples", at, "--out", tmp_path / "out").err
    assert not (tmp_path / "out").exists()


def test_a_connection_that_is_cut_keeps_what_came_and_goes_on_from_there(store: Samples, tmp_path: Path) -> None:
    fill(store)
    left = [4]

    def answer(path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if path == "/samples/index":
            return 200, json.dumps(store.index(**query)).encode()
        left[0] -= 1
        whole = b"".join(store.export(**query, most=1))
        return 200, whole if left[0] else whole[: len(whole) // 2]

    with serving(answer) as at:
        with pytest.raises(EdgeKitError, match="cut short"):
            got(at, tmp_path / "out")
        listed = json.loads((tmp_path / "out" / "samples.json").read_text())["samples"]
        assert len(listed) == 3
        assert not (tmp_path / "out" / ".pulling").exists()
        assert got(at, tmp_path / "out").new == 9


# What a stranger may send.


def row(**more: Any) -> dict[str, Any]:
    return {"file": f"unlabelled/{NAME}.png", "row": None, "label": None, "id": "a", "when_ms": 1, **more}


def listed(*rows: Any, **more: Any) -> bytes:
    return json.dumps({"schema": 1, "model": "m", "version": "1", "next": None, "samples": list(rows), **more}).encode()


def tar(*members: tuple[Any, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """An archive of (name or TarInfo, content)."""
    whole = b""
    for info, content in members:
        info = tarfile.TarInfo(info) if isinstance(info, str) else info
        info.size = info.size or len(content)
        whole += info.tobuf(form) + content + bytes(-len(content) % 512)
    return whole + bytes(1024)


def info(name: str = f"unlabelled/{NAME}.png", **more: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made


PNG = photo(0)
GOOD = (f"unlabelled/{NAME}.png", PNG)
LIST = ("samples.json", listed(row()))


def npz(compression: int = zipfile.ZIP_STORED, **arrays: bytes) -> bytes:
    """An archive of files as they are given."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as opened:
        for name, content in arrays.items():
            opened.writestr(f"{name}.npy", content)
    return made.getvalue()


def npy(value: Any, pickled: bool = False) -> bytes:
    made = io.BytesIO()
    np.lib.format.write_array(made, np.asarray(value), allow_pickle=pickled)
    return made.getvalue()


def head(**more: Any) -> bytes:
    """The head of an array alone."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"shape": (1, 2), "fortran_order": False, "descr": "<f4", **more})
    return made.getvalue()


def tensors(content: bytes, count: int = 1, file: str = "unlabelled/tensors.npz", **more: Any) -> bytes:
    return tar((file, content), ("samples.json", listed(*(row(file=file, row=i, **more) for i in range(count)))))


X = npy(np.zeros((1, 2), np.float32))
HOSTILE: Mapping[str, bytes] = {
    "nothing": b"",
    "no tar": b"<html>" * 200,
    "zeros alone": bytes(1024),
    "zeros without end": tar(GOOD, LIST) + bytes(512) + b"x" * 512,
    "cut": tar(GOOD, LIST)[:-1024],
    "cut in a file": tar(GOOD, LIST)[:700],
    "a damaged head": tar(GOOD, LIST).replace(NAME[:8].encode(), b"11111111", 1),
    "an absolute path": tar((f"/unlabelled/{NAME}.png", PNG), LIST),
    "a path that leads out": tar((f"../unlabelled/{NAME}.png", PNG), LIST),
    "a path that leads out from inside": tar((f"unlabelled/../../{NAME}.png", PNG), LIST),
    "a path elsewhere": tar((".bashrc", PNG), LIST),
    "a hidden file": tar(("unlabelled/.profile", PNG), LIST),
    "another ending": tar((f"unlabelled/{NAME}.sh", PNG), LIST),
    "a path in the prefix": tar((info("x" * 90 + "/" + "y" * 90 + ".png"), PNG), LIST),
    "a NUL in a name": tar(GOOD, LIST).replace(b".png\0\0", b".png\0a", 1),
    "a symlink": tar((info(type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""), LIST),
    "a link with a plain type": tar((info(linkname="/etc/passwd"), PNG), LIST),
    "a hard link": tar((info(type=tarfile.LNKTYPE, linkname="samples.json"), b""), LIST),
    "a device": tar((info(type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""), LIST),
    "a block device": tar((info(type=tarfile.BLKTYPE, devmajor=8), b""), LIST),
    "a pipe": tar((info(type=tarfile.FIFOTYPE), b""), LIST),
    "a folder": tar((info(f"unlabelled/{NAME}.png", type=tarfile.DIRTYPE), b""), LIST),
    "a sparse file": tar((info(type=tarfile.GNUTYPE_SPARSE), PNG), LIST),
    "a long GNU name": tar((info("unlabelled/" + "a" * 200), PNG), LIST, form=tarfile.GNU_FORMAT),
    "a pax head": tar((info("unlabelled/ä.png"), PNG), LIST, form=tarfile.PAX_FORMAT),
    "a huge size": tar((info(size=8**11 - 1), PNG), LIST),
    "a size in base 256": tar((info(size=2**60), PNG), LIST, form=tarfile.GNU_FORMAT),
    "a name twice": tar(GOOD, GOOD, LIST),
    "the list twice": tar(GOOD, LIST, LIST),
    "no list": tar(GOOD),
    "a list that is no JSON": tar(GOOD, ("samples.json", b"{")),
    "a list nested without end": tar(GOOD, ("samples.json", b"[" * 200_000)),
    "a list of another schema": tar(GOOD, ("samples.json", listed(row(), schema=2))),
    "a list of numbers": tar(GOOD, ("samples.json", listed(3))),
    "a model that is a path": tar(GOOD, ("samples.json", listed(row(), model="../m"))),
    "a next that is none": tar(GOOD, ("samples.json", listed(row(), next="zzz"))),
    "what is not listed": tar(GOOD, (f"unlabelled/{'1' * 32}.png", PNG), LIST),
    "what is listed and not there": tar(LIST),
    "a sample listed twice": tar(GOOD, ("samples.json", listed(row(), row()))),
    "a label on the other side": tar(GOOD, ("samples.json", listed(row(label="cat")))),
    "a label with a line end": tar(
        (f"labelled/{NAME}.png", PNG), ("samples.json", listed(row(file=f"labelled/{NAME}.png", label="cat\n=1+1")))
    ),
    "a label of a megabyte": tar(
        (f"labelled/{NAME}.png", PNG), ("samples.json", listed(row(file=f"labelled/{NAME}.png", label="c" * 10**6)))
    ),
    "an id that is a list": tar(GOOD, ("samples.json", listed(row(id=["a"])))),
    "pickled objects": tensors(npz(x=npy(np.array([[{}]], object), True))),
    "a packed archive": tensors(npz(zipfile.ZIP_DEFLATED, x=X)),
    "an archive of other rows": tensors(npz(x=X), 2),
    "an archive without arrays": tensors(npz()),
    "an archive that is cut": tensors(npz(x=X)[:-1]),
    "a header of a terabyte": tensors(npz(x=head(shape=(1, 2**38)))),
    "a header of nothing": tensors(npz(x=head(shape=(1, 2**38), descr="<U0"))),
    "a header that is code": tensors(npz(x=X.replace(b"'<f4'", b"f()  "))),
    "a count of entries": tensors(npz(x=X)[:-12] + struct.pack("<H", 65535) + npz(x=X)[-10:]),
    "labelled without classes": tensors(npz(x=X), 1, "labelled/tensors.npz", label="cat"),
    "classes that are real": tensors(
        npz(x=X, label=npy(np.zeros(1))), 1, "labelled/tensors.npz", label="cat"
    ),
    "finite that is not": tensors(npz(x=npy(np.full((1, 2), np.nan, np.float32)))),
}  # fmt: skip


def test_the_good_one_of_the_bad_ones_is_taken() -> None:
    found = open_parcel(tar(GOOD, LIST))
    assert [(one.name, one.ending, one.source) for one in found.samples] == [(NAME, "png", PNG)]
    assert len(open_parcel(tensors(npz(x=X))).samples) == 1


@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_stranger_sends_is_refused_and_nothing_is_written(what: str, tmp_path: Path) -> None:
    index = {
        "samples": [{"name": NAME, "model": "m", "bytes": 10, "id": "a", "when_ms": 1, "version": "1"}],
        "next": None,
    }
    sent = {"/samples/index": json.dumps(index).encode(), "/samples": HOSTILE[what]}
    with serving(lambda path, query: (200, sent[path])) as at:
        done = edgekit("pull-samples", at, "--out", tmp_path / "out", "--model", "m")
    assert done.code == 1
    assert done.error()
    assert "what the device sent" in done.err or "otherwise than by schema" in done.err
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_flood_of_members_is_refused_early() -> None:
    many = b"".join(info(f"unlabelled/{i:032x}.png").tobuf(tarfile.USTAR_FORMAT) for i in range(20_001))
    with pytest.raises(EdgeKitError, match="more than 20,000 files"):
        open_parcel(many + many)


@pytest.mark.parametrize("cut", range(0, 3000, 97))
def test_whatever_is_cut_off_or_changed_is_refused_or_the_same(cut: int) -> None:
    good = tar(GOOD, LIST)
    changed = good[:cut] + bytes([good[cut] ^ 0x41]) + good[cut + 1 :]
    for raw in (good[:cut], changed):
        try:
            found: Parcel | None = open_parcel(raw)
        except EdgeKitError:
            found = None
        if found is not None:
            assert [(one.name, one.ending) for one in found.samples] == [(NAME, "png")]


INDEX = {"name": NAME, "model": "m", "bytes": 10, "id": "a", "when_ms": 1, "version": "1", "label": None}


@pytest.mark.parametrize(
    "told",
    [
        b"{",
        b"[]",
        b"{}",
        json.dumps({"samples": [3], "next": None}).encode(),
        json.dumps({"samples": [{**INDEX, "name": "../x"}], "next": None}).encode(),
        json.dumps({"samples": [{**INDEX, "bytes": -5}], "next": None}).encode(),
        json.dumps({"samples": [{**INDEX, "bytes": "many"}], "next": None}).encode(),
        json.dumps({"samples": [{**INDEX, "id": [1]}], "next": None}).encode(),
        json.dumps({"samples": [INDEX, INDEX], "next": None}).encode(),
        json.dumps({"samples": [INDEX], "next": NAME}).encode(),
        json.dumps({"samples": [], "next": NAME}).encode(),
        b"[" * 200_000,
    ],
)
def test_an_index_that_is_none_or_has_no_end_is_refused(told: bytes, tmp_path: Path) -> None:
    with serving(lambda path, query: (200, told)) as at:
        done = edgekit("pull-samples", at, "--out", tmp_path / "out")
    assert "what the device sent" in done.error()
    assert not (tmp_path / "out").exists()


def test_parts_that_come_again_are_not_asked_for_without_end(tmp_path: Path) -> None:
    names = [f"{i:032x}" for i in range(3)]
    index = {"samples": [{**INDEX, "name": name, "id": name} for name in names], "next": None}
    file = f"unlabelled/{names[0]}.png"
    part = tar((file, PNG), ("samples.json", listed(row(file=file), next=names[0])))
    sent = {"/samples/index": json.dumps(index).encode(), "/samples": part}
    with serving(lambda path, query: (200, sent[path])) as at, pytest.raises(EdgeKitError, match="a part comes again"):
        got(at, tmp_path / "out")


def test_what_would_fill_the_disk_is_refused_first(tmp_path: Path) -> None:
    index = {"samples": [{**INDEX, "bytes": 10**15}], "next": None}
    with serving(lambda path, query: (200, json.dumps(index).encode())) as at:
        assert "MB free at" in edgekit("pull-samples", at, "--out", tmp_path / "out").error()
    assert not (tmp_path / "out").exists()
