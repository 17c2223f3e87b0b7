"""Scores a model where it runs on the samples that its bundle brings, as the build did: an exam and its verdict.

Refuses a bundle without an exam, and one whose exam does not fit its model. A NaN is never right."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.bundle import MANIFEST, Bundle
from edgekit_runtime.disk import REAL, make_folder, replace
from edgekit_runtime.errors import BadBundle, EdgeKitError, NotFound
from edgekit_runtime.exam import Exam, Sample, read_exam
from edgekit_runtime.intervals import bounds
from edgekit_runtime.marks import SHARES, amount, marks, squeezed, worse
from edgekit_runtime.tensors import Array, Runner, dequantized

LEVEL = 0.975
"""The one-sided confidence of each bound: both together are a 95 % interval."""
SECONDS = 120.0
"""What an exam may take; what does not fit into it is left out, and told."""
LEAST = 8
"""Below so many samples nothing is said of real numbers."""
TOLD_SECONDS = 2.0
FOLDER = "exams"
KEPT, MOST_FILE = 50, 10_000
"""Results that stay in a folder, and the bytes of one."""
ENGINES = {
    "onnx": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn"),
    "openvino": ("openvino",),
    "tflite": ("ai-edge-litert", "tflite-runtime"),
}
"""The packages that an engine may be installed as."""
WORDS = {"passed": "passed", "missed": "MISSED", "untold": "too few samples to tell"}
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Scored:
    """What a model scored on `n` of the `of` samples of its exam, where it ran: `value`, beside the `reference`'s on
    the same samples; `drop` is how much worse that is, with its 95 % interval `low` to `high`.

    `outcome` is passed where the whole interval is within `max_drop`, missed where it lies beyond, else untold. What is
    not finite is None.
    """

    outcome: str
    metric: str
    n: int
    of: int
    beside: str
    value: float | None
    reference: float | None
    drop: float | None
    low: float | None
    high: float | None
    max_drop: float
    seconds: float
    when: int = 0

    def text(self) -> str:
        """One line."""
        of = "" if self.n == self.of else f" of {self.of:,}, all that the time was enough for"
        if self.drop is None:
            return f"exam: {WORDS[self.outcome]}: {self.metric} is no number here, n = {self.n:,}{of}"
        low, high = (math.inf * sign if one is None else one for one, sign in ((self.low, -1), (self.high, 1)))
        drop, least, most, allowed = (amount(self.metric, one) for one in (self.drop, low, high, self.max_drop))
        whose = "the source model's" if self.beside == "source" else "its build's"
        found = f"{self.metric} {_plain(self.metric, self.value)} here, {whose} {_plain(self.metric, self.reference)}"
        told = f"drop {drop} [{least}, {most}], n = {self.n:,}{of}; {allowed} is allowed"
        return f"exam: {WORDS[self.outcome]}: {found}: {told}"


def score(bundle: Bundle, run: Runner, tell: Tell, seconds: float = SECONDS) -> Scored:
    """Have `run`, the bundle's opened model, take its exam, for so many seconds at most. `tell` hears how many samples
    are done, of how many, now and then.

    Raises:
        NotFound: the bundle has none.
        BadBundle: it does not fit the model.
    """
    exam, inputs = exam_of(bundle), [port.spec for port in bundle.manifest.inputs]
    found, before = [], []
    begun = said = time.monotonic()
    with closing(read_exam(bundle.place(exam.file), exam, inputs)) as samples:
        for sample in samples:
            found.append(_mark(bundle, exam, sample, run))
            before.append(sample.reference)
            now = time.monotonic()
            if now - said >= TOLD_SECONDS:
                tell(len(found), exam.n)
                said = now
            if now - begun > seconds:
                break
    return judged(exam, np.array(before), np.array(found), round(time.monotonic() - begun, 2))


def exam_of(bundle: Bundle) -> Exam:
    """What the manifest says of its exam. Raises `NotFound` where there is none."""
    if bundle.manifest.exam is None:
        raise NotFound(f"bundle {bundle.manifest.name} brings no exam", hint="build it again with --exam and --data")
    return bundle.manifest.exam


def judged(exam: Exam, reference: Array, found: Array, seconds: float) -> Scored:
    """The verdict over the scores of the same samples."""
    lost = worse(exam.metric, reference, found)
    both = np.concatenate([reference, found])
    shares = exam.metric in SHARES
    if not np.isfinite(lost).all():
        low, high, outcome = -math.inf, math.inf, "missed"
    else:
        few = not shares and len(lost) < LEAST
        low, high = (-math.inf, math.inf) if few else bounds(lost, LEVEL, shares, float(np.ptp(both)))
        outcome = "passed" if high <= exam.max_drop else "missed" if low > exam.max_drop else "untold"
    value, before, drop, least, most = (
        one if math.isfinite(one) else None
        for one in (float(found.mean()), float(reference.mean()), float(lost.mean()), low, high)
    )
    return Scored(
        outcome, exam.metric, len(lost), exam.n, exam.beside, value, before, drop, least, most, exam.max_drop, seconds,
        int(time.time()),
    )  # fmt: skip


def _mark(bundle: Bundle, exam: Exam, sample: Sample, run: Runner) -> float:
    spec = next(port.spec for port in bundle.manifest.outputs if port.spec.name == exam.output)
    answer = run(sample.feeds)[exam.output]
    value = answer if spec.scale is None else dequantized(answer, spec)
    value = value[0] if value.ndim and len(value) == 1 else value
    if exam.metric in SHARES:
        fits = value.ndim == 1 and value.size > 1 and sample.right.ndim == 0
    elif exam.metric == "mae":
        fits = squeezed(value).shape == squeezed(sample.right).shape
    else:
        fits = value.size == sample.right.size
    if not fits or value.dtype.kind not in "fiub":
        raise BadBundle(
            f"{exam.metric} of its exam does not fit {spec}, whose answer has the shape {list(value.shape)}"
        )
    with np.errstate(all="ignore"):
        return float(marks(exam.metric, [value], [sample.right])[0])


def _plain(metric: str, value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.2f} %" if metric in SHARES else f"{value:.4g}"


def key(bundle: Bundle) -> str:
    """What a result is good for: these bytes, by this engine, on this kind of device. A file name."""
    manifest = bundle.manifest
    digest = hashlib.sha256((bundle.folder / MANIFEST).read_bytes()).hexdigest()
    place = json.dumps([engine_version(manifest.engine), manifest.options.device])
    return f"{digest}-{hashlib.sha256(place.encode()).hexdigest()[:12]}.json"


def engine_version(engine: str) -> list[str]:
    """The packages that may be the engine, with their versions."""
    from importlib.metadata import PackageNotFoundError, version  # not every server needs it

    found = []
    for package in ENGINES.get(engine, ()):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return found


def keep(folder: Path, name: str, scored: Scored) -> None:
    """Note a result under its `key`. Raises `OSError` where the folder cannot be written."""
    home = folder / FOLDER
    make_folder(REAL, home)
    replace(REAL, home / name, json.dumps(asdict(scored)).encode())
    for old in sorted(home.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)


def kept(folder: Path, name: str) -> Scored | None:
    """A result that was noted under this key; None where there is none that reads."""
    return _read(folder / FOLDER / name)


def last(folder: Path, id: str) -> Scored | None:
    """The newest result of the version whose digest begins so."""
    found = [one for path in (folder / FOLDER).glob(f"{id}*.json") if (one := _read(path)) is not None]
    return max(found, key=lambda one: one.when, default=None)


def _read(path: Path) -> Scored | None:
    try:
        with path.open("rb") as file:
            return from_json(json.loads(file.read(MOST_FILE)))
    except (OSError, ValueError, RecursionError, EdgeKitError):
        return None


def from_json(raw: object) -> Scored:
    """A result from decoded JSON, as `asdict` gives it. Raises `BadBundle` where it is none."""
    if not isinstance(raw, Mapping) or set(raw) != {field.name for field in fields(Scored)}:
        raise BadBundle("this is no result of an exam")
    said: dict[str, Any] = dict(raw)
    words = [said[name] for name in ("outcome", "metric", "beside")]
    numbers = [said[name] for name in ("value", "reference", "drop", "low", "high") if said[name] is not None]
    numbers += [said[name] for name in ("n", "of", "max_drop", "seconds", "when")]
    finite = all(isinstance(one, int | float) and math.isfinite(one) for one in numbers)
    if not finite or not all(isinstance(one, str) for one in words) or said["outcome"] not in WORDS:
        raise BadBundle("this is no result of an exam")
    return Scored(**said)
