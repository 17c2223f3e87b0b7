"""What vouches for a built bundle: the signature, the bill of materials, how it came to be. And builds that differ."""

import json
import subprocess
from pathlib import Path

import pytest
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.keypair import opened, public_of
from edgekit_runtime.signature import SIGNATURE

import edgekit
from edgekit import keys
from edgekit.attesting import PAYLOAD_TYPE, PROVENANCE
from edgekit.isolated import environment
from edgekit.sbom import SBOM
from tests.runtime.signing import read_signature

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(found) if found else 0)
"""


def build(shelf: Path, desk: Path, **words):
    said = {"data": str(shelf / "digits.npz"), "max_drop": "5pt", "cache": str(shelf / "cache"), "version": "7"}
    said |= {"keys": str(desk / "keys"), "out": str(desk / "digits.edgekit")}
    (outcome,) = edgekit.build(str(shelf / "digits.onnx"), target="x86-64-v3", **{**said, **words})
    return outcome.bundle


def digests(folder: Path) -> dict[str, str]:
    from edgekit.bundle import described

    return {name: entry.sha256 for name, entry in described(folder).items()}


def test_what_is_built_is_signed_over_every_file(shelf, desk):
    bundle = build(shelf, desk)
    signed = read_signature((bundle / SIGNATURE).read_bytes(), keys.signing_key(desk / "keys"))
    found = digests(bundle)
    del found[SIGNATURE]
    assert signed.files == found
    assert open_bundle(bundle).manifest.release > 1_700_000_000


def test_provenance_names_weights_data_tools_machine_and_command(shelf, desk):
    bundle = build(shelf, desk, release=41, expires="365d")
    public = public_of(keys.signing_key(desk / "keys"))
    told = json.loads(opened(json.loads((bundle / PROVENANCE).read_text()), {public.fingerprint: public}, PAYLOAD_TYPE))
    named = {one["name"]: one["digest"]["sha256"] for one in told["subject"]}
    found = digests(bundle)
    assert named == {name: found[name] for name in found.keys() - {SIGNATURE, PROVENANCE, "manifest.json"}}
    made = told["predicate"]["buildDefinition"]
    assert "edgekit build" in made["externalParameters"]["command"]
    assert made["externalParameters"]["release"] == 41
    assert made["internalParameters"]["machine"]["isa"]
    parts = {one["name"]: one for one in made["resolvedDependencies"]}
    assert {"source model", "evaluation data", "calibration data", "onnxruntime"} <= parts.keys()
    assert len(parts["evaluation data"]["digest"]["sha256"]) == 64
    manifest = open_bundle(bundle).manifest
    assert manifest.release == 41
    assert manifest.expires is not None


def test_the_bill_of_materials_passes_the_schema(shelf, desk):
    bundle = build(shelf, desk)
    python = environment("cyclonedx", HERE / "requirements-cyclonedx.txt", lambda words: None)
    subprocess.run([python, "-c", VALIDATE, bundle / SBOM], check=True, capture_output=True, timeout=300)
    bill = json.loads((bundle / SBOM).read_text())
    files = {one["name"]: one["hashes"][0]["content"] for one in bill["components"] if one["type"] == "file"}
    found = digests(bundle)
    assert files == {name: found[name] for name in found.keys() - {SIGNATURE, PROVENANCE, SBOM, "manifest.json"}}
    assert bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["value"]
    touched = {**bill, "specVersion": 5}
    (desk / "touched.json").write_text(json.dumps(touched))
    assert subprocess.run([python, "-c", VALIDATE, desk / "touched.json"], capture_output=True).returncode


def test_an_unsigned_build_says_nothing_of_keys(shelf, desk):
    bundle = build(shelf, desk, unsigned=True)
    assert not (bundle / SIGNATURE).exists()
    assert not (bundle / PROVENANCE).exists()
    assert (bundle / SBOM).exists()
    assert not (desk / "keys").exists()


def test_another_key_is_another_build(shelf, desk):
    build(shelf, desk)
    keys.rotate(desk / "keys", "main")
    bundle = build(shelf, desk)
    secret = keys.signing_key(desk / "keys")
    assert read_signature((bundle / SIGNATURE).read_bytes(), secret).key == public_of(secret).fingerprint


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"expires": "2020-01-01"}, "past"), ({"expires": "soon"}, "no day"), ({"release": -1}, "no release"),
        ({"unsigned": True, "key": "main"}, "contradict"), ({"key": "nobody"}, "no key is called"),
    ],
)  # fmt: skip
def test_what_cannot_be_signed_so_is_said_before_anything_is_made(shelf, desk, words, said):
    with pytest.raises(EdgeKitError, match=said):
        build(shelf, desk, **words)
    assert not (desk / "digits.edgekit").exists()


def test_no_key_is_made_for_a_model_that_is_not_there(desk):
    with pytest.raises(EdgeKitError):
        edgekit.build("nosuch.onnx", target="x86-64-v3", keys=str(desk / "keys"), cache=str(desk / "cache"))
    assert not (desk / "keys").exists()
