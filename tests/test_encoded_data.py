"""Sounds and texts as data, and from them to a bundle that takes them as they are."""

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgekit_runtime.answer import top
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import BadBundle, EdgeKitError
from edgekit_runtime.inputs import read_inputs
from edgekit_runtime.manifest import to_json
from edgekit_runtime.preprocess import parse_preprocess
from edgekit_runtime.tensors import TensorSpec
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgekit.cache import Cache
from edgekit.data import open_data, raw_fingerprint
from edgekit.dataset import Wanted
from edgekit.declared import completed
from edgekit.drafting import draft
from edgekit.job import Order, preprocessing, read_preprocess
from edgekit.model import Axes, Facts, Model, Origin, Shape
from edgekit.outcome import basis_of
from tests.commands import edgekit

RATE = 8000
SOUND = {"kind": "audio", "input": "x", "rate": RATE, "samples": 800}
TEXT = {"kind": "text", "input": "ids", "mask": "mask", "tokenizer": "wordpiece", "vocab": "vocab.txt", "lower": True}
GOOD, BAD = "good great fine happy lovely superb nice sunny", "bad awful poor sad ugly dire nasty gloomy"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD.split(), *BAD.split(), "the", "film", "is", "day", "a", "."]
LABELS = ("low", "high")
X = TensorSpec("x", "float32", (None, 800))
IDS, MASK = TensorSpec("ids", "int64", (None, None)), TensorSpec("mask", "int64", (None, None))


def tone(hertz: float, rate: int = RATE, seed: int = 0) -> bytes:
    """A tenth of a second or a little more of a tone in some noise, as a 16-bit wav."""
    chance = np.random.default_rng(seed)
    time = np.arange(rate // 10 + int(chance.integers(0, 200))) / rate
    values = 0.5 * np.sin(2 * np.pi * hertz * time + chance.uniform(0, 6)) + chance.normal(0, 0.02, len(time))
    data = np.rint(values * 32767).astype("<i2").tobytes()
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16) + struct.pack("<4sI", b"data", len(data))
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(data)) + b"WAVE" + head + data


def record(folder: Path, count: int) -> Path:
    """`count` tones of each class, some at another rate than the model's."""
    for seed in range(count):
        for word, base in (("low", 300), ("high", 2000)):
            place = folder / word / f"{seed}.wav"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(tone(base + 5 * seed, (RATE, 16000)[seed % 2], seed))
    return folder


def sentence(seed: int) -> tuple[str, int]:
    chance = np.random.default_rng(seed)
    side = seed % 2
    words = chance.choice((BAD if side else GOOD).split(), int(chance.integers(1, 4)))
    return f"The film is {', '.join(words)} {'.' * int(chance.integers(0, 2))}", side


def write_table(path: Path, count: int, delimiter: str = ",") -> Path:
    rows = [sentence(seed) for seed in range(count)]
    quote = '"' if delimiter == "," else ""
    path.write_text(f"text{delimiter}label\n" + "".join(f"{quote}{t}{quote}{delimiter}{s}\n" for t, s in rows))
    return path


def write_vocab(folder: Path) -> Path:
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return folder / "vocab.txt"


def save(path: Path, nodes: list[onnx.NodeProto], inputs: list[TensorSpec], values: dict[str, np.ndarray]) -> Path:
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(
                spec.name, kinds[spec.dtype], ["n", *(size or "t" for size in spec.shape[1:])]
            )
            for spec in inputs
        ],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def hearing(path: Path) -> Path:
    """A model that hears which of two bands of tones is louder: energy in sines and cosines."""
    time = np.arange(800) / RATE
    tones = [np.arange(base, base + 300, 10) for base in (290, 1990)]
    waves = [np.concatenate([f(2 * np.pi * np.outer(time, band)) for f in (np.sin, np.cos)], 1) for band in tones]
    width = waves[0].shape[1]
    chosen = np.zeros((2 * width, 2), np.float32)
    chosen[:width, 0] = chosen[width:, 1] = 1e-3
    nodes = [
        helper.make_node("MatMul", ["x", "waves"], ["heard"]),
        helper.make_node("Mul", ["heard", "heard"], ["energy"]),
        helper.make_node("MatMul", ["energy", "chosen"], ["scores"]),
    ]
    return save(path, nodes, [X], {"waves": np.concatenate(waves, 1).astype(np.float32), "chosen": chosen})


def reading(path: Path) -> Path:
    """A bag of tokens: each good or bad word counts for its class."""
    table = np.zeros((len(VOCAB), 2), np.float32)
    table[4:12, 0] = table[12:20, 1] = 1
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("Cast", ["mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["wide"]),
        helper.make_node("Mul", ["words", "wide"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "middle"], ["scores"], keepdims=0),
    ]
    return save(path, nodes, [IDS, MASK], {"table": table, "last": np.array([2]), "middle": np.array([1])})


def sounds(**changes: object) -> Wanted:
    return Wanted((X,), 2, LABELS, parse_preprocess({**SOUND, **changes}))


def texts(folder: Path, **changes: object) -> Wanted:
    table = {**TEXT, "vocab": str(write_vocab(folder)), **changes}
    return Wanted((IDS, MASK), 2, ("fine", "awful"), parse_preprocess(table))


def test_class_folders_of_sounds(tmp_path: Path) -> None:
    data = open_data(str(record(tmp_path / "tones", 3)), sounds())
    assert data.labels is not None
    assert data.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert (data.feeds(0)["x"].shape, data.batchable, data.name_of(0)) == ((1, 800), True, "0.wav")


def test_sounds_as_long_as_they_are_are_not_joined(tmp_path: Path) -> None:
    wanted = Wanted(
        (TensorSpec("x", "float32", (None, None)),), preprocess=parse_preprocess({**SOUND, "samples": None})
    )
    (tmp_path / "a.wav").write_bytes(tone(300))
    (tmp_path / "b.wav").write_bytes(tone(300, seed=1))
    assert not open_data(str(tmp_path), wanted).batchable


def test_class_folders_of_texts_beside_other_texts(tmp_path: Path) -> None:
    wanted = texts(tmp_path)
    for place, text in (("fine/1.txt", "a lovely day"), ("awful/1.txt", "a sad day"), ("readme.txt", "read me")):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)
    data = open_data(str(tmp_path), wanted)
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]
    assert data.feeds(1)["ids"].tolist() == [[2, 24, 8, 23, 3]]


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.TSV", "\t")])
def test_a_table_of_texts(tmp_path: Path, name: str, delimiter: str) -> None:
    data = open_data(str(write_table(tmp_path / name, 6, delimiter)), texts(tmp_path))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1] * 3
    assert data.feeds(2)["mask"].shape == data.feeds(2)["ids"].shape
    assert not data.batchable
    assert open_data(data.where, texts(tmp_path, pad=True, max_length=16)).batchable


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"label,words\n1,a\n", "lacks the column text"),
        (b"", "lacks the column text"),
        (b"text,label\ngood,0\nbad\n", ":3: not a text,label"),
        (b"text,label\ngood, or bad,0\n", ":2: not a text,label"),
        (b"text,label\n", "no samples"),
        (b"text,label\n\xff,1\n", "does not read"),
        (b"text,label\ngood,0\nbad,three\n", "which is which|labels"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    wanted = texts(tmp_path)
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(EdgeKitError, match=words):
        open_data(str(tmp_path / "a.csv"), Wanted(wanted.inputs, 3, (), wanted.preprocess))


def test_what_nothing_says_how_to_read_is_refused_by_its_name(tmp_path: Path) -> None:
    record(tmp_path / "tones", 1)
    write_table(tmp_path / "a.csv", 2)
    for where, words in (("tones", "holds sounds, and nothing says"), ("a.csv", "holds texts, and nothing says")):
        with pytest.raises(EdgeKitError, match=words) as caught:
            open_data(str(tmp_path / where), Wanted((X,)))
        assert "--preprocess" in caught.value.hint
    with pytest.raises(EdgeKitError, match="holds no texts"):  # the vocabulary that lies there is none
        open_data(str(tmp_path / "tones"), texts(tmp_path / "tones"))
    (tmp_path / "tones" / "low" / "0.wav").write_bytes(b"RIFF")
    with pytest.raises(EdgeKitError, match=r"0\.wav is not a wav"):
        open_data(str(tmp_path / "tones" / "low"), sounds())


def test_inputs_that_nothing_is_made_for_are_named(tmp_path: Path) -> None:
    wanted = texts(tmp_path, mask=None)
    with pytest.raises(EdgeKitError, match="the model takes mask too"):
        open_data(str(write_table(tmp_path / "a.csv", 2)), wanted)
    model = Model("m", "onnx", {}, (IDS,), (X,), {}, lambda feeds: {}, Facts({}, 0, 0))
    with pytest.raises(EdgeKitError, match="makes mask too"):
        preprocessing({**TEXT, "vocab": str(tmp_path / "vocab.txt")}, model)


def test_the_same_files_otherwise_preprocessed_are_other_samples(tmp_path: Path) -> None:
    """Answers and calibrations are kept by the fingerprint: with wrong means they must not come back for right ones."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    inputs = (TensorSpec("x", "float32", (None, 3, 8, 8)),)
    first, same, other = (
        open_data(str(tmp_path), Wanted(inputs, preprocess=parse_preprocess({"kind": "image", "input": "x", **more})))
        for more in ({}, {"mean": 0}, {"mean": 1})
    )
    assert first.fingerprint == same.fingerprint != other.fingerprint
    where = str(write_table(tmp_path / "a.csv", 4))
    before = open_data(where, texts(tmp_path)).fingerprint
    VOCAB[4:6] = reversed(VOCAB[4:6])
    try:
        assert open_data(where, texts(tmp_path)).fingerprint != before
    finally:
        VOCAB[4:6] = reversed(VOCAB[4:6])
    assert raw_fingerprint(where) is not None


def test_a_build_with_another_vocabulary_is_another_build(tmp_path: Path) -> None:
    cache, table = Cache(tmp_path / "cache"), {**TEXT, "vocab": str(write_vocab(tmp_path))}
    order = Order(Origin(str(reading(tmp_path / "m.onnx"))), ("x86-64-v4",), preprocess=table)
    before = basis_of(order, cache, None)
    assert before is not None
    assert basis_of(order, cache, None) == before
    (tmp_path / "vocab.txt").write_text("\n".join(reversed(VOCAB)))
    assert basis_of(order, cache, None) != before


def test_a_vocabulary_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    write_vocab(tmp_path)
    (tmp_path / "p.toml").write_text('kind = "text"\ninput = "ids"\ntokenizer = "wordpiece"\nvocab = "vocab.txt"\n')
    assert parse_preprocess(read_preprocess(tmp_path / "p.toml")).kind == "text"
    (tmp_path / "net.py").write_text(f"PREPROCESS = {TEXT!r}\n\ndef make(): ...\n")
    found = completed(Order(Origin(f"{tmp_path / 'net.py'}:make"), ("rpi5",)))
    assert found.preprocess == {**TEXT, "vocab": str((tmp_path / "vocab.txt").resolve())}


@pytest.mark.parametrize(
    ("declared", "shapes"),
    [
        (SOUND, [("x", ("batch", 800), "float32")]),
        ({**SOUND, "layout": "NCT", "dtype": "int16"}, [("x", ("batch", 1, 800), "int16")]),
        ({**SOUND, "features": "log-mel", "n_mels": 40, "layout": "NCFT"}, [("x", ("batch", 1, 40, 6), "float32")]),
        ({**SOUND, "samples": None}, []),
        (
            {**TEXT, "tokenizer": "bytes", "vocab": None, "lower": False, "pad": True, "max_length": 9},
            [("ids", ("batch", 9), "int64"), ("mask", ("batch", 9), "int64")],
        ),
        ({**TEXT, "tokenizer": "bytes", "vocab": None}, []),
    ],
)
def test_preprocessing_tells_the_shapes(
    tmp_path: Path, declared: dict[str, object], shapes: list[tuple[str, Axes, str]]
) -> None:
    (tmp_path / "net.py").write_text(f"PREPROCESS = {declared!r}\n\ndef make(): ...\n")
    found = completed(Order(Origin(f"{tmp_path / 'net.py'}:make"), ("rpi5",)))
    assert found.origin.shapes == tuple(Shape(*shape) for shape in shapes)


def drafted(*inputs: TensorSpec) -> str:
    return draft(
        Origin("m.onnx"), Model("m", "onnx", {}, inputs, (X,), {}, lambda feeds: {}, Facts({}, 0, 0)), "rpi5", None
    )


def test_a_draft_shows_what_an_input_looks_like() -> None:
    assert 'kind = "image"' in drafted(TensorSpec("p", "float32", (None, 3, 64, 64)))
    heard = drafted(TensorSpec("waveform", "float32", (None, 1, None)))
    assert 'kind = "audio"' in heard
    assert 'layout = "NCT"' in heard
    assert "samples = 43844" in drafted(TensorSpec("y", "float32", (None, 43844, 1)))
    read = drafted(
        *(TensorSpec(name, "int64", (None, 64)) for name in ("input_ids", "attention_mask", "token_type_ids"))
    )
    assert 'mask = "attention_mask"' in read
    assert 'types = "token_type_ids"' in read
    for dull in (X, TensorSpec("features", "float32", (None, 12)), TensorSpec("steps", "int64", (None, 3))):
        assert "looks like" not in drafted(dull)


def build(folder: Path, model: Path, data: Path, labels: tuple[str, str]) -> Bundle:
    (folder / "words.txt").write_text("\n".join(labels) + "\n")
    done = edgekit(
        "build", model, "--target", "x86-64-v4", "--format", "onnx", "--precision", "float32", "--cache",
        folder / "cache", "--data", data, "--preprocess", folder / "p.toml", "--labels", folder / "words.txt",
        "--out", folder / "made.edgekit",
    )  # fmt: skip
    assert done.code == 0, done.err
    return open_bundle(folder / "made.edgekit")


def best(bundle: Bundle, path: Path) -> str:
    specs = [port.spec for port in bundle.manifest.inputs]
    feeds = read_inputs([str(path)], specs, bundle.preprocess())
    return top(bundle.open_model()(feeds), bundle.labels(), 1)[0][0]


def toml(folder: Path, table: dict[str, object]) -> None:
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for key, value in table.items()
    ]
    (folder / "p.toml").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_a_bundle_of_sounds_hears_a_wav(tmp_path: Path) -> None:
    toml(tmp_path, SOUND)
    bundle = build(tmp_path, hearing(tmp_path / "m.onnx"), record(tmp_path / "tones", 12), LABELS)
    assert bundle.manifest.evidence["quality"]["reference"] == 1
    for word, hertz in (("low", 333), ("high", 2111)):
        (tmp_path / "new.wav").write_bytes(tone(hertz, 44100, seed=99))
        assert best(bundle, tmp_path / "new.wav") == word


@pytest.mark.slow
def test_a_bundle_of_texts_carries_its_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vocab(tmp_path)
    toml(tmp_path, TEXT)
    data = write_table(tmp_path / "texts.csv", 40)
    bundle = build(tmp_path, reading(tmp_path / "m.onnx"), data, ("fine", "awful"))
    (tmp_path / "vocab.txt").unlink()
    monkeypatch.chdir("/")
    assert bundle.manifest.preprocess is not None
    assert bundle.manifest.preprocess["vocab"] == "vocab.txt"
    assert str(tmp_path) not in str(to_json(bundle.manifest)["preprocess"])
    for text, word in (("A SUPERB, sunny day!", "fine"), ("the day is d\u00edre", "awful")):
        (tmp_path / "new.txt").write_text(text)
        assert best(bundle, tmp_path / "new.txt") == word
    (bundle.folder / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(BadBundle, match=r"vocab\.txt was touched"):
        open_bundle(bundle.folder)
