"""The runtime as wheels for a device: which ones it needs, of which versions; fetched once and kept in a cache.

Refuses a device for which there are none, naming the wheel; nothing is ever built from source."""

import hashlib
import io
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import edgekit_runtime
from edgekit_runtime.bundle import describe
from edgekit_runtime.detect import PACKAGES
from edgekit_runtime.errors import EdgeKitError, NotFound
from edgekit_runtime.manifest import Manifest

from edgekit.isolated import call, default_cache, locked
from edgekit.model import Tell
from edgekit.places.roots import WHEELS

LAYOUT = 1
"""Raised when a runtime is laid out differently on the device."""
SIGNED = ("cryptography", "cffi", "pycparser")
FASTER = {"aarch64": ("httptools", "orjson"), "x86_64": ("httptools", "orjson"), "armv7l": ("h11",)}
"""By architecture of the programs: what reads HTTP and JSON."""
OF_THE_SYSTEM = {"armv7l": "numpy"}
"""What no wheel brings there; it has to come from the device's own distribution."""
OLDEST = 17
"""The minor version of the oldest C library that wheels are made for."""
OURS = "edgekit_runtime"
DATED = (2020, 1, 1, 0, 0, 0)
"""Of all files in our own wheel, so that the same sources give the same wheel."""


@dataclass(frozen=True)
class Platform:
    """What a device's wheels must be for."""

    arch: str
    python: tuple[int, int]
    glibc: tuple[int, int]


@dataclass(frozen=True)
class Wheel:
    """A wheel that lies here: its file, digest and size."""

    path: Path
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Of its file."""
        return self.path.name


@dataclass(frozen=True)
class Wheelhouse:
    """All wheels of a runtime. `pins`: distribution -> version; `engines` are those that it runs."""

    platform: Platform
    wheels: tuple[Wheel, ...]
    pins: Mapping[str, str]
    engines: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of all of it: the runtime's identity on a device."""
        said = [LAYOUT, *self.platform.python, sorted((wheel.name, wheel.sha256) for wheel in self.wheels)]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    @property
    def unpacked(self) -> int:
        """Bytes on the device's disk."""
        total = 0
        for wheel in self.wheels:
            with zipfile.ZipFile(wheel.path) as archive:
                total += sum(member.file_size for member in archive.infolist())
        return total

    def facts(self) -> dict[str, object]:
        """What is written down beside the runtime on the device."""
        return {
            "layout": LAYOUT,
            "digest": self.digest,
            "version": edgekit_runtime.__version__,
            "engines": list(self.engines),
            "pins": dict(self.pins),
        }


def wanted(
    manifest: Manifest, arch: str, there: Mapping[str, object] | None = None
) -> tuple[dict[str, str], list[str]]:
    """The pins and the engines of the runtime that this bundle takes, and that still runs what was `there`.

    An engine is of the version that the bundle was proven with; others stay as they are on the device.
    """
    pins = {name: _here(name) for name in ("numpy", *SIGNED, *FASTER.get(arch, ())) if name != OF_THE_SYSTEM.get(arch)}
    before = there.get("pins") if there else None
    kept = {str(k): str(v) for k, v in before.items()} if isinstance(before, dict) else {}
    shadow = manifest.shadow
    needed = list(dict.fromkeys([manifest.engine, *([shadow.engine] if shadow else [])]))
    listed = there.get("engines") if there else None
    image = manifest.preprocess is not None and manifest.preprocess.get("kind") == "image"
    if image or "pillow" in kept:
        pins["pillow"] = _here("pillow")
    others = [one for one in listed if one in PACKAGES] if isinstance(listed, list) else []
    tools = manifest.provenance.get("tools")
    proven = tools if isinstance(tools, dict) else {}
    engines = list(dict.fromkeys([*needed, *others]))
    for engine in engines:
        name = _distribution(engine, arch)
        pins[name] = str(proven.get(name) or _here(name)) if engine in needed else kept.get(name, _here(name))
        pins |= {one: _here(one) for one in WHEELS[engine] if arch != "armv7l"}
    return pins, engines


def fetched(platform: Platform, pins: Mapping[str, str], engines: Sequence[str], tell: Tell) -> Wheelhouse:
    """The wheels, from the cache or by pip, and our own.

    Raises:
        NotFound: there is none of that version for the device.
        EdgeKitError: pip cannot reach its index.
    """
    basis = json.dumps([LAYOUT, platform.arch, platform.python, platform.glibc, dict(sorted(pins.items()))])
    home = default_cache() / "wheelhouses"
    folder = home / f"{platform.arch}-{hashlib.sha256(basis.encode()).hexdigest()[:16]}"
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "lock", "fetching wheels", tell):
        if not folder.is_dir():
            scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=home))
            try:
                tell(f"fetching the runtime's wheels for {platform.arch}, once")
                _download(platform, pins, scratch)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    found = [*sorted(folder.glob("*.whl")), own_wheel(default_cache() / "wheelhouses")]
    return Wheelhouse(platform, tuple(map(_wheel, found)), dict(pins), tuple(engines))


def own_wheel(folder: Path) -> Path:
    """This runtime as a wheel, out of the sources that run here; the same sources give the same file."""
    source = Path(edgekit_runtime.__file__).parent
    number = edgekit_runtime.__version__
    files = {
        f"{OURS}/{path.relative_to(source).as_posix()}": path.read_bytes()
        for path in sorted(source.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"{OURS}-{number}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: edgekit-runtime\nVersion: {number}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgekit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, DATED)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)
    raw = buffer.getvalue()
    place = folder / hashlib.sha256(raw).hexdigest()[:16] / f"{OURS}-{number}-py3-none-any.whl"
    if not place.is_file() or place.read_bytes() != raw:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as scratch:
            scratch.write(raw)
        Path(scratch.name).replace(place)
    return place


def _download(platform: Platform, pins: Mapping[str, str], folder: Path) -> None:
    """pip fills the folder; the list is whole, so that it need not look at requirements."""
    minors = range(OLDEST, platform.glibc[1] + 1)
    tags = [f"manylinux2014_{platform.arch}", *(f"manylinux_2_{minor}_{platform.arch}" for minor in minors)]
    pip = ["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    words: list[str | Path] = [*pip, "--only-binary=:all:", "--implementation", "cp", "--dest", folder]
    words += ["--python-version", ".".join(map(str, platform.python))]
    words += [word for tag in tags for word in ("--platform", tag)]
    packages = [f"{name}=={number}" if number else name for name, number in pins.items()]
    done = call(Path(sys.executable), [*words, *packages], lambda words: None)
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stdout.splitlines() if "error" in line.lower() or "No module" in line]
    if "No module named pip" in done.stdout:
        raise EdgeKitError("this Python has no pip to fetch wheels with", hint=f"{sys.executable} -m ensurepip")
    if missing := next((line for line in lines if "No matching distribution found for" in line), None):
        what = missing.rpartition(" for ")[2][:100]
        at = (
            f"{platform.arch}, Python {'.'.join(map(str, platform.python))}, glibc {'.'.join(map(str, platform.glibc))}"
        )
        raise NotFound(
            f"there is no wheel of {what} for {at}", hint="see which the package's page has; a newer OS takes more"
        )
    raise EdgeKitError(
        f"pip could not fetch the wheels: {(lines or ['no reason'])[-1][:240]}",
        hint="check the network and pip's package index, then try again",
    )


def _wheel(path: Path) -> Wheel:
    entry = describe(path)
    return Wheel(path, entry.sha256, entry.size)


def _distribution(engine: str, arch: str) -> str:
    """The package that brings an engine there."""
    names = [name for names in PACKAGES[engine].values() for name in names]
    return names[-1] if engine == "tflite" and arch == "armv7l" else names[0]


def _here(name: str) -> str:
    """The version that is installed here, which all was tried with; nothing where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
