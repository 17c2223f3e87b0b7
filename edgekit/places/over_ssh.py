"""A device reached by the user's own ssh: the runtime's sources and the artifact go over, and nothing stays there.

Refuses to ask for a password or to accept an unknown host; needs Python 3.11, numpy and the engine on the device."""

import io
import re
import shlex
import shutil
import zipfile
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import edgekit_runtime
from edgekit_runtime.detect import PACKAGES
from edgekit_runtime.errors import EdgeKitError, NotFound

from edgekit.places import Place, Start

QUIETLY = (
    *("-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "LogLevel=ERROR"),
    *("-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8"),
    *("-o", "ClearAllForwardings=yes", "-o", "ForwardX11=no", "-o", "ForwardAgent=no", "-o", "RequestTTY=no"),
)
NO_PYTHON, OLD_PYTHON, NO_NUMPY, NO_SCRATCH = 81, 82, 83, 84
UNPACK = (
    "import os,sys\\n"
    "if sys.version_info<(3,11): sys.stderr.write(sys.version.split()[0]+chr(10)); sys.exit({old})\\n"
    "try: import numpy\\n"
    "except ImportError: sys.exit({no_numpy})\\n"
    "left={size}\\n"
    'out=open(sys.argv[1],"wb")\\n'
    "while left:\\n"
    "  got=os.read(0,min(left,65536))\\n"
    "  if not got: sys.exit(1)\\n"
    "  left-=len(got); out.write(got)\\n"
    "out.close()\\n"
)
"""Run on the device by whatever Python is there: takes exactly the archive from stdin, not a byte of what follows."""
SCRIPT = """umask 077
d=$(mktemp -d) || exit {no_scratch}
trap 'rm -rf "$d"' EXIT
trap 'exit 1' HUP INT TERM
python={python}
{own}command -v "$python" >/dev/null || exit {no_python}
printf '{unpack}' > "$d/unpack.py" || exit {no_scratch}
"$python" "$d/unpack.py" "$d/runtime.zip" || exit $?
mkdir "$d/files" "$d/tmp"
cd "$d" || exit {no_scratch}
PYTHONPATH="$d/runtime.zip" PYTHONDONTWRITEBYTECODE=1 TMPDIR="$d/tmp" \\
"$python" -m edgekit_runtime.worker --scratch "$d/files"
exit $?
"""
"""A shell stands over the worker, so that the folder goes even where the engine crashes."""
INSTALLED = """for own in /opt/edgekit/current/bin/python "$HOME/.local/share/edgekit/current/bin/python"; do
"$own" -c {asks} </dev/null 2>/dev/null && python=$own && break
done
"""
"""The Python of the runtime that `edgekit flash` installed: what serves there has that numpy and that engine."""


def over_ssh(url: str, config: Path | None = None, engine: str | None = None) -> Place:
    """The device at `ssh://[user@]host[:port][/path/to/python]`, by the ssh configuration `config` or the user's own.

    Given an `engine`, and no Python in the address, the runtime that is installed there lends its Python, if it has
    that engine: the worker's own code is carried over all the same.

    Raises:
        EdgeKitError: the address does not read, or there is no ssh here.
    """
    wrong = EdgeKitError(f"{url!r} is no device's address", hint="write ssh://user@host[:port][/path/to/python]")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise wrong from error
    plain = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*")
    named = [word for word in (host, parts.username) if word is not None]
    if parts.scheme != "ssh" or not host or parts.password or parts.query or parts.fragment:
        raise wrong
    if not all(plain.fullmatch(word) for word in named):
        raise wrong
    if not shutil.which("ssh"):
        raise EdgeKitError("there is no ssh here", hint="apt install openssh-client")
    python = unquote(parts.path) if parts.path not in ("", "/") else "python3"
    options = [*QUIETLY, *(("-F", str(config)) if config else ()), *(("-p", str(port)) if port else ())]
    user = ("-l", parts.username) if parts.username else ()
    address = f"{parts.username}@{host}" if parts.username else host
    where = f"{address}:{port}" if port else address
    own = engine if parts.path in ("", "/") else None
    start = partial(_start, ("ssh", *options, *user, "--", host), python, own)
    return Place(f"ssh://{where}", "device", where, start, partial(_explain, where, host, python))


def _start(ssh: tuple[str, ...], python: str, engine: str | None, scratch: Path) -> Start:
    archive = _runtime()
    codes = {"no_python": NO_PYTHON, "no_scratch": NO_SCRATCH, "own": _installed(engine)}
    unpack = UNPACK.format(old=OLD_PYTHON, no_numpy=NO_NUMPY, size=len(archive))
    script = SCRIPT.format(python=shlex.quote(python), unpack=unpack, **codes)
    return Start((*ssh, f"exec sh -c {shlex.quote(script)}"), before=archive)


def _installed(engine: str | None) -> str:
    """The lines that look for an installed runtime with that engine; none where none is asked for."""
    if engine is None:
        return ""
    found = " or ".join(f"find_spec({module!r})" for module in PACKAGES[engine])
    asks = f"from importlib.util import find_spec; assert find_spec('numpy') and ({found})"
    return INSTALLED.format(asks=shlex.quote(asks))


def _runtime() -> bytes:
    """The runtime's sources as an archive that Python imports from."""
    folder = Path(edgekit_runtime.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.py")):
            archive.write(path, f"edgekit_runtime/{path.relative_to(folder).as_posix()}")
    return buffer.getvalue()


def _explain(where: str, host: str, python: str, status: int, said: str) -> EdgeKitError | None:
    """What ssh's and the script's exit codes, and ssh's own words, say was wrong."""
    on_it = f"on {where}: " if where else ""
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    if status == NO_PYTHON:
        hint = f"{on_it}apt install python3, or name another: ssh://HOST/path/to/python"
        return NotFound(f"{where} has no {python}", hint=hint)
    if status == OLD_PYTHON:
        hint = "name a newer one: ssh://HOST/path/to/python"
        return NotFound(f"{python} on {where} is {last}; the runtime needs Python 3.11", hint=hint)
    if status == NO_NUMPY:
        hint = f"{on_it}{python} -m pip install numpy, and the engine's package"
        return NotFound(f"{python} on {where} has no numpy", hint=hint)
    if status == NO_SCRATCH:
        return EdgeKitError(f"{where} has no room for a scratch folder: {last}", hint=f"{on_it}free some of its disk")
    if status != 255:
        return None
    if "Host key verification failed" in said or "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        changed = "has another key than known_hosts says" if "HAS CHANGED" in said else "is not known yet"
        return EdgeKitError(f"{where}: the host's key {changed}", hint=f"look at it yourself first: ssh {host}")
    if "Permission denied" in said or "Too many authentication failures" in said:
        return EdgeKitError(f"{where} does not let us in: {last}", hint=f"set up a key: ssh-copy-id {host}")
    return EdgeKitError(
        f"{where} cannot be reached: {last or 'ssh ended'}", hint=f"see that `ssh {host}` works without a question"
    )
