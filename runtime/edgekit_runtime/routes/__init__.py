"""The table of HTTP routes: each protocol is a module here with a list `ROUTES` over the service.

Refuses nothing itself; a path that is in no module is not found."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.exchange import Request, Response
from edgekit_runtime.protocols.asking import Asked

if TYPE_CHECKING:
    from edgekit_runtime.lane import Lane
    from edgekit_runtime.service import Service

Parts = Mapping[str, str | None]
"""The named groups of a route's path."""
Tell = Callable[["Service", Request, Parts], Response | Awaitable[Response]]
Read = Callable[["Lane", Request], Asked]
Told = Callable[[EdgeKitError, int, Parts], Response]
"""A protocol's own words for an error with its HTTP status."""

PROTOCOLS = ("edgekit_runtime.routes.v2", "edgekit_runtime.routes.v1", "edgekit_runtime.routes.torchserve")


@dataclass(frozen=True)
class Route:
    """Who answers `verb` on the paths that `path` matches whole: `tell` at once, or `read` for an inference.

    An inference's path has a group `name`, and maybe `version` or `label`. `scope` is what a token must allow:
    "open" (none is asked for), "infer", "metrics", "page" (as "metrics" for browsers, open to others) or "admin" (not
    on the public address). `error` writes what was
    refused in the protocol's own shape; None writes {"error", "hint"}.
    """

    verb: str
    path: re.Pattern[str]
    scope: str
    tell: Tell | None = None
    read: Read | None = None
    error: Told | None = None


def protocols() -> list[Route]:
    """The routes of all protocols; the first that matches answers."""
    return [route for name in PROTOCOLS for route in import_module(name).ROUTES]
