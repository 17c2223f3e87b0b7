"""Italian power demand (in aeon's wheel, BSD): 67 days to train on, 1,029 to test, 24 hours each; and a GRU on it.

Refuses a wheel that is not the one asked for."""

import zipfile
from pathlib import Path

import numpy as np
from edgekit_runtime.tensors import Array

from examples.fetch import wheel

AEON = ("aeon==1.6.0", "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409")


def data(part: str) -> tuple[Array, Array]:
    """Series float32 [N, 24, 1] and labels int64 [N] (0: October to March, 1: April to September) of TRAIN or TEST."""
    with zipfile.ZipFile(wheel(*AEON)) as opened:
        text = opened.read(f"aeon/datasets/data/ItalyPowerDemand/ItalyPowerDemand_{part}.ts").decode()
    lines = [line for line in text.splitlines() if line and line[0] not in "#@"]
    series = np.array([line.split(":")[0].split(",") for line in lines], np.float32)
    labels = np.array([line.split(":")[1] for line in lines], np.int64) - 1
    return series[:, :, np.newaxis], labels


def sensor_gru(folder: Path) -> None:
    """Train, write the forms and the data."""
    import torch

    from tests.zoo.makers.torch_files import Call, fit, write_data, write_forms
    from tests.zoo.nets.sensor import sensor_gru

    series, labels = data("TRAIN")
    torch.manual_seed(0)
    net = sensor_gru()
    fit(net, series, labels, epochs=150, batch=16)
    write_forms(net, Call("series", series[:2], {0: "batch", 1: "time"}), folder)
    write_data("series", data("TEST"), (series, labels), folder)
