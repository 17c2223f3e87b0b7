"""Keys on P-256, and nothing else."""

import hashlib
import json
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from edgekit_runtime.errors import EdgeKitError, Untrusted
from edgekit_runtime.keypair import (
    PublicKey,
    envelope,
    new_private_key,
    opened,
    public_of,
    read_public,
    sign,
    verify,
)  # fmt: skip

KIND = "application/vnd.edgekit.test+json"


def pems(key):
    """(private, public) PEM of a key of any kind."""
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    return private, key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)


OTHERS = {
    "rsa": pems(rsa.generate_private_key(65537, 2048)),
    "p384": pems(ec.generate_private_key(ec.SECP384R1())),
    "p521": pems(ec.generate_private_key(ec.SECP521R1())),
    "k256": pems(ec.generate_private_key(ec.SECP256K1())),
    "ed25519": pems(ed25519.Ed25519PrivateKey.generate()),
}


@pytest.fixture(scope="module")
def private():
    return new_private_key()


def test_what_was_signed_verifies_and_nothing_else_does(private):
    signature = sign(private, b"data")
    assert verify(public_of(private), signature, b"data")
    assert not verify(public_of(private), signature, b"date")
    assert not verify(public_of(new_private_key()), signature, b"data")


@pytest.mark.parametrize(
    "wrong", [b"", b"\0", b"\x30\x00", b"0" * 72, bytes(1000), b"\x30\x06\x02\x01\x00\x02\x01\x00"]
)
def test_what_is_no_signature_does_not_verify(private, wrong):
    assert not verify(public_of(private), wrong, b"data")


def test_a_signature_with_more_behind_it_does_not_verify(private):
    assert not verify(public_of(private), sign(private, b"data") + b"\0", b"data")


def test_a_key_is_named_by_the_digest_of_its_pem(private):
    public = public_of(private)
    assert public.pem.startswith(b"-----BEGIN PUBLIC KEY-----\n")
    assert public.fingerprint == hashlib.sha256(public.pem).hexdigest()


def test_one_key_has_one_name_however_its_file_is_written(private):
    pem = public_of(private).pem
    for written in (pem.replace(b"\n", b"\r\n"), b"A comment.\n" + pem, pem.strip()):
        assert read_public(written) == public_of(private)


@pytest.mark.parametrize("kind", OTHERS)
def test_keys_of_other_kinds_are_refused(kind):
    private, public = OTHERS[kind]
    with pytest.raises(Untrusted, match="P-256") as raised:
        read_public(public)
    assert raised.value.reason == "trust"
    with pytest.raises(Untrusted, match="P-256"):
        verify(PublicKey(public), b"x", b"x")
    with pytest.raises(EdgeKitError, match="P-256"):
        sign(private, b"x")


@pytest.mark.parametrize("text", [b"", b"x", b"-----BEGIN PUBLIC KEY-----\n", b"A" * 10**6])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(Untrusted, match="no public key"):
        read_public(text)
    with pytest.raises(EdgeKitError, match="no private key"):
        public_of(text)


def test_a_private_key_is_not_taken_for_a_public_one_and_is_not_told(private):
    with pytest.raises(Untrusted) as raised:
        read_public(private)
    assert "MIGH" not in str(raised.value)
    with pytest.raises(EdgeKitError, match="no private key"):
        sign(public_of(private).pem, b"x")


def test_a_key_under_a_password_is_refused(private):
    key = form.load_pem_private_key(private, None)
    locked = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret"))
    with pytest.raises(EdgeKitError, match="no private key"):
        sign(locked, b"x")


def test_an_envelope_opens_for_its_key_and_type_only(private):
    raw = json.loads(json.dumps(envelope(private, KIND, b"payload")))
    ours, other = public_of(private), public_of(new_private_key())
    assert opened(raw, {ours.fingerprint: ours}, KIND) == b"payload"
    for keys, kind, reason in (
        ({}, KIND, "wrong_key"),
        ({other.fingerprint: other}, KIND, "wrong_key"),
        ({ours.fingerprint: other}, KIND, "signature"),
        ({ours.fingerprint: ours}, "application/other", "signature"),
    ):
        with pytest.raises(Untrusted) as raised:
            opened(raw, keys, kind)
        assert raised.value.reason == reason


def test_a_type_that_was_not_signed_is_refused(private):
    raw = envelope(private, KIND, b"payload") | {"payloadType": "application/other"}
    ours = public_of(private)
    with pytest.raises(Untrusted, match="broken"):
        opened(raw, {ours.fingerprint: ours}, "application/other")


def test_cryptography_is_loaded_only_where_something_is_signed():
    code = "import sys, edgekit_runtime.verified; print('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_without_cryptography_nothing_is_verified_and_it_says_what_to_install():
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from edgekit_runtime.errors import NotFound\n"
        "from edgekit_runtime.keypair import PublicKey, verify\n"
        "try:\n    print(verify(PublicKey(b'x'), b'', b''))\n"
        "except NotFound as error:\n    print(error.hint)"
    )
    assert "[signed]" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
