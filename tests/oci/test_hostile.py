"""Registries and images that lie: refused with a word, before more is read than was announced."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgekit_runtime.errors import BadBundle, EdgeKitError

from edgekit.oci.blobs import Blobs
from edgekit.oci.calls import Access, Client, check_url, connected
from edgekit.oci.credentials import Login
from edgekit.oci.downloading import download
from edgekit.oci.image import pack
from edgekit.oci.manifest import KINDS, MANIFEST, MAX_MANIFEST, Descriptor, compact, digest_of, files_of, parse_image
from edgekit.oci.reference import parse_reference
from edgekit.oci.registry import Repository, get_manifest, put_manifest
from tests.oci.lying import lying
from tests.oci.making import HASTE, Bench
from tests.registry_server import Registry

pytestmark = pytest.mark.slow

TITLE, PATH = "org.opencontainers.image.title", "org.cncf.model.filepath"
DIGEST = digest_of(b"content")
BLOB = Descriptor("application/octet-stream", DIGEST, 7)


def manifest(*layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    config = {"mediaType": "application/vnd.cncf.model.config.v1+json", "digest": DIGEST, "size": 7}
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": list(layers), **more}


def layer(title: str, kind: str = KINDS["weight"], **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": DIGEST, "size": 7, "annotations": {TITLE: title}, **more}


@pytest.mark.parametrize(
    ("title", "word"),
    [("../x", "outside"), ("/etc/x", "outside"), ("a/../x", "outside"), ("", "without a file name|outside"),
     (".", "outside"), ("a//b", "outside"), ("a\\b", "outside"), ("a\0b", "outside"), ("a\nb", "outside"),
     ("x" * 300, "outside"), ("\u202ex", "outside"), ("d/" * 600 + "x", "outside")],
)  # fmt: skip
def test_a_file_outside_of_the_bundle_is_refused(title: str, word: str) -> None:
    with pytest.raises(BadBundle, match=word):
        files_of(parse_image(compact(manifest(layer(title)))))


@pytest.mark.parametrize(
    ("told", "word"),
    [
        (manifest(layer("a"), layer("a")), "twice"),
        (manifest(layer("a"), layer("a/b")), "inside of another file"),
        (manifest(layer("a", "application/vnd.oci.image.layer.v1.tar+gzip")), "layer of the kind"),
        (manifest(layer("a", KINDS["weight"].replace("raw", "tar"))), "layer of the kind"),
        (manifest(layer("a", annotations={TITLE: "a", PATH: "b"})), "or with two"),
        (manifest(layer("a", annotations={TITLE: 3})), "not texts"),
        (manifest(layer("a", annotations={TITLE: "\ud800"})), "not texts"),
        (manifest(layer("a", digest="sha512:" + "0" * 128)), "not by SHA-256"),
        (manifest(layer("a", digest=DIGEST.upper())), "not by SHA-256"),
        (manifest(layer("a", size=-1)), "as a size"),
        (manifest(layer("a", size=2**60)), "as a size"),
        (manifest(layer("a", size=True)), "as a size"),
        (manifest(layer("a", size="7")), "as a size"),
        (manifest("a"), "no descriptor"),  # type: ignore[arg-type]
        (manifest(layer("a"), artifactType="application/x"), "no model"),
        (manifest(layer("a"), config={"mediaType": "x/y", "digest": DIGEST, "size": 7}), "no model"),
        (manifest(layer("a"), config=None), "no descriptor"),
        (manifest(layer("a"), schemaVersion=1), "schema 2"),
        (manifest(layer("a"), layers={}), "list of layers"),
        (manifest(layer("a"), layers=[layer("a")] * 10_001), "list of layers"),
        (manifest(mediaType="application/vnd.oci.image.index.v1+json", manifests=[]), "another kind"),
    ],
)  # fmt: skip
def test_a_manifest_that_does_not_hold_together_is_refused(told: dict[str, Any], word: str) -> None:
    with pytest.raises(BadBundle, match=word) as caught:
        files_of(parse_image(json.dumps(told).encode()))
    assert caught.value.hint


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b" " * (MAX_MANIFEST + 1)])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(BadBundle):
        parse_image(raw)


def test_an_image_whose_files_are_not_those_of_its_bundle_is_refused(
    bench: Bench, versions: tuple[Path, Path], registry: Registry
) -> None:
    bench.push(versions[0])
    good = json.loads(pack(versions[0]).manifest)
    for change, word in (
        (lambda layers: layers[:-1], "do not agree"),
        (lambda layers: [*layers, {**layers[-1], "annotations": {TITLE: "more.sh"}}], "do not agree"),
        (
            lambda layers: [{**layers[0]}, *({**one, "digest": layers[0]["digest"]} for one in layers[1:])],
            "do not agree",
        ),
        (lambda layers: layers[1:], "no manifest.json"),
    ):
        with connected(registry.address, HASTE) as client:
            repository = Repository(client, parse_reference(bench.url()).repository)
            put_manifest(repository, "bad", compact({**good, "layers": change(good["layers"])}), MANIFEST)
        with pytest.raises(BadBundle, match=word):
            bench.pull("bad", out="bad")
        assert not (bench.folder / "bad").exists()


def test_a_blob_without_end_is_left_after_its_size(tmp_path: Path) -> None:
    with lying(endless=b"content" * 10_000) as liar, connected(liar.address, HASTE) as client:
        repository = Repository(client, "x")
        with pytest.raises(BadBundle, match="more bytes come"):
            download(repository, BLOB, Blobs(tmp_path), lambda count: None)
    assert [path.stat().st_size for path in tmp_path.iterdir()] <= [7]


@pytest.mark.parametrize(
    ("body", "word"), [(b"c0ntent", "is not sha256"), (b"content!", "has more bytes"), (b"conten", "has fewer bytes")]
)
def test_other_bytes_than_those_named_are_refused(tmp_path: Path, body: bytes, word: str) -> None:
    with lying() as liar, connected(liar.address, HASTE) as client:
        liar.reply(f"/v2/x/blobs/{DIGEST}", 200, body)
        with pytest.raises(BadBundle, match=word):
            download(Repository(client, "x"), BLOB, Blobs(tmp_path), lambda count: None)
        assert not Blobs(tmp_path).place(DIGEST).exists()
        liar.replies[f"/v2/x/blobs/{DIGEST}"] = []
        liar.reply(f"/v2/x/blobs/{DIGEST}", 200, b"content")
        assert (
            download(Repository(client, "x"), BLOB, Blobs(tmp_path), lambda count: None)[0].read_bytes() == b"content"
        )


def test_another_part_than_the_one_asked_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST[7:]}.part").write_bytes(b"con")
    with lying() as liar, connected(liar.address, HASTE) as client:
        liar.reply(f"/v2/x/blobs/{DIGEST}", 206, b"tent", Content_Range="bytes 2-6/7")
        with pytest.raises(BadBundle, match="another part"):
            download(Repository(client, "x"), BLOB, Blobs(tmp_path), lambda count: None)


def test_a_registry_without_ranges_is_read_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST[7:]}.part").write_bytes(b"con")
    with lying() as liar, connected(liar.address, HASTE) as client:
        liar.reply(f"/v2/x/blobs/{DIGEST}", 200, b"content")
        assert download(Repository(client, "x"), BLOB, Blobs(tmp_path), lambda count: None)[1] == 7


def test_a_manifest_that_is_too_large_or_another_is_refused() -> None:
    with lying() as liar, connected(liar.address, HASTE) as client:
        liar.reply("/v2/x/manifests/large", 200, b" " * (MAX_MANIFEST + 1))
        liar.reply(f"/v2/x/manifests/{DIGEST}", 200, b"{}")
        liar.reply("/v2/x/manifests/said", 200, b"{}", Docker_Content_Digest=DIGEST)
        with pytest.raises(EdgeKitError, match="larger than"):
            get_manifest(Repository(client, "x"), "large")
        for name in (DIGEST, "said"):
            with pytest.raises(BadBundle, match="is not sha256"):
                get_manifest(Repository(client, "x"), name)


def test_a_refusal_is_final_and_its_words_are_safe() -> None:
    with lying() as liar, connected(liar.address, HASTE) as client:
        said = {"errors": [{"code": "DENIED", "message": "no\x1b[31m"}]}
        liar.reply("/v2/x/manifests/1", 403, json.dumps(said).encode())
        with pytest.raises(EdgeKitError, match="DENIED no") as caught:
            get_manifest(Repository(client, "x"), "1")
        assert "\x1b" not in caught.value.what
        assert liar.times("/v2/x/manifests/1") == 1


def test_a_busy_registry_is_asked_again_when_it_says() -> None:
    waits: list[float] = []
    with lying() as liar, connected(liar.address, replace(HASTE, pause=waits.append)) as client:
        liar.reply("/v2/x/manifests/1", 429, Retry_After="7")
        liar.reply("/v2/x/manifests/1", 503)
        liar.reply("/v2/x/manifests/1", 200, b"{}")
        assert get_manifest(Repository(client, "x"), "1") == b"{}"
        assert 7 <= waits[0] <= 8
        assert waits[1] <= 1
        liar.replies["/v2/x/manifests/1"] = [(503, {"Retry-After": "86400"}, b"")]
        with pytest.raises(EdgeKitError, match="asks to wait for 86,400 s"):
            get_manifest(Repository(client, "x"), "1")


def test_a_password_goes_to_no_other_host() -> None:
    login = Login("me", "secret")
    with lying() as other, lying() as liar, connected(liar.address, replace(HASTE, login=login)) as client:
        liar.reply("/v2/x/manifests/1", 401, WWW_Authenticate='Basic realm="x"')
        liar.reply("/v2/x/manifests/1", 307, Location=f"http://{other.address}/elsewhere")
        other.reply("/elsewhere", 200, b"{}")
        assert get_manifest(Repository(client, "x"), "1") == b"{}"
        assert "Authorization" in liar.asked[-1][2]
        assert [("Authorization" in headers) for _, _, headers in other.asked] == [False]


def test_a_registry_that_sends_us_in_circles_is_left() -> None:
    with lying() as liar, connected(liar.address, HASTE) as client:
        liar.reply("/v2/x/manifests/1", 307, Location="/v2/x/manifests/1")
        with pytest.raises(EdgeKitError, match="in circles"):
            get_manifest(Repository(client, "x"), "1")
        assert liar.times("/v2/x/manifests/1") < 10


@pytest.mark.parametrize(
    "url",
    ["http://registry.example.org/x", "ftp://registry.example.org/x", "https://169.254.169.254/latest", "file:///etc/x",
     "https://127.0.0.1/x", "https://[::1]/x", "https://localhost/x", "https://me:secret@registry.example.org/x",
     "https://registry.example.org/x y", "https://registry.example.org:99999/x", "https://[fe80::1]/x", "https:///x"],
)  # fmt: skip
def test_no_registry_sends_us_into_the_clear_or_inside(url: str) -> None:
    import requests

    client = Client("https://registry.example.org", Access(), requests.Session())
    check_url(client, "https://blobs.example.net/x?signed=1")
    with pytest.raises(EdgeKitError) as caught:
        check_url(client, url)
    assert "secret" not in caught.value.what


def test_plain_http_is_for_this_machine_alone() -> None:
    for wish, scheme in ((False, "https"), (True, "http")):
        access = Access(pause=lambda seconds: None, plain_http=wish)
        with pytest.raises(EdgeKitError, match=f" {scheme}://registry.invalid"), connected("registry.invalid", access):
            pass


def test_a_registry_that_drips_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty seconds of it are too long for a test: the window is shorter here."""
    import edgekit.oci.downloading as downloading

    monkeypatch.setattr(downloading, "WINDOW", 0.2)
    monkeypatch.setattr(downloading, "SLOWEST", 10**12)
    blob = Descriptor("x/y", digest_of(b""), 2**34)
    began = time.monotonic()
    with lying(endless=b"drip") as liar, connected(liar.address, HASTE) as client:
        repository = Repository(client, "x")
        with pytest.raises(EdgeKitError, match="too slowly"):
            download(repository, blob, Blobs(tmp_path), lambda count: None)
    assert time.monotonic() - began < 60
