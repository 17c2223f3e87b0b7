"""Tensors of kept samples as the bytes of an `.npz`. Pure.

Refuses nothing. Strings become numpy's own, of a fixed width: objects would be pickled, and no pickle is ever read."""

import io
from collections.abc import Mapping, Sequence

import numpy as np

from edgekit_runtime.tensors import Array, Feeds

MOST_ARRAYS = 4_096


def storable(feeds: Feeds) -> Feeds:
    """The same without objects."""
    return {name: value.astype(np.str_) if value.dtype.kind == "O" else value for name, value in feeds.items()}


def pack(arrays: Mapping[str, Sequence[Array]]) -> bytes:
    """An `.npz` with the pieces of each array one behind the other; all but their first axes are the same."""
    import zipfile

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as made:
        for name, pieces in arrays.items():
            dtype = np.result_type(*(piece.dtype for piece in pieces))
            shape = pieces[0].shape
            if shape:
                shape = (sum(len(piece) for piece in pieces), *shape[1:])
            head = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(dtype)}
            with made.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, head)
                for piece in pieces:
                    member.write(np.ascontiguousarray(piece, dtype).tobytes())
    return held.getvalue()


def unpack(data: bytes) -> Feeds:
    """What `pack` made.

    Raises:
        ValueError: it was touched.
    """
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as held:
            parts = held.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise ValueError("packed, and by somebody else: it may unpack to anything")
            if sum(part.file_size for part in parts) > len(data) or len(parts) > MOST_ARRAYS:
                raise ValueError("larger inside than outside")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from error
    except (RuntimeError, MemoryError, OverflowError) as error:  # "encrypted", "not supported", a shape that lies
        raise ValueError(str(error)) from error
    if not all(isinstance(value, np.ndarray) for value in found.values()):
        raise ValueError("no arrays")
    return found
