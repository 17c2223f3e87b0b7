"""A version in shadow, and how it is judged: what counts as the same, when it is enough, what it may take."""

from dataclasses import replace

import numpy as np
import pytest
from edgekit_runtime.beside import BESIDE_MS, FEW, MOST_FAILURES, Beside, Compared, judge_of, verdict
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import Exceeded
from edgekit_runtime.feedback import wilson
from edgekit_runtime.selftest import recordings, spans
from edgekit_runtime.served import Served, opened
from edgekit_runtime.shadow import MOST_TIME
from edgekit_runtime.shadow_install import check_memory
from edgekit_runtime.store import Terms
from edgekit_runtime.tensors import Feeds

from tests.runtime.bundles import make_bundle, some
from tests.runtime.test_shadow import Clock

ALL = Terms(1.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return opened(open_bundle(make_bundle(tmp_path_factory.mktemp("m") / "b")))


def after(agreed: int, of: int, ms: float = 1.0, live_ms: float = 1.0, failed: int = 0) -> Compared:
    return Compared(of, agreed, *wilson(agreed, of), ms, live_ms, failed, "it broke")


def asked(beside: Beside, served: Served, count: int, ns: int = 1_000_000) -> Compared:
    for number in range(count):
        feeds = {"x": some(1, number)}
        beside.look(feeds, served.run(feeds), ns)
    return beside.compared


def test_the_same_model_agrees_on_everything(served: Served) -> None:
    clock = Clock()

    def run(feeds: Feeds) -> Feeds:
        clock.now += 0.002
        return served.run(feeds)

    beside = Beside(replace(served, run=run), ALL, clock)
    for _ in range(40):
        clock.now += 10
        found = asked(beside, served, 1)
    assert (found.requests, found.agreed, found.high) == (40, 40, 1.0)
    assert (round(found.ms, 6), found.live_ms) == (2.0, 1.0)


def test_it_takes_its_share_of_the_time_and_of_the_requests(served: Served) -> None:
    clock = Clock()
    spent = 0.0

    def run(feeds: Feeds) -> Feeds:
        nonlocal spent
        clock.now += 0.5
        spent += 0.5
        return served.run(feeds)

    beside = Beside(replace(served, run=run), ALL, clock)
    feeds = {"x": some()}
    answer = served.run(feeds)
    for _ in range(20_000):
        clock.now += 0.05
        beside.look(feeds, answer, 1)
    assert 0.9 * MOST_TIME < spent / clock.now <= 1.1 * MOST_TIME
    rare = Beside(replace(served, run=lambda feeds: served.run(feeds)), replace(ALL, share=0.1), Clock())
    assert asked(rare, served, 100).requests == 10


def test_a_run_that_fails_is_its_own_failure_and_it_is_asked_no_more(served: Served) -> None:
    runs: list[int] = []

    def run(feeds: Feeds) -> Feeds:
        runs.append(1)
        raise RuntimeError("no such operator")

    found = asked(Beside(replace(served, run=run), ALL, Clock()), served, 20)
    assert (len(runs), found.failed, found.failure, found.requests) == (MOST_FAILURES, MOST_FAILURES, "RuntimeError", 0)
    told = verdict(found, ALL, 100)
    assert told is not None
    assert (told.promoted, told.bad) == (False, True)


@pytest.mark.parametrize("answer", [{}, {"y": np.zeros((1, 3), np.float32)}, {"y": np.full((1, 4), np.nan)}])
def test_another_answer_is_no_agreement(served: Served, answer: Feeds) -> None:
    found = asked(Beside(replace(served, run=lambda feeds: answer), ALL, Clock()), served, 3)
    assert (found.requests, found.agreed) == (3, 0)


def test_of_a_batch_one_sample_counts(served: Served) -> None:
    """Half of each batch is answered otherwise: so it is with about half of the requests."""

    def run(feeds: Feeds) -> Feeds:
        answer = np.array(served.run(feeds)["y"])
        answer[::2] = -answer[::2]
        return {"y": answer}

    beside = Beside(replace(served, run=run), ALL, Clock())
    feeds = {"x": some(8)}
    for _ in range(300):
        beside.look(feeds, served.run(feeds), 1)
    assert beside.compared.requests == 300
    assert 90 < beside.compared.agreed < 210


def test_what_is_no_classifier_agrees_within_the_tolerance_of_its_recordings(served: Served) -> None:
    assert served.bundle is not None
    golden, pairs = recordings(served.bundle)
    same = judge_of(replace(served, labels=()))
    answer = served.run({"x": some()})
    room = golden.tolerance * spans(pairs)["y"]
    assert same(answer, {"y": answer["y"] + np.float32(0.9 * room)}) == [True]
    assert same(answer, {"y": answer["y"] + np.float32(1.2 * room)}) == [False]
    assert same(answer, {"z": answer["y"]}) == [False]
    assert same({}, {}) == [False]


def test_it_is_promoted_once_enough_is_certain() -> None:
    assert verdict(after(499, 499), ALL, 100) is None
    told = verdict(after(500, 500), ALL, 100)
    assert told is not None
    assert told.promoted
    assert "500 of 500 agreed (99.2 to 100.0 %), 1 ms to 1 ms" in told.why


def test_it_is_asked_on_where_that_does_not_tell_and_dropped_when_the_time_is_over() -> None:
    unclear = after(494, 500)
    assert unclear.low < ALL.agreement < unclear.high
    assert verdict(unclear, ALL, 1) is None
    for found, words in ((unclear, "does not tell"), (after(10, 10), "of 500 requests"), (Compared(), "no request")):
        told = verdict(found, ALL, 0)
        assert told is not None
        assert words in told.why
        assert (told.promoted, told.bad) == (False, False)


def test_it_is_dropped_as_soon_as_it_cannot_agree_any_more_but_not_for_a_few() -> None:
    assert verdict(after(0, FEW - 1), ALL, 100) is None
    told = verdict(after(FEW - 10, FEW), ALL, 100)
    assert told is not None
    assert (told.promoted, told.bad) == (False, True)
    assert told.why.startswith("it disagrees: 40 of 50 agreed")
    assert verdict(after(0, 5), replace(ALL, requests=5), 100) is not None


def test_it_is_dropped_where_it_is_slower_than_allowed() -> None:
    assert verdict(after(499, 499, 100), ALL, 100) is None
    told = verdict(after(500, 500, 12.0 + BESIDE_MS + 0.1, 10.0), ALL, 100)
    assert told is not None
    assert told.why.startswith("it is slower: ")
    told = verdict(after(500, 500, 12.0, 10.0), ALL, 100)
    assert told is not None
    assert told.promoted


def test_what_does_not_fit_beside_what_is_served_is_refused_with_numbers() -> None:
    check_memory(80, 100)
    with pytest.raises(Exceeded, match="it takes 95 MB beside what is served, and 90 MB can be had"):
        check_memory(95, 100)
