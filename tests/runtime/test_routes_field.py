"""Feedback and kept samples over the real edge: labels in, samples out, and nothing else."""

import asyncio
import inspect
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.counters import Counters
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.exchange import Request
from edgekit_runtime.feedback import Feedback, quality
from edgekit_runtime.http import Desk
from edgekit_runtime.routes.field import routes
from edgekit_runtime.samples import Candidate, Samples
from edgekit_runtime.service import Service
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.live import pair

LABELS = ("cat", "dog")


def knowing(*ids: str) -> Feedback:
    """Somebody who answered cat to each of these."""
    feedback = Feedback()
    feedback.know("m", "1", LABELS)
    for id in ids:
        feedback.remember(id, "m", "1", "cat")
    return feedback


def asked(verb, path, body=b"", feedback=None, samples=None, admin=True, headers=None):
    """The edge's answer: status, body, headers."""
    path, _, query = path.partition("?")

    async def ask():
        service = Service([pair(lambda feeds: {"y": feeds["x"]})], {"alias": ("m", None)})
        desk = Desk(service, routes(feedback, samples), Counters(), None, admin)
        request = Request(verb, path, query, headers or {}, body)
        try:
            found = desk.begin(request)(request)
            response = await found if inspect.isawaitable(found) else found
        except EdgeKitError as error:
            response = desk.refuse(error)
        await service.close()
        return response.status, response.body, dict(response.headers)

    return asyncio.run(ask())


def told(feedback, value, **more):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    status, said, _ = asked("POST", "/feedback", body, feedback, **more)
    return status, json.loads(said)


@pytest.fixture
def store(tmp_path: Path) -> Samples:
    made = Samples(tmp_path / "s", 1_000_000)
    for i in range(4):
        feeds = {"x": np.array([[i, i]], np.float32)}
        made.consider(Candidate("m", "1", f"id-{i}", 1_000, feeds, None, "", {}, "cat", 0.5, None))
    return made


def test_a_label_is_judged():
    feedback = knowing("a")
    wanted = {"id": "a", "model": "m", "version": "1", "answer": "cat", "label": "dog", "right": False, "index": 1}
    assert told(feedback, {"id": "a", "label": "dog"}) == (200, wanted)
    assert told(feedback, {"id": "a", "label": 0, "model": "m"})[1]["right"] is True
    assert told(feedback, {"id": "a", "label": "cat", "model": "alias"})[0] == 200
    assert feedback.quality("m", "1") == quality(1, 1)


def test_a_request_of_several_rows_takes_a_label_for_each():
    feedback = Feedback()
    feedback.know("m", "1", LABELS)
    feedback.remember("a", "m", "1", "cat", "dog")
    about = {"id": "a", "model": "m", "version": "1", "answer": ["cat", "dog"]}
    wanted = about | {"label": ["cat", "cat"], "right": [True, False], "index": [0, 0]}
    assert told(feedback, {"id": "a", "label": ["cat", 0]}) == (200, wanted)
    assert feedback.quality("m", "1") == quality(1, 2)
    for label in (["cat"], ["cat"] * 3, "cat", []):
        status, said = told(feedback, {"id": "a", "label": label})
        assert status == 400
        assert said["error"].endswith("for a request of 2 rows")
        assert "a label for each row" in said["hint"]


def test_a_list_of_one_label_is_for_a_request_of_one_row():
    status, said = told(knowing("a"), {"id": "a", "label": ["cat"]})
    assert (status, said["answer"], said["right"]) == (200, ["cat"], [True])


def test_a_list_is_judged_one_by_one_and_one_refusal_loses_no_other():
    feedback = knowing("a", "b")
    asked_for = [{"id": "a", "label": "cat"}, {"id": "?", "label": "cat"}, {"id": "b", "label": "cow"}]
    status, said = told(feedback, asked_for)
    assert status == 200
    assert said[0]["right"] is True
    assert said[1]["error"] == "no such request, or too long ago"
    assert "say one of cat, dog" in said[2]["hint"]
    assert feedback.quality("m", "1").n == 1


def test_an_id_that_is_not_known_is_not_found():
    status, said = told(knowing("a"), {"id": "b", "label": "cat"})
    assert (status, said["error"]) == (404, "no such request, or too long ago")
    assert said["hint"]
    assert told(knowing("a"), {"id": "a", "label": "cat", "model": "other"})[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"3", b'"a"', b"[]", b"{}", b"[3]", b"[[]]", b"\xff", b"NaN",
        b'{"id":"a"}', b'{"label":"cat"}', b'{"id":1,"label":"cat"}', b'{"id":"","label":"cat"}',
        b'{"id":"a","label":NaN}', b'{"id":"a","label":Infinity}', b'{"id":"a","label":1.0}',
        b'{"id":"a","label":true}',
        b'{"id":"a","label":null}', b'{"id":"a","label":""}', b'{"id":"a","label":"cow"}', b'{"id":"a","label":-1}',
        b'{"id":"a","label":"cat","model":3}', b'{"id":"a","label":"cat","more":1}', b'{"id":"a","id":"a","label":1}',
        b'{"id":"a","label":' + b"9" * 6_000 + b"}", b'{"id":"' + b"a" * 257 + b'","label":"cat"}',
        b'{"id":"a","label":"' + b"a" * 201 + b'"}', b"[" * 100 + b"]" * 100, b'{"id":"\\ud800","label":"cat"}',
        b'{"id":"a","label":[]}', b'{"id":"a","label":[["cat"]]}', b'{"id":"a","label":[true]}',
        b'{"id":"a","label":[1.5]}', b'{"id":"a","label":[null]}', b'{"id":"a","label":[{"a":1}]}',
        b"[" + b"1," * 100 + b"1]", b'{"id":"a","label":[' + b"1," * 100 + b"1]}",
    ],
)  # fmt: skip
def test_what_is_no_feedback_is_refused(body):
    feedback = knowing("a")
    status, said = told(feedback, body)
    assert status == 400
    assert said["error"]
    assert feedback.quality("m", "1") is None


def test_one_wrong_line_of_a_list_refuses_the_list_before_any_is_judged():
    feedback = knowing("a")
    assert told(feedback, [{"id": "a", "label": "cat"}, {"id": "a"}])[0] == 400
    assert feedback.quality("m", "1") is None


def test_too_much_feedback_at_once_is_refused():
    feedback = knowing("a")
    assert told(feedback, [{"id": "a", "label": "cat"}] * 1_001)[0] == 413
    assert told(feedback, [{"id": "a", "label": ["cat"] * 501}] * 2)[0] == 413
    assert told(feedback, b" " * (2**20 + 1))[0] == 413
    assert told(feedback, [{"id": "a", "label": "cat"}] * 1_000)[0] == 200
    assert feedback.quality("m", "1").n == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "label", "model"]), inner),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_no_json_makes_the_server_fail(value):
    assert told(knowing("a"), json.dumps(value).encode())[0] in (200, 400, 404)


def test_without_feedback_or_samples_the_routes_say_how_to_switch_them_on():
    for verb, path in (("POST", "/feedback"), ("GET", "/samples"), ("GET", "/samples/index")):
        status, said, _ = asked(verb, path, b'{"id":"a","label":"cat"}')
        assert (status, bool(json.loads(said)["hint"])) == (403, True)


def test_a_label_goes_to_the_sample_that_was_kept(store):
    labels = [{"id": "id-1", "label": "dog"}, {"id": "id-9", "label": 0}]
    status, said = told(knowing("id-1", "id-9"), labels, samples=store)
    assert (status, len(said)) == (200, 2)
    assert {one["id"]: one["label"] for one in store.index()["samples"] if one["label"]} == {"id-1": "dog"}


def test_samples_come_as_a_tar(store):
    status, body, headers = asked("GET", "/samples?model=m&version=1", samples=store)
    assert (status, headers[b"content-type"]) == (200, b"application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert tar.getnames() == ["unlabelled/tensors.npz", "samples.json"]
        said = json.loads(tar.extractfile("samples.json").read())
    assert sorted(one["id"] for one in said["samples"]) == ["id-0", "id-1", "id-2", "id-3"]


def test_samples_go_on_after_a_cursor(store):
    names = [one["name"] for one in store.index()["samples"]]
    _, body, _ = asked("GET", f"/samples?after={names[1]}", samples=store)
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert len(json.loads(tar.extractfile("samples.json").read())["samples"]) == 2
    _, said, _ = asked("GET", f"/samples/index?after={names[2]}", samples=store)
    assert [one["name"] for one in json.loads(said)["samples"]] == names[3:]


@pytest.mark.parametrize(
    "query",
    [
        "model=m&model=m",
        "what=1",
        "after=" + "x" * 65,
        "model=" + "m" * 201,
        "model=%ff",
        "&".join("a=1" for _ in range(20)),
    ],
)
def test_a_query_that_says_something_else_is_refused(store, query):
    assert asked("GET", f"/samples?{query}", samples=store)[0] == 400
    assert asked("GET", f"/samples/index?{query}", samples=store)[0] == 400


@pytest.mark.parametrize("query", ["model=other", "version=9", "model="])
def test_samples_of_what_is_not_there_are_not_found(store, query):
    status, said, _ = asked("GET", f"/samples?{query}", samples=store)
    assert (status, bool(json.loads(said)["hint"])) == (404, True)


@pytest.mark.parametrize("path", ["/samples", "/samples/index"])
def test_samples_are_for_the_admin_alone_and_for_no_web_page(store, path):
    assert asked("GET", path, samples=store, admin=False)[0] == 403
    assert asked("GET", path, samples=store, headers={b"origin": b"http://x"})[0] == 403
    assert asked("GET", path, samples=store)[0] == 200
