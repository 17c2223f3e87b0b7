"""KServe's and OpenVINO Model Server's own clients, unmodified, in an environment of their own."""

import json
import subprocess
from pathlib import Path

import pytest

from edgekit.isolated import environment
from tests.clients.models import ENGINES
from tests.clients.serving import Running
from tests.runtime.bundles import some, truth

HERE = Path(__file__).parent
STORIES = [
    "rest_v2_health",
    "rest_v2_infer_json_and_binary",
    "rest_v2_fp16_and_bytes",
    "rest_v2_errors_are_told",
    "rest_v1",
    "rest_over_a_unix_socket",
    "grpc_v2",
    "ovms_http",
    "ovms_grpc",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told(running: Running) -> dict[str, str]:
    """What went wrong in each story; nothing where it went well."""
    python = environment("kserve", HERE / "requirements-kserve.txt", lambda _: None)
    at = {"http": running.http, "grpc": running.grpc, "unix": running.unix, "x": some(2).tolist()}
    at |= {"y": truth(some(2)).tolist(), "models": [f"tiny-{engine}" for engine in ENGINES]}
    done = subprocess.run(
        [python, HERE / "inside_kserve.py"],
        input=json.dumps(at),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PATH": "/usr/bin:/bin", "NO_PROXY": "*"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("story", STORIES)
def test_the_client_is_served(told: dict[str, str], story: str) -> None:
    assert not told[story], told[story]


def test_every_story_was_told(told: dict[str, str]) -> None:
    assert sorted(told) == sorted(STORIES)
