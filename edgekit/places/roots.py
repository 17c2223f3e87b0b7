"""What emulation needs on disk, in the user's cache: qemu, an ARM Python, ARM wheels; each of them whole or absent.

Refuses to make what cannot be had here, saying what is missing; needs no root rights and changes nothing elsewhere."""

import hashlib
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgekit_runtime.detect import PACKAGES
from edgekit_runtime.errors import EdgeKitError

from edgekit.isolated import call, default_cache, locked
from edgekit.model import Tell
from edgekit.places.cores import Core
from edgekit.places.debian import unpack

LAYOUT = 1
"""Raised when a folder is laid out differently: what an older EdgeKit made is then not taken."""
QEMUS = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm", "x86_64": "qemu-x86_64"}
DEBIAN = {"aarch64": "arm64", "armv7l": "armhf"}
PYTHON = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
OWN = {"armv7l": ("python3-numpy", "python3-cffi-backend")}
"""What no wheel brings there: the distribution's own."""
WHEELS = {
    "onnx": ("flatbuffers", "packaging", "protobuf"),
    "openvino": (),
    "tflite": ("backports.strenum", "flatbuffers", "ml-dtypes", "protobuf", "tqdm", "typing-extensions"),
}
"""What an engine's wheel needs beside numpy. OpenVINO's telemetry stays away."""
MEGABYTES = {"aarch64": (25, 85), "armv7l": (40, 7)}
"""What Debian's packages and the wheels are, about, as they come over the network."""
SERVED = {
    "aarch64": ("httptools", "orjson", "pillow", "cryptography", "cffi"),
    "armv7l": ("h11", "cryptography"),
}
"""What serving a bundle takes there, where it is installed here; the 32-bit server reads HTTP and JSON in Python."""
OLD_TFLITE = ("tflite-runtime", "2.14.0")
"""The only engine, and the last version of it, with a wheel for armv7l: for Python 3.11 and numpy 1."""


@dataclass(frozen=True)
class Part:
    """Something that emulation needs: what it is, how much comes over the network (MB, about), and its maker."""

    folder: Path
    words: str
    megabytes: int
    make: Callable[[Path, Tell], None]

    def ready(self) -> bool:
        """Whether it is there; it is whole then."""
        return self.folder.is_dir()


def home(cache: Path | None = None) -> Path:
    """The folder in which all of it lies."""
    return (cache or default_cache()) / "emulators"


def find_qemu(arch: str, cache: Path | None = None) -> Path | None:
    """The user-mode qemu for `arch`: the machine's own, else the one that was fetched; None where there is neither."""
    for name in _own_qemus(arch):
        if found := shutil.which(name):
            return Path(found)
    found_here = _qemu(cache).folder / QEMUS[arch]
    return found_here if found_here.exists() else None


def parts(core: Core, cache: Path | None = None) -> list[Part]:
    """All that `core` needs beside the machine's own qemu, made or not."""
    needed = [] if any(map(shutil.which, _own_qemus(core.arch))) else [_qemu(cache)]
    return needed if core.arch == "x86_64" else [*needed, root(core.arch, cache), site(core.arch, cache)]


def missing(core: Core, cache: Path | None = None) -> list[Part]:
    """What `add` would fetch for `core`."""
    return [part for part in parts(core, cache) if not part.ready()]


def add(core: Core, tell: Tell, cache: Path | None = None) -> None:
    """Fetch what `core` still needs. Two at once fetch it once: the second waits for the first.

    Raises:
        EdgeKitError: it cannot be had here; nothing half-made is left.
    """
    home(cache).mkdir(parents=True, exist_ok=True)
    with locked(home(cache) / "lock", "fetching emulators", tell):
        for part in missing(core, cache):
            tell(f"fetching {part.words} (about {part.megabytes} MB)")
            scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=home(cache)))
            try:
                part.make(scratch / "whole", tell)
                (scratch / "whole").rename(part.folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)


def kept(cache: Path | None = None) -> list[tuple[Path, int]]:
    """What lies there, of other versions too: (folder, bytes)."""
    found = sorted(path for path in home(cache).glob("*") if path.is_dir())
    return [(f, sum(p.lstat().st_size for p in f.rglob("*") if not p.is_dir())) for f in found]


def remove(folders: list[Path], tell: Tell, cache: Path | None = None) -> None:
    """Delete some of `kept`, once nobody is making any."""
    if home(cache).is_dir():
        with locked(home(cache) / "lock", "fetching emulators", tell):
            for folder in folders:
                shutil.rmtree(folder)


def root(arch: str, cache: Path | None = None) -> Part:
    """A file system with Debian's Python for `arch`, of the release that this machine runs."""
    packages = (*PYTHON, *OWN.get(arch, ()))
    words = f"Python for {arch}" + "".join(f" and {name}" for name in OWN.get(arch, ()))
    name = f"root-{arch}-{_digest([LAYOUT, _release(), packages])}"
    return Part(home(cache) / name, words, MEGABYTES[arch][0], lambda to, tell: _make_root(arch, packages, to, tell))


def site(arch: str, cache: Path | None = None) -> Part:
    """numpy, the engines' wheels and the server's for `arch`, of the versions that are installed here."""
    pins = wanted(arch)
    name = f"site-{arch}-{_digest([LAYOUT, _release(), pins])}"
    words = f"wheels for {arch}: {', '.join(f'{key} {value}' for key, value in pins.items())}"
    under = root(arch, cache).folder
    megabytes = MEGABYTES[arch][1]
    return Part(home(cache) / name, words, megabytes, lambda to, tell: _make_site(arch, pins, under, to, tell))


def root_python(folder: Path) -> Path:
    """The Python in a root, as a path inside it."""
    found = sorted(path for path in folder.glob("usr/bin/python3.*") if path.name.removeprefix("python3.").isdigit())
    if not found:
        raise EdgeKitError(f"{folder} holds no Python", hint="edgekit emulators remove, then add it again")
    return found[-1].relative_to(folder)


def wanted(arch: str) -> dict[str, str]:
    """The wheels that run on `arch` what is installed here: name -> version."""
    served = {name: number for name in SERVED[arch] if (number := _version(name))}
    if arch == "armv7l":
        return dict([OLD_TFLITE]) | served
    found = {"numpy": version("numpy")}
    for engine, modules in PACKAGES.items():
        distributions = next(iter(modules.values()))
        installed = next((v for name in distributions if (v := _version(name))), None)
        if installed is not None:
            found[distributions[0]] = installed
            found |= {name: v for name in WHEELS[engine] if (v := _version(name))}
    return found | served


def engines_there(arch: str) -> dict[str, str]:
    """The engines that `wanted` brings, with their versions."""
    pins = wanted(arch)
    return {
        engine: pins[names[0]] for engine, modules in PACKAGES.items() for names in modules.values() if names[0] in pins
    }


def _own_qemus(arch: str) -> tuple[str, str]:
    """What the machine's own emulator may be called."""
    return f"{QEMUS[arch]}-static", QEMUS[arch]


def _qemu(cache: Path | None) -> Part:
    return Part(home(cache) / f"qemu-{_digest([LAYOUT, QEMUS])}", "qemu-user-static", 63, _make_qemu)


def _make_qemu(folder: Path, tell: Tell) -> None:
    """Of Debian's package only the emulators that are used here: the others take 200 MB."""
    whole = folder.with_name("package")
    unpack(["qemu-user-static"], None, whole, tell)
    folder.mkdir()
    for name in QEMUS.values():
        found = [path for path in (whole / "usr/bin" / f"{name}-static", whole / "usr/bin" / name) if path.is_file()]
        if not found:
            raise EdgeKitError(f"Debian's package brings no {name}", hint="install qemu-user-static by hand")
        found[0].resolve().rename(folder / name)
    shutil.rmtree(whole)


def _make_root(arch: str, packages: Sequence[str], folder: Path, tell: Tell) -> None:
    unpack(packages, DEBIAN[arch], folder, tell)
    for path in [*folder.glob("usr/lib/*/blas/libblas.so.3"), *folder.glob("usr/lib/*/lapack/liblapack.so.3")]:
        (path.parents[1] / path.name).symlink_to(path.relative_to(path.parents[1]))  # else dpkg's alternatives do it
    python = root_python(folder)
    if python.name == f"python{sys.version_info.major}.{sys.version_info.minor}":
        tell("compiling its library")  # the emulated Python would take a minute
        call(Path(sys.executable), ["-m", "compileall", "-q", "-x", "lib2to3/tests", folder / "usr/lib"], tell)


def _make_site(arch: str, pins: Mapping[str, str], under: Path, folder: Path, tell: Tell) -> None:
    """pip fills a folder for the other machine; the list is whole, so that it need not look at requirements."""
    minor = root_python(under).name.removeprefix("python3.")
    tags = [f"manylinux_2_{n}_{arch}" for n in range(17, _glibc(under) + 1)]
    platforms = [word for tag in (f"manylinux2014_{arch}", *tags) for word in ("--platform", tag)]
    pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    python = ["--implementation", "cp", "--python-version", f"3.{minor}", *platforms]
    packages = [f"{name}=={number}" for name, number in pins.items()]
    done = call(Path(sys.executable), [*pip, "--only-binary=:all:", "--target", folder, *python, *packages], tell)
    if done.returncode:
        found = done.stdout.splitlines()
        lines = [line for line in found if "error" in line.lower() or "No module" in line] or ["no reason"]
        hint = "check the network and pip's package index, then try again"
        if "No module named pip" in done.stdout:
            hint = f"{sys.executable} -m ensurepip, then try again"
        raise EdgeKitError(f"pip could not fetch the wheels for {arch}: {lines[-1].strip()[:240]}", hint=hint)


def _glibc(root_folder: Path) -> int:
    """The minor version of a root's C library: wheels have a floor."""
    for path in root_folder.glob("*/*/libc.so.6"):
        text = path.read_bytes()
        at = text.find(b"release version 2.")
        if at >= 0:
            return int(text[at + 18 : at + 21].split(b".")[0].strip(b". "))
    return 28


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _release() -> str:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def _digest(basis: object) -> str:
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()[:12]
