"""The signature file: what it says is known only once it is verified, and it says one thing only."""

import base64
import hashlib
import json
import unicodedata

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from edgekit_runtime.dsse import pae
from edgekit_runtime.errors import EdgeKitError, Untrusted
from edgekit_runtime.keypair import new_private_key, public_of, sign
from edgekit_runtime.signature import INTOTO, MAX_FILE, MAX_FILES, refuse_names, signed
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.signing import read_signature

PRIVATE = new_private_key()
FINGERPRINT = public_of(PRIVATE).fingerprint
A, B = (hashlib.sha256(text).hexdigest() for text in (b"a", b"b"))
DIGESTS = {"manifest.json": A, "sub/model.onnx": B}


def resigned(change, private=PRIVATE):
    """A signature whose statement was changed before it was signed: by a key that is trusted."""
    raw = json.loads(signed("tiny", DIGESTS, private))
    statement = json.loads(base64.b64decode(raw["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    raw["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    raw["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(sign(private, pae(INTOTO, payload))).decode()
    return json.dumps(raw).encode()


def with_names(*names):
    """A signature over files of these names."""

    def change(statement):
        statement["predicate"]["resources"] = [{"name": n, "digest": A, "algorithm": "sha256"} for n in names]
        root = hashlib.sha256(bytes.fromhex(A) * len(names)).hexdigest()
        statement["subject"][0]["digest"]["sha256"] = root

    return resigned(change)


def test_what_is_signed_reads_back():
    found = read_signature(signed("tiny", DIGESTS, PRIVATE), PRIVATE)
    assert (found.key, dict(found.files)) == (FINGERPRINT, DIGESTS)


def test_a_key_that_is_not_trusted_is_refused():
    for others in ((), (new_private_key(),)):
        with pytest.raises(Untrusted) as raised:
            read_signature(signed("tiny", DIGESTS, PRIVATE), *others)
        assert raised.value.reason == "wrong_key"


def test_a_hint_of_a_trusted_key_does_not_make_it_the_signer():
    stranger = new_private_key()
    raw = json.loads(signed("tiny", DIGESTS, stranger))
    raw["verificationMaterial"]["publicKey"]["hint"] = FINGERPRINT
    with pytest.raises(Untrusted) as raised:
        read_signature(json.dumps(raw).encode(), PRIVATE)
    assert raised.value.reason == "signature"


def test_a_signature_by_another_curve_is_refused():
    raw = json.loads(signed("tiny", DIGESTS, PRIVATE))
    payload = base64.b64decode(raw["dsseEnvelope"]["payload"])
    from cryptography.hazmat.primitives.hashes import SHA384

    other = ec.generate_private_key(ec.SECP384R1()).sign(pae(INTOTO, payload), ec.ECDSA(SHA384()))
    raw["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(other).decode()
    with pytest.raises(Untrusted):
        read_signature(json.dumps(raw).encode(), PRIVATE)


def _set(*path_and_value):
    *path, last, value = path_and_value

    def change(statement):
        for key in path:
            statement = statement[key]
        statement[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_set("_type", "https://in-toto.io/Statement/v0.1"), "about"),
        (_set("predicateType", "https://model_signing/Digests/v0.1"), "about"),
        (_set("predicateType", "https://slsa.dev/provenance/v1"), "about"),
        (_set("predicate", "serialization", "method", "shards"), "whole files"),
        (_set("predicate", "serialization", "hash_type", "blake2"), "whole files"),
        (_set("predicate", "serialization", None), "no JSON object"),
        (_set("predicate", "resources", []), "one model"),
        (_set("predicate", "resources", {}), "one model"),
        (_set("predicate", "resources", ["x"]), "no JSON object"),
        (_set("subject", []), "one model"),
        (_set("subject", 0, "digest", {"sha256": A}), "over all files"),
        (_set("subject", 0, "digest", {}), "over all files"),
        (_set("predicate", "resources", 0, "digest", B), "over all files"),
        (_set("predicate", "resources", 0, "digest", A.upper()), "no SHA-256"),
        (_set("predicate", "resources", 0, "digest", A[:-2]), "no SHA-256"),
        (_set("predicate", "resources", 0, "digest", 5), "no SHA-256"),
        (_set("predicate", "resources", 0, "algorithm", "sha1"), "no SHA-256"),
        (_set("predicate", "resources", 0, "name", 5), "name"),
        (_set("predicate", "resources", 0, "name", None), "name"),
    ],
)
def test_other_statements_are_refused_even_from_a_trusted_key(change, what):
    with pytest.raises(Untrusted, match=what):
        read_signature(resigned(change), PRIVATE)


NFC, NFD = (unicodedata.normalize(form, "é.txt") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "names",
    [
        ("/etc/passwd",),
        ("../x",),
        ("a/../../x",),
        ("a/./b",),
        ("a//b",),
        ("a/",),
        (".",),
        ("a\\b",),
        ("a\0b",),
        ("a\nb",),
        ("a\x1b[31m",),
        ("\ud800",),
        ("x" * 501,),
        ("ü" * 251,),
        ("a", "a"),
        ("a", "A"),
        ("Straße", "STRASSE"),
        (NFC, NFD),
        ("a", "a/b"),
        ("A", "a/b"),
        ("a/b", "a/b/c/d"),
    ],
)
def test_names_that_leave_the_folder_or_clash_are_refused(names):
    with pytest.raises(Untrusted):
        refuse_names(names)
    with pytest.raises(Untrusted):
        read_signature(with_names(*names), PRIVATE)


@pytest.mark.parametrize(
    "names", [("a", "b"), ("a/b", "a/c"), ("A/b", "a/c"), (NFC,), (NFD,), ("..a", "a..b"), ("a b",)]
)
def test_other_names_are_as_good_as_any(names):
    assert set(read_signature(with_names(*names), PRIVATE).files) == set(names)


def test_what_no_device_would_read_is_not_signed():
    for wrong in ({"../x": A}, {"a": A, "A": A}, {"a": "no digest"}, {}):
        with pytest.raises((EdgeKitError, ValueError)):
            signed("tiny", wrong, PRIVATE)


def test_as_many_files_as_may_be_can_be_signed_and_no_more():
    names = {f"{'x' * 100}/{n}": A for n in range(MAX_FILES)}
    raw = signed("tiny", names, PRIVATE)
    assert len(raw) < MAX_FILE
    assert read_signature(raw, PRIVATE).files == names
    with pytest.raises(EdgeKitError, match="at most"):
        signed("tiny", names | {"one more": A}, PRIVATE)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"null",
        b"[" * 10**6,
        b"[]," * 10**6,
        b'{"mediaType": 5, "verificationMaterial": {}, "dsseEnvelope": {}}',
        b"x" * (MAX_FILE + 1),
        b'{"a":' + b"9" * 10**6 + b"}",
    ],
)
def test_what_is_no_signature_is_refused(raw):
    with pytest.raises(Untrusted) as raised:
        read_signature(raw, PRIVATE)
    assert raised.value.reason == "signature"


@pytest.mark.parametrize(
    "material",
    [
        {"certificate": {"rawBytes": "YQ=="}},
        {"x509CertificateChain": {"certificates": []}},
        {"publicKey": {}},
        {"publicKey": {"hint": ""}},
        {"publicKey": {"hint": None}},
        {"publicKey": {"hint": ["x"]}},
        {"publicKey": {"hint": FINGERPRINT}, "tlogEntries": [{"logIndex": "1"}]},
        {"publicKey": {"hint": FINGERPRINT}, "timestampVerificationData": {}},
    ],
)
def test_what_vouches_must_be_a_key(material):
    raw = json.loads(signed("tiny", DIGESTS, PRIVATE))
    raw["verificationMaterial"] = material
    with pytest.raises(Untrusted):
        read_signature(json.dumps(raw).encode(), PRIVATE)


@pytest.fixture(scope="module")
def once():
    """A signature that is the same for each example: their lengths differ."""
    return signed("tiny", DIGESTS, PRIVATE)


@given(data=st.data())
def test_no_changed_byte_is_let_in(once, data):
    raw = once
    at, bit = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7))
    with pytest.raises(Untrusted):
        read_signature(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :], PRIVATE)
