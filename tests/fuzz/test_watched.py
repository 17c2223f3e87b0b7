"""What a server that watches itself reads: baselines, contexts of traces, feedback, and what lies in its own folder.

Refuses any other error than ours, and a server that would not go on."""

import io
import json
import random
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import traceparent
from edgekit_runtime.drift import Drift, Reading, oddness, parse_baseline, to_json
from edgekit_runtime.exchange import Request
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.feedback import FILE, Feedback, load, save
from edgekit_runtime.routes.field import read
from edgekit_runtime.samples import Candidate, Samples
from edgekit_runtime.service import Service
from edgekit_runtime.telemetry.remote_write import write_request
from edgekit_runtime.telemetry.ring import Ring
from edgekit_runtime.telemetry.store import NAME
from hypothesis import strategies as st

from tests.fuzz.making import changed, damaged, fuzz, only_ours, texts, values
from tests.runtime.test_telemetry import Clock

pytestmark = pytest.mark.slow

BASELINE: dict[str, Any] = {
    "schema": 1,
    "n": 40,
    "features": [
        {"name": "x", "edges": [0.0, 1.0, 2.5], "counts": [0, 30, 10, 0]},
        {"name": "class", "classes": [0, 1, -1], "counts": [20, 10, 9, 1], "chosen": True},
    ],
}


def test_baselines() -> None:
    words = [*BASELINE, "name", "edges", "counts", "classes", "chosen"]
    numbers = [0.0, -1e308, 1e308, float("nan"), float("inf"), 5e-324, 1.5]

    def check(raw: object) -> None:
        baseline = only_ours(lambda: parse_baseline(raw))
        if baseline is None:
            return
        assert parse_baseline(json.loads(json.dumps(to_json(baseline), allow_nan=False))) == baseline
        drift, odd = Drift(baseline), oddness(baseline)
        for at in range(60):
            reading = Reading({"x": numbers[at % 7]}, {"class": (at % 3) - 1})
            drift.add(reading, float(at))
            assert odd(reading) == odd(reading)
        told = [(one.psi, one.ks, one.limit, *one.baseline, *one.now) for one in drift.state().features]
        json.dumps(told, allow_nan=False)

    fuzz(st.one_of(changed(BASELINE, words), values(words)), check)


def test_contexts_of_traces() -> None:
    good = ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=b,c@d=e , f=g", "cc-" + "1" * 600]
    text = st.one_of(
        st.text(max_size=80), damaged([one.encode() for one in good]).map(lambda raw: raw.decode("latin-1"))
    )

    def check(given: tuple[str, str]) -> None:
        found = traceparent.parse(*given)
        if found is None:
            return
        assert traceparent.parse(traceparent.text(found)) == traceparent.Traceparent(
            found.trace_id, found.span_id, found.sampled
        )
        assert int(found.trace_id, 16)
        assert int(found.span_id, 16)
        assert len(found.state) <= traceparent.MOST_MEMBERS
        assert all(one.isprintable() and one.isascii() for pair in found.state for one in pair)

    fuzz(st.tuples(st.one_of(st.just(good[0]), text), text), check)


def test_feedback() -> None:
    service = Service([])
    feedback = Feedback()
    feedback.know("m", "1", ("cat", "dog"))
    good = [{"id": "a", "label": "cat"}, {"id": "b", "label": 1, "model": "m"}]

    def check(body: bytes) -> None:
        feedback.remember("a", "m", "1", "cat")
        feedback.remember("b", "other", "1", "7")
        asked = only_ours(lambda: read(Request("POST", "/feedback", "", {}, body), service))
        for one in [] if asked is None else asked[0]:
            judged = only_ours(lambda one=one: feedback.tell(one["id"], one["label"], one.get("model")))
            assert judged is None or judged.label.isprintable()
        known = {sample.labels for family in feedback.families() for sample in family.samples}
        assert len(known) <= 6

    fuzz(st.one_of(texts(good, ["id", "label", "model", "a", "b", "cat"]), texts(good[0], ["id", "label"])), check)


def test_the_file_of_feedback(tmp_path: Path) -> None:
    feedback = Feedback()
    for n in range(3):
        feedback.remember(f"i{n}", "m", "1", "cat")
        feedback.tell(f"i{n}", ("cat", "dog")[n % 2])
    save(tmp_path, feedback.state())
    good = json.loads((tmp_path / FILE).read_bytes())

    def check(data: bytes) -> None:
        (tmp_path / FILE).write_bytes(data)
        state = load(tmp_path)
        if state is None:
            return
        again = Feedback()
        again.restore(state)
        again.remember("new", "m", "1", "cat")
        assert again.tell("new", "cat").right
        found = again.quality("m", "1")
        assert found is not None
        assert 0 <= found.low <= found.accuracy <= found.high <= 1
        again.families()
        save(tmp_path, again.state())

    fuzz(texts(good, ["schema", "serial", "ring", "windows", "m", "cat"]), check)


def a_sample(n: int, source: bytes | None = None) -> Candidate:
    feeds = {"x": np.array([[n, n]], np.float32)}
    return Candidate("m", "1", f"i{n}", 1000, feeds, source, "text" if source else "", {}, "cat", 0.5, 1.0)


def test_the_folder_of_samples(tmp_path: Path) -> None:
    good = tmp_path / "good"
    store = Samples(good, 2**20)
    for n in range(3):
        store.consider(a_sample(n))
    store.consider(a_sample(3, b"a text"))
    store.told("m", "i1", "dog", 1)
    (good / "floors.json").write_text('{"m": {"random": [-0.9, "a"]}}')
    files = {path.relative_to(good): path.read_bytes() for path in sorted(good.rglob("*")) if path.is_file()}

    def check(given: tuple[Path, bytes]) -> None:
        at = tmp_path / "s"
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(good, at)
        (at / given[0]).write_bytes(given[1])
        opened = Samples(at, 2**20)
        json.dumps(opened.index(), allow_nan=False)
        for model in list(opened.held.kept):
            with tarfile.open(fileobj=io.BytesIO(b"".join(opened.export(model)))) as tar:
                names = tar.getnames()
            assert names[-1] == "samples.json"
            assert not any(name.startswith("/") or ".." in name for name in names)
        opened.consider(a_sample(9))
        assert opened.held.kept["m"] >= 1
        opened.families()

    def near(name: Path) -> st.SearchStrategy[tuple[Path, bytes]]:
        data = files[name]
        touched = damaged([data]) if name.suffix != ".json" else st.one_of(texts(json.loads(data), FACTS))
        return touched.map(lambda raw: (name, raw))

    fuzz(st.sampled_from(list(files)).flatmap(near), check)


FACTS = ["schema", "id", "when_ms", "model", "version", "kind", "file", "outputs", "answer", "worths", "label", "index"]


def measured(value: float) -> Sequence[Family]:
    samples = tuple(Sample(value, (("model", "m"), ("le", str(n)))) for n in range(8))
    return [Family("h", "histogram", "A number.", samples), Family("g", "gauge", "A number.", (Sample(value),))]


def test_the_file_of_telemetry(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, 2**20, boot=clock.boot)
    ring.unsent("there", 1)
    for n in range(150):
        ring.event(clock.now, "x", n=n)
        ring.put(measured(n + 0.5), clock.now)
        clock.on(10_000)
    ring.close()
    good = (tmp_path / NAME).read_bytes()
    at = tmp_path / "damaged"

    def check(given: tuple[int, int, bool]) -> None:
        drawn = random.Random(given[0])
        data = bytearray(good)
        for _ in range(given[1]):
            place, width = drawn.randrange(len(data)), drawn.choice((1, 1, 8, 200))
            data[place : place + width] = drawn.choice((bytes(width), b"\xff" * width, drawn.randbytes(width)))
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir()
        (at / NAME).write_bytes(data[: drawn.randrange(len(data))] if given[2] else data)
        later = Clock()
        later.on(10_000_000)
        found = only_ours(lambda: Ring(at, 2**20, boot=later.boot))
        if found is None:
            return
        for _ in range(8):
            found.event(later.now, "y")
            found.put(measured(1.5), later.now)
            later.on(10_000)
        write_request(found.unsent("there", 1000), {"job": "x"})
        found.events(100)
        found.trying("there", 3)
        found.families()
        found.close()
        assert sum(path.stat().st_size for path in at.iterdir()) <= 2**20 + 2**19

    fuzz(st.tuples(st.integers(0, 2**64), st.integers(0, 12), st.booleans()), check)
