"""The TFLite delegates that are known by name: the library of each, what may be said to it, what to install.

Refuses a name that is not in the table and a setting that could point to a file. A manifest never says where a
library is: the system's loader finds it by its name, as the device's owner arranged (LD_LIBRARY_PATH, ld.so.conf)."""

import ctypes
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import Unsupported
from edgekit_runtime.muted import muted

PLAIN = re.compile(r"[A-Za-z0-9_.:,+-]{1,200}")
"""What a setting may be: words and numbers, and no path."""
ENTRIES = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
PLACES = "LD_LIBRARY_PATH, the folders of /etc/ld.so.conf, /lib and /usr/lib"


@dataclass(frozen=True)
class Delegate:
    """One delegate. `settings` are those a bundle may set: not those that name files, for a bundle must not say what
    code is loaded or where is written. `needs` says what the model file or the machine must have beside it."""

    title: str
    library: str
    settings: frozenset[str]
    install: str
    source: str
    needs: str = ""


DELEGATES: Mapping[str, Delegate] = {
    "edgetpu": Delegate(
        "Coral Edge TPU",
        "libedgetpu.so.1",
        frozenset({"device"}),
        "install libedgetpu1-std from Coral's packages, plug the Edge TPU in, and let this user open it",
        "https://coral.ai/docs/edgetpu/tflite-python/",
        "it takes files that edgetpu_compiler wrote, and nothing of any other file",
    ),
    "vx": Delegate(
        "VeriSilicon NPU (VX delegate)",
        "libvx_delegate.so",
        frozenset({"device_id", "allowed_builtin_code", "allowed_multi_device_mode"}),
        "use the board's own Linux (NXP's eIQ images bring it in /usr/lib), or build the VX delegate for it",
        "https://github.com/VeriSilicon/tflite-vx-delegate",
    ),
    "qnn": Delegate(
        "Qualcomm Hexagon (AI Engine Direct delegate)",
        "libQnnTFLiteDelegate.so",
        frozenset({"backend_type", "htp_precision", "htp_performance_mode", "gpu_precision", "gpu_performance_mode"}),
        "install Qualcomm's AI Runtime SDK on the board: the delegate, libQnnHtp.so and its skeleton",
        "https://docs.qualcomm.com/bundle/publicresource/80-63442-10/topics/options.md",
        'it wants the setting backend_type ("htp" for Hexagon)',
    ),
    "ethosu": Delegate(
        "Arm Ethos-U (i.MX 93)",
        "libethosu_delegate.so",
        frozenset({"timeout", "enable_cycle_counter"}),
        "use the board's own Linux: NXP's eIQ images bring it in /usr/lib",
        "https://github.com/nxp-imx/tflite-ethosu-delegate-imx",
    ),
    "armnn": Delegate(
        "Arm NN",
        "libarmnnDelegate.so",
        frozenset({"backends", "number-of-threads", "enable-fast-math", "reduce-fp32-to-fp16"}),
        "unpack Arm NN's release for this machine where the system's loader looks",
        "https://arm-software.github.io/armnn/latest/delegate.html",
        'it wants the setting backends ("GpuAcc,CpuAcc")',
    ),
}


def find_delegate(name: str | None) -> Delegate:
    """The delegate of that name.

    Raises:
        Unsupported: there is none.
    """
    if name is None or name not in DELEGATES:
        what = "device 'delegate' and no delegate named" if name is None else f"no TFLite delegate {name!r} is known"
        raise Unsupported(what, hint=f"name one of {', '.join(DELEGATES)} in the target's options")
    return DELEGATES[name]


def load(name: str | None, settings: Mapping[str, str], open_library: Callable[[str, dict[str, str]], Any]) -> Any:
    """The delegate, started by the interpreter's own `load_delegate`; keep it while the interpreter lives.

    Raises:
        Unsupported: it is unknown, not installed, refuses its settings, or finds no device.
    """
    known = find_delegate(name)
    _check_settings(known, settings)
    _check_library(known)
    try:
        with muted():
            return open_library(known.library, dict(settings))
    except (ValueError, RuntimeError, OSError) as error:
        said = " ".join(str(error).split()).removeprefix(f"Failed to load delegate from {known.library}").strip()
        hint = f"see that the device is there and that this user may open it, and its settings: {known.source}"
        raise Unsupported(f"{known.title} does not start here: {said[:300] or 'it says no more'}", hint=hint) from error


def _check_settings(known: Delegate, settings: Mapping[str, str]) -> None:
    for key, value in settings.items():
        if key not in known.settings:
            raise Unsupported(
                f"{known.title}: a bundle cannot set {key!r}", hint=f"it can set {', '.join(sorted(known.settings))}"
            )
        if not PLAIN.fullmatch(value):
            raise Unsupported(f"{known.title}: {key} is no plain word: {value[:50]!r}", hint="write words and numbers")


def _check_library(known: Delegate) -> None:
    """Tell what is missing before the interpreter tries, whose own error prints a traceback."""
    try:
        with muted():
            found = ctypes.CDLL(known.library)
    except OSError as error:
        raise Unsupported(
            f"{known.title}: {known.library} does not load ({' '.join(str(error).split())[:200]}); "
            f"looked for in {PLACES}",
            hint=known.install,
        ) from error
    for entry in ENTRIES:
        if not hasattr(found, entry):
            raise Unsupported(f"{known.title}: {known.library} is no TFLite delegate: no {entry}", hint=known.install)
