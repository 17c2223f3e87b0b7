"""A real OpenSSH server on a high port of 127.0.0.1, with keys and known hosts of its own; fetched as emulators are.

Refuses nothing; where it runs as root it gets a mount namespace, so that the machine needs no user for it."""

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit.isolated import default_cache
from edgekit.places.debian import unpack


@dataclass(frozen=True)
class Server:
    """Where it listens, and the ssh configuration by which it lets us in."""

    port: int
    config: Path
    folder: Path

    def url(self, python: str = "") -> str:
        """Its address; with a Python to use."""
        return f"ssh://127.0.0.1:{self.port}{python}"


def programs() -> Path:
    """Debian's openssh-server and its libraries, unpacked once."""
    home = default_cache() / "tests" / "openssh"
    if not home.is_dir():
        scratch = home.with_name(f"openssh-{os.getpid()}")
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            unpack(["openssh-server"], None, scratch, lambda words: None)
            scratch.rename(home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return home


@contextmanager
def serving(folder: Path, more: str = "") -> Iterator[Server]:
    """The server, until the end of the block; `more` are lines of its configuration."""
    root = programs()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"Host *\n IdentityFile {folder}/user\n IdentitiesOnly yes\n UserKnownHostsFile {folder}/known_hosts\n"
        " GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n"
    )
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"ListenAddress 127.0.0.1:{port}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin yes\nUseDNS no\n{more}\n"
    )
    libraries = ":".join(str(path) for path in root.glob("usr/lib/*-linux-gnu"))
    sshd = f"{root}/usr/sbin/sshd -D -e -f {shlex.quote(str(folder / 'sshd_config'))}"
    command = ["sh", "-c", f"exec {sshd}"]
    if os.geteuid() == 0:
        (folder / "passwd").write_text(Path("/etc/passwd").read_text() + "sshd:x:65533:65534::/run/sshd:/bin/false\n")
        inside = f"mount --bind {folder}/passwd /etc/passwd && mount -t tmpfs none /run && mkdir /run/sshd"
        command = ["unshare", "--mount", "sh", "-c", f"{inside} && exec {sshd}"]
    log = (folder / "sshd.log").open("wb")
    process = subprocess.Popen(command, env={**os.environ, "LD_LIBRARY_PATH": libraries}, stderr=log)
    try:
        _wait(process, port, folder / "sshd.log")
        yield Server(port, folder / "config", folder)
    finally:
        process.terminate()
        process.wait(timeout=10)
        log.close()


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    for _ in range(100):
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace"))
