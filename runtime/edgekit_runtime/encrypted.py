"""Files of a bundle that are encrypted for one device: AES-256-GCM in chunks, under a key that its own key unwraps.

Refuses other devices, other bundles' keys, and files that were cut, touched, reordered or renamed.

The key of a bundle is random. It is wrapped by AES-256-GCM under what HKDF-SHA256 makes of an ECDH on P-256 between
the device's key and one made for this bundle alone. Each file has a key of its own, made of the bundle's by HKDF. A
file is a row of chunks of CHUNK bytes, the last shorter, each with its tag; the nonce is the chunk's number and
whether it is the last (the STREAM construction). All of that is bound to the names of bundle, version, device, file.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import BadBundle, EdgeKitError, Untrusted
from edgekit_runtime.files import SHA256
from edgekit_runtime.keypair import PublicKey, new_private_key, public_of, read_public

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHUNK, TAG = 2**20, 16
KEY, POINT = 32, 65
MAX_SIZE = 2**50
AGAIN = "encrypt the bundle again (edgekit encrypt), for the key that the device has now"


@dataclass(frozen=True)
class Plain:
    """What a file is once it is decrypted: hex SHA-256 and size."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Encrypted:
    """The manifest's field `encrypted`: for which device (the fingerprint of its key), the wrapped key and the point
    to unwrap it with in base64, and which files."""

    device: str
    key: str
    ephemeral: str
    files: Mapping[str, Plain]


@dataclass(frozen=True)
class BundleKey:
    """What all files of a bundle are encrypted under. It is bound to the bundle's name and version and the device's
    fingerprint, and never shown."""

    name: str
    version: str
    device: str
    secret: bytes = field(repr=False)


def parse(raw: object) -> Encrypted:
    """The field as decoded JSON.

    Raises:
        BadBundle: it is not as `to_json` writes it.
    """
    try:
        if not isinstance(raw, dict) or set(raw) != {"for", "key", "ephemeral", "files"}:
            raise ValueError("it is not made of for, key, ephemeral and files")
        if not SHA256.fullmatch(raw["for"]):
            raise ValueError(f"{raw['for']!r} is no fingerprint of a key")
        for name, length in (("key", KEY + TAG), ("ephemeral", POINT)):
            if len(base64.b64decode(raw[name], validate=True)) != length:
                raise ValueError(f"{name} has not {length} bytes")
        files = {name: _plain(name, entry) for name, entry in raw["files"].items()}
        return Encrypted(raw["for"], raw["key"], raw["ephemeral"], files)
    except (TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise BadBundle(f"manifest encrypted does not read: {error}", hint="encrypt the bundle again") from error


def to_json(found: Encrypted) -> dict[str, Any]:
    """The JSON object that `parse` reads back."""
    files = {name: asdict(plain) for name, plain in found.files.items()}
    return {"for": found.device, "key": found.key, "ephemeral": found.ephemeral, "files": files}


def check(found: Encrypted, sizes: Mapping[str, int]) -> None:
    """Raise `BadBundle` unless each encrypted file is among those of the manifest, and as large there as it must be."""
    for name, plain in found.files.items():
        if name not in sizes:
            raise BadBundle(f"manifest encrypted {name!r} is not among its files", hint="encrypt the bundle again")
        if sizes[name] != stored_size(plain.size):
            what = f"manifest: {name!r} of {plain.size} bytes takes {stored_size(plain.size)} encrypted"
            raise BadBundle(f"{what}, and not {sizes[name]}", hint="encrypt the bundle again")


def stored_size(size: int) -> int:
    """How large a file of `size` bytes is encrypted."""
    return size + TAG * max(1, -(-size // CHUNK))


def new_key(name: str, version: str, device: PublicKey) -> tuple[BundleKey, str, str]:
    """A key for this bundle on that device, and the fields `key` and `ephemeral` that it is told in."""
    public, once = read_public(device.pem), new_private_key()
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
        load_pem_public_key,
    )  # fmt: skip

    made = BundleKey(name, version, public.fingerprint, os.urandom(KEY))
    mine: Any = load_pem_private_key(once, None)
    point = mine.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    wrapping = _wrapping(mine, load_pem_public_key(public.pem), _bound(made, "key", point))
    wrapped = wrapping.encrypt(bytes(12), made.secret, _bound(made, "key", point))
    return made, base64.b64encode(wrapped).decode(), base64.b64encode(point).decode()


def unwrap(found: Encrypted, private_pem: bytes, name: str, version: str) -> BundleKey:
    """The key of bundle `name` in that version, with the device's own private key.

    Raises:
        Untrusted: it is for another device, or for another bundle.
    """
    own = public_of(private_pem).fingerprint
    if own != found.device:
        what = f"{name} {version} was encrypted for the device {found.device[:12]}; this one is {own[:12]}"
        raise Untrusted(
            what, hint="encrypt it for this device: edgekit encrypt BUNDLE --for DEVICE.pub", reason="other_device"
        )
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    scope = BundleKey(name, version, own, b"")
    try:
        point = base64.b64decode(found.ephemeral)
        other = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        wrapping = _wrapping(load_pem_private_key(private_pem, None), other, _bound(scope, "key", point))
        secret = wrapping.decrypt(bytes(12), base64.b64decode(found.key), _bound(scope, "key", point))
    except (InvalidTag, ValueError) as error:
        what = f"the key that {name} {version} brings does not unwrap: it was touched, or is another bundle's"
        raise Untrusted(what, hint=AGAIN, reason="touched") from error
    return BundleKey(name, version, own, secret)


def encrypt(key: BundleKey, file: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The encrypted form of a file, chunk by chunk."""
    cipher, bound = _of_file(key, file)
    for number, chunk, last in _rechunked(chunks, CHUNK):
        yield cipher.encrypt(_nonce(number, last), chunk, bound)


def decrypt(key: BundleKey, file: str, plain: Plain, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of an encrypted file, chunk by chunk, each only once it is proven. They are the whole file only if this
    ends without raising: feed it to what forgets all otherwise, and never to a disk.

    Raises:
        Untrusted: these are not the bytes that were encrypted for this device under that name.
    """
    from cryptography.exceptions import InvalidTag

    cipher, bound = _of_file(key, file)
    digest, size = hashlib.sha256(), 0
    for number, chunk, last in _rechunked(chunks, CHUNK + TAG):
        try:
            piece = cipher.decrypt(_nonce(number, last), chunk, bound)
        except InvalidTag as error:
            raise _touched(key, file) from error
        size += len(piece)
        if size > plain.size:
            raise _touched(key, file)
        digest.update(piece)
        yield piece
    if Plain(digest.hexdigest(), size) != plain:
        raise _touched(key, file)


def _touched(key: BundleKey, file: str) -> EdgeKitError:
    what = f"{key.name} {key.version}: {file} does not decrypt: it was cut, touched, or is another file"
    return Untrusted(what, hint="get the bundle again, or encrypt it again", reason="touched")


def _rechunked(chunks: Iterable[bytes], size: int) -> Iterator[tuple[int, bytes, bool]]:
    """The same bytes in chunks of `size`, numbered, with whether it is the last; there is one at least."""
    held, number = bytearray(), 0
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            if len(held) == size:
                yield number, bytes(held), False
                number += 1
                held.clear()
            room = size - len(held)
            held += view[:room]
            view = view[room:]
    yield number, bytes(held), True


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _of_file(key: BundleKey, file: str) -> "tuple[AESGCM, bytes]":
    """The cipher for one file, and what its chunks are bound to."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    bound = _bound(key, "file", file.encode("utf-8", "surrogatepass"))
    return AESGCM(_derived(key.secret, bound)), bound


def _wrapping(private: Any, public: Any, bound: bytes) -> "AESGCM":
    """The cipher that wraps a key. It is used once, since one of the two keys is: its nonce may be zero."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(_derived(private.exchange(ec.ECDH(), public), bound))


def _derived(secret: bytes, bound: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256 as Hash
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(Hash(), KEY, None, bound).derive(secret)


def _bound(key: BundleKey, use: str, what: bytes) -> bytes:
    """What a key or a chunk is for, in one way only: each part with its length before it."""
    parts = [b"edgekit encrypted 1", use.encode(), key.name.encode(), key.version.encode(), key.device.encode(), what]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _plain(name: object, raw: Mapping[str, Any]) -> Plain:
    plain = Plain(**raw)
    whole = isinstance(plain.size, int) and not isinstance(plain.size, bool) and 0 <= plain.size <= MAX_SIZE
    if not isinstance(name, str) or not whole or not SHA256.fullmatch(plain.sha256):
        raise ValueError(f"{name!r} has no size or digest")
    return plain
