"""The last troubles: in the log's own words, without folders, few, and never in the way of who logs."""

import logging
import threading

import pytest
from edgekit_runtime.recent import MOST, MOST_CHARACTERS, Recent, placeless


@pytest.fixture
def kept():
    """A logger whose troubles are kept, and what was told of them."""
    told = []
    log, recent = logging.Logger("test"), Recent(told.append)
    log.addHandler(recent)
    return log, recent, told


def test_warnings_and_errors_are_kept_in_their_order_and_told_once_each(kept):
    log, recent, told = kept
    log.info("fine")
    log.warning("a %s", "b")
    log.error("c")
    assert [one.what for one in recent.all()] == ["a b", "c"] == [one.what for one in told]
    assert recent.all()[0].when_ms <= recent.all()[1].when_ms


def test_a_flood_of_a_line_is_one_trouble_with_its_count_and_its_last_time(kept):
    log, recent, told = kept
    for _ in range(1000):
        log.warning("again")
    (one,) = recent.all()
    assert (one.what, one.times, len(told)) == ("again", 1000, 1)
    assert one.when_ms >= told[0].when_ms


def test_the_last_ones_stay_and_none_is_long(kept):
    log, recent, _ = kept
    for number in range(3 * MOST):
        log.warning("%d %s", number, "x" * 10_000)
    assert [int(one.what.split()[0]) for one in recent.all()] == list(range(2 * MOST, 3 * MOST))
    assert max(len(one.what) for one in recent.all()) == MOST_CHARACTERS


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/var/lib/edge/tiny: model.onnx is missing", "tiny: model.onnx is missing"),
        ("[Errno 28] No space left on device: '/srv/a b/x.jpg'", "[Errno 28] No space left on device: 'a b/x.jpg'"),
        ("http://host:80/v1/metrics does not take telemetry", "http://host:80/v1/metrics does not take telemetry"),
        ("3/4 of /tmp", "3/4 of /tmp"),
        ("read/write failed, and/or not", "read/write failed, and/or not"),
    ],
)
def test_a_path_is_told_by_its_last_name(kept, line, said):
    log, recent, _ = kept
    log.warning("%s", line)
    assert recent.all()[0].what == said == placeless(line)


def test_a_line_that_does_not_read_does_not_hurt_who_logs_it(kept, capsys):
    log, recent, _ = kept
    log.warning("%d", "no number")
    log.warning("fine")
    assert [one.what for one in recent.all()] == ["fine"]


def test_who_is_told_may_fail(capsys):
    def told(trouble):
        raise RuntimeError("full")

    log, recent = logging.Logger("test"), Recent(told)
    log.addHandler(recent)
    log.warning("a")
    assert [one.what for one in recent.all()] == ["a"]


def test_threads_may_log_while_others_read(kept):
    log, recent, _ = kept
    done = threading.Event()

    def flood(name):
        for number in range(2000):
            log.warning("%s %d", name, number)
        done.set()

    threads = [threading.Thread(target=flood, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    while not done.is_set():
        assert len(recent.all()) <= MOST
    for thread in threads:
        thread.join()
    assert len(recent.all()) == MOST
