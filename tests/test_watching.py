"""What the user's code opens is seen: its sources, compiled or not, and every file that they read."""

import sys
from pathlib import Path

from edgekit.userland import load_function
from edgekit.watching import watched


def test_sources_and_what_they_read_are_seen_and_nothing_of_python_itself(tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text("[1]")
    (tmp_path / "beside_it.py").write_text("WIDE = 3\n")
    (tmp_path / "net.py").write_text(
        "import json, pathlib, colorsys\nfrom beside_it import WIDE\n"
        "def make():\n    return json.loads((pathlib.Path(__file__).parent / 'sizes.json').read_text())\n"
    )
    for _ in range(2):  # the second time from compiled files
        with watched() as files:
            load_function(f"{tmp_path / 'net.py'}:make")()
        assert {Path(path).name for path in files} == {"net.py", "beside_it.py", "sizes.json"}
        sys.modules.pop("beside_it")


def test_what_is_opened_outside_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with watched() as files:
        (tmp_path / "a").read_text()
    (tmp_path / "b").read_text()
    assert {Path(path).name for path in files} == {"a"}
