"""Real photographs for calibration, evaluation and a smoke test, cut out of published wheels with a fixed seed.

Refuses a wheel that is not the one asked for. Chelsea, the demo's cat, is in no folder."""

import csv
import io
import random
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from examples.fetch import Tell, wheel, whole

FOOLBOX = ("foolbox==3.3.4", "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb")
SCIKIT_IMAGE = ("scikit-image==0.26.0", "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af")
SCENES = ("astronaut.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
CALIBRATION_CROPS, EVALUATION_CROPS = 8, 12
"""Crops of each photograph: every second photograph calibrates, the others evaluate."""


@dataclass(frozen=True)
class Photos:
    """Folders of JPEG files. `labelled` holds 20 whole ImageNet photos and their classes in labels.csv."""

    calibration: Path
    evaluation: Path
    labelled: Path


def photos(folder: Path, tell: Tell = lambda line: None) -> Photos:
    """The folders below `folder`, made where they are not there yet.

    Calibration and evaluation come from different photographs. A crop keeps at least 60 % of its
    photograph's area; its shorter side is 256.

    Raises:
        CannotFetch: a wheel with photographs cannot be had.
    """
    made = Photos(folder / "calibration", folder / "evaluation", folder / "labelled")
    if made.calibration.is_dir() and made.evaluation.is_dir() and made.labelled.is_dir():
        return made
    imagenet = _images(wheel(*FOOLBOX, tell), "foolbox/data/imagenet_")
    scenes = _images(wheel(*SCIKIT_IMAGE, tell), "skimage/data/")
    sources = [*sorted(imagenet.items()), *((name, scenes[name]) for name in SCENES)]
    tell("cutting crops of photographs")
    with whole(made.calibration) as to:
        _crop(dict(sources[0::2]), CALIBRATION_CROPS, to)
    with whole(made.evaluation) as to:
        _crop(dict(sources[1::2]), EVALUATION_CROPS, to)
    with whole(made.labelled) as to:
        _label(imagenet, to)
    return made


def _images(archive: Path, start: str) -> dict[str, bytes]:
    """The image files of a wheel whose names begin with `start`, by their last name."""
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if name.startswith(start) and name.endswith((".jpg", ".png"))]
        return {name.rpartition("/")[2]: opened.read(name) for name in names}


def _crop(sources: Mapping[str, bytes], count: int, to: Path) -> None:
    for name, content in sources.items():
        dice = random.Random(name)  # seeded by the name: the same crops on every machine
        photo = Image.open(io.BytesIO(content)).convert("RGB")
        for index in range(count):
            side = dice.uniform(0.6, 1.0) ** 0.5
            width, height = round(photo.width * side), round(photo.height * side)
            left, top = dice.randint(0, photo.width - width), dice.randint(0, photo.height - height)
            crop = photo.crop((left, top, left + width, top + height))
            scale = 256 / min(width, height)
            crop = crop.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
            if dice.random() < 0.5:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            crop.save(to / f"{Path(name).stem}-{index:02}.jpg", quality=92)


def _label(imagenet: Mapping[str, bytes], to: Path) -> None:
    """foolbox names its photos `imagenet_NUMBER_CLASS.jpg`."""
    for name, content in imagenet.items():
        (to / name).write_bytes(content)
    with (to / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "label"])
        rows.writerows([name, Path(name).stem.rpartition("_")[2]] for name in sorted(imagenet))
