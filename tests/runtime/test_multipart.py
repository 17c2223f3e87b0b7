"""Forms: as real clients write them, and as nobody should."""

import contextlib
import random
import time

import pytest
from edgekit_runtime.errors import BadRequest, EdgeKitError, Exceeded
from edgekit_runtime.protocols.multipart import MAX_PARTS, read_parts
from hypothesis import given, settings
from hypothesis import strategies as st

KIND = b"multipart/form-data; boundary=B"


def part(data=b"1", name=b'name="data"', more=b""):
    return b"--B\r\nContent-Disposition: form-data; " + name + b"\r\n" + more + b"\r\n" + data + b"\r\n"


def form(*parts):
    return b"".join(parts) + b"--B--\r\n"


def test_a_file_and_a_field_come_back_byte_for_byte():
    data = bytes(range(256)) * 3 + b"\r\n--\r\n--C\r\n"
    body = form(
        part(data, b'name="x"; filename="a \\"b\\".jpg"', b"Content-Type: Image/JPEG; q=1\r\n"),
        part(b"", b"name=note"),
    )
    photo, note = read_parts(body, KIND)
    assert (photo.name, photo.data, photo.content_type, photo.file) == ("x", data, b"image/jpeg", True)
    assert (note.name, note.data, note.content_type, note.file) == ("note", b"", b"", False)


def test_what_urllib3_writes_is_read():
    from urllib3.filepost import encode_multipart_formdata

    fields = {"data": ("kätzchen.jpg", b"\xff\xd8\r\n--", "image/jpeg"), 'a"b': "text"}
    body, kind = encode_multipart_formdata(fields)
    first, second = read_parts(body, kind.encode())
    assert (first.name, first.data, first.file) == ("data", b"\xff\xd8\r\n--", True)
    assert (second.name, second.data) == ('a"b', b"text")


def test_a_quoted_boundary_with_blanks_is_read():
    body = part().replace(b"--B", b"--a b:c") + b"--a b:c--"
    assert read_parts(body, b'multipart/form-data; charset=x; Boundary="a b:c"')[0].data == b"1"


def test_blanks_may_pad_a_boundary_and_a_line_end_may_come_first():
    body = b"\r\n" + part().replace(b"--B", b"--B \t") + b"--B-- "
    assert read_parts(body, KIND)[0].data == b"1"


def test_a_line_that_only_begins_as_the_boundary_belongs_to_the_part():
    data = b"1\r\n--BC\r\n--B-\r\n--B--x\r\n--B 1\r\n2"
    assert read_parts(form(part(data)), KIND)[0].data == data


def test_an_empty_form_has_no_parts():
    assert read_parts(b"--B--\r\n", KIND) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "begin with its boundary"),
        (b"hello" + form(part()), "begin with its boundary"),
        (form(part()).replace(b"\r\n", b"\n"), "begin with its boundary"),
        (part(), "before its last boundary"),
        (form(part())[:-4], "before its last boundary"),
        (form(part()) + b"more", "after its last boundary"),
        (form(part(), part()), "two parts named"),
        (form(part(name=b"x=1")), "no name"),
        (form(part(name=b'name=""')), "no name"),
        (form(part(name=b'name="a')), "does not read"),
        (form(part(name=b'name="a"; name="b"')), "does not read"),
        (form(part(name=b'name="\xff"')), "not UTF-8"),
        (form(part()).replace(b"form-data", b"attachment"), "no name"),
        (form(b"--B\r\n\r\n1\r\n"), "does not read|no headers"),
        (form(b"--B\r\n--B\r\n"), "no headers"),
        (form(b"--B\r\nContent-Disposition: form-data; name=x\r\n"), "no headers"),
        (form(part(more=b"Content-Transfer-Encoding: base64\r\n")), "Transfer-Encoding"),
        (form(part(more=b"no colon\r\n")), "header of a part"),
        (form(part(more=b"A : 1\r\n")), "header of a part"),
        (form(part(more=b"A: 1\n2\r\n")), "header of a part"),
        (form(part(more=b"A: 1\r\na: 2\r\n")), "same header twice"),
    ],
)
def test_a_form_that_is_not_whole_is_refused(body, words):
    with pytest.raises(BadRequest, match=words):
        read_parts(body, KIND)


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"B" * 71,
        b'multipart/form-data; boundary="B "',
        b"multipart/form-data; boundary=B; boundary=C",
        b'multipart/form-data; boundary="B\r\n"',
        b"multipart/form-data; =B",
    ],
)
def test_a_boundary_that_is_none_is_refused(kind):
    with pytest.raises(BadRequest):
        read_parts(form(part()), kind)


@pytest.mark.parametrize(
    "body",
    [
        form(*(part(name=b"name=n%d" % n) for n in range(MAX_PARTS + 1))),
        form(part(more=b"".join(b"A%d: 1\r\n" % n for n in range(9)))),
        form(part(more=b"A: " + b"1" * 5000 + b"\r\n")),
        form(part(name=b"name=" + b"n" * 300)),
        form(part(b"\r\n--Bx" * 2000)),
    ],
)
def test_a_form_beyond_its_bounds_is_refused_by_name(body):
    with pytest.raises(Exceeded) as caught:
        read_parts(body, KIND)
    assert caught.value.limit == "parts"


def test_as_many_parts_as_may_be_are_read():
    assert len(read_parts(form(*(part(name=b"name=n%d" % n) for n in range(MAX_PARTS))), KIND)) == MAX_PARTS


@pytest.mark.slow
@pytest.mark.parametrize(
    "filling", [b"\r\n--B", b"\r\n--Bx", b" ", b"\r\n", b"--B--", b"\r\n--B ", b"a: 1\r\n", b'name="', b";"]
)
def test_sixteen_megabytes_of_anything_take_no_time(filling):
    much = filling * (2**24 // len(filling))
    for body in (form(part(much)), b"--B" + much, part()[:-3] + much, part(name=b"name=x; filename=" + much)):
        start = time.perf_counter()
        with contextlib.suppress(EdgeKitError):
            read_parts(body, KIND)
        assert time.perf_counter() - start < 10
    start = time.perf_counter()
    with pytest.raises(EdgeKitError):
        read_parts(form(part()), b"multipart/form-data" + (b"; a" + filling) * 2000)
    assert time.perf_counter() - start < 10


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_what_is_written_is_what_is_read(pieces):
    boundary = f"b{random.getrandbits(128):032x}".encode()
    body = form(*(part(data, b"name=n%d" % n) for n, data in enumerate(pieces))).replace(b"--B", b"--" + boundary)
    found = read_parts(body, b"multipart/form-data; boundary=" + boundary)
    written = [data.replace(b"--B", b"--" + boundary) for data in pieces]
    assert [one.data for one in found] == written


BITS = [
    b"--B",
    b"\r\n",
    b"--",
    b"name=x",
    b"Content-Disposition: form-data; ",
    b"a",
    b'"',
    b":",
    b";",
    b" ",
    b"\0",
    b"\xff",
]


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(BITS), max_size=40), st.binary(max_size=60))
def test_no_body_gives_anything_but_parts_or_a_refusal(pieces, kind):
    for content_type in (KIND, b"multipart/form-data;" + kind):
        try:
            found = read_parts(b"".join(pieces), content_type)
        except EdgeKitError:
            continue
        assert all(isinstance(one.data, bytes) for one in found)
