"""PyTorch to ONNX, OpenVINO and TFLite, by the steps of the table, on the layers that people use."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from edgekit_runtime.errors import Unsupported

from edgekit import converters, sources
from edgekit.converters.matching import difference, example_feeds
from edgekit.model import Artifact, Model, Origin, parse_shape

pytestmark = pytest.mark.slow

NETS = Path(__file__).parent.parent / "sources" / "torch_nets.py"
FREE = {"small": ["x=n,3,32,32"], "pair": ["x=n,4", "y=n,4"], "lstm": ["x=n,t,6"], "gru": ["x=n,t,6"]}
FREE |= {"encoder": ["ids=n,t:int64"]}
FIXED = {"small": ["x=n,3,32,32"], "pair": ["x=n,4", "y=n,4"], "lstm": ["x=n,8,6"], "gru": ["x=n,8,6"]}
FIXED |= {"encoder": ["ids=n,8:int64"]}


def read(name: str, shapes: list[str]) -> Model:
    return sources.read(Origin(f"{NETS}:{name}", None, tuple(map(parse_shape, shapes))))


def converted(model: Model, format: str, folder: Path) -> Artifact:
    step_model = model
    for step in converters.route(model, format):
        place = folder / step.rpartition(".")[2]
        place.mkdir()
        artifact = converters.convert(step, step_model, place, lambda words: None)
        step_model = replace(step_model, forms={artifact.format: artifact.path})
    return artifact


def off(model: Model, artifact: Artifact, sizes: dict[str, int]) -> float:
    feeds = example_feeds(model, sizes)
    wanted, got = model.run(feeds), artifact.open_model()(feeds)
    assert wanted.keys() == got.keys()
    return max(difference(wanted[name], got[name]) for name in wanted)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("name", FREE)
def test_a_module_keeps_its_numbers_at_every_batch_and_length(tmp_path: Path, name: str, format: str) -> None:
    model = read(name, FREE[name])
    artifact = converted(model, format, tmp_path)
    for batch, length in ((1, 1), (2, 7), (5, 33)):
        assert off(model, artifact, {"n": batch, "t": length}) < 1e-3


def test_the_second_export_in_a_process_does_not_bake_in_the_length(tmp_path: Path) -> None:
    for turn in ("first", "second"):
        (tmp_path / turn).mkdir()
        artifact = converted(read("gru", FREE["gru"]), "onnx", tmp_path / turn)
        assert artifact.inputs[0].inside.shape == (None, None, 6)
        assert artifact.notes == ()


def test_the_exporters_notes_on_the_code_and_where_it_lies_stay_out_of_the_file(tmp_path: Path) -> None:
    graph = onnx.load(converted(read("small", FREE["small"]), "onnx", tmp_path).path).graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    assert not [property.key for part in (graph, *graph.node, *values) for property in part.metadata_props]


@pytest.mark.parametrize("name", FIXED)
def test_a_module_with_a_free_batch_becomes_a_tflite_file(tmp_path: Path, name: str) -> None:
    model = read(name, FIXED[name])
    artifact = converted(model, "tflite", tmp_path)
    for batch in (1, 3):
        assert off(model, artifact, {"n": batch}) < 1e-3
    if name == "small":
        assert artifact.inputs[0].order == (0, 2, 3, 1)


def test_a_length_that_tflite_cannot_keep_free_is_said_with_the_shape_to_type(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="free beyond the batch") as caught:
        converted(read("encoder", FREE["encoder"]), "tflite", tmp_path)
    assert "--shape ids=1x32:int64" in caught.value.hint


@pytest.mark.parametrize("format", ["onnx", "openvino", "tflite"])
def test_an_exported_program_keeps_its_numbers(tmp_path: Path, format: str) -> None:
    module = read("pair", FREE["pair"]).forms["torch"].flat.module
    batch = torch.export.Dim("batch")
    free = {"x": {0: batch}, "y": {0: batch}}
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),) * 2, dynamic_shapes=free), tmp_path / "m.pt2")
    model = sources.read(Origin(str(tmp_path / "m.pt2")))
    artifact = converted(model, format, tmp_path)
    for size in (1, 4):
        assert off(model, artifact, {"batch": size}) < 1e-3


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("name", ["small", "lstm"])
def test_torchscript_keeps_its_numbers(tmp_path: Path, name: str, format: str) -> None:
    torch.jit.script(read(name, FREE[name]).forms["torch"].flat.module).save(tmp_path / "m.pt")
    model = sources.read(Origin(str(tmp_path / "m.pt"), None, tuple(map(parse_shape, FREE[name]))))
    artifact = converted(model, format, tmp_path)
    for batch, length in ((1, 5), (3, 9)):
        assert off(model, artifact, {"n": batch, "t": length}) < 1e-3


def test_an_output_with_the_name_of_an_input_keeps_it_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "class Step(torch.nn.Module):\n"
        "    def forward(self, state, x):\n"
        "        return {'state': state * 0.5 + x, 'y': x - state}\n"
        "def make():\n    return Step()\n"
    )
    shapes = tuple(map(parse_shape, ["state=n,4", "x=n,4"]))
    model = sources.read(Origin(f"{tmp_path / 'net.py'}:make", None, shapes))
    artifact = converted(model, "onnx", tmp_path)
    assert [port.spec.name for port in artifact.outputs] == ["state", "y"]
    feeds = {"state": np.ones((2, 4), np.float32), "x": np.zeros((2, 4), np.float32)}
    assert artifact.open_model()(feeds)["state"].tolist() == [[0.5] * 4] * 2
