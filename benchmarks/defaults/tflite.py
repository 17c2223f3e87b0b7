"""ai-edge-quantizer's own recipe for static int8, with nothing said but the samples.

Refuses a file without a signature."""

from collections.abc import Sequence
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from edgekit_runtime.tensors import Feeds


def static(source: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """`static_wi8_ai8`: weights and activations, inputs and outputs in int8."""
    lite = Interpreter(str(source))
    signature, names = next(iter(lite.get_signature_list().items()))
    runner = lite.get_signature_runner(signature)
    tensors = {argument: runner.get_input_details()[argument]["name"] for argument in names["inputs"]}
    told = [{argument: feeds[tensor] for argument, tensor in tensors.items()} for feeds in samples]
    tool = quantizer.Quantizer(str(source))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    made = folder / "model.tflite"
    tool.quantize(tool.calibrate({signature: told})).export_model(str(made))
    return made
