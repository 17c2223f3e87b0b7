"""What the clients of a soak do, one coroutine each: ask rightly, wrongly, slowly, hugely, by halves, or go away.

Refuses nothing: what is not as it should be goes into the ledger."""

import asyncio
import io
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tests.clients.serving import Running
from tests.runtime.bundles import LABELS, some, truth
from tests.soak_ledger import Ledger

MODELS = ("tiny-onnx", "tiny-tflite", "tiny-openvino")
TIMEOUT = 30.0
IDLE = 20.0
MAX_BODY = 8
"""MiB, the limit that the server of a soak is given."""
CASES = [(rows, seed) for rows in (1, 2, 3, 7) for seed in range(4)]
XS = {case: some(*case) for case in CASES}
YS = {case: truth(XS[case]) for case in CASES}
TEXTS = {case: json.dumps(x.ravel().tolist()) for case, x in XS.items()}

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Clients:
    """What the acts share: the server, the books, idle connections, a gRPC stub, the dice."""

    running: Running
    ledger: Ledger
    stub: Any
    dice: random.Random = field(default_factory=lambda: random.Random(4))
    idle: list[tuple[float, Stream]] = field(default_factory=list)

    async def opened(self) -> Stream:
        host, port = self.running.address.rsplit(":", 1)
        return await asyncio.open_connection(host, int(port))

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """An answer over a connection that is kept."""
        now = time.monotonic()
        while self.idle and now - self.idle[-1][0] > IDLE:
            self.idle.pop()[1][1].close()
        stream = self.idle.pop()[1] if self.idle else await self.opened()
        stream[1].write(request)
        found = await self.read(stream)
        if found[1].get("connection") == "close":
            stream[1].close()
        else:
            self.idle.append((time.monotonic(), stream))
        return found

    async def read(self, stream: Stream) -> tuple[int, dict[str, str], bytes]:
        """The next answer of a connection, into the books."""
        async with asyncio.timeout(TIMEOUT):
            head = (await stream[0].readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await stream[0].readexactly(int(headers["content-length"]))
        status = int(head[0].split()[1])
        self.ledger.answers[status] += 1
        return status, headers, body

    def right(self, what: str, status: int, came: Any, case: tuple[int, int], model: str) -> None:
        """Whether an answer holds the right numbers."""
        if status != 200:
            self.ledger.fault(f"{what}: {status} {str(came)[:200]}")
            return
        if model in MODELS:  # the others' counters go with their versions
            self.ledger.rows[model] += case[0]
        if not np.allclose(np.reshape(came, YS[case].shape), YS[case], atol=1e-4):
            self.ledger.fault(f"{what}: wrong numbers")

    def pick(self) -> tuple[str, tuple[int, int]]:
        return self.dice.choice(MODELS), self.dice.choice(CASES)


def post(path: str, body: bytes | str, *headers: str) -> bytes:
    """A request as bytes."""
    data = body.encode() if isinstance(body, str) else body
    return (
        "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}", *headers, "", ""]).encode()
        + data
    )


def v2(case: tuple[int, int]) -> str:
    """A JSON body of the Open Inference Protocol."""
    return f'{{"inputs":[{{"name":"x","shape":[{case[0]},3,2,2],"datatype":"FP32","data":{TEXTS[case]}}}]}}'


async def as_json(to: Clients) -> None:
    model, case = to.pick()
    status, _, body = await to.ask(post(f"/v2/models/{model}/infer", v2(case)))
    to.right("json", status, json.loads(body)["outputs"][0]["data"] if status == 200 else body, case, model)


async def as_binary(to: Clients) -> None:
    model, case = to.pick()
    tensor = {"name": "x", "shape": [case[0], 3, 2, 2], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": XS[case].nbytes}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = f"Inference-Header-Content-Length: {len(text)}"
    status, headers, body = await to.ask(post(f"/v2/models/{model}/infer", text + XS[case].tobytes(), length))
    at = int(headers.get("inference-header-content-length", 0))
    to.right("binary", status, np.frombuffer(body[at:], np.float32) if status == 200 else body, case, model)


async def as_raw(to: Clients) -> None:
    model, case = to.pick()
    request = post(f"/v2/models/{model}/infer", XS[case].tobytes(), "Inference-Header-Content-Length: 0")
    status, headers, body = await to.ask(request)
    at = int(headers.get("inference-header-content-length", 0))
    to.right("raw", status, np.frombuffer(body[at:], np.float32) if status == 200 else body, case, model)


async def as_rows(to: Clients) -> None:
    model, case = to.pick()
    body = json.dumps({"instances": XS[case].tolist()})
    status, _, told = await to.ask(post(f"/v1/models/{model}:predict", body))
    to.right("rows", status, json.loads(told)["predictions"] if status == 200 else told, case, model)


async def as_photo(to: Clients) -> None:
    status, _, body = await to.ask(post("/predictions/tiny-onnx", PHOTO, "Content-Type: image/png"))
    if status != 200 or max(scores := json.loads(body), key=scores.get) != BEST:
        to.ledger.fault(f"photo: {status} {body[:200]!r}")
    to.ledger.rows["tiny-onnx"] += status == 200


async def as_grpc(to: Clients) -> None:
    from tritonclient.grpc import service_pb2

    model, case = to.pick()
    asked = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[XS[case].tobytes()])
    asked.inputs.add(name="x", datatype="FP32", shape=[case[0], 3, 2, 2])
    answer = await to.stub.ModelInfer(asked, timeout=TIMEOUT)
    to.ledger.rpc["OK"] += 1
    to.right("grpc", 200, np.frombuffer(answer.raw_output_contents[0], np.float32), case, model)


async def as_health(to: Clients) -> None:
    began = time.perf_counter()
    status, _, _ = await to.ask(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
    to.ledger.health.append(time.perf_counter() - began)
    if status != 200:
        to.ledger.fault(f"health: {status}")


async def as_invalid(to: Clients) -> None:
    request, wanted = to.dice.choice(INVALID)
    status, _, body = await to.ask(request)
    if status != wanted or not json.loads(body)["error"]:
        to.ledger.fault(f"invalid: wanted {wanted}, got {status} {body[:100]!r}")


async def as_swapped(to: Clients) -> None:
    """A model that is being replaced all the time answers all the time."""
    case = to.dice.choice(CASES)
    status, _, body = await to.ask(post("/v2/models/swapped/infer", v2(case)))
    to.right("swapped", status, json.loads(body)["outputs"][0]["data"] if status == 200 else body, case, "swapped")


async def as_coming_and_going(to: Clients) -> None:
    """A model that is loaded and unloaded is there, or is not: never half."""
    case = to.dice.choice(CASES)
    status, _, body = await to.ask(post("/v2/models/spare/infer", v2(case)))
    if status == 200:
        to.right("spare", status, json.loads(body)["outputs"][0]["data"], case, "spare")
    elif status not in (404, 503):
        to.ledger.fault(f"spare: {status} {body[:200]!r}")


async def as_slow(to: Clients) -> None:
    """A sender on a bad line gets its answer."""
    model, case = to.pick()
    stream = await to.opened()
    request = post(f"/v2/models/{model}/infer", v2(case))
    for at in range(0, len(request), len(request) // 8 + 1):
        stream[1].write(request[at : at + len(request) // 8 + 1])
        await asyncio.sleep(0.2)
    status, _, body = await to.read(stream)
    stream[1].close()
    to.right("slow", status, json.loads(body)["outputs"][0]["data"] if status == 200 else body, case, model)


async def as_stalled(to: Clients) -> None:
    """A sender that stops within its head is told so, in time."""
    stream = await to.opened()
    stream[1].write(b"POST /v2/models/tiny-onnx/infer HTTP/1.1\r\nHost: x\r\nX-")
    status, _, _ = await to.read(stream)
    stream[1].close()
    if status != 408:
        to.ledger.fault(f"stalled: {status}")


async def as_huge(to: Clients) -> None:
    """A body beyond the limit is refused, announced or not."""
    stream = await to.opened()
    if to.dice.random() < 0.5:
        stream[1].write(b"POST /v2/models/tiny-onnx/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
    else:
        stream[1].write(b"POST /v2/models/tiny-onnx/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(MAX_BODY * 4 + 1):
            stream[1].write(b"40000\r\n" + b" " * 2**18 + b"\r\n")
            await stream[1].drain()
    status, _, _ = await to.read(stream)
    stream[1].close()
    if status != 413:
        to.ledger.fault(f"huge: {status}")


async def as_large(to: Clients) -> None:
    """A large body within the limit is answered."""
    x = some(4000, 1)
    stream = await to.opened()
    stream[1].write(post("/v2/models/tiny-onnx/infer", x.tobytes(), "Inference-Header-Content-Length: 0"))
    status, headers, body = await to.read(stream)
    stream[1].close()
    at = int(headers.get("inference-header-content-length", 0))
    came = np.frombuffer(body[at:], np.float32) if status == 200 else np.zeros(0)
    if came.size != 16000 or not np.allclose(came.reshape(4000, 4), truth(x), atol=1e-4):
        to.ledger.fault(f"large: {status} {body[:100]!r}")
    to.ledger.rows["tiny-onnx"] += 4000 * (status == 200)


async def as_half_closed(to: Clients) -> None:
    """A client that has said all and closed its side still gets its answer."""
    model, case = to.pick()
    stream = await to.opened()
    stream[1].write(post(f"/v2/models/{model}/infer", v2(case)))
    stream[1].write_eof()
    status, _, body = await to.read(stream)
    stream[1].close()
    to.right("half-closed", status, json.loads(body)["outputs"][0]["data"] if status == 200 else body, case, model)


async def as_gone(to: Clients) -> None:
    """A client that leaves within its head, within its body, or before its answer."""
    model, case = to.pick()
    stream = await to.opened()
    request = post(f"/v2/models/{model}/infer", v2(case))
    cut = to.dice.choice([10, len(request) - 20, len(request)])
    stream[1].write(request[:cut])
    await stream[1].drain()
    to.ledger.gone += 1
    to.ledger.maybe[model] += case[0] * (cut == len(request))
    await asyncio.sleep(to.dice.choice([0, 0, 0.002, 0.05]))
    stream[1].close()


def _photo() -> tuple[bytes, str]:
    """A photo, and the label that the model has for it, by numpy."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.save(buffer, "PNG")
    small = np.asarray(image.resize((2, 2), Image.Resampling.BILINEAR), np.float32) / 255
    return buffer.getvalue(), LABELS[int(truth(small.transpose(2, 0, 1)[None]).argmax())]


PHOTO, BEST = _photo()
BAD_LENGTH = post("/v2/models/tiny-onnx/infer", v2((1, 0)), "Inference-Header-Content-Length: 99999")
INVALID = [
    (post("/v2/models/nobody/infer", v2((1, 0))), 404),
    (post("/v2/models/tiny-onnx/versions/77/infer", v2((1, 0))), 404),
    (post("/v2/models/tiny-onnx/infer", "{"), 400),
    (post("/v2/models/tiny-onnx/infer", v2((1, 0)).replace("[1,3", "[2,3")), 400),
    (post("/v2/models/tiny-onnx/infer", v2((1, 0)).replace("FP32", "INT8")), 400),
    (post("/v2/models/tiny-onnx/infer", v2((1, 0)).replace('"x"', '"z"')), 400),
    (post("/v2/models/tiny-onnx/infer", "[" * 100_000), 400),
    (BAD_LENGTH, 400),
    (post("/v2/models/tiny-onnx/infer", "not gzip", "Content-Encoding: gzip"), 400),
    (post("/v1/models/tiny-onnx:predict", '{"instances": [1], "inputs": [1]}'), 400),
    (post("/predictions/tiny-onnx", b"no photo", "Content-Type: image/png"), 400),
    (b"DELETE /v2 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
]
Act = Callable[[Clients], Awaitable[None]]
ACTS: dict[Act, int] = {
    as_json: 250,
    as_binary: 250,
    as_raw: 50,
    as_rows: 60,
    as_photo: 20,
    as_grpc: 120,
    as_health: 60,
    as_invalid: 60,
    as_swapped: 60,
    as_coming_and_going: 20,
    as_slow: 5,
    as_stalled: 1,
    as_huge: 2,
    as_large: 2,
    as_half_closed: 15,
    as_gone: 25,
}
"""How often each is done, in parts of their sum."""
