"""The OpenVINO quantizer on small nets: what it makes is small, compiles, answers alike, and says what it is."""

from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.model import Artifact
from edgekit.quantizers import Wish, quantize
from edgekit.recipes import Recipe
from tests.quantizers import small


def converted(net: small.MakeNet, folder: Path) -> Artifact:
    """The net as an OpenVINO artifact, in a folder of its own."""
    import openvino as ov

    (folder / "float").mkdir(parents=True)
    source = net(folder / "source.onnx")
    path = folder / "float" / "model.xml"
    ov.save_model(ov.convert_model(source.path), path, compress_to_fp16=False)
    return small.artifact("openvino", path)


@pytest.mark.slow
@pytest.mark.parametrize("net", [small.conv_net, small.hard_swish_net, small.token_net])
def test_int8_answers_like_the_float_one_and_says_what_it_holds(net: small.MakeNet, tmp_path: Path) -> None:
    source = converted(net, tmp_path)
    made = small.quantized(source, "int8", tmp_path / "q")
    assert small.likeness(source, made) > 0.95
    assert [path.name for path in made.files()] == ["model.bin", "model.xml"]
    assert "int8 holds" in made.notes[-1]
    assert (made.inputs, made.outputs) == (source.inputs, source.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("net", [small.conv_net, small.dense_net, small.token_net, small.lstm_net])
def test_int8_weights_are_small_and_answer_alike(net: small.MakeNet, tmp_path: Path) -> None:
    source = converted(net, tmp_path)
    made = small.quantized(source, "int8-weights", tmp_path / "q")
    assert small.likeness(source, made) > 0.998
    assert _weights(made) < 0.4 * _weights(source)
    assert "int8-weights holds" in made.notes[-1]


@pytest.mark.slow
def test_an_integer_lstm_which_ignores_its_input_is_not_made(tmp_path: Path) -> None:
    source = converted(small.lstm_net, tmp_path)
    with pytest.raises(Unsupported, match="LSTMSequence") as refused:
        small.quantized(source, "int8", tmp_path / "q")
    assert refused.value.hint == "use --precision int8-weights"


@pytest.mark.slow
def test_int4_weights_of_embeddings_and_products(tmp_path: Path) -> None:
    source = converted(small.token_net, tmp_path)
    made = small.quantized(source, "int4-weights", tmp_path / "q")
    assert small.likeness(source, made) > 0.95
    assert _weights(made) < 0.3 * _weights(source)


def test_int4_weights_of_a_conv_net_are_refused_with_the_nearest_thing(tmp_path: Path) -> None:
    source = converted(small.conv_net, tmp_path)
    with pytest.raises(Unsupported, match="matrix products") as refused:
        small.quantized(source, "int4-weights", tmp_path / "q")
    assert refused.value.hint == "use --precision int8-weights"


def test_float16_halves_the_weights_and_keeps_float32_outside(tmp_path: Path) -> None:
    source = converted(small.dense_net, tmp_path)
    made = small.quantized(source, "float16", tmp_path / "q")
    assert small.likeness(source, made) > 0.999
    assert _weights(made) < 0.6 * _weights(source)
    assert (made.inputs, made.outputs) == (source.inputs, source.outputs)


def test_what_is_in_float16_already_is_not_quantized(tmp_path: Path) -> None:
    half = small.quantized(converted(small.dense_net, tmp_path), "float16", tmp_path / "half")
    with pytest.raises(Unsupported, match="float16 already") as refused:
        small.quantized(half, "int8", tmp_path / "q")
    assert "--precision float16," in refused.value.hint


@pytest.mark.slow
def test_what_is_quantized_already_is_not_quantized_again(tmp_path: Path) -> None:
    made = small.quantized(converted(small.dense_net, tmp_path), "int8-weights", tmp_path / "w")
    with pytest.raises(Unsupported, match="already quantized") as refused:
        small.quantized(made, "int8", tmp_path / "q")
    assert "--precision int8-weights," in refused.value.hint


def test_int8_without_data_says_what_to_give(tmp_path: Path) -> None:
    source = converted(small.dense_net, tmp_path)
    with pytest.raises(EdgeKitError, match="needs calibration data"):
        quantize(source, Wish(Recipe("int8")), tmp_path, lambda words: None)


@pytest.mark.slow
def test_a_broken_calibration_keeps_its_own_error(tmp_path: Path) -> None:
    source = converted(small.dense_net, tmp_path)
    calls = []

    def broken():  # type: ignore[no-untyped-def]
        calls.append(1)
        yield next(small.samples(source))
        if len(calls) > 1:
            raise EdgeKitError("sample 2 is damaged")

    (tmp_path / "q").mkdir()
    with pytest.raises(EdgeKitError, match="sample 2 is damaged"):
        quantize(source, Wish(Recipe("int8"), broken, 2), tmp_path / "q", lambda words: None)


def _weights(artifact: Artifact) -> int:
    return artifact.path.with_suffix(".bin").stat().st_size
