"""Bundles that are whole, signed, and wrong: what a device has to notice by itself.

Refuses nothing; they are ONNX models with nodes changed or added."""

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from edgekit_runtime.bundle import read_manifest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import copy_files, seal

HALVED = 3
BLACK = 0.001
"""How far from the least value of a photo is still black."""


def wrong_scales(good: Path, place: Path, secret: bytes) -> Path:
    """Version 3: three of its weights' scales are half of what they were, as a converter may leave them."""

    def change(model: onnx.ModelProto) -> None:
        scales = {node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
        wide = [one for one in model.graph.initializer if one.name in scales and len(one.dims) == 1 and one.dims[0] > 1]
        for one in wide[:HALVED]:
            one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one) / 2, one.name))

    return _changed(good, place, "3", change, secret)


def crashes_on_black(good: Path, place: Path, secret: bytes) -> Path:
    """Version 4: the least integer by -1 where a photo is all black. On x86 the processor stops the process there; on
    others, where it would not, the same photo is divided by zero, which the engine refuses."""
    top, bottom = (-(2**31), -1) if platform.machine() == "x86_64" else (1, 0)

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        x, y = graph.input[0].name, graph.output[0].name
        for node in graph.node:
            node.output[:] = ["answer" if name == y else name for name in node.output]
        black = float((0 - 127) / 128)
        for name, value in {
            "bad.black": np.float32(black + BLACK), "bad.top": np.int32(top), "bad.one": np.int32(1),
            "bad.bottom": np.int32(bottom), "bad.zero": np.float32(0),
        }.items():  # fmt: skip
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        graph.node.extend(
            [
                helper.make_node("ReduceMax", [x], ["bad.most"], keepdims=0),
                helper.make_node("Less", ["bad.most", "bad.black"], ["bad.dark"]),
                helper.make_node("Where", ["bad.dark", "bad.top", "bad.one"], ["bad.upper"]),
                helper.make_node("Where", ["bad.dark", "bad.bottom", "bad.one"], ["bad.lower"]),
                helper.make_node("Div", ["bad.upper", "bad.lower"], ["bad.quotient"]),
                helper.make_node("Cast", ["bad.quotient"], ["bad.float"], to=TensorProto.FLOAT),
                helper.make_node("Mul", ["bad.float", "bad.zero"], ["bad.nothing"]),
                helper.make_node("Add", ["answer", "bad.nothing"], [y]),
            ]
        )

    return _changed(good, place, "4", change, secret)


def _changed(good: Path, place: Path, version: str, change: Callable[[onnx.ModelProto], None], secret: bytes) -> Path:
    """A copy of a bundle with another model in it, sealed and signed as if a build had made it."""
    copy_files(good, place)
    manifest = read_manifest(place)
    model = onnx.load(place / manifest.entry)
    change(model)
    onnx.save(model, place / manifest.entry)
    seal(place, replace(manifest, version=version, release=int(version)), secret)
    return place
