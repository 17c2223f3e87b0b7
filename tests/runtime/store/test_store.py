"""The store on the real disk: what is added, served, proven, rolled back, kept and told."""

import hashlib
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from edgekit_runtime.disk import RealDisk, Room, Sink
from edgekit_runtime.errors import BadBundle, EdgeKitError, NotFound
from edgekit_runtime.files import Files, in_folder
from edgekit_runtime.incoming import receive
from edgekit_runtime.manifest import to_json
from edgekit_runtime.store import Store
from edgekit_runtime.store.history import rollbacks

from tests.runtime.store.crashes import check_whole, live
from tests.runtime.store.steps import (
    FIRST_BOOT,
    MODEL,
    NOW,
    SECOND_BOOT,
    back,
    bundle,
    id_of,
    in_memory,
    install,
    installed,
    trial,
)


class Quick(RealDisk):
    """The real disk, waited for by nobody: no power is cut here."""

    def create(self, path: Path) -> Sink:
        return _Quick(super().create(path))

    def append(self, path: Path) -> Sink:
        return _Quick(super().append(path))

    def sync_folder(self, path: Path) -> None:
        assert path.is_dir()


class _Quick:
    def __init__(self, sink: Sink) -> None:
        self.write, self.close = sink.write, sink.close

    def sync(self) -> None:
        """Later."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", tmp_path / "state" / "floor.json", Quick(), lambda: NOW)


def contents(files: Files) -> dict[str, bytes]:
    found = {}
    for name in files.names:
        with files.open(name) as file:
            found[name] = b"".join(iter(lambda: file.read(2**20), b""))
    return found


def version_of(store: Store) -> str:
    version = store.live(MODEL)
    return version.manifest.version if version is not None else "none"


def whats(store: Store) -> list[str]:
    return [event.what for event in store.history(MODEL)]


def test_an_empty_store_is_opened_without_a_trace(store: Store) -> None:
    assert store.live(MODEL) is None
    assert store.slots() == ()
    assert store.history(MODEL) == []
    assert store.boot(FIRST_BOOT, NOW) == ()
    assert store.roll_back(MODEL, "no reason") is None
    assert store.gc() == 0
    store.good(MODEL)
    assert not store.root.exists()


def test_what_was_added_comes_back_to_the_byte(store: Store, tmp_path: Path) -> None:
    there = contents(bundle(1))
    for name, data in there.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    version = store.add(in_folder(tmp_path / "in"))
    assert version.id == id_of(1)
    assert contents(store.files(version)) == there
    assert store.live(MODEL) is None


def test_a_file_that_is_here_is_not_written_again(store: Store) -> None:
    store.add(bundle(1))
    before = {path: path.stat().st_ino for path in (store.root / "objects").rglob("*") if path.is_file()}
    store.add(bundle(2))
    after = {path: path.stat().st_ino for path in (store.root / "objects").rglob("*") if path.is_file()}
    assert len(before) == 2
    assert len(after) == 3
    assert before.items() <= after.items()


def test_a_file_that_a_disk_has_spoilt_is_written_again(store: Store) -> None:
    version = install(store, 1)
    for path in (store.root / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(AssertionError):
        check_whole(store, version.id)
    install(store, 1)
    check_whole(store, version.id)


def test_a_manifest_that_a_disk_has_spoilt_is_written_again(store: Store) -> None:
    version = install(store, 1)
    manifest = store.root / "versions" / MODEL / version.id / "manifest.json"
    manifest.write_bytes(b"{}")
    with pytest.raises(BadBundle, match="was touched"):
        store.live(MODEL)
    install(store, 1)
    assert version_of(store) == "1"


def test_a_new_signature_takes_the_place_of_the_old(store: Store) -> None:
    store.add(bundle(1))
    version = store.add(bundle(1, signature=b"by the new key"))
    assert contents(store.files(version))["model.sig"] == b"by the new key"


def changed(**changes: bytes | None) -> Files:
    """A bundle with files changed, added or taken away."""
    there = {**contents(bundle(1)), **changes}
    return in_memory({name.replace("_", "."): data for name, data in there.items() if data is not None})


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (changed(**{"model.onnx": b"weights of 2, in forty bytes or so......"}), "is not what the manifest says"),
        (changed(**{"model.onnx": b"short"}), "is not what the manifest says"),
        (changed(**{"model.onnx": b"x" * 1000}), "longer than the manifest says"),
        (changed(**{"model.onnx": None}), "missing: model.onnx"),
        (changed(**{"extra": b""}), "not in the manifest: extra"),
        (changed(**{"manifest.json": None}), "has no manifest.json"),
        (changed(**{"manifest.json": b"{"}), "is not JSON"),
        (changed(**{"manifest.json": b"[" * 100_000}), "is not JSON"),
    ],
)
def test_what_is_not_as_its_manifest_says_is_not_added(store: Store, files: Files, said: str) -> None:
    with pytest.raises(BadBundle, match=said):
        store.add(files)
    assert not list(store.root.rglob("*.tmp"))
    assert store.ids(MODEL) == ()


@pytest.mark.parametrize("entry", [{"sha256": "../../../../etc/x", "size": 1}, {"sha256": "0" * 64, "size": -1}])
def test_a_digest_that_could_lead_elsewhere_is_refused(store: Store, entry: dict[str, object]) -> None:
    raw = json.loads(contents(bundle(1))["manifest.json"])
    raw["files"]["model.onnx"] = entry
    with pytest.raises(BadBundle, match="does not read"):
        store.add(changed(**{"manifest.json": json.dumps(raw).encode()}))


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "x" * 200])
def test_a_name_that_could_lead_elsewhere_is_no_model(store: Store, name: str) -> None:
    for ask in (store.live, store.history, store.ids, store.good):
        with pytest.raises(NotFound, match="no model"):
            ask(name)
    with pytest.raises(NotFound, match="is no id"):
        store.version(MODEL, name or "../..")


def test_a_version_goes_from_trial_to_good_and_the_floor_rises_behind_it(store: Store) -> None:
    install(store, 1)
    slot = store.slot(MODEL)
    assert slot is not None
    assert slot.on_trial is not None
    assert slot.on_trial.trial == trial()
    store.good(MODEL)
    assert store.floor.least(MODEL) == 0
    install(store, 2)
    assert store.floor.least(MODEL) == 0
    store.good(MODEL)
    assert store.floor.least(MODEL) == 1
    slot = store.slot(MODEL)
    assert slot is not None
    assert (slot.live, slot.previous, slot.on_trial) == (id_of(2), id_of(1), None)
    assert whats(store) == ["activated", "good"] * 2
    assert (store.root / "slots" / MODEL / "live" / "manifest.json").is_file()


def test_good_is_said_of_the_version_that_was_watched_only(store: Store) -> None:
    installed(store, 1)
    install(store, 2)
    store.good(MODEL, id_of(1))
    slot = store.slot(MODEL)
    assert slot is not None
    assert slot.on_trial is not None


def test_a_trial_that_fails_goes_back_and_is_not_tried_again_unless_asked(store: Store) -> None:
    installed(store, 1, 2)
    install(store, 3)
    version = back(store, 3)
    assert version is not None
    assert version.manifest.version == version_of(store) == "2"
    slot = store.slot(MODEL)
    assert slot is not None
    assert (slot.previous, slot.refused, slot.on_trial) == (id_of(1), (id_of(3),), None)
    last = store.history(MODEL)[-1]
    assert (last.what, last.id, last.version, last.why) == ("rolled back", id_of(3), "3", "it answers wrongly")
    with pytest.raises(EdgeKitError, match="was rolled back on this device") as caught:
        store.activate(MODEL, store.add(bundle(3)).id, trial())
    assert "--again" in caught.value.hint
    assert version_of(store) == "2"
    install(store, 3)
    assert version_of(store) == "3"


def test_a_good_version_is_rolled_back_when_asked_and_there_is_one_step(store: Store) -> None:
    installed(store, 1, 2)
    assert back(store, 2) is not None
    assert version_of(store) == "1"
    assert store.floor.least(MODEL) == 1
    assert store.roll_back(MODEL, "again") is None
    assert version_of(store) == "1"


def test_a_version_over_a_trial_falls_back_to_what_was_proven(store: Store) -> None:
    installed(store, 1)
    install(store, 2)
    install(store, 3)
    back(store, 3)
    assert version_of(store) == "1"


def test_a_version_over_the_only_one_on_trial_falls_back_to_that(store: Store) -> None:
    install(store, 1)
    install(store, 2)
    back(store, 2)
    assert version_of(store) == "1"
    slot = store.slot(MODEL)
    assert slot is not None
    assert slot.on_trial is not None, "it was never proven"


def test_power_lost_before_good_rolls_back_at_the_next_start(store: Store) -> None:
    installed(store, 1)
    install(store, 2)
    assert store.boot(FIRST_BOOT, NOW) == ()
    assert version_of(store) == "2"
    (event,) = store.boot(SECOND_BOOT, NOW)
    assert (event.what, event.id, event.version, event.live) == ("rolled back", id_of(2), "2", id_of(1))
    assert "went down" in event.why
    assert version_of(store) == "1"
    assert store.boot(SECOND_BOOT, NOW) == ()


def test_the_fourth_start_in_one_trial_is_a_crash_loop(store: Store) -> None:
    installed(store, 1)
    install(store, 2)
    assert [store.boot(FIRST_BOOT, NOW) for _ in range(3)] == [(), (), ()]
    (event,) = store.boot(FIRST_BOOT, NOW)
    assert "more than 3 times" in event.why
    assert version_of(store) == "1"


def test_the_only_version_stays_and_that_is_told(store: Store) -> None:
    install(store, 1)
    assert store.boot(SECOND_BOOT, NOW) == ()
    assert version_of(store) == "1"
    assert whats(store) == ["activated", "kept"]
    assert "there is no other version" in store.history(MODEL)[-1].why
    store.good(MODEL)
    assert store.boot("a third", NOW) == ()


def test_a_card_filled_elsewhere_begins_its_trial_with_its_first_start(store: Store) -> None:
    installed(store, 1)
    store.activate(MODEL, store.add(bundle(2)).id, trial(None))
    assert store.boot(SECOND_BOOT, NOW + 5) == ()
    slot = store.slot(MODEL)
    assert slot is not None
    assert slot.on_trial is not None
    assert slot.on_trial.trial == replace(trial(SECOND_BOOT), started=NOW + 5, starts=1)
    assert store.boot("a third", NOW)[0].what == "rolled back"


def test_a_server_that_starts_with_a_broken_version_goes_back(store: Store) -> None:
    installed(store, 1, 2)
    shutil.rmtree(store.root / "versions" / MODEL / id_of(2))
    with pytest.raises(NotFound):
        store.live(MODEL)
    assert "not whole" in store.boot(FIRST_BOOT, NOW)[0].why
    assert version_of(store) == "1"


def test_a_start_with_nothing_to_do_writes_nothing(store: Store) -> None:
    installed(store, 1, 2)
    before = {path: path.lstat().st_mtime_ns for path in store.root.rglob("*")}
    store.boot(SECOND_BOOT, NOW)
    assert {path: path.lstat().st_mtime_ns for path in store.root.rglob("*")} == before


def test_gc_keeps_what_is_live_before_pinned_and_on_trial(store: Store) -> None:
    installed(store, 1, 2, 3, 4)
    install(store, 5)
    store.pin(MODEL, store.add(bundle(1)).id)
    store.add(bundle(6))
    other = store.add(bundle(1, name="sounds"))
    store.activate("sounds", other.id, trial())
    assert store.gc() > 0
    assert set(store.ids(MODEL)) == {id_of(number) for number in (1, 3, 4, 5)}
    for id in store.ids(MODEL):
        check_whole(store, id)
    assert store.live("sounds") == other
    store.unpin(MODEL, id_of(1))
    store.gc()
    assert id_of(1) not in store.ids(MODEL)
    assert store.gc() == 0
    with pytest.raises(NotFound):
        store.pin(MODEL, id_of(1))


def test_gc_removes_what_was_not_carried_on_for_a_day(tmp_path: Path) -> None:
    now = 1_900_000_000.0
    store = Store(tmp_path / "store", tmp_path / "floor", clock=lambda: now)
    installed(store, 1)
    (store.incoming / "folder").mkdir(parents=True)
    (store.incoming / "folder" / "file").write_bytes(b"12345")
    for name, age in (("old.part", 90_000), ("new.part", 80_000), ("folder", 90_000)):
        path = store.incoming / name
        if name != "folder":
            path.write_bytes(b"123")
        os.utime(path, (now - age, now - age))
    assert store.gc() == 8
    assert [path.name for path in store.incoming.iterdir()] == ["new.part"]


STATE_FILES = ("previous", "trial.json", "refused", "pin", "history.jsonl", "live")


@pytest.mark.parametrize("name", STATE_FILES)
@pytest.mark.parametrize(
    "rubbish", [b"", b"\0" * 512, b"\xff" * 64, b"{}", b"[" * 5000, b'{"starts": 1e999}', b"9" * 5000, b'"x"'],
    ids=["empty", "zeros", "ones", "object", "deep", "infinite", "long", "text"],
)  # fmt: skip
def test_a_state_file_that_a_disk_has_spoilt_is_no_traceback_and_costs_no_version(
    store: Store, name: str, rubbish: bytes
) -> None:
    installed(store, 1, 2)
    store.pin(MODEL, id_of(1))
    install(store, 3)
    back(store, 3)
    install(store, 4)
    path = store.root / "slots" / MODEL / name
    path.unlink()
    path.write_bytes(rubbish)
    slot = store.slot(MODEL)
    assert slot is not None
    assert (name in slot.unsound) == (name != "history.jsonl")
    store.history(MODEL)
    store.gc()
    if name != "history.jsonl":
        assert set(store.ids(MODEL)) >= {id_of(1), id_of(2), id_of(4)}
    store.boot(SECOND_BOOT, NOW)
    assert name == "live" or version_of(store) in ("1", "2")
    install(store, 5)
    store.good(MODEL)
    assert version_of(store) == "5"
    check_whole(store, id_of(5))


def test_the_history_is_read_past_a_torn_line(store: Store) -> None:
    installed(store, 1)
    path = store.root / "slots" / MODEL / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert whats(store) == ["activated"]
    install(store, 2)
    assert whats(store)[0] == "activated"
    assert whats(store)[-1] == "activated"
    assert store.history(MODEL)[-1].id == id_of(2)


def test_a_long_history_forgets_its_beginning(store: Store) -> None:
    installed(store, 1)
    path = store.root / "slots" / MODEL / "history.jsonl"
    path.write_bytes(path.read_bytes() * 3000)
    install(store, 2)
    assert path.stat().st_size < 256 * 1024
    events = store.history(MODEL)
    assert events[-1].id == id_of(2)
    assert len(events) > 500


def test_how_often_it_was_gone_back_from_is_known_though_the_history_forgets_it(store: Store) -> None:
    installed(store, 1, 2)
    path = store.root / "slots" / MODEL / "history.jsonl"
    old = [{key: one for key, one in json.loads(line).items() if key != "rollbacks"} for line in path.open()]
    path.write_text("".join(json.dumps(one) + "\n" for one in old))
    for number in (3, 4):
        install(store, number)
        back(store, number)
    assert rollbacks(store.history(MODEL)) == 2
    path.write_bytes(path.read_bytes() + (json.dumps(old[-1]) + "\n").encode() * 3000)
    install(store, 5)
    assert "rolled back" not in whats(store)
    assert rollbacks(store.history(MODEL)) == 2
    back(store, 5)
    assert rollbacks(store.history(MODEL)) == 3
    path.write_bytes(path.read_bytes()[:-10])
    assert rollbacks(store.history(MODEL)) == 2
    path.write_text('{"when": 1, "what": "good", "id": "x", "version": "1", "live": null, "rollbacks": "many"}\n')
    assert rollbacks(store.history(MODEL)) == 0


def test_the_floor_never_sinks_but_for_an_override_and_that_once(store: Store) -> None:
    store.floor.rise(MODEL, 10)
    store.floor.rise(MODEL, 5)
    assert store.floor.least(MODEL) == 10
    store.floor.allow(MODEL, 20)
    assert store.floor.least(MODEL) == 10
    store.floor.allow(MODEL, 3)
    assert store.floor.least(MODEL) == 3
    store.floor.rise(MODEL, 4)
    assert store.floor.least(MODEL) == 4
    assert store.floor.least("sounds") == 0


def test_an_allowed_older_version_is_not_shut_out_by_the_one_before_it(store: Store) -> None:
    installed(store, 5, 6)
    assert store.floor.least(MODEL) == 5
    store.floor.allow(MODEL, 2)
    install(store, 2)
    store.good(MODEL)
    assert store.floor.least(MODEL) == 2


def test_the_time_that_was_seen_never_goes_back(store: Store) -> None:
    store.floor.see(NOW)
    store.floor.see(5)
    store.floor.see(NOW + 10)
    assert store.floor.seen() == NOW
    store.floor.see(NOW + 4000)
    assert store.floor.seen() == NOW + 4000


LISTED, FRACTION = b'{"names": [], "seen": 0}', b'{"names": {"photos": 1e3}, "seen": 1}'


@pytest.mark.parametrize("rubbish", [None, b"", b"{}", b"[" * 5000, b"\xff", LISTED, FRACTION])
def test_a_floor_that_is_lost_is_made_again_from_what_is_installed(store: Store, rubbish: bytes | None) -> None:
    installed(store, 1, 2, 3)
    if rubbish is None:
        store.floor.path.unlink()
    else:
        store.floor.path.write_bytes(rubbish)
    assert store.floor.least(MODEL) == 2
    store.floor.rise("sounds", 7)
    install(store, 4)
    assert store.floor.least(MODEL) == 2


def test_the_floor_is_kept_out_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(EdgeKitError, match="lies in the store"):
        Store(tmp_path / "store", tmp_path / "store" / "floor.json")


def test_a_version_that_is_not_whole_is_not_activated(store: Store) -> None:
    installed(store, 1)
    version = store.add(bundle(2))
    entry = version.manifest.files["model.onnx"]
    (store.root / "objects" / entry.sha256[:2] / entry.sha256).unlink()
    with pytest.raises(NotFound, match="not whole"):
        store.activate(MODEL, version.id, trial())
    assert live(store) == id_of(1)
    assert to_json(version.manifest)["version"] == "2"


def test_what_was_received_for_a_bundle_is_not_removed_to_make_room_for_it(tmp_path: Path) -> None:
    class Tight(Quick):
        """Full when it is first asked."""

        asked = 0

        def room(self, path: Path) -> Room:
            self.asked += 1
            return Room(0 if self.asked == 1 else 10**12, 10**12)

    disk = Tight()
    store = Store(tmp_path / "store", tmp_path / "floor.json", disk, lambda: NOW)
    there = contents(bundle(1))
    data = there["model.onnx"]
    receive(Store(store.root, tmp_path / "floor.json", Quick()), sha(data), 0, io.BytesIO(data), len(data))
    rubbish = b"of no bundle"
    receive(Store(store.root, tmp_path / "floor.json", Quick()), sha(rubbish), 0, io.BytesIO(rubbish), len(rubbish))
    assert {sha(data), sha(rubbish)} <= {path.name for path in (store.root / "objects").glob("*/*")}
    version = store.add(received(there, without="model.onnx"))
    assert disk.asked > 1
    left = {path.name for path in (store.root / "objects").glob("*/*")}
    assert sha(data) in left
    assert sha(rubbish) not in left
    check_whole(store, version.id)


def received(there: dict[str, bytes], without: str) -> Files:
    """Files of which one is in the store alone: it cannot be copied once more."""

    def open_one(name: str) -> BinaryIO:
        if name == without:
            pytest.fail("it was removed, and is asked for again")
        return io.BytesIO(there[name])

    return Files("memory", frozenset(there), open_one)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
