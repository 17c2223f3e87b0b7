"""A parcel of samples from a device: a tar of plain files with their list, taken apart in memory, checked whole. Pure.

Refuses links, devices, every path but those of samples, names twice, what is not listed, archives that unpack, cuts."""

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import PLAIN
from edgekit_runtime.tensors import Array, Feeds

from edgekit.npz import DAMAGED, headers, whole

LIST, TABLE = "samples.json", "labelled/labels.csv"
SOURCE = re.compile(r"(labelled|unlabelled)/([0-9a-f]{32})\.(jpg|png|webp|bmp|gif|tif|wav|txt)")
ARCHIVE = re.compile(r"(labelled|unlabelled)/(tensors|not-finite)(-[1-9][0-9]{0,3})?\.npz")
SCHEMA = 1
BLOCK = 512
MOST_FILES = 20_000
MOST_EACH = 512 * 2**20
MOST_ARRAYS, MOST_ENTRIES = 64, 64 * 1024
"""Arrays in an .npz, and the bytes of the table that lists them."""
LONGEST = 1000
TOLD: Mapping[str, type | tuple[type, ...]] = {
    "answer": str, "confidence": (int, float), "drift": (int, float), "why": list, "when_ms": int, "id": str,
    "version": str,
}  # fmt: skip
"""What is told of a sample beside its label, and of which type, where it is told."""
HINT = "look whether this is the device that you mean; nothing of this part was kept"


@dataclass(frozen=True)
class Sample:
    """One sample: `ending` and `source` as it came, or `tensors` without the axis of samples, `index` its class.

    `label` is the true one; None where nobody told it. `told` is what else the device says.
    """

    name: str
    ending: str
    source: bytes
    tensors: Feeds | None
    label: str | None
    index: int | None
    told: Mapping[str, Any]


@dataclass(frozen=True)
class Parcel:
    """The samples of one answer; `next` is what to ask for after them, None where they are the last."""

    model: str
    next: str | None
    samples: tuple[Sample, ...]


def open_parcel(raw: bytes) -> Parcel:
    """The samples in `raw`, a ustar archive as a device sends it.

    Raises:
        EdgeKitError: anything in it is not as a device of ours would send it.
    """
    files: dict[str, bytes] = {}
    for name, content in _members(raw):
        if name in files:
            raise bad(f"holds {name} twice")
        if len(files) >= MOST_FILES:
            raise bad(f"holds more than {MOST_FILES:,} files")
        files[name] = content
    head, rows = _listed(files.pop(LIST, None))
    files.pop(TABLE, None)  # the list says the same
    by_file: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_file.setdefault(str(row.get("file")), []).append(row)
    if extra := sorted(files.keys() - by_file.keys()):
        raise bad(f"holds {extra[0]}, which it does not list")
    if missing := sorted(by_file.keys() - files.keys()):
        raise bad(f"lists {shown(missing[0])}, which it does not hold")
    samples = [one for name, content in files.items() for one in _samples(name, content, by_file[name], head["model"])]
    return Parcel(head["model"], head["next"], tuple(samples))


def bad(what: str) -> EdgeKitError:
    """What a device sent, and would not if it were ours."""
    return EdgeKitError(f"what the device sent {what}", hint=HINT)


def shown(value: Any) -> str:
    """A device's word as a person may see it."""
    return ascii(value)[:100]


def content_name(model: str, tensors: Feeds) -> str:
    """The name of tensors: equal ones of a model have equal names, whatever they were sent with."""
    hasher = hashlib.sha256(model.encode())
    for name, value in sorted(tensors.items()):
        hasher.update(json.dumps([name, value.dtype.str, value.shape]).encode() + np.ascontiguousarray(value).tobytes())
    return hasher.hexdigest()[:32]


def _members(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The plain files of a ustar archive; nothing else may be in it."""
    at = 0
    while any(head := raw[at : at + BLOCK]):
        name, size = _head(head)
        at += BLOCK
        if len(raw) < at + size:
            break
        yield name, raw[at : at + size]
        at += -(-size // BLOCK) * BLOCK
    if len(raw) < at + 2 * BLOCK or any(raw[at:]):
        raise bad("was cut short, or goes on behind its end")


def _head(head: bytes) -> tuple[str, int]:
    """(name, size) that one header gives."""
    if len(head) < BLOCK or head[257:263] != b"ustar\0":
        raise bad("is no tar, or was damaged")
    if _octal(head[148:156]) != sum(head[:148]) + 8 * ord(" ") + sum(head[156:]):
        raise bad("is no tar, or was damaged")
    name = head[:100].split(b"\0", 1)[0].decode("latin-1")
    if any(head[345:500]) or not (name in (LIST, TABLE) or SOURCE.fullmatch(name) or ARCHIVE.fullmatch(name)):
        raise bad(f"holds {shown(name)}, which is no place of a sample")
    if head[156:157] != b"0" or any(head[157:257]):
        raise bad(f"holds {name} as something else than a plain file")
    size = _octal(head[124:136])
    if size > MOST_EACH:
        raise bad(f"holds {name} of {size:,} bytes")
    return name, size


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,12}", digits):
        raise bad("is no tar, or was damaged")
    return int(digits, 8)


def _listed(raw: bytes | None) -> tuple[dict[str, Any], list[Any]]:
    """(what the list says beside the rows, its rows)."""
    if raw is None:
        raise bad(f"lacks its {LIST}")
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise bad(f"holds a {LIST} that does not read") from error
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise EdgeKitError(
            f"the device lists its samples otherwise than by schema {SCHEMA}, which is read here",
            hint="use the edgekit that goes with the device's edgekit-runtime",
        )
    model, after, rows = told.get("model"), told.get("next"), told.get("samples")
    if not isinstance(model, str) or not PLAIN.fullmatch(model) or not isinstance(rows, list):
        raise bad(f"holds a {LIST} that names no model and samples")
    if after is not None and not (isinstance(after, str) and re.fullmatch("[0-9a-f]{32}", after)):
        raise bad(f"goes on after {shown(after)}, which is no sample")
    if not all(isinstance(row, dict) for row in rows):
        raise bad(f"holds a {LIST} of something else than samples")
    return {"model": model, "next": after}, rows


def _samples(file: str, content: bytes, rows: list[Mapping[str, Any]], model: str) -> Iterator[Sample]:
    """The samples in one file."""
    if found := SOURCE.fullmatch(file):
        if len(rows) > 1 or rows[0].get("row") is not None:
            raise bad(f"lists {file} twice")
        label = _label(rows[0], file, found[1])
        yield Sample(found[2], found[3], content, None, label, None, _told(rows[0], file))
        return
    side, finite = file.split("/")[0], "not-finite" not in file
    count = len(rows)
    arrays = _arrays(content, file, count)
    classes = arrays.pop("label", None) if side == "labelled" else None
    if [row.get("row") for row in rows] != list(range(count)):
        raise bad(f"lists the samples of {file} out of order")
    if side == "labelled" and (classes is None or classes.shape != (count,) or classes.dtype.kind not in "iu"):
        raise bad(f"holds {file} without the classes of its samples")
    if finite and not all(np.isfinite(value).all() for value in arrays.values() if value.dtype.kind in "fc"):
        raise bad(f"holds {file} with NaN or infinity")
    for row, told in enumerate(rows):
        tensors = {name: _own(value[row]) for name, value in arrays.items()}
        index = None if classes is None else int(classes[row])
        label = _label(told, file, side if side == "labelled" else None)
        yield Sample(content_name(model, tensors), "npz", b"", tensors, label, index, _told(told, file))


def _own(value: Array) -> Array:
    """A row by itself; strings as wide as they need be alone, not as their neighbours are."""
    value = np.array(value)
    if value.dtype.kind != "U":
        return value
    return value.astype(f"<U{max(1, int(np.strings.str_len(value).max(initial=0)))}")


def _arrays(content: bytes, file: str, count: int) -> Feeds:
    """The arrays of an .npz that is stored as it is: one that unpacks to more than it weighs is refused."""
    unread = bad(f"holds {file}, which does not read as plain numpy arrays of {count} samples")
    try:
        end = content[-22:]
        entries, size = struct.unpack("<H", end[10:12])[0], struct.unpack("<I", end[12:16])[0]
        if end[:4] != b"PK\5\6" or content[-42:-38] == b"PK\6\7" or entries > MOST_ARRAYS or size > MOST_ENTRIES:
            raise unread
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            members = opened.infolist()
            if any(one.compress_type != zipfile.ZIP_STORED or not one.filename.endswith(".npy") for one in members):
                raise unread
            if sum(one.file_size for one in members) > len(content):
                raise unread
            heads = headers(opened)
            if not heads or len(heads) < len(members):
                raise unread
            for head in heads.values():
                if head.dtype.kind not in "fiubcU" or not head.dtype.itemsize or head.shape[:1] != (count,):
                    raise unread
            found = {name: whole(opened, name) for name in heads}
    except DAMAGED as error:
        raise unread from error
    if not all(name.isprintable() and 0 < len(name) <= LONGEST and ".." not in name for name in found):
        raise bad(f"holds {file} with an array of no plain name")
    return found


def _label(row: Mapping[str, Any], file: str, side: str | None) -> str | None:
    """The true label; `side` is where its file lies, if that tells whether there is one."""
    label = row.get("label")
    if label is not None and not (isinstance(label, str) and 0 < len(label) <= LONGEST and label.isprintable()):
        raise bad(f"gives a sample in {file} a label that is no word")
    if side is not None and (label is not None) != (side == "labelled"):
        raise bad(f"holds a sample in {file} {'with' if label is not None else 'without'} a label")
    return label


def _told(row: Mapping[str, Any], file: str) -> dict[str, Any]:
    """What else is told, those words alone that are known."""
    found = {}
    for key, kind in TOLD.items():
        value = row.get(key)
        fit = isinstance(value, kind) and not isinstance(value, bool) and len(json.dumps(value)) <= LONGEST * 6
        if value is not None and not fit:
            raise bad(f"tells {key} of a sample in {file} as {shown(value)}")
        found[key] = value
    return found
