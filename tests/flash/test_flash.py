"""Flashing over a real OpenSSH server: an empty device, the same again, a new version, and all that is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgekit_runtime.device import Device

from edgekit import keys
from edgekit.flash import names
from examples.sshd import Server
from tests.flash.devices import There, a_bundle, a_device, edgekit, stop
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flashed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    """A device on which version 1 was flashed, and is served."""
    folder = tmp_path_factory.mktemp("flashed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        with a_device(server, folder) as there:
            bundle = a_bundle(folder / "one")
            done = edgekit("flash", bundle, there.url, *there.words(), "--serve", "--port 0", *SOON)
            assert done.code == 0, done.err
            assert "is served" in done.out
            yield there


SOON = ("--yes", "--start", "--probation", "1")


def test_an_empty_device_serves_what_was_flashed(flashed: There) -> None:
    assert flashed.live() == "1"
    assert (flashed.prefix / "current" / "bin" / "edgekit-runtime").is_file()
    status = edgekit("status", flashed.url, *flashed.words(), "--json")
    assert '"served"' in status.out
    assert edgekit("logs", flashed.url, *flashed.words()).out.count("serving tiny") == 1
    told = edgekit("logs", flashed.url, *flashed.words(), "--json").out.splitlines()
    assert sum(json.loads(line)["MESSAGE"].startswith("serving tiny") for line in told) == 1
    assert "hint:  say --yes\n" in edgekit("rollback", flashed.url, "tiny", *flashed.words()).err


def test_the_device_signed_a_receipt_which_is_kept(flashed: There) -> None:
    (kept,) = (flashed.folder / "state" / "edgekit" / "receipts").rglob("*.json")
    assert kept.name.split("-")[1] == "tiny"
    assert names.find(names.default_file(), flashed.url).key


def test_the_same_again_changes_nothing(flashed: There) -> None:
    done = edgekit("flash", flashed.folder / "one", flashed.url, *flashed.words(), *SOON, "--json")
    assert done.code == 0, done.err
    assert done.facts["nothing_to_do"]
    assert done.facts["runtime_bytes"] == 0


def test_the_same_again_with_other_words_is_not_nothing(flashed: There) -> None:
    for serve, nothing in (("--port 0", True), ("--port 0 --max-body 32", False)):
        words = ("--dry-run", "--json", "--serve", serve)
        done = edgekit("flash", flashed.folder / "one", flashed.url, *flashed.words(), *words)
        assert done.facts["nothing_to_do"] is nothing


def test_another_version_brings_only_what_differs(flashed: There) -> None:
    bundle = a_bundle(flashed.folder / "two", version="2", release=2)
    dry = edgekit("flash", bundle, flashed.url, *flashed.words(), "--dry-run", "--json")
    assert dry.facts["files_there"] == 3  # of three: the model, the words and the golden answers are the same
    assert flashed.live() == "1"
    done = edgekit("flash", bundle, flashed.url, *flashed.words(), *SOON)
    assert done.code == 0, done.err
    assert flashed.live() == "2"
    back = edgekit("rollback", flashed.url, "tiny", *flashed.words(), "--yes")
    assert back.code == 0, back.err
    assert flashed.live() == "1"


def test_a_version_is_compared_with_the_live_one_first_where_that_is_asked_for(flashed: There) -> None:
    bundle = a_bundle(flashed.folder / "beside", version="8", release=8)
    alone = edgekit("flash", bundle, flashed.url, *flashed.words(), "--yes", "--agreement", "0.9")
    assert "--agreement says nothing without --shadow" in alone.err
    until(lambda: Device(flashed.device).store.slot("tiny").on_trial is None, 60)
    done = edgekit(
        "flash", bundle, flashed.url, *flashed.words(), "--yes", "--shadow", "0.5", "--shadow-requests", "20"
    )
    assert done.code == 0, done.err
    assert "is compared with the live version" in done.out
    assert flashed.live() == "1"
    slot = Device(flashed.device).store.slot("tiny")
    assert slot.shadow is not None
    Device(flashed.device).store.drop("tiny", "the test is over")


def test_nothing_is_done_without_yes_and_without_a_terminal(flashed: There) -> None:
    bundle = a_bundle(flashed.folder / "three", version="3", release=3)
    done = edgekit("flash", bundle, flashed.url, *flashed.words())
    assert done.code == 1
    assert "--yes" in done.err
    assert flashed.live() == "1"


def test_what_is_not_signed_is_refused(flashed: There) -> None:
    bundle = a_bundle(flashed.folder / "unsigned", version="4", release=4, sign=False)
    refused(flashed, bundle, "is not signed")


def test_a_touched_bundle_is_refused(flashed: There) -> None:
    bundle = a_bundle(flashed.folder / "touched", version="5", release=5)
    (bundle / "labels.txt").write_text("cat\ndog\nbird\nfirm\n")
    refused(flashed, bundle, "touched")


def test_a_key_that_the_device_does_not_trust_is_refused(flashed: There, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(flashed.folder / "stranger"))
        bundle = a_bundle(flashed.folder / "strange", version="6", release=6)
    refused(flashed, bundle, "a key that is not trusted")


def test_another_target_is_refused(flashed: There) -> None:
    (flashed.device / "target").write_text("elsewhere\n")
    try:
        refused(flashed, a_bundle(flashed.folder / "other", version="7", release=7), "the device is elsewhere")
    finally:
        (flashed.device / "target").unlink()


def test_a_device_with_another_key_is_refused(flashed: There) -> None:
    key = (flashed.device / "device.pub").read_bytes()
    (flashed.device / "device.pub").write_bytes((keys.default_home() / "main.pub").read_bytes())
    try:
        refused(flashed, flashed.folder / "one", "shows another key")
    finally:
        (flashed.device / "device.pub").write_bytes(key)


def test_a_revoked_key_is_refused_once_the_device_was_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    bundle = a_bundle(tmp_path / "one")
    keys.new(keys.default_home(), "next")
    keys.revoke(keys.default_home(), "main", "lost")
    with a_device(server, tmp_path) as there:
        refused(there, bundle, "a key that was revoked: 'lost'", None)


def test_a_revocation_reaches_a_device_without_a_bundle(flashed: There, tmp_path: Path) -> None:
    shutil.copytree(keys.default_home(), tmp_path / "keys")
    keys.new(tmp_path / "keys", "mine")
    keys.revoke(tmp_path / "keys", "mine", "lost")
    before = (flashed.device / "trust.json").read_bytes()
    words = ("devices", "trust", flashed.url, *flashed.words(), "--keys", tmp_path / "keys")
    try:
        done = edgekit(*words, "--dry-run")
        assert (done.code, (flashed.device / "trust.json").read_bytes()) == (0, before), done.err
        assert "nothing was sent" in done.out
        done = edgekit(*words)
        assert done.code == 0, done.err
        assert "gets" in done.out
        assert (flashed.device / "trust.json").read_bytes() == keys.trust_document(tmp_path / "keys")
        assert "has document" in edgekit(*words).out
    finally:
        (flashed.device / "trust.json").write_bytes(before)


def test_a_trust_that_would_make_the_device_forget_keys_is_refused_before_anything_is_changed(
    flashed: There, tmp_path: Path
) -> None:
    for name in ("here", "there"):
        shutil.copytree(keys.default_home(), tmp_path / name)
    for folder, name in (("there", "theirs"), ("here", "mine"), ("here", "more")):
        keys.new(tmp_path / folder, name)
    before, trust = (flashed.device / "trust.json").read_bytes(), keys.trust_document(tmp_path / "there")
    (flashed.device / "trust.json").write_bytes(trust)
    try:
        bundle = a_bundle(flashed.folder / "apart", version="9", release=9)
        done = edgekit("flash", bundle, flashed.url, *flashed.words(), *SOON, "--keys", tmp_path / "here")
        assert done.code == 1
        assert "which forgets theirs" in done.err
        assert "hint:  bring the folder of keys that the device follows here" in done.err
        assert (flashed.device / "trust.json").read_bytes() == trust
        assert flashed.live() == "1"
    finally:
        (flashed.device / "trust.json").write_bytes(before)


def refused(there: There, bundle: Path, words: str, live: str | None = "1") -> None:
    """Flashing it is refused in these words, and changes nothing."""
    done = edgekit("flash", bundle, there.url, *there.words(), *SOON)
    assert done.code == 1
    assert words in done.err, done.err
    assert "hint:" in done.err
    assert there.live() == live


def test_the_devices_key_is_printed_for_encrypting(flashed: There, tmp_path: Path) -> None:
    pem = (flashed.device / "device.pub").read_text()
    told = edgekit("devices", "key", flashed.url, "--json")  # it is known since the first flash: nobody is asked
    assert told.facts["pem"] == pem
    (tmp_path / "pi.pub").write_text(pem)
    made = edgekit("encrypt", flashed.folder / "one", "--for", tmp_path / "pi.pub", "--out", tmp_path / "secret")
    assert made.code == 0, made.err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another machine"))
        said = edgekit("devices", "key", flashed.url, *flashed.words())
    assert (said.code, said.out) == (0, pem), said.err


def test_a_device_that_was_never_flashed_has_no_key_to_print(server: Server, tmp_path: Path) -> None:
    with a_device(server, tmp_path) as there:
        done = edgekit("devices", "key", f"ssh://nobody-yet@{there.url.partition('@')[2]}", *there.words())
        assert done.code == 1
        assert "hint:" in done.err


def test_an_older_release_is_refused_and_installed_with_a_signed_leave(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with a_device(server, tmp_path / "there") as there:
        store = Device(there.device).store

        def proven() -> bool:
            slot = store.slot("tiny")
            return slot is not None and slot.on_trial is None

        bundles = [a_bundle(tmp_path / str(number), str(number), number) for number in (1, 2, 3)]
        for bundle in bundles:
            done = edgekit("flash", bundle, there.url, *there.words(), "--serve", "--port 0", *SOON)
            assert done.code == 0, done.err
            until(proven, 120)
        refused(there, bundles[0], "below the device's floor", "3")
        leave = tmp_path / "leave"
        for release, words in ((2, "from release 2 on"), (1, "")):
            made = edgekit("key", "allow", "tiny", str(release), "--days", "7", "--out", leave)
            assert made.code == 0, made.err
            done = edgekit("flash", bundles[0], there.url, *there.words(), *SOON, "--downgrade", leave)
            assert (done.code, words in done.err) == (int(release == 2), True), done.err
        assert there.live() == "1"


def test_a_runtime_that_does_not_start_is_replaced(flashed: There) -> None:
    stop(flashed)
    python = flashed.prefix / "current" / "bin" / "python"
    python.unlink()
    done = edgekit("flash", flashed.folder / "one", flashed.url, *flashed.words(), *SOON)
    assert done.code == 0, done.err
    assert "a runtime that does not start" in done.out
    assert python.exists()


def test_two_flashes_at_once_do_not_meet(flashed: There) -> None:
    bundle = a_bundle(flashed.folder / "eight", version="8", release=8)
    with Device(flashed.device).store.installing():
        done = edgekit("flash", bundle, flashed.url, *flashed.words(), *SOON)
    assert done.code == 1
    assert "another installation is going on" in done.err
    assert flashed.live() == "1"


def test_an_unknown_host_is_not_taken_on_trust(flashed: There, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").touch()
    text = flashed.server.config.read_text()
    (tmp_path / "config").write_text(text.replace(f"{flashed.server.folder}/known_hosts", f"{tmp_path}/known_hosts"))
    done = edgekit("flash", flashed.folder / "one", flashed.url, "--ssh-config", tmp_path / "config", "--dry-run")
    assert done.code == 1
    assert "the host's key is not known yet" in done.err
    assert "look at it yourself first: ssh 127.0.0.1" in done.err


def test_a_device_that_is_off_is_told(flashed: There, tmp_path: Path) -> None:
    done = edgekit("flash", flashed.folder / "one", "ssh://127.0.0.1:9", "--dry-run")
    assert done.code == 1
    assert "cannot be reached" in done.err


def test_a_device_that_was_never_flashed_has_no_status(server: Server, tmp_path: Path) -> None:
    with a_device(server, tmp_path) as there:
        words = (there.url, *there.words())
        for verb in (("status",), ("logs",), ("logs", "--json"), ("rollback", "--yes")):
            done = edgekit(*verb, *words, *(("tiny",) if verb[0] == "rollback" else ()))
            assert done.code == 1
            assert done.err.startswith("error: there is no runtime")
            assert "edgekit flash BUNDLE ssh://" in done.err


def test_who_stops_a_flash_is_told_what_is_left_and_the_same_again_goes_on(flashed: There) -> None:
    bundle = a_bundle(flashed.folder / "nine", version="9", release=9)
    words = [str(word) for word in ("flash", bundle, flashed.url, *flashed.words(), *SOON)]
    command = [sys.executable, "-m", "edgekit", *words]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    assert any(said.startswith(b"verified:") for said in process.stderr)
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read().decode()
    assert (process.wait(60), "may still be ending its last step" in rest) == (1, True), rest
    assert "run the same again: it goes on where it stopped" in rest
    assert "Traceback" not in rest

    def went_on() -> bool:
        done = edgekit(*words)
        assert done.code == 0 or "another installation is going on" in done.err, done.err
        return done.code == 0

    until(went_on, 120)
    assert flashed.live() == "9"
