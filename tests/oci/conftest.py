"""What tests of images share: a registry for each file of tests, and bundles of which one is the other's next version.

Refuses nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oci.making import Bench, make_versions
from tests.registry_server import Registry, serving


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's docker-registry."""
    with serving(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle with 3 MB of weights, and its next version, in which some of them changed."""
    return make_versions(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def bench(registry: Registry, tmp_path: Path) -> Bench:
    """An empty cache, and a repository of the test's own."""
    return Bench(registry.address, tmp_path)
