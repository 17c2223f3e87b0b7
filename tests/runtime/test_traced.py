"""A server that traces: each sampled inference is one span, whichever wire it came over, and no other is."""

import time

import numpy as np
import pytest
from edgekit_runtime.service import Service

from tests.runtime.live import LOCAL, Where, live, pair, two

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra [otlp]")

from edgekit_runtime.traces import PARTS, Tracer
from edgekit_runtime.watching import Watch

from tests.runtime.test_traces import PARENT, SPAN, TRACE, attributes, collector


def slow(feeds):
    time.sleep(0.003)
    return {"y": feeds["x"]}


def test_each_sampled_inference_is_a_span_of_its_callers_trace():
    import tritonclient.grpc as triton

    sent = triton.InferInput("x", [1, 2], "FP32")
    sent.set_data_from_numpy(np.ones((1, 2), np.float32))
    service = Service([pair(slow, "slow"), pair(lambda feeds: {"y": feeds["x"]}, "quick")])
    with collector() as found:
        tracer = Tracer(f"http://127.0.0.1:{found.port}", 0.0)
        with live(service, Where(LOCAL, grpc=LOCAL), watch=Watch(tracer=tracer)) as one:
            for name, body, status in (("slow", two(), 200), ("quick", two(), 200), ("quick", b"nonsense", 400)):
                assert one.ask(f"/v2/models/{name}/infer", body, traceparent=PARENT)[0] == status
            assert one.ask("/v2/models/quick/infer", two())[0] == 200
            assert one.ask("/v2/models/quick/infer", two(), traceparent=PARENT[:-1] + "0")[0] == 200
            client = triton.InferenceServerClient(one.at["grpc"])
            client.infer("slow", [sent], headers={"traceparent": PARENT})
            client.infer("slow", [sent])
            client.get_model_metadata("slow", headers={"traceparent": PARENT})
            client.close()
        tracer.close()
    whole = {span.span_id: span for span in found.spans if span.kind == span.SPAN_KIND_SERVER}
    assert len(whole) == 4
    assert all((span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN) for span in whole.values())
    told = [attributes(span) for span in whole.values()]
    assert sorted(one.get("http.response.status_code", 0) for one in told) == [0, 200, 200, 400]
    assert sum(one.get("rpc.method") == "inference.GRPCInferenceService/ModelInfer" for one in told) == 1
    parts = [span for span in found.spans if span.kind != span.SPAN_KIND_SERVER]
    assert len(parts) == 12
    for part in parts:
        around = whole[part.parent_span_id]
        assert around.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano
        assert part.end_time_unix_nano <= around.end_time_unix_nano
        if part.name == "compute" and attributes(around)["edgekit.model.name"] == "slow":
            assert part.end_time_unix_nano - part.start_time_unix_nano >= 3_000_000


def test_each_sampled_request_of_a_stream_is_a_span_of_its_own():
    import grpc

    from tests.runtime.grpc_servers import REQUEST

    x = np.ones((1, 2), np.float32).tobytes()
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 2]}]
    sent = [REQUEST(model_name=name, inputs=inputs, raw_input_contents=[x]) for name in ("slow", "nope", "quick")]
    service = Service([pair(slow, "slow"), pair(lambda feeds: {"y": feeds["x"]}, "quick")])
    with collector() as found:
        tracer = Tracer(f"http://127.0.0.1:{found.port}", 0.0)
        with (
            live(service, Where(LOCAL, grpc=LOCAL), watch=Watch(tracer=tracer)) as one,
            grpc.insecure_channel(one.at["grpc"]) as channel,
        ):
            call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            for more in ((("traceparent", PARENT),), ()):
                assert len(list(call((one.SerializeToString() for one in sent), metadata=more, timeout=10))) == 3
        tracer.close()
    whole = [span for span in found.spans if span.kind == span.SPAN_KIND_SERVER]
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in whole} == {(TRACE, SPAN)}
    told = {attributes(span).get("edgekit.model.name"): attributes(span) for span in whole}
    assert {name: one["rpc.response.status_code"] for name, one in told.items()} == {
        "slow": "OK", None: "NOT_FOUND", "quick": "OK"
    }  # fmt: skip
    assert {one["rpc.method"] for one in told.values()} == {"inference.GRPCInferenceService/ModelStreamInfer"}
    ours = {span.span_id: attributes(span).get("edgekit.model.name") for span in whole}
    parts = [(ours[span.parent_span_id], span.name) for span in found.spans if span.kind != span.SPAN_KIND_SERVER]
    assert sorted(parts) == sorted((name, part) for name in ("slow", "quick") for part in PARTS)
