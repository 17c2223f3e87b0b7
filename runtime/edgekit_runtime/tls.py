"""TLS for the server: a context for HTTP and the bytes for gRPC, from PEM files; mTLS where clients have a CA.

Refuses a key that others can read, a key of another certificate, TLS below 1.2, and to ask for a password."""

import base64
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import EdgeKitError

if TYPE_CHECKING:
    import ssl

ALPN = ["http/1.1"]
MAX_FILE = 2**20
CHANGING = stat.S_IWOTH | stat.S_IWGRP
READING = stat.S_IROTH | CHANGING
"""What the modes of certificates, and of keys, must not allow."""
SOON = 14 * 86400
"""Seconds before its end from which on a certificate is warned of."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the server's certificate with its chain, its key, and who signs the clients' (None: no mTLS)."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Pem:
    """The checked bytes of these files, as `grpc.ssl_server_credentials` wants them."""

    cert: bytes
    key: bytes
    client_ca: bytes | None = None


def tls_files(cert: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    """The files as the command line names them; None where it names none.

    Raises:
        EdgeKitError: one was given without the others that it needs.
    """
    if cert is not None and key is not None:
        return TlsFiles(cert, key, client_ca)
    if cert is None and key is None and client_ca is None:
        return None
    raise EdgeKitError("TLS wants a certificate and its key", hint="give --tls-cert FILE and --tls-key FILE")


def read_pem(files: TlsFiles) -> Pem:
    """Read and check the files.

    Raises:
        EdgeKitError: one is missing, is no PEM, is open to others, or key and certificate do not belong together.
    """
    pem = Pem(
        _pem(files.cert, "CERTIFICATE", CHANGING),
        _pem(files.key, "PRIVATE KEY", READING),
        None if files.client_ca is None else _pem(files.client_ca, "CERTIFICATE", CHANGING),
    )
    http_context(files)
    return pem


def http_context(files: TlsFiles) -> "ssl.SSLContext":
    """The context for HTTP over TLS 1.2 or newer. Raises as `read_pem` does."""
    import ssl

    _pem(files.cert, "CERTIFICATE", CHANGING)
    _pem(files.key, "PRIVATE KEY", READING)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(ALPN)
    _load(context, files)
    if files.client_ca is not None:
        authorities = _pem(files.client_ca, "CERTIFICATE", CHANGING)
        try:
            context.load_verify_locations(cadata=authorities.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise EdgeKitError(f"{files.client_ca}: its certificates do not read", hint="give PEM files") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def renew(context: "ssl.SSLContext", files: TlsFiles) -> None:
    """Take the files as they are now for connections to come; on an error the old ones stay. Raises as `read_pem`."""
    read_pem(files)
    _load(context, files)


def doubts(cert: bytes, now: float | None = None) -> str:
    """What a client may hold against the first certificate of this PEM: expired, soon to be, or from the future.

    A warning and no refusal: a device's clock is often wrong until the network sets it. Empty where all is well.
    """
    try:
        start, end = _validity(_der(cert))
    except (ValueError, IndexError):
        return "its time of validity does not read"
    now = time.time() if now is None else now
    if now < start:
        return f"the certificate is valid from {_day(start)} on; this machine's clock says {_day(now)}"
    if now >= end:
        return f"the certificate expired on {_day(end)}; this machine's clock says {_day(now)}"
    return f"the certificate expires on {_day(end)}" if end - now < SOON else ""


def _load(context: "ssl.SSLContext", files: TlsFiles) -> None:
    import ssl

    def no_password() -> str:
        raise EdgeKitError(f"{files.key} wants a password", hint=f"openssl pkey -in {files.key} -out plain.key")

    try:
        context.load_cert_chain(files.cert, files.key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise EdgeKitError(
                f"{files.key} is not the key of {files.cert}", hint="give the two files that were made together"
            ) from error
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise EdgeKitError(f"{files.cert} and {files.key} cannot be used: {reason}", hint="make new ones") from error


def _pem(path: Path, kind: str, forbidden: int) -> bytes:
    """The file's bytes, once its mode and its first look are right."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise EdgeKitError(f"no file {path}", hint="check --tls-cert, --tls-key and --tls-client-ca") from None
    except OSError as error:
        raise EdgeKitError(f"{path} does not read: {error.strerror}") from error
    if mode & forbidden:
        done = "read" if mode & forbidden & stat.S_IROTH else "change"
        raise EdgeKitError(
            f"{path}: others can {done} it", hint=f"chmod {'600' if forbidden & stat.S_IROTH else '644'} {path}"
        )
    if len(raw) > MAX_FILE or not raw.isascii() or f"{kind}-----".encode() not in raw:
        raise EdgeKitError(f"{path} holds no {kind.lower()} in PEM form", hint="openssl x509 or pkey makes it PEM")
    return raw


def _der(pem: bytes) -> bytes:
    inside = pem.split(b"-----BEGIN CERTIFICATE-----", 1)[1].split(b"-----END CERTIFICATE-----", 1)[0]
    return base64.b64decode(inside)


def _validity(der: bytes) -> tuple[float, float]:
    """notBefore and notAfter of a DER certificate, in seconds since 1970."""
    body = _parts(_parts(der)[0][1])[0][1]
    fields = [value for kind, value in _parts(body) if kind != 0xA0]  # [0] is the version
    start, end = _parts(fields[3])[:2]  # after serial, algorithm, issuer
    return _moment(*start), _moment(*end)


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """The (tag, value) pairs that `der` strings together."""
    found, at = [], 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            more = size & 0x7F
            size = int.from_bytes(der[at : at + more], "big")
            at += more
        if at + size > len(der):
            raise ValueError("cut short")
        found.append((tag, der[at : at + size]))
        at += size
    return found


def _moment(tag: int, value: bytes) -> float:
    from datetime import UTC, datetime

    text = value.decode("ascii")
    if tag == 0x17:  # UTCTime: two digits of a year from 1950 on
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))
