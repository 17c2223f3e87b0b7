"""The vision transformer trained on Fashion-MNIST, in every PyTorch form.

Refuses what `fashion.data` refuses."""

from pathlib import Path

import numpy as np

from tests.zoo.makers.fashion import data


def fashion_transformer(folder: Path) -> None:
    """Train for eight epochs, write the forms and the data."""
    import torch

    from tests.zoo.makers.torch_files import Call, fit, write_data, write_forms
    from tests.zoo.nets.patches import fashion_transformer

    images, labels, test_images, test_labels = data()
    torch.manual_seed(0)
    net = fashion_transformer()
    fit(net, images, labels, epochs=8, rate=0.003)
    write_forms(net, Call("x", test_images[:2], {0: "batch"}), folder)
    chosen = np.random.default_rng(0).choice(len(images), 512, replace=False)
    write_data("x", (test_images, test_labels), (images[chosen], labels[chosen]), folder)
