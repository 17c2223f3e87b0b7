"""The manifest of a bundle: what is in it, how it is called, what was proven. Pure: JSON values in, frozen values out.

Refuses an unknown schema, a missing or misspelt field, and names that could not be a folder or a URL."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgekit_runtime import encrypted, exam
from edgekit_runtime.encrypted import Encrypted
from edgekit_runtime.engines import ENGINES, EngineOptions, options_json, parse_options
from edgekit_runtime.errors import BadBundle
from edgekit_runtime.exam import Exam
from edgekit_runtime.ports import Port
from edgekit_runtime.tensors import TensorSpec

SCHEMA = 1
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What names and versions look like: they become folder names and URLs."""


Json = Mapping[str, Any]


@dataclass(frozen=True)
class Golden:
    """Recorded inputs and outputs in `file`, and how far (in parts of each output's range) an answer may be off."""

    file: str
    count: int
    tolerance: float


@dataclass(frozen=True)
class Shadow:
    """The float artifact that some answers are compared with: `entry` is its file, for the manifest's own engine or
    `engine`."""

    engine: str
    entry: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class FileEntry:
    """What a file of the bundle must be: hex SHA-256 and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """All that the device needs to know. `preprocess`, `evidence` and `provenance` are JSON as in the file.

    `baseline` is the file that says what inputs and outputs looked like when the bundle was built (see `drift`).
    `release` grows from version to version: what is older than a device's floor is not installed there; the second of
    its build where nobody chose another. After the second `expires` it is not installed any more. Both in Unix time.
    `encrypted` says which files lie there encrypted, and for which device.
    """

    name: str
    version: str
    target: str
    format: str
    precision: str
    engine: str
    entry: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    files: Mapping[str, FileEntry]
    options: EngineOptions = field(default_factory=EngineOptions)
    preprocess: Json | None = None
    labels: str | None = None
    golden: Golden | None = None
    exam: Exam | None = None
    baseline: str | None = None
    shadow: Shadow | None = None
    evidence: Json = field(default_factory=dict)
    provenance: Json = field(default_factory=dict)
    release: int = 0
    expires: int | None = None
    encrypted: Encrypted | None = None
    schema: int = SCHEMA


def parse(raw: object) -> Manifest:
    """The manifest that `raw` (decoded JSON) describes.

    Raises:
        BadBundle: a field is missing, unknown, of the wrong type, or of a newer schema.
    """
    if not isinstance(raw, dict):
        raise BadBundle("the manifest is not a JSON object")
    if raw.get("schema") != SCHEMA:
        raise BadBundle(
            f"manifest schema {raw.get('schema')!r}; this runtime reads {SCHEMA}", hint="update edgekit-runtime"
        )
    try:
        fields = dict(raw)
        for key in ("name", "version", "target"):
            if not PLAIN.fullmatch(fields[key]):
                raise BadBundle(
                    f"manifest {key} {fields[key]!r} is not a plain word", hint="use letters, digits, . _ -"
                )
        if fields["engine"] not in ENGINES:
            raise BadBundle(f"manifest names an unknown engine {fields['engine']!r}", hint="update edgekit-runtime")
        fields["inputs"] = tuple(map(port_from_json, fields["inputs"]))
        fields["outputs"] = tuple(map(port_from_json, fields["outputs"]))
        fields["files"] = {_inside(path): FileEntry(**entry) for path, entry in fields["files"].items()}
        fields["options"] = parse_options(fields.get("options", {}))
        fields["golden"] = _golden(fields["golden"]) if fields.get("golden") else None
        fields["exam"] = exam.parse(fields["exam"]) if fields.get("exam") else None
        fields["shadow"] = _shadow(fields["shadow"]) if fields.get("shadow") else None
        fields["encrypted"] = encrypted.parse(fields["encrypted"]) if fields.get("encrypted") else None
        manifest = Manifest(**fields)
        _check(manifest)
        return manifest
    except KeyError as error:
        raise BadBundle(f"the manifest lacks {error.args[0]!r}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise BadBundle(f"the manifest does not read: {error}") from error


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The JSON object that `parse` reads back."""
    raw = asdict(manifest)
    raw["inputs"] = [port_to_json(port) for port in manifest.inputs]
    raw["outputs"] = [port_to_json(port) for port in manifest.outputs]
    raw["options"] = options_json(manifest.options)
    if manifest.exam is None:
        raw.pop("exam")  # runtimes that know of none read the bundle still
    if manifest.shadow is not None:
        for side in ("inputs", "outputs"):
            raw["shadow"][side] = [port_to_json(port) for port in getattr(manifest.shadow, side)]
    if manifest.encrypted is not None:
        raw["encrypted"] = encrypted.to_json(manifest.encrypted)
    return {"schema": raw.pop("schema"), **raw}


def _check(manifest: Manifest) -> None:
    """What only the fields together tell."""
    golden, shadow = manifest.golden, manifest.shadow
    named: dict[str, str | None] = {"entry": manifest.entry, "labels": manifest.labels, "baseline": manifest.baseline}
    named |= {"golden": golden.file if golden else None, "shadow": shadow.entry if shadow else None}
    named["exam"] = manifest.exam.file if manifest.exam else None
    for key, file in named.items():
        if (file is not None or key == "entry") and file not in manifest.files:
            raise BadBundle(f"manifest {key} {file!r} is not among its files", hint="build the bundle again")
    for side in (manifest.inputs, manifest.outputs):
        names = [port.spec.name for port in side]
        if not names or len(set(names)) != len(names):
            raise BadBundle(f"manifest names no tensors, or one twice: {', '.join(names)}")
    if manifest.exam is not None and manifest.exam.output not in {port.spec.name for port in manifest.outputs}:
        raise BadBundle(f"manifest exam is of {manifest.exam.output!r}, which is no output of the model")
    for name in ("inputs", "outputs") if shadow is not None else ():
        if _specs(getattr(shadow, name)) != _specs(getattr(manifest, name)):
            raise BadBundle(f"manifest shadow has other {name} than the model", hint="build the bundle again")
    if manifest.encrypted is not None:
        encrypted.check(manifest.encrypted, {name: entry.size for name, entry in manifest.files.items()})
    if not _size(manifest.release) or not (manifest.expires is None or _size(manifest.expires)):
        raise BadBundle("manifest release and expires must be whole numbers of 0 or more")
    texts = (manifest.format, manifest.precision)
    tables = (manifest.evidence, manifest.provenance, manifest.preprocess or {})
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(table, dict) for table in tables):
        raise BadBundle("manifest format and precision must be text; preprocess, evidence and provenance objects")


def _specs(ports: tuple[Port, ...]) -> list[TensorSpec]:
    return sorted((port.spec for port in ports), key=lambda spec: spec.name)


def _inside(path: str) -> str:
    """A path that stays within the bundle's folder, written the one way it can be."""
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise BadBundle(f"manifest names a file outside the bundle: {path!r}", hint="do not use this bundle")
    return path


def _shadow(raw: Json) -> Shadow:
    if not isinstance(raw["entry"], str):
        raise BadBundle(f"manifest shadow entry {raw['entry']!r} is no file")
    if raw["engine"] not in ENGINES:
        raise BadBundle(f"manifest shadow names an unknown engine {raw['engine']!r}", hint="update edgekit-runtime")
    sides = {side: tuple(map(port_from_json, raw[side])) for side in ("inputs", "outputs")}
    return Shadow(**{**raw, **sides})


def _golden(raw: Json) -> Golden:
    golden = Golden(**raw)
    if not _size(golden.count) or isinstance(golden.tolerance, bool) or not 0 <= golden.tolerance < math.inf:
        raise BadBundle("manifest golden: count and tolerance must be finite numbers of 0 or more")
    return golden


def port_from_json(raw: Json) -> Port:
    spec, inside, order = _spec(raw["spec"]), _spec(raw["inside"]), raw.get("order")
    if order is not None and not len(spec.shape) == len(inside.shape) == len(order):
        raise BadBundle(f"manifest {spec.name}: order {order} does not fit its shapes")
    if order is not None and sorted(order) != list(range(len(order))):
        raise BadBundle(f"manifest {spec.name}: {order} is no order of axes")
    return Port(spec, inside, tuple(order) if order is not None else None)


def _spec(raw: Json) -> TensorSpec:
    spec = TensorSpec(**{**raw, "shape": tuple(raw["shape"])})
    if not isinstance(spec.name, str) or not isinstance(spec.dtype, str) or np.dtype(spec.dtype).name != spec.dtype:
        raise BadBundle(f"manifest tensor {spec.name!r}: no dtype {spec.dtype!r}")
    if not all(n is None or _size(n) for n in spec.shape):
        raise BadBundle(f"manifest {spec.name}: {list(spec.shape)} is not a shape")
    if spec.scale is not None and not (0 < spec.scale < math.inf and isinstance(spec.zero_point, int)):
        raise BadBundle(f"manifest {spec.name}: scale {spec.scale!r} and zero point {spec.zero_point!r} do not fit")
    return spec


def _size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def port_to_json(port: Port) -> dict[str, Any]:
    return {
        "spec": _spec_json(port.spec),
        "inside": _spec_json(port.inside),
        "order": None if port.order is None else list(port.order),
    }


def _spec_json(spec: TensorSpec) -> dict[str, Any]:
    raw: dict[str, Any] = {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
    return raw if spec.scale is None else {**raw, "scale": spec.scale, "zero_point": spec.zero_point}
