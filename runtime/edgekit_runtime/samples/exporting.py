"""Kept samples as a tar that unpacks into a dataset; its layout is told in the package's docstring.

Refuses nothing: a sample that went meanwhile, or does not read, is not in it."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.samples.entries import TENSORS, held
from edgekit_runtime.samples.packing import pack, unpack
from edgekit_runtime.samples.shelves import REASONS, Kept
from edgekit_runtime.tensors import Feeds

PART = 16 * 2**20
"""Bytes of samples in a part, if they are not in one sample: so much is held in memory, twice for tensors."""
Told = dict[str, Any]
Group = list[tuple[Feeds, Kept, Told]]


def described(kept: Kept) -> dict[str, Any]:
    """What is told of a sample in samples.json and the index."""
    confidence, drift, _ = kept.worths
    return {
        "name": kept.name, "label": kept.label, "answer": kept.answer,
        "confidence": None if confidence is None else -confidence, "drift": drift,
        "why": [reason for reason in REASONS if reason in kept.why], "when_ms": kept.when_ms, "id": kept.id,
        "model": kept.model, "version": kept.version, "bytes": kept.size,
    }  # fmt: skip


def tarred(folder: Path, head: Told, chosen: list[tuple[Kept, Told]]) -> Iterator[bytes]:
    """The tar, piece by piece. `head` is what samples.json says beside the list."""
    listed: list[Told] = []
    labels: list[tuple[str, str]] = []
    tensors: Group = []
    for kept, told in chosen:
        try:
            data = held(folder / kept.name / kept.file, kept.size)
            if kept.file == TENSORS:
                tensors.append((unpack(data), kept, told))
                continue
        except (OSError, ValueError):  # it had to make room meanwhile, or the disk failed
            continue
        name = kept.name + Path(kept.file).suffix
        part = "unlabelled" if kept.label is None else "labelled"
        if kept.label is not None:
            labels.append((name, kept.label))
        yield from _member(f"{part}/{name}", data, kept.when_ms)
        listed.append(_line(told, f"{part}/{name}", None))
    if labels:
        table = io.StringIO(newline="")
        csv.writer(table, lineterminator="\n").writerows([("file", "label"), *labels])
        yield from _member("labelled/labels.csv", table.getvalue().encode("utf-8", "replace"))
    for path, group, labelled in _archives(tensors):
        yield from _member(path, _packed(group, labelled))
        listed += [_line(told, path, row) for row, (_, _, told) in enumerate(group)]
    versions = {one["version"] for one in listed}
    version = versions.pop() if len(versions) == 1 else None
    whole = {"schema": 1, "model": head["model"], "version": version, "next": head["next"], "samples": listed}
    yield from _member("samples.json", json.dumps(whole, indent=1, allow_nan=False).encode())
    yield bytes(1024)


def _archives(tensors: Group) -> Iterator[tuple[str, Group, bool]]:
    """(path, samples, whether they are labelled): those of the same shapes together, the most frequent first."""
    parts: dict[str, dict[object, Group]] = {}
    for one in tensors:
        feeds, kept, _ = one
        finite = all(np.isfinite(value).all() for value in feeds.values() if value.dtype.kind in "fc")
        labelled = finite and kept.index is not None and "label" not in feeds
        where = "labelled/tensors" if labelled else "unlabelled/tensors" if finite else "unlabelled/not-finite"
        form = tuple((name, value.shape, _type(value.dtype)) for name, value in sorted(feeds.items()))
        parts.setdefault(where, {}).setdefault(form, []).append(one)
    for where, forms in sorted(parts.items()):
        for number, group in enumerate(sorted(forms.values(), key=len, reverse=True), start=1):
            ending = "" if number == 1 else f"-{number}"
            yield f"{where}{ending}.npz", group, where.startswith("labelled")


def _type(dtype: np.dtype[Any]) -> str:
    """Strings of all widths go together."""
    return "str" if dtype.kind == "U" else dtype.str


def _packed(group: Group, labelled: bool) -> bytes:
    """Samples of the same shapes; what has no batch axis of one gets one."""
    first = group[0][0]
    grown = all(value.shape[:1] == (1,) for value in first.values())
    arrays = {name: [feeds[name] if grown else feeds[name][None] for feeds, _, _ in group] for name in first}
    if labelled:
        arrays["label"] = [np.array([kept.index for _, kept, _ in group], np.int64)]
    return pack(arrays)


def _line(told: Told, file: str, row: int | None) -> Told:
    keys = ("label", "answer", "confidence", "drift", "why", "when_ms", "id", "version")
    return {"file": file, "row": row, **{key: told[key] for key in keys}}


def _member(name: str, data: bytes, when_ms: int = 0) -> Iterator[bytes]:
    """A file in the tar, owned by nobody in particular."""
    import tarfile

    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), max(0, when_ms // 1000), 0o644
    yield info.tobuf(tarfile.USTAR_FORMAT)
    yield data
    yield bytes(-len(data) % tarfile.BLOCKSIZE)
