"""Bundles that bring an exam take it once while they are served: told by status, metrics and log, and kept."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgekit_runtime.bundle import open_bundle, read_manifest, write_golden
from edgekit_runtime.exam import write_exam
from edgekit_runtime.scored import FOLDER
from edgekit_runtime.served import opened
from edgekit_runtime.service import Service, open_service
from edgekit_runtime.tensors import Feeds
from edgekit_runtime.watching import Watch

from tests.runtime.bundles import X, listed, make_bundle, some
from tests.runtime.examined import make_examined, samples_of
from tests.runtime.live import Live, live
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_examined(tmp_path_factory.mktemp("b") / "tiny")


def status(one: Live) -> dict[str, Any]:
    (told,) = json.loads(one.ask("/status")[1])["models"]
    found: dict[str, Any] = told
    return found


def metrics(one: Live) -> list[str]:
    return [line for line in one.ask("/metrics")[1].decode().splitlines() if line.startswith("edgekit_exam_")]


def test_it_is_taken_once_told_and_found_again_at_the_next_start(folder: Path, tmp_path: Path) -> None:
    watch = Watch(state=tmp_path)
    with live(open_service([folder]), watch=watch) as one:
        told = until(lambda: status(one)["exam"])
        assert (told["outcome"], told["n"], told["value"]) == ("passed", 200, 1.0)
        assert metrics(one)[0] == 'edgekit_exam_passed{model="tiny",version="1"} 1'
        assert one.lanes_answered() == 0
    (kept,) = (tmp_path / FOLDER).iterdir()
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "seconds": 12345.0}))
    with live(open_service([folder]), watch=watch) as one:
        assert until(lambda: status(one)["exam"])["seconds"] == 12345.0


def test_without_a_place_to_keep_it_it_is_taken_all_the_same(folder: Path) -> None:
    with live(open_service([folder])) as one:
        assert until(lambda: status(one)["exam"])["n"] == 200


def test_one_that_is_missed_is_an_error_in_the_log_and_served_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = make_examined(tmp_path / "tiny", 60)
    write_exam(bad / "exam.npz", [replace(one, right=(one.right + 1) % 4) for one in samples_of(60)], [X])
    listed(bad, read_manifest(bad))
    with live(open_service([bad])) as one:
        assert until(lambda: status(one)["exam"])["outcome"] == "missed"
        assert metrics(one)[0].endswith(" 0")
        x = some()
        sent = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.reshape(-1).tolist()}
        assert one.ask("/v2/models/tiny/infer", json.dumps({"inputs": [sent]}).encode())[0] == 200
    assert any("exam: MISSED" in record.getMessage() for record in caplog.records if record.levelname == "ERROR")


def test_one_that_does_not_read_is_a_warning_and_one_without_is_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = make_examined(tmp_path / "bad", 60)
    (bad / "exam.npz").write_bytes(b"no archive")
    listed(bad, replace(read_manifest(bad), name="bad"))
    with live(open_service([bad, make_bundle(tmp_path / "plain")])) as one:
        until(lambda: any("bad 1: no exam: exam.npz does not read" in record.getMessage() for record in caplog.records))
        told = json.loads(one.ask("/status")[1])["models"]
        assert [model["exam"] for model in told] == [None, None]
        assert metrics(one) == []


def test_a_server_that_ends_amid_an_exam_does_not_wait_for_it(tmp_path: Path) -> None:
    served = opened(open_bundle(make_examined(tmp_path / "tiny", 2000)))
    runs: list[Feeds] = []

    def run(feeds: Feeds) -> Feeds:
        runs.append(feeds)
        time.sleep(0.01)
        return served.run(feeds)

    with live(Service([replace(served, run=run)])) as one:
        until(lambda: len(runs) > 5)
        assert status(one)["exam"] is None
    assert len(runs) < 2000


def test_recorded_answers_alone_do_not_prove_it(tmp_path: Path) -> None:
    """The golden answers are made to fit a wrong model: the self-test passes, and the exam is missed."""
    from tests.runtime.devices import graph

    folder = make_examined(tmp_path / "tiny", 60)
    from onnx import helper

    (folder / "model.onnx").write_bytes(graph(helper.make_node("Neg", ["line"], ["y"])))
    run = open_bundle(listed(folder, read_manifest(folder))).open_model()
    write_golden(folder / "golden.npz", [({"x": some(1, n)}, run({"x": some(1, n)})) for n in range(3)])
    listed(folder, read_manifest(folder))
    with live(open_service([folder])) as one:
        assert until(lambda: status(one)["exam"])["outcome"] == "missed"
        assert until(lambda: status(one)["selftest"])["passed"] is True
