"""Who may change the store: one installation at a time, and one short change of a slot at a time.

Refuses a second installation at once; a change of a slot waits a little for the one before it.

Locks die with their process: none is ever left behind. Two of them, so that a server may write "good" or roll back
while a long installation is being carried in."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from edgekit_runtime.disk import make_folder
from edgekit_runtime.errors import Busy
from edgekit_runtime.store.layout import Layout

WAIT_SECONDS = 10.0


@contextmanager
def installing(at: Layout) -> Iterator[None]:
    """Alone in adding and removing versions.

    Raises:
        Busy: another installation is going on.
    """
    with _held(at, "installing.lock", 0, "another installation is going on"):
        yield


@contextmanager
def changing(at: Layout) -> Iterator[None]:
    """Alone in changing slots.

    Raises:
        Busy: another change of them did not end.
    """
    with _held(at, "slots.lock", WAIT_SECONDS, "another program is changing what is served"):
        yield


@contextmanager
def _held(at: Layout, name: str, seconds: float, why: str) -> Iterator[None]:
    if at.disk.kind(at.root) is None:
        make_folder(at.disk, at.root)
    with ExitStack() as stack:
        try:
            stack.enter_context(at.disk.lock(at.root / name, seconds))
        except BlockingIOError as error:
            raise Busy(f"{at.root}: {why}", hint="wait until it ends, then do this again", retry_after=10) from error
        yield
