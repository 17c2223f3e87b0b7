"""Addresses of images, and logins, as people write them."""

import base64
import json
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.oci.credentials import Login, find_login, parse_challenge
from edgekit.oci.reference import is_loopback, parse_reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("oci://h/a", ("h", "a", "latest", None)),
        ("oci://h:5000/a/b-c:V1.0", ("h:5000", "a/b-c", "V1.0", None)),
        ("oci://[::1]:5000/a:1", ("[::1]:5000", "a", "1", None)),
        (f"oci://h/a@sha256:{HEX}", ("h", "a", None, f"sha256:{HEX}")),
        (f"oci://h/a:1@sha256:{HEX}", ("h", "a", "1", f"sha256:{HEX}")),
        ("oci://docker.io/alpine", ("docker.io", "library/alpine", "latest", None)),
    ],
)
def test_an_address_is_read(text: str, told: tuple[str, ...]) -> None:
    found = parse_reference(text)
    assert (found.registry, found.repository, found.tag, found.digest) == told


@pytest.mark.parametrize(
    "text",
    ["h/a:1", "oci://", "oci://h", "oci://h/", "oci://h/A", "oci://h/a/../b", "oci://h/a//b", "oci://h/a:", "oci://h/a:-1",
     "oci://user:secret@h/a", "oci://h/a@sha256:12", "oci://h/a@md5:12", "oci://h:99999999/a", "oci://h/a b", "oci://h/ä",
     "http://h/a", "oci://h/a?b", "oci://h/a#b", "oci://h\n/a", f"oci://h/{'a' * 300}"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(EdgeKitError) as caught:
        parse_reference(text)
    assert caught.value.hint
    assert "secret" not in caught.value.what


def test_this_machine_is_known_by_its_names() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST")))
    assert not any(map(is_loopback, ("localhost.example.org", "10.0.0.1", "registry", "127.0.0.1.example.org")))


def written(folder: Path, content: object) -> Path:
    (folder / "config.json").write_text(json.dumps(content))
    return folder / "config.json"


@pytest.mark.parametrize(
    ("name", "registry"),
    [("h:5000", "h:5000"), ("https://h", "h"), ("https://index.docker.io/v1/", "docker.io"), ("http://h", "h")],
)
def test_what_docker_login_wrote_is_used(tmp_path: Path, name: str, registry: str) -> None:
    packed = base64.b64encode(b"me:se:cret").decode()
    config = written(tmp_path, {"auths": {"other": {"auth": "!"}, name: {"auth": packed}}})
    assert find_login(registry, config) == Login("me", "se:cret")
    assert find_login("another", config) is None
    assert find_login(registry, tmp_path / "absent.json") is None


@pytest.mark.parametrize(
    "content",
    [[], {"auths": {"h": {"auth": "%%%"}}}, {"auths": {"h": {"auth": "bWU="}}},
     {"auths": {"h": {"identitytoken": "x"}}}, {"credHelpers": {"h": "pass"}},
     {"auths": {"h": {}}, "credsStore": "pass"}, {"auths": {"h": {"username": "a\nb", "password": "x"}}}],
)  # fmt: skip
def test_a_login_that_cannot_be_used_is_told(tmp_path: Path, content: object) -> None:
    with pytest.raises(EdgeKitError) as caught:
        find_login("h", written(tmp_path, content))
    assert "--username" in caught.value.hint


def test_a_password_is_not_shown() -> None:
    assert "cret" not in repr(Login("me", "secret"))


def test_a_challenge_is_read() -> None:
    kind, words = parse_challenge('Bearer realm="https://a/b?c,d",service="s",scope="repository:x:pull,push"')
    assert (kind, words["realm"], words["scope"]) == ("bearer", "https://a/b?c,d", "repository:x:pull,push")
    assert parse_challenge("") == ("", {})
    assert parse_challenge('basic realm="a \\"b\\""') == ("basic", {"realm": 'a "b"'})
