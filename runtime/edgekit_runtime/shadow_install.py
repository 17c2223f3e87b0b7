"""Install a version in shadow of the live one: whether they can be compared, and what the server does with it.

Refuses one that takes other inputs, or prepares them otherwise, and one for which there is no memory."""

from edgekit_runtime import running
from edgekit_runtime.device import Device
from edgekit_runtime.errors import EdgeKitError, Exceeded
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.store import Terms, Version
from edgekit_runtime.trying import OF_FREE


def check_comparable(device: Device, new: Manifest) -> None:
    """Raises `EdgeKitError` where what the live version is asked cannot be asked of this one as it is."""
    name, live = new.name, device.store.live(new.name)
    if live is None:
        raise EdgeKitError(f"no version of {name} is live here to compare with", hint="install without --shadow")
    old = live.manifest
    told = f"{name} {new.version} cannot be in shadow of {old.version}"
    if _inputs(old) != _inputs(new):
        raise EdgeKitError(f"{told}: it takes other inputs", hint="install without --shadow")
    if (old.preprocess, _read(old)) != (new.preprocess, _read(new)):
        raise EdgeKitError(f"{told}: it prepares its inputs otherwise", hint="install without --shadow")
    if not {port.spec.name for port in old.outputs} <= {port.spec.name for port in new.outputs}:
        raise EdgeKitError(f"{told}: it has other outputs", hint="install without --shadow")


def _inputs(manifest: Manifest) -> list[tuple[str, str, tuple[int | None, ...]]]:
    return sorted((port.spec.name, port.spec.dtype, port.spec.shape) for port in manifest.inputs)


def _read(manifest: Manifest) -> str | None:
    """The digest of the file that the preparation reads, if any."""
    vocab = None if manifest.preprocess is None else manifest.preprocess.get("vocab")
    return manifest.files[vocab].sha256 if isinstance(vocab, str) and vocab in manifest.files else None


def check_memory(peak_mb: float, free_mb: float) -> None:
    """Raises `Exceeded` where there is no memory for what was tried beside what is served."""
    if peak_mb > free_mb * OF_FREE:
        raise Exceeded(
            f"it takes {peak_mb:,.0f} MB beside what is served, and {free_mb * OF_FREE:,.0f} MB can be had",
            hint="free memory on the device, or install without --shadow",
            limit="memory",
        )


def put(device: Device, version: Version, terms: Terms, again: bool, seconds: float) -> tuple[str, str]:
    """Put it in shadow and have the server open it; what came of that, and why."""
    name, store, before = version.name, device.store, running.server(device.folder)
    store.shadow(name, version.id, terms, again)
    if not running.is_served(device.folder):
        return "shadowing", "no server runs: it is compared from the server's next start on"

    def dropped() -> bool:
        slot = store.slot(name)
        return slot is None or slot.shadow is None or slot.shadow.id != version.id

    def settled(found: running.Running | None) -> bool:
        return found not in (None, before) and (found.shadows.get(name) == version.id or dropped())

    try:
        taken, why = running.wait(device.folder, settled, seconds), "the server did not tell that it compares it yet"
    except EdgeKitError as error:  # it is in shadow, and that cannot be told
        taken, why = False, error.what
    if not dropped():
        return "shadowing", "" if taken else why
    ends = [one for one in reversed(store.history(name)) if one.id == version.id]
    promoted = bool(ends) and (store.slot(name) or ends[0]).live == version.id
    return ("serving", "") if promoted else ("dropped", ends[0].why if ends else "")
