"""The server's own log on a stream: lines of text for a person, or Elastic's Common Schema for a machine.

Refuses to fill a journal: of lines that are alike so many a second are written, then how many more there were."""

import json
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from edgekit_runtime.printable import safe
from edgekit_runtime.version import __version__

ROOT = "edgekit_runtime"
TRACES = ROOT + ".trace"
"""Not thinned out: how many of them there are, an operator has said."""
SERVICE = "edgekit-runtime"
ECS_VERSION = "9.4.0"
Form = Literal["text", "ecs"]

LIKE_LINES = 10
"""Lines a second that are alike."""
ALL_LINES = 200
"""Lines a second in all."""
LONGEST = 16_384
"""Bytes of a line; the journal itself cuts a line at 48 kB."""
WORDS, STACK, MESSAGE = 200, 6_000, 4_000
"""Characters of a field, of a traceback (its end), of a message."""
MOST_LABELS = 32
CUTS = (("error", "stack_trace", 1500), ("labels", "", 0), ("", "message", 400), ("error", "message", 100))
"""What a line that is too long is cut down to, in this order."""

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Of syslog, as sd-daemon(3) writes them before a line."""
USERINFO = re.compile(r"://[^\s/?#@]*@(?:[^\s/?#@]*@)*")
SECRET = re.compile(r"\b(bearer|basic) [\w.~+/=-]{6,}|\bek_[\w-]{20,}", re.IGNORECASE)

FIELDS: Mapping[str, tuple[str, type]] = {
    "outcome": ("event.outcome", str),
    "reason": ("event.reason", str),
    "duration_ns": ("event.duration", int),
    "trace_id": ("trace.id", str),
    "span_id": ("span.id", str),
    "request_id": ("http.request.id", str),
    "method": ("http.request.method", str),
    "status": ("http.response.status_code", int),
    "version": ("labels.model_version", str),
}
"""Where a field of `event` goes; all others are labels."""

ACTIONS: Mapping[str, tuple[str, str, str]] = {
    "server-started": ("event", "process", "start"),
    "server-stopped": ("event", "process", "end"),
    "model-loaded": ("event", "configuration", "creation"),
    "model-replaced": ("event", "configuration", "change"),
    "model-unloaded": ("event", "configuration", "deletion"),
    "model-failed": ("event", "configuration", "info"),
    "model-rolled-back": ("event", "configuration", "change"),
    "model-proven-good": ("event", "configuration", "change"),
    "model-shadowing": ("event", "configuration", "change"),
    "model-promoted": ("event", "configuration", "change"),
    "model-dropped": ("event", "configuration", "info"),
    "drift-alarm-raised": ("alert", "", "info"),
    "drift-alarm-cleared": ("alert", "", "info"),
    "request-refused": ("event", "web", "error"),
    "selftest-failed": ("event", "configuration", "info"),
    "lines-left-out": ("event", "process", "info"),
}
"""What happens here, by action: event.kind, event.category, event.type. The schema has no category for drift."""


def event(log: logging.Logger, level: int, action: str, message: str, **fields: Any) -> None:
    """Log what happened: `message` is for a person, `action` (of `ACTIONS`) and `fields` for a machine.

    Fields: those of `FIELDS`, `error` (an exception, whose words and kind are told, not its traceback), and others,
    which become labels, such as `model`. None is left out.
    """
    if log.isEnabledFor(level):
        more = {"action": action, "fields": fields}
        log.handle(log.makeRecord(log.name, level, "", 0, "%s", (message,), None, extra=more))  # where from, `log` says


def setup(form: Form, stream: TextIO, journal: str = "") -> None:
    """Write our log to `stream`, in place of where an earlier call had it; `journal` is the value of $JOURNAL_STREAM.

    Text from warnings on; for a machine, what happens in the ordinary course as well.
    """
    from socket import gethostname

    formatter = Text() if form == "text" else Ecs(gethostname())
    ours = logging.getLogger(ROOT)
    for old in [one for one in ours.handlers if isinstance(one, Lines)]:
        ours.removeHandler(old)
        old.close()
    ours.addHandler(Lines(stream, formatter, is_journal(stream, journal)))
    ours.setLevel(logging.WARNING if form == "text" else logging.INFO)
    ours.propagate = False


def is_journal(stream: TextIO, journal: str) -> bool:
    """Whether systemd's journal reads the stream: `journal` is the device and inode that systemd connected."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return journal == f"{found.st_dev}:{found.st_ino}"


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines, those that are alike not too often; never raises. With `prefix`, each says its priority."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter, prefix: bool) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)
        self._prefix = prefix
        self._since = 0.0
        self._seen: dict[tuple[str, int, str, str], int] = {}
        self._all = 0
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, unless there were enough like it; the lock is held."""
        if record.name == TRACES or self._admitted(record):
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """The text, each line of it with its priority where the journal reads it."""
        text = super().format(record)
        if not self._prefix:
            return text
        level = max((known for known in PRIORITIES if known <= record.levelno), default=logging.DEBUG)
        return "\n".join(f"<{PRIORITIES[level]}>{line}" for line in text.split("\n"))

    def handleError(self, record: logging.LogRecord) -> None:
        """A log that cannot be written (a full disk, nobody reads) stops no server."""

    def close(self) -> None:
        """Say what was left out, and end."""
        self.settle()
        if self._timer is not None:
            self._timer.cancel()
        super().close()

    def settle(self) -> None:
        """Say what was left out in the second that is over, and begin a new one."""
        self.acquire()
        try:
            seen, self._seen, self._all, self._since = self._seen, {}, 0, time.monotonic()
            for key, count in seen.items():
                if count > 0:
                    super().emit(_left_out(key, count))
        finally:
            self.release()

    def _admitted(self, record: logging.LogRecord) -> bool:
        if time.monotonic() - self._since >= 1.0:
            self.settle()
        reason = str(getattr(record, "fields", {}).get("reason") or "")
        key = (record.name, record.levelno, getattr(record, "action", "") or str(record.msg)[:WORDS], reason[:WORDS])
        if key not in self._seen and len(self._seen) >= ALL_LINES:
            key = (ROOT, logging.WARNING, "others", "")
        count = self._seen.get(key, -LIKE_LINES) + 1
        if count <= 0 and self._all < ALL_LINES:
            self._seen[key], self._all = count, self._all + 1
            return True
        self._seen[key] = max(count, 1)
        if self._timer is None or not self._timer.is_alive():
            self._timer = threading.Timer(1.0, self.settle)
            self._timer.daemon = True
            self._timer.start()
        return False


class Text(logging.Formatter):
    """One line an entry, whatever a client wrote into it; what an error quotes begins no line."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The entry; the lines of a traceback are indented."""
        record.msg, record.args = record.getMessage().replace("\n", "\\n"), None
        text = _without_secrets(super().format(record))
        return safe(text).replace("\n", "\n  ")


class Ecs(logging.Formatter):
    """One JSON object a line, nested: an ingest processor, `jq` and Vector all name `event.action` by that path, where
    dotted keys would first have to be expanded. ASCII alone, so that no line end and no terminal's code is in it."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self._same = {
            "ecs": {"version": ECS_VERSION},
            "service": {"name": SERVICE, "version": __version__},
            "host": {"hostname": _words(host)},
            "process": {"pid": os.getpid()},
        }

    def format(self, record: logging.LogRecord) -> str:
        """The line, within its length."""
        made: dict[str, Any] = {"@timestamp": _time(record.created), "log": {"level": record.levelname.lower()}}
        made["log"]["logger"] = _words(record.name)
        try:
            made["message"] = _words(record.getMessage(), MESSAGE)
            made |= self._same
            _add_event(made, record)
        except Exception as error:  # words of a client or a library may not even turn into text; the entry remains
            made["message"] = f"an entry that does not read: {type(error).__name__}"
        return _bounded(made)


def _add_event(made: dict[str, Any], record: logging.LogRecord) -> None:
    action, fields = getattr(record, "action", ""), getattr(record, "fields", {})
    error = fields.get("error")
    if action:
        kind, category, sort = ACTIONS.get(action, ("event", "", "info"))
        made["event"] = {"kind": kind, "action": _words(action), "type": [sort]}
        made["event"] |= {"category": [category]} if category else {}
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        made["error"] = {"stack_trace": _words(_stack(error)[-STACK:], STACK)}
    if isinstance(error, BaseException):
        made.setdefault("error", {})["type"] = type(error).__qualname__[:WORDS]
        made["error"]["message"] = _words(str(error))
    for name, value in fields.items():
        if value is not None and name != "error":
            _put(made, name, value)


def _stack(error: BaseException) -> str:
    """Where it was raised, and what it came of: our lines of code, without the errors' words, which may quote a
    request at any length."""
    import traceback

    parts: list[str] = []
    each: BaseException | None = error
    while each is not None and len(parts) < 5:
        parts.append("".join(traceback.format_tb(each.__traceback__)) + type(each).__qualname__)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return "\n\nwhich came of\n\n".join(parts)


def _put(made: dict[str, Any], name: str, value: Any) -> None:
    path, kind = FIELDS.get(name, ("", str))
    if path and (isinstance(value, str) if kind is str else type(value) is int and 0 <= value < 2**63):
        *folders, leaf = path.split(".")
        for folder in folders:
            made = made.setdefault(folder, {})
        made[leaf] = _words(value) if isinstance(value, str) else value
        return
    labels = made.setdefault("labels", {})
    if len(labels) < MOST_LABELS:
        told = ", ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value:.6g}" if isinstance(
            value, float) else str(value)  # fmt: skip
        labels[_words(name).replace(".", "_")] = _words(told)


def _bounded(made: dict[str, Any]) -> str:
    line = json.dumps(made)
    for folder, leaf, most in CUTS:
        if len(line) <= LONGEST:
            return line
        inside = made.get(folder, {}) if folder else made
        if not leaf:
            made.pop(folder, None)
        elif leaf in inside:
            inside[leaf] = inside[leaf][-most:] if leaf == "stack_trace" else inside[leaf][:most]
        line = json.dumps(made)
    if len(line) <= LONGEST:
        return line
    return json.dumps({key: made[key] for key in ("@timestamp", "log", "message", "ecs") if key in made})


def _words(text: str, most: int = WORDS) -> str:
    """`text` without secrets, cut, with nothing that is no character."""
    return _without_secrets(text[: 2 * most])[:most].encode("utf-8", "replace").decode()


def _without_secrets(text: str) -> str:
    return SECRET.sub("***", USERINFO.sub("://***@", text))


def _time(seconds: float) -> str:
    whole = int(seconds // 1)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1000):03d}Z"


def _left_out(key: tuple[str, int, str, str], count: int) -> logging.LogRecord:
    """The line that stands for those that were not written; it quotes our own words alone."""
    name, level, what, reason = key
    told = f"{count} more lines like this were left out: {reason or what}"
    made = logging.LogRecord(name, level, "", 0, "%s", (told,), None)
    made.action, made.fields = "lines-left-out", {"reason": reason or None, "count": count}
    return made
