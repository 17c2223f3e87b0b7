"""Every line of every table opens, and a new one is a file and a line, as README says."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edgekit_runtime.engines import ENGINES
from edgekit_runtime.routes import PROTOCOLS
from edgekit_runtime.rpc import MODULES

from edgekit.converters import ROUTES
from edgekit.quantizers import QUANTIZERS
from edgekit.sources import SOURCES

ROOT = Path(__file__).parents[1]

TOY_SOURCE = '''
"""A toy: a JSON file with a factor."""
import hashlib, json
from edgekit_runtime.tensors import TensorSpec
from edgekit.model import Facts, Model

def fingerprint(origin):
    return hashlib.sha256(origin.path.read_bytes()).hexdigest()

def read(origin):
    factor = json.loads(origin.path.read_text())["factor"]
    x, y = TensorSpec("x", "float32", (None, 2)), TensorSpec("y", "float32", (None, 2))
    return Model(
        origin.path.stem, "toy", {"toy": origin.path}, (x,), (y,), {"x": ("batch", 2)},
        lambda feeds: {"y": feeds["x"] * factor}, Facts({"Mul": 1}, 1, 4),
    )
'''
TOY_CONVERTER = '''
"""A toy: the file as it is."""
import shutil
from edgekit.model import Artifact, plain

def convert(model, folder, tell):
    shutil.copy(model.forms["toy"], folder / "model.toy")
    inputs, outputs = tuple(map(plain, model.inputs)), tuple(map(plain, model.outputs))
    return Artifact("toy", "float32", folder / "model.toy", inputs, outputs)
'''
TOY_ENGINE = '''
"""A toy: multiplies."""
import json
import numpy as np
from edgekit_runtime.tensors import TensorSpec

def open_model(path, options):
    factor = np.float32(json.loads(path.read_text())["factor"])
    return lambda feeds: {"y": feeds["x"] * factor}

def read_specs(path):
    return (TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 2)),)
'''
TOY_TARGET = """
name = "abacus"
title = "An abacus"
arch = "x86_64"
isa = []
cores = 1
memory_mb = 512
storage_mb = 512
engines = ["toy"]
precisions = ["float32"]
"""
LINES = {
    "runtime/edgekit_runtime/engines/__init__.py": ("ENGINES = {", '    "toy": "edgekit_runtime.engines.toy",'),
    "edgekit/sources/__init__.py": ("SOURCES = {", '    ".toy": "edgekit.sources.toy",'),
    "edgekit/converters/__init__.py": ("ROUTES: dict", '    ("toy", "toy"): ("edgekit.converters.toy_to_toy",),'),
}
FILES = {
    "runtime/edgekit_runtime/engines/toy.py": TOY_ENGINE,
    "edgekit/sources/toy.py": TOY_SOURCE,
    "edgekit/converters/toy_to_toy.py": TOY_CONVERTER,
    "targets/abacus.toml": TOY_TARGET,
}


@pytest.mark.slow
@pytest.mark.parametrize("module", [*SOURCES.values(), *QUANTIZERS.values(), *ENGINES.values()])
def test_every_line_names_a_module_with_its_functions(module: str) -> None:
    opened = importlib.import_module(module)
    wanted = {"sources": ("fingerprint", "read"), "quantizers": ("quantize",), "engines": ("open_model", "read_specs")}
    for function in wanted[module.split(".")[-2]]:
        assert callable(getattr(opened, function))


@pytest.mark.parametrize("module", PROTOCOLS)
def test_every_protocol_over_http_has_routes_that_answer_or_read(module: str) -> None:
    routes = importlib.import_module(module).ROUTES
    assert routes
    assert all((route.tell is None) != (route.read is None) for route in routes)
    assert {route.scope for route in routes} <= {"open", "infer", "metrics", "admin"}


@pytest.mark.parametrize("module", MODULES)
def test_every_service_over_grpc_has_methods_that_answer_or_stream(module: str) -> None:
    methods = importlib.import_module(module).METHODS
    assert methods
    assert all((method.answer is None) != (method.stream is None) for method in methods)


@pytest.mark.slow
@pytest.mark.parametrize("step", sorted({step for steps in ROUTES.values() for step in steps}))
def test_every_step_of_a_route_is_a_module_that_converts(step: str) -> None:
    assert callable(importlib.import_module(step).convert)


@pytest.mark.slow
def test_a_new_target_engine_source_and_route_are_a_file_and_a_line_each(tmp_path: Path) -> None:
    """As README says, in a copy of the tree: four files, three lines; then the toy model goes to the toy device."""
    for folder in ("edgekit", "runtime", "targets"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for name, (table, line) in LINES.items():
        written = (tmp_path / name).read_text().splitlines()
        start = next(i for i, text in enumerate(written) if text.startswith(table))
        (tmp_path / name).write_text("\n".join([*written[: start + 1], line, *written[start + 1 :]]) + "\n")
    (tmp_path / "double.toy").write_text('{"factor": 2}')
    command = [
        sys.executable,
        "-m",
        "edgekit",
        "build",
        "double.toy",
        "--target",
        "abacus",
        "--json",
        "--cache",
        "cache",
    ]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{tmp_path / 'runtime'}"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)[0]
    assert (facts["candidates"][0]["format"], facts["target"]["name"]) == ("toy", "abacus")
    assert (tmp_path / "double-abacus.edgekit" / "model.toy").exists()


@pytest.mark.parametrize("place", [*LINES, *FILES])
def test_readme_names_the_places_of_a_new_part(place: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert place.rsplit("/", 1)[0] in readme
