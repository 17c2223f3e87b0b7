"""Keys on the host: made, rotated, revoked; and what devices make of the trust that follows."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from edgekit_runtime.errors import EdgeKitError, NotFound, Untrusted
from edgekit_runtime.keypair import public_of
from edgekit_runtime.trust import Trust, opened_first, succeed

from edgekit import keys
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
