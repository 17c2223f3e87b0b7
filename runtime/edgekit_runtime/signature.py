"""The signature of a bundle in the OpenSSF Model Signing format, as `model_signing sign key` writes it. Pure.

Refuses other predicates, keys and digests, names that leave the folder or clash, and to tell what is not verified."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.dsse import (
    MAX_PAYLOAD,
    Envelope,
    Signature,
    a_text,
    an_object,
    bad,
    only,
    pae,
    parse_envelope,
    read_json,
    to_json,
)
from edgekit_runtime.errors import EdgeKitError, Untrusted
from edgekit_runtime.files import SHA256
from edgekit_runtime.keypair import PublicKey, proven, public_of, sign

SIGNATURE = "model.sig"
MAX_FILE = MAX_PAYLOAD // 3 * 4 + 10_000
"""Bytes of a signature file."""
MAX_FILES = 10_000
MAX_NAME = 500
"""Bytes of a file's name with its folders."""
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
INTOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True)
class Signed:
    """What a verified signature says: by which key (fingerprint), and the SHA-256 of every file but itself."""

    key: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Claim:
    """A signature that was read and not verified: `key` is the fingerprint that it claims."""

    key: str
    envelope: Envelope

    def proven(self, public: PublicKey) -> Signed:
        """What it says, now that `public` signed it. Raises `Untrusted` where that is not so."""
        return Signed(public.fingerprint, _files(proven(self.envelope, public, INTOTO)))


def signed(name: str, digests: Mapping[str, str], private_pem: bytes) -> bytes:
    """The signature file over the files of the bundle called `name`, whose hex SHA-256 are in `digests`.

    Raises:
        EdgeKitError: the names cannot lie in one folder on every system.
    """
    refuse_names(digests)
    order = sorted(digests, key=lambda path: path.split("/"))
    resources = [{"name": path, "digest": digests[path], "algorithm": "sha256"} for path in order]
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(digests[path] for path in order)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": resources,
        },
    }
    payload = json.dumps(statement, indent=1).encode()
    if len(payload) > MAX_PAYLOAD:
        raise EdgeKitError("the names of the files are too long to sign", hint="shorten them, or use fewer files")
    _files(payload)  # what no device would read is not signed
    envelope = Envelope(INTOTO, payload, (Signature("", sign(private_pem, pae(INTOTO, payload))),))
    hint = {"publicKey": {"hint": public_of(private_pem).fingerprint}, "tlogEntries": []}
    whole = {"mediaType": MEDIA, "verificationMaterial": hint, "dsseEnvelope": to_json(envelope)}
    return json.dumps(whole, separators=(",", ":")).encode()


def parse_signature(raw: bytes) -> Claim:
    """The signature file in `raw`; nothing is verified.

    Raises:
        Untrusted: it is none, or not of the kind that a key made.
    """
    fields = only(
        an_object(read_json(raw, MAX_FILE), "the file"), {"mediaType", "verificationMaterial", "dsseEnvelope"}
    )
    if fields.get("mediaType") != MEDIA:
        raise bad(f"mediaType {str(fields.get('mediaType'))[:100]!r} is not {MEDIA}")
    material = only(an_object(fields["verificationMaterial"], "verificationMaterial"), {"publicKey"}, {"tlogEntries"})
    if material.get("tlogEntries", []) != []:
        raise bad("it is of a transparency log; this runtime knows keys only")
    key = a_text(only(an_object(material["publicKey"], "publicKey"), {"hint"}), "hint")
    return Claim(key, parse_envelope(fields.get("dsseEnvelope")))


def refuse_names(names: Iterable[str]) -> None:
    """Raise `Untrusted` where files of these names cannot lie in one folder, whatever the file system makes of case
    and of Unicode."""
    seen: dict[str, str] = {}
    for name in names:
        if not _plain(name):
            raise Untrusted(f"no name for a file in a bundle: {name[:100]!a}", hint="do not use this bundle")
        folded = _folded(name)
        if folded in seen:
            raise Untrusted(
                f"{seen[folded][:100]!a} and {name[:100]!a} are one file on some systems", hint="rename one of them"
            )
        seen[folded] = name
    if len(seen) > MAX_FILES:
        raise Untrusted(f"a bundle has {MAX_FILES} files at most", hint="pack small files into one")
    for folded, name in seen.items():
        parts = folded.split("/")
        if any("/".join(parts[:end]) in seen for end in range(1, len(parts))):
            raise Untrusted(f"{name[:100]!a} lies in what is a file itself", hint="rename one of them")


def _plain(name: str) -> bool:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    parts = name.split("/")
    strange = "\\" in name or any(unicodedata.category(letter) == "Cc" for letter in name)
    return 0 < size <= MAX_NAME and not strange and not any(part in ("", ".", "..") for part in parts)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _root(digests: Iterable[str]) -> str:
    """The one digest over all files."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _files(payload: bytes) -> dict[str, str]:
    """The files in a payload whose signature was verified: what is wrong with it, its signer did."""
    statement = an_object(read_json(payload, MAX_PAYLOAD, 8 * MAX_FILES), "the payload")
    if statement.get("_type") != STATEMENT or statement.get("predicateType") != PREDICATE:
        raise bad(f"it is about {str(statement.get('predicateType'))[:100]!r}, not a model's files")
    predicate = an_object(statement.get("predicate"), "the predicate")
    method = an_object(predicate.get("serialization"), "its serialization")
    if method.get("method") != "files" or method.get("hash_type") != "sha256":
        raise bad("it must be of whole files and SHA-256")
    resources, subjects = predicate.get("resources"), statement.get("subject")
    if not isinstance(resources, list) or not resources or not isinstance(subjects, list) or len(subjects) != 1:
        raise bad("it must be about one model with files")
    pairs = [_resource(an_object(resource, "a resource")) for resource in resources]
    refuse_names(name for name, _ in pairs)
    whole = an_object(an_object(subjects[0], "the subject").get("digest"), "its digest")
    if whole.get("sha256") != _root(digest for _, digest in pairs):
        raise bad("its digest over all files is wrong")
    return dict(pairs)


def _resource(fields: Mapping[str, Any]) -> tuple[str, str]:
    digest, name = fields.get("digest"), a_text(fields, "name", MAX_NAME)
    if fields.get("algorithm") != "sha256" or not isinstance(digest, str) or not SHA256.fullmatch(digest):
        raise bad(f"no SHA-256 for {name[:100]!a}")
    return name, digest
