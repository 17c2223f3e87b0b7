"""Every command in README runs, in order, in one folder, as a reader would type it; its table of recipes is the ladder.

Refuses nothing; what README says of the matrix, tests/test_matrix.py holds true."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.drafting import GOALS, SEARCH
from edgekit.ladder import STATIC, Rung
from edgekit.ordering import KEYS
from edgekit.plan import TITLES
from edgekit.recipes import RANGES
from tests import tiny, zoo
from tests.matrix import README

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NET = """
import torch


def make():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(7200, 4))
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README's reader has lying about: models, data, photos; and the installed commands."""
    folder = tmp_path_factory.mktemp("reader")
    tiny.write_model(folder, "model.onnx")
    tiny.write_digits(folder).rename(folder / "test.npz")
    x, _ = tiny.digits()
    np.save(folder / "x.npy", x[:1])
    (folder / "net.py").write_text(NET)
    lite0 = zoo.efficientnet_lite0()
    for path in (lite0.weights, lite0.preprocess, lite0.labels, lite0.chelsea):
        shutil.copy(path, folder / {"chelsea.jpg": "photo.jpg"}.get(path.name, path.name))
    shutil.copy(lite0.factory.rpartition(":")[0], folder / "lite0.py")
    (folder / "lite0.py").write_text(
        (folder / "lite0.py")
        .read_text()
        .replace("Path(__file__).resolve().parents[1]", f"Path({str(ROOT / 'examples')!r})")
    )
    shutil.copytree(lite0.photos.evaluation, folder / "photos")
    keras = zoo.fashion_keras()
    shutil.copy(keras.keras, folder / "model.keras")
    shutil.copy(keras.tflite, folder / "model.tflite")
    return folder


def run_at(desk: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in the reader's folder, with the installed commands on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(words, cwd=desk, capture_output=True, text=True, env={**os.environ, "PATH": path})


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0][:50] for block in BLOCKS])
def test_a_block_of_commands_runs(desk: Path, block: str) -> None:
    done = run_at(desk, "bash", "-c", f"set -euo pipefail\n{block}")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("block", PYTHON)
def test_a_block_of_python_runs(desk: Path, block: str) -> None:
    done = run_at(desk, sys.executable, "-c", block)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("passed ")


def test_readme_names_the_exit_codes_and_both_commands() -> None:
    for words in ("make demo", "make test", "| 0 |", "| 1 |", "| 2 |", "| 3 |", "| 4 |"):
        assert words in TEXT


def test_the_table_of_recipes_is_the_ladder() -> None:
    ways = dict.fromkeys(rung for rungs in STATIC.values() for rung in rungs)
    places = {
        name_of(rung): [str(rungs.index(rung) + 1) if rung in rungs else "-" for rungs in STATIC.values()]
        for rung in ways
    }
    lines = TEXT.splitlines()
    start = lines.index(f"| recipe for int8 | {' | '.join(TITLES[format] for format in STATIC)} | why |")
    rows = [re.split(r" *\| *", line) for line in lines[start + 2 : lines.index("", start)]]
    assert {row[1]: row[2:-2] for row in rows} == places
    assert len(places) == len(ways)


def test_every_way_to_choose_ranges_is_in_the_table_of_recipes() -> None:
    assert {rung.recipe.ranges for rungs in STATIC.values() for rung in rungs} == set(RANGES)


def test_every_goal_and_choice_of_the_search_is_a_flag_in_readme_and_a_key_in_a_drafted_project() -> None:
    drafted = set(re.findall(r"^# ([a-z_]+) = ", "\n".join((*GOALS, *SEARCH)), re.MULTILINE))
    new = {"max_class_drop", "max_latency", "max_size", "max_memory", "smaller", "best", "budget_time", "measure_on"}
    assert new <= drafted <= set(KEYS)
    for key in drafted:
        assert f"--{key.replace('_', '-')}" in TEXT


def name_of(rung: Rung) -> str:
    """What README calls a rung."""
    return ", ".join(filter(None, (rung.recipe.words, "sensitive operators in float" * rung.mixed))) or "plain"
