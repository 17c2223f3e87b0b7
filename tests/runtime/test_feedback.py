"""True labels that come later: judged once each, within bounds, with an interval that covers."""

import json
import time

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, NotFound
from edgekit_runtime.families import text
from edgekit_runtime.feedback import FILE, TAIL, WINDOW, Feedback, load, quality, save, wilson
from hypothesis import given
from hypothesis import strategies as st

LABELS = ("cat", "dog", "7", "bird")


def made(capacity: int = 20_000) -> Feedback:
    found = Feedback(capacity)
    found.know("m", "1", LABELS)
    return found


def test_an_answer_is_judged_by_its_label():
    feedback = made()
    feedback.remember("a", "m", "1", "cat")
    feedback.remember("b", "m", "1", "dog")
    right, wrong = feedback.tell("a", "cat"), feedback.tell("b", "cat")
    assert (right.right, right.answer, right.label, right.index) == (True, "cat", "cat", 0)
    assert (wrong.right, wrong.answer, wrong.label, wrong.model, wrong.version) == (False, "dog", "cat", "m", "1")
    assert feedback.quality("m", "1") == quality(1, 2)


@pytest.mark.parametrize(
    ("told", "word", "index"), [(1, "dog", 1), ("1", "dog", 1), ("7", "7", 2), (2, "7", 2), (3, "bird", 3)]
)
def test_a_label_is_a_word_or_a_number_and_a_word_first(told, word, index):
    feedback = made()
    feedback.remember("a", "m", "1", "dog")
    judged = feedback.tell("a", told)
    assert (judged.label, judged.index, judged.right) == (word, index, word == "dog")


@pytest.mark.parametrize("label", ["cow", "", 4, -1, "4", "-1", "CAT", "٣", 10**30, "9" * 200])
def test_a_label_that_the_model_does_not_have_is_refused_and_the_known_are_named(label):
    feedback = made()
    feedback.remember("a", "m", "1", "cat")
    with pytest.raises(BadRequest, match="no such label") as refused:
        feedback.tell("a", label)
    assert "cat, dog, 7, bird" in refused.value.hint
    assert feedback.quality("m", "1") is None


def test_of_many_labels_a_refusal_names_a_few():
    feedback = Feedback()
    feedback.know("m", "1", [f"class {i} {'x' * 1_000}" for i in range(1_000)])
    feedback.remember("a", "m", "1", "class 0")
    with pytest.raises(BadRequest) as refused:
        feedback.tell("a", "cow")
    assert "and 980 more" in refused.value.hint
    assert len(refused.value.hint) < 1_100


@pytest.mark.parametrize("label", ["two\nlines", "", "x" * 201, -1, 10**12])
def test_where_no_labels_are_known_a_label_is_still_a_line(label):
    feedback = Feedback()
    feedback.remember("a", "m", "1", "cat")
    with pytest.raises(BadRequest):
        feedback.tell("a", label)


def test_where_no_labels_are_known_classes_go_by_their_numbers():
    feedback = Feedback()
    feedback.remember("a", "m", "1", "3")
    assert feedback.tell("a", "3").index == feedback.tell("a", 3).index == 3
    assert feedback.tell("a", 3).right


def test_an_id_that_is_not_known_is_not_found():
    feedback = made()
    feedback.remember("a", "m", "1", "cat")
    for id, model in (("b", None), ("a", "other"), ("", None)):
        with pytest.raises(NotFound, match="no such request, or too long ago"):
            feedback.tell(id, "cat", model)
    assert feedback.tell("a", "cat", "m").right


def test_the_oldest_is_forgotten_first_and_the_newest_of_one_id_counts():
    feedback = made(3)
    for id, answer in (("a", "cat"), ("b", "cat"), ("c", "cat"), ("a", "dog"), ("d", "cat")):
        feedback.remember(id, "m", "1", answer)
    with pytest.raises(NotFound):
        feedback.tell("b", "cat")
    assert feedback.tell("a", "dog").right
    assert feedback.tell("c", "cat").right


def test_each_row_of_a_request_is_judged_by_its_own_label_and_counted():
    feedback = made()
    feedback.remember("a", "m", "1", "cat", "dog", "cat")
    judged = feedback.tell_rows("a", ["cat", 1, "bird"])
    assert [(one.answer, one.label, one.right, one.index) for one in judged] == [
        ("cat", "cat", True, 0), ("dog", "dog", True, 1), ("cat", "bird", False, 3)
    ]  # fmt: skip
    assert feedback.quality("m", "1") == quality(2, 3)
    feedback.remember("b", "m", "1", "dog")
    feedback.tell("b", "dog")
    feedback.tell_rows("a", ["cat", "dog", "cat"])
    assert feedback.quality("m", "1") == quality(4, 4), "told again, each row's last word counts, once"


@pytest.mark.parametrize("labels", [["cat"], ["cat", "cat", "cat"], ["cat", "cow"], []])
def test_of_several_rows_all_are_judged_or_none(labels):
    feedback = made()
    feedback.remember("a", "m", "1", "cat", "dog")
    with pytest.raises(BadRequest) as refused:
        feedback.tell_rows("a", labels)
    assert refused.value.hint
    assert len(labels) == 2 or "2 rows" in refused.value.what
    assert feedback.quality("m", "1") is None


def test_many_rows_take_the_room_of_as_many_requests():
    feedback = made(10)
    feedback.remember("old", "m", "1", "cat")
    for id in ("a", "b", "b"):
        feedback.remember(id, "m", "1", *["cat"] * 5)
    assert len(feedback.tell_rows("a", ["cat"] * 5)) == len(feedback.tell_rows("b", ["cat"] * 5)) == 5
    with pytest.raises(NotFound):
        feedback.tell("old", "cat")
    feedback.remember("c", "m", "1", *["cat"] * 11)
    assert feedback._held == len(feedback._ring) == 0


def test_an_endless_id_is_not_remembered():
    feedback = made()
    feedback.remember("x" * 257, "m", "1", "cat")
    with pytest.raises(NotFound):
        feedback.tell("x" * 257, "cat")


def test_a_label_told_twice_replaces_and_never_counts_twice():
    feedback = made()
    feedback.remember("a", "m", "1", "cat")
    for label, right in (("cat", 1), ("dog", 0), ("dog", 0), ("cat", 1)):
        feedback.tell("a", label)
        assert feedback.quality("m", "1") == quality(right, 1)
    assert 'edgekit_feedback_total{model="m",version="1",right="true"} 1\n' in text(feedback.families())
    assert 'right="false"' not in text(feedback.families())


def test_a_new_request_with_an_old_id_is_another_request():
    feedback = made()
    for _ in range(5):
        feedback.remember("same", "m", "1", "cat")
        feedback.tell("same", "cat")
    assert feedback.quality("m", "1").n == 5


def test_the_accuracy_rolls_and_what_rolled_out_does_not_come_back():
    feedback = made()
    for i in range(WINDOW + 500):
        feedback.remember(str(i), "m", "1", "cat")
        feedback.tell(str(i), "dog" if i < 500 else "cat")
    assert feedback.quality("m", "1") == quality(WINDOW, WINDOW)
    feedback.tell("3", "dog")
    assert feedback.quality("m", "1") == quality(WINDOW, WINDOW)


def test_models_and_versions_are_judged_apart():
    feedback = made()
    for version, answer in (("1", "cat"), ("2", "dog")):
        feedback.remember(version, "m", version, answer)
        feedback.tell(version, "cat")
    assert (feedback.quality("m", "1").accuracy, feedback.quality("m", "2").accuracy) == (1, 0)
    assert feedback.quality("n", "1") is None


def test_models_without_end_take_no_memory_without_end():
    feedback = Feedback()
    for i in range(500):
        feedback.know("m", str(i), LABELS)
        feedback.remember(str(i), "m", str(i), "cat")
        feedback.tell(str(i), "cat")
    assert len(feedback._windows) == len(feedback._labels) == len(feedback._totals) == 64


def test_wilsons_interval_is_that_of_the_books():
    low, high = wilson(81, 263)  # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson(0, 20)  # the same: 0.0000 to 0.1611
    assert (low, round(high, 4)) == (0.0, 0.1611)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    chance = np.random.default_rng(0)
    for truth in (0.5, 0.9, 0.97):
        seen = [wilson(int(right), 200) for right in chance.binomial(200, truth, 4_000)]
        assert 0.93 < np.mean([low <= truth <= high for low, high in seen]) < 0.975


@given(st.integers(0, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_is_around_what_was_seen(drawn):
    right, n = drawn
    low, high = wilson(right, n)
    assert 0 <= low <= (right / n if n else 0) + 1e-12
    assert (right / n if n else 1) - 1e-12 <= high <= 1


def test_metrics_tell_accuracy_with_its_interval():
    feedback = made()
    for i in range(10):
        feedback.remember(str(i), "m", "1", "cat")
        feedback.tell(str(i), "cat" if i else "dog")
    told = text(feedback.families())
    labels = '{model="m",version="1"}'
    assert f"edgekit_quality_accuracy{labels} 0.9\n" in told
    assert f"edgekit_quality_accuracy_low{labels} 0.595" in told
    assert f"edgekit_quality_accuracy_high{labels} 0.982" in told
    assert f"edgekit_quality_samples{labels} 10\n" in told
    assert 'edgekit_feedback_total{model="m",version="1",right="false"} 1\n' in told


def test_remembering_costs_an_event_loop_next_to_nothing():
    feedback, ids, best = made(), [f"{i:032x}" for i in range(60_000)], float("inf")
    for start in range(0, 60_000, 5_000):
        begun = time.perf_counter_ns()
        for id in ids[start : start + 5_000]:
            feedback.remember(id, "m", "1", "cat")
        best = min(best, (time.perf_counter_ns() - begun) / 5_000)
    assert best < 2_000
    assert len(feedback._ring) == 20_000


def test_judgements_and_the_last_answers_outlive_a_restart(tmp_path):
    feedback = made()
    for i in range(TAIL + 10):
        feedback.remember(f"é{i}", "m", "1", "cat")
    for i in range(100, 200):
        feedback.tell(f"é{i}", "cat" if i < 180 else "dog")
    save(tmp_path, feedback.state())
    again = made()
    again.restore(load(tmp_path))
    assert again.quality("m", "1") == feedback.quality("m", "1") == quality(80, 100)
    again.tell("é150", "cat")
    assert again.quality("m", "1").n == 100
    again.tell("é199", "cat")
    assert again.quality("m", "1") == quality(81, 100)
    assert again.tell(f"é{TAIL + 9}", "cat").right
    assert again.quality("m", "1") == quality(82, 101)
    with pytest.raises(NotFound):
        again.tell("é9", "cat")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_several_rows_outlive_a_restart_with_their_judgements(tmp_path):
    feedback = made()
    feedback.remember("a", "m", "1", "cat", "dog")
    feedback.tell_rows("a", ["cat", "cat"])
    save(tmp_path, feedback.state())
    again = made()
    again.restore(load(tmp_path))
    again.remember("b", "m", "1", "cat")
    again.tell("b", "cat")
    again.tell_rows("a", ["cat", "dog"])
    assert again.quality("m", "1") == quality(3, 3)


def test_a_file_of_before_rows_is_read(tmp_path):
    ring = '[["a",["m","1","cat",1]],["b",["m","1","dog",0]]]'
    (tmp_path / FILE).write_text(f'{{"schema":1,"serial":1,"ring":{ring},"windows":[[["m","1"],[[1,true]]]]}}')
    again = made()
    again.restore(load(tmp_path))
    again.tell("b", "cat")
    assert again.quality("m", "1") == quality(1, 2)


def test_without_a_file_there_is_nothing_to_take_up(tmp_path):
    assert load(tmp_path) is None


@pytest.mark.parametrize(
    "nonsense",
    [
        "", "{", "null", "[]", "[" * 100_000, '{"schema":2}', '{"schema":1,"serial":0,"ring":[[1,2]],"windows":[]}',
        '{"schema":1,"serial":0,"ring":[["a",["m","1",3,0]]],"windows":[]}',
        '{"schema":1,"serial":0,"ring":[["a",["m","1",[],0]]],"windows":[]}',
        '{"schema":1,"serial":0,"ring":[["a",["m","1",["cat",3],0]]],"windows":[]}',
        '{"schema":1,"serial":1e999,"ring":[],"windows":[]}', '{"schema":1,"serial":0,"ring":[],"windows":[["m",[]]]}',
    ],
)  # fmt: skip
def test_a_file_that_does_not_read_is_begun_anew(tmp_path, nonsense):
    (tmp_path / FILE).write_text(nonsense)
    assert load(tmp_path) is None


def test_a_file_with_numbers_that_were_touched_gives_no_number_twice(tmp_path):
    feedback = made()
    feedback.remember("a", "m", "1", "cat")
    feedback.tell("a", "cat")
    save(tmp_path, feedback.state())
    raw = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(raw | {"serial": -5}))
    again = made()
    again.restore(load(tmp_path))
    again.remember("b", "m", "1", "cat")
    again.tell("b", "cat")
    assert again.quality("m", "1").n == 2


def test_a_disk_that_fails_leaves_the_old_file(tmp_path):
    feedback = made()
    save(tmp_path, feedback.state())
    before = (tmp_path / FILE).read_bytes()
    (tmp_path / f".{FILE}.new").mkdir()
    with pytest.raises(OSError):  # noqa: PT011  which one, the system says
        save(tmp_path, feedback.state())
    assert (tmp_path / FILE).read_bytes() == before
