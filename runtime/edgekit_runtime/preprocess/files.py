"""The bytes of what is given, sent along or in a file.

Refuses a file that is not there, and more bytes than a limit."""

from pathlib import Path

from edgekit_runtime.errors import BadRequest


def encoded(source: bytes | Path, most: int, what: str) -> tuple[bytes, str]:
    """The bytes, and the name by which messages call them: of the file, or `the sound` and the like.

    Raises:
        BadRequest: there is no such file, it does not read, or they are more than `most`.
    """
    named = f"the {what}" if isinstance(source, bytes) else source.name
    if not isinstance(source, bytes) and not source.is_file():
        raise BadRequest(f"no {what} at {source!s}", hint=f"give the path of a {what}")
    try:
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) > most:
            raise BadRequest(f"{named} has more than {most} bytes", hint="send a shorter one")
        return (source if isinstance(source, bytes) else source.read_bytes()), named
    except OSError as error:
        raise BadRequest(f"{named} does not read: {error.strerror}", hint=f"give the path of a {what}") from error
