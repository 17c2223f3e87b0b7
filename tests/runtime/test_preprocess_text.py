"""From texts to tensors: as they are, by pieces, characters and bytes; what is declared, what is refused."""

import contextlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, EdgeKitError
from edgekit_runtime.preprocess import apply, media, parse_preprocess, sniff, to_json
from edgekit_runtime.preprocess.wordpiece import read_vocab, tokens
from hypothesis import given
from hypothesis import strategies as st

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the quick brown fox jump ##s over lazy dog un ##aff ##able , . ! ? ' - ` $ ^ [ ] "
    "se ##p don t cafe naive strasse ##\xdfe stra istanbul \u6771 \u4eac \u03c3 ##\u03b9\u03c3\u03c5\u03c6\u03bf\u03c3 "
    "\u03b9\u03c3\u03c5\u03c6\u03bf\u03c3 \u043c\u0438\u0440 \u0435 \u0451 a b ##b c ##c 1 2 ##0 ##24 Caf\xe9 Don T "
    "Quick ; mask \u1112 ##\u1161 ##\u11ab \xdf thefox thedog ##x"
)
VOCAB = WORDS.split()
NUMBERS = {word: number for number, word in enumerate(VOCAB)}
# What HuggingFace's `tokenizers` 0.23 (BertNormalizer, BertPreTokenizer, WordPiece) makes of these texts with VOCAB:
# the pieces in lower case, and as they are written.
PIECES = [
    ("The quick brown fox jumps over the lazy dog.",
     "the quick brown fox jump ##s over the lazy dog .", "[UNK] quick brown fox jump ##s over the lazy dog ."),
    ("unaffable, UNAFFABLE!", "un ##aff ##able , un ##aff ##able !", "un ##aff ##able , [UNK] !"),
    ("Don't  caf\xe9\u0301 CAF\xc9 na\xefve", "don ' t cafe cafe naive", "Don ' t [UNK] [UNK] [UNK]"),
    ("the\u200bfox\x00 \x07the\x1cdog", "thefox thedog", "thefox thedog"),
    ("\u6771\u4eac \u6771\u4eacthe\u4eac", "\u6771 \u4eac \u6771 \u4eac the \u4eac",
     "\u6771 \u4eac \u6771 \u4eac the \u4eac"),
    ("\u03a3\u0399\u03a3\u03a5\u03a6\u039f\u03a3 \u03c3\u03b9\u03c3\u03c5\u03c6\u03bf\u03c2",
     "\u03c3 ##\u03b9\u03c3\u03c5\u03c6\u03bf\u03c3 [UNK]", "[UNK] [UNK]"),
    ("\u043c\u0438\u0440 \u0451 \u0401", "\u043c\u0438\u0440 \u0435 \u0435", "\u043c\u0438\u0440 \u0451 [UNK]"),
    ("\u0130STANBUL stra\xdfe STRASSE", "istanbul stra ##\xdfe strasse", "[UNK] stra ##\xdfe [UNK]"),
    ("a`b$c^dog", "a ` b $ c ^ dog", "a ` b $ c ^ dog"),
    ("a\xa0b\u3000c\u2028a\tb\r\nc", "a b c a b c", "a b c a b c"),
    ("20 2024 1240", "2 ##0 2 ##0 ##24 1 ##24 ##0", "2 ##0 2 ##0 ##24 1 ##24 ##0"),
    ("a" * 101 + " fox " + "b" * 100, "[UNK] fox b" + " ##b" * 99, "[UNK] fox b" + " ##b" * 99),
    ("\u2026\u2014\u201athe\u201b \u037e", "[UNK] [UNK] [UNK] the [UNK] ;", "[UNK] [UNK] [UNK] the [UNK] [UNK]"),
    ("", "", ""),
    (" \n ", "", ""),
    ("\ud55c \ufdfa \ufffd the", "\u1112 ##\u1161 ##\u11ab [UNK] the", "[UNK] [UNK] the"),
    ("\ufeffthe fox", "the fox", "the fox"),
    ("fox\U0001f98adog \U0001f98a", "[UNK] [UNK]", "[UNK] [UNK]"),
    ("\uff54\uff48\uff45", "[UNK]", "[UNK]"),
]  # fmt: skip


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return tmp_path


def bert(folder, **changes):
    table = {"kind": "text", "input": "ids", "tokenizer": "wordpiece", "vocab": "vocab.txt", "lower": True, **changes}
    return parse_preprocess({key: value for key, value in table.items() if value != "absent"}, folder)


def plain(**changes):
    return parse_preprocess({"kind": "text", "input": "x", **changes})


@pytest.mark.parametrize(("text", "lower", "cased"), PIECES, ids=range(len(PIECES)))
def test_pieces_are_berts(text, lower, cased):
    for wanted, folded in ((lower, True), (cased, False)):
        assert " ".join(VOCAB[number] for number in tokens(text, NUMBERS, folded)) == wanted


def test_a_special_token_that_is_written_is_only_text():
    assert not {NUMBERS[name] for name in ("[CLS]", "[SEP]", "[PAD]")} & set(tokens("[CLS] [SEP] [PAD]", NUMBERS, True))


@pytest.mark.parametrize("text", ["x" * 2**20, "a" + "\u0301\u0316" * 2**18, "\u200b" * 2**19, "\xe9 " * 2**18])
def test_no_text_takes_long(text):
    start = time.monotonic()
    assert sum(1 for _ in tokens(text, NUMBERS, True)) <= 2**18
    assert time.monotonic() - start < 10  # a quadratic step would take hours


def test_ids_mask_and_types_go_to_inputs_of_their_own(vocab):
    made = apply(bert(vocab, mask="mask", types="types", max_length=6, pad=True), b"the fox")
    assert {name: value.tolist() for name, value in made.items()} == {
        "ids": [[2, 5, 8, 3, 0, 0]], "mask": [[1, 1, 1, 1, 0, 0]], "types": [[0] * 6]
    }  # fmt: skip
    assert {value.dtype.name for value in made.values()} == {"int64"}


def test_a_text_is_cut_at_the_length_and_ends_as_berts_do(vocab):
    assert apply(bert(vocab, max_length=5), "the quick brown fox")["ids"].tolist() == [[2, 5, 6, 7, 3]]
    assert apply(bert(vocab, dtype="int32", layout="T"), "fox")["ids"].tolist() == [2, 8, 3]
    assert apply(bert(vocab), "")["ids"].tolist() == [[2, 3]]


def test_bytes_a_file_and_a_string_give_the_same_without_the_last_line_break(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffna\xefve\r\n".encode())
    wanted = plain(tokenizer="bytes")
    for source in ("na\xefve", "na\xefve\n".encode(), tmp_path / "a.txt"):
        assert apply(wanted, source)["x"].tolist() == [list("na\xefve".encode())]


@pytest.mark.parametrize(("layout", "shape"), [("N", (1,)), ("NT", (1, 1)), ("T", (1,))])
def test_a_model_of_strings_gets_the_text_as_it_is(layout, shape):
    value = apply(plain(layout=layout), "na\xefve\nt\xeate".encode())["x"]
    assert (value.dtype, value.shape, value.item()) == (np.dtype(object), shape, "na\xefve\nt\xeate")


def test_characters_are_numbered_by_the_alphabet():
    wanted = plain(tokenizer="characters", alphabet="abc ", first=2, unknown_id=1, pad=True, max_length=6, mask="m")
    made = apply(wanted, "cab?")
    assert (made["x"].tolist(), made["m"].tolist()) == ([[4, 2, 3, 1, 0, 0]], [[1, 1, 1, 1, 0, 0]])
    assert apply(plain(tokenizer="characters", alphabet="abc", lower=True), "C?A")["x"].tolist() == [[2, 0]]


def test_a_declaration_reads_back_the_same(vocab):
    for wanted, folder in [
        (bert(vocab, mask="m"), vocab), (plain(), None), (plain(tokenizer="characters", alphabet="ab"), None)
    ]:  # fmt: skip
        told = json.loads(json.dumps(to_json(wanted)))
        assert "words" not in told
        assert parse_preprocess(told, folder) == wanted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer": "wordpeice"}, "did you mean wordpiece"),
        ({"vocab": "absent"}, "wordpiece"),
        ({"vocab": "none.txt"}, "a token a line"),
        ({"vocab": "../vocab.txt"}, "build the bundle again"),
        ({"vocab": "/etc/passwd"}, "build the bundle again"),
        ({"alphabet": "abc"}, "characters"),
        ({"first": 3}, "characters"),
        ({"max_length": 2}, "max_length"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": 2.5}, "max_length"),
        ({"pad": 1}, "pad = true"),
        ({"mask": "ids"}, "of their own"),
        ({"mask": 3}, "mask"),
        ({"dtype": "float32"}, "int32"),
        ({"layout": "NCHW"}, "NT"),
        ({"layout": "N"}, "NT"),
        ({"maxlength": 3}, "did you mean max_length"),
        ({"tokenizer": "none"}, "wordpiece"),
        ({"tokenizer": "characters", "vocab": "absent"}, "characters"),
        ({"tokenizer": "characters", "vocab": "absent", "alphabet": "aba"}, "once"),
        ({"tokenizer": "bytes", "vocab": "absent", "first": 1, "dtype": "uint8"}, "int32"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_write(vocab, change, words):
    with pytest.raises(EdgeKitError) as caught:
        bert(vocab, **change)
    assert words in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"the\nfox\n", b"[PAD]\n\xff\xfe"])
def test_what_is_no_vocabulary_of_bert_is_refused(tmp_path, content):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(EdgeKitError, match=r"vocab\.txt"):
        read_vocab(tmp_path / "vocab.txt")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a" * (2**20 + 1), "more than"),
        ("a" * (2**20 + 1), "more than"),
        (b"", "nothing"),
        (Path("/nowhere/a.txt"), "no text"),
        (Path("/"), "no text"),
        (np.zeros(3), "array"),
    ],
)
def test_what_is_no_text_is_refused(source, words):
    with pytest.raises(BadRequest, match=words):
        apply(plain(tokenizer="bytes"), source)


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_become_tensors_or_a_bad_request(data):
    for wanted in (plain(), plain(tokenizer="bytes"), plain(tokenizer="characters", alphabet="ab")):
        with contextlib.suppress(BadRequest):
            assert apply(wanted, data)["x"].size


@given(st.text(max_size=60), st.booleans())
def test_any_text_becomes_known_pieces(text, lower):
    assert set(tokens(text, NUMBERS, lower)) <= set(range(len(VOCAB)))


def test_what_a_bundle_takes_and_what_bytes_are():
    assert media(plain()) == ("text/plain",)
    assert "audio/wav" in media(parse_preprocess({"kind": "audio", "input": "x", "rate": 8000}))
    assert media(parse_preprocess({"kind": "image", "input": "x"}))[0] == "image/jpeg"
    for beginning, name in [
        (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"), (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"), (b"II*\0", "image/tiff"),
        (b"BM\x46\0\0\0\0\0\0\0", "image/bmp"), (b"BMW is a car", None), (b"RIFF", None), (b"", None), (b"{}", None),
    ]:  # fmt: skip
        assert sniff(beginning) == name
