"""A server of tokens as large registries have one: who says the password gets a signed token for what was asked.

Refuses everyone else, and notes what it was asked for."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.registry_server import PASSWORD, USER
from tests.runtime.certificates import Paths

ISSUER, SERVICE = "tests", "registry"


@dataclass
class Issuer:
    """Where it listens, for how long its tokens are good, and the scopes that were asked for."""

    url: str = ""
    lasting: float = 60.0
    asked: list[str] = field(default_factory=list)

    def settings(self, made: Paths) -> dict[str, str]:
        """What the registry is told of it."""
        return {"realm": self.url, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(made.ca)}


@contextmanager
def issuing(made: Paths) -> Iterator[Issuer]:
    """The server, until the end of the block; it signs with the server's certificate of `made`."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
            allowed = self.headers.get("Authorization") == f"Basic {known}"
            issuer.asked.extend(scopes)
            body = json.dumps({"token": _token(made, scopes, issuer.lasting)}).encode() if allowed else b"{}"
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_address[1]}/token"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()


def _token(made: Paths, scopes: list[str], lasting: float) -> str:
    """A JSON Web Token (ES256) with its certificate, as Docker's registry wants it."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    access = []
    for scope in scopes:
        kind, name, actions = scope.split(":")
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": SERVICE, "sub": USER, "iat": now, "nbf": now - 5, "exp": int(now + lasting),
        "jti": "1", "access": access,
    }  # fmt: skip
    header = {"typ": "JWT", "alg": "ES256", "x5c": [_der(made.cert)]}
    said = ".".join(_packed(json.dumps(part).encode()) for part in (header, claims))
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(said.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{said}.{_packed(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _der(cert: Path) -> str:
    lines = cert.read_text().split("-----BEGIN CERTIFICATE-----")[1].split("-----END")[0]
    return "".join(lines.split())


def _packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
