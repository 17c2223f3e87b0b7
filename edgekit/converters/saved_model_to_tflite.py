"""SavedModel to TFLite by TensorFlow's converter, builtin operators only; with a batch of one where a free one fails.

Refuses what would need TensorFlow's own operators on the device (Flex), and what the plain runtime does not run."""

from collections.abc import Callable, Iterable
from pathlib import Path

from edgekit_runtime.errors import Unsupported
from edgekit_runtime.tensors import Shape

from edgekit.converters.matching import match
from edgekit.model import Artifact, Model, Tell
from edgekit.quiet import gist, quiet
from edgekit.sources.saved_model import open_saved_model
from edgekit.sources.tf_calls import tensorflow
from edgekit.sources.tf_graph import Frozen, concrete, dressed, with_list_batch

Attempt = tuple[Callable[[], Frozen], str]
"""A way to get a graph that may convert, and what a user must know where it does."""

ONE = "the file takes one sample at a time; the runtime cuts a batch into its samples"


def convert(model: Model, folder: Path, tell: Tell) -> Artifact:
    """Write `model.tflite`.

    Raises:
        Unsupported: no attempt gives a file that loads and answers as the source does.
    """
    tell("converting the SavedModel to TFLite with TensorFlow's converter")
    frozen = open_saved_model(model.forms["saved_model"]).freeze()
    attempts: list[Attempt] = [(lambda: dressed(frozen, shapes(model)), "")]
    if has_free_batch(model):
        attempts.append((lambda: dressed(with_list_batch(frozen, 1), shapes(model, batch=1)), ONE))
    return first_right(model, attempts, folder, tell)


def first_right(model: Model, attempts: Iterable[Attempt], folder: Path, tell: Tell) -> Artifact:
    """Write `model.tflite` from the first attempt that converts, loads and answers as the source does."""
    failures: list[Unsupported] = []
    for graph, note in attempts:
        if failures:
            tell(f"trying again, since {failures[-1].what}")
        try:
            return _write(model, graph(), folder, (note,) if note else ())
        except Unsupported as failure:
            failures.append(failure)
    raise failures[0]


def shapes(model: Model, batch: int | None = None) -> dict[str, Shape]:
    """The shapes of the model's inputs, a free first axis made `batch`."""
    return {
        spec.name: (batch, *spec.shape[1:]) if spec.shape and spec.shape[0] is None else spec.shape
        for spec in model.inputs
    }


def has_free_batch(model: Model) -> bool:
    """Whether the first axis of an input is free."""
    return any(spec.shape and spec.shape[0] is None for spec in model.inputs)


def _write(model: Model, frozen: Frozen, folder: Path, notes: tuple[str, ...]) -> Artifact:
    tf = tensorflow()
    try:
        with quiet():
            function = concrete(frozen)
            content = tf.lite.TFLiteConverter.from_concrete_functions([function], function).convert()
    except Exception as error:  # the converter raises its own errors, TensorFlow's and Python's
        raise Unsupported(
            f"TensorFlow's converter cannot make a TFLite file of this model: {gist(error)}",
            hint="use --format onnx, or fix the shapes that are free",
        ) from error
    path = folder / "model.tflite"
    path.write_bytes(content)
    try:
        return match(model, "tflite", path, model.facts.precision, notes)
    except Unsupported:
        path.unlink()
        raise
