"""A plain ASGI application under uvicorn: the same reading, running and replying as `bare.py`, inline on the loop.

`python uvicorn_peer.py MODEL.onnx PORT`. Refuses nothing."""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
import v2
from engine import open_session, sample

session = open_session(sys.argv[1])
FEED, OUT = session.get_inputs()[0].name, session.get_outputs()[0].name
Message = MutableMapping[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Every request is an inference."""
    pieces, more = [], True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    length = next((int(value) for name, value in scope["headers"] if name == b"inference-header-content-length"), None)
    x, given = v2.read(b"".join(pieces), length)
    body, head_length = v2.write(session.run(None, {FEED: x})[0], OUT, given, length is not None)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if head_length is not None:
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % len(body)),
            (b"inference-header-content-length", b"%d" % head_length),
        ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    session.run(None, {FEED: sample(session)})
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[2]), http="httptools", loop="uvloop", lifespan="off",
        access_log=False, log_level="warning",
    )  # fmt: skip
