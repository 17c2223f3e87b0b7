"""Who we are to a registry: what `docker login` wrote, or what the command line says. Reads; writes nothing.

Refuses a file that is not Docker's, and logins that could not be sent in a header."""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError

from edgekit.oci.reference import HUB, HUB_LOGIN

SAY = "say --username NAME --password-stdin"
LARGEST = 2**20


@dataclass(frozen=True)
class Login:
    """A name and its password, which is shown nowhere."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        wrong = ":" in self.username or not all(map(str.isprintable, (self.username, self.password)))
        if wrong or not self.username or len(self.username) + len(self.password) > 16_384:
            raise EdgeKitError("the name or password is empty, or not plain text of one line", hint=SAY)

    @property
    def basic(self) -> str:
        """The header's value."""
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


def find_login(registry: str, config: Path) -> Login | None:
    """What Docker's `config` (config.json) holds for `registry`; None where it holds nothing.

    Raises:
        EdgeKitError: the file does not read, or leaves the password to a program that we do not run.
    """
    told = _read(config)
    names = [
        registry,
        f"https://{registry}",
        f"http://{registry}",
        f"https://{registry}/v1/",
        f"https://{registry}/v2/",
    ]
    names += [HUB_LOGIN] if registry == HUB else []
    entries = told.get("auths")
    entries = entries if isinstance(entries, dict) else {}
    for name in names:
        entry = entries.get(name)
        if isinstance(entry, dict) and (found := _login(entry, config, registry)) is not None:
            return found
    helpers = told.get("credHelpers")
    kept = (isinstance(helpers, dict) and any(name in helpers for name in names)) or any(
        name in entries and told.get("credsStore") for name in names
    )
    if kept:
        raise EdgeKitError(f"{config} leaves the password for {registry} to a helper program", hint=SAY)
    return None


def _login(entry: dict[str, Any], config: Path, registry: str) -> Login | None:
    """Of an entry in the file; None where it is empty, as beside a store of passwords."""
    if entry.get("identitytoken"):
        raise EdgeKitError(f"{config} holds an identity token for {registry}, which is not sent", hint=SAY)
    if isinstance(entry.get("username"), str) and isinstance(entry.get("password"), str):
        return Login(entry["username"], entry["password"])
    packed = entry.get("auth")
    if not packed:
        return None
    try:
        name, colon, password = base64.b64decode(packed, validate=True).decode().partition(":")
    except (TypeError, ValueError, binascii.Error) as error:
        raise EdgeKitError(
            f"{config}: the entry for {registry} is not base64", hint="log in again, or " + SAY
        ) from error
    if not colon:
        raise EdgeKitError(f"{config}: the entry for {registry} has no password", hint="log in again, or " + SAY)
    return Login(name, password.rstrip("\0"))


def _read(config: Path) -> dict[str, Any]:
    try:
        with config.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EdgeKitError(f"{config} does not read: {error.strerror}", hint=SAY) from error
    try:
        found = json.loads(raw) if len(raw) <= LARGEST else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise EdgeKitError(f"{config} is not Docker's file of logins", hint="mend or remove it, or " + SAY)
    return found


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """The scheme in lower case, and its words, of the first challenge in a WWW-Authenticate header."""
    scheme, _, rest = header[:8192].strip().partition(" ")
    return scheme.lower(), {
        key.lower(): value.replace('\\"', '"') for key, value in re.findall(r'([A-Za-z_]+)="((?:[^"\\]|\\.)*)"', rest)
    }
