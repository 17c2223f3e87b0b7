"""The worker: messages both ways, engines behind them, and nothing that a message can do beyond that."""

import io
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import frames
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.frames import LENGTHS, MAGIC, Message, pack, read
from edgekit_runtime.manifest import port_to_json
from edgekit_runtime.worker import serve

from tests.runtime.bundles import ENTRIES, int8_out, int8_port, some, truth, write_model

OPTIONS = {"threads": 1, "device": "cpu", "precision": "float32"}


def answers(*messages: Message, scratch: Path | None = None) -> list[Message]:
    """What the worker says to these messages, after its hello."""
    said: list[Message] = []
    serve(iter(messages), said.append, scratch)
    return said[1:]


def opening(path: Path, engine: str, **more: Any) -> Message:
    return Message({"do": "open", "name": "m", "engine": engine, "path": str(path), "options": OPTIONS, **more})


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint8", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (1, 2, 3, 4)])
def test_arrays_arrive_as_they_were_sent(dtype: str, shape: tuple[int, ...]) -> None:
    sent = np.arange(24, dtype=np.int64)[: int(np.prod(shape))].reshape(shape).astype(dtype)
    got = read(io.BytesIO(pack(Message({"do": "x"}, {"ä/b": sent}))))
    assert got is not None
    assert got.head == {"do": "x"}
    assert (got.arrays["ä/b"].dtype, got.arrays["ä/b"].shape) == (sent.dtype, sent.shape)
    assert np.array_equal(got.arrays["ä/b"], sent)
    assert got.arrays["ä/b"].flags.writeable


def test_other_layouts_and_byte_orders_arrive_as_plain_ones() -> None:
    sent = np.arange(6, dtype=">i4").reshape(2, 3).T
    got = read(io.BytesIO(pack(Message({}, {"x": sent}))))
    assert got is not None
    assert np.array_equal(got.arrays["x"], sent)


@pytest.mark.parametrize("value", [np.array(["word"]), np.array([{}], object), np.zeros(2, "f4,f4"), np.zeros(1, "c8")])
def test_what_is_no_number_is_not_sent(value: Any) -> None:
    with pytest.raises(BadRequest, match="cannot be sent to a worker"):
        pack(Message({}, {"x": value}))


def test_a_message_too_large_is_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(Message({}, {"x": np.zeros(1000)}))
    monkeypatch.setattr(frames, "MAX_BODY", 7999)
    with pytest.raises(BadRequest, match="MB travel at once"):
        pack(Message({}, {"x": np.zeros(1000)}))
    with pytest.raises(BadRequest, match="MB travel at once"):
        read(io.BytesIO(packed))


def listed(**entry: Any) -> bytes:
    """A message of eight bytes whose array is listed so."""
    import json

    head = json.dumps({"arrays": [{"name": "x", "dtype": "<f4", "shape": [2], **entry}]}).encode()
    return LENGTHS.pack(MAGIC, len(head), 8) + head + bytes(8)


def test_a_listed_array_reads() -> None:
    assert read(io.BytesIO(listed())) is not None


@pytest.mark.parametrize(
    "bad",
    [
        b"Welcome to your Raspberry Pi!\n",
        b"EKW1",
        listed()[:-1],
        LENGTHS.pack(MAGIC, 2**31, 0),
        LENGTHS.pack(MAGIC, 2, 2**63),
        LENGTHS.pack(MAGIC, 2, 0) + b"[]",
        LENGTHS.pack(MAGIC, 2, 0) + b"\xff\xff",
        LENGTHS.pack(MAGIC, 2, 0) + b"{}",
        listed(dtype="|O"),
        listed(dtype="<f4,<f4"),
        listed(dtype=5),
        listed(shape=[3]),
        listed(shape=[1]),
        listed(shape=[-1]),
        listed(shape=[2**40]),
        listed(shape=[True, 2]),
        listed(shape=[2.0]),
        listed(shape=[1] * 40 + [2]),
    ],
)
def test_bytes_that_are_no_message_are_refused_in_one_line(bad: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read(io.BytesIO(bad))
    assert "\n" not in caught.value.what


def test_the_hello_tells_the_machines_facts() -> None:
    said: list[Message] = []
    serve(iter(()), said.append)
    facts = said[0].head["facts"]
    assert said[0].head["protocol"] == 1
    assert facts["arch"] == os.uname().machine
    assert set(facts["engines"]) == set(ENTRIES)
    assert facts["numpy"] == np.__version__
    assert read(io.BytesIO(pack(said[0]))) is not None


@pytest.mark.parametrize("engine", list(ENTRIES))
def test_an_artifact_is_opened_and_asked_by_its_own_tensors(tmp_path: Path, engine: str) -> None:
    write_model(tmp_path / ENTRIES[engine], engine)
    x = some(2) if engine != "tflite" else some(2).transpose(0, 2, 3, 1)
    opened, answer = answers(
        opening(tmp_path / ENTRIES[engine], engine), Message({"do": "infer", "name": "m"}, {"x": x})
    )
    assert opened.head == {"do": "opened"}
    assert np.abs(answer.arrays["y"] - truth(some(2))).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("engine", list(ENTRIES))
def test_with_ports_it_is_asked_by_the_users_tensors(tmp_path: Path, engine: str) -> None:
    write_model(tmp_path / ENTRIES[engine], engine, inside=True)
    ports = {"inputs": [port_to_json(int8_port())], "outputs": [port_to_json(int8_out())]}
    _, answer = answers(
        opening(tmp_path / ENTRIES[engine], engine, **ports), Message({"do": "infer", "name": "m"}, {"x": some(3)})
    )
    assert np.abs(answer.arrays["y"] - truth(some(3))).max() < 0.06


def test_artifacts_are_timed_in_turn_round_by_round(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", "onnx")
    again = opening(tmp_path / "model.onnx", "onnx", name="n")
    asked = Message({"do": "time", "names": ["m", "n"], "seconds": 0.0}, {"x": some(1)})
    *_, timed = answers(opening(tmp_path / "model.onnx", "onnx"), again, asked)
    assert [len(times) for times in timed.arrays.values()] == [10, 10]
    assert all((times > 0).all() for times in timed.arrays.values())


@pytest.mark.slow
def test_the_memory_of_an_artifact_is_measured_in_a_fresh_process(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", "onnx")
    *_, found = answers(
        opening(tmp_path / "model.onnx", "onnx"), Message({"do": "footprint", "name": "m"}, {"x": some(1)})
    )
    assert found.head["measured"]["peak_mb"] > found.head["measured"]["engine_mb"] > 5


def test_errors_come_back_as_answers_and_the_worker_goes_on(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"rubbish")
    write_model(tmp_path / "model.onnx", "onnx")
    broken, unknown, nothing, opened, wrong, good = answers(
        opening(tmp_path / "broken.onnx", "onnx"),
        Message({"do": "infer", "name": "m"}),
        Message({"do": "dance"}),
        opening(tmp_path / "model.onnx", "onnx"),
        Message({"do": "infer", "name": "m"}, {"x": np.zeros(3, np.float32)}),
        Message({"do": "infer", "name": "m"}, {"x": some(1)}),
    )
    assert (broken.head["do"], broken.head["kind"]) == ("error", "Unsupported")
    assert "broken.onnx does not load in ONNX Runtime" in broken.head["what"]
    assert (unknown.head["kind"], nothing.head["kind"]) == ("NotFound", "BadRequest")
    assert opened.head["do"] == "opened"
    assert wrong.head["do"] == "error"
    assert good.head["do"] == "answer"


def test_a_request_without_its_words_is_refused() -> None:
    assert "without 'name'" in answers(Message({"do": "infer"}))[0].head["what"]
    assert "seconds" in answers(Message({"do": "time", "names": []}))[0].head["what"]


def test_files_are_put_piece_by_piece_and_opened_from_there(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", "onnx")
    scratch = tmp_path / "scratch"
    whole = np.frombuffer((tmp_path / "model.onnx").read_bytes(), np.uint8)
    put = {"do": "put", "file": "a/model.onnx"}
    said = answers(
        Message({**put, "more": False}, {"bytes": whole[:100]}),
        Message({**put, "more": True}, {"bytes": whole[100:]}),
        opening(Path("a/model.onnx"), "onnx", was_put=True),
        Message({"do": "infer", "name": "m"}, {"x": some(1)}),
        Message({"do": "shut", "name": "m", "folder": "a"}),
        Message({"do": "infer", "name": "m"}, {"x": some(1)}),
        scratch=scratch,
    )
    assert [answer.head["do"] for answer in said] == ["put", "put", "opened", "answer", "shut", "error"]
    assert not (scratch / "a").exists()


@pytest.mark.parametrize("file", ["../out", "/tmp/out", "a/../../out", ""])
def test_a_file_outside_the_scratch_folder_is_refused(tmp_path: Path, file: str) -> None:
    said = answers(
        Message({"do": "put", "file": file, "more": False}, {"bytes": np.zeros(1, np.uint8)}),
        opening(Path(file), "onnx", was_put=True),
        Message({"do": "shut", "name": "m", "folder": file}),
        scratch=tmp_path / "scratch",
    )
    assert ["is not a place for a file" in answer.head["what"] for answer in said] == [True] * 3


def test_without_a_scratch_folder_nothing_is_put(tmp_path: Path) -> None:
    said = answers(Message({"do": "put", "file": "a", "more": False}, {"bytes": np.zeros(1, np.uint8)}))
    assert said[0].head["do"] == "error"


@pytest.fixture
def worker() -> Iterator["subprocess.Popen[bytes]"]:
    """A worker in a process of its own, past its hello."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "edgekit_runtime.worker"], **pipes) as process:  # type: ignore[call-overload]
        hello = read(process.stdout)
        assert hello is not None
        assert hello.head["do"] == "hello"
        yield process
        process.kill()


def test_a_worker_ends_with_its_stdin(worker: "subprocess.Popen[bytes]") -> None:
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(timeout=10) == 0


def test_a_worker_ends_with_its_stdin_even_amid_its_work(worker: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    assert worker.stdin is not None
    write_model(tmp_path / "model.onnx", "onnx")
    worker.stdin.write(pack(opening(tmp_path / "model.onnx", "onnx")))
    worker.stdin.write(pack(Message({"do": "time", "names": ["m"], "seconds": 600}, {"x": some(1)})))
    worker.stdin.close()
    began = time.monotonic()
    worker.wait(timeout=30)
    assert time.monotonic() - began < 20


def test_after_rubbish_the_worker_says_so_and_ends(worker: "subprocess.Popen[bytes]") -> None:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(b"GET / HTTP/1.1\r\n\r\n")
    worker.stdin.flush()
    said = read(worker.stdout)  # type: ignore[arg-type]
    assert said is not None
    assert "no message" in said.head["what"]
    assert worker.wait(timeout=10) == 1


def test_what_engines_print_does_not_come_between_the_messages(tmp_path: Path) -> None:
    """A module that prints, and a C library that writes to descriptor 1, both while the worker answers."""
    (tmp_path / "loud.py").write_text(
        "import os\nfrom edgekit_runtime import worker\n"
        "old = worker._answer\n"
        "def loud(*args):\n    print('from Python'); os.write(1, b'from C\\n'); return old(*args)\n"
        "worker._answer = loud\nraise SystemExit(worker.main())\n"
    )
    sent = pack(Message({"do": "dance"}))
    process = subprocess.Popen(
        [sys.executable, tmp_path / "loud.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdin.write(sent)
        process.stdin.flush()
        hello, said = read(process.stdout), read(process.stdout)  # type: ignore[arg-type]
        process.stdin.close()
        assert hello is not None
        assert said is not None
        assert said.head["kind"] == "BadRequest"
        assert process.stdout.read() == b""
        assert b"from C" in process.stderr.read()


def test_the_frames_lengths_are_as_documented() -> None:
    assert struct.calcsize(">4sIQ") == LENGTHS.size == 16
