"""Makes tiny real bundles for tests: one linear layer over a 2x2 photo, as ONNX, OpenVINO or LiteRT files of a few kB.

Refuses nothing: what is to be wrong with a bundle, the tests do to it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from edgekit_runtime.bundle import MANIFEST, describe, open_bundle, read_manifest, write_golden
from edgekit_runtime.drift import Recorder, reader
from edgekit_runtime.drift import to_json as baseline_json
from edgekit_runtime.engines import EngineOptions, open_model
from edgekit_runtime.manifest import Golden, Manifest, Shadow, to_json
from edgekit_runtime.ports import Port, connect
from edgekit_runtime.tensors import Array, TensorSpec

ENTRIES = {"onnx": "model.onnx", "openvino": "model.xml", "tflite": "model.tflite"}
LABELS = ("cat", "dog", "bird", "fish")
PREPROCESS = {"kind": "image", "input": "x", "resize": [2, 2], "scale": 1 / 255}
WEIGHTS: Array = np.random.default_rng(7).uniform(-1, 1, (12, 4)).astype(np.float32)
BIAS: Array = np.array([0.1, -0.2, 0.3, 0.0], np.float32)
X, Y = TensorSpec("x", "float32", (None, 3, 2, 2)), TensorSpec("y", "float32", (None, 4))
X_SCALE, X_ZERO, Y_SCALE = 1 / 255, -128, 12 / 255


def truth(x: Array) -> Array:
    """What the model answers, by numpy."""
    return np.asarray(x.reshape(len(x), 12) @ WEIGHTS + BIAS)


def some(count: int = 1, seed: int = 0) -> Array:
    """`count` photos as the model takes them."""
    return np.random.default_rng(seed).random((count, 3, 2, 2), np.float32)


def make_bundle(
    folder: Path, engine: str = "onnx", inside: bool = False, name: str = "tiny", version: str = "1"
) -> Path:
    """A whole bundle in `folder`. `inside`: the file holds NHWC, int8 and a batch of one, the user sees none of it."""
    folder.mkdir(parents=True)
    entry = folder / ENTRIES[engine]
    write_model(entry, engine, inside)
    ports = (int8_port(), int8_out()) if inside else (Port(X, X), Port(Y, Y))
    if engine == "tflite" and not inside:
        ports = (replace(ports[0], order=(0, 2, 3, 1), inside=TensorSpec("x", "float32", (None, 2, 2, 3))), ports[1])
    run = connect(open_model(engine, entry), ports[:1], ports[1:])
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    write_golden(folder / "golden.npz", [({"x": some(1, seed)}, run({"x": some(1, seed)})) for seed in range(3)])
    manifest = Manifest(
        name=name,
        version=version,
        target="here",
        format=engine,
        precision="int8" if inside else "float32",
        engine=engine,
        entry=entry.name,
        inputs=ports[:1],
        outputs=ports[1:],
        files={path.name: describe(path) for path in sorted(folder.iterdir())},
        options=EngineOptions(threads=1),
        preprocess=PREPROCESS,
        labels="labels.txt",
        golden=Golden("golden.npz", 3, 0.01),
        evidence={"quality": {"metric": "top-1", "value": 0.91, "n": 100}},
    )
    write_manifest(folder, to_json(manifest))
    return folder


def add_baseline(folder: Path, count: int = 2000) -> Path:
    """The bundle with what `count` photos of `some` look like, as a build records it."""
    bundle = open_bundle(folder)
    inputs, outputs = ([port.spec for port in ports] for ports in (bundle.manifest.inputs, bundle.manifest.outputs))
    read, recorder, x = reader(inputs, outputs, bundle.preprocess(), len(LABELS)), Recorder(), some(count, 1000)
    for reading in read({"x": x}, bundle.open_model()({"x": x})):
        recorder.add(reading)
    (folder / "baseline.json").write_text(json.dumps(baseline_json(recorder.baseline())), encoding="utf-8")
    return listed(folder, replace(bundle.manifest, baseline="baseline.json"))


def add_shadow(folder: Path) -> Path:
    """The bundle with the float model beside its own."""
    write_model(folder / "float.onnx", "onnx")
    return listed(
        folder, replace(read_manifest(folder), shadow=Shadow("onnx", "float.onnx", (Port(X, X),), (Port(Y, Y),)))
    )


def listed(folder: Path, manifest: Manifest) -> Path:
    """With all files that are there now."""
    files = {path.name: describe(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    write_manifest(folder, to_json(replace(manifest, files=files)))
    return folder


def write_manifest(folder: Path, raw: object) -> None:
    """Put `raw` in place as the manifest."""
    (folder / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")


def write_model(path: Path, engine: str, inside: bool = False) -> None:
    """The model as a file of `engine`; `inside`: int8 NHWC of batch one, named x_in and y_out."""
    if engine == "tflite":
        path.write_bytes(_tflite(inside))
        return
    onnx_path = path.with_suffix(".onnx")
    onnx_path.write_bytes(_onnx(inside))
    if engine == "openvino":
        import openvino as ov

        ov.save_model(ov.convert_model(onnx_path), path, compress_to_fp16=False)
        onnx_path.unlink()


def int8_port() -> Port:
    """The input as the user sees it, over int8 NHWC of batch one."""
    return Port(X, TensorSpec("x_in", "int8", (1, 2, 2, 3), X_SCALE, X_ZERO), order=(0, 2, 3, 1))


def int8_out() -> Port:
    """The output as the user sees it, over int8."""
    return Port(Y, TensorSpec("y_out", "int8", (1, 4), Y_SCALE, 0))


def nhwc_weights() -> Array:
    """The same weights for pixels in NHWC order."""
    return WEIGHTS.reshape(3, 2, 2, 4).transpose(1, 2, 0, 3).reshape(12, 4)


def _onnx(inside: bool) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    values = {"w": nhwc_weights() if inside else WEIGHTS, "b": BIAS}
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["y"])]
    kind, shape, names = TensorProto.FLOAT, ["n", 3, 2, 2], ("x", "y")
    if inside:
        kind, shape, names = TensorProto.INT8, [1, 2, 2, 3], ("x_in", "y_out")
        values |= {"xs": np.float32(X_SCALE), "xz": np.int8(X_ZERO), "ys": np.float32(Y_SCALE), "yz": np.int8(0)}
        nodes.insert(0, helper.make_node("DequantizeLinear", ["x_in", "xs", "xz"], ["x"]))
        nodes.append(helper.make_node("QuantizeLinear", ["y", "ys", "yz"], ["y_out"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(names[0], kind, shape)],
        [helper.make_tensor_value_info(names[1], kind, [shape[0], 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _tflite(inside: bool) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    weights, scale = nhwc_weights().T, float(np.abs(WEIGHTS).max()) / 127
    stored = [weights.astype(np.float32), BIAS]
    if inside:
        stored = [np.rint(weights / scale).astype(np.int8), np.rint(BIAS / (scale * X_SCALE)).astype(np.int32)]
    batch, real = (1 if inside else -1), schema.TensorType.FLOAT32
    whole = schema.TensorType.INT8 if inside else real
    tensors = [
        _tensor("x_in" if inside else "x", (batch, 2, 2, 3), whole, 0, (X_SCALE, X_ZERO) if inside else None),
        _tensor("w", (4, 12), whole, 1, (scale, 0) if inside else None),
        _tensor("b", (4,), schema.TensorType.INT32 if inside else real, 2, (scale * X_SCALE, 0) if inside else None),
        _tensor("y_out" if inside else "y", (batch, 4), whole, 0, (Y_SCALE, 0) if inside else None),
    ]
    layer = schema.OperatorT()
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, [0, 1, 2], [3]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [3], [layer]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4 if inside else 1
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    for array in stored:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        model.buffers.append(buffer)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, shape: tuple[int, ...], kind: int, buffer: int, scale: tuple[float, int] | None) -> object:
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name.encode(), kind, buffer
    tensor.shape = [max(n, 1) for n in shape]
    if -1 in shape:
        tensor.shapeSignature = list(shape)
    if scale is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale[0]], [scale[1]]
    return tensor
