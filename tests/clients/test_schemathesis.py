"""schemathesis asks everything that the served OpenAPI document allows, and much that it does not."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.isolated import environment
from tests.clients.models import make_words
from tests.clients.serving import Running, rss, serving
from tests.runtime.bundles import make_bundle

HERE = Path(__file__).parent
EXAMPLES = 25
GROWTH = 96.0
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of its own: its counters and its size are looked at."""
    folder = tmp_path_factory.mktemp("asked")
    bundles = [make_bundle(folder / "a"), make_words(folder / "b")]
    make_bundle(folder / "repository" / "spare", name="spare")
    with serving(bundles, "--admin", "127.0.0.1:0", "--repository", folder / "repository") as found:
        yield found


@pytest.mark.parametrize(
    ("door", "how"),
    [
        ("http", []),
        ("http", ["--checks", "all", "--include-method", "GET", "--mode", "positive"]),
        ("admin", ["--include-path-regex", "repository|setting|logging"]),
    ],
)
def test_what_the_document_says_is_so(asked: Running, door: str, how: list[str], tmp_path: Path) -> None:
    python = environment("schemathesis", HERE / "requirements-schemathesis.txt", lambda _: None)
    seconds = int(float(os.environ.get("FUZZ_SECONDS", "0")))
    longer = ["--max-time", str(seconds)] if seconds else ["--seed", "4", "--max-examples", str(EXAMPLES)]
    before = rss(asked.pid)
    where = f"{getattr(asked, door)}/v2/openapi.json"
    done = subprocess.run(
        [
            python.with_name("st"),
            "--config-file",
            HERE / "schemathesis.toml",
            "run",
            where,
            "--phases",
            "examples,coverage,fuzzing",
            *how,
            *longer,
            "--no-color",
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=600 + 2 * seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert rss(asked.pid) - before < GROWTH
