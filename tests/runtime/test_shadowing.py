"""A version in shadow on a device: a real server process, real engines, promoted or dropped by itself under traffic."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.device import Device

from tests.runtime.devices import Maker, Serving, device_folder, fragile, graph, runtime, serving, soon, wide
from tests.runtime.signing import relisted, sign_folder

pytestmark = pytest.mark.slow

FEW = ("--shadow", 1, "--shadow-requests", 200, "--probation", 1)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, maker: Maker) -> Path:
    """A device whose version 1 is proven good."""
    made = device_folder(tmp_path / "device", maker)
    install(made, maker.bundle("1"), "--probation", 0)
    with serving(made):
        soon(lambda: Device(made).store.slot("tiny").on_trial is None)
    return made


def install(folder: Path, bundle: Path, *words: object) -> Any:
    done = runtime("install", bundle, "--device", folder, "--json", *words)
    told = json.loads(done.stdout)
    assert (done.returncode == 0) == (told["outcome"] not in ("refused", "rolled back", "dropped")), done.stderr
    return told


@contextmanager
def traffic(server: Serving) -> Iterator[list[tuple[float, Any]]]:
    """Requests, one after the other: what was sent and what came."""
    answers: list[tuple[float, Any]] = []
    over = threading.Event()

    def load() -> None:
        while not over.wait(0.002):
            value = (len(answers) % 100) / 100
            answers.append((value, server.infer(value)))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def upside_down() -> bytes:
    """A model whose best class is the worst one of the others'."""
    from onnx import helper

    return graph(helper.make_node("Neg", ["line"], ["y"]))


def of(server: Serving, version: str) -> list[tuple[str, str]]:
    return [(what, why) for what, one, why in server.history() if one == version]


def slot(folder: Path) -> Any:
    return Device(folder).store.slot("tiny")


def outputs(answers: list[tuple[float, Any]]) -> dict[float, list[list[float]]]:
    found: dict[float, list[list[float]]] = {}
    for value, answer in answers:
        assert "outputs" in answer, answer
        found.setdefault(value, []).append(answer["outputs"][0]["data"])
    return found


def test_a_version_that_agrees_is_promoted_by_itself(folder: Path, maker: Maker) -> None:
    with serving(folder) as server:
        before = {value: server.infer(value)["outputs"][0]["data"] for value in (0.1, 0.5, 0.9)}
        told = install(folder, maker.bundle("2"), *FEW)
        assert told["outcome"] == "shadowing", told
        assert server.version() == "1"
        status = json.loads(runtime("status", "--device", folder, "--json").stdout)["models"][0]
        assert (status["shadow"]["version"], status["shadow"]["begun"]) == ("2", True)
        assert b"shadow    2 (" in runtime("status", "--device", folder).stdout
        with traffic(server) as answers:
            soon(lambda: ("proven good", "") in of(server, "2"))
        found = outputs(answers)
        assert {answer["model_version"] for _, answer in answers} == {"1", "2"}
        for value, data in before.items():
            np.testing.assert_allclose(found[value], np.broadcast_to(data, (len(found[value]), 4)), rtol=1e-5)
        history = of(server, "2")
        assert [what for what, _ in history] == ["shadowing", "promoted", "replaced", "proven good"]
        assert re.match(r"(\d+) of \1 agreed", history[1][1])
        metrics = server.ask("/metrics").decode()
        assert 'edgekit_store_shadow_compared_total{model="tiny",version="2"} ' in metrics
        events = [one.what for one in Device(folder).store.history("tiny") if one.version == "2"]
        assert events == ["shadowing", "promoted", "activated", "good"]


def test_a_version_that_disagrees_is_dropped_and_not_tried_again(folder: Path, maker: Maker) -> None:
    with serving(folder) as server:
        two = maker.bundle("2", upside_down())
        assert install(folder, two, *FEW)["outcome"] == "shadowing"
        with traffic(server) as answers:
            soon(lambda: any(what == "dropped" for what, _ in of(server, "2")))
        assert {answer["model_version"] for _, answer in answers} == {"1"}
        assert "it disagrees: 0 of " in of(server, "2")[-1][1]
        assert 'edgekit_store_shadow_agreed_total{model="tiny",version="2"} 0' in server.ask("/metrics").decode()
        assert server.ask("/status")["models"][0]["candidate"] is None
    assert (slot(folder).shadow, len(slot(folder).refused)) == (None, 1)
    told = install(folder, two, *FEW)
    assert "dropped on this device" in told["error"]


def test_a_slow_version_is_dropped_and_takes_its_share_of_the_time_and_no_more(folder: Path, maker: Maker) -> None:
    with serving(folder) as server:
        begun = time.monotonic()
        install(folder, maker.bundle("2", wide(400)), "--shadow", 1, "--shadow-requests", 20)
        with traffic(server):

            def dropped() -> bool:
                found = server.ask("/status")["models"][0]["candidate"]
                spent = 0.0 if found is None else (found["compared"] - 1) * found["ms"] / 1e3
                assert spent < 0.03 * (time.monotonic() - begun), found
                return any(what == "dropped" for what, _ in of(server, "2"))

            soon(dropped, 300)
        assert "it is slower" in of(server, "2")[-1][1]
        assert server.version() == "1"


def test_a_version_that_fails_on_requests_is_dropped(folder: Path, maker: Maker) -> None:
    with serving(folder) as server:
        install(folder, maker.bundle("2", fragile()), *FEW)

        def dropped() -> bool:
            assert "outputs" in server.infer(100.0)
            return any(what == "dropped" for what, _ in of(server, "2"))

        soon(dropped)
        assert "it failed on 3 requests" in of(server, "2")[-1][1]


def test_without_enough_requests_it_is_dropped_and_may_be_tried_again(folder: Path, maker: Maker) -> None:
    with serving(folder) as server:
        install(folder, maker.bundle("2"), *FEW, "--shadow-seconds", 2)
        soon(lambda: any(what == "dropped" for what, _ in of(server, "2")))
        assert "its 2 s are over" in of(server, "2")[-1][1]
        assert install(folder, maker.folder / "v2", *FEW)["outcome"] == "shadowing"


def test_a_version_that_brings_the_server_down_again_and_again_is_dropped_at_a_start(
    folder: Path, maker: Maker
) -> None:
    with serving(folder) as server:
        install(folder, maker.bundle("2"), *FEW)
        server.kill()
    for _ in range(2):
        with serving(folder) as server:
            soon(lambda: server.ask("/status")["models"][0]["candidate"])
            server.kill()
        assert slot(folder).shadow is not None
    with serving(folder) as server:
        assert (server.version(), server.ask("/status")["models"][0]["candidate"]) == ("1", None)
        assert server.history()[0][:2] == ("dropped", "2")
        assert "did not end well" in server.history()[0][2]


def test_a_server_that_is_stopped_keeps_what_is_in_shadow(folder: Path, maker: Maker) -> None:
    assert "next start" in install(folder, maker.bundle("2"), *FEW)["why"]
    for _ in range(5):
        with serving(folder) as server:
            soon(lambda: server.ask("/status")["models"][0]["candidate"])
        assert slot(folder).shadow.starts == 0
    with serving(folder) as server, traffic(server):
        soon(lambda: server.version() == "2")


def test_other_terms_for_what_is_in_shadow_are_taken_at_once(folder: Path, maker: Maker) -> None:
    with serving(folder) as server:
        two = maker.bundle("2")
        install(folder, two, *FEW, "--shadow-requests", 100_000)
        soon(lambda: server.ask("/status")["models"][0]["candidate"]["of"] == 100_000)
        assert install(folder, two, *FEW, "--shadow-requests", 90_000)["outcome"] == "shadowing"
        soon(lambda: server.ask("/status")["models"][0]["candidate"]["of"] == 90_000)
        assert slot(folder).shadow.started is not None
        assert "dropped" not in [what for what, _ in of(server, "2")]


def test_what_is_in_shadow_goes_when_it_is_told_to_and_when_another_version_comes(folder: Path, maker: Maker) -> None:
    with serving(folder) as server:
        two = install(folder, maker.bundle("2"), *FEW)["id"]
        assert runtime("gc", "--device", folder).returncode == 0
        assert two in Device(folder).store.ids("tiny")
        assert runtime("rollback", "tiny", "--shadow", "--device", folder).returncode == 0
        assert server.ask("/status")["models"][0]["candidate"] is None
        assert server.version() == "1"
        runtime("gc", "--device", folder)
        assert two not in Device(folder).store.ids("tiny")
        install(folder, maker.folder / "v2", *FEW)
        assert install(folder, maker.bundle("3"), "--probation", 0)["outcome"] == "serving"
        soon(lambda: server.ask("/status")["models"][0]["candidate"] is None)
        assert slot(folder).shadow is None
        assert (server.version(), [what for what, _ in of(server, "2")][-1]) == ("3", "dropped")


def test_more_memory_than_is_allowed_is_refused_with_words(folder: Path, maker: Maker) -> None:
    made = {version: maker.bundle(version) for version in ("3", "4")}
    for bundle in made.values():
        (bundle / "model.sig").unlink()
        sign_folder(relisted(bundle, evidence={"peak_mb": 100}), maker.key)
    install(folder, made["3"], "--probation", 0)
    with serving(folder, "--max-memory", "150") as server:
        soon(lambda: slot(folder).on_trial is None)
        told = install(folder, made["4"], *FEW)
        assert (told["outcome"], told["reason"]) == ("dropped", "dropped")
        assert "more than --max-memory leaves" in told["why"]
        assert server.version() == "3"


def test_what_cannot_be_compared_is_refused(folder: Path, maker: Maker) -> None:
    other = maker.bundle("2", preprocess={"kind": "image", "input": "x", "resize": [2, 2], "scale": 0.5})
    assert "prepares its inputs otherwise" in install(folder, other, *FEW)["error"]
    two = maker.bundle("3")
    assert "do not go together" in install(folder, two, *FEW, "--no-activate")["error"]
    install(folder, two)
    assert "is on trial still" in install(folder, maker.bundle("4"), *FEW)["error"]
    assert b"no share" in runtime("install", two, "--device", folder, "--shadow", 2).stderr
