"""`make wheels`: two wheels that carry all they need, and a fresh environment in which the device's serves.

Refuses nothing; the fresh environment takes the pinned versions from pip, as a device does."""

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.tensors import Array

from tests.clients.serving import rss
from tests.matrix import README
from tests.runtime.bundles import make_bundle, some, truth

pytestmark = pytest.mark.slow

ROOT = README.parent
ASKED = {"edgekit-runtime", "numpy", "onnxruntime", "httptools", "orjson"}
"""What `[onnx,http]` says that it brings; the engine brings what it needs itself."""
LIST = """
import importlib.metadata as metadata, json, re, sys
found = {}
for one in metadata.distributions():
    files = {one.locate_file(name).resolve() for name in one.files or ()}
    size = sum(path.stat().st_size for path in files if path.is_file())
    wanted = [re.match(r"[\\w.-]+", text)[0] for text in one.requires or () if "extra ==" not in text]
    found[one.metadata["Name"]] = [size, wanted]
json.dump(found, sys.stdout)
"""
HEAVY = {"asyncio", "ssl", "logging", "onnxruntime", "PIL", "httptools", "orjson", "edgekit_runtime.serving"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `make wheels` makes, by distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    for left in ("build", "runtime/build"):  # setuptools packs what an earlier build left there
        shutil.rmtree(ROOT / left, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*command, "./runtime", "."], cwd=ROOT, check=True)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def fresh(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with `edgekit-runtime[onnx,http]` alone; its Python (-I keeps the checkout off its path)."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install(folder / "bin" / "python", f"{wheels['edgekit_runtime']}[onnx,http]")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for ONNX Runtime that takes photos."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def install(python: Path, wanted: str) -> None:
    """By pip, at the pinned versions."""
    options = ["--quiet", "--disable-pip-version-check", "--constraint", ROOT / "requirements.txt"]
    subprocess.run([python, "-I", "-m", "pip", "install", *options, wanted], check=True)


@contextmanager
def serving(python: Path, *words: str | Path) -> Iterator[tuple[dict[str, Any], int]]:
    """A server of that environment: where it listens, and its process id."""
    command = [python, "-I", "-m", "edgekit_runtime", "serve", *words, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline()), process.pid
        finally:
            process.terminate()
            assert process.wait(30) == 0


def post(url: str, body: bytes, kind: str) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of an answer."""
    request = urllib.request.Request(url, body, {"content-type": kind})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def imported(python: Path, code: str) -> set[str]:
    """What is imported after `code` ran."""
    done = subprocess.run(
        [python, "-I", "-c", f"{code}\nimport sys\nsys.stderr.write(' '.join(sys.modules))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return set(done.stderr.split())


def test_the_wheels_carry_targets_templates_locks_and_what_is_shown_and_sent_on(wheels: dict[str, Path]) -> None:
    held = {name: set(zipfile.ZipFile(path).namelist()) for name, path in wheels.items()}
    assert held.keys() == {"edgekit_toolchain", "edgekit_runtime"}
    assert {"targets/rpi5.toml", "edgekit/report/page.html", "edgekit/converters/onnx2tf-requirements.txt"} <= held[
        "edgekit_toolchain"
    ]
    assert "edgekit_runtime/engines/tflite.py" in held["edgekit_runtime"]
    protos = {f"edgekit_runtime/protos/{name}.pb" for name in ("health", "inference", "tensorflow_serving")}
    assert {"edgekit_runtime/py.typed", *protos} <= held["edgekit_runtime"]
    for folder in ("page", "prometheus", "ecs"):
        files = {
            f"edgekit_runtime/{folder}/{one.name}" for one in (ROOT / "runtime/edgekit_runtime" / folder).iterdir()
        }
        assert len(files) >= 3
        assert files <= held["edgekit_runtime"]
    modules = {str(path.relative_to(ROOT / "runtime")) for path in (ROOT / "runtime/edgekit_runtime").rglob("*.py")}
    assert {name for name in held["edgekit_runtime"] if name.endswith(".py")} == modules
    assert not any(name.startswith(("tests/", "examples/")) for names in held.values() for name in names)


def test_the_device_installs_what_was_asked_for_and_at_most_15_mb_beside_engine_and_numpy(fresh: Path) -> None:
    done = subprocess.run([fresh, "-I", "-c", LIST], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    for name in ("pip", "setuptools"):  # the environment's own
        found.pop(name, None)
    assert found.keys() >= ASKED
    assert found.keys() - ASKED <= set(found["onnxruntime"][1])
    assert "grpcio" not in found
    beside = {name: size for name, (size, _) in found.items() if name not in ("numpy", "onnxruntime")}
    assert 100_000 < sum(beside.values()) <= 15e6, beside


def test_help_and_the_package_itself_import_nothing_heavy(fresh: Path) -> None:
    assert not imported(fresh, "import edgekit_runtime") & {"numpy", "argparse", *HEAVY}
    for words in ("--help", "serve --help"):
        code = f"from edgekit_runtime.__main__ import main\ntry:\n    main({words.split()})\nexcept SystemExit: pass"
        assert not imported(fresh, code) & HEAVY


def test_a_server_without_models_is_within_25_mb_of_numpy(fresh: Path, tmp_path: Path) -> None:
    code = "import numpy, sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"
    with subprocess.Popen([fresh, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        numpy_alone = rss(process.pid)
        process.communicate()
    with serving(fresh, "--repository", tmp_path) as (at, pid):
        for path in ("/v2/health/ready", "/v2/models", "/metrics", "/v2/openapi.json"):
            with urllib.request.urlopen(at["http"] + path, timeout=30) as answer:
                assert answer.status == 200
        assert rss(pid) - numpy_alone <= 25


def test_the_installed_wheel_serves_tensors_and_says_what_photos_need(fresh: Path, bundle: Path) -> None:
    x = some(2)
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    with serving(fresh, bundle) as (at, _):
        url = f"{at['http']}/v2/models/tiny/infer"
        status, answer = post(url, json.dumps({"inputs": [tensor]}).encode(), "application/json")
        assert status == 200
        np.testing.assert_allclose(np.reshape(answer["outputs"][0]["data"], (2, 4)), truth(x), rtol=1e-4, atol=1e-5)
        status, answer = post(url, (ROOT / "fixtures/chelsea.jpg").read_bytes(), "image/jpeg")
        assert status == 501
        assert "[image]" in answer["hint"]


def test_grpc_is_an_extra_and_its_absence_says_so(fresh: Path, wheels: dict[str, Path], bundle: Path) -> None:
    command = [fresh, "-I", "-m", "edgekit_runtime", "serve", bundle, "--port", "0", "--grpc-port", "0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "error: gRPC needs grpc" in refused.stderr
    assert "[grpc]" in refused.stderr.splitlines()[-1]
    install(fresh, f"{wheels['edgekit_runtime']}[grpc]")
    x = some(2)
    with serving(fresh, bundle, "--grpc-port", "0") as (at, _):
        np.testing.assert_allclose(asked_by_grpc(at["grpc"], x), truth(x), rtol=1e-4, atol=1e-5)


def asked_by_grpc(address: str, x: Array) -> Array:
    """The answer to `x`, by Triton's client."""
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(address) as client:
        given = triton.InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        answer: Array = client.infer("tiny", [given]).as_numpy("y")
    return answer
