"""Numbers packed for the disk, exactly: only what changed since a base takes room. Pure.

Refuses bytes that are not such numbers, or not as many as were asked for."""

import zlib

import numpy as np

from edgekit_runtime.telemetry.series import Values

LEVEL = 6


def pack(values: Values, base: Values | None) -> bytes:
    """The bits that differ from the base, the first bytes of all numbers first: where little changed, mostly zeros."""
    bits = values.astype("<f8").view("<u8")
    if base is not None:
        bits = bits ^ base.astype("<f8").view("<u8")
    return zlib.compress(bits.view(np.uint8).reshape(-1, 8).T.tobytes(), LEVEL)


def unpack(raw: bytes, base: Values | None, count: int) -> Values:
    """The numbers again.

    Raises:
        ValueError: these bytes hold no such numbers.
    """
    try:
        whole = zlib.decompressobj().decompress(raw, 8 * count + 1)
    except zlib.error as error:
        raise ValueError(f"not packed numbers: {error}") from error
    if len(whole) != 8 * count or (base is not None and base.size != count):
        raise ValueError(f"{len(whole)} bytes are not {count} numbers")
    bits = np.frombuffer(whole, np.uint8).reshape(8, -1).T.copy().view("<u8").reshape(-1)
    if base is not None:
        bits = bits ^ base.astype("<f8").view("<u8")
    return bits.view("<f8").astype(np.float64, copy=False)
