"""Bundles and short ways to push and pull them, for tests. Refuses nothing."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from edgekit_runtime.bundle import MANIFEST, describe, read_manifest
from edgekit_runtime.manifest import Manifest, to_json

from edgekit.oci import fetching, pushing
from edgekit.oci.blobs import Blobs
from edgekit.oci.calls import Access
from edgekit.oci.fetching import Fetched
from edgekit.oci.pushing import Sent
from edgekit.oci.reference import parse_reference
from tests.runtime.bundles import make_bundle, write_manifest

WEIGHTS = 3 * 2**20
HASTE = Access(chunk=2**18, timeout=20, pause=lambda seconds: None)
"""Small chunks, and no waiting between tries."""


def make_versions(folder: Path, size: int = WEIGHTS) -> tuple[Path, Path]:
    """Version 1, and version 2 in which one weight of a hundred moved a little."""
    draw = np.random.default_rng(3)
    weights = draw.integers(0, 256, size, np.uint8)
    made = []
    for number in (1, 2):
        bundle = make_bundle(folder / f"tiny-{number}", version=str(number))
        (bundle / "extra.bin").write_bytes(weights.tobytes())
        (bundle / "float").mkdir()
        (bundle / "float" / "more.bin").write_bytes(b"more" * 1000)
        made.append(_listed(bundle, replace(read_manifest(bundle), release=1_700_000_000 + number)))
        weights[draw.integers(0, size, size // 100)] += 1
    return made[0], made[1]


def _listed(folder: Path, manifest: Manifest) -> Path:
    """The bundle with all files that are there, below folders too."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    files = {path.relative_to(folder).as_posix(): describe(path) for path in paths}
    write_manifest(folder, to_json(replace(manifest, files=files)))
    return folder


@dataclass(frozen=True)
class Bench:
    """A registry's address (or that of a line to it), and a folder of the test."""

    address: str
    folder: Path

    @property
    def blobs(self) -> Blobs:
        """The cache of the test."""
        return Blobs(self.folder / "cache")

    def url(self, tag: str = "1", repository: str | None = None) -> str:
        """The address of an image, in a repository of the test's own unless another is named."""
        own = "".join(letter for letter in self.folder.name.lower() if letter.isalnum())
        return f"oci://{self.address}/{repository or own}:{tag}"

    def push(self, bundle: Path, tag: str = "1", access: Access = HASTE, older: str | None = None) -> Sent:
        """Push it; `older` is what deltas start from."""
        near = parse_reference(older) if older else None
        sending = pushing.Sending(parse_reference(self.url(tag)), near)
        return pushing.push(bundle, sending, access, self.blobs, lambda words: None)

    def pull(
        self, tag: str = "1", base: Path | None = None, access: Access = HASTE, cache: str = "cache", out: str = "out"
    ) -> Fetched:
        """Pull it to the folder `out`."""
        wish = fetching.Wish(parse_reference(self.url(tag)), self.folder / out, base)
        return fetching.pull(wish, access, Blobs(self.folder / cache), lambda words: None)
