"""A bundle as a filter: each kind of line, bad ones between good ones, and lines that never end."""

import base64
import io
import json

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.filtering import Filter, run_filter
from PIL import Image

from tests.runtime.bundles import LABELS, make_bundle, some, truth


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(make_bundle(tmp_path_factory.mktemp("filter") / "b"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "a=b.png"
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20).save(path)
    return path


def filtered(bundle, *given, wanted=None):
    """The answers to lines, and the exit code."""
    said = []
    lines = b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in given)
    code = run_filter(bundle, io.BytesIO(lines), said.append, wanted)
    assert not any("\n" in one for one in said)
    return [json.loads(one) for one in said], code


ONE = some(1)


def test_every_way_to_write_a_tensor_gives_the_same_answer(bundle, tmp_path):
    np.save(tmp_path / "x.npy", ONE[0])
    np.savez(tmp_path / "x.npz", x=ONE)
    values = ONE.tolist()
    given = [{"inputs": {"x": values}}, {"x": values}, values, values[0], {"inputs": values}, {"x": values[0]},
             {"file": str(tmp_path / "x.npy")}, {"file": str(tmp_path / "x.npz")},
             {"x": {"file": str(tmp_path / "x.npy")}}]  # fmt: skip
    answers, code = filtered(bundle, *given)
    assert code == 0
    assert len(answers) == len(given)
    for answer in answers:
        np.testing.assert_allclose(answer["outputs"]["y"], truth(ONE), rtol=1e-5)
        assert [row["label"] for row in answer["top"]] == [LABELS[i] for i in np.argsort(-truth(ONE)[0])]


def test_a_photo_comes_by_its_path_or_its_bytes(bundle, photo):
    encoded = base64.b64encode(photo.read_bytes()).decode()
    given = [
        {"image": str(photo)},
        {"file": str(photo)},
        {"b64": encoded},
        {"x": {"image": str(photo)}},
        {"x": {"b64": encoded}},
    ]
    answers, code = filtered(bundle, *given, wanted=Filter(top=2))
    assert code == 0
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0]["top"]) == 2


def test_answers_keep_the_order_and_the_id(bundle):
    batches = [some(1, seed) for seed in range(20)]
    answers, _ = filtered(bundle, *({"id": seed, "x": x.tolist()} for seed, x in enumerate(batches)))
    assert [answer["id"] for answer in answers] == list(range(20))
    for answer, x in zip(answers, batches, strict=True):
        np.testing.assert_allclose(answer["outputs"]["y"], truth(x), rtol=1e-5)


def test_each_answer_is_out_before_the_next_line_is_read(bundle):
    said = []

    class Lines(io.BytesIO):
        def readline(self, size=-1):
            said.append("read")
            return super().readline(size)

    line = json.dumps(ONE.tolist()).encode() + b"\n"
    assert run_filter(bundle, Lines(line * 2), lambda text: said.append("answer")) == 0
    assert said == ["read", "answer", "read", "answer", "read"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "too deeply"),
        (b'{"x": 1, "x": 2}', "twice"),
        ([1, 2, 3], "shape"),
        ([[1], [2, 3]], "one size"),
        ("hello", "numbers"),
        (None, "numbers"),
        (True, "shape"),
        ({"y": [1]}, "missing input x"),
        ({"x": [1], "z": 1}, "no such input: z"),
        ({"inputs": {}}, "missing input x"),
        ({}, "missing input x"),
        ({"image": "nowhere.jpg"}, "no file"),
        ({"file": "/dev/zero"}, "no file"),
        ({"file": "\0"}, "cannot look at|no file"),
        ({"file": "/" + "a" * 5000}, "cannot look at|no file"),
        ({"b64": "!"}, "base64"),
        ({"b64": "aGVsbG8="}, "not an image"),
        ({"x": {"b64": 1}}, "no file and no bytes"),
        ([[[[10**400] * 2] * 2] * 3], "numbers|size"),
    ],
)
def test_a_bad_line_is_told_by_its_number_and_the_next_one_answered(bundle, bad, words):
    good = {"x": ONE.tolist()}
    answers, code = filtered(bundle, good, bad, b"", good)
    assert code == 1
    assert len(answers) == 3
    assert answers[1]["line"] == 2
    assert answers[1]["hint"]
    assert any(word in answers[1]["error"] for word in words.split("|")), answers[1]
    assert answers[0] == answers[2]


def test_a_bad_line_gives_its_id_back(bundle):
    answers, _ = filtered(bundle, {"id": "a", "x": [1]})
    assert answers[0]["id"] == "a"
    assert answers[0]["line"] == 1


def test_strict_ends_at_the_first_bad_line(bundle):
    answers, code = filtered(bundle, {"x": ONE.tolist()}, b"{", {"x": ONE.tolist()}, wanted=Filter(strict=True))
    assert (len(answers), code) == (2, 1)


def test_a_line_without_end_is_refused_and_never_held_whole(bundle):
    class Endless(io.RawIOBase):
        left = 3000

        def readable(self):
            return True

        def readinto(self, buffer):
            if self.left == 0:
                return 0
            self.left -= 1
            buffer[:] = b"1" * len(buffer)
            return len(buffer)

    sizes = []

    class Lines(io.BufferedReader):
        def readline(self, size=-1):
            found = super().readline(size)
            sizes.append(len(found))
            return found

    said = []
    code = run_filter(bundle, Lines(Endless(), 65536), said.append, Filter(longest=100_000))
    assert code == 1
    assert "longer than 100000" in json.loads(said[0])["error"]
    assert len(said) == 1
    assert max(sizes) <= 100_001


def test_after_a_long_line_comes_the_next(bundle):
    answers, code = filtered(bundle, b"1" * 500, {"x": ONE.tolist()}, b"1" * 400, wanted=Filter(longest=400))
    assert code == 1
    assert [("error" in answer) for answer in answers] == [True, False, True]


def test_the_last_line_needs_no_end(bundle):
    said = []
    assert run_filter(bundle, io.BytesIO(json.dumps(ONE.tolist()).encode()), said.append) == 0
    assert len(said) == 1


def test_a_reader_that_left_is_the_callers_to_see(bundle):
    def gone(text):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_filter(bundle, io.BytesIO(json.dumps(ONE.tolist()).encode()), gone)
