"""Device folders for tests, signed bundles that do well or badly there, and a real server of them in a process.

Refuses to leave a server behind."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from edgekit_runtime.bundle import open_bundle, read_golden, write_golden
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.trust import Key, Revoked, Trust, made_trust

from tests.runtime.bundles import make_bundle, some
from tests.runtime.signing import relisted, sign_folder
from tests.waiting import until

TARGET = "here"


@dataclass
class Maker:
    """Who makes bundles: a root, a key, and the trust document for devices."""

    folder: Path
    root: bytes = field(default_factory=new_private_key)
    key: bytes = field(default_factory=new_private_key)

    def trust(self, serial: int = 1, *revoked: bytes, keys: dict[str, bytes] | None = None) -> bytes:
        """The trust document of that number."""
        listed = tuple(Key(name, public_of(pem)) for name, pem in (keys or {"maker": self.key}).items())
        gone = tuple(Revoked(public_of(pem).fingerprint, "stolen", 1) for pem in revoked)
        return made_trust(Trust(serial, (public_of(self.root),), listed, gone), self.root)

    def bundle(self, version: str, model: bytes | None = None, **changes: Any) -> Path:
        """Version `version` of "tiny", signed; release 100 times its number; `model` in place of the linear layer."""
        folder = make_bundle(self.folder / f"v{version}", version=version)
        if model is not None:
            (folder / "model.onnx").write_bytes(model)
            relisted(folder)
            run = open_bundle(folder).open_model()
            write_golden(folder / "golden.npz", [({"x": some(1, n)}, run({"x": some(1, n)})) for n in range(3)])
        (folder / "labels.txt").write_text(f"cat {version}\ndog\nbird\nfish\n", encoding="utf-8")
        relisted(folder, **{"release": 100 * int(version), **changes})
        return sign_folder(folder, self.key)

    def wrong(self, version: str) -> Path:
        """One that answers otherwise than was recorded."""
        folder = self.bundle(version)
        pairs = read_golden(folder / "golden.npz")
        write_golden(folder / "golden.npz", [(feeds, {"y": answer["y"][:, ::-1]}) for feeds, answer in pairs])
        return sign_folder(relisted(folder), self.key)


def device_folder(folder: Path, maker: Maker) -> Path:
    """A device that trusts the maker, and is what its bundles are for."""
    folder.mkdir()
    (folder / "target").write_text(TARGET + "\n")
    (folder / "trust.json").write_bytes(maker.trust())
    return folder


def graph(*nodes: Any, **values: Any) -> bytes:
    """An ONNX model from x (n, 3, 2, 2) to y (n, 4), in which "line" is the linear layer's answer and "sum" one number
    of all inputs."""
    from onnx import TensorProto, helper, numpy_helper

    from tests.runtime.bundles import BIAS, WEIGHTS

    known = {"w": WEIGHTS, "b": BIAS, **values}
    first = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["line"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
    ]
    made = helper.make_graph(
        [*first, *nodes],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in known.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def wide(size: int) -> bytes:
    """A model that fills a square of so many numbers on each side, and multiplies it by itself."""
    from onnx import helper

    node = helper.make_node
    return graph(
        node("Expand", ["sum", "shape"], ["square"]),
        node("MatMul", ["square", "square"], ["product"]),
        node("ReduceMean", ["product"], ["mean"], keepdims=0),
        node("Mul", ["mean", "zero"], ["nothing"]),
        node("Add", ["line", "nothing"], ["y"]),
        shape=np.array([size, size], np.int64),
        zero=np.float32(0),
    )


def long(size: int) -> bytes:
    """A model that fills a row of so many numbers."""
    from onnx import helper

    node = helper.make_node
    return graph(
        node("Expand", ["sum", "shape"], ["row"]),
        node("Sin", ["row"], ["waves"]),
        node("ReduceMean", ["waves"], ["mean"], keepdims=0),
        node("Mul", ["mean", "zero"], ["nothing"]),
        node("Add", ["line", "nothing"], ["y"]),
        shape=np.array([size], np.int64),
        zero=np.float32(0),
    )


def fragile() -> bytes:
    """A model whose run fails where its inputs sum up to 100 or more: it looks for what is not in its table."""
    from onnx import TensorProto, helper

    node = helper.make_node
    return graph(
        node("Cast", ["sum"], ["place"], to=TensorProto.INT64),
        node("Gather", ["table", "place"], ["found"]),
        node("Add", ["line", "found"], ["y"]),
        table=np.zeros(100, np.float32),
    )


def runtime(
    *words: object, source: bytes = b"", env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run `edgekit-runtime WORDS` in a process."""
    command = [sys.executable, "-m", "edgekit_runtime", *map(str, words)]
    return subprocess.run(
        command, input=source, capture_output=True, timeout=300, check=False, env={**os.environ, **(env or {})}
    )


@dataclass
class Serving:
    """A server process of a device folder."""

    folder: Path
    process: "subprocess.Popen[str]"
    log: Path
    at: str

    def ask(self, path: str, body: Any = None) -> Any:
        """The decoded answer; of an error, too."""
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.at + path, data), timeout=60) as answer:
                raw = answer.read()
        except urllib.error.HTTPError as error:
            raw = error.read()
        return json.loads(raw) if raw[:1] in (b"{", b"[") else raw

    def infer(self, value: float = 0.5) -> Any:
        """The answer of "tiny" to a photo of one colour."""
        inputs = [{"name": "x", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": [value] * 12}]
        return self.ask("/v2/models/tiny/infer", {"inputs": inputs})

    def version(self) -> str:
        """Of "tiny", by its own answer."""
        return str(self.infer()["model_version"])

    def history(self) -> list[tuple[str, str, str]]:
        """What the page shows of models."""
        return [(one["what"], one["version"], one["why"]) for one in self.ask("/status")["history"]]

    def kill(self) -> None:
        """As a crash."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[Serving]:
    """`edgekit-runtime serve --device FOLDER` on a free port."""
    log = folder.with_name(f"{folder.name}.log")
    command = [sys.executable, "-m", "edgekit_runtime", "serve", "--device", str(folder), "--port=0", "--json", *words]
    with log.open("a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Serving(folder, process, log, json.loads(line)["http"])
    finally:
        process.terminate()
        process.wait(60)


def soon(true: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What it gives, once that is true."""
    return until(true, seconds)
