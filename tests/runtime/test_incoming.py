"""Carrying files to a device: piece by piece, from where one stopped, and a bundle of which only some files come."""

import hashlib
import io
import json
from pathlib import Path

import pytest
from edgekit_runtime import deltas
from edgekit_runtime.device import Device
from edgekit_runtime.disk import REAL
from edgekit_runtime.errors import BadBundle, BadRequest, EdgeKitError, NotFound
from edgekit_runtime.incoming import have, receive, receive_delta, staged
from edgekit_runtime.installing import Wishes, install
from edgekit_runtime.store import Store

from tests.runtime.devices import Maker, device_folder, runtime

pytestmark = pytest.mark.slow

DATA = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(DATA).hexdigest()

LATER = DATA[:1000] + b"another" + DATA[1000:]
WANTED = hashlib.sha256(LATER).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", tmp_path / "floor.json")


def object_of(store: Store, sha256: str = SHA256) -> Path:
    return store.root / "objects" / sha256[:2] / sha256


def test_a_file_goes_on_where_it_stopped_and_is_an_object_once_it_is_whole(store: Store) -> None:
    first = receive(store, SHA256, 0, io.BytesIO(DATA[:1_000_000]), len(DATA))
    assert (first["complete"], first["size"]) == (False, 1_000_000)
    assert have(store) == {"objects": [], "parts": {SHA256: 1_000_000}}
    assert receive(store, SHA256, 1_000_000, io.BytesIO(DATA[1_000_000:]), len(DATA))["complete"]
    assert have(store) == {"objects": [SHA256], "parts": {}}
    assert object_of(store).read_bytes() == DATA
    assert list(store.incoming.iterdir()) == []


def test_a_file_that_is_here_is_not_taken_again(store: Store) -> None:
    receive(store, SHA256, 0, io.BytesIO(DATA))
    again = io.BytesIO(DATA)
    assert receive(store, SHA256, 0, again, len(DATA)) == {"sha256": SHA256, "complete": True, "size": len(DATA)}
    assert again.tell() == 0


def test_another_file_is_thrown_away_when_it_is_whole(store: Store) -> None:
    receive(store, SHA256, 0, io.BytesIO(b"x" * 100), len(DATA))
    with pytest.raises(EdgeKitError, match="thrown away"):
        receive(store, SHA256, 100, io.BytesIO(DATA[100:]), len(DATA))
    assert have(store) == {"objects": [], "parts": {}}


def test_without_a_size_it_is_whole_when_its_digest_is_right(store: Store) -> None:
    assert not receive(store, SHA256, 0, io.BytesIO(DATA[:5]))["complete"]
    assert receive(store, SHA256, 5, io.BytesIO(DATA[5:]))["complete"]


def test_an_empty_file_is_one_too(store: Store) -> None:
    assert receive(store, hashlib.sha256(b"").hexdigest(), 0, io.BytesIO(), 0)["complete"]


@pytest.mark.parametrize("offset", [0, 4, 6, len(DATA)])
def test_a_piece_that_goes_on_elsewhere_is_refused(store: Store, offset: int) -> None:
    receive(store, SHA256, 0, io.BytesIO(DATA[:5]), len(DATA))
    with pytest.raises(BadRequest, match="has 5 bytes") as caught:
        receive(store, SHA256, offset, io.BytesIO(DATA[offset:]), len(DATA))
    assert caught.value.hint == "--offset 5"
    assert have(store)["parts"] == {SHA256: 5}


def test_more_than_was_announced_is_not_written(store: Store) -> None:
    with pytest.raises(BadRequest, match="more than 10 bytes"):
        receive(store, SHA256, 0, io.BytesIO(DATA), 10)
    assert have(store)["parts"][SHA256] <= 10


@pytest.mark.parametrize("name", ["", "a" * 63, "../" + "a" * 61, "A" * 64])
def test_what_is_no_digest_leads_nowhere(store: Store, name: str) -> None:
    with pytest.raises(BadRequest, match="no SHA-256"):
        receive(store, name, 0, io.BytesIO(DATA))
    assert not store.root.exists()


@pytest.fixture
def delta() -> bytes:
    """What makes LATER of DATA."""
    made = deltas.make(DATA, LATER)
    assert made is not None
    return made


def test_a_delta_makes_a_file_of_one_that_is_here(store: Store, delta: bytes) -> None:
    receive(store, SHA256, 0, io.BytesIO(DATA))
    receive(store, WANTED, 0, io.BytesIO(LATER[:100]), len(LATER))  # it was begun as a whole, and is no longer needed
    said = receive_delta(store, WANTED, SHA256, io.BytesIO(delta), len(LATER))
    assert said == {"sha256": WANTED, "complete": True, "size": len(LATER)}
    assert object_of(store, WANTED).read_bytes() == LATER
    assert object_of(store).read_bytes() == DATA
    assert list(store.incoming.iterdir()) == []
    assert receive_delta(store, WANTED, SHA256, io.BytesIO(b""), len(LATER))["complete"]


@pytest.mark.parametrize("wrong", ["cut", "touched", "more", "of another file", "of another size", "touched base"])
def test_a_delta_that_does_not_make_the_file_leaves_nothing(store: Store, delta: bytes, wrong: str) -> None:
    receive(store, SHA256, 0, io.BytesIO(DATA))
    if wrong == "touched base":
        object_of(store).write_bytes(b"x" + DATA[1:])
    sent = {"cut": delta[:-9], "touched": delta[:-40] + bytes(9) + delta[-31:], "more": delta + b"x"}.get(wrong, delta)
    sha256 = "0" * 64 if wrong == "of another file" else WANTED
    size = 5 if wrong == "of another size" else len(LATER)
    with pytest.raises(BadBundle) as caught:
        receive_delta(store, sha256, SHA256, io.BytesIO(sent), size)
    assert "whole file" in caught.value.hint
    assert have(store) == {"objects": [SHA256], "parts": {}}
    assert not [path for path in store.incoming.iterdir() if path.suffix != ".lock"]
    assert receive(store, WANTED, 0, io.BytesIO(LATER), len(LATER))["complete"]
    assert list(store.incoming.iterdir()) in ([], [store.incoming / f"{'0' * 64}.lock"])


def test_a_delta_from_what_is_not_here_is_refused(store: Store, delta: bytes) -> None:
    with pytest.raises(NotFound, match="is not here") as caught:
        receive_delta(store, WANTED, SHA256, io.BytesIO(delta), len(LATER))
    assert caught.value.hint == "send the whole file"
    with pytest.raises(BadRequest, match="no SHA-256"):
        receive_delta(store, WANTED, "../" + "a" * 61, io.BytesIO(delta), len(LATER))


@pytest.mark.slow
def test_a_delta_takes_the_size_and_comes_as_a_whole(store: Store) -> None:
    for more in ((), ("--size", 5, "--offset", 1)):
        words = ("receive", WANTED, "--delta", SHA256, "--device", store.root.parent, *more)
        done = runtime(*words, source=b"")
        assert done.returncode == 1
        assert b"--delta takes --size" in done.stderr if isinstance(done.stderr, bytes) else "--size" in done.stderr


def test_a_file_is_missing_only_where_it_is_nowhere(store: Store, tmp_path: Path) -> None:
    bundle = Maker(tmp_path).bundle("1")
    manifest = json.loads((bundle / "manifest.json").read_text())
    golden = manifest["files"]["golden.npz"]["sha256"]
    receive(store, golden, 0, io.BytesIO((bundle / "golden.npz").read_bytes()))
    coming = store.incoming / "tiny"
    coming.mkdir(parents=True)
    (coming / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes())
    files = staged(store, coming)
    assert files.names == {"manifest.json", "golden.npz"}
    with files.open("golden.npz") as file:
        assert file.read() == (bundle / "golden.npz").read_bytes()
    (bundle / "golden.npz").unlink()
    assert "golden.npz" not in staged(store, bundle).names
    (coming / "manifest.json").write_text('{"files": {"x": {"sha256": "' + "../" * 20 + '"}}}')
    assert staged(store, coming).names == {"manifest.json"}


@pytest.mark.slow
def test_a_bundle_whose_files_came_one_by_one_is_installed(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    device, bundle = Device(device_folder(tmp_path / "device", maker)), maker.bundle("1")
    for name, entry in json.loads((bundle / "manifest.json").read_text())["files"].items():
        words = (
            "receive",
            entry["sha256"],
            "--offset",
            0,
            "--size",
            entry["size"],
            "--device",
            device.folder,
            "--json",
        )
        done = runtime(*words, source=(bundle / name).read_bytes())
        assert json.loads(done.stdout)["complete"], done.stderr
    coming = device.store.incoming / "flash"
    coming.mkdir()
    for name in ("manifest.json", "model.sig"):
        (coming / name).write_bytes((bundle / name).read_bytes())
    assert install(device, coming, Wishes(), lambda line: None).outcome == "live"
    assert not coming.exists()
    told = json.loads(runtime("have", "--device", device.folder, "--json").stdout)
    assert len(told["objects"]) == 3


def test_a_file_for_which_there_is_no_room_is_not_begun(store: Store, delta: bytes) -> None:
    receive(store, SHA256, 0, io.BytesIO(DATA))
    free = REAL.room(store.root).free
    with pytest.raises(EdgeKitError, match="no room") as caught:
        receive(store, WANTED, 0, io.BytesIO(LATER), 2 * free)
    assert "edgekit-runtime gc" in caught.value.hint
    with pytest.raises(EdgeKitError, match="no room"):
        receive_delta(store, WANTED, SHA256, io.BytesIO(delta), 2 * free)
    assert have(store) == {"objects": [SHA256], "parts": {}}
    assert receive(store, WANTED, 0, io.BytesIO(LATER), len(LATER))["complete"]


@pytest.mark.slow
def test_only_what_lies_right_in_incoming_is_removed_when_it_is_installed(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    device, bundle = Device(device_folder(tmp_path / "device", maker)), maker.bundle("1")
    device.store.incoming.mkdir(parents=True)
    around = device.store.incoming / ".." / ".." / ".." / bundle.name
    assert install(device, around, Wishes(), lambda line: None).outcome == "live"
    assert (bundle / "manifest.json").is_file()
