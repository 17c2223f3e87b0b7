"""A long run at a place: what its worker tells as it goes, message by message.

Refuses emulated places, whose times are no device's; an error there, or a line that drops, ends it with an error."""

from collections.abc import Iterator, Mapping
from typing import Any

from edgekit_runtime.errors import EdgeKitError, Unsupported
from edgekit_runtime.frames import Message, pack
from edgekit_runtime.tensors import Feeds

from edgekit.model import Artifact
from edgekit.places.there import KINDS, There

LAST = "endured"


def streamed(there: There, artifact: Artifact, course: Mapping[str, Any], feeds: Feeds) -> Iterator[Message]:
    """The start and the intervals of a run of the artifact on `feeds`, as `edgekit_runtime.endurance` tells them.

    Raises:
        Unsupported: this is no device.
        EdgeKitError: the run fails there, or the worker is gone.
    """
    words = there.place.words
    if there.place.kind == "emulated":
        raise Unsupported(f"{words} has no latency: it is emulated", hint="name a device: --on ssh://user@host")
    sent = pack(Message({**course, "do": "endure", "name": there._opened(artifact)}, feeds))
    while True:
        answer = there._exchange(sent, there.timeout)
        sent = b""  # nothing more is asked: what follows comes by itself
        if answer.head.get("do") == "error":
            kind = KINDS.get(str(answer.head.get("kind")), EdgeKitError)
            hint = str(answer.head.get("hint") or "run it there once: edgekit-runtime selftest BUNDLE")
            raise kind(f"{words}: {answer.head.get('what')}", hint=hint)
        if answer.head.get("do") == LAST:
            return
        yield answer
