"""The names that encoded things have on the wire: which a bundle takes, and what some bytes are.

Refuses nothing: what is not known is None."""

from edgekit_runtime.preprocess.kinds import Preprocess

MEDIA = {
    "image": ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif", "image/tiff"),
    "audio": ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"),
    "text": ("text/plain",),
}
BEGINNINGS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
ENOUGH = 16
"""Bytes that `sniff` looks at."""


def media(preprocess: Preprocess) -> tuple[str, ...]:
    """The content types that are taken, the usual one first."""
    return MEDIA[preprocess.kind]


def sniff(beginning: bytes) -> str | None:
    """The content type of what begins with these bytes; None where they do not tell."""
    for magic, name in BEGINNINGS:
        if beginning.startswith(magic):
            return name
    if beginning[:4] == b"RIFF":
        return RIFF.get(beginning[8:12])
    if beginning[:2] == b"BM" and beginning[6:10] == b"\0\0\0\0":  # two letters alone begin many a text
        return "image/bmp"
    return None
