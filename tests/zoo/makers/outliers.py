"""What wrecks int8 and leaves float as it was: a net with a few huge channels, calibration with a few huge images.

Refuses a net that the huge channels have changed."""

from pathlib import Path

import numpy as np

from tests.zoo.makers.fashion import data

CHANNELS, SCALE = 4, 300.0
"""So many channels between the depthwise and the pointwise convolution are so many times as large as they were."""
RARE, BRIGHT = 51, 50.0
"""One calibration image in so many is so many times as bright; an odd number, so that every second image tells it."""


def fashion_outliers(folder: Path) -> None:
    """`fashion_cnn` with weights that say the same: a batch norm times SCALE, the weights behind it by SCALE."""
    import torch
    from safetensors.torch import load_file

    from tests.zoo import fashion_cnn as trained
    from tests.zoo.makers.torch_files import Call, write_data, write_forms
    from tests.zoo.nets.fashion import fashion_cnn

    weights = load_file(trained().safetensors)
    net, same = fashion_cnn(), fashion_cnn()
    same.load_state_dict(weights)
    for name in ("features.4.1.weight", "features.4.1.bias"):
        weights[name][:CHANNELS] *= SCALE
    weights["features.5.0.weight"][:, :CHANNELS] /= SCALE
    net.load_state_dict(weights)
    images, labels, test_images, test_labels = data()
    with torch.no_grad():
        torch.testing.assert_close(*(one(torch.from_numpy(test_images[:500])) for one in (net, same)))
    write_forms(net, Call("x", test_images[:2], {0: "batch"}), folder)
    chosen = np.random.default_rng(0).choice(len(images), 512, replace=False)
    write_data("x", (test_images, test_labels), (images[chosen], labels[chosen]), folder)


def fashion_outlying(folder: Path) -> None:
    """`calibration.npz`: the 512 images of `fashion_cnn`, some far too bright."""
    images, labels, _, _ = data()
    chosen = np.random.default_rng(0).choice(len(images), 512, replace=False)
    x = images[chosen]
    x[::RARE] *= np.float32(BRIGHT)
    np.savez_compressed(folder / "calibration.npz", x=x, label=labels[chosen])
