"""What a registry can do, one call each: manifests by tag or digest, blobs that are there, or mounted from next door.

Refuses a manifest that is not the one that was named, or is too large to be one."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urljoin

from edgekit_runtime.errors import BadBundle

from edgekit.oci import answers
from edgekit.oci.answers import Refused
from edgekit.oci.calls import Call, Client, again, ask, told
from edgekit.oci.manifest import INDEX, MANIFEST, MAX_MANIFEST, Descriptor, digest_of
from edgekit.oci.reference import DIGEST


@dataclass(frozen=True)
class Repository:
    """A repository of a registry."""

    client: Client
    name: str

    @property
    def path(self) -> str:
        """Where the registry has it."""
        return f"/v2/{self.name}"

    @property
    def pulling(self) -> str:
        """The right to fetch."""
        return f"repository:{self.name}:pull"

    @property
    def pushing(self) -> str:
        """The right to fetch and to send."""
        return f"repository:{self.name}:pull,push"


def get_manifest(repository: Repository, name: str) -> bytes:
    """The bytes of a manifest or an index; `name` is a tag or a digest.

    Raises:
        Refused: there is none (status 404), or it may not be had.
        BadBundle: it is not the one that was named.
    """
    headers = {"Accept": f"{MANIFEST}, {INDEX}"}
    call = Call("GET", f"{repository.path}/manifests/{quote(name, safe=':')}", repository.pulling, headers)
    timeout = repository.client.access.timeout

    def act() -> tuple[bytes, str]:
        response = ask(repository.client, call, (200,))
        return answers.read(response, MAX_MANIFEST, timeout), response.headers.get("Docker-Content-Digest", "")

    raw, said = again(repository.client.access, act)
    wanted = name if DIGEST.fullmatch(name) else said
    if DIGEST.fullmatch(wanted) and digest_of(raw) != wanted:
        raise BadBundle(f"{repository.name}: the manifest that came is not {wanted}", hint="do not use this registry")
    return raw


def find_manifest(repository: Repository, name: str) -> bytes | None:
    """The same; None where there is none."""
    try:
        return get_manifest(repository, name)
    except Refused as refused:
        if refused.status == 404:
            return None
        raise


def put_manifest(repository: Repository, name: str, raw: bytes, media_type: str) -> bool:
    """Name `raw` by a tag or its digest; whether the registry itself notes what it refers to."""
    url = f"{repository.path}/manifests/{quote(name, safe=':')}"
    call = Call("PUT", url, repository.pushing, {"Content-Type": media_type}, lambda: raw)

    def act() -> bool:
        return "OCI-Subject" in told(repository.client, call, (200, 201, 202)).headers

    return again(repository.client.access, act)


def referrers(repository: Repository, digest: str) -> bytes | None:
    """The index of what refers to a manifest: the registry's own, or that under the tag that stands in for it."""
    call = Call("GET", f"{repository.path}/referrers/{digest}", repository.pulling, {"Accept": INDEX})
    timeout = repository.client.access.timeout

    def act() -> bytes | None:
        try:
            response = ask(repository.client, call, (200,))
        except Refused as refused:
            if refused.status in (400, 404, 405, 406):
                return None
            raise
        if not response.headers.get("Content-Type", "").startswith(INDEX):
            response.close()
            return None
        return answers.read(response, MAX_MANIFEST, timeout)

    found = again(repository.client.access, act)
    return found if found is not None else find_manifest(repository, fallback_tag(digest))


def fallback_tag(digest: str) -> str:
    """The tag that stands in for the list of referrers where a registry keeps none."""
    return digest.replace(":", "-")


def has_blob(repository: Repository, descriptor: Descriptor) -> bool:
    """Whether the repository holds these bytes already."""
    call = Call("HEAD", f"{repository.path}/blobs/{descriptor.digest}", repository.pushing)

    def act() -> bool:
        try:
            return told(repository.client, call, (200,)).headers.get("Content-Length") == str(descriptor.size)
        except Refused as refused:
            if refused.status == 404:
                return False
            raise

    return again(repository.client.access, act)


def begin_upload(repository: Repository, digest: str, source: str | None) -> tuple[str | None, int]:
    """Where to send a blob, and the least bytes at a time; no place where the blob of `source`, another repository of
    the registry, was mounted."""
    query = f"?mount={quote(digest, safe='')}&from={quote(source, safe='')}" if source else ""
    scope = repository.pushing + (f" repository:{source}:pull" if source else "")
    call = Call("POST", f"{repository.path}/blobs/uploads/{query}", scope, {"Content-Length": "0"})

    def act() -> tuple[str | None, int]:
        response = told(repository.client, call, (201, 202))
        least = response.headers.get("OCI-Chunk-Min-Length", "")
        place = None if response.status_code == 201 else location(repository, response.url, response.headers)
        return place, int(least) if least.isascii() and least.isdecimal() and len(least) < 13 else 0

    return again(repository.client.access, act)


def location(repository: Repository, asked: str | None, headers: Mapping[str, str]) -> str:
    """Where an upload goes on."""
    found = headers.get("Location")
    if not found:
        raise BadBundle(f"{repository.client.base} does not say where to send a file", hint="ask who runs it")
    return urljoin(asked or repository.client.base, found)
