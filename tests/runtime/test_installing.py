"""Installing a bundle on a device: what is verified, tried and made live, and each way in which it is refused."""

import json
import os
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from edgekit_runtime.detect import detect
from edgekit_runtime.device import Device, become_owner
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.installing import Wishes, install
from edgekit_runtime.keypair import new_private_key
from edgekit_runtime.receipts import read_receipt
from edgekit_runtime.signature import SIGNATURE
from edgekit_runtime.trust import Downgrade, made_downgrade

from tests.runtime.devices import Maker, fragile, long, runtime, wide
from tests.runtime.signing import relisted, sign_folder

pytestmark = pytest.mark.slow

QUIET = Wishes(probation=0)


def put(device: Device, bundle: Path, wishes: Wishes = QUIET) -> object:
    return install(device, bundle, wishes, lambda line: None)


def refused(device: Device, bundle: Path, wishes: Wishes = QUIET) -> EdgeKitError:
    """Why; and that what was live is live still."""
    before = [(slot.name, slot.live) for slot in device.store.slots()]
    with pytest.raises(EdgeKitError) as caught:
        put(device, bundle, wishes)
    assert [(slot.name, slot.live) for slot in device.store.slots()] == before
    return caught.value


def proven(device: Device, bundle: Path) -> None:
    """Installed, and good."""
    put(device, bundle)
    device.store.good("tiny")


def test_the_steps_are_told_and_the_receipt_says_what_was_measured(device: Device, maker: Maker) -> None:
    said: list[str] = []
    done = install(device, maker.bundle("1"), QUIET, said.append)
    assert [line.split(":")[0].split(" ")[0] for line in said] == ["verified", "in", "trying", "its", "it", "live;"]
    assert (done.outcome, done.version) == ("live", "1")
    told = read_receipt(done.receipt, device.public_key())
    assert (told["outcome"], told["version"], told["signer"], told["manifest"][:12]) == ("live", "1", "maker", done.id)
    assert told["worst"] <= told["tolerance"]
    assert told["p50_ms"] > 0
    assert told["peak_mb"] > 20
    assert (device.folder / "device.key").stat().st_mode & 0o777 == 0o600
    kept = next((device.folder / "receipts").iterdir())
    assert json.loads(kept.read_text()) == done.receipt


def test_what_is_live_already_is_not_done_again(device: Device, maker: Maker) -> None:
    bundle = maker.bundle("1")
    proven(device, bundle)
    done = put(device, bundle)
    assert done.outcome == "unchanged"
    assert [event.what for event in device.store.history("tiny")] == ["activated", "good"]


def test_a_bundle_can_be_kept_without_being_served(device: Device, maker: Maker) -> None:
    proven(device, maker.bundle("1"))
    done = put(device, maker.bundle("2"), Wishes(activate=False))
    assert done.outcome == "stored"
    assert device.store.live("tiny").manifest.version == "1"
    assert done.id in device.store.ids("tiny")


def test_wrong_answers_are_refused_by_the_golden_replay(device: Device, maker: Maker) -> None:
    proven(device, maker.bundle("1"))
    error = refused(device, maker.wrong("3"))
    assert error.reason == "golden"
    assert "answers its recorded inputs otherwise" in error.what
    kept = sorted((device.folder / "receipts").iterdir())[-1]
    told = [
        read_receipt(json.loads(one.read_text()), device.public_key()) for one in (device.folder / "receipts").iterdir()
    ]
    assert {(one["version"], one["outcome"]) for one in told} == {("1", "live"), ("3", "refused")}, kept


def test_a_bundle_without_recorded_inputs_is_refused(device: Device, maker: Maker) -> None:
    assert refused(device, maker.bundle("1", golden=None)).reason == "golden"


def test_a_model_that_does_not_run_here_is_refused(device: Device, maker: Maker) -> None:
    folder = maker.bundle("1")
    (folder / "model.onnx").write_bytes(b"no model")
    assert refused(device, sign_folder(relisted(folder), maker.key)).reason == "engine"


def test_a_model_that_is_slower_than_it_was_on_such_a_machine_is_refused(device: Device, maker: Maker) -> None:
    where = f"measured on this machine ({detect()['model']}), 1 thread"
    promise = {"latency": {"p90_ms": 0.01}, "timed": where}
    error = refused(device, maker.bundle("1", wide(1000), evidence=promise))
    assert error.reason == "slow"
    elsewhere = {**promise, "timed": "measured on this machine (another), 1 thread"}
    assert put(device, maker.bundle("2", wide(1000), evidence=elsewhere)).outcome == "live"
    met = {**promise, "latency": {"p90_ms": 1e6}}
    assert put(device, maker.bundle("3", wide(1000), evidence=met)).outcome == "live"


def test_a_model_that_takes_more_memory_than_was_promised_is_refused(device: Device, maker: Maker) -> None:
    eater = long(200_000_000)
    error = refused(device, maker.bundle("1", eater, evidence={"peak_mb": 100}))
    assert (error.reason, "MB of memory" in error.what) == ("memory", True)


def test_an_engine_that_crashes_takes_only_the_trial_with_it(
    device: Device, maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    error = refused(device, maker.bundle("1"))
    assert (error.reason, "SIGSEGV" in error.what, "opening the model" in error.what) == ("crashed", True, True)


def test_an_engine_that_hangs_is_given_up(
    device: Device, maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit_runtime import trying

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "onnxruntime.py").write_text("import time\ntime.sleep(3600)\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    whole = trying.limits_of
    monkeypatch.setattr("edgekit_runtime.installing.limits_of", lambda *facts: replace(whole(*facts), seconds=5.0))
    assert refused(device, maker.bundle("1")).reason == "late"


def test_what_is_not_verified_is_refused_each_with_its_word(device: Device, maker: Maker) -> None:
    unsigned, other, touched, revoked = (maker.bundle(version) for version in "1234")
    (unsigned / SIGNATURE).unlink()
    sign_folder(other, new_private_key())
    (touched / "labels.txt").write_text("dog\ncat\nbird\nfish\n")
    foreign = sign_folder(relisted(maker.bundle("5"), target="rpi5"), maker.key)
    old = sign_folder(relisted(maker.bundle("6"), expires=1000), maker.key)
    reasons = [refused(device, folder).reason for folder in (unsigned, other, touched, foreign, old)]
    assert reasons == ["unsigned", "wrong_key", "touched", "other_target", "expired"]
    chain = Wishes(trust=(maker.trust(2, maker.key, keys={"next": new_private_key()}),))
    assert refused(device, revoked, chain).reason == "revoked"
    assert device.trust().serial == 2


def test_a_device_that_trusts_nobody_installs_nothing_until_it_is_told(device: Device, maker: Maker) -> None:
    (device.folder / "trust.json").unlink()
    bundle = maker.bundle("1")
    assert refused(device, bundle).reason == "trust"
    assert put(device, bundle, replace(QUIET, trust=(maker.trust(),))).outcome == "live"
    stranger = Maker(maker.folder / "stranger")
    assert refused(device, bundle, replace(QUIET, trust=(stranger.trust(9),))).reason == "trust"
    assert device.trust().serial == 1


def test_an_older_release_needs_a_signed_leave(device: Device, maker: Maker) -> None:
    one, two, three = (maker.bundle(version) for version in "123")
    proven(device, two)
    proven(device, three)
    error = refused(device, one)
    assert error.reason == "downgrade"
    forged = made_downgrade(Downgrade("tiny", 100, 2**40), new_private_key())
    assert refused(device, one, replace(QUIET, downgrade=forged)).reason == "wrong_key"
    for other in ("small", "tiny"):
        leave = replace(QUIET, downgrade=made_downgrade(Downgrade(other, 100, 2**40), maker.key))
        if other == "small":
            assert refused(device, one, leave).reason == "downgrade"
        else:
            assert put(device, one, leave).outcome == "live"


def test_a_clock_in_1970_does_not_bring_back_what_has_expired(device: Device, maker: Maker) -> None:
    now = device.clock()
    proven(device, maker.bundle("1", expires=int(now) + 3600))
    assert device.store.floor.seen() > now - 100
    later = Device(device.folder, lambda: now + 7200)
    assert refused(later, maker.bundle("2", expires=int(now) + 3600)).reason == "expired"
    proven(later, maker.bundle("3"))
    woken = Device(device.folder, lambda: 10.0)
    assert woken.now() >= now + 7200 - 1
    assert refused(woken, maker.folder / "v2").reason == "expired"
    said: list[str] = []
    assert install(woken, maker.bundle("4"), QUIET, said.append).outcome == "live"
    assert said[0].startswith("clock: it is behind")


def test_a_clock_that_is_far_ahead_is_not_remembered(device: Device, maker: Maker) -> None:
    from edgekit_runtime.trust import Trust, accepted, made_trust

    known = accepted(maker.trust())
    dated = made_trust(Trust(2, known.roots, known.keys, (), 1_800_000_000), maker.root)
    mad = Device(device.folder, lambda: 9e9)
    put(mad, maker.bundle("1"), replace(QUIET, trust=(dated,)))
    assert device.store.floor.seen() < 9e9


def test_a_version_that_was_rolled_back_is_tried_again_only_when_that_is_said(device: Device, maker: Maker) -> None:
    proven(device, maker.bundle("1"))
    two = maker.bundle("2")
    put(device, two)
    device.store.roll_back("tiny", "it broke")
    assert "rolled back on this device" in refused(device, two).what
    assert put(device, two, replace(QUIET, again=True)).outcome == "live"


def test_two_installations_at_once_do_not_mix(device: Device, maker: Maker) -> None:
    bundle, holding, over = maker.bundle("1"), threading.Event(), threading.Event()

    def hold() -> None:
        with Device(device.folder).store.installing():
            holding.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(30)
    try:
        assert refused(device, bundle).reason == "busy"
    finally:
        over.set()
        thread.join()
    assert put(device, bundle).outcome == "live"


def test_root_becomes_the_owner_of_the_folder_before_it_opens_anything(device: Device, maker: Maker) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    shelf = Path(tempfile.mkdtemp(prefix="edgekit-owner-", dir="/tmp"))
    try:
        shelf.chmod(0o755)
        os.rename(maker.bundle("1"), shelf / "bundle")
        os.rename(device.folder, shelf / "device")
        for path in (shelf / "device", *(shelf / "device").rglob("*")):
            os.chown(path, 12345, 12345)
        told, tell = os.pipe()
        if os.fork() == 0:  # what runs here was imported before: this Python may be root's alone
            said = "nothing was refused"
            try:
                become_owner(shelf / "device")
            except EdgeKitError as error:
                said = error.what
            ids = [*os.getresuid(), *os.getresgid(), *os.getgroups()]
            os.write(tell, json.dumps([said, ids]).encode())
            os._exit(0)
        os.close(tell)
        with os.fdopen(told, "rb") as pipe:
            said, ids = json.loads(pipe.read())
        assert set(ids) == {12345}
        done = runtime("install", shelf / "bundle", "--device", shelf / "device", "--json")
        if "cannot read the Python" in said:
            assert (done.returncode, json.loads(done.stdout)["error"]) == (1, said)
        else:
            assert done.returncode == 0, done.stderr.decode()
        assert {path.stat().st_uid for path in (shelf / "device").rglob("*")} == {12345}
    finally:
        shutil.rmtree(shelf)


def test_a_fragile_model_passes_the_trial_as_its_recorded_inputs_do_not_break_it(device: Device, maker: Maker) -> None:
    assert put(device, maker.bundle("1", fragile())).outcome == "live"


def test_a_version_that_is_live_is_told_as_live_though_its_receipt_cannot_be_kept(device: Device, maker: Maker) -> None:
    proven(device, maker.bundle("1"))
    shutil.rmtree(device.folder / "receipts")
    (device.folder / "receipts").write_text("in the way")
    said: list[str] = []
    done = install(device, maker.bundle("2"), QUIET, said.append)
    assert (done.outcome, device.store.live("tiny").manifest.version) == ("live", "2")
    assert any(line.startswith("no receipt is kept: ") for line in said)
    assert refused(device, maker.wrong("3")).reason == "golden"


def test_a_bundle_that_is_larger_than_the_free_memory_is_not_read_into_it(
    device: Device, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit_runtime import installing

    proven(device, maker.bundle("1"))
    monkeypatch.setattr(installing, "free_mb", lambda: 0.0005)
    monkeypatch.setattr(installing, "open_verified", lambda files, rules: pytest.fail("it was read"))
    error = refused(device, maker.bundle("2"))
    assert (error.reason, "can be had" in error.what) == ("memory", True)


def test_what_is_live_already_and_goes_back_is_not_told_as_unchanged(
    device: Device, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven(device, maker.bundle("1"))
    two = maker.bundle("2")
    put(device, two)
    monkeypatch.setattr("edgekit_runtime.running.is_served", lambda folder: True)

    def goes_back(folder: Path, settled: object, seconds: float) -> bool:
        device.store.roll_back("tiny", "it does not open")
        return True

    monkeypatch.setattr("edgekit_runtime.running.wait", goes_back)
    done = put(device, two)
    assert (done.outcome, done.why) == ("rolled back", "it does not open")
