"""The floors: who may import whom, and what a start may load."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "ai_edge_litert", "ai_edge_quantizer", "keras", "litert_torch", "nncf", "numpy", "onnx", "onnxruntime", "openvino",
    "rich", "scipy", "tensorflow", "torch",
)  # fmt: skip


def loaded(*words: str) -> set[str]:
    """The top-level modules that a fresh process has loaded after running `words` of the command line."""
    code = (
        "import sys\nfrom edgekit.cli import main\n"
        f"try:\n    main({list(words)!r})\nexcept SystemExit:\n    pass\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in out.splitlines()[-1].split()}


def test_every_floor_imports_from_lower_floors_only() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("words", [("--help",), ("build", "--help"), ("--version",)])
def test_help_loads_no_framework(words: tuple[str, ...]) -> None:
    assert not loaded(*words) & set(HEAVY)


def test_the_runtime_loads_numpy_and_nothing_heavier() -> None:
    code = "import sys, edgekit_runtime; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {name.partition(".")[0] for name in out.split()} & set(HEAVY) <= {"numpy"}


def test_nothing_says_to_install_edgekit_from_an_index() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("edgekit/**/*.py"), *ROOT.glob("runtime/**/*.py"), ROOT / "Makefile"]:
        assert "pip install edgekit" not in path.read_text(encoding="utf-8"), path


def test_nothing_is_unpickled() -> None:
    for path in [*ROOT.glob("edgekit/**/*.py"), *ROOT.glob("runtime/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "allow_pickle=True" not in text, path
        assert "weights_only=False" not in text, path
        assert "pickle.load" not in text, path
