"""The one JSON object that the page and `top` show: its shape, its numbers, and JSON whatever a bundle says."""

import asyncio
import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from edgekit_runtime import status
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.drift import Drift, Reading, Recorder
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.feedback import Feedback, Quality
from edgekit_runtime.lane import Lane
from edgekit_runtime.served import opened
from edgekit_runtime.service import open_service
from edgekit_runtime.watched import Wishes
from edgekit_runtime.watching import Watch

from tests.runtime.bundles import LABELS, add_baseline, add_shadow, make_bundle, some
from tests.runtime.live import live, pair
from tests.runtime.test_watching import INFER, looked, request, until

NAMES = {
    "": "name version host started_ms now_ms models machine errors history counters monitor",
    "model": "name version engine target precision format paused loaded_ms takes inputs outputs labels evidence"
    " requests samples executions seconds batch drift unwatched quality shadow selftest exam",
    "requests": "answered failed rejected late cancelled waiting",
    "evidence": "metric value reference drop low high n",
    "drift": "alarm since_ms n features",
    "feature": "name words psi ks limit alarm edges labels baseline now n",
    "quality": "n accuracy low high built",
    "shadow": "n agreement low high",
    "error": "when_ms what times",
    "counters": "requests refused connections",
    "monitor": "looked skipped",
}


def named(what):
    return set(NAMES[what].split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return add_shadow(add_baseline(make_bundle(tmp_path_factory.mktemp("b") / "tiny")))


@pytest.fixture(scope="module")
def served(folder):
    return opened(open_bundle(folder))


def test_a_server_with_everything_on_tells_all_of_it(folder):
    feedback = Feedback()
    wishes = Wishes(shadow=1.0, share=1.0, feedback=feedback)
    with live(open_service([folder]), watch=Watch(wishes=wishes)) as one:
        for seed in range(8):
            one.ask(INFER, request(some(8, seed)))
            looked(one, seed + 1)
        one.ask(INFER, request(some(), id="a"))
        one.ask(INFER, b"nonsense")
        one.ask("/feedback", b'{"id": "a", "label": 0}')
        found = until(lambda: (told := json.loads(one.ask("/status")[1]))["machine"] and told)
    assert found.keys() == named("")
    (model,) = found["models"]
    assert model.keys() == named("model")
    assert {key: model[key] for key in ("name", "version", "engine", "target", "precision", "format", "takes")} == {
        "name": "tiny", "version": "1", "engine": "onnx", "target": "here", "precision": "float32", "format": "onnx",
        "takes": "image",
    }  # fmt: skip
    assert model["inputs"] == [{"name": "x", "datatype": "float32", "shape": [None, 3, 2, 2]}]
    assert (model["labels"], model["paused"]) == (4, False)
    assert model["requests"] == dict.fromkeys(named("requests"), 0) | {"answered": 9, "failed": 1}
    assert (model["samples"], model["executions"]) == (65, 9)
    for name in ("request", "queue", "compute"):
        one_of = model["seconds"][name]
        assert len(one_of["counts"]) == len(one_of["bounds"]) + 1
        assert sum(one_of["counts"]) == 9
        assert one_of["sum"] >= 0
    assert sum(model["batch"]["counts"]) == 9
    assert model["evidence"].keys() == named("evidence")
    assert (model["evidence"]["value"], model["evidence"]["drop"]) == (0.91, None)
    assert model["drift"].keys() == named("drift")
    assert {frozenset(feature) for feature in model["drift"]["features"]} == {frozenset(named("feature"))}
    (classes,) = (feature for feature in model["drift"]["features"] if feature["labels"])
    assert classes["labels"] == [*LABELS, "others"]
    assert len(classes["now"]) == len(classes["baseline"]) == 5
    assert model["quality"].keys() == named("quality")
    assert model["shadow"].keys() == named("shadow")
    assert model["shadow"]["agreement"] == 1.0
    assert {frozenset(error) for error in found["errors"]} <= {frozenset(named("error"))}
    assert found["counters"].keys() == named("counters")
    assert found["counters"]["refused"] == {"bad_request": 1}
    assert found["counters"]["requests"] >= 18
    assert found["monitor"].keys() == named("monitor")
    assert found["started_ms"] <= found["now_ms"]


def test_a_model_that_says_nothing_of_itself_is_told_with_what_is_known():
    told = status.model(Lane(pair(lambda feeds: {"y": feeds["x"]})))
    assert told.keys() == named("model")
    assert (told["takes"], told["labels"], told["target"], told["evidence"]) == ("tensors", 0, "", None)
    assert (told["drift"], told["quality"], told["shadow"], told["selftest"]) == (None, None, None, None)


@pytest.mark.parametrize(
    ("baseline", "wished", "why"),
    [(True, True, None), (False, True, "no baseline"), (True, False, "switched off"), (False, False, "no baseline")],
)
def test_where_nobody_watches_drift_it_is_told_why(folder, tmp_path, baseline, wished, why):
    bundle = folder if baseline else make_bundle(tmp_path / "bare")
    with live(open_service([bundle]), watch=Watch(wishes=Wishes(drift=wished))) as one:
        (model,) = json.loads(one.ask("/status")[1])["models"]
    assert model["unwatched"] == why
    assert status.unwatched(None, True) == "no baseline"


def test_what_a_lane_did_is_counted(served):
    async def story():
        lane = Lane(served)
        lane.stats.failed(5, "bug")
        lane.stats.rejected = 3
        with pytest.raises(BadRequest):
            await lane.infer({"x": np.zeros((1, 2), np.float32)})
        await lane.infer({"x": some(2)})
        await lane.close(2)
        return status.model(lane)

    told = asyncio.run(story())
    assert (told["requests"]["failed"], told["requests"]["rejected"], told["samples"]) == (1, 3, 2)


@pytest.mark.parametrize("path", ["/status", "/status?recent", "/metrics"])
def test_what_is_watched_is_packed_for_who_asks(folder, path):
    with live(open_service([folder])) as one:
        plain = one.ask(path)
        code, body, headers = one.ask(path, Accept_Encoding="gzip")
        assert (code, headers["Content-Encoding"], headers["Vary"]) == (200, "gzip", "accept-encoding")
        assert headers["Content-Type"] == plain[2]["Content-Type"]
        assert headers["Cache-Control"] == plain[2]["Cache-Control"]
        assert plain[2]["Content-Encoding"] is None
        assert gzip.decompress(body)[:40] == plain[1][:40]
        assert len(body) < 0.5 * len(plain[1])
        assert one.ask("/v2/models/tiny", Accept_Encoding="gzip")[2]["Content-Encoding"] is None


@pytest.mark.parametrize("evidence", [{}, {"quality": None}, {"quality": "good"}, {"quality": [1]}, {"quality": 7}])
def test_evidence_that_is_none_is_left_out(served, evidence):
    assert status.evidence(replace(served.manifest, evidence=evidence)) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "good", {"a": [1]}, None])
def test_whatever_a_bundle_says_of_its_quality_the_answer_is_json(folder, value):
    service = open_service([folder])
    lane = service.lanes()[0]
    manifest = replace(lane.served.manifest, evidence={"quality": {"metric": "top1", "value": value, "n": value}})
    lane.served = replace(lane.served, manifest=manifest)
    with live(service) as one:
        code, body, _ = one.ask("/status")

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    assert code == 200
    told = json.loads(body, parse_constant=refuse)
    assert told["models"][0]["evidence"] == {**dict.fromkeys(named("evidence")), "metric": "top1"}


def test_the_builds_accuracy_stands_beside_that_of_the_field_where_both_are_one_thing():
    found = Quality(10, 0.8, 0.5, 0.9)
    built = {"metric": "top1", "value": 0.9, "n": 100, "low": 0.1}
    assert status.quality(found, built) == {
        "n": 10, "accuracy": 0.8, "low": 0.5, "high": 0.9, "built": {"value": 0.9, "n": 100},
    }  # fmt: skip
    assert status.quality(found, {**built, "metric": "mae"})["built"] is None
    assert status.quality(found, None)["built"] is None


@pytest.mark.parametrize("words", [(), LABELS, LABELS[:2]])
def test_classes_are_told_by_the_models_own_words_where_it_has_them(words):
    recorder = Recorder()
    for number in range(400):
        recorder.add(Reading({"level": float(number)}, {"class": number % 4}))
    told = status.drift(Drift(recorder.baseline()).state(), None, words)
    (classes,) = (one for one in told["features"] if one["labels"])
    assert classes["labels"] == [*words, *map(str, range(len(words), 4)), "others"]


def test_counters_are_short():
    counts = {("edgekit_http_requests_total", "200"): 3, ("edgekit_http_requests_total", "404"): 1,
              ("edgekit_refused_total", "not_found"): 1, ("edgekit_connections_total", ""): 9}  # fmt: skip
    assert status.counted(counts, 2) == {"requests": 4, "refused": {"not_found": 1}, "connections": 2}
