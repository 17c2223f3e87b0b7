"""Tiny bundles that bring an exam, as a build packs it.

Refuses nothing: what is to be wrong with an exam, the tests do to it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.bundle import read_manifest
from edgekit_runtime.exam import Exam, Sample, write_exam
from edgekit_runtime.marks import marks
from edgekit_runtime.tensors import Array

from tests.runtime.bundles import X, listed, make_bundle, some, truth

FILE = "exam.npz"


def samples_of(count: int, metric: str = "top1") -> list[Sample]:
    """Photos with what is right of them by the linear layer itself, which is always right."""
    x = some(count, 500)
    answers: list[Array] = list(truth(x))
    rights: Sequence[Any] = list(truth(x).argmax(1)) if metric in ("top1", "agreement") else answers
    scores = marks(metric, answers, rights)
    return [
        Sample({"x": x[i : i + 1]}, np.asarray(right), float(scores[i])) for i, right in enumerate(rights)
    ]  # fmt: skip


def add_exam(folder: Path, count: int = 200, metric: str = "top1", **changes: Any) -> Path:
    """The bundle with an exam of so many samples, of which it may lose five points."""
    samples = samples_of(count, metric)
    write_exam(folder / FILE, samples, [X])
    exam = Exam(FILE, count, metric, "y", "source", 0.05, float(np.mean([one.reference for one in samples])), 1.0)
    return listed(folder, replace(read_manifest(folder), exam=replace(exam, **changes)))


def make_examined(folder: Path, count: int = 200, metric: str = "top1", **changes: Any) -> Path:
    """A whole bundle that brings one."""
    return add_exam(make_bundle(folder), count, metric, **changes)
