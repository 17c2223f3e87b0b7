"""The trace and logging settings of a running server, as the Open Inference Protocol reads and changes them.

Refuses unknown settings, values that are none, and to choose a file over the network."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from edgekit_runtime.errors import BadRequest, NotOffered

Json = Mapping[str, Any]

ROOT = "edgekit_runtime"
TRACES = logging.getLogger(ROOT + ".trace")
LEVELS = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
SILENT = logging.CRITICAL + 10
"""Above every level: nothing is logged."""


@dataclass(frozen=True)
class Trace:
    """Every `trace_rate`-th request is traced, `trace_count` in all (-1: no end), told in groups of `log_frequency`."""

    trace_level: str = "OFF"
    trace_rate: int = 1000
    trace_count: int = -1
    log_frequency: int = 0


LEAST = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}


class Settings:
    """What an operator may change while the server runs. Written by the event loop alone."""

    def __init__(self) -> None:
        self.tracing = False
        self._everywhere = Trace()
        self._own: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._lines: list[str] = []

    def trace(self, model: str = "") -> Trace:
        """The settings for a model: its own where it has some, else those for all."""
        return replace(self._everywhere, **self._own.get(model, {}))

    def set_trace(self, raw: Json, model: str = "") -> Trace:
        """Change the settings that `raw` names, for one model or for all; a null gives back the default.

        Raises:
            BadRequest: a setting is unknown, or its value is none.
            NotOffered: it would choose a file.
        """
        changed = {key: _trace_value(key, value) for key, value in raw.items()}
        if model:
            own = {**self._own.get(model, {}), **changed}
            self._own[model] = {key: value for key, value in own.items() if value is not None}
        else:
            whole = {key: getattr(Trace, key) if value is None else value for key, value in changed.items()}
            self._everywhere = replace(self._everywhere, **whole)
        self._seen.clear()
        self._told.clear()
        self._tell()
        settings = [self._everywhere, *map(self.trace, self._own)]
        self.tracing = any(one.trace_level != "OFF" for one in settings)
        TRACES.setLevel(logging.INFO if self.tracing else logging.NOTSET)
        return self.trace(model)

    def traced(self, model: str, version: str, spent: Mapping[str, int]) -> None:
        """A request was answered: log its timestamps (in nanoseconds, by name) if its turn has come.

        Call it where `tracing` is true; with all traces off, nothing is to be paid for them.
        """
        wanted = self.trace(model)
        if wanted.trace_level == "OFF":
            return
        seen = self._seen[model] = self._seen.get(model, 0) + 1
        told = self._told.get(model, 0)
        if seen % wanted.trace_rate or 0 <= wanted.trace_count <= told:
            return
        self._told[model] = told + 1
        self._lines.append(json.dumps({"id": seen, "model_name": model, "model_version": version, **spent}))
        if len(self._lines) >= wanted.log_frequency:
            self._tell()

    def logging(self) -> dict[str, Any]:
        """The settings of the log as they are, in the protocol's words."""
        level = logging.getLogger(ROOT).getEffectiveLevel()
        flags: dict[str, Any] = {key: level <= threshold for key, threshold in LEVELS.items()}
        return {"log_file": "", **flags, "log_verbose_level": int(level <= logging.DEBUG), "log_format": "default"}

    def set_logging(self, raw: Json) -> dict[str, Any]:
        """Change what is logged; levels include each other, so info on turns warnings and errors on.

        Raises:
            BadRequest: a setting is unknown, its value is none, or two contradict each other.
            NotOffered: it would choose a file or a format.
        """
        for key, value in raw.items():
            _check_logging(key, value)
        wanted = {key: value for key, value in raw.items() if value is not None}
        level = _level(wanted, logging.getLogger(ROOT).getEffectiveLevel())
        if level is not None:
            logging.getLogger(ROOT).setLevel(level)
        return self.logging()

    def _tell(self) -> None:
        for line in self._lines:
            TRACES.info("%s", line)
        self._lines.clear()


def trace_json(trace: Trace) -> dict[str, Any]:
    """The settings as the protocol writes them: numbers as text."""
    numbers = {key: str(getattr(trace, key)) for key in LEAST}
    return {"trace_level": [trace.trace_level], **numbers, "trace_file": "", "trace_mode": "triton"}


def _trace_value(key: str, value: Any) -> Any:
    if key == "trace_file":
        raise NotOffered("the trace file may not be set over the network", hint="traces go to the server's log")
    if key not in {field.name for field in fields(Trace)}:
        raise BadRequest(f"no trace setting {key[:100]!r}", hint=f"use {', '.join(f.name for f in fields(Trace))}")
    if value is None:
        return None
    if key == "trace_level":
        level = value[0] if isinstance(value, list) and len(value) == 1 else value
        if level not in ("OFF", "TIMESTAMPS"):
            raise BadRequest("trace_level is none that this server has", hint='use ["OFF"] or ["TIMESTAMPS"]')
        return level
    number = int(value) if isinstance(value, str) and value.removeprefix("-").isdecimal() and len(value) < 12 else value
    if not isinstance(number, int) or isinstance(number, bool) or not LEAST[key] <= number < 2**31:
        raise BadRequest(f"{key} must be a number from {LEAST[key]} to {2**31 - 1}, got {str(value)[:40]!r}")
    return number


def _check_logging(key: str, value: Any) -> None:
    if value is None and key in (*LEVELS, "log_file", "log_format", "log_verbose_level"):
        return
    if key == "log_file":
        raise NotOffered("the log file may not be set over the network", hint="redirect the server's standard error")
    if key == "log_format":
        if value != "default":
            raise NotOffered("log formats other than default are not offered", hint='use "default"')
    elif key == "log_verbose_level":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
            raise BadRequest(f"log_verbose_level must be a number of 0 or more, got {str(value)[:40]!r}")
    elif key not in LEVELS:
        raise BadRequest(f"no log setting {key[:100]!r}", hint=f"use {', '.join(LEVELS)} or log_verbose_level")
    elif not isinstance(value, bool):
        raise BadRequest(f"{key} must be true or false, got {str(value)[:40]!r}")


def _level(wanted: Json, now: int) -> int | None:
    """The level that the flags ask for together; None where they ask for nothing new."""
    flags = [(LEVELS[key], wanted[key]) for key in LEVELS if key in wanted]
    if any(on and not other for low, on in flags for high, other in flags if low < high):
        raise BadRequest("the levels contradict each other", hint="with log_info, leave log_warning and log_error on")
    verbose = wanted.get("log_verbose_level")
    on = [level for level, flag in flags if flag]
    off = [level for level, flag in flags if not flag]
    level = now
    if verbose is not None and (verbose > 0 or now <= logging.DEBUG):
        level = logging.DEBUG if verbose else logging.INFO
    if on and not verbose:
        level = min(level, min(on))
    if off:
        above = [high for high in LEVELS.values() if high > max(off)]
        level = max(level, min(above, default=SILENT))
    return level if level != now else None
