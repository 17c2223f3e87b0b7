"""A running server watches itself: drift, samples, feedback and self-tests, over the wires that people use."""

import asyncio
import io
import json
import shutil
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime import machine
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.feedback import FILE, Feedback
from edgekit_runtime.hook import Hook
from edgekit_runtime.limits import MIB
from edgekit_runtime.pace import Pace
from edgekit_runtime.served import opened
from edgekit_runtime.service import Policy, Service, open_service
from edgekit_runtime.telemetering import Telemetry, Wanted
from edgekit_runtime.watched import Wishes
from edgekit_runtime.watching import Watch, Watching

from tests.clients.serving import serving
from tests.runtime.bundles import LABELS, add_baseline, make_bundle, some, truth
from tests.runtime.live import LOCAL, Where, live, pair
from tests.runtime.test_telemetering import events
from tests.waiting import until

ALWAYS = Wishes(share=1.0)
INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return add_baseline(make_bundle(tmp_path_factory.mktemp("b") / "tiny"))


def request(x, id=None):
    """A request for `tiny`."""
    sent = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.reshape(-1).tolist()}
    return json.dumps({"inputs": [sent], **({} if id is None else {"id": id})}).encode()


def status(one):
    code, body, headers = one.ask("/status")
    assert (code, headers["cache-control"]) == (200, "no-store")
    return json.loads(body)


def metrics(one, name):
    """The lines of that metric."""
    return [line for line in one.ask("/metrics")[1].decode().splitlines() if line.startswith(name)]


def monitors():
    return [thread for thread in threading.enumerate() if thread.name == "monitor"]


def looked(one, count):
    until(lambda: status(one)["monitor"]["looked"] >= count)


def do(one, work):
    """On the server's loop."""
    return asyncio.run_coroutine_threadsafe(work, one.loop).result(20)


def test_where_there_is_nothing_to_watch_no_thread_is_started_and_no_answer_is_told_of(tmp_path):
    plain = opened(open_bundle(make_bundle(tmp_path / "plain", name="plain")))
    with live(Service([plain, pair(lambda feeds: {"y": feeds["x"]})])) as one:
        assert one.ask("/v2/models/plain/infer", request(some()))[0] == 200
        assert all(lane.observer is None for lane in one.server.service.lanes())
        assert not monitors()
        assert status(one)["monitor"] == {"looked": 0, "skipped": 0}
        assert {told["drift"] for told in status(one)["models"]} == {None}
        assert "x-request-id" not in one.ask(INFER.replace("tiny", "plain"), request(some()), X_Request_Id="mine")[2]


def test_where_drift_is_switched_off_a_baseline_is_not_looked_at(folder):
    with live(open_service([folder]), watch=Watch(wishes=Wishes(drift=False))) as one:
        assert one.ask(INFER, request(some()))[0] == 200
        assert not monitors()


def test_a_drift_is_told_by_status_metrics_log_telemetry_and_the_command_and_its_end_too(folder, tmp_path, caplog):
    heard = tmp_path / "heard"
    script = tmp_path / "tell"
    script.write_text(f"#!{sys.executable} -I\nimport sys\nopen({str(heard)!r}, 'a').write(sys.stdin.read() + '\\n')\n")
    script.chmod(0o755)
    telemetry = Telemetry(Wanted(tmp_path / "state", MIB))
    watch = Watch(wishes=ALWAYS, state=tmp_path / "state", telemetry=telemetry, hook=Hook(str(script), 0.0))
    with live(open_service([folder]), watch=watch) as one:
        sent = 0
        for seed in range(50):
            assert one.ask(INFER, request(some(8, 5000 + 8 * seed)))[0] == 200
            looked(one, sent := sent + 1)
        (told,) = status(one)["models"]
        assert (told["drift"]["alarm"], told["drift"]["since_ms"], told["drift"]["n"]) == (False, None, 400)
        begun_ms, shifted = time.time() * 1000, 0
        while not status(one)["models"][0]["drift"]["alarm"]:
            assert (shifted := shifted + 8) <= 500
            assert one.ask(INFER, request(some(8, 20_000 + shifted) * np.float32(0.4)))[0] == 200
            looked(one, sent := sent + 1)
        found = until(lambda: status(one)["models"][0]["drift"]["since_ms"] and status(one)["models"][0]["drift"])
        assert abs(found["since_ms"] - begun_ms) < 60_000
        moved = {feature["name"] for feature in found["features"] if feature["alarm"]}
        assert "brightness" in moved
        assert metrics(one, "edgekit_drift_alarm{") == ['edgekit_drift_alarm{model="tiny",version="1"} 1']
        assert any("drift alarm raised: tiny 1: " in error["what"] for error in status(one)["errors"])
        assert [change["what"] for change in status(one)["history"]][-1] == "drift raised"
        fact = json.loads(until(lambda: heard.exists() and heard.read_text()))
        assert (fact["event"], fact["model"], fact["version"], fact["raised"]) == ("drift-raised", "tiny", "1", True)
        assert fact["features"]
        until(lambda: metrics(one, 'edgekit_hook_runs_total{outcome="ok"} 1'))
        one.loop.call_soon_threadsafe(one.server.service._take, "tiny", "1")
        until(lambda: not status(one)["models"])
        one.loop.call_soon_threadsafe(one.server.watching._know)
        until(lambda: heard.read_text().count("\n") == 2)
        assert json.loads(heard.read_text().splitlines()[1])["event"] == "drift-cleared"
    said = [record.getMessage() for record in caplog.records if "drift alarm" in record.getMessage()]
    assert [line.split(":")[0] for line in said] == ["drift alarm raised", "drift alarm cleared"]
    kept = [facts for _, kind, facts in events(tmp_path / "state") if kind == "drift"]
    assert [one["raised"] for one in kept] == [True, False]


def test_a_new_version_is_held_against_its_own_baseline_and_the_old_ones_state_is_gone(folder, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(folder, repository / "one")
    service = open_service([], policy=Policy(repository=repository))
    watch = Watch(wishes=ALWAYS, telemetry=Telemetry(Wanted(tmp_path / "state", MIB)), state=tmp_path / "state")
    with live(service, watch=watch) as one:
        for seed in range(8):
            one.ask(INFER, request(some(8, seed)))
            looked(one, seed + 1)
        assert status(one)["models"][0]["drift"]["n"] == 50
        old = service.lanes()[0]
        add_baseline(make_bundle(repository / "two", version="2"), 300)
        do(one, service.load("tiny"))
        (told,) = status(one)["models"]
        assert (told["version"], told["drift"]) == ("2", None)
        until(lambda: one.server.watching._monitor.state(old) is None)
        one.ask(INFER, request(some(8)))
        looked(one, 9)
        assert status(one)["models"][0]["drift"]["n"] == 0
        assert one.server.watching._monitor._known.keys() == set(service.lanes())
        do(one, service.unload("tiny"))
        until(lambda: not one.server.watching._monitor._known)
        make_bundle(repository / "bad", version="3")
        (repository / "bad" / "model.onnx").write_bytes(b"")
        with pytest.raises(Exception, match="not whole"):
            do(one, service.load("tiny"))
        history = status(one)["history"]
        assert [change["what"] for change in history] == ["loaded", "replaced", "unloaded"]
        assert str(tmp_path) not in one.ask("/status")[1].decode()
    assert [facts["what"] for _, kind, facts in events(tmp_path / "state") if kind == "model"] == [
        "replaced", "unloaded",
    ]  # fmt: skip


def test_a_first_model_that_comes_later_is_watched_too(folder, tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    service = open_service([], policy=Policy(repository=repository))
    with live(service, watch=Watch(wishes=ALWAYS)) as one:
        assert not monitors()
        shutil.copytree(folder, repository / "one")
        do(one, service.load("tiny"))
        assert one.ask(INFER, request(some()))[0] == 200
        looked(one, 1)
    assert not monitors()


def test_quick_and_slow_models_and_photos_and_grpc_are_all_seen(folder, tmp_path):
    import tritonclient.grpc as triton
    from PIL import Image

    photo = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(photo, "JPEG")
    service = open_service([folder])
    lane = service.lanes()[0]
    lane._pace = Pace()
    lane._pace.learn(MIB, 1)  # quick, whatever this machine did at the moment when it was tried
    with live(service, Where(LOCAL, grpc=LOCAL), watch=Watch(wishes=ALWAYS)) as one:
        one.ask(INFER, request(some()))
        looked(one, 1)
        given = triton.InferInput("x", [3, 3, 2, 2], "FP32")
        given.set_data_from_numpy(some(3))
        with triton.InferenceServerClient(one.at["grpc"]) as client:
            client.infer("tiny", [given])
        looked(one, 2)
        assert one.ask(INFER, photo.getvalue(), Content_Type="image/jpeg")[0] == 200
        looked(one, 3)
        real = lane._run
        lane._run = lambda feeds: time.sleep(0.02) or real(feeds)
        for _ in range(3):
            one.ask(INFER, request(some()))
        assert not lane.quick  # 20 ms once takes the trust away
        looked(one, 6)
        assert lane.observer is not None
        assert one.server.watching._monitor.failed == 0


def test_each_answer_has_an_id_where_true_labels_are_taken(folder):
    with live(open_service([folder]), watch=Watch(wishes=Wishes(feedback=Feedback()))) as one:
        assert one.ask(INFER, request(some()), X_Request_Id="mine-1")[2]["x-request-id"] == "mine-1"
        made = [one.ask(INFER, request(some()))[2]["x-request-id"] for _ in range(2)]
        assert len(set(made)) == 2
        code, body, headers = one.ask(INFER, request(some(), id="theirs"), X_Request_Id="other")
        assert (headers["x-request-id"], json.loads(body)["id"]) == ("theirs", "theirs")
        assert "x-request-id" not in one.ask(INFER, request(some(), id="ö\n"))[2]
        assert one.ask(INFER, request(some()), X_Request_Id="a b")[2]["x-request-id"] != "a b"
        right = LABELS[int(truth(some()).argmax())]
        for id, label, good in (("mine-1", right, True), (made[0], "fish" if right != "fish" else "cat", False)):
            code, body, _ = one.ask("/feedback", json.dumps({"id": id, "label": label}).encode())
            assert (code, json.loads(body)["right"]) == (200, good)
        found = status(one)["models"][0]["quality"]
        assert (found["n"], found["accuracy"], found["built"]) == (2, 0.5, None)  # its build measured something else
        assert metrics(one, "edgekit_quality_accuracy{") == ['edgekit_quality_accuracy{model="tiny",version="1"} 0.5']


def test_feedback_outlives_a_restart(folder, tmp_path):
    right = LABELS[int(truth(some()).argmax())]
    for turn in (1, 2):
        watch = Watch(wishes=Wishes(feedback=Feedback()), state=tmp_path)
        with live(open_service([folder]), watch=watch) as one:
            one.ask(INFER, request(some(), id=f"of-{turn}"))
            told = json.dumps({"id": "of-1", "label": right}).encode()
            assert one.ask("/feedback", told)[0] == 200
            assert status(one)["models"][0]["quality"]["n"] == 1
    assert (tmp_path / FILE).exists()


def test_a_disk_that_is_gone_ends_neither_the_server_nor_its_watch(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("edgekit_runtime.watching.KEEP_SECONDS", 0.05)
    state = tmp_path / "state"
    state.mkdir()
    watch = Watch(wishes=Wishes(feedback=Feedback()), state=state)
    with live(open_service([folder]), watch=watch) as one:
        until((state / FILE).exists)
        shutil.rmtree(state)
        until(lambda: any("not written down" in error["what"] for error in status(one)["errors"]))
        time.sleep(0.2)
        assert one.ask(INFER, request(some(), id="a"))[0] == 200
        state.mkdir()
        until((state / FILE).exists)
        shutil.rmtree(state)
    assert sum("not written down" in record.getMessage() for record in caplog.records) <= 2


def test_the_machine_is_never_read_on_the_event_loop_and_not_for_each_who_asks(monkeypatch):
    threads, real = [], machine.Reader.read

    def read(self, now):
        threads.append(threading.current_thread())
        return real(self, now)

    monkeypatch.setattr(machine.Reader, "read", read)
    loops = []
    with live(Service([pair(lambda feeds: {"y": feeds["x"]})])) as one:
        one.loop.call_soon_threadsafe(lambda: loops.append(threading.current_thread()))
        begun, asked = time.monotonic(), 0
        while len(threads) < 2 or asked < 20:
            assert status(one)["machine"]
            assert metrics(one, "edgekit_machine")
            asked += 1
            time.sleep(0.02)
        assert len(threads) <= time.monotonic() - begun + 2
        assert loops[0] not in threads


@pytest.mark.slow
def test_a_server_ends_while_its_watch_is_busy(folder, tmp_path):
    answers = threading.Event()

    class Stuck:
        """A store of samples on a disk that does not answer."""

        def consider(self, one):
            answers.wait(60)

        def families(self):
            return []

    with live(open_service([folder]), watch=Watch(wishes=Wishes(samples=Stuck()))) as one:
        one.ask(INFER, request(some()))
        until(one.server.watching._monitor._queue.empty)
        begun = time.monotonic()
    assert time.monotonic() - begun < 30
    answers.set()


def test_a_request_is_answered_while_the_watch_fails(folder, monkeypatch, caplog):
    monkeypatch.setattr("edgekit_runtime.drift.Drift.add", lambda *given: 1 / 0)
    with live(open_service([folder]), watch=Watch(wishes=ALWAYS)) as one:
        for seed in range(20):
            assert one.ask(INFER, request(some(1, seed)))[0] == 200
            looked(one, seed + 1)
        assert metrics(one, "edgekit_monitor_failed_total") == ["edgekit_monitor_failed_total 20"]
        assert one.lanes_answered() == 20


def test_errors_of_the_log_are_told_while_it_runs_and_no_longer(folder):
    import logging

    log = logging.getLogger("edgekit_runtime.test")
    with live(open_service([folder])) as one:
        log.error("something %s", "odd")
        log.info("fine")
        assert [error["what"] for error in status(one)["errors"]] == ["something odd"]
        recent = one.server.watching._recent
    log.error("later")
    assert [error.what for error in recent.all()] == ["something odd"]


@pytest.mark.slow
def test_the_self_test_is_told_soon_and_again_after_a_swap(tmp_path):
    repository = tmp_path / "repository"
    make_bundle(repository / "one")
    service = open_service([], policy=Policy(repository=repository))
    with live(service) as one:
        assert until(lambda: status(one)["models"][0]["selftest"], 60)["passed"] is True
        assert metrics(one, "edgekit_selftest_passed{") == ['edgekit_selftest_passed{model="tiny",version="1"} 1']
        make_bundle(repository / "two", version="2")
        do(one, service.load("tiny"))
        assert status(one)["models"][0]["selftest"] is None
        assert until(lambda: status(one)["models"][0]["selftest"], 60)["passed"] is True
        assert metrics(one, "edgekit_selftest_passed{") == ['edgekit_selftest_passed{model="tiny",version="2"} 1']
        assert one.lanes_answered() == 0


@pytest.mark.slow
def test_photos_and_tensors_that_are_worth_a_look_are_kept_as_they_came_and_pulled(folder, tmp_path):
    import urllib.request

    from PIL import Image

    words = ("--state", tmp_path / "state", "--keep-samples", "5", "--feedback", "--admin", "127.0.0.1:0")
    with serving([folder], *words) as one:

        def ask(path, body=None, at=one.http, **headers):
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            return urllib.request.urlopen(urllib.request.Request(at + path, body, named), timeout=10).read()

        photos = {}
        for number in range(5):
            photo = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(photo, "JPEG")
            photos[f"photo-{number}"] = photo.getvalue()
            ask(INFER, photo.getvalue(), Content_Type="image/jpeg", X_Request_Id=f"photo-{number}")
            time.sleep(0.05)
        ask(INFER, request(some(), id="tensors"))
        until(lambda: len(json.loads(ask("/samples/index", at=one.admin))["samples"]) == 6)
        assert b'"right"' in ask("/feedback", b'{"id": "photo-1", "label": "dog"}')
        with tarfile.open(fileobj=io.BytesIO(ask("/samples", at=one.admin))) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
        kept = {name: data for name, data in files.items() if name.endswith(".jpg")}
        assert set(kept.values()) == set(photos.values())
        (name,) = (name for name in kept if name.startswith("labelled/"))
        assert kept[name] == photos["photo-1"]
        assert f"{Path(name).name},dog" in files["labelled/labels.csv"].decode()
        with np.load(io.BytesIO(files["unlabelled/tensors.npz"])) as arrays:
            np.testing.assert_array_equal(arrays["x"].reshape(-1), some().reshape(-1))
        told = json.loads(ask("/status"))
        assert told["monitor"] == {"looked": 6, "skipped": 0}


def test_its_methods_are_asked_on_the_loop_alone_but_the_alarm(folder, monkeypatch):
    where, real = {}, {name: getattr(Watching, name) for name in ("status", "families", "_know", "_changed")}
    for name, method in real.items():
        monkeypatch.setattr(
            Watching,
            name,
            lambda self, *given, name=name, method=method: (
                where.setdefault(name, set()).add(threading.current_thread()) or method(self, *given)
            ),
        )
    loops = []
    with live(open_service([folder])) as one:
        one.loop.call_soon_threadsafe(lambda: loops.append(threading.current_thread()))
        status(one), metrics(one, "edgekit_")
    assert where["status"] == where["families"] == where["_know"] == set(loops)
