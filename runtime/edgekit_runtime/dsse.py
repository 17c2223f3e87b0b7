"""DSSE, the envelope that signatures come in, and the strict JSON around it. Pure: bytes and JSON in, values out.

Refuses other than one signature, base64 that is not exact, a key told twice, and what is large, deep or wide."""

import base64
import binascii
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import Untrusted

MAX_PAYLOAD = 8 * 2**20
MAX_TYPE = 200
MAX_SIGNATURE = 1024
"""Bytes of one signature; a DER one over P-256 has at most 72."""
MAX_VALUES = 2000
"""Objects, arrays and members of an envelope. An honest one has about a dozen, as its payload is one long word."""


@dataclass(frozen=True)
class Signature:
    """A signature's bytes, and which key it says it is of: a hint, vouched for by nobody."""

    key: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """What was signed, as what, and the one signature over both (`pae`)."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: type and payload, each with its length before it, so that neither can pose as the
    other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse_envelope(raw: object) -> Envelope:
    """The envelope that `raw` (decoded JSON) is; nothing is verified.

    Raises:
        Untrusted: it is none.
    """
    fields = only(an_object(raw, "the envelope"), {"payload", "payloadType", "signatures"})
    kind, signatures = a_text(fields, "payloadType", MAX_TYPE), fields.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise bad("the envelope must have one signature")
    one = only(an_object(signatures[0], "its signature"), {"sig"}, {"keyid"})
    value = from_base64(one.get("sig"), MAX_SIGNATURE)
    if not value:
        raise bad("its signature is empty")
    key = one.get("keyid", "")
    if not isinstance(key, str) or len(key) > MAX_TYPE:
        raise bad("its keyid is no text")
    return Envelope(kind, from_base64(fields.get("payload"), MAX_PAYLOAD), (Signature(key, value),))


def to_json(envelope: Envelope) -> dict[str, Any]:
    """The JSON object that `parse_envelope` reads back."""
    return {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": envelope.payload_type,
        "signatures": [{"sig": base64.b64encode(one.value).decode(), "keyid": one.key} for one in envelope.signatures],
    }


def read_json(raw: bytes, limit: int, values: int = MAX_VALUES) -> Any:
    """The JSON in `raw`, of at most `limit` bytes and about `values` values, which are counted before they are made.

    Raises:
        Untrusted: it is too large, no JSON, has a key twice in an object, or a number that JSON does not have.
    """
    if len(raw) > limit:
        raise bad(f"{len(raw)} bytes are more than {limit}")
    if sum(map(raw.count, (b"{", b"[", b","))) > values:
        raise bad(f"more than {values} values")
    try:
        return json.loads(raw.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise bad(f"it is not JSON: {str(error)[:200]}") from error


def from_base64(raw: object, limit: int) -> bytes:
    """The bytes that `raw` writes in the one way base64 has for them."""
    if not isinstance(raw, str) or len(raw) > 4 * (limit // 3 + 1):
        raise bad("base64 is missing, no text, or too long")
    try:
        value = base64.b64decode(raw.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise bad(f"base64 does not read: {str(error)[:100]}") from error
    if base64.b64encode(value).decode() != raw:
        raise bad("base64 is not written as it should be")
    return value


def an_object(raw: object, what: str) -> Mapping[str, Any]:
    """`raw`, which is to be a JSON object."""
    if not isinstance(raw, dict):
        raise bad(f"{what} is no JSON object")
    return raw


def only(fields: Mapping[str, Any], needed: set[str], allowed: Set[str] = frozenset()) -> Mapping[str, Any]:
    """`fields`, which must have what is needed, and nothing that this runtime does not know and would not look at."""
    if not needed <= fields.keys() <= needed | allowed:
        raise bad(f"its fields are not {', '.join(sorted(needed))}")
    return fields


def a_text(fields: Mapping[str, Any], key: str, limit: int = MAX_TYPE) -> str:
    """The text at `key`."""
    value = fields.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise bad(f"{key} is no text of 1 to {limit} letters")
    return value


def bad(what: str) -> Untrusted:
    """The error for an envelope, or what is in it, that does not read."""
    return Untrusted(f"the signature does not read: {what}", hint="get the file again from who signed it")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")
