"""Every command in README runs, in order, in one folder, as a reader would type it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny, zoo
from tests.matrix import README

ROOT = README.parent
BLOCKS = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
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


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0][:50] for block in BLOCKS])
def test_a_block_of_commands_runs(desk: Path, block: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = f"set -euo pipefail\n{block}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=desk, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_readme_names_the_exit_codes_and_both_commands() -> None:
    text = README.read_text(encoding="utf-8")
    for words in ("make demo", "make test", "| 0 |", "| 1 |", "| 2 |", "| 3 |", "| 4 |"):
        assert words in text
