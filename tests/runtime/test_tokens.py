"""Tokens: the file, what is allowed, and what happens when the file changes under a running server."""

import hashlib
import logging
import multiprocessing
import os
import re
import time

import pytest
from edgekit_runtime import tokens as module
from edgekit_runtime.errors import EdgeKitError, Forbidden, NotFound, Unauthenticated
from edgekit_runtime.tokens import Tokens, add_token, list_tokens, make_token, parse_tokens, read_tokens, revoke_token

HASH = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens"


@pytest.fixture
def watched(monkeypatch):
    """The file's time stamp is looked at for each request."""
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.0)


def test_a_token_allows_its_scopes_and_no_other(file):
    secret = add_token(file, "camera", ["infer", "metrics"])
    tokens = Tokens(file)
    tokens.allow(f"Bearer {secret}", "infer")
    tokens.allow(f"bearer {secret}".encode(), "metrics")
    with pytest.raises(Forbidden, match="does not allow admin"):
        tokens.allow(f"Bearer {secret}", "admin")


def test_admin_does_not_imply_infer(file):
    secret = add_token(file, "deployer", ["admin"])
    Tokens(file).allow(f"Bearer {secret}", "admin")
    with pytest.raises(Forbidden):
        Tokens(file).allow(f"Bearer {secret}", "infer")


def test_what_is_open_needs_no_token(file):
    add_token(file, "camera", ["infer"])
    Tokens(file).allow(None, "open")
    Tokens(file).allow("Bearer wrong", "open")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic {secret}",
        "{secret}",
        "Bearer {secret}x",
        "Bearer x{secret}",
        "Bearer {secret} {secret}",
        "Bearer \udcff{secret}",
        "Bearer " + "a" * 100_000,
        "Bearer " + " " * 600 + "{secret}",
        b"Bearer \x00\xff",
        b"\xff" * 300,
    ],
)
def test_anything_but_a_known_token_is_refused(file, header):
    secret = add_token(file, "camera", ["infer"])
    given = header.replace("{secret}", secret) if isinstance(header, str) else header
    with pytest.raises(Unauthenticated):
        Tokens(file).allow(given, "infer")


def test_the_hash_in_the_file_is_no_token(file):
    add_token(file, "camera", ["infer"])
    digest = file.read_text().split()[2]
    with pytest.raises(Unauthenticated):
        Tokens(file).allow(f"Bearer {digest}", "infer")


def test_the_secret_is_256_random_bits_and_only_its_hash_is_kept(file):
    secret = add_token(file, "camera", ["infer"])
    assert re.fullmatch(r"ek_[A-Za-z0-9_-]{43}", secret)
    assert secret not in file.read_text()
    assert hashlib.sha256(secret.encode()).hexdigest() in file.read_text()
    assert len({make_token("x", ["infer"])[0] for _ in range(100)}) == 100


def test_a_new_file_is_for_its_owner_alone(file):
    old = os.umask(0)
    try:
        add_token(file, "camera", ["infer"])
    finally:
        os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o600


def test_mode_comments_and_links_outlive_a_change(file, tmp_path):
    file.write_text(f"# ours\n\nold infer {HASH}  # keep me\n")
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file)
    add_token(link, "new", ["metrics"])
    assert link.is_symlink()
    assert file.read_text().startswith(f"# ours\n\nold infer {HASH}  # keep me\nnew metrics ")
    assert file.stat().st_mode & 0o777 == 0o640
    revoke_token(link, "old")
    assert [token.name for token in read_tokens(file)] == ["new"]
    assert file.read_text().startswith("# ours\n")


def test_a_line_without_its_end_is_not_glued_to_the_next(file):
    file.write_text(f"old infer {HASH}")
    file.chmod(0o600)
    add_token(file, "new", ["infer"])
    assert len(read_tokens(file)) == 2


def test_a_name_is_given_once(file):
    add_token(file, "camera", ["infer"])
    before = file.read_bytes()
    with pytest.raises(EdgeKitError, match="has a token camera") as error:
        add_token(file, "camera", ["admin"])
    assert "token revoke camera" in error.value.hint
    assert file.read_bytes() == before


def _add(path, name):
    add_token(path, name, ["infer"])


def test_tokens_made_at_the_same_time_are_all_kept(file):
    started = [multiprocessing.get_context("fork").Process(target=_add, args=(file, f"t{n}")) for n in range(6)]
    for one in started:
        one.start()
    for one in started:
        one.join(30)
    assert sorted(token.name for token in read_tokens(file)) == [f"t{n}" for n in range(6)]
    assert [path.name for path in file.parent.iterdir()] == ["tokens"]


@pytest.mark.parametrize("name", ["", "a b", "a,b", "-x", "é", "a" * 65, "a\nb infer " + HASH, "#x"])
def test_a_name_that_is_no_plain_word_is_refused(file, name):
    with pytest.raises(EdgeKitError, match="cannot name a token"):
        add_token(file, name, ["infer"])
    assert not file.exists()


@pytest.mark.parametrize("scopes", [[], ["root"], ["infer", "root"], ["Infer"], [""]])
def test_a_scope_that_is_not_known_is_refused(file, scopes):
    with pytest.raises(EdgeKitError) as error:
        add_token(file, "x", scopes)
    assert "infer, metrics, admin" in error.value.hint


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("camera infer", "2 words"),
        (f"camera infer {HASH} more", "4 words"),
        (f"camera infer {HASH[:-1]}", "not a SHA-256"),
        (f"camera infer {HASH.upper()}", "not a SHA-256"),
        (f"camera root {OTHER}", "no scope 'root'"),
        (f"camera infer,,metrics {OTHER}", "no scope ''"),
        (f"ca/mera infer {HASH}", "not a plain word"),
        (f"first infer {OTHER}", "first is there twice"),
        (f"second infer {HASH}", "second is there twice"),
    ],
)
def test_a_line_that_does_not_read_is_named(line, why):
    with pytest.raises(EdgeKitError, match=f"line 3: .*{why}"):
        parse_tokens(f"# tokens\nfirst infer {HASH} # a comment\n{line}\n")


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_file_that_others_can_write_is_refused(file, mode):
    file.write_text(f"camera infer {HASH}\n")
    file.chmod(mode)
    with pytest.raises(EdgeKitError, match="others could add") as error:
        Tokens(file)
    assert "chmod 640" in error.value.hint
    with pytest.raises(EdgeKitError, match="others could add"):
        add_token(file, "x", ["infer"])


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_others_can_only_read_will_do(file, mode):
    file.write_text(f"camera infer {HASH}\n")
    file.chmod(mode)
    Tokens(file)


@pytest.mark.parametrize("raw", [b"", b"# nothing\n", b"\n\n"])
def test_a_server_does_not_start_on_a_file_without_tokens(file, raw):
    file.write_bytes(raw)
    with pytest.raises(EdgeKitError, match="holds no token") as error:
        Tokens(file)
    assert "token new" in error.value.hint


def test_a_missing_unreadable_or_huge_file_is_refused_in_words(file, tmp_path):
    with pytest.raises(NotFound, match="no file of tokens"):
        Tokens(file)
    with pytest.raises(EdgeKitError, match="does not read"):
        Tokens(tmp_path)
    file.write_bytes(b"#\n" * 2**20)
    with pytest.raises(EdgeKitError, match="larger than"):
        Tokens(file)
    file.write_bytes(b"# fine\n\xff\xfe\n")
    with pytest.raises(EdgeKitError, match="line 2: not UTF-8"):
        Tokens(file)
    with pytest.raises(EdgeKitError, match="none: No such file"):
        add_token(tmp_path / "none" / "tokens", "x", ["infer"])


def test_a_token_works_once_it_is_in_the_file_and_no_longer_than_that(file, watched):
    first = add_token(file, "first", ["infer"])
    tokens = Tokens(file)
    second = add_token(file, "second", ["infer"])
    tokens.allow(f"Bearer {second}", "infer")
    revoke_token(file, "first")
    with pytest.raises(Unauthenticated):
        tokens.allow(f"Bearer {first}", "infer")
    tokens.allow(f"Bearer {second}", "infer")


def test_the_last_token_can_be_revoked_from_a_running_server(file, watched):
    secret = add_token(file, "only", ["infer"])
    tokens = Tokens(file)
    revoke_token(file, "only")
    with pytest.raises(Unauthenticated):
        tokens.allow(f"Bearer {secret}", "infer")


def test_a_file_that_breaks_keeps_the_old_tokens_and_is_logged(file, watched, caplog):
    secret = add_token(file, "camera", ["infer"])
    tokens = Tokens(file)
    good = file.read_bytes()
    file.write_text("nonsense\n")
    with caplog.at_level(logging.ERROR):
        tokens.allow(f"Bearer {secret}", "infer")
    assert "line 1" in caplog.text
    file.write_bytes(good + f"\nnext infer {HASH}\n".encode())
    file.chmod(0o666)
    with caplog.at_level(logging.ERROR):
        tokens.allow(f"Bearer {secret}", "infer")
    assert "others could add" in caplog.text


def test_a_file_that_is_gone_lets_nobody_in_until_it_is_back(file, watched):
    secret = add_token(file, "camera", ["infer"])
    tokens = Tokens(file)
    kept = file.read_bytes()
    file.unlink()
    with pytest.raises(Unauthenticated):
        tokens.allow(f"Bearer {secret}", "infer")
    file.write_bytes(kept)
    file.chmod(0o600)
    tokens.allow(f"Bearer {secret}", "infer")


def test_the_file_is_not_looked_at_for_each_request(file, monkeypatch):
    secret = add_token(file, "camera", ["infer"])
    tokens = Tokens(file)
    looks = []
    monkeypatch.setattr(module, "_stamp", lambda path: looks.append(path))
    for _ in range(100):
        tokens.allow(f"Bearer {secret}", "infer")
    assert len(looks) <= 1


def test_every_token_is_compared_whichever_matches(file, monkeypatch):
    secrets = [add_token(file, f"t{n}", ["infer"]) for n in range(5)]
    tokens = Tokens(file)
    compared = []
    true = module.compare_digest
    monkeypatch.setattr(module, "compare_digest", lambda a, b: compared.append(len(b)) or true(a, b))
    for header in [*secrets, "ek_nobody"]:
        compared.clear()
        try:
            tokens.allow(f"Bearer {header}", "infer")
        except Unauthenticated:
            assert header == "ek_nobody"
        assert compared == [32] * 5


def test_a_look_at_a_token_takes_microseconds(file):
    secret = add_token(file, "camera", ["infer"])
    header = f"Bearer {secret}".encode()
    tokens = Tokens(file)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        for _ in range(200):
            tokens.allow(header, "infer")
        times.append((time.perf_counter() - start) / 200)
    assert min(times) < 50e-6  # ten times what it takes


def test_the_list_shows_names_and_scopes_and_no_hash(file):
    add_token(file, "camera-1", ["infer"])
    add_token(file, "ops", ["admin", "metrics"])
    assert list_tokens(file) == "camera-1  infer\nops       metrics,admin"
    with pytest.raises(NotFound, match="no token gone"):
        revoke_token(file, "gone")
    with pytest.raises(NotFound, match="no token gone"):
        revoke_token(file.with_name("none"), "gone")
