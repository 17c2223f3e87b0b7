"""Debian packages unpacked into a folder without root: an apt of its own, fed by this machine's own sources.

Refuses machines without apt or without Debian sources; touches neither the machine's dpkg nor its package lists."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

from edgekit.model import Tell

ETC = Path("/etc")
ELSEWHERE = "on another Linux, install qemu-user-static with its package manager; ARM cores need a Debian or its like"
COPIED = re.compile(r"Acquire::(https?|ftp|Check|Max-Valid|Retries|ForceIPv)[\w:.-]* \"[^\"]+\";", re.IGNORECASE)
"""What is taken over of the machine's settings: proxies, retries, checks of dates."""


def unpack(packages: Sequence[str], arch: str | None, folder: Path, tell: Tell) -> None:
    """Fetch `packages` with all that they depend on, and unpack them into `folder`.

    `arch` is Debian's name of an architecture; None is this machine's.

    Raises:
        EdgeKitError: there is no apt, no Debian source, no network, or no such package.
    """
    for tool in ("apt-get", "apt-config", "dpkg", "dpkg-deb"):
        if not shutil.which(tool):
            raise EdgeKitError(f"there is no {tool} here to fetch {packages[0]} with", hint=ELSEWHERE)
    arch = arch or _run(["dpkg", "--print-architecture"], {}, "ask dpkg for its architecture").strip()
    apt = folder.with_name(f"{folder.name}.apt")
    try:
        environment = _configured(apt, arch)
        tell(f"reading the package lists for {arch}")
        _update(apt, environment, tell)
        tell(f"fetching {', '.join(packages)} for {arch} with apt")
        get = ["apt-get", "install", "-y", "-qq", "--download-only", *packages]
        _run(get, environment, f"fetch {', '.join(packages)} for {arch}")
        folder.mkdir(parents=True, exist_ok=True)
        tell(f"unpacking {', '.join(packages)}")
        for package in sorted((apt / "archives").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(folder)], {}, f"unpack {package.name}")
    finally:
        shutil.rmtree(apt, ignore_errors=True)


def sources(etc: Path = ETC) -> str:
    """This machine's Debian sources as deb822 text, whichever way they are written; other vendors' are left out.

    Raises:
        EdgeKitError: there are none.
    """
    release = (etc / "os-release").read_text(encoding="utf-8") if (etc / "os-release").exists() else ""
    named = re.search(r"^VERSION_CODENAME=\"?([\w.-]+)", release, re.MULTILINE)
    code = re.escape(named[1]) if named else "stable"
    ours = re.compile(rf"({code}|stable|oldstable|testing|unstable|sid)(-updates|-security|/updates)?")
    found = []
    for fields in (*_one_line(etc / "apt"), *_deb822(etc / "apt")):
        suites = [suite for suite in fields["suites"].split() if ours.fullmatch(suite)]
        uris = [uri for uri in fields["uris"].split() if not uri.startswith("cdrom:")]
        if suites and uris and "main" in fields["components"].split():
            lines = ["Types: deb", f"URIs: {' '.join(uris)}", f"Suites: {' '.join(suites)}", "Components: main"]
            extra = [f"{key}:{fields[key.lower()]}" for key in ("Signed-By", "Trusted") if key.lower() in fields]
            found.append("\n".join([*lines, *extra]) + "\n")
    if not found:
        raise EdgeKitError("this machine's apt has no Debian source", hint=ELSEWHERE)
    return "\n".join(found)


def _one_line(apt: Path) -> Iterator[Mapping[str, str]]:
    """`deb [signed-by=...] URI SUITE COMPONENT...`"""
    for path in (apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))):
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            match = re.match(r"\s*deb\s+(?:\[(.*?)\]\s*)?(\S+)\s+(\S+)\s+([^#]*)", line)
            if match:
                options = dict(word.split("=", 1) for word in shlex.split(match[1] or "") if "=" in word)
                fields = {"uris": match[2], "suites": match[3], "components": match[4]}
                yield fields | {key: f" {options[key]}" for key in ("signed-by", "trusted") if key in options}


def _deb822(apt: Path) -> Iterator[Mapping[str, str]]:
    for path in sorted(apt.glob("sources.list.d/*.sources")):
        lines = path.read_text(encoding="utf-8").splitlines()
        text = "\n".join(line for line in lines if not line.startswith("#"))
        for stanza in re.split(r"\n\s*\n", text):
            fields = {key.lower(): value for key, value in re.findall(r"^([\w-]+):(.*(?:\n[ \t].*)*)", stanza, re.M)}
            on = fields.get("enabled", "").strip().lower() not in ("no", "false", "0", "off")
            if on and "deb" in fields.get("types", "").split() and {"uris", "suites", "components"} <= fields.keys():
                yield fields


def _configured(apt: Path, arch: str) -> dict[str, str]:
    """The environment of an apt whose state, lists and settings are all in the folder `apt`."""
    shutil.rmtree(apt, ignore_errors=True)
    for part in ("lists/partial", "archives/partial"):
        (apt / part).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "debian.sources").write_text(sources(), encoding="utf-8")
    settings = {
        "APT::Architecture": arch, "APT::Architectures": arch, "APT::Install-Recommends": "0",
        "APT::Sandbox::User": "root", "Debug::NoLocking": "1", "Acquire::Languages": "none",
        "Dir::State": apt, "Dir::State::status": apt / "status", "Dir::Cache": apt,
        "Dir::Etc::sourcelist": apt / "debian.sources", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null", "Dir::Etc::parts": "/dev/null", "Dir::Etc::main": "/dev/null",
    }  # fmt: skip
    text = [f'{key} "{value}";' for key, value in settings.items()]
    dumped = _run(["apt-config", "dump"], {}, "read apt's settings")
    copied = [line for line in dumped.splitlines() if COPIED.fullmatch(line)]
    (apt / "apt.conf").write_text("\n".join([*text, *copied]) + "\n", encoding="utf-8")
    return {"APT_CONFIG": str(apt / "apt.conf")}


def _update(apt: Path, environment: Mapping[str, str], tell: Tell) -> None:
    """Twice where the first fails: one list may be amid a mirror's update. Where it still is, the others serve."""
    try:
        _run(["apt-get", "update", "-qq"], environment, "read the package lists")
    except EdgeKitError:
        try:
            _run(["apt-get", "update", "-qq"], environment, "read the package lists")
        except EdgeKitError as error:
            if not any((apt / "lists").glob("*_Packages*")):
                raise
            tell(f"going on without one of the lists: {error.what}")


def _run(command: list[str], environment: Mapping[str, str], what: str) -> str:
    """The output of a program that shall not take over 15 minutes."""
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", **environment}
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, errors="replace", timeout=900, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise EdgeKitError(f"it took too long to {what}", hint="check the network, then try again") from error
    except FileNotFoundError as error:
        raise EdgeKitError(f"there is no {command[0]} here to {what}", hint=ELSEWHERE) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))] or ["it said nothing"]
        full = "No space left" in done.stderr
        hint = (
            "free some disk, or set XDG_CACHE_HOME" if full else "check the network and apt's sources, then try again"
        )
        raise EdgeKitError(f"cannot {what}: {lines[0].removeprefix('E: ')[:240]}", hint=hint)
    return done.stdout
