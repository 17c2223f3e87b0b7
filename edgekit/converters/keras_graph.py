"""A Keras model as a frozen TensorFlow graph: traced with the sizes the user fixed, if wished with a fixed batch or
its recurrent layers unrolled. Refuses to unroll over a length that is free."""

from typing import Any

from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Shape

from edgekit.model import Model
from edgekit.quiet import gist, quiet
from edgekit.sources.keras import call
from edgekit.sources.tf_calls import keras, tensorflow
from edgekit.sources.tf_graph import Frozen, freeze_function

RECURRENT = ("LSTM", "GRU", "SimpleRNN")


def freeze(model: Model, batch: int | None = None, unroll: bool = False) -> Frozen:
    """The graph of the model's Keras form; `batch` is the size of a first axis that is free.

    Raises:
        Unsupported: TensorFlow cannot trace it so.
    """
    tf = tensorflow()
    try:
        with quiet():
            layers = _unrolled(model) if unroll else model.forms["keras"]
            signature = [tf.TensorSpec(_fixed(spec.shape, batch), spec.dtype) for spec in model.inputs]
            traced = tf.function(lambda *arrays: call(layers, arrays), input_signature=signature, autograph=False)
            names = [spec.name for spec in model.inputs], [spec.name for spec in model.outputs]
            return freeze_function(traced.get_concrete_function(), *names)
    except Exception as error:  # any layer may refuse its input in its own way
        raise Unsupported(f"Keras cannot trace the model: {gist(error)}", hint="fix its shapes with --shape") from error


def steps(model: Model) -> int | None:
    """How often a recurrent layer of the model steps at most; 0 where there is none, None where that is free."""
    if not any(name in model.facts.ops for name in RECURRENT):
        return 0
    lengths = [spec.shape[1] for spec in model.inputs if len(spec.shape) > 1]
    return None if None in lengths else max((n for n in lengths if n is not None), default=0)


def _unrolled(model: Model) -> Any:
    """A copy of the Keras model whose recurrent layers are written out step by step."""

    def copy(layer: Any) -> Any:
        return type(layer).from_config(_unroll(layer.get_config()))

    layers = model.forms["keras"]
    inputs = [keras().Input(batch_shape=spec.shape, dtype=spec.dtype) for spec in model.inputs]
    structure = getattr(layers, "_inputs_struct", None)
    given = keras().tree.pack_sequence_as(structure, inputs) if structure is not None else inputs[0]
    clone = keras().models.clone_model(layers, input_tensors=given, clone_function=copy, recursive=True)
    clone.set_weights(layers.get_weights())
    return clone


def _unroll(config: Any) -> Any:
    """The description of a layer, with `unroll` set in it and in what it wraps."""
    if isinstance(config, dict):
        return {key: True if key == "unroll" else _unroll(value) for key, value in config.items()}
    return [_unroll(value) for value in config] if isinstance(config, list) else config


def _fixed(shape: Shape, batch: int | None) -> Shape:
    return (batch, *shape[1:]) if batch is not None and shape and shape[0] is None else shape
