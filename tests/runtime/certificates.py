"""Makes a certificate authority, a server's and a client's certificate with the `openssl` command, for tests.

Refuses nothing; valid for 127.0.0.1, ::1 and localhost, for a month from now."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]


@dataclass(frozen=True)
class Paths:
    """PEM files. `cert` and `key` are the server's; the client's are signed by the same `ca`."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path


def make(folder: Path) -> Paths:
    """A new authority and what it signed, in `folder` (made where it is not there)."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(*_request(ca, ca_key, "tests' own authority", extensions))
    made = Paths(ca, folder / "server.pem", folder / "server.key", folder / "client.pem", folder / "client.key")
    names = "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"
    signed = ["-CA", str(ca), "-CAkey", str(ca_key)]
    for cert, key, use, more in (
        (made.cert, made.key, "serverAuth", [names]),
        (made.client_cert, made.client_key, "clientAuth", []),
    ):
        rules = ["basicConstraints=critical,CA:FALSE", f"extendedKeyUsage={use}", *more]
        _openssl(*_request(cert, key, cert.stem, rules), *signed)
    return made


def _request(cert: Path, key: Path, name: str, extensions: list[str]) -> list[str]:
    written = [part for line in extensions for part in ("-addext", line)]
    return [
        "req",
        "-x509",
        *EC,
        "-days",
        "30",
        "-subj",
        f"/CN={name}",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        *written,
    ]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
