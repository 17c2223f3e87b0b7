"""The Keras source: `.keras` files, and `.h5` files of Keras 2 and 3, with layers that Keras itself knows.

Refuses what would run the file's own code (Lambda layers, pickled modules), custom objects, weights without a model."""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.errors import BadRequest, EdgeKitError, Unsupported
from edgekit_runtime.tensors import Array, Feeds, Runner, TensorSpec

from edgekit.model import Facts, Model, Origin
from edgekit.quiet import gist, quiet
from edgekit.sources.files import digest
from edgekit.sources.shapes import settle
from edgekit.sources.tf_calls import keras, tensorflow

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"
CODE = {"Lambda": "a Lambda layer", "__lambda__": "a lambda", "TorchModuleWrapper": "a pickled torch module"}
SAFE_WAY = (
    "replace it by a built-in layer or keras.ops, or run model.export('folder') where the model was made "
    "and give that folder"
)


def fingerprint(origin: Origin) -> str:
    """The digest of the file and of the shapes the user gave."""
    return digest([origin.path], "keras", *map(str, origin.shapes))


def read(origin: Origin) -> Model:
    """Load the model without running anything that the file brings along.

    Raises:
        EdgeKitError: the file is damaged, unsafe, or a shape does not fit.
    """
    path = origin.path
    _refuse_code(path, _config(path))
    loaded = _load(path)
    inputs, axes = settle(_inputs(loaded, path, origin), origin.shapes)
    run, outputs = _reference(loaded, inputs, path)
    return Model(path.stem, "keras", {"keras": loaded}, inputs, outputs, axes, run, _facts(loaded))


def call(model: Any, arrays: Sequence[Any]) -> list[Any]:
    """The model's outputs, flat, for its inputs in their order; for eager tensors and in a trace."""
    nest = keras().tree
    given: Any = list(arrays)
    structure = getattr(model, "_inputs_struct", None)  # Keras has no public word for it
    given = nest.pack_sequence_as(structure, given) if structure is not None else given[0]
    return list(nest.flatten(model(given, training=False)))


def _config(path: Path) -> Any:
    """The model's description, as JSON in the file; read before Keras sees any of it."""
    with path.open("rb") as file:
        head = file.read(8)
    suffix, is_zip, is_hdf5 = path.suffix.lower(), head[:4] == ZIP, head == HDF5
    if (suffix == ".keras" and is_hdf5) or (suffix == ".h5" and is_zip):
        right = ".h5" if is_hdf5 else ".keras"
        raise EdgeKitError(f"{path} is a {right} file by its content", hint=f"rename it to {path.stem}{right}")
    try:
        return _zipped_config(path) if suffix == ".keras" else _hdf5_config(path)
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise EdgeKitError(f"{path} is damaged or cut short: {gist(error)}", hint="save or copy it again") from error


def _zipped_config(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise EdgeKitError(f"{path} holds no model (no config.json)", hint="save it with model.save('m.keras')")
        return json.loads(archive.read("config.json"))


def _hdf5_config(path: Path) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
    if config is None:
        raise EdgeKitError(
            f"{path} holds weights without the model they belong to", hint="save both: model.save('m.keras')"
        )
    return json.loads(config)


def _refuse_code(path: Path, config: Any) -> None:
    for kind, name in _kinds(config):
        if kind in CODE:
            raise Unsupported(
                f"{path} holds {CODE[kind]}{f' ({name})' if name else ''}: it is code, and reading a model runs none",
                hint=SAFE_WAY,
            )


def _kinds(config: Any) -> Iterator[tuple[str, str]]:
    """Every class in the description, with the name of its layer."""
    if isinstance(config, dict):
        if isinstance(kind := config.get("class_name"), str):
            inner = config.get("config")
            yield kind, str(inner.get("name", "")) if isinstance(inner, dict) else ""
        for value in config.values():
            yield from _kinds(value)
    elif isinstance(config, list):
        for value in config:
            yield from _kinds(value)


def _load(path: Path) -> Any:
    module = keras()
    try:
        with quiet():
            return module.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises what the damaged part of a file happens to cause
        text = str(error)
        if "Could not locate" in text or "Unknown layer" in text or "custom" in text:
            named = re.search(r"(?:Could not locate (?:class|function)|Unknown layer:?) '(\w+)'", text)
            what = named[1] if named else gist(error)
            raise Unsupported(f"{path} needs a class that Keras does not have: {what}", hint=SAFE_WAY) from error
        raise EdgeKitError(f"{path} does not load in Keras: {gist(error)}", hint="save or copy it again") from error


def _inputs(model: Any, path: Path, origin: Origin) -> list[TensorSpec]:
    """The inputs as Keras names them; a Sequential saved without its input shape gets it from the user."""
    if not model.built or not getattr(model, "inputs", None):
        if len(origin.shapes) != 1:
            raise EdgeKitError(f"{path} was saved without the shape of its input", hint="say --shape x=1x28x28x1")
        shape = origin.shapes[0]
        model.build(tuple(n if isinstance(n, int) else None for n in shape.axes))
        return [TensorSpec(shape.name, model.inputs[0].dtype, tuple(model.inputs[0].shape))]
    for tensor in model.inputs:
        if tensor.dtype == "string":
            raise Unsupported(
                f"{path}: the input {tensor.name} is text, and a device takes numbers",
                hint="save the model without its text layer, and give it token ids",
            )
    return [TensorSpec(tensor.name, tensor.dtype, tuple(tensor.shape)) for tensor in model.inputs]


def _reference(model: Any, inputs: Sequence[TensorSpec], path: Path) -> tuple[Runner, tuple[TensorSpec, ...]]:
    """The model as a runner, traced once for all sizes, and what it gives."""
    tf = tensorflow()
    signature = [tf.TensorSpec(spec.shape, spec.dtype) for spec in inputs]
    traced = tf.function(lambda *arrays: call(model, arrays), input_signature=signature, autograph=False)
    try:
        with quiet():
            answers = traced.get_concrete_function().structured_outputs
    except Exception as error:  # any layer may refuse its input in its own way
        raise EdgeKitError(f"{path} cannot be called: {gist(error)}", hint="fix its shapes with --shape") from error
    names = _output_names(model, len(answers))
    outputs = tuple(
        TensorSpec(name, answer.dtype.name, tuple(answer.shape)) for name, answer in zip(names, answers, strict=True)
    )

    def run(feeds: Feeds) -> Feeds:
        try:
            given: list[Array] = traced(*(tf.constant(feeds[spec.name]) for spec in inputs))
        except Exception as error:  # TensorFlow raises by operator: an index out of range, sizes that do not fit
            raise BadRequest(
                f"the source model does not run on this input: {gist(error)}",
                hint="check the sizes and the values of what you feed it",
            ) from error
        return {name: np.asarray(array) for name, array in zip(names, given, strict=True)}

    return run, outputs


def _output_names(model: Any, count: int) -> list[str]:
    """The keys of a dictionary of outputs, else the layers' names, each once."""
    structure = getattr(model, "_outputs_struct", None)
    if isinstance(structure, dict):
        names = [".".join(map(str, route)) for route, _ in keras().tree.flatten_with_path(structure)]
    else:
        names = list(getattr(model, "output_names", None) or [model.layers[-1].name])
    if len(names) != count:
        names = [f"output_{i}" for i in range(count)]
    return [name if names.count(name) == 1 else f"{name}_{names[:i].count(name)}" for i, name in enumerate(names)]


def _facts(model: Any) -> Facts:
    layers = [layer for layer in model._flatten_layers(include_self=False) if not getattr(layer, "layers", None)]
    dtypes = Counter({"float32": 0})
    for weight in model.weights:
        dtypes[weight.dtype] += int(np.prod(weight.shape))
    precision = dtypes.most_common(1)[0][0]
    if any(layer.compute_dtype == "float16" for layer in layers):
        precision = "float16"
    if "int8" in dtypes:
        precision = "int8-weights"
    size = sum(int(np.prod(weight.shape)) * np.dtype(weight.dtype).itemsize for weight in model.weights)
    return Facts(Counter(type(layer).__name__ for layer in layers), model.count_params(), size, precision)
