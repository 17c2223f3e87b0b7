"""What every protocol makes of a request: the tensors, and how the answer is to be written.

Refuses nothing; the protocols do."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from edgekit_runtime.tensors import Feeds

REQUEST_ID = "x-request-id"
"""The header by which a client names a request where its protocol has no word for that, and is told the name."""
PLAIN_ID = re.compile(r"[\x21-\x7e]{1,200}")
"""What may come back in a header."""


def request_id(own: str | None, said: str) -> str:
    """The id of a request: the protocol's `own`, what the header `said`, or a new one."""
    return own or (said if PLAIN_ID.fullmatch(said) else token_hex(8))


@dataclass(slots=True)
class Asked:
    """A request for one inference.

    `feeds` are the tensors, or a function that makes them where that is work (a photo to decode): it is then
    called in a thread. `write` makes the protocol's reply from the model's outputs. `timeout` is how many
    seconds the client is willing to wait, None where it does not say. `id` is the client's word for the request,
    `source` the photo, sound or text as it came, where it is one.
    """

    feeds: Feeds | Callable[[], Feeds]
    write: Callable[[Feeds], Any]
    timeout: float | None = None
    id: str | None = None
    traced: Callable[[tuple[str, str], tuple[int, int, int, int]], None] | None = None
    source: bytes | None = None
