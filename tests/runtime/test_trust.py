"""The chain of roots: first use, change of keys, revocation; and the leave to go back."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from edgekit_runtime.dsse import parse_envelope
from edgekit_runtime.errors import EdgeKitError, Untrusted
from edgekit_runtime.keypair import envelope, new_private_key, public_of
from edgekit_runtime.trust import (
    DOWNGRADE,
    TRUST,
    Downgrade,
    Key,
    Revoked,
    Trust,
    accepted,
    made_downgrade,
    made_trust,
    opened_downgrade,
    opened_first,
    succeed,
)  # fmt: skip

ROOT, NEW_ROOT, SIGNER, NEXT, STRANGER = (new_private_key() for _ in range(5))
NOW = 1_800_000_000


def key(name, private, until=None):
    return Key(name, public_of(private), until)


def gone(private, why="the laptop was stolen"):
    return Revoked(public_of(private).fingerprint, why, NOW)


FIRST = Trust(1, (public_of(ROOT),), (key("bench", SIGNER),), (), NOW)


def refused(reason, call, *args):
    with pytest.raises(Untrusted) as raised:
        call(*args)
    assert raised.value.reason == reason, raised.value
    return raised.value


def fields_of(trust):
    return json.loads(parse_envelope(json.loads(made_trust(trust, STRANGER))).payload)


def document(fields, private=ROOT, kind=TRUST):
    return json.dumps(envelope(private, kind, json.dumps(fields).encode())).encode()


def test_the_first_document_is_taken_as_its_own_root_signed_it():
    trust = opened_first(made_trust(FIRST, ROOT))
    assert trust == FIRST == accepted(made_trust(FIRST, ROOT))
    assert trust.signer(public_of(SIGNER).fingerprint, NOW).name == "bench"


def test_a_first_document_by_another_key_is_refused():
    refused("trust", opened_first, made_trust(FIRST, STRANGER))
    refused("trust", opened_first, made_trust(FIRST, SIGNER))  # a signing key is no root


def test_a_first_document_whose_signer_it_revokes_is_refused():
    both = replace(FIRST, roots=(public_of(ROOT), public_of(NEW_ROOT)), revoked=(gone(ROOT),))
    refused("trust", opened_first, document(fields_of(both), ROOT))
    assert opened_first(document(fields_of(both), NEW_ROOT)).serial == 1


def test_a_new_key_comes_with_the_next_document_and_the_old_one_goes():
    rotated = replace(FIRST, serial=2, keys=(key("bench-2", NEXT),))
    trust = succeed(FIRST, made_trust(rotated, ROOT))
    assert trust.signer(public_of(NEXT).fingerprint, NOW).name == "bench-2"
    refused("wrong_key", trust.signer, public_of(SIGNER).fingerprint, NOW)


def test_a_revoked_key_is_told_from_a_strange_and_an_expired_one():
    trust = succeed(FIRST, made_trust(replace(FIRST, serial=2, revoked=(gone(SIGNER),)), ROOT))
    assert "stolen" in refused("revoked", trust.signer, public_of(SIGNER).fingerprint, NOW).what
    refused("wrong_key", trust.signer, public_of(STRANGER).fingerprint, NOW)
    timed = replace(FIRST, keys=(key("bench", SIGNER, until=NOW),))
    assert timed.signer(public_of(SIGNER).fingerprint, NOW)
    refused("expired", timed.signer, public_of(SIGNER).fingerprint, NOW + 1)


def test_the_root_itself_is_changed_and_the_old_one_signs_no_more():
    both = replace(FIRST, serial=2, roots=(public_of(ROOT), public_of(NEW_ROOT)))
    second = succeed(FIRST, made_trust(both, ROOT))
    without = replace(second, serial=3, roots=(public_of(NEW_ROOT),), revoked=(gone(ROOT),))
    third = succeed(second, made_trust(without, NEW_ROOT))
    for roots in (
        (public_of(NEW_ROOT),),
        (public_of(NEW_ROOT), public_of(ROOT)),
        (public_of(ROOT), public_of(STRANGER)),
    ):
        refused("trust", succeed, third, document(fields_of(replace(third, serial=4, roots=roots)), ROOT))
    fourth = succeed(third, made_trust(replace(third, serial=4, keys=(key("new", NEXT),)), NEW_ROOT))
    assert [one.name for one in fourth.keys] == ["new"]


def test_a_root_may_hand_over_in_one_step():
    handed = succeed(FIRST, made_trust(replace(FIRST, serial=2, roots=(public_of(NEW_ROOT),)), ROOT))
    refused("trust", succeed, handed, made_trust(replace(handed, serial=3), ROOT))
    assert succeed(handed, made_trust(replace(handed, serial=3), NEW_ROOT)).serial == 3


def test_a_root_that_is_listed_and_revoked_signs_nothing():
    current = replace(FIRST, roots=(public_of(ROOT), public_of(NEW_ROOT)), revoked=(gone(ROOT),))
    wished = fields_of(replace(current, serial=2))
    refused("trust", succeed, current, document(wished, ROOT))
    assert succeed(current, document(wished, NEW_ROOT)).serial == 2
    with pytest.raises(Untrusted, match="revoked"):
        made_trust(current, ROOT)


def test_a_root_that_revokes_itself_is_refused():
    both = replace(FIRST, roots=(public_of(ROOT), public_of(NEW_ROOT)))
    without = document(fields_of(replace(both, serial=2, revoked=(gone(ROOT),))), ROOT)
    assert "revokes the root" in refused("trust", succeed, both, without).what


@pytest.mark.parametrize("serial", [0, 1])
def test_a_document_that_is_not_newer_is_refused(serial):
    refused("trust", succeed, FIRST, made_trust(replace(FIRST, serial=serial), ROOT))


def test_a_document_by_a_stranger_is_refused_whoever_it_lists():
    grab = Trust(9, (public_of(STRANGER), public_of(ROOT)), (key("mallory", STRANGER),))
    refused("trust", succeed, FIRST, made_trust(grab, STRANGER))
    refused("trust", succeed, FIRST, made_trust(grab, SIGNER))


def test_what_was_revoked_stays_revoked():
    revoked = replace(FIRST, serial=2, revoked=(gone(SIGNER),))
    assert "forgets" in refused("trust", succeed, revoked, made_trust(replace(FIRST, serial=3), ROOT)).what


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": True},
        {"schema": "1"},
        {"serial": -1},
        {"serial": True},
        {"serial": 1.5},
        {"serial": 2**53 + 1},
        {"serial": 10**400},
        {"serial": None},
        {"made": "now"},
        {"roots": []},
        {"roots": "x"},
        {"roots": [5]},
        {"roots": ["x"]},
        {"roots": ["\ud800"]},
        {"roots": [public_of(ROOT).pem.decode()] * 2},
        {"roots": [public_of(ROOT).pem.decode()] * 1001},
        {"revoked": [{"fingerprint": public_of(ROOT).fingerprint, "why": "x", "when": 1}]},
        {"revoked": [{"fingerprint": "AB" * 32, "why": "x", "when": 1}]},
        {"revoked": [{"fingerprint": "ab" * 32, "why": "x\n", "when": 1}]},
        {"revoked": [{"fingerprint": "ab" * 32}]},
        {"keys": [{"name": "a\x1b", "pem": public_of(SIGNER).pem.decode(), "until": None}]},
        {"keys": [{"name": "", "pem": public_of(SIGNER).pem.decode(), "until": None}]},
        {"keys": [{"name": "a", "pem": public_of(SIGNER).pem.decode(), "until": -5}]},
        {"keys": [{"name": "a", "pem": public_of(SIGNER).pem.decode()}]},
        {"keys": [{"name": n, "pem": public_of(SIGNER).pem.decode(), "until": None} for n in "ab"]},
        {"keys": ["x"]},
        {"more": 1},
    ],
)
def test_a_document_that_does_not_read_is_refused(change):
    raw = document(fields_of(FIRST) | change)
    refused("trust", opened_first, raw)
    refused("trust", succeed, replace(FIRST, serial=0), raw)
    refused("trust", accepted, raw)


@pytest.mark.parametrize("kind", ["rsa", "p384"])
def test_a_key_of_another_kind_is_refused(kind):
    made = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP384R1())
    pem = made.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo).decode()
    for change in ({"keys": [{"name": "a", "pem": pem, "until": None}]}, {"roots": [pem]}):
        refused("trust", succeed, replace(FIRST, serial=0), document(fields_of(FIRST) | change))


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b"[" * 10**5, b"x" * (2**20 + 1), b'{"payload": 1}'])
def test_what_is_no_document_is_refused(raw):
    refused("trust", opened_first, raw)
    refused("trust", succeed, FIRST, raw)
    refused("trust", accepted, raw)


def test_a_document_of_another_type_is_none():
    raw = document(fields_of(FIRST), kind=DOWNGRADE)
    refused("trust", opened_first, raw)
    refused("trust", succeed, replace(FIRST, serial=0), raw)
    refused("trust", accepted, raw)


def test_every_byte_of_a_document_counts():
    raw = made_trust(replace(FIRST, serial=2), ROOT)
    assert succeed(FIRST, raw).serial == 2
    words = raw.rstrip()
    for at in range(len(words)):
        if not words[at : at + 1].isspace():
            refused("trust", succeed, FIRST, raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])


def test_what_no_device_would_take_is_not_made():
    for wrong in (replace(FIRST, roots=()), replace(FIRST, serial=-1), replace(FIRST, revoked=(gone(ROOT),))):
        with pytest.raises(EdgeKitError):
            made_trust(wrong, ROOT)


def test_the_leave_to_go_back_is_for_one_name_one_release_and_a_time():
    leave = opened_downgrade(made_downgrade(Downgrade("tiny", 5, NOW), SIGNER), FIRST, NOW)
    floor = leave.lowered(lambda name: 9, NOW)
    assert (floor("tiny"), floor("other")) == (5, 9)
    assert leave.lowered(lambda name: 3, NOW)("tiny") == 3
    assert leave.lowered(lambda name: 9, NOW + 1)("tiny") == 9


def test_a_leave_by_a_stranger_a_revoked_key_or_for_another_time_is_none():
    raw = made_downgrade(Downgrade("tiny", 5, NOW), SIGNER)
    refused("expired", opened_downgrade, raw, FIRST, NOW + 1)
    refused("revoked", opened_downgrade, raw, replace(FIRST, revoked=(gone(SIGNER),)), NOW)
    refused("wrong_key", opened_downgrade, made_downgrade(Downgrade("tiny", 5, NOW), STRANGER), FIRST, NOW)
    refused("wrong_key", opened_downgrade, made_downgrade(Downgrade("tiny", 5, NOW), ROOT), FIRST, NOW)
    refused("signature", opened_downgrade, document({"name": "tiny", "release": 5, "until": NOW}, SIGNER), FIRST, NOW)
    for wrong in ({"name": "tiny", "release": -1, "until": NOW}, {"name": "tiny"}, {}):
        with pytest.raises(Untrusted):
            opened_downgrade(document(wrong, SIGNER, DOWNGRADE), FIRST, NOW)
