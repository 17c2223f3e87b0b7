"""The errors that a person or a client can act on: what was wrong, and what to do instead.

Refuses nothing itself; everything that is not an `EdgeKitError` is a bug and keeps its traceback."""


class EdgeKitError(Exception):
    """What was wrong and where (`what`), and what to type instead (`hint`, in the imperative).

    `reason` is the word under which a server counts it.
    """

    reason = "other"

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class BadRequest(EdgeKitError):
    """The input does not fit the model."""

    reason = "bad_request"


class NotFound(EdgeKitError):
    """Something named by the user is not here: a model, an engine, a file."""

    reason = "not_found"


class BadBundle(EdgeKitError):
    """The bundle is not whole, not ours, or not for this runtime."""


class Untrusted(BadBundle):
    """The bundle, or what vouches for it, was not verified; `reason` says why, in a word of REASONS."""

    REASONS = (
        *("unsigned", "signature", "unlisted", "missing", "touched", "wrong_key", "revoked", "expired", "downgrade"),
        *("other_target", "other_device", "schema", "trust"),
    )

    def __init__(self, what: str, hint: str = "", reason: str = "signature") -> None:
        super().__init__(what, hint)
        self.reason = reason


class Unsupported(EdgeKitError):
    """The artifact cannot be run or made by this engine; another one may."""

    reason = "unsupported"


class NotOffered(EdgeKitError):
    """A part of a protocol that this server does not have."""

    reason = "not_offered"


class Unauthenticated(EdgeKitError):
    """No token, or one that is not known."""

    reason = "unauthenticated"


class Forbidden(EdgeKitError):
    """A known caller asks for what it may not have, or for what is switched off."""

    reason = "forbidden"


class Exceeded(EdgeKitError):
    """More than a limit allows; `limit` is its name, under which it is counted."""

    def __init__(self, what: str, hint: str = "", limit: str = "body") -> None:
        super().__init__(what, hint)
        self.limit = self.reason = limit


class Busy(EdgeKitError):
    """The server has no room now, and will have some in about `retry_after` seconds."""

    reason = "busy"

    def __init__(self, what: str, hint: str = "", retry_after: int = 1) -> None:
        super().__init__(what, hint)
        self.retry_after = retry_after


class Late(EdgeKitError):
    """The answer would have come after its deadline; it was not computed, or is thrown away."""

    reason = "late"
