"""Fashion-MNIST from Debian (60,000 and 10,000 images, MIT) and the small CNN trained on it, in every PyTorch form.

Refuses data that is not the official split."""

import gzip
from pathlib import Path

import numpy as np
from edgekit_runtime.tensors import Array

from examples.fetch import debian

FILES = {
    "usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz": (
        "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"
    ),
    "usr/share/datasets/fashion-mnist/train-labels-idx1-ubyte.gz": (
        "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"
    ),
    "usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz": (
        "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"
    ),
    "usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz": (
        "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"
    ),
}


def data() -> tuple[Array, Array, Array, Array]:
    """Train images and labels, test images and labels: float32 [N, 1, 28, 28] in 0..1, int64 [N]."""
    folder = debian("dataset-fashion-mnist", FILES)
    raw = [np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8) for name in FILES]
    images = [raw[i][16:].reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255) for i in (0, 2)]
    labels = [raw[i][8:].astype(np.int64) for i in (1, 3)]
    return images[0], labels[0], images[1], labels[1]


def fashion_cnn(folder: Path) -> None:
    """Train for four epochs, write the forms and the data."""
    import torch

    from tests.zoo.makers.torch_files import Call, fit, write_data, write_forms
    from tests.zoo.nets.fashion import fashion_cnn

    images, labels, test_images, test_labels = data()
    torch.manual_seed(0)
    net = fashion_cnn().to(memory_format=torch.channels_last)  # a third faster to train
    fit(net, images, labels, epochs=4)
    net = net.to(memory_format=torch.contiguous_format)
    write_forms(net, Call("x", test_images[:2], {0: "batch"}), folder)
    chosen = np.random.default_rng(0).choice(len(images), 512, replace=False)
    write_data("x", (test_images, test_labels), (images[chosen], labels[chosen]), folder)
