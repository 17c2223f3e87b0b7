"""What tests of several files share."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError
from hypothesis import settings

from examples.sshd import Server, serving

settings.register_profile("edgekit", deadline=None)  # how long an example takes tells of the machine's load
settings.load_profile("edgekit")

SLOW = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without the slow tests, a file that has no others is left alone: what it imports would take a while."""
    if config.getoption("markexpr") != "not slow" or collection_path.suffix != ".py":
        return None
    return SLOW.search(collection_path.read_text(encoding="utf-8")) is not None or None


@pytest.fixture(scope="session", autouse=True)
def _keys_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the suite builds is signed by keys of its own; nobody's own, nor their devices, are touched."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """What a test set up of the runtime's logs (the command line does) ends with it."""
    ours = logging.getLogger("edgekit_runtime")
    level, handlers, propagate = ours.level, ours.handlers[:], ours.propagate
    yield
    ours.setLevel(level)
    ours.handlers[:], ours.propagate = handlers, propagate


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real OpenSSH server on loopback; skipped where there is none and none can be fetched."""
    try:
        with serving(tmp_path_factory.mktemp("sshd")) as found:
            yield found
    except EdgeKitError as error:
        if "there is no" in error.what or "no Debian source" in error.what:
            pytest.skip(error.what)
        raise


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits.onnx, digits.npz and a cache that the tests of this module share."""
    from tests import tiny  # brings onnx, which most tests do without

    folder = tmp_path_factory.mktemp("shelf")
    tiny.write_model(folder)
    tiny.write_digits(folder)
    return folder


@pytest.fixture
def desk(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
