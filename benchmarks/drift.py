"""The drift watch on real data: requests until an alarm for each shift, false alarms a day, and what it costs.

Run it with `python -m benchmarks.drift [SCENE...]`. Refuses nothing.

A random half of the data makes the baseline, the other half is the traffic, drawn with replacement: 3,000 requests
as they are, then shifted ones. False alarms are counted at stated rates far above the default too, where there is
something to count: 0.01 a day takes months to be heard of.
"""

import io
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgekit_runtime.drift import Baseline, Drift, Reading, Recorder, reader, to_json
from edgekit_runtime.tensors import Array, TensorSpec
from scipy import ndimage

Net = Callable[[Array], Array]
Change = Callable[[Array], Array]
"""Of one sample as it comes: an image (height, width[, channels]) in 0..1, token ids, a series."""
WARM, AT_MOST, AGAIN = 3000, 5000, 20


@dataclass(frozen=True)
class Scene:
    """`plain` are readings of unshifted samples that the baseline has not seen, `shifted` those of each shift."""

    title: str
    baseline: Baseline
    plain: Sequence[Reading]
    shifted: Mapping[str, Sequence[Reading]]


@dataclass(frozen=True)
class Case:
    """What a scene is made of: samples as they come with their labels, and how the model takes them."""

    title: str
    samples: Sequence[Array]
    labels: Array
    input: TensorSpec
    classes: int
    prepare: Change
    net: Net

    def readings(self, samples: Sequence[Array]) -> list[Reading]:
        """What is read off these samples and their answers."""
        read = reader([self.input], [TensorSpec("scores", "float32", (None, self.classes))], None, self.classes)
        found: list[Reading] = []
        for start in range(0, len(samples), 50):
            x = np.stack([self.prepare(one) for one in samples[start : start + 50]])
            found += read({self.input.name: x}, {"scores": self.net(x)})
        return found


def scene(case: Case, changes: Mapping[str, Change], gone: Mapping[str, Sequence[int]], each: int) -> Scene:
    """A random half as the baseline; of the other `each` samples with every change, and those of no class `gone`."""
    order = np.random.default_rng(0).permutation(len(case.samples))
    known, later = (part.tolist() for part in (order[: len(order) // 2], order[len(order) // 2 :]))
    recorder = Recorder()
    for one in case.readings([case.samples[i] for i in known]):
        recorder.add(one)
    plain = case.readings([case.samples[i] for i in later])
    shifted = {
        title: case.readings([change(case.samples[i]) for i in later[:each]]) for title, change in changes.items()
    }
    for title, classes in gone.items():
        shifted[title] = [one for one, i in zip(plain, later, strict=True) if case.labels[i] not in classes]
    return Scene(case.title, recorder.baseline(), plain, shifted)


IMAGES: dict[str, Change] = {
    "blurred a little": lambda x: _blurred(x, 1 / 40),
    "blurred": lambda x: _blurred(x, 1 / 20),
    "blurred much": lambda x: _blurred(x, 1 / 10),
    "darkened to 70 %": lambda x: x * np.float32(0.7),
    "darkened to 40 %": lambda x: x * np.float32(0.4),
    "brightened by 20 %": lambda x: np.clip(x + np.float32(0.2), 0, 1),
    "noise of 5 %": lambda x: _noisy(x, 0.05),
    "noise of 20 %": lambda x: _noisy(x, 0.2),
    "inverted": lambda x: 1 - x,
    "rotated by 90 degrees": lambda x: np.rot90(x),
    "rotated by 180 degrees": lambda x: np.rot90(x, 2),
}
GONE = {"3 of 10 classes missing": (1, 4, 8), "1 class alone": (0, *range(2, 10))}
GONE |= {f"class {number} of 10 missing": (number,) for number in range(10)}
"""A class that the model often takes others for goes on being predicted when it is gone: each by itself is told."""


def fashion(each: int = 2000) -> Scene:
    """Fashion-MNIST's 10,000 test images and the zoo's CNN."""
    from tests.zoo import fashion_cnn

    zoo = fashion_cnn()
    data = np.load(zoo.test)
    spec = TensorSpec("x", "float32", (None, 1, 28, 28))
    case = Case(
        "Fashion-MNIST", list(data["x"][:, 0]), data["label"], spec, 10, lambda x: x[None], _onnx(zoo.onnx, "x")
    )
    return scene(case, IMAGES, GONE, each)


def photos(each: int = 100, count: int = 600) -> Scene:
    """Random crops of 12 photographs and EfficientNet-Lite0."""
    import torch
    from PIL import Image

    from edgekit.userland import load_function
    from tests.zoo import efficientnet_lite0

    zoo = efficientnet_lite0()
    network = load_function(zoo.factory)()
    network.load_state_dict(torch.load(zoo.weights, weights_only=True))
    network.eval()
    files = sorted(zoo.photos.evaluation.glob("*-0[0-3].jpg"))
    whole = [np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB")) for file in files]
    dice = random.Random(0)
    crops = []
    for _ in range(count):
        photo = dice.choice(whole)
        top, left = dice.randint(0, photo.shape[0] - 224), dice.randint(0, photo.shape[1] - 224)
        crops.append(photo[top : top + 224, left : left + 224].astype(np.float32) / 255)

    def net(x: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(x)))

    spec = TensorSpec("x", "float32", (None, 3, 224, 224))
    case = Case("photos, EfficientNet-Lite0", crops, np.zeros(count), spec, 1000, _normal, net)
    return scene(case, IMAGES, {}, each)


def languages(each: int = 1000) -> Scene:
    """The bytes of 2,000 texts in ten languages and the zoo's LSTM."""
    from tests.zoo import text_classifier

    zoo = text_classifier()
    data = np.load(zoo.test)
    changes: dict[str, Change] = {
        "in capitals": lambda ids: np.where((ids >= 97) & (ids <= 122), ids - 32, ids),
        "cut to a half": lambda ids: np.where(np.arange(len(ids)) < len(ids) // 2, ids, 32),
        "1 byte in 10 garbled": lambda ids: _garbled(ids, 0.1),
        "without spaces": lambda ids: np.concatenate([ids[ids != 32], ids[ids == 32]]),
        "backwards": lambda ids: ids[::-1],
        "letters in order": np.sort,
    }
    spec = TensorSpec("ids", "int64", (None, None))
    case = Case("texts in 10 languages", list(data["ids"]), data["label"], spec, 10, _same, _onnx(zoo.onnx, "ids"))
    return scene(case, changes, GONE, each)


def seasons(each: int = 500) -> Scene:
    """1,029 days of power demand by the hour and the zoo's GRU."""
    from tests.zoo import sensor_gru

    zoo = sensor_gru()
    data = np.load(zoo.test)
    changes: dict[str, Change] = {
        "offset by 0.5": lambda x: x + np.float32(0.5),
        "gain of 1.5": lambda x: x * np.float32(1.5),
        "noise of 0.3": lambda x: _noise(x, 0.3),
        "clock 6 hours late": lambda x: np.roll(x, 6, axis=0),
        "stuck from noon on": lambda x: np.where(np.arange(len(x))[:, None] < 12, x, x[12]),
        "1 value in 10 is NaN": lambda x: np.where(_dice.random(x.shape) < 0.1, np.float32("nan"), x),
    }
    spec = TensorSpec("series", "float32", (None, None, 1))
    case = Case("days of power demand", list(data["series"]), data["label"], spec, 2, _same, _onnx(zoo.onnx, "series"))
    return scene(case, changes, {"summer alone": (int(data["label"].max()),)}, each)


SCENES: dict[str, Callable[[], Scene]] = {
    "fashion": fashion, "photos": photos, "languages": languages, "seasons": seasons,
}  # fmt: skip


def until_alarm(baseline: Baseline, plain: Sequence[Reading], shifted: Sequence[Reading], seed: int) -> int | None:
    """Shifted requests until the alarm, at 100 a second; None where none came within 5,000."""
    dice, drift = random.Random(seed), Drift(baseline)
    before = WARM + dice.randrange(100)
    for number in range(before):
        drift.add(dice.choice(plain), number / 100)
    for number in range(AT_MOST):
        if drift.state().alarm:
            return number
        drift.add(dice.choice(shifted), (before + number) / 100)
    return None


def false_alarms(one: Scene, requests: int, per_second: float, rate_per_day: float, seed: int) -> tuple[int, float]:
    """Alarms that began over so many unshifted requests, and the days that these took."""
    dice, drift = random.Random(seed), Drift(one.baseline, rate_per_day)
    alarms, before = 0, False
    for number in range(requests):
        drift.add(dice.choice(one.plain), number / per_second)
        now = drift.state().alarm
        alarms += now and not before
        before = now
    return alarms, requests / per_second / 86400


def costs() -> list[tuple[str, float, float, int]]:
    """Microseconds a sample of reading and of adding, and bytes of the baseline as JSON, for each kind of input."""
    dice = np.random.default_rng(0)
    inputs: dict[str, tuple[TensorSpec, Array]] = {
        "image 28x28": (TensorSpec("x", "float32", (None, 1, 28, 28)), dice.random((1, 1, 28, 28), np.float32)),
        "image 3x224x224": (TensorSpec("x", "float32", (None, 3, 224, 224)), dice.random((1, 3, 224, 224), np.float32)),
        "1 s of sound": (TensorSpec("x", "float32", (None, 16000)), dice.random((1, 16000), np.float32)),
        "text of 128 tokens": (TensorSpec("x", "int64", (None, None)), dice.integers(1, 30000, (1, 128))),
    }
    rows = []
    for title, (spec, value) in inputs.items():
        scores = dice.random((200, 1, 10), np.float32)
        read = reader([spec], [TensorSpec("y", "float32", (None, 10))], None, 10)
        recorder = Recorder()
        start = time.perf_counter()
        found = [read({"x": value}, {"y": one})[0] for one in scores]
        reading = (time.perf_counter() - start) / len(scores)
        for number in range(2000):
            one = found[number % len(found)]
            spread = {name: number_ + float(dice.normal()) for name, number_ in one.numbers.items()}
            recorder.add(Reading(spread, one.classes))
        drift = Drift(recorder.baseline())
        start = time.perf_counter()
        for number in range(6000):
            drift.add(found[number % len(found)], float(number))
        adding = (time.perf_counter() - start) / 6000
        rows.append((title, reading * 1e6, adding * 1e6, len(json.dumps(to_json(recorder.baseline())))))
    return rows


def memory(baseline: Baseline) -> int:
    """Bytes that a running watch holds, once its windows are full."""
    import tracemalloc

    tracemalloc.start()
    drift = Drift(baseline)
    empty = Reading({one.name: 0.0 for one in baseline.features}, {})
    for number in range(WARM + 100):
        drift.add(empty, float(number))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held


def main(names: Sequence[str]) -> None:
    """Print all tables."""
    for title, reading, adding, size in costs():
        _say(f"{title:<22} read {reading:6.0f} us   add {adding:5.1f} us   baseline {size:6d} bytes")
    for name in names or SCENES:
        one = SCENES[name]()
        size = len(json.dumps(to_json(one.baseline)))
        _say(f"\n{one.title}: baseline of {one.baseline.n} samples, {len(one.baseline.features)} features,")
        _say(f"{size} bytes; a running watch holds {memory(one.baseline)} bytes")
        for shift, readings in one.shifted.items():
            found = [until_alarm(one.baseline, one.plain, readings, seed) for seed in range(AGAIN)]
            heard = sorted(number for number in found if number is not None)
            told = f"median {statistics.median(heard):5.0f}, at most {heard[-1]:5d}" if heard else "never"
            _say(f"  {shift:<26} {told}   ({len(heard)} of {AGAIN} within {AT_MOST})")
        for per_second in (1.0, 100.0):
            for rate in (0.01, 10.0, 1000.0):
                runs = [false_alarms(one, 20_000, per_second, rate, seed) for seed in range(10)]
                alarms, days = sum(run[0] for run in runs), sum(run[1] for run in runs)
                _say(
                    f"  unshifted, {per_second:4g} a second, stated {rate:6g} a day: {alarms} alarms in {days:.3f} days"
                    f" of 10 x 20,000 requests ({alarms / days:.2f} a day)"
                )


_dice = np.random.default_rng(1)


def _blurred(x: Array, part: float) -> Array:
    """By a Gaussian of a width that is `part` of the image's, for 28 pixels 0.7, 1.4, 2.8."""
    width = x.shape[1] * part
    return np.asarray(ndimage.gaussian_filter(x, (width, width, 0)[: x.ndim]))


def _noisy(x: Array, level: float) -> Array:
    return np.asarray(np.clip(_noise(x, level), 0, 1))


def _noise(x: Array, level: float) -> Array:
    return x + _dice.normal(0, level, x.shape).astype(np.float32)


def _garbled(ids: Array, part: float) -> Array:
    return np.where(_dice.random(ids.shape) < part, _dice.integers(33, 127, ids.shape), ids)


def _same(x: Array) -> Array:
    return x


def _normal(x: Array) -> Array:
    return np.ascontiguousarray(((x * 255 - 127) / 128).transpose(2, 0, 1), np.float32)


def _onnx(path: Path, name: str) -> Net:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {name: x})[0])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
