"""What is inside a PyTorch file, told from its bytes alone.

Refuses to unpickle: pickles are read opcode by opcode."""

import pickletools
import re
import zipfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import IO

from edgekit_runtime.errors import EdgeKitError


class Content(Enum):
    """What a file that PyTorch wrote holds."""

    TORCHSCRIPT = "TorchScript"
    EXPORTED = "an exported program"
    WEIGHTS = "weights"
    CODE = "a pickled model"
    NOTHING = "nothing that PyTorch wrote"


HARMLESS = re.compile(
    r"collections OrderedDict|torch [A-Za-z0-9]+Storage|torch\._utils _rebuild_\w+|torch (Size|device)"
    r"|torch (float|int|uint|bfloat|bool|complex)\w*|torch\.storage (Untyped|Typed)Storage"
    r"|torch\.serialization _get_layout|_codecs encode|numpy\S* \w+|torch\.nn\.parameter (Parameter|Buffer)"
    r"|builtins (set|int|float|str|dict|list|tuple|bytearray)"
)
"""Names that a pickle of tensors, numbers and containers mentions."""


def look(path: Path) -> Content:
    """What `path` holds."""
    try:
        with path.open("rb") as file:
            head = file.read(2)
        if head == b"PK" or zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _look_in_zip(archive)
        with path.open("rb") as file:
            return _look_at_pickle(file, pickles=4)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError):
        return Content.NOTHING


def _look_in_zip(archive: zipfile.ZipFile) -> Content:
    names = [PurePosixPath(name).parts[1:] for name in archive.namelist()]
    if any(parts[:1] == ("models",) for parts in names) or "serialized_exported_program.json" in archive.namelist():
        return Content.EXPORTED
    if any(parts[:1] == ("code",) for parts in names):
        return Content.TORCHSCRIPT
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if not pickles:
        return Content.NOTHING
    with archive.open(pickles[0]) as file:
        return _look_at_pickle(file, pickles=1)


def _look_at_pickle(file: IO[bytes], pickles: int) -> Content:
    """Weights if every name that the pickles mention is harmless; the old format is several in a row."""
    named: list[str] = []
    for _ in range(pickles):
        named += _names(file)
    return Content.WEIGHTS if all(HARMLESS.fullmatch(name) for name in named) else Content.CODE


def _names(file: IO[bytes]) -> Iterator[str]:
    """The `module name` pairs that one pickle would import."""
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif opcode.name == "STACK_GLOBAL":
            yield " ".join(strings[-2:])
        elif opcode.name in ("EXT1", "EXT2", "EXT4"):
            yield "an extension"
        elif isinstance(argument, str):
            strings.append(argument)


def pickled(path: Path) -> EdgeKitError:
    """The refusal of a pickled model or of weights alone, to be raised."""
    if look(path) == Content.WEIGHTS:
        return EdgeKitError(
            f"{path.name} holds weights without a model",
            hint=f"give the code too: edgekit build package.module:factory --weights {path}",
        )
    return EdgeKitError(
        f"{path.name} is a pickled model; unpickling runs whatever code is in it",
        hint="export it safely where it was made: torch.export.save(torch.export.export(model, args), 'model.pt2')",
    )
