"""What tests of several files share."""

from collections.abc import Iterator

import pytest
from edgekit_runtime.errors import EdgeKitError
from hypothesis import settings

from tests.sshd import Server, serving

settings.register_profile("edgekit", deadline=None)  # how long an example takes tells of the machine's load
settings.load_profile("edgekit")


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
