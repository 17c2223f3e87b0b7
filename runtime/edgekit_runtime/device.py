"""A device's own folder: what it serves, whom it trusts, what it is, its key, and what it tells of itself.

Refuses to verify anything while it trusts nobody, and a folder that another user could have filled.

    store/          the versions (see `store`)
    floor.json      the rollback floor and the last time seen, outside the store
    trust.json      the newest trust document
    target          one word: the target that bundles must be built for; without it, any
    device.key      the device's own key, and device.pub; made when they are first needed
    receipts/       what was installed, signed by that key
    serving.json    what the server serves now, while it runs
    on-drift/       names of models whose trial a drift alarm ends
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgekit_runtime.disk import REAL, make_folder, plain_errors, replace
from edgekit_runtime.errors import Busy, EdgeKitError, NotFound, Untrusted
from edgekit_runtime.keypair import PublicKey, new_private_key, public_of
from edgekit_runtime.manifest import PLAIN
from edgekit_runtime.store import Store
from edgekit_runtime.trust import MAX_DOCUMENT, Trust, accepted, opened_first, succeed
from edgekit_runtime.verified import Rules

FOLDER = Path("/var/lib/edgekit")
AHEAD = 10 * 365 * 86_400
"""A clock that is so many seconds beyond the newest trust document is not remembered: it would never go back."""
WAIT_SECONDS = 10.0
SMALL = 10_000
"""Bytes of a key or of the target."""
NO_TRUST = "this device trusts nobody yet: nothing can be verified"


@dataclass(frozen=True)
class Device:
    """The folder, and the clock that the device is told the time by."""

    folder: Path
    clock: Callable[[], float] = time.time

    @cached_property
    def store(self) -> Store:
        """What is installed."""
        return Store(self.folder / "store", self.folder / "floor.json", REAL, self.clock)

    def trusted(self) -> Trust | None:
        """Whom it trusts; None before the first use."""
        raw = self._read("trust.json", MAX_DOCUMENT)
        return None if raw is None else accepted(raw)

    def trust(self) -> Trust:
        """Whom it trusts. Raises `Untrusted` where that is nobody yet."""
        if (found := self.trusted()) is None:
            raise Untrusted(NO_TRUST, hint="give it a trust document: edgekit-runtime trust FILE", reason="trust")
        return found

    def take_trust(self, documents: Sequence[bytes]) -> Trust | None:
        """Follow a chain of trust documents, each signed by a root of the one before; those that it is past are left
        alone. The first one is believed only by a device that trusts nobody yet.

        Raises:
            Untrusted: one does not follow; what was trusted before is trusted still.
        """
        now = self.trusted()
        if all(now is not None and accepted(raw).serial <= now.serial for raw in documents):
            return now
        with self._alone("trust.lock"):
            now = self.trusted()
            for raw in documents:
                if now is not None and accepted(raw).serial <= now.serial:
                    continue
                now = opened_first(raw) if now is None else succeed(now, raw)
                self._write("trust.json", raw)
        return now

    def target(self) -> str | None:
        """The target that it is; None where that was not said."""
        raw = self._read("target", SMALL)
        if raw is None:
            return None
        word = raw.decode("utf-8", errors="replace").strip()
        if not PLAIN.fullmatch(word):
            raise EdgeKitError(f"{self.folder / 'target'} holds no target", hint="write one word there, such as rpi5")
        return word

    def now(self) -> float:
        """The time, as far as it can be known: not before the last time seen, nor before the trust document."""
        trust = self.trusted()
        return max(self.clock(), self.store.floor.seen(), trust.made if trust is not None else 0.0)

    def see_time(self) -> None:
        """Remember that it is so late, where the clock can be believed."""
        clock, made = self.clock(), self.trust().made
        if not made or clock < made + AHEAD:
            self.store.floor.see(clock)

    def rules(self) -> Rules:
        """What may be installed now."""
        return Rules(self.trust(), self.target(), self.store.floor.least, self.now(), self._key_so_far())

    def serving_rules(self) -> Rules:
        """What may be served: a bundle or a key whose time is over was in time when it was installed. A device must not
        fall silent by itself; to end that, the key is revoked."""
        return Rules(self.trust(), self.target(), self.store.floor.least, 0.0, self._key_so_far())

    def key(self) -> bytes:
        """Its own private key (PEM), which never leaves it; made now where there is none."""
        if (raw := self._key_so_far()) is not None:
            return raw
        with self._alone("device.lock"):
            if (raw := self._key_so_far()) is None:
                raw = new_private_key()
                self._write("device.pub", public_of(raw).pem)
                self._write_secret("device.key", raw)
        return raw

    def _key_so_far(self) -> bytes | None:
        return self._read("device.key", SMALL)

    def public_key(self) -> PublicKey:
        """Its public half: how others know what it signed."""
        return public_of(self.key())

    def _read(self, name: str, limit: int) -> bytes | None:
        path = self.folder / name
        with plain_errors(str(path)):
            if REAL.kind(path) is None:
                return None
            with REAL.open(path) as file:
                raw = file.read(limit + 1)
        if len(raw) > limit:
            raise EdgeKitError(f"{path} is too large", hint="remove it, and give the device a good one")
        return raw

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Who reads, and writes what follows from that: two at once would undo each other."""
        with ExitStack() as stack:
            with plain_errors(str(self.folder / name)):
                make_folder(REAL, self.folder)
                try:
                    stack.enter_context(REAL.lock(self.folder / name, WAIT_SECONDS))
                except BlockingIOError as error:
                    raise Busy(
                        f"another program is changing {self.folder}", "wait until it ends, then do this again"
                    ) from error
            yield

    def _write(self, name: str, data: bytes) -> None:
        with plain_errors(str(self.folder / name)):
            make_folder(REAL, self.folder)
            replace(REAL, self.folder / name, data)

    def _write_secret(self, name: str, data: bytes) -> None:
        """As `_write`; nobody else can read it at any moment."""
        before = os.umask(0o077)
        try:
            self._write(name, data)
        finally:
            os.umask(before)


def device_at(folder: Path) -> Device:
    """The device in a folder that is there already. Raises `NotFound` where none is."""
    if not folder.is_dir():
        raise NotFound(f"no device folder {folder}", hint="say --device DIR; `edgekit-runtime install` makes one")
    return Device(folder)


def become_owner(folder: Path) -> None:
    """Where root works on another user's device folder: be that user from here on, for good.

    What is installed is opened by engines; nothing of it is to be read, or written, with root's rights.

    Raises:
        EdgeKitError: that user could not go on with it.
    """
    if os.geteuid() != 0 or not folder.is_dir():
        return
    found = folder.stat()  # once: who may exchange the folder meanwhile must not have us stay root for another
    if found.st_uid == 0:
        return
    import ctypes
    import pwd

    try:
        groups = os.getgrouplist(pwd.getpwuid(found.st_uid).pw_name, found.st_gid)
    except KeyError:
        groups = [found.st_gid]
    os.setgroups(groups)
    os.setresgid(found.st_gid, found.st_gid, found.st_gid)
    os.setresuid(found.st_uid, found.st_uid, found.st_uid)
    if not os.access(sys.executable, os.X_OK) or not os.access(os.__file__, os.R_OK):
        raise EdgeKitError(
            f"{folder} belongs to user {found.st_uid}, who cannot read the Python at {sys.prefix}",
            hint="install edgekit-runtime where every user can read it, such as /opt/edgekit",
        )
    set_dumpable = 4  # of prctl(2): else our own child could not follow links to what we hold in memory
    ctypes.CDLL(None).prctl(set_dumpable, 1, 0, 0, 0)
