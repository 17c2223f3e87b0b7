"""The MobileNetV3-like net trained on Fashion-MNIST, in every PyTorch form.

Refuses what `fashion.data` refuses."""

from pathlib import Path

import numpy as np

from tests.zoo.makers.fashion import data


def fashion_depthwise(folder: Path) -> None:
    """Train for six epochs, write the forms and the data."""
    import torch

    from tests.zoo.makers.torch_files import Call, fit, write_data, write_forms
    from tests.zoo.nets.depthwise import fashion_depthwise

    images, labels, test_images, test_labels = data()
    torch.manual_seed(0)
    net = fashion_depthwise().to(memory_format=torch.channels_last)
    fit(net, images, labels, epochs=6)
    net = net.to(memory_format=torch.contiguous_format)
    write_forms(net, Call("x", test_images[:2], {0: "batch"}), folder)
    chosen = np.random.default_rng(0).choice(len(images), 512, replace=False)
    write_data("x", (test_images, test_labels), (images[chosen], labels[chosen]), folder)
