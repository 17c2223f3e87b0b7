"""Envelopes read in one way, or not at all."""

import base64
import json

import pytest
from edgekit_runtime.dsse import (
    MAX_PAYLOAD,
    MAX_SIGNATURE,
    Envelope,
    Signature,
    from_base64,
    pae,
    parse_envelope,
    read_json,
    to_json,
)  # fmt: skip
from edgekit_runtime.errors import Untrusted
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.text(st.characters(exclude_categories=["Cs"]))
GOOD = Envelope("application/x", b"hello", (Signature("k", b"signature"),))


def test_what_is_signed_is_what_the_specification_says():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(WORDS, st.binary(), WORDS, st.binary())
def test_no_two_contents_are_signed_alike(kind, payload, other_kind, other_payload):
    same = (kind, payload) == (other_kind, other_payload)
    assert (pae(kind, payload) == pae(other_kind, other_payload)) == same


def test_an_envelope_comes_back_as_it_went():
    assert parse_envelope(json.loads(json.dumps(to_json(GOOD)))) == GOOD


def test_an_envelope_without_a_keyid_is_one():
    raw = to_json(GOOD)
    del raw["signatures"][0]["keyid"]
    assert parse_envelope(raw).signatures[0].key == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"signatures": []},
        {"signatures": to_json(GOOD)["signatures"] * 2},
        {"signatures": {}},
        {"signatures": ["x"]},
        {"signatures": [{"sig": "", "keyid": ""}]},
        {"signatures": [{"keyid": ""}]},
        {"signatures": [{"sig": "YQ==", "keyid": 3}]},
        {"signatures": [{"sig": "YQ==", "keyid": "", "cert": "x"}]},
        {"signatures": [{"sig": base64.b64encode(bytes(MAX_SIGNATURE + 3)).decode()}]},
        {"payload": 5},
        {"payload": None},
        {"payloadType": ""},
        {"payloadType": "x" * 201},
        {"payloadType": ["x"]},
        {"more": 1},
    ],
)
def test_what_is_no_envelope_is_refused(changed):
    with pytest.raises(Untrusted) as raised:
        parse_envelope(to_json(GOOD) | changed)
    assert raised.value.reason == "signature"


@pytest.mark.parametrize("raw", [None, [], "x", 3, {}])
def test_what_is_no_object_is_no_envelope(raw):
    with pytest.raises(Untrusted):
        parse_envelope(raw)


@pytest.mark.parametrize(
    "wrong", ["YQ", "YQ=", "YR==", "Y Q==", "YQ==\n", "YQ==YQ==", "_-8=", "ÿQ==", "=", "Y===", "\ud800"]
)
def test_base64_is_read_in_one_way_only(wrong):
    assert from_base64("YQ==", 10) == b"a"
    with pytest.raises(Untrusted, match="base64"):
        from_base64(wrong, 10)


def test_base64_that_is_too_long_is_not_decoded():
    with pytest.raises(Untrusted, match="too long"):
        from_base64("A" * (MAX_PAYLOAD * 2), MAX_PAYLOAD)


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "no number"),
        (b"[-Infinity]", "no number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"x" * 200_000, "more than 100000"),
        (b"[" * 90_000, "values"),
        (b"[" * 50_000, "values"),
        (b"[" + b"[]," * 20_000 + b"[]]", "values"),
        (b'"' + b"\\u0000" * 10_000 + b'"}', "not JSON"),
    ],
)
def test_json_that_is_large_deep_wide_or_two_faced_is_refused(raw, what):
    with pytest.raises(Untrusted, match=what):
        read_json(raw, 100_000)


def test_json_that_is_deep_and_within_all_limits_is_refused_too():
    with pytest.raises(Untrusted, match="not JSON"):
        read_json(b"[" * 100_000 + b"]" * 100_000, 10**6, 10**6)


@given(st.binary(max_size=300))
def test_any_bytes_are_json_or_refused(raw):
    try:
        parse_envelope(read_json(raw, 1000))
    except Untrusted:
        return
    raise AssertionError("no such envelope was made")
