"""Keys on the host: made, rotated, revoked; and what devices make of the trust that follows."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from edgekit_runtime.errors import EdgeKitError, NotFound, Untrusted
from edgekit_runtime.keypair import public_of
from edgekit_runtime.trust import Trust, opened_downgrade, opened_first, succeed

from edgekit import keyfiles, keys
from edgekit.cli import cli


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def taken(home: Path, trust: Trust | None = None) -> Trust:
    """What a device that trusts `trust` trusts after a flash."""
    if trust is None:
        return opened_first(keys.trust_document(home))
    for raw in keys.trust_chain(home, trust.serial):
        trust = succeed(trust, raw)
    return trust


def test_the_first_key_comes_with_a_root_that_vouches_for_it(home):
    made = keys.new(home, "main")
    root, main = keys.listed(home)
    assert (root.role, main) == ("root", made)
    assert taken(home).signer(made.fingerprint, 0).name == "main"
    assert public_of(keys.signing_key(home)).fingerprint == made.fingerprint


def test_secrets_are_for_their_owner_only(home):
    keys.new(home, "main")
    assert home.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in home.glob("*.key")] == [0o600, 0o600]
    (home / "main.key").chmod(0o640)
    with pytest.raises(EdgeKitError, match="can be read by others") as caught:
        keys.signing_key(home)
    assert caught.value.hint.startswith("chmod 600")


def test_a_build_makes_a_key_where_there_is_none_and_says_so(home):
    said = []
    secret = keys.signing_key(home, tell=said.append)
    assert len(said) == 1
    assert str(home / "main.key") in said[0]
    assert keys.signing_key(home, tell=said.append) == secret
    assert len(said) == 1


def test_a_rotated_key_stays_trusted_until_it_is_revoked(home):
    old = keys.new(home, "main")
    device = taken(home)
    new = keys.rotate(home, "main")
    assert public_of(keys.signing_key(home)).fingerprint == new.fingerprint != old.fingerprint
    device = taken(home, device)
    assert device.signer(old.fingerprint, 0).name.startswith("main-")
    keys.revoke(home, old.fingerprint[:12], "left on a train")
    device = taken(home, device)
    with pytest.raises(Untrusted, match="left on a train") as caught:
        device.signer(old.fingerprint, 0)
    assert caught.value.reason == "revoked"
    assert device.signer(new.fingerprint, 0).name == "main"


def test_a_device_that_missed_every_step_follows_the_roots(home):
    keys.new(home, "main")
    device = taken(home)
    first = keys.listed(home)[0]
    keys.rotate(home, "root")
    keys.revoke(home, first.fingerprint, "the old root")
    keys.new(home, "other")
    with pytest.raises(Untrusted):  # the newest alone is signed by a root that this device never heard of
        succeed(device, keys.trust_document(home))
    device = taken(home, device)
    assert [key.name for key in device.keys] == ["main", "other"]
    assert first.fingerprint not in device.live_roots()


def test_the_only_root_is_not_revoked(home):
    keys.new(home, "main")
    root = keys.listed(home)[0]
    with pytest.raises(EdgeKitError, match="only root") as caught:
        keys.revoke(home, root.fingerprint, "oops")
    assert "rotate root" in caught.value.hint


def test_nothing_is_signed_by_a_revoked_key(home):
    keys.new(home, "main")
    keys.revoke(home, "main", "stolen")
    with pytest.raises(EdgeKitError, match="stolen"):
        keys.signing_key(home, "main")
    with pytest.raises(NotFound, match="no key to sign with"):
        keys.signing_key(home)
    with pytest.raises(EdgeKitError, match="revoked already"):
        keys.revoke(home, "main", "again")


def test_with_the_root_away_bundles_are_signed_and_no_key_is_made(home):
    keys.new(home, "main")
    (home / "root.key").unlink()
    assert keys.signing_key(home)
    before = keys.trust_document(home)
    with pytest.raises(NotFound, match="root's secret is not here"):
        keys.new(home, "other")
    assert keys.trust_document(home) == before
    assert not (home / "other.key").exists()


@pytest.mark.parametrize("name", ["root", "../up", "", "a b", "-x"])
def test_a_key_has_a_plain_name_of_its_own(home, name):
    with pytest.raises(EdgeKitError, match="cannot be a key's name"):
        keys.new(home, name)
    assert not home.exists()


def test_a_name_is_taken_once(home):
    keys.new(home, "main")
    with pytest.raises(EdgeKitError, match="a key main already"):
        keys.new(home, "main")


def test_the_command_makes_lists_rotates_revokes_and_tells_no_secret(home, tmp_path):
    def say(*words: str) -> str:
        found = CliRunner().invoke(cli, ["key", *words, "--keys", str(home)], catch_exceptions=False)
        assert found.exit_code == 0
        assert "PRIVATE" not in found.output
        return found.output

    assert "no keys in" in say("list")
    assert "keep" in say("new")
    assert "main" in say("rotate", "main")
    old = next(one for one in json.loads(say("list", "--json")) if one["name"].startswith("main-"))
    assert "revoked: lost" in say("revoke", old["name"], "--why", "lost")
    say("trust", "--out", str(tmp_path / "trust.json"))
    assert opened_first((tmp_path / "trust.json").read_bytes()).serial == 3


def files_of(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_a_root_that_came_without_its_trust_is_never_written_over(home):
    keys.new(home, "main")
    (home / "trust.json").unlink()
    before = files_of(home)
    for act in (lambda: keys.new(home, "other"), lambda: keys.signing_key(home)):
        with pytest.raises(EdgeKitError, match=r"no trust\.json") as caught:
            act()
        assert "bring trust.json" in caught.value.hint
    assert files_of(home) == before


def test_a_key_file_that_is_not_ours_is_neither_read_nor_written_over(home):
    keys.new(home, "main")
    (home / "web.key").write_text("a key of a web server\n")
    (home / "web.key").chmod(0o644)
    assert [key.name for key in keys.listed(home)] == ["root", "main"]
    assert keys.signing_key(home)
    with pytest.raises(EdgeKitError, match=r"web\.key is there already"):
        keys.new(home, "web")
    assert (home / "web.key").read_text() == "a key of a web server\n"


def test_a_key_that_is_broken_is_named(home):
    keys.new(home, "main")
    (home / "main.key").write_text("half\n")
    with pytest.raises(EdgeKitError, match=r"main\.key: this is no private key"):
        keys.signing_key(home)


def test_a_folder_that_was_there_keeps_its_mode_and_others_may_not_write_in_it(home):
    home.mkdir(mode=0o755)
    keys.new(home, "main")
    assert home.stat().st_mode & 0o777 == 0o755
    shared = home.with_name("shared")
    shared.mkdir()
    shared.chmod(0o775)
    with pytest.raises(EdgeKitError, match="others can write") as caught:
        keys.new(shared, "main")
    assert "chmod go-w" in caught.value.hint
    assert not list(shared.iterdir())


def test_a_file_in_the_folders_place_is_an_error_in_words(home):
    home.write_text("mine")
    for verb in (["new"], ["list"], ["rotate", "main"], ["revoke", "main"], ["trust"]):
        found = CliRunner().invoke(cli, ["key", *verb, "--keys", str(home)])
        assert found.exit_code == 0 or isinstance(found.exception, EdgeKitError), (verb, found.exception)
    assert home.read_text() == "mine"


def test_where_the_trust_goes_must_be_a_place(home, tmp_path):
    keys.new(home, "main")
    found = CliRunner().invoke(cli, ["key", "trust", "--keys", str(home), "--out", str(tmp_path / "no" / "x")])
    assert isinstance(found.exception, EdgeKitError)
    plain = CliRunner().invoke(cli, ["key", "trust", "--keys", str(home)])
    assert plain.stdout_bytes == keys.trust_document(home)


@pytest.mark.parametrize("act", ["new", "rotate", "rotate root", "revoke", "first"])
@pytest.mark.parametrize("writes", range(8))
def test_what_stops_in_the_middle_leaves_all_keys_as_they_were(home, monkeypatch, act, writes):
    acts = {
        "new": lambda: keys.new(home, "other"),
        "rotate": lambda: keys.rotate(home, "main"),
        "rotate root": lambda: keys.rotate(home, "root"),
        "revoke": lambda: keys.revoke(home, "main", "lost"),
        "first": lambda: keys.new(home, "main"),
    }
    if act != "first":
        keys.new(home, "main")
    before = files_of(home) if act != "first" else {}
    stop_after(monkeypatch, writes)
    try:
        acts[act]()
    except KeyboardInterrupt:
        assert files_of(home) == before
    monkeypatch.undo()
    if act == "first" and not (home / "trust.json").exists():
        keys.new(home, "main")
    keys.rotate(home, "root")  # whatever happened, all goes on
    assert taken(home).live_roots()


def stop_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """A Ctrl-C instead of the write that comes after so many; what is put back is written."""
    left, real = [writes], keyfiles.write

    def write(path: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(keyfiles, "write", write)


@pytest.mark.parametrize("kept", range(7))
def test_a_root_that_was_rotated_when_the_power_went_still_vouches(home, kept):
    keys.new(home, "main")
    before, device = files_of(home), taken(home)
    keys.rotate(home, "root")
    order = ["root-*.key", "root.key", "root-*.pub", "root.pub", "trust/2.json", "trust.json"]
    for pattern in order[kept:]:  # these writes did not come to pass
        for path in home.glob(pattern):
            name = str(path.relative_to(home))
            path.write_bytes(before[name]) if name in before else path.unlink()
    keys.new(home, "other")
    assert [key.name for key in taken(home, device).keys] == ["main", "other"]


def test_documents_beyond_the_one_in_force_reach_no_device(home):
    keys.new(home, "main")
    device = taken(home)
    now = keys.trust_document(home)
    keys.new(home, "other")
    (home / "trust.json").write_bytes(now)  # the power went between the two writes
    assert keys.trust_chain(home, device.serial) == []
    (home / "other.key").unlink()
    keys.new(home, "third")
    assert [key.name for key in taken(home, device).keys] == ["main", "third"]


def test_a_folder_without_its_history_still_tells_devices_the_newest(home):
    keys.new(home, "main")
    device = taken(home)
    keys.new(home, "other")
    for path in (home / "trust").iterdir():
        path.unlink()
    (home / "trust").rmdir()
    assert len(keys.trust_chain(home, device.serial)) == 1
    assert [key.name for key in taken(home, device).keys] == ["main", "other"]


def test_a_broken_document_in_the_history_is_passed_over(home):
    keys.new(home, "main")
    device = taken(home)
    keys.new(home, "other")
    keys.new(home, "third")
    (home / "trust" / "2.json").write_text("torn")
    assert [key.name for key in taken(home, device).keys] == ["main", "other", "third"]


def test_builds_that_begin_at_once_agree_on_one_key(home):
    code = "import sys\nfrom pathlib import Path\nfrom edgekit import keys\n"
    code += "from edgekit_runtime.keypair import public_of\n"
    code += "print(public_of(keys.signing_key(Path(sys.argv[1]))).fingerprint)"
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = {one.communicate(timeout=120)[0] for one in running}
    assert said == {f"{keys.listed(home)[1].fingerprint}\n"}
    assert len(keys.listed(home)) == 2


def test_keys_that_are_made_at_once_are_all_vouched_for(home):
    keys.new(home, "main")
    threads = [threading.Thread(target=keys.new, args=(home, f"k{number}")) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in taken(home).keys} == {"main", *(f"k{number}" for number in range(5))}


def test_a_file_system_that_keeps_no_modes_holds_no_key(home, monkeypatch):
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode=0o777: real(path, flags, 0o755))  # as FAT shows all files
    with pytest.raises(EdgeKitError, match="without modes") as caught:
        keys.new(home, "main")
    assert "FAT" in caught.value.hint
    assert files_of(home) == {}


def test_a_trust_document_that_does_not_read_is_named(home):
    keys.new(home, "main")
    (home / "trust.json").write_text("torn")
    with pytest.raises(Untrusted, match=r"trust\.json: ") as caught:
        keys.listed(home)
    assert str(home / "trust") in caught.value.hint


def test_the_root_signs_no_bundle(home):
    keys.new(home, "main")
    with pytest.raises(EdgeKitError, match="signs no bundles"):
        keys.signing_key(home, "root")


@pytest.mark.parametrize("why", ["", "x" * 201, "two\nlines", "\x1b[31mred"])
def test_why_a_key_is_revoked_is_one_line_of_words(home, why):
    keys.new(home, "main")
    with pytest.raises(EdgeKitError, match="--why"):
        keys.revoke(home, "main", why)
    assert keys.signing_key(home)


def test_who_rotates_is_told_how_the_old_one_goes(home):
    old = keys.new(home, "main")
    found = CliRunner().invoke(cli, ["key", "rotate", "main", "--keys", str(home)], catch_exceptions=False)
    assert f"edgekit key revoke {old.fingerprint[:12]}" in found.output


def test_who_revokes_is_told_how_devices_learn_of_it_and_that_no_key_is_left(home):
    keys.new(home, "main")
    keys.new(home, "second")
    for name, left in (("main", True), ("second", False)):
        found = CliRunner().invoke(cli, ["key", "revoke", name, "--keys", str(home)], catch_exceptions=False)
        assert "edgekit flash BUNDLE DEVICE" in found.output
        assert ("no key to sign with is left" in found.output) is not left


def test_a_key_that_was_rotated_away_signs_only_where_there_is_no_other(home):
    old, second = keys.new(home, "main"), keys.new(home, "second")
    keys.revoke(home, keys.rotate(home, "main").fingerprint, "lost")
    assert public_of(keys.signing_key(home)).fingerprint == second.fingerprint
    keys.revoke(home, "second", "lost")
    assert public_of(keys.signing_key(home)).fingerprint == old.fingerprint


def test_what_a_killed_program_left_of_a_secret_goes(home):
    keys.new(home, "main")
    left = [home / ".main.key.123", home / "trust" / ".2.json.77", home / ".trust.json.4"]
    mine = home / ".main.key.bak"
    for path in (*left, mine):
        path.write_text("half a secret")
    keys.new(home, "other")
    assert not any(path.exists() for path in left)
    assert mine.exists()


def test_a_leave_to_go_back_is_signed_and_ends(home, tmp_path):
    keys.new(home, "main")
    done = CliRunner().invoke(cli, ["key", "allow", "tiny", "7", "--days", "2", "--keys", str(home)])
    assert done.exit_code == 0, done.output
    trust = keys.trusted(home)
    leave = opened_downgrade(done.stdout_bytes, trust, time.time())
    assert (leave.name, leave.release) == ("tiny", 7)
    assert abs(leave.until - time.time() - 2 * 86400) < 600
    with pytest.raises(Untrusted, match="ended"):
        opened_downgrade(done.stdout_bytes, trust, time.time() + 3 * 86400)
    out = tmp_path / "leave"
    done = CliRunner().invoke(cli, ["key", "allow", "tiny", "7", "--keys", str(home), "--out", str(out), "--json"])
    assert json.loads(done.output) == {"out": str(out)}
    assert opened_downgrade(out.read_bytes(), trust, time.time()).release == 7


@pytest.mark.parametrize(
    "words",
    [["tiny", "-1"], ["tiny", "x"], ["tiny", "1", "--days", "0"], ["tiny", "1", "--days", "nan"], ["../t", "1"]],
)
def test_a_leave_for_nothing_or_for_ever_is_refused(home, words):
    keys.new(home, "main")
    done = CliRunner().invoke(cli, ["key", "allow", "--keys", str(home), *words])
    assert isinstance(done.exception, EdgeKitError | SystemExit)
    assert done.exit_code != 0


def test_a_leave_takes_a_key_that_is_trusted(home):
    with pytest.raises(NotFound, match="no keys"):
        keys.allow(home, "tiny", 1, 7)
    assert not home.exists()
    old = keys.new(home, "main")
    keys.new(home, "next")
    keys.revoke(home, old.fingerprint, "lost")
    with pytest.raises(EdgeKitError, match="revoked"):
        keys.allow(home, "tiny", 1, 7, "main")
    assert opened_downgrade(keys.allow(home, "tiny", 1, 7), keys.trusted(home), time.time()).release == 1
