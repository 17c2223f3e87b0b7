"""A server over a device's store where a version does not open: at its start, and while it serves."""

import errno
import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgekit_runtime import running
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.device import Device
from edgekit_runtime.disk import RealDisk
from edgekit_runtime.errors import EdgeKitError, NotFound, Unsupported
from edgekit_runtime.service import Policy, Service, open_service
from edgekit_runtime.slots import Slots, open_slots
from edgekit_runtime.store import Trial
from edgekit_runtime.verified import open_verified
from edgekit_runtime.watching import Watch

from tests.runtime.devices import Maker, soon
from tests.runtime.live import live
from tests.runtime.signing import relisted, sign_folder


@pytest.fixture
def slots(device: Device) -> Iterator[Slots]:
    made = open_slots(device.folder)
    yield made
    made.close()


def put(device: Device, folder: Path, good: bool = True) -> str:
    """Live, without a trial in a child: what is tested here comes after it."""
    from edgekit_runtime.files import in_folder

    version = device.store.add(in_folder(folder))
    device.store.activate("tiny", version.id, Trial(None, device.clock(), 600.0))
    if good:
        device.store.good("tiny")
    return version.id


def does_not_open(monkeypatch: pytest.MonkeyPatch, *versions: str, error: type[Exception] = Unsupported) -> None:
    """Of these versions the engine opens nothing."""
    whole = Bundle.open_model

    def open_model(self: Bundle) -> object:
        if self.manifest.version in versions:
            raise error("the engine does not like it")
        return whole(self)

    monkeypatch.setattr(Bundle, "open_model", open_model)


def opened(slots: Slots) -> Service:
    return open_service([], None, Policy(source=slots.source))


def test_what_does_not_open_at_the_start_is_served_in_the_version_before(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = put(device, maker.bundle("1"))
    put(device, maker.bundle("2"), good=False)
    does_not_open(monkeypatch, "2")
    service = opened(slots)
    assert service.find("tiny").served.version == "1"
    assert device.store.slot("tiny").live == one
    assert "does not like it" in device.store.history("tiny")[-1].why


def test_an_engines_own_error_at_the_start_ends_that_version_alone(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(device, maker.bundle("1"))
    put(device, maker.bundle("2"), good=False)
    does_not_open(monkeypatch, "2", error=RuntimeError)
    assert opened(slots).find("tiny").served.version == "1"
    assert device.store.history("tiny")[-1].why == "tiny 2 does not open: RuntimeError"
    assert "the engine does not like it" in caplog.text


def test_a_version_that_was_proven_good_is_not_given_up_for_an_engine_that_fails_now(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(device, maker.bundle("1"))
    two = put(device, maker.bundle("2"))
    with monkeypatch.context() as patch:
        does_not_open(patch, "2")
        service = opened(slots)
        assert service.find("tiny").served.version == "1"
        assert device.store.slot("tiny").live == two
        with live(service, watch=Watch(slots=slots)) as server:
            server.loop.call_soon_threadsafe(server.server.reload)
            soon(lambda: any(change.what == "failed" for change in service.history))
            assert device.store.slot("tiny").live == two
            patch.undo()
            server.loop.call_soon_threadsafe(server.server.reload)
            soon(lambda: service.find("tiny").served.version == "2")


def test_what_does_not_open_at_all_is_left_out_and_the_others_are_served(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = put(device, maker.bundle("1"))
    does_not_open(monkeypatch, "1")
    service = opened(slots)
    assert service.names() == []
    assert device.store.slot("tiny").live == id
    assert [(one.name, one.state) for one in service.index()] == [("tiny", "UNAVAILABLE")]


def test_a_version_before_that_is_not_verified_either_changes_nothing(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(device, maker.bundle("1"))
    two = put(device, maker.bundle("2"))
    (device.folder / "target").write_text("another\n")
    assert opened(slots).names() == []
    assert device.store.slot("tiny").live == two
    (device.folder / "target").write_text("here\n")
    assert opened(slots).find("tiny").served.version == "2"


def test_a_version_that_does_not_open_while_another_is_served_never_takes_its_place(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = put(device, maker.bundle("1"))
    with live(opened(slots), watch=Watch(slots=slots)) as server:
        does_not_open(monkeypatch, "2")
        put(device, maker.bundle("2"), good=False)
        server.loop.call_soon_threadsafe(server.server.reload)
        soon(lambda: device.store.slot("tiny").live == one)
        assert server.ask("/v2/models/tiny/ready")[0] == 200
        history = soon(lambda: [change for change in server.server.service.history if change.what == "failed"])
        assert (history[0].version, history[0].why) == ("2", "the engine does not like it")
        soon(lambda: slots.families()[2].samples[0].value == 1)


def test_a_disk_that_is_full_does_not_make_a_good_version_bad(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(device, maker.bundle("1"))
    put(device, maker.bundle("2"), good=False)
    trials: list[str] = []
    monkeypatch.setattr("edgekit_runtime.slots.AGAIN_SECONDS", 0.05)

    def proven(self: object, name: str, id: str) -> None:
        trials.append(id)
        if len(trials) < 3:
            raise EdgeKitError("the disk is full", hint="make room")

    async def well(lane: object, terms: object) -> str:
        return ""

    monkeypatch.setattr("edgekit_runtime.store.Store.good", proven)
    monkeypatch.setattr("edgekit_runtime.slots.shortcoming", well)
    with live(opened(slots), watch=Watch(slots=slots)) as server:
        soon(lambda: any(change.what == "proven good" for change in server.server.service.history))
        assert server.server.service.find("tiny").served.version == "2"
    assert len(trials) == 3


def test_memory_is_let_go_of_when_nobody_uses_a_version_any_more(device: Device, maker: Maker, slots: Slots) -> None:
    put(device, maker.bundle("1"))
    bundle = slots.source.newest("tiny")
    folder = bundle.folder
    assert slots.source.id_of(bundle) == device.store.slot("tiny").live
    assert folder.is_dir()
    del bundle
    gc.collect()
    assert not folder.exists()
    assert slots.source.ids == {}


def test_a_model_that_is_not_installed_is_not_found(slots: Slots) -> None:
    with pytest.raises(NotFound, match="is installed here"):
        slots.source.newest("../..")


def test_a_bundle_whose_time_is_over_is_served_on_and_not_installed(device: Device, maker: Maker, slots: Slots) -> None:
    put(device, maker.bundle("1", expires=1000))
    assert opened(slots).find("tiny").served.version == "1"
    store = device.store
    with pytest.raises(EdgeKitError, match="was for use until"):
        open_verified(store.files(store.live("tiny")), device.rules())


def cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk turned read-only by itself, as worn out cards do."""

    def refuse(self: object, *given: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for primitive in ("create", "append", "rename", "symlink", "unlink", "mkdir"):
        monkeypatch.setattr(RealDisk, primitive, refuse)


def test_on_a_disk_that_turned_read_only_what_was_not_proven_before_the_power_went_is_not_served(
    device: Device, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(device, maker.bundle("1"))
    two = put(device, maker.bundle("2"), good=False)
    device.store.boot("another start of the machine", 0.0)
    with running.alone(device.folder):
        assert device.store.slot("tiny").live == two
    cannot_be_written(monkeypatch)
    slots = open_slots(device.folder)
    try:
        assert opened(slots).find("tiny").served.version == "1"
    finally:
        slots.close()


def test_on_a_disk_that_turned_read_only_a_version_that_it_spoilt_is_served_in_the_one_before(
    device: Device, maker: Maker, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(device, maker.bundle("1"))
    put(device, maker.bundle("2"))
    labels = device.store.live("tiny").manifest.files["labels.txt"].sha256
    spoilt = device.store.root / "objects" / labels[:2] / labels
    spoilt.write_bytes(spoilt.read_bytes().replace(b"dog", b"god"))
    cannot_be_written(monkeypatch)
    assert opened(slots).find("tiny").served.version == "1"


def test_a_model_whose_live_version_is_gone_is_left_out_and_the_others_are_listed(
    device: Device, maker: Maker, slots: Slots
) -> None:
    id = put(device, maker.bundle("1"))
    shutil.rmtree(device.store.root / "versions" / "tiny" / id)
    service = opened(slots)
    assert (service.names(), service.index()) == ([], [])


def test_a_version_is_found_again_beside_one_that_a_disk_spoilt(device: Device, maker: Maker, slots: Slots) -> None:
    one, two = put(device, maker.bundle("1")), put(device, maker.bundle("2"))
    broken, whole = sorted((one, two))
    wanted = device.store.version("tiny", whole).manifest
    (device.store.root / "versions" / "tiny" / broken / "manifest.json").write_text("{}")
    bundle = slots.source.again(wanted)
    assert bundle is not None
    assert slots.source.id_of(bundle) == whole


def test_a_version_that_is_encrypted_is_found_again_too(
    device: Device, maker: Maker, slots: Slots, tmp_path: Path
) -> None:
    from edgekit.encrypting import encrypt_bundle

    encrypt_bundle(maker.bundle("1"), device.public_key(), tmp_path / "sealed", maker.key)
    put(device, tmp_path / "sealed")
    served = slots.source.newest("tiny").manifest
    bundle = slots.source.again(served)
    assert bundle is not None
    assert bundle.manifest == served


def test_labels_that_are_no_text_are_refused_and_keep_no_server_from_starting(
    device: Device, maker: Maker, slots: Slots
) -> None:
    put(device, maker.bundle("1"))
    folder = maker.bundle("2")
    (folder / "labels.txt").write_bytes(b"caf\xe9\n\xff\n")
    two = put(device, sign_folder(relisted(folder), maker.key), good=False)
    with pytest.raises(EdgeKitError, match=r"labels\.txt is not text"):
        open_verified(device.store.files(device.store.version("tiny", two)), device.rules())
    assert opened(slots).find("tiny").served.version == "1"


def test_the_count_of_rollbacks_does_not_fall_when_the_history_is_cut(device: Device, maker: Maker) -> None:
    put(device, maker.bundle("1"))
    put(device, maker.bundle("2"))
    path = device.store.root / "slots" / "tiny" / "history.jsonl"
    good = path.read_bytes().splitlines(keepends=True)[-1]
    device.store.roll_back("tiny", "it answers wrongly")

    def counted() -> float:
        slots = open_slots(device.folder)
        try:
            return slots.families()[2].samples[0].value
        finally:
            slots.close()

    assert counted() == 1
    path.write_bytes(path.read_bytes() + good * 2000)
    put(device, maker.bundle("3"))
    assert all(event.what != "rolled back" for event in device.store.history("tiny"))
    assert counted() == 1
