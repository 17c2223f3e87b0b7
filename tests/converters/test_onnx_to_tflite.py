"""ONNX -> TFLite: images, sensor series and transformers convert; what would be wrong is refused, never written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from edgekit_runtime.engines import open_model, read_specs
from edgekit_runtime.errors import Unsupported
from onnx import TensorProto, helper

from edgekit.converters import onnx_to_tflite
from edgekit.converters.matching import example_feeds
from edgekit.model import Artifact, Axes, Facts, Model

pytestmark = pytest.mark.slow

BATCH = {0: "batch"}


def as_model(path: Path, axes: Mapping[str, Axes] | None = None) -> Model:
    """The ONNX file as a source would read it, run by ONNX Runtime."""
    inputs, outputs = read_specs("onnx", path)
    if axes is None:
        axes = {
            value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in onnx.load(path).graph.input
        }
    return Model(path.stem, "onnx", {"onnx": path}, inputs, outputs, axes, open_model("onnx", path), Facts({}, 0, 0))


def exported(folder: Path, module: Any, inputs: Mapping[str, Any], free: object = BATCH, outs: str = "y") -> Model:
    """A torch module as a model of kind ONNX; `free` are its dynamic shapes."""
    path = folder / "source.onnx"
    torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        path,
        dynamo=True,
        external_data=False,
        verbose=False,
        opset_version=18,
        input_names=list(inputs),
        output_names=outs.split(),
        dynamic_shapes=None if free is None else tuple(free for _ in inputs),
    )
    return as_model(path)


def converted(model: Model, folder: Path) -> Artifact:
    """The model as TFLite, checked at several batches, one after the other in one runner."""
    artifact = onnx_to_tflite.convert(model, folder / "made", lambda _: None)
    assert [path.name for path in artifact.files()] == ["model.tflite"]
    assert [port.spec for port in artifact.inputs] == list(model.inputs)
    assert [port.spec.name for port in artifact.outputs] == [spec.name for spec in model.outputs]
    run = artifact.open_model()
    for rows in (2, 1, 5, 2):
        feeds = example_feeds(model, rows, seed=100 + rows)
        answer = run(feeds)
        for name, want in model.run(feeds).items():
            assert answer[name].dtype == want.dtype
            np.testing.assert_allclose(answer[name], want, atol=1e-5, rtol=1e-4)
    return artifact


class Recurrent(torch.nn.Module):  # type: ignore[misc]
    """A sensor model: a recurrent layer, and a linear one on its last step."""

    def __init__(self, kind: str, **more: Any) -> None:
        super().__init__()
        self.layer = getattr(torch.nn, kind)(6, 12, batch_first=True, **more)
        self.last = torch.nn.Linear(24 if more.get("bidirectional") else 12, 4)

    def forward(self, x: Any) -> Any:
        return self.last(self.layer(x)[0][:, -1])


class Transformer(torch.nn.Module):  # type: ignore[misc]
    """Token ids, an encoder of two layers, three scores."""

    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.table = torch.nn.Embedding(50, 16)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = torch.nn.Linear(16, 3)

    def forward(self, ids: Any) -> Any:
        return self.last(self.encoder(self.table(ids)).mean(1))


def test_an_image_model_takes_channels_last_inside_and_first_outside(tmp_path: Path) -> None:
    nn = torch.nn
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), head)
    artifact = converted(exported(tmp_path, network, {"x": torch.randn(2, 3, 32, 32)}), tmp_path)
    (port,) = artifact.inputs
    assert port.inside.shape == (1, 32, 32, 3)
    assert port.order == (0, 2, 3, 1)
    assert "batch is 1" in artifact.notes[0]


def test_an_image_whose_sides_are_all_alike_is_told_apart_by_numbers(tmp_path: Path) -> None:
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    artifact = converted(exported(tmp_path, network, {"x": torch.randn(1, 3, 3, 3)}, free=None), tmp_path)
    assert artifact.inputs[0].order == (0, 2, 3, 1)
    assert artifact.notes == ()


def test_an_image_out_and_a_second_input_keep_the_layout_of_the_source(tmp_path: Path) -> None:
    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.Linear(4, 5)

        def forward(self, image: Any, extra: Any) -> Any:
            mask = torch.relu(self.conv(image))
            return mask, mask.mean((2, 3)) + self.linear(extra), mask.argmax(1)

    inputs = {"image": torch.randn(2, 3, 8, 6), "extra": torch.randn(2, 4)}
    converted(exported(tmp_path, Network(), inputs, outs="mask score label"), tmp_path)


def test_a_series_is_convolved(tmp_path: Path) -> None:
    nn = torch.nn
    network = nn.Sequential(nn.Conv1d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 4, 3))
    converted(exported(tmp_path, network, {"x": torch.randn(2, 6, 20)}), tmp_path)


@pytest.mark.parametrize("more", [{"num_layers": 2}, {"bidirectional": True}])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_recurrent_model_keeps_nothing_from_one_call_to_the_next(tmp_path: Path, kind: str, more: Any) -> None:
    converted(exported(tmp_path, Recurrent(kind, **more), {"x": torch.randn(2, 10, 6)}), tmp_path)


def test_a_file_that_keeps_state_between_calls_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without our writing out, onnx2tf exits 0 with a stateful LSTM: right on the first call, wrong on the second."""
    model = exported(tmp_path, Recurrent("LSTM"), {"x": torch.randn(1, 10, 6)}, free=None)
    monkeypatch.setattr(onnx_to_tflite, "unroll", lambda graph: graph)
    with pytest.raises(Unsupported, match="answers differently on call 2: worst difference"):
        onnx_to_tflite.convert(model, tmp_path / "made", lambda _: None)
    assert not (tmp_path / "made").exists()


def test_a_state_that_goes_in_and_out_keeps_its_batch_wherever_it_is(tmp_path: Path) -> None:
    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.GRU(6, 12, batch_first=True)

        def forward(self, x: Any, state: Any) -> Any:
            return self.layer(x, state)

    path = tmp_path / "source.onnx"
    torch.onnx.export(
        Network().eval(),
        (torch.randn(2, 4, 6), torch.randn(1, 2, 12)),
        path,
        dynamo=True,
        external_data=False,
        verbose=False,
        opset_version=18,
        input_names=["x", "state"],
        output_names=["y", "after"],
        dynamic_shapes=({0: "batch"}, {1: "batch"}),
    )
    converted(as_model(path), tmp_path)


def test_a_transformer_keeps_its_int64_ids(tmp_path: Path) -> None:
    artifact = converted(exported(tmp_path, Transformer(), {"ids": torch.randint(0, 50, (2, 16))}), tmp_path)
    assert artifact.inputs[0].spec.dtype == "int64"


def test_a_free_sequence_is_refused_with_the_shape_to_type(tmp_path: Path) -> None:
    model = exported(tmp_path, Transformer(), {"ids": torch.randint(0, 50, (2, 16))}, free={0: "batch", 1: "length"})
    with pytest.raises(Unsupported, match="free are batch, length") as caught:
        onnx_to_tflite.convert(model, tmp_path / "made", lambda _: None)
    assert "--shape ids=1x32" in caught.value.hint
    assert not (tmp_path / "made").exists()


def test_a_model_that_mixes_its_batch_is_refused(tmp_path: Path) -> None:
    class Network(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x - x.mean(0, keepdim=True)

    model = exported(tmp_path, Network(), {"x": torch.randn(2, 4)})
    with pytest.raises(Unsupported, match=r"right at one size and wrong at another|answers differently"):
        onnx_to_tflite.convert(model, tmp_path / "made", lambda _: None)


def test_odd_names_and_an_input_that_nothing_uses_do_no_harm(tmp_path: Path) -> None:
    class Network(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, idle: Any) -> Any:
            return torch.relu(x)

    inputs = {"in/put.1:0": torch.randn(2, 4), "idle": torch.randn(2, 3)}
    converted(exported(tmp_path, Network(), inputs, outs="out:0"), tmp_path)


def test_a_branch_that_a_fixed_size_decides_is_taken_away(tmp_path: Path) -> None:
    def branch(op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(op, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], [op])], op, [], [out])

    path = tmp_path / "source.onnx"
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"], start=1),
        helper.make_node("Equal", ["sizes", "four"], ["is_four"]),
        helper.make_node("If", ["is_four"], ["y"], then_branch=branch("Sigmoid"), else_branch=branch("Neg")),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])] for name in "xy"]
    four = helper.make_tensor("four", TensorProto.INT64, [1], [4])
    graph = helper.make_graph(nodes, "toy", *ends, [four])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]), path)
    converted(as_model(path), tmp_path)


def test_an_operator_that_tflite_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "source.onnx"
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "toy", *ends)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]), path)
    with pytest.raises(Unsupported, match="operator DET") as caught:
        onnx_to_tflite.convert(as_model(path), tmp_path / "made", lambda _: None)
    assert "--format onnx" in caught.value.hint


def test_a_source_whose_numbers_are_others_is_refused_with_the_difference(tmp_path: Path) -> None:
    model = exported(tmp_path, torch.nn.Linear(4, 2), {"x": torch.randn(2, 4)})
    other = Model(**{**vars(model), "run": lambda feeds: {k: 1.2 * v for k, v in model.run(feeds).items()}})
    with pytest.raises(Unsupported, match=r"worst difference 0\.1\d of"):
        onnx_to_tflite.convert(other, tmp_path / "made", lambda _: None)


@pytest.mark.parametrize(
    ("output", "status", "reason"),
    [
        (
            "x\nNotImplementedError: failed: op=GRU node=n7 reason_code=bad message=no such shape\n",
            1,
            "operator GRU (node n7): no",
        ),
        ("Traceback\n  File\nValueError: too wide\nnoise", 1, "ValueError: too wide"),
        ("", -9, "memory may have run out"),
        ("", 0, "without a word"),
    ],
)
def test_a_page_of_traceback_becomes_the_line_that_matters(output: str, status: int, reason: str) -> None:
    assert reason in onnx_to_tflite._reason(output, status)
