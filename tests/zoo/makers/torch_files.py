"""Train a torch classifier shortly, and write it in every form that PyTorch users have, with its data.

Refuses nothing; each form is checked where it is used."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from edgekit_runtime.tensors import Array
from safetensors.torch import save_file
from torch import nn


@dataclass(frozen=True)
class Call:
    """How a net of one input is called: the input's name, two samples, names of its free axes, the output's name."""

    input: str
    example: Array
    free: Mapping[int, str]
    output: str = "scores"


def fit(net: nn.Module, inputs: Array, labels: Array, epochs: int, batch: int = 128, rate: float = 0.01) -> None:
    """Train by AdamW on one cycle of learning rates; seed torch before. Leaves the net in evaluation mode."""
    samples, wanted = torch.from_numpy(inputs), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * (len(labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for start in range(0, len(labels) - batch + 1, batch):
            rows = order[start : start + batch]
            loss = nn.functional.cross_entropy(net(samples[rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


def write_forms(net: nn.Module, call: Call, folder: Path) -> None:
    """`model` as .safetensors, .pth, .pt2, .pt (TorchScript), .onnx with free axes, and `static.onnx` of batch 1."""
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that no converter knows
    save_file(net.state_dict(), folder / "model.safetensors")
    torch.save(net.state_dict(), folder / "model.pth")
    example = torch.from_numpy(call.example)
    free = {axis: torch.export.Dim(name, max=4096) for axis, name in call.free.items()}
    # The free axes first: after any other export, PyTorch 2.13 silently fixes the time of a recurrent net.
    _write_onnx(net, call, example, free, folder / "model.onnx")
    _write_onnx(net, call, example[:1], {}, folder / "static.onnx")
    # torch.export cannot leave the time of a recurrent net free.
    torch.export.save(torch.export.export(net, (example,), dynamic_shapes=({0: free[0]},)), folder / "model.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; people still have its files
        torch.jit.trace(net, example).save(str(folder / "model.pt"))


def _write_onnx(net: nn.Module, call: Call, example: torch.Tensor, free: Mapping[int, object], path: Path) -> None:
    torch.onnx.export(
        net,
        (example,),
        path,
        input_names=[call.input],
        output_names=[call.output],
        dynamic_shapes=(dict(free),) if free else None,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def write_data(input: str, test: tuple[Array, Array], train: tuple[Array, Array], folder: Path) -> None:
    """`test.npz`, `calibration.npz` and `ruined.npz`: the calibration a thousand times too large, or all ids 0."""
    np.savez_compressed(folder / "test.npz", **{input: test[0], "label": test[1]})
    np.savez_compressed(folder / "calibration.npz", **{input: train[0], "label": train[1]})
    ruined = train[0] * train[0].dtype.type(1000 if train[0].dtype.kind == "f" else 0)
    np.savez_compressed(folder / "ruined.npz", **{input: ruined, "label": train[1]})
