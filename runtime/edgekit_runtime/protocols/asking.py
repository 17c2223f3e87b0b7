"""What every protocol makes of a request: the tensors, and how the answer is to be written.

Refuses nothing; the protocols do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.tensors import Feeds


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
