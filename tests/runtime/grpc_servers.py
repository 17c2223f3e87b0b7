"""gRPC servers in a thread for tests, models to serve, and the calls of a client.

Refuses nothing: a server that does not start raises what `start` raised."""

import asyncio
import threading
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from edgekit_runtime.counters import Counters
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.grpc import start
from edgekit_runtime.messages import classes
from edgekit_runtime.served import Served
from edgekit_runtime.service import Policy, Service
from edgekit_runtime.tensors import TensorSpec
from tritonclient.utils import InferenceServerException

KNOWN = classes("inference")
REQUEST = KNOWN["inference.ModelInferRequest"]
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Slow:
    """A model that answers when it is let: `go`; `began` is set once it runs."""

    def __init__(self):
        self.go, self.began, self.runs = threading.Event(), threading.Event(), 0

    def run(self, feeds):
        self.began.set()
        self.go.wait(20)
        self.runs += 1
        return {"y": feeds["x"]}


def fake(name, run, dtype="float32", version="1"):
    x, y = TensorSpec("x", dtype, (None,)), TensorSpec("y", dtype, (None,))
    return Served(name, version, "onnx", (x,), (y,), run)


def echo(name="echo", dtype="float32", version="1"):
    return fake(name, lambda feeds: {"y": feeds["x"]}, dtype, version)


class Server:
    """A listening server with its event loop in a thread of its own."""

    def __init__(self, models, policy, address, options):
        self.counters, self._ready = Counters(), threading.Event()
        self._args = (models, policy, address, options)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _run(self):
        models, policy, address, options = self._args
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.failed = None
        try:
            self.service = Service(models, {"prod": ("echo", None)}, policy)
            self.running, self.port = await start(self.service, address, self.counters, **options)
        except EdgeKitError as error:
            self.failed = error
            self._ready.set()
            return
        self._ready.set()
        await self._stop.wait()
        await self.running.stop(0.2)
        await self.service.close()

    def call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    @property
    def url(self):
        return f"127.0.0.1:{self.port}"

    def close(self):
        if self.failed is None:
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


@contextmanager
def serving(*models, policy=None, address="127.0.0.1:0", **options):
    server = Server(models or (echo(),), policy or Policy(), address, options)
    try:
        if server.failed is not None:
            raise server.failed
        yield server
    finally:
        server.close()


def tensor(value, datatype="FP32", name="x"):
    made = triton.InferInput(name, list(value.shape), datatype)
    made.set_data_from_numpy(value)
    return made


def ones(count=2):
    return [tensor(np.ones(count, np.float32))]


@contextmanager
def refused(code, words=""):
    """The call inside ends with this status, and says these words."""
    with pytest.raises((InferenceServerException, grpc.RpcError)) as caught:
        yield caught
    error = caught.value
    status, said = (
        (str(error.status()), error.message())
        if isinstance(error, InferenceServerException)
        else (str(error.code()), error.details())
    )
    assert status == f"StatusCode.{code}", said
    assert words in said


def raw_call(url, path, data, metadata=(), timeout=10, **options):
    with grpc.insecure_channel(url, list(options.items())) as channel:
        return channel.unary_unary(path)(data, metadata=metadata, timeout=timeout)
