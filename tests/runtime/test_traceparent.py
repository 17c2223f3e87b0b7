"""Trace Context by its specification: each rule of level 1 with what keeps it and what breaks it."""

import pytest
from edgekit_runtime.traceparent import Traceparent, parse, text

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_the_example_of_the_specification_reads_and_writes_itself():
    context = parse(GOOD)
    assert context == Traceparent(TRACE, SPAN, sampled=True)
    assert text(context) == GOOD
    assert text(Traceparent(TRACE, SPAN, sampled=False)) == f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_of_the_flags_the_lowest_bit_alone_is_known(flags, sampled):
    found = parse(f"00-{TRACE}-{SPAN}-{flags}")
    assert found is not None
    assert found.sampled is sampled


@pytest.mark.parametrize(
    "header",
    [
        f"cc-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        f"cc-{TRACE}-{SPAN}-01-",
        f"01-{TRACE}-{SPAN}-01-.01-x",
        f" {GOOD}",
        f"\t{GOOD} \t",
    ],
)
def test_a_later_version_reads_as_far_as_it_is_known_and_spaces_around_are_the_headers(header):
    assert parse(header) == Traceparent(TRACE, SPAN, sampled=True)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        f"00-{TRACE}-{SPAN}-01.",
        f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like",
        f"cc-{TRACE}-{SPAN}-01what",
        f".0-{TRACE}-{SPAN}-01",
        f"0.-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"cc-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"00-.{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE}-.{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN[:-1]}.-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-.0",
        f"00-{TRACE}-{SPAN}-0.",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}",
        f"00_{TRACE}_{SPAN}_01",
        f"{GOOD}\n",
        f"00-{TRACE}-{SPAN}-\u0660\u0661",
        f"{GOOD}, {GOOD}",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-02",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 2000}",
    ],
)
def test_what_the_specification_calls_invalid_is_no_context(header):
    assert parse(header, "vendor=1") is None


LONGEST_KEYS = ["z" * 256, f"{'t' * 241}@{'v' * 14}", "a_-*/0", "0a@v", "0/*@x_-*/9"]


@pytest.mark.parametrize("key", LONGEST_KEYS)
def test_a_state_keeps_keys_of_each_allowed_kind_and_length(key):
    assert parse(GOOD, f"{key}=1").state == ((key, "1"),)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "Foo",
        "0foo",
        "foo ",
        "foo\t",
        "foo.",
        "z" * 257,
        f"{'t' * 242}@v",
        f"t@{'v' * 15}",
        "@v",
        "t@",
        "t@@v",
        "t@V",
    ],
)
def test_one_key_that_does_not_read_costs_the_state_and_not_the_parent(key):
    assert parse(GOOD, f"good=1,{key}=1") == Traceparent(TRACE, SPAN, sampled=True)


def test_a_state_keeps_each_allowed_character_of_a_value():
    allowed = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")
    assert parse(GOOD, f"a=x{allowed}").state == (("a", "x" + allowed),)
    assert parse(GOOD, f"a={'v' * 256}").state == (("a", "v" * 256),)


@pytest.mark.parametrize("value", ["", "x=y", "ä", "\x7f", "\x19", "v" * 257])
def test_one_value_that_does_not_read_costs_the_state(value):
    assert parse(GOOD, f"good=1,a={value}").state == ()


def test_spaces_around_members_and_empty_members_are_nothing():
    assert parse(GOOD, " a=1 \t,, ,\tb=2,").state == (("a", "1"), ("b", "2"))
    assert parse(GOOD, " , ").state == ()


def test_a_state_has_at_most_32_members():
    members = [f"k{number}=1" for number in range(33)]
    assert len(parse(GOOD, ",".join(members[:32])).state) == 32
    assert parse(GOOD, ",".join(members)).state == ()


def test_of_two_members_with_one_key_the_later_one_is_kept_and_it_stands_first():
    assert parse(GOOD, "a=new,b=2,a=old").state == (("a", "new"), ("b", "2"))


def test_a_hostile_state_costs_no_time():
    import time

    start = time.perf_counter()
    for hostile in ("a" * 100_000, "a=" + " " * 100_000, "a@" * 50_000, ",".join("a= " for _ in range(30_000))):
        assert parse(GOOD, hostile) == Traceparent(TRACE, SPAN, sampled=True)
    assert time.perf_counter() - start < 5
