"""The errors that a person or a client can act on: what was wrong, and what to do instead.

Refuses nothing itself; everything that is not an `EdgeKitError` is a bug and keeps its traceback."""

from collections.abc import Mapping


class EdgeKitError(Exception):
    """What was wrong and where (`what`), and what to type instead (`hint`, in the imperative)."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class BadRequest(EdgeKitError):
    """The input does not fit the model."""


class NotFound(EdgeKitError):
    """Something named by the user is not here: a model, an engine, a file."""


class BadBundle(EdgeKitError):
    """The bundle is not whole, not ours, or not for this runtime."""


class Unsupported(EdgeKitError):
    """The artifact cannot be run or made by this engine; another one may."""


class Refused(EdgeKitError):
    """An answer of a server that stands for no other error here: its HTTP `status`, and `headers` to send with it."""

    def __init__(self, status: int, what: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what, hint)
        self.status = status
        self.headers = headers or {}
