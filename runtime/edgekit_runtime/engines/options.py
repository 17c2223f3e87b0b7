"""How an engine is to run: its threads, its device and what goes with an accelerator; from JSON and to it.

Refuses what cannot be: no threads, an unknown precision, a share beyond 1."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from edgekit_runtime.errors import BadBundle

FLOATS = ("float32", "float16", "bfloat16")
HINTS = ("latency", "throughput")


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is to run: `threads` of its own, on which `device` ("cpu", "cuda", "tensorrt", "gpu", "npu",
    "auto", "hetero", "delegate"), at which `precision` its float arithmetic runs. `spin` lets ONNX Runtime's idle
    threads wait awake: faster with several threads, and a whole machine's power for it.

    What goes with an accelerator: `memory_mb` is the most of its memory that the engine takes; `hint` what it is tuned
    for; `order` the devices that "auto" and "hetero" try, the best first; `delegate` the name of a TFLite delegate
    (see `delegates`) and `settings` what is said to it; `least` the share of the operators that has to run there:
    with fewer the model does not open.
    """

    threads: int = 1
    device: str = "cpu"
    precision: str = "float32"
    spin: bool = False
    memory_mb: int | None = None
    hint: str = "latency"
    order: tuple[str, ...] = ()
    delegate: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    least: float = 0.0


def parse_options(raw: Mapping[str, Any]) -> EngineOptions:
    """The options that a JSON object says.

    Raises:
        BadBundle: they cannot be.
        TypeError: a field is unknown.
    """
    given = dict(raw)
    if "order" in given:
        given["order"] = tuple(given["order"])
    if "settings" in given:
        given["settings"] = tuple(sorted(dict(given["settings"]).items()))
    options = EngineOptions(**given)
    threads = options.threads
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
        raise BadBundle(f"manifest options: threads {threads!r} is not a number of threads")
    if not isinstance(options.spin, bool):
        raise BadBundle(f"manifest options: spin {options.spin!r} is neither true nor false")
    if not isinstance(options.device, str) or options.precision not in FLOATS:
        raise BadBundle(f"manifest options: {options.device!r} with {options.precision!r} is not known")
    _check_accelerator(options)
    return options


def options_json(options: EngineOptions) -> dict[str, Any]:
    """The JSON object that `parse_options` reads; what is as ever is left out, beside the first four."""
    first = ("threads", "device", "precision", "spin")
    said = {one.name: getattr(options, one.name) for one in fields(options)}
    found = {name: value for name, value in said.items() if name in first or value != getattr(EngineOptions, name)}
    if "settings" in found:
        found["settings"] = dict(options.settings)
    return found | ({"order": list(options.order)} if options.order else {})


def _check_accelerator(options: EngineOptions) -> None:
    memory, least = options.memory_mb, options.least
    if not (memory is None or (isinstance(memory, int) and not isinstance(memory, bool) and memory > 0)):
        raise BadBundle(f"manifest options: memory_mb {memory!r} is not a number of megabytes")
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise BadBundle(f"manifest options: least {least!r} is not a share of the operators")
    words = (*options.order, *(word for pair in options.settings for word in pair), options.delegate or "")
    if options.hint not in HINTS or not all(isinstance(word, str) for word in words):
        raise BadBundle("manifest options: hint, order, delegate and settings do not read")
