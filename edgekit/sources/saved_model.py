"""The SavedModel source: a folder with saved_model.pb, called by its signature, of TensorFlow 1 or 2, Keras 2 or 3.

Refuses a damaged folder, one without a signature to call, text inputs, and what would touch files or run Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import BadRequest, EdgeKitError, Unsupported
from edgekit_runtime.tensors import Feeds, TensorSpec

from edgekit.model import Facts, Model, Origin
from edgekit.quiet import gist, quiet
from edgekit.sources.files import digest
from edgekit.sources.shapes import settle
from edgekit.sources.tf_calls import tensorflow
from edgekit.sources.tf_graph import Frozen, inlined, unshaped

UNSAFE = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile"}
SERVE = "serve"
DEFAULT = "serving_default"
CHECK = "check the sizes and the values of what you feed it"


@dataclass(frozen=True)
class Opened:
    """A SavedModel in a session: call it with `session`, or `freeze` it."""

    session: Any
    signature: Any

    def freeze(self) -> Frozen:
        """The signature's part of the graph, its variables made constants."""
        tf = tensorflow()
        inputs = {name: info.name for name, info in sorted(self.signature.inputs.items())}
        outputs = {name: info.name for name, info in sorted(self.signature.outputs.items())}
        nodes = sorted({tensor.partition(":")[0] for tensor in outputs.values()})
        try:
            with quiet():
                graph = tf.compat.v1.graph_util.convert_variables_to_constants(
                    self.session, self.session.graph.as_graph_def(), nodes
                )
                return Frozen(
                    unshaped(inlined(unshaped(graph), [*inputs.values(), *outputs.values()])), inputs, outputs
                )
        except Exception as error:  # TensorFlow raises whatever its graph rewriting meets
            raise Unsupported(
                f"the SavedModel's variables cannot be made constants: {gist(error)}",
                hint="export the model anew, without tables or variables that it writes",
            ) from error


def fingerprint(origin: Origin) -> str:
    """The digest of every file in the folder and of the shapes the user gave."""
    files = sorted(path for path in origin.path.rglob("*") if path.is_file())
    places = [path.relative_to(origin.path).as_posix() for path in files]
    return digest(files, "saved_model", *places, *map(str, origin.shapes))


def read(origin: Origin) -> Model:
    """Open the SavedModel and make its signature the reference.

    Raises:
        EdgeKitError: it is damaged, has no signature to call, or a shape does not fit.
        Unsupported: it takes what is no array of numbers.
    """
    folder = origin.path
    opened = open_saved_model(folder)
    given = [_spec(folder, name, info, origin) for name, info in sorted(opened.signature.inputs.items())]
    inputs, axes = settle(given, origin.shapes)
    frozen = opened.freeze()
    parameters, size = frozen.constants()
    return Model(
        name=folder.resolve().name,
        kind="saved_model",
        forms={"saved_model": folder},
        inputs=inputs,
        outputs=_outputs(opened),
        axes=axes,
        run=lambda feeds: _run(opened, feeds),
        facts=Facts(frozen.ops(), parameters, size),
    )


def open_saved_model(folder: Path) -> Opened:
    """The SavedModel in `folder`, by the loader that also reads what older TensorFlow and Keras wrote.

    Raises:
        EdgeKitError: it is damaged or has no signature.
        Unsupported: it would touch files or run Python.
    """
    meta = _meta_graph(folder)
    signature = _signature(folder, meta)
    tf = tensorflow()
    try:
        with quiet():
            graph = tf.Graph()
            with graph.as_default():
                session = tf.compat.v1.Session(graph=graph)
                tf.compat.v1.saved_model.load(session, list(meta.meta_info_def.tags), str(folder))
    except Exception as error:  # a damaged checkpoint ends in any of TensorFlow's errors
        raise EdgeKitError(
            f"{folder} does not load as a SavedModel: {gist(error)}",
            hint="export it again, and copy the folder whole, with variables/ and assets/",
        ) from error
    return Opened(session, signature)


def _run(opened: Opened, feeds: Feeds) -> Feeds:
    inputs, outputs = opened.signature.inputs, opened.signature.outputs
    fetches = {name: info.name for name, info in outputs.items()}
    try:
        answer: Feeds = opened.session.run(fetches, {inputs[name].name: value for name, value in feeds.items()})
    except Exception as error:  # TensorFlow raises by operator: an index out of range, sizes that do not fit
        raise BadRequest(f"the source model does not run on this input: {gist(error)}", hint=CHECK) from error
    return answer


def _spec(folder: Path, name: str, info: Any, origin: Origin) -> TensorSpec:
    dtype = tensorflow().as_dtype(info.dtype)
    if dtype == tensorflow().string or not info.name:
        raise Unsupported(
            f"{folder}: the input {name} is {'text' if info.name else 'sparse'}, and a device takes dense numbers",
            hint="export a signature that takes arrays of numbers, such as token ids",
        )
    if not info.tensor_shape.unknown_rank:
        return TensorSpec(name, dtype.name, _sizes(info))
    for shape in origin.shapes:
        if shape.name == name:
            return TensorSpec(name, dtype.name, (None,) * len(shape.axes))
    raise EdgeKitError(f"{folder}: nothing is known of the shape of {name}", hint=f"say --shape {name}=1x224x224x3")


def _outputs(opened: Opened) -> tuple[TensorSpec, ...]:
    """What the signature gives, in the order of the names: a SavedModel keeps no other."""
    infos: Mapping[str, Any] = opened.signature.outputs
    return tuple(
        TensorSpec(name, tensorflow().as_dtype(info.dtype).name, _sizes(info)) for name, info in sorted(infos.items())
    )


def _sizes(info: Any) -> tuple[int | None, ...]:
    return tuple(None if dim.size < 0 else int(dim.size) for dim in info.tensor_shape.dim)


def _meta_graph(folder: Path) -> Any:
    path = folder / "saved_model.pb"
    if not path.is_file():
        raise EdgeKitError(
            f"{folder} is a folder without saved_model.pb",
            hint="give the folder that holds saved_model.pb, or the model file itself",
        )
    tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, which differs between its implementations
        raise EdgeKitError(f"{path} is damaged or cut short", hint="export or copy it again") from error
    metas = [meta for meta in saved.meta_graphs if SERVE in meta.meta_info_def.tags] or list(saved.meta_graphs)
    if not metas:
        raise EdgeKitError(f"{path} holds no graph", hint="export or copy it again")
    _refuse_unsafe(folder, metas[0])
    return metas[0]


def _refuse_unsafe(folder: Path, meta: Any) -> None:
    functions = meta.graph_def.library.function
    ops = {node.op for node in meta.graph_def.node}.union(node.op for f in functions for node in f.node_def)
    if unsafe := sorted(ops & UNSAFE):
        raise Unsupported(
            f"{folder} holds {', '.join(unsafe)}: it would touch files or call Python, and no device could run it",
            hint="export the model without them",
        )


def _signature(folder: Path, meta: Any) -> Any:
    known = {
        name: signature
        for name, signature in meta.signature_def.items()
        if not name.startswith("__") and signature.inputs and signature.outputs
    }
    if DEFAULT in known:
        return known[DEFAULT]
    if len(known) == 1:
        return next(iter(known.values()))
    if not known:
        raise EdgeKitError(
            f"{folder} has no signature to call",
            hint="export with tf.saved_model.save(model, folder, signatures=...), or model.export(folder) in Keras",
        )
    raise EdgeKitError(
        f"{folder} has the signatures {', '.join(sorted(known))} and none is called {DEFAULT}",
        hint=f"export the one you want as {DEFAULT}",
    )
