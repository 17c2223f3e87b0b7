"""A device that serves its store: real signed bundles, a real server process, swapped and rolled back under load."""

import json
import threading
from pathlib import Path

import pytest
from edgekit_runtime.device import Device

from tests.runtime.bundles import add_baseline
from tests.runtime.devices import Maker, device_folder, fragile, runtime, serving, soon
from tests.runtime.signing import sign_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, maker: Maker) -> Path:
    return device_folder(tmp_path / "device", maker)


def install(folder: Path, bundle: Path, *words: object):
    """What `install --json` told; and that its exit code fits."""
    done = runtime("install", bundle, "--device", folder, "--json", *words)
    told = json.loads(done.stdout)
    assert (done.returncode == 0) == (told["outcome"] not in ("refused", "rolled back")), done.stderr.decode()
    return told


def test_the_next_version_is_swapped_in_under_load_and_no_request_fails(folder: Path, maker: Maker) -> None:
    assert install(folder, maker.bundle("1"), "--probation", 0)["outcome"] == "live"
    with serving(folder) as server:
        assert server.version() == "1"
        soon(lambda: Device(folder).store.slot("tiny").on_trial is None)
        answers, over = [], threading.Event()

        def load() -> None:
            while not over.is_set():
                answers.append(server.infer())

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            told = install(folder, maker.bundle("2"), "--probation", 1)
            soon(lambda: ("proven good", "2", "") in server.history())
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert told["outcome"] == "serving"
        assert {answer.get("model_version") for answer in answers} == {"1", "2"}
        assert server.version() == "2"
        slot = Device(folder).store.slot("tiny")
        assert (slot.on_trial, slot.previous is not None) == (None, True)
        assert Device(folder).store.floor.least("tiny") == 100


def test_a_version_that_breaks_in_probation_is_rolled_back_by_itself(folder: Path, maker: Maker) -> None:
    install(folder, maker.bundle("1"), "--probation", 0)
    with serving(folder) as server:
        soon(lambda: Device(folder).store.slot("tiny").on_trial is None)
        assert install(folder, maker.bundle("4", fragile()), "--probation", 600)["outcome"] == "serving"
        assert server.version() == "4"
        for _ in range(10):
            assert "error" in server.infer(100.0)
        soon(lambda: server.version() == "1")
        assert "outputs" in server.infer(100.0)
        what = [one for one in server.history() if one[1] == "4"]
        assert [one[0] for one in what] == ["replaced", "failed"]
        assert "the engine failed in" in what[1][2]
        metrics = server.ask("/metrics").decode()
        assert 'edgekit_store_rollbacks_total{model="tiny"} 1' in metrics
        assert 'edgekit_store_slot_state{model="tiny",state="good"} 1' in metrics
    again = runtime("install", maker.folder / "v4", "--device", folder, "--json")
    assert (again.returncode, "rolled back on this device" in json.loads(again.stdout)["error"]) == (1, True)


def test_a_server_that_is_killed_again_and_again_in_a_trial_comes_back_in_the_version_before(
    folder: Path, maker: Maker
) -> None:
    install(folder, maker.bundle("1"), "--probation", 0)
    with serving(folder) as server:
        soon(lambda: Device(folder).store.slot("tiny").on_trial is None)
        assert install(folder, maker.bundle("2"), "--probation", 600)["outcome"] == "serving"
        server.kill()
    seen = []
    for _ in range(4):
        with serving(folder) as server:
            seen.append(server.version())
            history = server.history()
            server.kill()
    assert seen == ["2", "2", "2", "1"]
    assert history[0][:2] == ("rolled back", "2")
    assert "more than 3 times" in history[0][2]


def test_a_machine_that_went_down_in_a_trial_comes_back_in_the_version_before(folder: Path, maker: Maker) -> None:
    install(folder, maker.bundle("1"), "--probation", 0)
    with serving(folder) as server:
        soon(lambda: Device(folder).store.slot("tiny").on_trial is None)
        install(folder, maker.bundle("2"), "--probation", 600)
    trial = folder / "store" / "slots" / "tiny" / "trial.json"
    trial.write_text(json.dumps({**json.loads(trial.read_text()), "boot_id": "another start of the machine"}))
    with serving(folder) as server:
        assert server.version() == "1"
        assert "went down" in server.history()[0][2]


def test_a_live_version_that_a_disk_spoilt_is_not_served(folder: Path, maker: Maker) -> None:
    install(folder, maker.bundle("1"), "--probation", 0)
    with serving(folder):
        soon(lambda: Device(folder).store.slot("tiny").on_trial is None)
        install(folder, maker.bundle("2"), "--probation", 0)
        soon(lambda: Device(folder).store.slot("tiny").on_trial is None)
    labels = Device(folder).store.live("tiny").manifest.files["labels.txt"].sha256
    spoilt = folder / "store" / "objects" / labels[:2] / labels
    spoilt.write_bytes(spoilt.read_bytes().replace(b"dog", b"god"))
    with serving(folder) as server:
        assert server.version() == "1"
        assert "touched" in server.history()[0][2]
    assert Device(folder).store.slot("tiny").live != Device(folder).store.slot("tiny").refused[0]


def test_a_key_that_was_revoked_serves_nothing_any_more(folder: Path, maker: Maker) -> None:
    install(folder, maker.bundle("1"), "--probation", 0)
    newer = folder.with_name("newer.json")
    newer.write_bytes(maker.trust(2, maker.key))
    assert runtime("trust", newer, "--device", folder).returncode == 0
    with serving(folder) as server:
        assert server.ask("/status")["models"] == []
        assert "error" in server.infer()
    assert "revoked" in folder.with_name("device.log").read_text()


def test_a_device_that_trusts_nobody_serves_nothing(folder: Path, maker: Maker) -> None:
    install(folder, maker.bundle("1"))
    (folder / "trust.json").unlink()
    done = runtime("serve", "--device", folder, "--port=0")
    assert (done.returncode, b"trusts nobody" in done.stderr) == (1, True)


def test_one_folder_has_one_server_and_what_a_killed_one_left_is_not_believed(folder: Path, maker: Maker) -> None:
    install(folder, maker.bundle("1"), "--probation", 0)
    with serving(folder) as server:
        other = runtime("serve", "--device", folder, "--port=0")
        assert (other.returncode, b"another server" in other.stderr) == (1, True)
        server.kill()
        killed = server.process.pid
    assert (folder / "serving.json").exists()
    assert list(Path("/dev/shm").glob(f"edgekit-{killed}-*")) != []
    assert json.loads(runtime("status", "--device", folder, "--json").stdout)["server"] is None
    assert install(folder, maker.bundle("2"))["outcome"] == "live"
    with serving(folder) as server:
        assert server.version() == "2"
        assert list(Path("/dev/shm").glob(f"edgekit-{killed}-*")) == []
    assert not (folder / "serving.json").exists()


def test_going_back_by_hand_reaches_the_server(folder: Path, maker: Maker) -> None:
    install(folder, maker.bundle("1"), "--probation", 0)
    with serving(folder) as server:
        soon(lambda: Device(folder).store.slot("tiny").on_trial is None)
        two = install(folder, maker.bundle("2"), "--probation", 0)["id"]
        soon(lambda: Device(folder).store.slot("tiny").on_trial is None)
        done = json.loads(runtime("rollback", "tiny", "--device", folder, "--json").stdout)
        assert (done["version"], done["served"], server.version()) == ("1", True, "1")
        done = json.loads(runtime("rollback", "tiny", "--to", two, "--device", folder, "--json").stdout)
        assert (done["outcome"], server.version()) == ("serving", "2")
        status = json.loads(runtime("status", "--device", folder, "--json").stdout)
        model = status["models"][0]
        assert (model["served"], model["live"]["version"], model["previous"]["version"]) == (two, "2", "1")
        assert status["server"]["url"] == server.at
        assert b"(process " in runtime("status", "--device", folder).stdout
        assert b"rolled back: asked for" in runtime("history", "--device", folder).stdout


def test_a_bundle_that_was_named_is_served_beside_the_device(folder: Path, maker: Maker, tmp_path: Path) -> None:
    from tests.runtime.bundles import make_bundle

    install(folder, maker.bundle("1"), "--probation", 0)
    other = make_bundle(tmp_path / "other", name="other")
    with serving(folder, str(other)) as server:
        assert {one["name"] for one in server.ask("/status")["models"]} == {"tiny", "other"}


def test_a_drift_alarm_ends_the_trial_where_that_was_asked_for(folder: Path, maker: Maker) -> None:
    install(folder, maker.bundle("1"), "--probation", 0)
    two = maker.bundle("2")
    (two / "model.sig").unlink()
    sign_folder(add_baseline(two), maker.key)
    with serving(folder) as server:
        soon(lambda: Device(folder).store.slot("tiny").on_trial is None)
        assert install(folder, two, "--probation", 600, "--roll-back-on-drift")["outcome"] == "serving"

        def drifted() -> bool:
            for _ in range(50):
                server.infer(3.0)
            return server.version() == "1"

        soon(drifted)
        assert ("failed", "2", "its inputs or answers drifted from those of its build") in server.history()
