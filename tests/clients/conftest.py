"""The one server that the client tests of a worker share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.models import all_bundles
from tests.clients.serving import Running, serving
from tests.runtime.bundles import make_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All bundles, made once."""
    return all_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle that can be unloaded and loaded."""
    folder = tmp_path_factory.mktemp("repository")
    make_bundle(folder / "spare", name="spare", version="3")
    return folder


@pytest.fixture(scope="session")
def running(bundles: list[Path], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with every door open on loopback."""
    sockets = tmp_path_factory.mktemp("s")
    options = [
        "--grpc-port",
        "0",
        "--admin",
        "127.0.0.1:0",
        "--admin-grpc",
        "127.0.0.1:0",
        "--unix",
        sockets / "http.sock",
    ]
    options += ["--repository", repository, "--alias", "default=tiny-onnx", "--alias", "old=tiny-onnx@9"]
    with serving(bundles, *options) as found:
        yield found
    shutil.rmtree(sockets)
