"""What a client may take of the server: sizes, counts, seconds. Plain numbers.

Refuses nothing itself: who reads a thing holds it against its limit, and says which one was met."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Bytes, counts and seconds; each limit has its own answer and its own counter.

    `body` holds for the bytes that come and for what they unpack to, `buffered` for the bodies of all clients
    together; `values` are the numbers, strings and
    lists of one JSON text; `queue` are the requests waiting for one model; `deadline` is the longest that an
    answer may take, where the client does not say less (0: as long as it takes).
    """

    body: int = 64 * MIB
    buffered: int = 256 * MIB
    chunks: int = 65_536
    depth: int = 64
    values: int = 16_000_000
    url: int = 8_192
    headers: int = 100
    header_bytes: int = 32_768
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    connections: int = 1024
    per_address: int = 512
    queue: int = 128
    deadline: float = 60.0
