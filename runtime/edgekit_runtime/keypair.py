"""ECDSA keys on P-256 with SHA-256: make, name, sign, verify; and the DSSE envelopes that they sign.

Refuses RSA, other curves, keys under a password, and an envelope that is not signed by one of the keys given for it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit_runtime.dsse import Envelope, Signature, pae, parse_envelope, to_json
from edgekit_runtime.errors import EdgeKitError, NotFound, Untrusted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

MAX_PEM = 10_000


@dataclass(frozen=True)
class PublicKey:
    """A public key as PEM (SubjectPublicKeyInfo), in the one form that `read_public` gives it."""

    pem: bytes

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the PEM: by this a key is named in signatures and in trust."""
        return hashlib.sha256(self.pem).hexdigest()


def new_private_key() -> bytes:
    """A new private key, as PEM (PKCS #8) that is not encrypted: who writes it down sees to its mode."""
    ec = _curves()
    from cryptography.hazmat.primitives import serialization as form

    key = ec.generate_private_key(ec.SECP256R1())
    return bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))


def public_of(private_pem: bytes) -> PublicKey:
    """The public half of a private key. Raises `EdgeKitError` where it is none that EdgeKit signs with."""
    return _public(_private(private_pem).public_key())


def read_public(pem: bytes) -> PublicKey:
    """The key in `pem`, whatever its line ends.

    Raises:
        Untrusted: it is no public key on P-256.
    """
    return _public(_loaded(pem))


def sign(private_pem: bytes, data: bytes) -> bytes:
    """The signature over `data`, in DER."""
    ec = _curves()
    from cryptography.hazmat.primitives.hashes import SHA256

    return _private(private_pem).sign(data, ec.ECDSA(SHA256()))


def verify(public: PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` is by the holder of `public`."""
    ec = _curves()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        _loaded(public.pem).verify(signature, data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def envelope(private_pem: bytes, payload_type: str, payload: bytes) -> dict[str, Any]:
    """A signed DSSE envelope as a JSON object, which names its key by the fingerprint."""
    signature = Signature(public_of(private_pem).fingerprint, sign(private_pem, pae(payload_type, payload)))
    return to_json(Envelope(payload_type, payload, (signature,)))


def opened(raw: object, keys: Mapping[str, PublicKey], payload_type: str) -> bytes:
    """The payload of an envelope (decoded JSON) that one of `keys`, by fingerprint, signed as `payload_type`.

    Raises:
        Untrusted: it is no envelope, of another type, by another key, or was changed since.
    """
    found = parse_envelope(raw)
    public = keys.get(found.signatures[0].key)
    if public is None:
        raise Untrusted(
            f"signed by {found.signatures[0].key[:12]!r}, a key that is not trusted for this", reason="wrong_key"
        )
    return proven(found, public, payload_type)


def proven(found: Envelope, public: PublicKey, payload_type: str) -> bytes:
    """The payload of `found`, signed by `public` as `payload_type`. Raises `Untrusted` as `opened` does."""
    if found.payload_type != payload_type:
        raise Untrusted(f"signed as {found.payload_type!r}; wanted {payload_type!r}")
    if not verify(public, found.signatures[0].value, pae(payload_type, found.payload)):
        raise Untrusted(
            f"the signature by {public.fingerprint[:12]} is broken: what was signed, or the signature, was changed",
            hint="get the file again from who signed it",
        )
    return found.payload


def _curves() -> Any:
    """cryptography's elliptic curves: imported only where something is signed or verified."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise NotFound(
            f"signatures need the package cryptography, which is not here ({error})",
            hint="install edgekit-runtime with its [signed] extra: pip install './runtime[signed]'",
        ) from error
    return ec


def _loaded(pem: bytes) -> "EllipticCurvePublicKey":
    ec = _curves()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem[:MAX_PEM])
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Untrusted(f"this is no public key: {str(error)[:200]}", reason="trust") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise Untrusted(
            "a public key must be ECDSA on P-256", hint="make one with `edgekit key new NAME`", reason="trust"
        )
    return key  # type: ignore[no-any-return]


def _public(key: "EllipticCurvePublicKey") -> PublicKey:
    from cryptography.hazmat.primitives import serialization as form

    return PublicKey(key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))


def _private(pem: bytes) -> "EllipticCurvePrivateKey":
    ec = _curves()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem[:MAX_PEM], None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # its text never holds key material
        raise EdgeKitError(f"this is no private key: {str(error)[:200]}", hint="name a NAME.key file") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise EdgeKitError("a private key must be ECDSA on P-256", hint="make one with `edgekit key new NAME`")
    return key  # type: ignore[no-any-return]
