"""Other people's programs with our images, unmodified: skopeo, oras, and PyPI's client of CNCF ModelPack."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.isolated import environment
from edgekit.oci.image import pack
from edgekit.oci.layout import read_layout, write_layout
from tests.oci.making import Bench
from tests.oci.test_round_trip import same
from tests.registry_server import skopeo

HERE = Path(__file__).parent
Versions = tuple[Path, Path]
pytestmark = pytest.mark.slow


def client(what: str, bench: Bench) -> Path:
    """The folder that a client of PyPI pulled to."""
    python = environment("oras", HERE.parent / "requirements-oras.txt", lambda _: None)
    out = bench.folder / what
    out.mkdir()
    done = subprocess.run(
        [python, HERE / "inside_clients.py", what, bench.url().removeprefix("oci://"), out],
        capture_output=True, text=True, timeout=120, check=False, cwd=bench.folder,
        env={"PATH": "/usr/bin:/bin", "NO_PROXY": "*", "HOME": str(bench.folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_skopeo_copies_from_registry_to_layout_to_registry(bench: Bench, versions: Versions) -> None:
    sent = bench.push(versions[0])
    there = bench.url().replace("oci://", "docker://")
    layout = f"oci:{bench.folder}/copied.oci:1"
    elsewhere = Bench(bench.address, bench.folder / "elsewhere")
    for words in (
        ["copy", "--src-tls-verify=false", there, layout],
        ["copy", "--dest-tls-verify=false", layout, elsewhere.url().replace("oci://", "docker://")],
    ):
        done = skopeo(*words)
        assert done.returncode == 0, done.stderr
    assert read_layout(bench.folder / "copied.oci").descriptor.digest == sent.digest
    assert replace(elsewhere, folder=bench.folder / "elsewhere").pull().digest == sent.digest
    assert same(versions[0], elsewhere.folder / "out")


def test_skopeo_reads_what_was_packed(bench: Bench, versions: Versions) -> None:
    packed = pack(versions[0])
    write_layout(packed, bench.folder / "tiny.oci")
    done = skopeo("inspect", "--raw", f"oci:{bench.folder}/tiny.oci:1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.encode().rstrip(b"\n") == packed.manifest
    assert json.loads(done.stdout)["annotations"]["io.edgekit.name"] == "tiny"
    sent = skopeo(
        "copy", "--dest-tls-verify=false", f"oci:{bench.folder}/tiny.oci:1", bench.url().replace("oci://", "docker://")
    )
    assert sent.returncode == 0, sent.stderr
    assert bench.pull().digest == packed.descriptor.digest


@pytest.mark.parametrize("what", ["oras", "modelpack"])
def test_a_client_pulls_the_very_bundle(what: str, bench: Bench, versions: Versions) -> None:
    bench.push(versions[0])
    assert same(versions[0], client(what, bench))
