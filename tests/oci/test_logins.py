"""Registries that ask who we are: with a password, with tokens, over TLS."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError

from edgekit.oci.calls import Access, Call, connected, told
from edgekit.oci.credentials import Login
from edgekit.oci.registry import Repository, get_manifest
from tests.commands import edgekit
from tests.oci.lying import lying
from tests.oci.making import HASTE, Bench
from tests.oci.test_round_trip import same
from tests.oci.tokens import issuing
from tests.registry_server import PASSWORD, USER, serving
from tests.runtime.certificates import make

pytestmark = pytest.mark.slow

Versions = tuple[Path, Path]
KNOWN = replace(HASTE, login=Login(USER, PASSWORD))


def test_a_registry_with_a_password(versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "registry", login=True) as registry:
        bench = Bench(registry.address, tmp_path)
        for login in (None, Login(USER, "wrong")):
            with pytest.raises(EdgeKitError) as caught:
                bench.push(versions[0], access=replace(HASTE, login=login))
            assert "--password-stdin" in caught.value.hint
            assert "wrong" not in caught.value.what
        bench.push(versions[0], access=KNOWN)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        packed = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": packed}}}))
        done = edgekit("pull", bench.url(), "--out", tmp_path / "by-docker", "--cache", tmp_path, "--quiet")
        assert done.code == 0, done.err
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
        words = ("--username", USER, "--password-stdin", "--cache", tmp_path, "--json")
        done = edgekit("pull", bench.url(), "--out", tmp_path / "by-hand", *words)
        assert done.code == 0, done.err
        assert PASSWORD not in done.out + done.err
    assert same(versions[0], tmp_path / "by-docker")
    assert same(versions[0], tmp_path / "by-hand")


def test_a_name_without_a_password_is_told(tmp_path: Path) -> None:
    done = edgekit("pull", "oci://127.0.0.1:1/x", "--out", tmp_path / "x", "--username", "me")
    assert done.code == 1
    assert "belong together" in done.error()


def test_a_registry_with_tokens(versions: Versions, tmp_path: Path) -> None:
    made = make(tmp_path / "keys")
    with issuing(made) as issuer, serving(tmp_path / "registry", token=issuer.settings(made)) as registry:
        bench = Bench(registry.address, tmp_path)
        with pytest.raises(EdgeKitError, match="does not let us in"):
            bench.push(versions[0], access=replace(HASTE, login=Login(USER, "wrong")))
        with pytest.raises(EdgeKitError, match="no login"):
            bench.push(versions[0])
        issuer.asked.clear()
        bench.push(versions[0], access=KNOWN)
        assert all(one.startswith("repository:") and "*" not in one for one in issuer.asked)
        bench.pull(access=KNOWN)
        assert issuer.asked[-1].endswith(":pull")
    assert same(versions[0], tmp_path / "out")


def test_a_token_that_is_not_taken_any_more_is_renewed(tmp_path: Path) -> None:
    made, call = make(tmp_path / "keys"), Call("GET", "/v2/x/tags/list", "repository:x:pull")
    with (
        issuing(made) as issuer,
        serving(tmp_path / "registry", token=issuer.settings(made)) as registry,
        connected(registry.address, KNOWN) as client,
    ):
        told(client, call, (200, 404))
        client.allowed[call.scope] = "Bearer x.y.z"
        told(client, call, (200, 404))
        assert len(issuer.asked) == 2
        assert client.allowed[call.scope] != "Bearer x.y.z"


def test_a_registry_with_tls(versions: Versions, tmp_path: Path) -> None:
    made = make(tmp_path / "keys")
    with serving(tmp_path / "registry", login=True, tls=made) as registry:
        bench = Bench(registry.address, tmp_path)
        trusting = replace(KNOWN, ca=made.ca)
        bench.push(versions[0], access=trusting)
        bench.pull(access=trusting)
        other = make(tmp_path / "others").ca
        with pytest.raises(EdgeKitError, match="not trusted") as caught:
            bench.pull(access=replace(KNOWN, ca=other))
        assert "--ca" in caught.value.hint
        with pytest.raises(EdgeKitError):
            bench.pull(access=KNOWN)  # plain HTTP to TLS
    assert same(versions[0], tmp_path / "out")


def test_a_registry_without_tls_is_told_from_one_with(tmp_path: Path) -> None:
    made = make(tmp_path / "keys")
    access = Access(ca=made.ca, pause=lambda seconds: None)
    with (
        lying() as liar,
        pytest.raises(EdgeKitError, match="does not speak TLS") as caught,
        connected(liar.address, access),
    ):
        pass
    assert "--plain-http" in caught.value.hint


@pytest.mark.parametrize(
    "challenge", ["", "Negotiate", 'Digest realm="x"', "Bearer", 'Bearer realm="http://10.0.0.1.x y/"']
)
def test_a_login_of_an_unknown_kind_is_told(challenge: str) -> None:
    with lying() as liar, connected(liar.address, KNOWN) as client:
        liar.reply("/v2/x/manifests/1", 401, WWW_Authenticate=challenge)
        with pytest.raises(EdgeKitError):
            get_manifest(Repository(client, "x"), "1")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 3}', b'{"token": "a b"}', b"[" * 60_000, b" " * 100_000]
)
def test_a_token_that_is_none_is_told(body: bytes) -> None:
    with lying() as liar, connected(liar.address, KNOWN) as client:
        liar.reply("/v2/x/manifests/1", 401, WWW_Authenticate=f'Bearer realm="http://{liar.address}/token"')
        liar.reply("/token", 200, body)
        with pytest.raises(EdgeKitError, match=r"no token|larger than"):
            get_manifest(Repository(client, "x"), "1")
