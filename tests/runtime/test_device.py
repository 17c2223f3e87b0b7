"""A device's own folder: trust, target, time, key, receipts; and the commands on it as a person types them."""

import json
import os
import threading
from pathlib import Path

import pytest
from edgekit_runtime import running
from edgekit_runtime.__main__ import main
from edgekit_runtime.device import Device
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import EdgeKitError, Untrusted
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.receipts import KEPT, Receipt, issue, read_receipt
from edgekit_runtime.running import Running
from edgekit_runtime.trust import Trust
from edgekit_runtime.trying import Limits, limits_of

from tests.runtime.devices import Maker

RECEIPT = Receipt("tiny", "1", "0" * 12, "0" * 64, "maker", "f" * 64, "live", worst=0.0, tolerance=0.01, p50_ms=1.5)


def test_trust_follows_a_chain_and_only_forward(device: Device, maker: Maker) -> None:
    chain = [maker.trust(serial) for serial in (1, 2, 3)]
    assert device.take_trust(chain).serial == 3
    assert device.take_trust(chain[:2]).serial == 3
    with pytest.raises(Untrusted) as caught:
        device.take_trust([Maker(maker.folder).trust(4)])
    assert (caught.value.reason, device.trust().serial) == ("trust", 3)


def test_the_first_document_is_taken_from_whoever_brings_it_and_no_other(device: Device, maker: Maker) -> None:
    (device.folder / "trust.json").unlink()
    with pytest.raises(Untrusted, match="trusts nobody"):
        device.rules()
    assert device.take_trust([maker.trust(7)]).serial == 7


def test_of_two_changes_of_trust_at_once_the_newer_one_stays(
    device: Device, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit_runtime import device as module

    whole, begun, other = module.succeed, threading.Event(), threading.Event()

    def slow(current: Trust, raw: bytes) -> Trust:
        after = whole(current, raw)
        if after.serial == 2:
            begun.set()
            other.wait(1)  # for as long as the other one takes, if it does not wait for this one
        return after

    monkeypatch.setattr(module, "succeed", slow)
    first = threading.Thread(target=device.take_trust, args=([maker.trust(2)],))
    first.start()
    assert begun.wait(30)
    second = threading.Thread(target=lambda: (device.take_trust([maker.trust(3)]), other.set()))
    second.start()
    first.join()
    second.join()
    assert device.trust().serial == 3


@pytest.mark.parametrize("text", ["", "two words", "../x", "a" * 200])
def test_a_target_that_is_no_word_lets_nothing_in(device: Device, text: str) -> None:
    (device.folder / "target").write_text(text)
    with pytest.raises(EdgeKitError, match="no target"):
        device.rules()


def test_without_a_target_any_is_taken(device: Device) -> None:
    (device.folder / "target").unlink()
    assert device.rules().target is None


def test_the_key_is_made_once_and_is_its_owners_alone(device: Device) -> None:
    before = os.umask(0)
    try:
        first = device.key()
    finally:
        os.umask(before)
    assert (device.folder / "device.key").stat().st_mode & 0o777 == 0o600
    assert device.key() == first
    assert (device.folder / "device.pub").read_bytes() == device.public_key().pem


def test_a_receipt_is_of_this_device_and_the_old_ones_go(device: Device) -> None:
    made = issue(device, RECEIPT)
    said = read_receipt(made, device.public_key())
    assert (said["device"], said["outcome"], said["p50_ms"]) == (device.public_key().fingerprint, "live", 1.5)
    with pytest.raises(Untrusted):
        read_receipt(made, public_of(new_private_key()))
    for number in range(KEPT + 5):
        (device.folder / "receipts" / f"19700101T{number:06}Z-x.json").write_text("{}")
    issue(device, RECEIPT)
    kept = sorted(path.name for path in (device.folder / "receipts").iterdir())
    assert len(kept) == KEPT
    assert any("tiny" in name for name in kept)


def test_a_receipt_that_is_written_while_the_clock_is_behind_is_not_the_first_to_go(device: Device) -> None:
    device.see_time()
    for number in range(KEPT):
        (device.folder / "receipts").mkdir(exist_ok=True)
        (device.folder / "receipts" / f"20200101T{number:06}Z-x.json").write_text("{}")
    woken = Device(device.folder, lambda: 10.0)
    said = read_receipt(issue(woken, RECEIPT), woken.public_key())
    assert said["when"] == device.store.floor.seen()
    assert any("tiny" in path.name for path in (device.folder / "receipts").iterdir())


class Manifest:
    """What `limits_of` looks at."""

    def __init__(self, device: str = "cpu", **evidence: object) -> None:
        self.evidence, self.options = evidence, EngineOptions(device=device)


HERE = "measured on this machine (Board), 1 thread"


@pytest.mark.parametrize(
    ("evidence", "on_target", "wanted"),
    [
        ({"peak_mb": 100, "latency": {"p90_ms": 10}, "timed": HERE}, False, Limits(214, 21)),
        ({"peak_mb": 100, "latency": {"p90_ms": 10}, "timed": HERE.replace("Board", "PC")}, True, Limits(214)),
        ({"peak_mb": 100, "latency": {"p90_ms": 10}, "timed": "measured on pi@shed, 1 thread"}, True, Limits(214, 21)),
        ({"peak_mb": 100, "latency": {"p90_ms": 10}, "timed": "measured on pi@shed, 1 thread"}, False, Limits(214)),
        ({"peak_mb": 100, "latency": None, "timed": "not timed: another architecture"}, True, Limits(214)),
        ({"device": "cuda", "peak_mb": 100}, True, Limits(900)),
        ({"peak_mb": 2000}, True, Limits(900)),
        ({}, True, Limits(900)),
        ({"peak_mb": float("nan"), "latency": {"p90_ms": float("nan")}, "timed": HERE}, True, Limits(900)),
        ({"peak_mb": True, "latency": [1], "timed": HERE}, True, Limits(900)),
    ],
)
def test_only_what_was_measured_on_such_a_machine_is_a_promise(
    evidence: dict[str, object], on_target: bool, wanted: Limits
) -> None:
    assert limits_of(Manifest(**evidence), "Board", on_target, 1000) == wanted  # type: ignore[arg-type]


def test_who_serves_a_folder_is_known_by_its_lock_alone(tmp_path: Path) -> None:
    said = Running(os.getpid(), "boot", {"tiny": "0" * 12}, "http://127.0.0.1:1", 5.0)
    with running.alone(tmp_path):
        assert running.is_served(tmp_path)
        assert running.server(tmp_path) is None
        running.tell(tmp_path, said)
        assert running.server(tmp_path) == said
        (tmp_path / "serving.json").write_text("[1, 2")
        assert running.server(tmp_path) is None
        running.tell(tmp_path, said)
    assert not running.is_served(tmp_path)
    assert not (tmp_path / "serving.json").exists()
    running.tell(tmp_path, said)
    assert running.server(tmp_path) is None
    assert not running.wait(tmp_path, lambda found: found is not None, 30)


@pytest.mark.parametrize("words", [["status"], ["history"], ["gc"], ["pin", "x"], ["rollback", "x"]])
def test_a_folder_that_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main([*words, "--device", str(tmp_path / "none")]) == 1
    assert "error: no device folder" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["history", "x"], ["pin", "x"], ["unpin", "x"], ["rollback", "x"]])
def test_a_model_that_is_not_there_is_said(
    device: Device, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main([*words, "--device", str(device.folder), "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["reason"] == "not_found"
    assert "hint: " in told.err


def test_a_refusal_is_told_as_json_with_its_word(
    device: Device, maker: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = maker.bundle("1")
    (bundle / "model.sig").unlink()
    assert main(["install", str(bundle), "--device", str(device.folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["outcome"], told["reason"]) == ("refused", "unsigned")
    assert main(["install", str(bundle), "--device", str(device.folder), "--trust", str(bundle / "golden.npz")]) == 1
    assert "error: " in capsys.readouterr().err


def test_the_commands_tell_what_there_is(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--device", str(device.folder)]
    assert main(["status", *at]) == 0
    told = capsys.readouterr().out
    assert "target here" in told
    assert "document 1: maker" in told
    assert "nothing is installed yet" in told
    assert main(["have", *at, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"objects": [], "parts": {}}
    assert main(["gc", *at]) == 0
    assert capsys.readouterr().out == "0.0 MB freed\n"
    assert main(["history", *at]) == 0
    assert capsys.readouterr().out == "nothing happened yet\n"


@pytest.mark.slow
def test_pins_and_history_of_a_model(device: Device, maker: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--device", str(device.folder), "--json"]

    def told(*words: str) -> object:
        assert main([*words, *at]) == 0
        return json.loads(capsys.readouterr().out)

    ids = []
    for version in "123":
        ids.append(told("install", str(maker.bundle(version)), "--probation", "0")["id"])
        device.store.good("tiny")
        if version == "1":
            assert told("pin", "tiny")["pinned"] == ids
    assert told("gc")["freed"] == 0
    assert sorted(device.store.ids("tiny")) == sorted(ids)
    assert told("unpin", "tiny")["pinned"] == []
    assert told("gc")["freed"] > 0
    assert sorted(device.store.ids("tiny")) == sorted(ids[1:])
    events = told("history", "tiny")
    assert [one["what"] for one in events] == ["activated", "good"] * 3
    assert main(["rollback", "tiny", "--to", ids[0], "--device", str(device.folder)]) == 1
    assert main(["status", "--device", str(device.folder)]) == 0
    assert f"live      3 ({ids[2]}): good" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_told_from_one_with_no_way_back(device, maker, capsys):
    assert main(["install", str(maker.bundle("1")), "--device", str(device.folder)]) == 0
    for name, words in (("tinny", "there is no model 'tinny' here\nhint: here are tiny"), ("tiny", "to go back to")):
        assert main(["rollback", name, "--device", str(device.folder)]) == 1
        assert words in capsys.readouterr().err
