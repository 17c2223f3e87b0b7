"""What /metrics tells: of models, of the server, under our names and under Triton's."""

import asyncio
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.bundle import MANIFEST, open_bundle
from edgekit_runtime.counters import Counters
from edgekit_runtime.families import CONTENT_TYPE, Family, Sample, text
from edgekit_runtime.lane import Lane
from edgekit_runtime.metrics import Selftests, families
from edgekit_runtime.served import opened
from edgekit_runtime.service import Service

from tests.runtime.bundles import make_bundle
from tests.runtime.live import live, pair, two

INFER = "/v2/models/m/infer"
WHOSE = 'model="m",version="1"'


def same(feeds):
    return {"y": feeds["x"]}


def broken(feeds):
    raise ValueError("the engine broke")


def told(service: Service, counters: Counters | None = None, **more) -> dict[str, float]:
    return series(text(families(service, counters or Counters(), 0, **more)))


def series(written: str) -> dict[str, float]:
    """The values by series."""
    found = {}
    for line in written.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name not in found, "a series is told twice"
            found[name] = float(value)
    return found


def test_requests_are_counted_by_what_became_of_them():
    with live(Service([pair(same)])) as one:
        for _ in range(3):
            one.ask(INFER, two(rows=2))
        one.ask(INFER, b"{}")
        one.ask("/v2/models/none/infer", two())
        status, body, headers = one.ask("/metrics")
    found = series(body.decode())
    assert status == 200
    assert headers["content-type"] == CONTENT_TYPE.decode()
    assert found[f"edgekit_requests_answered_total{{{WHOSE}}}"] == 3
    assert found[f"edgekit_inferences_total{{{WHOSE}}}"] == 6
    assert found[f'edgekit_batch_size_bucket{{{WHOSE},le="1"}}'] == 0
    assert found[f'edgekit_batch_size_bucket{{{WHOSE},le="2"}}'] == 3
    assert found[f"edgekit_batch_size_sum{{{WHOSE}}}"] == 6
    assert found[f'edgekit_requests_failed_total{{{WHOSE},reason="bad_request"}}'] == 1
    assert found['edgekit_refused_total{reason="not_found"}'] == 1
    assert found['edgekit_http_requests_total{code="400"}'] == 1
    assert found["edgekit_connections"] == 1


def test_a_fault_of_the_engine_is_told_apart_from_one_of_the_client():
    with live(Service([pair(broken)])) as one:
        one.ask(INFER, two())
        found = series(one.ask("/metrics")[1].decode())
    assert found[f'edgekit_requests_failed_total{{{WHOSE},reason="bug"}}'] == 1
    assert found[f'edgekit_requests_failed_total{{{WHOSE},reason="bad_request"}}'] == 0
    assert found['edgekit_refused_total{reason="bug"}'] == 1


def test_buckets_rise_to_the_count():
    service = Service([pair(same)])
    stats = service.lanes()[0].stats
    for ns in np.random.default_rng(0).integers(1_000, 20_000_000_000, 200).tolist():
        stats.answered(ns // 10, ns // 2, ns, ns // 7)
        stats.executed(ns % 90, ns)
    found = told(service)
    for name in ("request_duration_seconds", "queue_duration_seconds", "compute_duration_seconds", "batch_size"):
        buckets = [count for key, count in found.items() if key.startswith(f"edgekit_{name}_bucket")]
        assert buckets == sorted(buckets)
        assert buckets[-1] == found[f"edgekit_{name}_count{{{WHOSE}}}"] == 200
    assert found[f"edgekit_queue_duration_seconds_sum{{{WHOSE}}}"] == pytest.approx(stats.queue.ns / 1e9)


def test_every_failure_has_a_reason():
    service = Service([pair(same)])
    stats = service.lanes()[0].stats
    for reason in ("busy", "busy", "late", "something new"):
        stats.failed(1, reason)
    failed = {key: value for key, value in told(service).items() if key.startswith("edgekit_requests_failed_total")}
    assert sum(failed.values()) == stats.fail.count == 4
    assert failed[f'edgekit_requests_failed_total{{{WHOSE},reason="something new"}}'] == 1


def test_memory_of_the_process_is_told_once_and_by_the_name_that_all_exporters_give_it():
    with live(Service([pair(same)])) as one:
        found = series(one.ask("/metrics")[1].decode())
    assert [name for name in found if "resident" in name] == ["process_resident_memory_bytes"]


@pytest.mark.parametrize(
    ("built", "seconds"),
    [("2026-11-22T12:00:00Z", 1_795_348_800), ("2026-11-22T14:00:00+02:00", 1_795_348_800),
     ("2026-11-22T12:00:00", None), (None, None), ("", None), ("yesterday", None),
     (1_795_348_800, None), ({}, None), ("1" * 5_000, None)],
)  # fmt: skip
def test_a_model_says_when_it_was_built_where_its_bundle_tells(tmp_path: Path, built, seconds):
    bundle = make_bundle(tmp_path / "tiny")
    raw = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(raw | {"provenance": {} if built is None else {"built": built}}))
    found = told(Service([opened(open_bundle(bundle))]))
    assert found.get('edgekit_model_built_timestamp_seconds{model="tiny",version="1"}') == seconds


def test_a_model_says_what_it_is_and_how_good_it_was(tmp_path: Path):
    served = opened(open_bundle(make_bundle(tmp_path / "tiny")))
    found = told(Service([served]))
    about = 'model="tiny",version="1",engine="onnx",target="here",precision="float32",format="onnx"'
    assert found[f"edgekit_model_info{{{about}}}"] == 1
    assert found['edgekit_model_built_quality{model="tiny",version="1",metric="top-1"}'] == 0.91
    loaded = found['edgekit_model_loaded_timestamp_seconds{model="tiny",version="1"}']
    assert loaded == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    "quality",
    [None, [], "good", {}, {"value": None}, {"value": "0.9"}, {"value": float("nan")}, {"value": 10**400}],
)
def test_a_bundle_that_says_nonsense_of_its_quality_says_nothing(tmp_path: Path, quality):
    served = opened(open_bundle(make_bundle(tmp_path / "tiny")))
    assert served.manifest is not None
    manifest = replace(served.manifest, evidence={"quality": quality})
    found = told(Service([replace(served, manifest=manifest)]))
    assert not [key for key in found if key.startswith("edgekit_model_built_quality")]


def test_self_tests_are_told_of_models_that_are_served():
    tests: Selftests = {("m", "1"): (False, 1_700_000_000_500), ("gone", "1"): (True, 1)}
    found = told(Service([pair(same)]), selftests=tests)
    assert {key: value for key, value in found.items() if "selftest" in key} == {
        f"edgekit_selftest_passed{{{WHOSE}}}": 0,
        f"edgekit_selftest_timestamp_seconds{{{WHOSE}}}": 1_700_000_000.5,
    }


def test_what_others_measure_is_told_as_it_is():
    more = [Family("edgekit_drift_alarm", "gauge", "Words.", (Sample(1.0, (("model", "m"),)),))]
    assert told(Service([pair(same)]), more=iter(more))['edgekit_drift_alarm{model="m"}'] == 1


def test_the_process_tells_of_itself():
    found = told(Service([]))
    assert 0 < time.time() - found["process_start_time_seconds"] < 86_400
    assert found["process_cpu_seconds_total"] > 0
    assert 1e6 < found["process_resident_memory_bytes"] < 1e12
    assert found == {**told(Service([])), **{key: value for key, value in found.items() if key.startswith("process_")}}


def test_a_queue_tells_how_long_it_is_and_may_be():
    async def asked() -> dict[str, float]:
        service = Service([])
        lane = Lane(pair(same), paused=True)
        service._put(lane)
        waiting = [asyncio.ensure_future(lane.infer({"x": np.ones((1, 2), np.float32)})) for _ in range(3)]
        await asyncio.sleep(0)
        found = told(service)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await lane.close(0)
        return found

    found = asyncio.run(asked())
    assert found[f"edgekit_waiting_requests{{{WHOSE}}}"] == 3
    assert found[f"edgekit_waiting_requests_limit{{{WHOSE}}}"] == 128


def test_tritons_names_tell_the_same_numbers():
    service = Service([pair(same)])
    stats = service.lanes()[0].stats
    stats.executed(4, 3_000_000)
    stats.answered(1_000_000, 2_000_000, 3_000_000, 4_000_000)
    for reason in ("busy", "cancelled", "late", "bug", "bad_request", "not_found"):
        stats.failed(1, reason)
    found = told(service, triton=True)
    assert {key: value for key, value in found.items() if key.startswith("nv_")} == {
        f"nv_inference_request_success{{{WHOSE}}}": 1,
        f'nv_inference_request_failure{{{WHOSE},reason="REJECTED"}}': 1,
        f'nv_inference_request_failure{{{WHOSE},reason="CANCELED"}}': 2,
        f'nv_inference_request_failure{{{WHOSE},reason="BACKEND"}}': 1,
        f'nv_inference_request_failure{{{WHOSE},reason="OTHER"}}': 2,
        f"nv_inference_count{{{WHOSE}}}": 4,
        f"nv_inference_exec_count{{{WHOSE}}}": 1,
        f"nv_inference_pending_request_count{{{WHOSE}}}": 0,
        f"nv_inference_request_duration_us{{{WHOSE}}}": 10_000,
        f"nv_inference_queue_duration_us{{{WHOSE}}}": 2_000,
        f"nv_inference_compute_input_duration_us{{{WHOSE}}}": 1_000,
        f"nv_inference_compute_infer_duration_us{{{WHOSE}}}": 3_000,
        f"nv_inference_compute_output_duration_us{{{WHOSE}}}": 4_000,
    }
    assert not [key for key in told(service) if key.startswith("nv_")]


def test_names_and_units_follow_prometheus_rules():
    made = families(Service([pair(same)]), Counters(), 0)
    assert len({family.name for family in made}) == len(made)
    for family in made:
        assert re.fullmatch(r"(edgekit|process)(_[a-z0-9]+)+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert family.words.endswith("."), family.name


def test_a_counter_that_nobody_declared_is_not_told():
    counters = Counters()
    counters.add("edgekit_secret_total", "what a client said")
    assert not [key for key in told(Service([]), counters) if "secret" in key]


def test_a_scrape_of_five_models_holds_the_event_loop_for_milliseconds():
    service = Service([pair(same, name=f"model{number}") for number in range(5)])
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        text(families(service, Counters(), 0, triton=True))
        best = min(best, time.perf_counter() - start)
    assert best < 0.01  # 1.3 ms on a server's core
