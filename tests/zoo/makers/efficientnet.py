"""The published EfficientNet-Lite0 with its folders of photos, and some of the photos as a ready array.

Refuses what the example refuses."""

from pathlib import Path

import numpy as np
from edgekit_runtime.tensors import Array
from PIL import Image

from examples.efficientnet_lite0.photos import photos
from examples.efficientnet_lite0.weights import weights


def efficientnet_lite0(folder: Path) -> None:
    """The weights, the photos, and `data.npz` with every third crop of the evaluation folder."""
    weights(folder)
    files = sorted(photos(folder).evaluation.glob("*.jpg"))[::3]
    np.savez_compressed(folder / "data.npz", x=np.stack([_prepared(file) for file in files]))


def _prepared(file: Path) -> Array:
    """What `preprocess.toml` says of a photo whose shorter side is 256 already."""
    photo = Image.open(file)
    left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
    pixels = np.asarray(photo.crop((left, top, left + 224, top + 224)), np.float32)
    return ((pixels - 127) / 128).transpose(2, 0, 1)
