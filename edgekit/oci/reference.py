"""Where an image is, as a person writes it: oci://host[:port]/repository[:tag|@sha256:digest]. Pure.

Refuses what a registry would not understand, a name or password in the address, and digests other than SHA-256."""

import ipaddress
import re
from dataclasses import dataclass

from edgekit_runtime.errors import EdgeKitError

EXAMPLE = "say oci://HOST[:PORT]/REPOSITORY:TAG, in lower case but for the tag"
HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HUB, HUB_HOST, HUB_LOGIN = "docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"
"""Docker's own registry has one name for people, one for programs, and one in the file of logins."""


@dataclass(frozen=True)
class Reference:
    """An image in a registry: by its `digest` where there is one, else by its `tag`."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"oci://{self.registry}/{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"

    @property
    def name(self) -> str:
        """What the registry is asked for."""
        return self.digest or self.tag or "latest"

    @property
    def host(self) -> str:
        """The host alone, without brackets and port."""
        return host_of(self.registry)


def parse_reference(text: str) -> Reference:
    """The image that a person means by `text`.

    Raises:
        EdgeKitError: it is no address of an image.
    """
    rest = text.removeprefix("oci://")
    if rest == text or not text.isascii() or len(text) > 1000:
        raise EdgeKitError(f"{text[:200]!r} is no address of an image", hint=EXAMPLE)
    registry, slash, path = rest.partition("/")
    if "@" in registry:
        raise EdgeKitError("a name or password in the address is not sent", hint="say --username NAME --password-stdin")
    path, at, digest = path.partition("@")
    head, colon, tag = path.rpartition(":")
    repository = head if colon else path
    if not slash or not HOST.fullmatch(registry) or not REPOSITORY.fullmatch(repository) or len(repository) > 255:
        raise EdgeKitError(f"{text[:200]!r} is no address of an image", hint=EXAMPLE)
    if colon and not TAG.fullmatch(tag):
        raise EdgeKitError(f"{tag[:140]!r} is no tag", hint="use letters, digits, . _ - and at most 128 of them")
    if at and not DIGEST.fullmatch(digest):
        raise EdgeKitError(f"{digest[:140]!r} is no digest", hint="say @sha256: and 64 hexadecimal digits")
    if registry == HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, tag if colon else None if at else "latest", digest if at else None)


def host_of(registry: str) -> str:
    """`registry` without its port and brackets."""
    if registry.startswith("["):
        return registry[1:].partition("]")[0]
    return registry.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether `host` (as written) can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.")
