"""How a bundle came to be, as an in-toto statement with SLSA's provenance, in a signed envelope.

Refuses nothing; what the build does not know is left out."""

import json
from collections.abc import Mapping
from typing import Any

from edgekit_runtime.keypair import envelope
from edgekit_runtime.manifest import FileEntry, Manifest

PROVENANCE = "provenance.intoto.jsonl"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:edgekit:build:1"
BUILDER = "urn:edgekit:toolchain"


def attested(
    manifest: Manifest, facts: Mapping[str, Any], files: Mapping[str, FileEntry], built: str, private_pem: bytes
) -> bytes:
    """One line of JSON: a DSSE envelope with `statement`, signed."""
    payload = json.dumps(statement(manifest, facts, files, built), sort_keys=True).encode()
    return json.dumps(envelope(private_pem, PAYLOAD_TYPE, payload)).encode() + b"\n"


def statement(
    manifest: Manifest, facts: Mapping[str, Any], files: Mapping[str, FileEntry], built: str
) -> dict[str, Any]:
    """The in-toto statement about `files`: the source's weights, the data, the tools, the machine and the command."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": files[name].sha256}} for name in sorted(files)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    **{"command": facts["command"], "name": manifest.name, "version": manifest.version},
                    **{"target": manifest.target, "budget": facts["budget"], "release": manifest.release},
                },
                "internalParameters": {"machine": facts["machine"]},
                "resolvedDependencies": _materials(facts),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"edgekit": facts["edgekit"]}},
                "metadata": {"finishedOn": built},
            },
        },
    }


def _materials(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What went in, by digest; tools by their package addresses."""
    source, data = facts["source"], facts.get("data") or {}
    found = [_known("source model", source["model"], source["sha256"])]
    for role in ("evaluation", "calibration"):
        if (one := data.get(role) or {}).get("sha256"):
            found.append(_known(f"{role} data", one["where"], one["sha256"]))
    tools = sorted(facts["tools"].items())
    return [*found, *({"name": name, "uri": f"pkg:pypi/{name.lower()}@{version}"} for name, version in tools)]


def _known(name: str, where: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}, "annotations": {"where": where}}
