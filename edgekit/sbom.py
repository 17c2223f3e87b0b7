"""What a bundle is made of, as a CycloneDX 1.6 document: its files, the model's card, the data and the tools. Pure.

Refuses nothing; what the build does not know, licences above all, is left out. Data and tools went into the build and
are not in the bundle: their scope says "excluded"."""

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from edgekit_runtime.manifest import FileEntry, Manifest
from edgekit_runtime.tensors import TensorSpec

SBOM = "sbom.cdx.json"
KINDS = {".json": "application/json", ".html": "text/html", ".md": "text/markdown", ".txt": "text/plain"}


def sbom(manifest: Manifest, facts: Mapping[str, Any], files: Mapping[str, FileEntry], built: str) -> dict[str, Any]:
    """The document. `files` are those that lie there; `built` is ISO 8601. The same bundle gives the same document."""
    seed = "".join(f"{name}:{files[name].sha256}\n" for name in sorted(files))
    model = f"{manifest.name}@{manifest.version}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seed)}",
        "version": 1,
        "metadata": {
            "timestamp": built,
            "tools": {"components": [_package("edgekit-toolchain", facts["edgekit"], kind="application")]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": model,
                "name": manifest.name,
                "version": manifest.version,
                "description": facts["sentence"],
                "modelCard": _card(manifest, facts),
                "properties": [
                    {"name": f"edgekit:{key}", "value": str(value)}
                    for key, value in (
                        *(("target", manifest.target), ("format", manifest.format), ("precision", manifest.precision)),
                        *(("engine", manifest.engine), ("release", manifest.release)),
                    )
                ],
            },
        },
        "components": [
            *(_file(name, entry) for name, entry in sorted(files.items())),
            *(_dataset(role, data) for role, data in _data(facts).items()),
            *({**_package(name, version), "scope": "excluded"} for name, version in sorted(facts["tools"].items())),
        ],
        "dependencies": [{"ref": model, "dependsOn": [_file_ref(name) for name in sorted(files)]}],
    }


def _card(manifest: Manifest, facts: Mapping[str, Any]) -> dict[str, Any]:
    quality = manifest.evidence.get("quality") or {}
    measured: list[dict[str, Any]] = [
        {"type": f"{quality['metric']} ({which})", "value": f"{quality[which]:.6g}", "slice": f"n={quality['n']}"}
        for which in ("value", "reference", "drop")
        if isinstance(quality.get(which), int | float)
    ]
    if measured and all(isinstance(quality.get(end), int | float) for end in ("low", "high")):
        measured[-1]["confidenceInterval"] = {
            "lowerBound": f"{quality['low']:.6g}",
            "upperBound": f"{quality['high']:.6g}",
        }
    return {
        "modelParameters": {
            "datasets": [{"ref": _data_ref(role)} for role in _data(facts)],
            "inputs": [{"format": _tensor(port.spec)} for port in manifest.inputs],
            "outputs": [{"format": _tensor(port.spec)} for port in manifest.outputs],
        },
        **({"quantitativeAnalysis": {"performanceMetrics": measured}} if measured else {}),
    }


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype}[{', '.join('?' if n is None else str(n) for n in spec.shape)}]"


def _data(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The data that is known by its fingerprint, by what it was used for."""
    found = facts.get("data") or {}
    return {role: found[role] for role in ("evaluation", "calibration") if (found.get(role) or {}).get("sha256")}


def _dataset(role: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "data",
        "scope": "excluded",
        "bom-ref": _data_ref(role),
        "name": f"{role} data",
        "hashes": [{"alg": "SHA-256", "content": data["sha256"]}],
        "data": [{"type": "dataset", "name": f"{role} data", "description": f"{data['n']} samples"}],
    }


def _file(name: str, entry: FileEntry) -> dict[str, Any]:
    suffix = name[name.rfind(".") :]
    return {
        "type": "file",
        "bom-ref": _file_ref(name),
        "name": name,
        "mime-type": KINDS.get(suffix, "application/octet-stream"),
        "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
        "properties": [{"name": "edgekit:bytes", "value": str(entry.size)}],
    }


def _package(name: str, version: str, kind: str = "library") -> dict[str, Any]:
    url = f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}"
    return {"type": kind, "bom-ref": url, "name": name, "version": version, "purl": url}


def _file_ref(name: str) -> str:
    return f"file:{name}"


def _data_ref(role: str) -> str:
    return f"data:{role}"
