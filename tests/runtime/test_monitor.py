"""What looks at answers: it hears drift, stays within its time and its memory, and no bug of its own ends it."""

import gc
import os
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from edgekit_runtime import drift, keeper, monitor
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.families import text
from edgekit_runtime.feedback import Feedback
from edgekit_runtime.lane import Lane
from edgekit_runtime.monitor import MOST_BYTES, MOST_WAITING, ROWS, SAVED_SECONDS, SPELL_SECONDS, SPELL_SHARE, Monitor
from edgekit_runtime.protocols.asking import Asked
from edgekit_runtime.served import opened
from edgekit_runtime.watched import Wishes, best_classes

from tests.runtime.bundles import LABELS, add_baseline, add_shadow, make_bundle, some
from tests.runtime.live import pair

ALWAYS = Wishes(share=1.0)
"""As much time as it likes: for what is not about time."""


class Kept:
    """In the place of the store of samples: notes what it is offered, once `go` lets it."""

    def __init__(self, fails=False):
        self.offered, self.fails = [], fails
        self.go = threading.Event()
        self.go.set()

    def consider(self, one):
        assert self.go.wait(20)
        if self.fails:
            raise ValueError("a bug")
        self.offered.append(one)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    return open_bundle(add_shadow(add_baseline(folder)))


@pytest.fixture
def lane(bundle):
    return Lane(opened(bundle))


@contextmanager
def looking(*lanes, wishes=ALWAYS):
    """A monitor of these lanes, at work, and the alarms that it raised."""
    alarms = []
    one = Monitor(wishes, alarms.append)
    if wishes.samples is not None:  # in the monitor's own thread: who is slow there holds it up
        one._keeper = SimpleNamespace(offer=wishes.samples.consider, start=lambda: None, close=lambda: None)
    one.keep(lanes)
    one.start()
    try:
        yield one, alarms
    finally:
        one.close()
        assert not one._thread.is_alive()


def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def burning(seconds, spent=None):
    """In the place of drift's reader: works for so long, and reads nothing."""

    def read(feeds, outputs):
        begun = time.thread_time()
        while time.thread_time() - begun < seconds:
            pass
        if spent is not None:
            spent.append(time.thread_time() - begun)
        return []

    return lambda *given: read


def idle(one):
    return one._queue.empty() and all(line.put == line.taken for line in one._lines.values())


def show(one, lane, x, id=None, source=None):
    """One answered request; returns once it was looked at."""
    feeds = {"x": x}
    one.seen(lane, Asked(feeds, lambda outputs: None, id=id, source=source), feeds, lane.served.run(feeds))
    until(lambda: idle(one))


def feed(one, lane, rows, seed, scale=1.0):
    for at in range(0, rows, ROWS):
        show(one, lane, some(ROWS, seed + at) * np.float32(scale))


def told(one, name, *lanes):
    return [line for line in text(one.families(lanes)).splitlines() if line.startswith(name)]


@pytest.mark.slow
def test_a_drift_is_raised_in_words_and_is_over_when_its_model_is_gone(lane):
    with looking(lane) as (one, alarms):
        feed(one, lane, 400, 5000)
        assert alarms == []
        assert one.state(lane).n == 400
        assert told(one, "edgekit_drift_alarm{", lane) == ['edgekit_drift_alarm{model="tiny",version="1"} 0']
        feed(one, lane, 504, 9000, scale=0.3)
        assert [(alarm.model, alarm.version, alarm.raised) for alarm in alarms] == [("tiny", "1", True)]
        assert any("brightness" in words for words in alarms[0].features)
        assert abs(alarms[0].when_ms - time.time() * 1000) < 20_000
        assert told(one, "edgekit_drift_alarm{", lane) == ['edgekit_drift_alarm{model="tiny",version="1"} 1']
        one.keep([])
        until(lambda: len(alarms) == 2)
        assert (alarms[1].model, alarms[1].raised, alarms[1].features) == ("tiny", False, ())
        assert one.state(lane) is None


def test_a_lane_that_is_not_served_any_more_is_not_looked_at_and_frees_its_engine(bundle):
    lane = Lane(opened(bundle))
    engine = weakref.ref(lane.served.run)
    with looking(lane) as (one, _):
        show(one, lane, some())
        lane._run, lane.served = None, replace(lane.served, run=None)  # as `close` leaves it
        gc.collect()
        assert engine() is None  # although what was seen of it is still known
        assert one._known
        one.keep([])
        until(lambda: not one._known)
        one.seen(lane, Asked({}, print), {"x": some()}, {})
        assert (one.looked, one.skipped) == (1, 0)


def test_of_a_large_batch_a_few_rows_are_looked_at(lane, monkeypatch):
    rows, real = [], drift.reader

    def reader(*given):
        read = real(*given)
        return lambda feeds, outputs: rows.append(len(feeds["x"])) or read(feeds, outputs)

    monkeypatch.setattr(drift, "reader", reader)
    with looking(lane) as (one, _):
        for seed in range(13):
            show(one, lane, some(500, seed))
        show(one, lane, some(3))
        assert rows == [ROWS] * 13 + [3]
        assert one.state(lane).n == 100  # of 107: it is told at the end of a pane of 50


@pytest.mark.slow
def test_it_takes_its_share_of_the_time_and_counts_what_it_left_out(lane, monkeypatch):
    spent = []
    monkeypatch.setattr(drift, "reader", burning(0.02, spent))
    with looking(lane, wishes=Wishes(share=0.05)) as (one, _):
        feeds, begun, sent = {"x": some()}, time.monotonic(), 0
        answer = lane.served.run(feeds)
        while time.monotonic() - begun < 3:
            one.seen(lane, Asked(feeds, print), feeds, answer)
            sent += 1
            time.sleep(0.001)
        elapsed = time.monotonic() - begun
        clock = time.pthread_getcpuclockid(one._thread.ident)
        allowed = min(SAVED_SECONDS + 0.05 * elapsed, SPELL_SECONDS + SPELL_SHARE * elapsed)
        assert time.clock_gettime(clock) <= allowed + 0.05
        assert sum(spent) >= 0.8 * allowed - 0.05
        assert one.looked + one.skipped + MOST_WAITING >= sent
        assert one.skipped > 10 * one.looked


@pytest.mark.slow
def test_a_busy_model_leaves_another_its_turn(lane, monkeypatch):
    monkeypatch.setattr(drift, "reader", burning(0.004))
    kept, rare = Kept(), Lane(pair(lambda feeds: {"y": feeds["x"]}, "rare"))
    with looking(lane, rare, wishes=Wishes(samples=kept, share=0.1)) as (one, _):
        feeds = {"x": some()}
        answer, asked, begun, count = lane.served.run(feeds), Asked(feeds, print), time.monotonic(), 0
        while (now := time.monotonic()) - begun < 2.5:
            one.seen(lane, asked, feeds, answer)
            if now - begun > 0.5 * count:
                count += 1
                one.seen(rare, asked, {"x": np.ones((1, 2), np.float32)}, {"y": np.ones((1, 2), np.float32)})
            time.sleep(0.0005)
        until(lambda: idle(one))
        # what waited of the busy one when the time ran out comes first: by first come alone, one in hundreds were rare
        assert sum(sample.model == "rare" for sample in kept.offered) >= count // 2
        assert one.skipped > 100


def test_a_disk_that_is_slow_holds_up_neither_drift_nor_the_end(lane):
    kept = Kept()
    kept.go.clear()
    one = Monitor(Wishes(samples=kept, share=1.0), lambda alarm: None)
    one.keep([lane])
    one.start()
    try:
        for seed in range(100):
            show(one, lane, some(1, seed))
        assert one.state(lane).n == 100
        assert (one.looked, one.skipped, kept.offered) == (100, 0, [])
    finally:
        kept.go.set()
        one.close()
    assert 1 <= len(kept.offered) <= keeper.MOST_WAITING + 1  # of what waited nothing is lost


def test_what_waits_is_bounded_in_number_and_in_bytes(lane):
    kept = Kept()
    kept.go.clear()
    with looking(lane, wishes=Wishes(samples=kept, share=1.0, drift=False)) as (one, _):
        answer, alive = lane.served.run({"x": some()}), []
        for _ in range(3 * MOST_WAITING):
            small = some()
            alive.append(weakref.ref(small))
            one.seen(lane, Asked({}, print), {"x": small}, answer)
        del small
        gc.collect()
        assert sum(ref() is not None for ref in alive) == MOST_WAITING
        assert one.skipped == 2 * MOST_WAITING
        kept.go.set()
        until(lambda: idle(one))
        kept.offered.clear()
        assert not any(ref() is not None for ref in alive)
        kept.go.clear()
        before, held = one.skipped, []
        for large in ("feeds", "outputs", "source") * 3:
            value = np.zeros((1, MOST_BYTES // 2 - 4096), np.uint8)
            feeds = {"x": value} if large == "feeds" else {"x": some()}
            outputs = {"y": value} if large == "outputs" else answer
            source = value.tobytes() if large == "source" else None
            one.seen(lane, Asked({}, print, source=source), feeds, outputs)
            held.append(one._put - one._taken)
        assert max(held) <= MOST_BYTES
        assert one.skipped - before == 7
        kept.go.set()


def test_one_answer_however_large_is_looked_at_when_nothing_waits(lane):
    kept = Kept()
    with looking(lane, wishes=Wishes(samples=kept, share=1.0, drift=False)) as (one, _):
        one.seen(lane, Asked({}, print, source=bytes(3 * MOST_BYTES)), {"x": some()}, {"y": some()})
        until(lambda: idle(one))
        assert len(kept.offered[0].source) == 3 * MOST_BYTES


def test_strings_count_by_their_length(lane):
    kept = Kept()
    kept.go.clear()
    with looking(lane, wishes=Wishes(samples=kept, share=1.0)) as (one, _):
        for text_of in ("x" * 3 * 2**20, b"y" * 3 * 2**20, None):
            one.seen(lane, Asked({}, print), {"x": np.array([text_of], object)}, {})
        one.seen(lane, Asked({}, print), {"x": np.array(["z"] * 100, object)}, {})
        assert one.skipped == 2
        kept.go.set()


def test_a_photo_is_let_go_where_no_samples_are_kept(lane):
    source = bytes(bytearray(1000))
    before = sys.getrefcount(source)
    one = Monitor(ALWAYS, print)
    one.keep([lane])
    one.seen(lane, Asked(lambda: source, print, source=source), {"x": some()}, {})
    assert one._queue.qsize() == 2
    assert sys.getrefcount(source) == before


@pytest.mark.parametrize("broken", ["reader", "add", "samples", "shadow"])
def test_a_bug_in_one_look_ends_neither_the_others_nor_the_looking_and_does_not_fill_the_log(
    lane, monkeypatch, caplog, broken
):
    def fail(*given):
        raise ValueError("a bug")

    kept = Kept(fails=broken == "samples")
    if broken == "reader":
        monkeypatch.setattr(drift, "reader", lambda *given: fail)
    if broken == "add":
        monkeypatch.setattr(drift.Drift, "add", fail)
    with looking(lane, wishes=Wishes(samples=kept, shadow=1.0, share=1.0)) as (one, _):
        if broken == "shadow":
            monkeypatch.setattr("edgekit_runtime.shadow.Shadow.look", fail)
        for seed in range(100):
            show(one, lane, some(1, seed))
        assert one.failed == 100
        assert told(one, "edgekit_monitor_failed_total ") == ["edgekit_monitor_failed_total 100"]
        assert len([record for record in caplog.records if record.exc_info]) == monitor.TOLD
        assert len(kept.offered) == (0 if broken == "samples" else 100)
        assert one.state(lane).n == (0 if broken in ("reader", "add") else 100)
        assert (one.shadow(lane).state is None) == (broken == "shadow")


def test_a_baseline_that_does_not_read_is_told_once_and_the_shadow_is_asked_all_the_same(tmp_path, caplog):
    folder = add_shadow(add_baseline(make_bundle(tmp_path / "tiny"), 100))
    served = opened(open_bundle(folder))
    (folder / "baseline.json").unlink()  # the folder of an old version may be cleared away while it is served
    lane = Lane(served)
    with looking(lane, wishes=Wishes(shadow=1.0, share=1.0)) as (one, _):
        for seed in range(20):
            show(one, lane, some(1, seed))
        assert one.state(lane) is None
        assert one.shadow(lane).state.accuracy == 1.0
    assert sum("not watched" in record.getMessage() for record in caplog.records) == 1


def test_the_float_model_is_asked_about_its_share(lane):
    with looking(lane, wishes=Wishes(drift=False, shadow=1.0, share=1.0)) as (one, _):
        show(one, lane, some(3))
        assert one.shadow(lane).state.n == 3
        assert told(one, "edgekit_shadow_agreement{", lane) == ['edgekit_shadow_agreement{model="tiny",version="1"} 1']


def test_so_many_samples_a_second_are_looked_at_and_no_more(lane, monkeypatch):
    reads, real = [], drift.reader

    def reader(*given):
        read = real(*given)
        return lambda feeds, outputs: reads.append(1) or read(feeds, outputs)

    monkeypatch.setattr(drift, "reader", reader)
    with looking(lane, wishes=Wishes(per_second=10.0, share=1.0)) as (one, _):
        begun = time.monotonic()
        while time.monotonic() - begun < 0.6:
            show(one, lane, some())
        assert 3 <= len(reads) <= 8  # what is not counted is not read either


def test_a_model_of_which_there_is_nothing_to_see_costs_nothing(lane):
    plain = Lane(pair(lambda feeds: {"y": feeds["x"]}))
    with looking(plain, lane) as (one, _):
        until(one._queue.empty)
        for _ in range(100):
            one.seen(plain, Asked({}, print), {"x": some()}, {"y": some()})
        assert (one.looked, one.skipped, one._queue.qsize()) == (0, 0, 0)


def test_a_model_without_baseline_labels_and_preprocessing_is_remembered_and_kept():
    plain, kept, feedback = Lane(pair(lambda feeds: {"y": feeds["x"]})), Kept(), Feedback()
    with looking(plain, wishes=Wishes(samples=kept, feedback=feedback, shadow=1.0, share=1.0)) as (one, _):
        show(one, plain, np.array([[1, 2]], np.float32), id="a")
        show(one, plain, np.array([[1, 2], [2, 1]], np.float32), id="b")
        assert one.failed == 0
    assert [(sample.id, sample.label, sample.kind, sample.drift) for sample in kept.offered] == [("a", None, "", None)]
    assert feedback.tell("a", 1).right
    assert [row.right for row in feedback.tell_rows("b", [1, 1])] == [True, False]


def test_a_kept_sample_has_its_photo_its_answer_and_how_strange_it_is(lane):
    kept = Kept()
    with looking(lane, wishes=Wishes(samples=kept, share=1.0)) as (one, _):
        show(one, lane, some(), id="n", source=b"a photo")
        show(one, lane, some() * np.float32(9), id="s")
    plain, strange = kept.offered
    assert (plain.source, plain.kind, plain.id, plain.model) == (b"a photo", "image", "n", "tiny")
    assert plain.label in LABELS
    assert 0.25 <= plain.confidence <= 1
    assert strange.drift > plain.drift


@pytest.mark.parametrize(
    ("values", "best"),
    [([[0.1, 0.7, 0.1, 0.1]], ["dog"]), ([0.1, 0.1, 0.7, 0.1], ["bird"]), ([[1.0, 2.0]], ["1"]), ([[1.0]], []),
     ([[1.0, 2.0], [2.0, 1.0]], ["1", "0"]), ([[[0, 0, 1, 0]], [[0, 1, 0, 0]]], ["bird", "dog"]), ([[1.0], [2.0]], []),
     ([[[1, 2], [2, 1]]] * 2, []), (0.5, []), ([["a", "b"]], []), (np.empty((0, 4)), []), (np.empty((4, 0)), []),
     (np.ones((1_001, 4)), []), (np.ones((2, 2**17)), ["0", "0"]), (np.ones((2, 2**17 + 1)), [])],
)  # fmt: skip
def test_the_best_classes_are_the_words_of_the_rows(lane, values, best):
    value = np.asarray(values)
    feeds = {"x": some(max(1, len(value)) if value.ndim > 1 else 1)}
    outputs = {"y": value.astype(object) if value.dtype.kind == "U" else value}
    assert best_classes(lane.served, feeds, outputs) == tuple(best)


def test_rows_of_an_answer_that_are_no_rows_of_the_request_are_not_judged(lane):
    scores = np.ones((3, 4), np.float32)
    assert best_classes(lane.served, {"x": some(1)}, {"y": scores}) == ()
    fixed = replace(lane.served, inputs=tuple(replace(spec, shape=(3, 3, 2, 2)) for spec in lane.served.inputs))
    assert best_classes(fixed, {"x": some(3)}, {"y": scores}) == ()


def test_the_end_does_not_wait_for_what_waits(lane, monkeypatch):
    monkeypatch.setattr(drift, "reader", burning(0.2))
    kept = Kept()
    with looking(lane, wishes=Wishes(samples=kept, share=1.0)) as (one, _):
        for seed in range(MOST_WAITING):
            one.seen(lane, Asked({}, print), {"x": some(1, seed)}, {"y": some()})
        until(lambda: one.looked)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.0
    assert len(kept.offered) <= 2


def test_the_end_does_not_wait_for_its_rest(lane, monkeypatch):
    monkeypatch.setattr(drift, "reader", burning(0.4))
    with looking(lane, wishes=Wishes(share=0.001)) as (one, _):
        one.seen(lane, Asked({}, print), {"x": some()}, {"y": some()})
        until(lambda: one._resting)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.0


def test_a_look_that_hangs_does_not_hold_up_the_end(lane, monkeypatch):
    monkeypatch.setattr(monitor, "LAST_SECONDS", 0.2)
    monkeypatch.setattr(keeper, "LAST_SECONDS", 0.2)
    kept = Kept()
    kept.go.clear()
    one = Monitor(Wishes(samples=kept), print)
    one.keep([lane])
    one.start()
    one.seen(lane, Asked({}, print), {"x": some()}, {"y": some()})
    until(one._queue.empty)
    begun = time.monotonic()
    one.close()
    assert time.monotonic() - begun < 1.0
    kept.go.set()
    one._thread.join(5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_its_thread_lets_all_others_go_first(lane):
    with looking(lane) as (one, _):
        show(one, lane, some())
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, one._thread.native_id) == min(19, ours + 10)
