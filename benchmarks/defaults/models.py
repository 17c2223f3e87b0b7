"""The models of the benchmark: how `edgekit build` is told of them, and their data as arrays.

Refuses nothing; the models come from the zoo of the tests, made on first use."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from edgekit_runtime.preprocess import apply, parse_preprocess
from edgekit_runtime.tensors import Array

from tests import zoo
from tests.zoo import TorchNet

FASHION = ("fashion_cnn", "fashion_depthwise", "fashion_transformer")
LITE = "efficientnet_lite0"
MODELS = (*FASHION, LITE)


@dataclass(frozen=True)
class Case:
    """`words` for the command line; evaluation samples, labels (None: agreement with float is judged), calibration
    samples; all under the one input `x`. `budget` in points."""

    name: str
    words: tuple[str, ...]
    evaluation: Array
    labels: Array | None
    calibration: Array
    budget: float


def case(name: str, samples: int | None) -> Case:
    """One of MODELS, judged on at most `samples`."""
    if name == LITE:
        return _lite(samples)
    net: TorchNet = getattr(zoo, name)()
    with np.load(net.test) as test, np.load(net.calibration) as calibration:
        x, labels, given = test["x"][:samples], test["label"][:samples], calibration["x"]
    words = [net.factory, "--weights", net.safetensors, "--shape", "x=batch,1,28,28"]
    words += ["--data", net.test, "--calibration", net.calibration]
    return Case(name, tuple(map(str, words)), x, labels, _evenly(given), 0.5)


def _lite(samples: int | None) -> Case:
    """No labels: 144 photos tell a difference of some points, so that is the budget."""
    it = zoo.efficientnet_lite0()
    words = [it.factory, "--weights", it.weights, "--shape", "x=batch,3,224,224", "--preprocess", it.preprocess]
    words += ["--data", it.photos.evaluation, "--calibration", it.photos.calibration]
    evaluation, calibration = (_crops(it.preprocess, where) for where in (it.photos.evaluation, it.photos.calibration))
    return Case(LITE, tuple(map(str, words)), evaluation[:samples], None, _evenly(calibration), 5.0)


def _crops(preprocess: Path, photos: Path) -> Array:
    """The photos of a folder as EdgeKit's own preprocessing makes them."""
    steps = parse_preprocess(tomllib.loads(preprocess.read_text(encoding="utf-8")))
    return np.concatenate([apply(steps, path)["x"] for path in sorted(photos.glob("*.jpg"))])


def _evenly(samples: Array, most: int = 256) -> Array:
    """As many as EdgeKit calibrates with."""
    count = min(most, len(samples))
    return samples[[i * len(samples) // count for i in range(count)]]
