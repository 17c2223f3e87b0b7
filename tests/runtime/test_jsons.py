"""Strict and fast JSON: what is read must be what the standard library reads, however it is read."""

import importlib.util
import json
import math
import sys
import threading
import time

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, Exceeded
from edgekit_runtime.limits import Limits
from edgekit_runtime.protocols import jsons, runs
from hypothesis import example, given, settings
from hypothesis import strategies as st

LIMITS = Limits()
ORJSON = importlib.util.find_spec("orjson") is not None


@pytest.fixture(params=["orjson", "standard library"])
def reader(request, monkeypatch):
    """Both ways to read and write: the fast one where it is installed."""
    if request.param == "orjson" and not ORJSON:
        pytest.skip("orjson is not installed")
    monkeypatch.setattr(jsons, "_FOUND", [] if request.param == "orjson" else [(None, None)])


def both(text, limits=LIMITS):
    """What `read` makes of the text with each reader, or the refusal; they must agree."""
    made = []
    for found in ([], [(None, None)]):
        kept, jsons._FOUND[:] = jsons._FOUND[:], found
        try:
            made.append(jsons.plain(jsons.read(text, limits)))
        except (BadRequest, Exceeded) as error:
            made.append(type(error))
        finally:
            jsons._FOUND[:] = kept
    assert same(made[0], made[1])
    return made[0]


def same(one, other):
    """Equal to the type, the sign of zero and NaN; an integer among floats, or beyond 64 bits, may be a float."""
    if {type(one), type(other)} == {int, float}:
        return float(one) == float(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return one == other


def shrink(patch):
    """Sizes so small that a text of a few bytes goes every way that a text of many megabytes does."""
    for module, key, size in (
        (jsons, "BIG", 8),
        (jsons, "LONG", 2),
        (jsons, "CHUNK", 7),
        (runs, "CHUNK", 7),
        (runs, "RUN", 2),
    ):
        patch.setattr(module, key, size)


NUMBER = st.integers() | st.floats() | st.sampled_from([0, -1, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 2**64, -0.0, 1.0])
NESTED = st.recursive(
    st.lists(NUMBER, max_size=5), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=12
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(max_size=5) | NESTED,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(VALUES, st.sampled_from([None, 1]))
def test_any_value_is_read_as_the_standard_library_reads_it(value, indent):
    text = json.dumps(value, indent=indent, ensure_ascii=indent is None).encode("utf-8", "surrogatepass")
    want = json.loads(text) if b"\\ud" not in text and b"\xed" not in text else None
    made = both(text)
    if want is not None and made is not BadRequest:
        assert same(made, want)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(VALUES, st.sampled_from([None, 1]))
def test_a_large_text_is_read_as_the_standard_library_reads_it(value, indent):
    text = json.dumps({"a": value, "data": [[1, 2], [3, 4]], "b": [5.5, 6]}, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        made = both(text)
    if made is not BadRequest:
        assert same(made, json.loads(text))


SIGNS = st.text(alphabet='[]{},:"01-+.eENaInfity tru\\', max_size=24)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(SIGNS | SIGNS.map(lambda s: f"[[1,2],[3{s},4]]") | SIGNS.map(lambda s: f'{{"a":[1,2{s}],"b":[3.5,4]}}'))
@example("[1,[2],3,4,5,6]")
@example("[5[1,2],[3,4],6]")
@example("[[1,2]5,[3,4],6]")
@example("[[1,2],[3,]    ]")
@example("[1,2,3,4,5,6, ]")
@example("[1 2,3,4,5,6,7]")
@example('{"a":-[1,2,3],"b":1[2,3,4],"c":[5,6]7}')
@example("[-0.0e-917364550,[1,2,3]]")
def test_no_text_is_read_one_way_and_refused_another(text):
    text = text.encode()
    try:
        want = json.loads(text, object_pairs_hook=jsons._object)
    except ValueError:
        want = BadRequest
    except BadRequest:
        want = BadRequest
    with pytest.MonkeyPatch.context() as patch:
        assert same(both(text), want) or (want is BadRequest and both(text) is BadRequest)
        shrink(patch)
        assert same(both(text), want) or (want is BadRequest and both(text) is BadRequest)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(text):
    both(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b'"\\ud800"', "lone surrogate"),
        (b'"\\\\\\udfff"', "lone surrogate"),
        (b'"\\udc00\\ud800"', "lone surrogate"),
        (b"1" * 5000, "too many digits"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "twice"),
        (b'{"a" : 1, "a" : 1, "b:": 2}', "twice"),
        (b'["\x01"]', "not JSON"),
        (b"[01]", "not JSON"),
        (b"[nan]", "not JSON"),
    ],
)
def test_what_is_not_strict_json_is_refused(reader, text, words):
    with pytest.raises(BadRequest, match=words):
        jsons.read(text, LIMITS)


def test_whole_characters_and_backslashes_are_no_surrogates(reader):
    assert jsons.read(b'["\\ud83d\\ude00", "\\\\ud800", "a:b", {"x:0": ":1"}]', LIMITS) == [
        "😀",
        "\\ud800",
        "a:b",
        {"x:0": ":1"},
    ]


def test_nan_and_infinity_are_values(reader):
    found = jsons.plain(jsons.read(b"[NaN, Infinity, -Infinity, 1e999]", LIMITS))
    assert repr(found) == "[nan, inf, -inf, inf]"
    long = jsons.read(b'{"a":[' + b"1.5," * jsons.BIG + b"NaN]}", LIMITS)["a"]
    assert isinstance(long, jsons.Numbers)
    assert math.isnan(long.flat[-1])


@pytest.mark.parametrize(
    "text", [b"[" * 65 + b"]" * 65, b'{"a":' * 65, b"[" * 1_100_000, b'["]' + b"[" * 70, b'{"\\"":' * 65]
)
def test_json_nested_deeper_than_the_limit_is_refused_without_recursion(reader, text):
    with pytest.raises((Exceeded, BadRequest)) as caught:
        jsons.read(text, LIMITS)
    if text.count(b"[") == text.count(b"]"):
        assert caught.value.limit == "depth"


def test_json_as_deep_as_the_limit_is_read_and_brackets_in_strings_are_none(reader):
    assert jsons.read(b"[" * 64 + b"]" * 64, LIMITS)
    assert jsons.read(json.dumps(["[{" * 100, '"[' * 50, "\\[" * 50]).encode(), LIMITS)
    deep = "[" * 60 + "1" + "]" * 60
    assert jsons.plain(jsons.read(f'{{"a":{deep},"b":"{"x" * jsons.BIG}"}}'.encode(), LIMITS))["a"] == json.loads(deep)


@pytest.mark.parametrize("text", [b"[" + b"0," * 1000 + b"0]", b'{"a":[' + b"[]," * 1000 + b"[]]}"])
def test_more_values_than_the_limit_are_refused(reader, text):
    few = Limits(values=1000)
    with pytest.raises(Exceeded) as caught:
        jsons.read(text, few)
    assert caught.value.limit == "values"
    assert jsons.read(json.dumps([",,,,,"] * 300).encode(), few)


def test_more_numbers_than_the_limit_are_refused_before_they_are_made(monkeypatch):
    shrink(monkeypatch)
    text = b'{"a":[' + b"0," * 1000 + b"0]}"
    with pytest.raises(Exceeded, match="more than 500 values"):
        jsons.read(text, Limits(values=500))


@pytest.mark.parametrize("first", [0, 2**53 + 1, -(2**63), 2**63, 2**64 - 1])
def test_integers_stay_exact_in_long_lists(reader, first):
    for many in (100, 2**19):
        found = jsons.read(json.dumps({"data": [first, *range(many)]}).encode(), LIMITS)["data"]
        assert jsons.plain(found)[:3] == [first, 0, 1]
        if isinstance(found, jsons.Numbers):
            assert found.flat.dtype.num in (np.dtype(np.int64).num, np.dtype(np.uint64).num)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [True, False, None, "1", [1], {}, 2**64])
def test_a_long_list_with_one_value_that_is_no_number_stays_a_list(reader, bad):
    for many in (100, 2**19):
        values = [*range(many), bad]
        found = jsons.read(json.dumps({"data": values, "say": "true"}).encode(), LIMITS)["data"]
        assert same(jsons.plain(found), values) or bad == 2**64


@pytest.mark.parametrize("shape", [(150,), (1, 100), (3, 40, 5), (1, 3, 224, 224)])
def test_long_lists_keep_their_shape(reader, shape):
    value = np.random.default_rng(0).random(shape, np.float32)
    found = jsons.read(json.dumps({"x": value.tolist()}).encode(), LIMITS)["x"]
    assert np.array_equal(np.array(jsons.plain(found), np.float32), value)
    if ORJSON and not isinstance(found, list):
        assert found.shape == shape


@pytest.mark.slow
def test_another_thread_is_not_kept_waiting_by_a_large_text():
    text = b'{"inputs":[{"name":"x","data":[' + b"0.123456789," * 2_600_000 + b"1]}]}"
    assert any(_kept_waiting(text) < 0.25 for _ in range(10))  # the machine may keep it waiting now and then


def _kept_waiting(text):
    """The longest pause of this thread while another reads the text, in seconds."""
    done = threading.Event()
    worst, last = 0.0, time.perf_counter()

    def work():
        jsons.read(text, LIMITS)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    thread.join()
    return worst


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, "x", None, True], "ü": "😀"},
        {"n": np.arange(6, dtype=np.float32).reshape(2, 3), "i": np.arange(3, dtype=np.uint8), "s": np.float32(1.5)},
        [np.array([[True, False]]), np.arange(6).reshape(2, 3).T, np.arange(2, dtype=np.float16)],
        {"big": 2**70, "long": [0.1] * 10},
    ],
)
def test_what_is_written_reads_back(reader, value):
    assert json.loads(jsons.write(value)) == json.loads(json.dumps(value, default=lambda v: v.tolist()))


def test_nan_is_written_as_a_token_and_never_as_null(reader):
    for value in ({"a": math.nan}, [[np.array([np.nan, 1], np.float32)]], {"b": (math.inf,)}):
        assert b"null" not in jsons.write(value)
    assert jsons.write_array(np.array([np.nan, np.inf, -np.inf], np.float32)) == b"[NaN,Infinity,-Infinity]"


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "uint64", "float16", "float32", "float64"])
def test_arrays_of_every_type_and_size_are_written_flat(reader, dtype):
    for count in (0, 1, 5, jsons.CHUNK // 8 * 2 + 1):
        value = (np.arange(count) % 3 - (dtype in ("int8", "float32"))).astype(dtype)
        assert np.array_equal(np.array(json.loads(jsons.write_array(value)), dtype), value)
    turned = np.arange(6).reshape(2, 3).astype(dtype).T
    assert json.loads(jsons.write_array(turned)) == turned.ravel().tolist()
    assert json.loads(jsons.write_array(np.array(1, dtype))) == [1]


def test_a_float32_is_written_so_that_it_reads_back_the_same(reader):
    value = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert np.array_equal(np.array(json.loads(jsons.write_array(value)), np.float32), value)


def test_the_module_needs_no_orjson(monkeypatch):
    monkeypatch.setitem(sys.modules, "orjson", None)
    monkeypatch.setattr(jsons, "_FOUND", [])
    assert jsons.read(b'{"a": [1]}', LIMITS) == {"a": [1]}
    assert jsons.write({"a": np.arange(2)}) == b'{"a":[0,1]}'
