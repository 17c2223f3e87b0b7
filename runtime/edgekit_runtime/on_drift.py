"""The versions whose trial a drift alarm ends: a file for each model, with the version's id.

Refuses nothing when it is read: what does not read asks for nothing."""

from edgekit_runtime.device import Device
from edgekit_runtime.disk import REAL, forget, make_folder, plain_errors, replace

ON_DRIFT = "on-drift"


def end_on_drift(device: Device, name: str, id: str | None) -> None:
    """Remember that a drift alarm is to end the trial of this version; None: of none."""
    path = device.folder / ON_DRIFT / name
    with plain_errors(str(path)):
        if id is None:
            if REAL.kind(path) is not None:
                forget(REAL, path)
            return
        make_folder(REAL, path.parent)
        replace(REAL, path, id.encode())


def asked_to_end_on_drift(device: Device, name: str) -> str | None:
    """The version whose trial a drift alarm is to end; None where there is none."""
    try:
        return (device.folder / ON_DRIFT / name).read_text(encoding="ascii")[:100]
    except (OSError, ValueError):
        return None
