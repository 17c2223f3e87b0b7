"""Snappy's block format, without finding anything to shorten: Prometheus asks for the format, not for the saving. Pure.

Refuses nothing. The device needs no library for it; a body is about as long as it was."""

MOST = 2**16
"""Bytes in one literal: what decoders are tuned for."""


def framed(raw: bytes) -> bytes:
    """`raw` as a block of literals."""
    parts = [varint(len(raw))]
    for start in range(0, len(raw), MOST):
        literal = raw[start : start + MOST]
        length = len(literal) - 1
        if length < 60:
            parts.append(bytes((length << 2,)))
        else:
            parts.append(bytes((61 << 2,)) + length.to_bytes(2, "little"))  # two bytes of length follow
        parts.append(literal)
    return b"".join(parts)


def varint(value: int) -> bytes:
    """An unsigned number, seven bits a byte, the lowest first: as protobuf has it too."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
