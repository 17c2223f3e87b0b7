"""What a server that watches itself opens to attack: each threat that concerns it has a test that fails without its
guard, listed in `ROWS` by the number of its row in test_threats.

Refuses a row whose tests are not there."""

import ast
import base64
import io
import json
import logging
import os
import sqlite3
import tarfile
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.browsers import refuse_strangers
from edgekit_runtime.errors import Forbidden
from edgekit_runtime.families import Family, Sample, text
from edgekit_runtime.feedback import Feedback, load, save
from edgekit_runtime.hook import Hook
from edgekit_runtime.logs import Lines, Text
from edgekit_runtime.samples import Candidate, Samples
from edgekit_runtime.samples.packing import pack, unpack
from edgekit_runtime.service import Service
from edgekit_runtime.serving import Guard, Where
from edgekit_runtime.telemetry.ring import Ring
from edgekit_runtime.telemetry.store import NAME
from edgekit_runtime.tokens import Tokens, add_token
from edgekit_runtime.traces import BATCH, QUEUE
from edgekit_runtime.watched import Wishes
from edgekit_runtime.watching import Watch

from tests.runtime.live import LOCAL, Live, live, pair, post, two
from tests.runtime.test_telemetry import EPOCH, Clock
from tests.waiting import here

HERE = Path(__file__).parent
ROWS = {
    1: ("test_routes_field.py::test_too_much_feedback_at_once_is_refused",),
    3: (
        "test_threats_watching.py::test_series_that_unpack_to_very_much_are_not_unpacked_again_and_again",
        "test_threats_watching.py::test_packed_tensors_of_somebody_else_are_not_unpacked",
    ),
    4: (
        "test_drift_baseline.py::test_a_hostile_baseline_is_refused_at_once",
        "test_routes_field.py::test_no_json_makes_the_server_fail",
        "test_threats_watching.py::test_a_ring_of_another_hand_is_put_aside_or_left_out",
    ),
    6: ("test_threats_watching.py::test_floors_that_are_no_numbers_do_not_wear_out_the_disk",),
    8: (
        "test_threats_watching.py::test_who_looks_all_the_time_keeps_nobody_from_an_answer",
        "test_threats_watching.py::test_labels_told_again_and_again_do_not_wear_out_the_disk",
        "test_threats_watching.py::test_labels_of_a_flood_are_all_known_until_a_restart",
        "test_threats_watching.py::test_a_caller_who_forces_spans_gets_few_and_they_are_counted",
        "test_hook.py::test_a_flood_of_output_costs_no_memory_and_fills_no_log",
        "test_logs.py::test_a_flood_is_thinned_out_and_what_was_left_out_is_counted",
    ),
    9: ("test_threats_watching.py::test_nothing_that_a_client_says_is_told_to_others",),
    11: (
        "test_threats_watching.py::test_what_is_watched_is_told_to_who_may_know",
        "test_threats_watching.py::test_no_get_runs_a_model_or_changes_anything",
        "test_threats_watching.py::test_a_page_from_elsewhere_cannot_use_a_password_that_the_browser_keeps",
        "test_threats_watching.py::test_a_script_that_calls_itself_a_program_is_still_a_browser",
        "test_threats_watching.py::test_an_origin_without_a_host_is_a_stranger",
        "test_threats_watching.py::test_a_request_with_two_hosts_or_origins_is_refused",
        "test_browsers.py::test_a_name_that_was_bent_to_this_machine_is_refused",
        "test_routes_field.py::test_samples_are_for_the_admin_alone_and_for_no_web_page",
        "test_hook.py::test_the_command_is_told_the_facts_and_nothing_else",
    ),
    12: (
        "test_threats_watching.py::test_spans_follow_no_redirect_and_one_is_no_success",
        "test_telemetry_sending.py::test_a_status_means_the_same_on_both_wires",
    ),
    13: (
        "test_threats_watching.py::test_one_sample_that_was_touched_costs_no_other",
        "test_threats_watching.py::test_whichever_bit_of_a_samples_tensors_flips_it_is_refused_in_words_of_ours",
    ),
    15: (
        "test_threats_watching.py::test_what_stands_in_the_place_of_a_file_is_not_followed_and_holds_nobody_up",
        "test_threats_watching.py::test_a_pipe_in_the_place_of_the_feedback_holds_nobody_up",
        "test_samples.py::test_an_id_never_becomes_a_path",
        "test_samples.py::test_nobody_else_may_look_into_the_folder",
    ),
    16: (
        "test_threats_watching.py::test_events_that_come_while_the_ring_closes_break_nothing",
        "test_threats_watching.py::test_samples_are_told_offered_and_exported_at_once",
        "test_threats_watching.py::test_a_hook_that_closes_while_it_is_fired_runs_nothing_more",
    ),
    29: ("test_threats_watching.py::test_no_client_can_make_a_series",),
    31: (
        "test_threats_watching.py::test_an_id_cannot_break_out_of_its_header",
        "test_threats_watching.py::test_no_words_become_a_priority_of_the_journal",
        "test_top.py::test_nothing_that_a_terminal_obeys_comes_through",
    ),
}
INFER = "/v2/models/m/infer"
PROMPT = 4.0
Change = Callable[[Path], object]


def same(feeds: Any) -> Any:
    return {"y": feeds["x"]}


def sample(i: int, source: bytes | None = None, **more: Any) -> Candidate:
    """A sample of two numbers, or of a text."""
    feeds = {"x": np.array([[i, i + 0.5]], np.float32)}
    said = {"label": "cat", "confidence": 0.5, "drift": None} | more
    return Candidate("m", "1", f"id-{i}", 1_000, feeds, source, "text" if source else "", {}, **said)


def filled(folder: Path, count: int = 3, source: bytes | None = None) -> Samples:
    made = Samples(folder, 2**20)
    for i in range(count):
        made.consider(sample(i, source and source + str(i).encode()))
    return made


def a_sample(folder: Path) -> Path:
    return next(path for path in sorted(folder.iterdir()) if path.is_dir())


def exported(store: Samples) -> list[dict[str, Any]]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(store.export("m")))) as tar:
        told = tar.extractfile("samples.json")
        assert told is not None
        found: list[dict[str, Any]] = json.loads(told.read())["samples"]
    return found


def families(*values: float) -> list[Family]:
    return [Family("g", "gauge", "A number.", tuple(Sample(v, (("n", str(at)),)) for at, v in enumerate(values)))]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Live]:
    """A server that takes feedback and keeps samples, for everybody, with an admin's address."""
    wishes = Wishes(feedback=Feedback(), samples=Samples(tmp_path / "samples", 2**20), share=1.0)
    with live(Service([pair(same)]), Where(LOCAL, admin=LOCAL), watch=Watch(wishes=wishes)) as found:
        yield found


def test_each_row_names_tests_that_there_are() -> None:
    found = {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert set().union(*ROWS.values()) <= found
    here = {f"test_threats_watching.py::{name}" for name in globals() if name.startswith("test_")}
    assert here - set().union(*ROWS.values()) == {"test_threats_watching.py::test_each_row_names_tests_that_there_are"}


# --- who asks


def test_a_script_that_calls_itself_a_program_is_still_a_browser() -> None:
    bent = {b"host": b"evil.example:8000", b"user-agent": b"curl/8"}
    refuse_strangers(bent, tokens=False)
    with pytest.raises(Forbidden, match="localhost"):
        refuse_strangers(bent | {b"accept-language": b"de,en;q=0.5"}, tokens=False)
    same_site = {b"sec-fetch-mode": b"cors", b"sec-fetch-site": b"same-origin"}
    with pytest.raises(Forbidden, match="localhost"):
        refuse_strangers(bent | {b"accept-language": b"*"} | same_site, tokens=False)
    node = {b"user-agent": b"node", b"accept-language": b"*", b"sec-fetch-mode": b"cors"}
    refuse_strangers({b"host": b"pi.workshop:8000"} | node, tokens=False)


@pytest.mark.parametrize("origin", [b"null", b"", b"file://", b"://"])
def test_an_origin_without_a_host_is_a_stranger(origin: bytes) -> None:
    with pytest.raises(Forbidden, match="elsewhere"):
        refuse_strangers({b"host": b"", b"origin": origin}, tokens=True)


@pytest.mark.parametrize(
    "heads",
    [
        ("Host: localhost", "Host: evil.example"),
        ("Host: localhost", "Origin: http://localhost", "Origin: http://evil.example"),
        ("Host: localhost", "Origin: http://evil.example", "Origin: http://localhost"),
        ("Host: localhost", "Origin: http://localhost, http://evil.example"),
    ],
)
def test_a_request_with_two_hosts_or_origins_is_refused(watched: Live, heads: tuple[str, ...]) -> None:
    head = "\r\n".join([f"POST {INFER} HTTP/1.1", *heads, f"Content-Length: {len(two())}", "Connection: close"])
    told = watched.raw(head.encode() + b"\r\n\r\n" + two())
    assert told.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403"))
    assert watched.lanes_answered() == 0


def test_a_page_from_elsewhere_cannot_use_a_password_that_the_browser_keeps(tmp_path: Path) -> None:
    secret = add_token(tmp_path / "tokens", "me", ["metrics", "infer", "admin"])
    kept = "Authorization: Basic " + base64.b64encode(f":{secret}".encode()).decode()
    feedback = Feedback()
    feedback.remember("known", "m", "1", "cat")
    guard, where = Guard(Tokens(tmp_path / "tokens")), Where(LOCAL, admin=LOCAL)
    with live(Service([pair(same)]), where, guard, Watch(wishes=Wishes(feedback=feedback))) as server:
        judge = json.dumps({"id": "known", "label": "dog"}).encode()
        for path, body in ((INFER, two()), ("/feedback", judge)):
            for origin in ("http://evil.example", "null", "http://x.evil.example", "http://evil.example:8000"):
                told = server.raw(post(path, body, kept, "Content-Type: text/plain", f"Origin: {origin}"))
                assert told.startswith(b"HTTP/1.1 403"), (path, origin)
        assert server.lanes_answered() == 0
        assert feedback.quality("m", "1") is None
        for path, body in ((INFER, two()), ("/feedback", judge)):
            assert server.raw(post(path, body, kept, "Origin: http://x")).startswith(b"HTTP/1.1 200"), path
    found = feedback.quality("m", "1")
    assert found is not None
    assert found.n == 1


def test_no_get_runs_a_model_or_changes_anything(watched: Live) -> None:
    routes = [route for edge in watched.server.watching.routes() for route in [edge]]
    from edgekit_runtime.routes import protocols

    assert all(route.verb in ("POST", "PUT") for route in [*routes, *protocols()] if route.read is not None)
    for path in ("/feedback", INFER, "/v1/models/m:predict", "/predictions/m"):
        assert watched.ask(path + "?id=a&label=b")[0] in (404, 405), path
    assert watched.lanes_answered() == 0


def test_what_is_watched_is_told_to_who_may_know(tmp_path: Path) -> None:
    secrets = {scope: add_token(tmp_path / "tokens", scope, [scope]) for scope in ("metrics", "infer", "admin")}
    guard = Guard(Tokens(tmp_path / "tokens"))
    wishes = Wishes(feedback=Feedback(), samples=filled(tmp_path / "samples"))
    with live(Service([pair(same)]), Where(LOCAL, admin=LOCAL), guard, Watch(wishes=wishes)) as server:
        needs = {"/status": "metrics", "/metrics": "metrics", "/feedback": "infer", "/samples": "admin",
                 "/samples/index": "admin"}  # fmt: skip
        for path, need in needs.items():
            body = b'{"id": "x", "label": 1}' if path == "/feedback" else None
            assert server.ask(path, body)[0] in (401, 403), path
            for scope, secret in secrets.items():
                status, said, _ = server.ask(path, body, Authorization=f"Bearer {secret}")
                known = scope == need and need != "admin"  # the admin's are not at the public address at all
                assert (status in (200, 404)) == known, (path, scope, said)
        at = server.at["admin"].removeprefix("http://")
        for scope in ("metrics", "infer"):
            told = ask_at(at, "GET /samples HTTP/1.1", f"Authorization: Bearer {secrets[scope]}")
            assert told.startswith(b"HTTP/1.1 403"), scope
        assert ask_at(at, "GET /samples HTTP/1.1", f"Authorization: Bearer {secrets['admin']}").startswith(
            b"HTTP/1.1 200"
        )


def ask_at(address: str, *lines: str) -> bytes:
    import socket

    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall("\r\n".join([*lines, "Host: x", "Connection: close", "", ""]).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


# --- what is told


def test_an_id_cannot_break_out_of_its_header(watched: Live) -> None:
    hostile = ["a\r\nSet-Cookie: x=1", "a\nb", "\u00fc", "a b", "x" * 201, "\x00", "\x7f", " "]
    for id in hostile:
        body = json.dumps(json.loads(two()) | {"id": id}).encode()
        status, said, headers = watched.ask(INFER, body)
        assert (status, headers.get("X-Request-Id"), headers.get("Set-Cookie")) == (200, None, None), id
        assert json.loads(said)["id"] == id
    for id in ("a b", "x" * 201, "a\tb"):
        _, _, headers = watched.ask(INFER, two(), X_Request_Id=id)
        assert len(headers["X-Request-Id"]) == 16, id
    raw = watched.raw(post(INFER, two(), "X-Request-Id: \xfc\xff"))
    assert raw.startswith(b"HTTP/1.1 200")
    assert "\xfc".encode() not in raw
    assert watched.ask(INFER, two(), X_Request_Id="mine-7")[2]["X-Request-Id"] == "mine-7"


MARK = "zebra-91"


def say_everywhere(server: Live) -> None:
    """The mark, in every place where a client may say something."""
    body = json.dumps(json.loads(two()) | {"id": MARK}).encode()
    assert server.ask(INFER, body)[0] == 200
    assert server.ask(INFER, two(), X_Request_Id=MARK + "2", Baggage=f"k={MARK}", Tracestate=f"{MARK}=1")[0] == 200
    for path in (f"/{MARK}", f"/v2/models/{MARK}/infer", f"/status?{MARK}", f"/page/{MARK}/x.js"):
        server.ask(path, b"{}")
        server.ask(path)
    for one in ({"id": MARK, "label": MARK}, {"id": MARK, "label": 1}, {"id": "x", "label": 1, "model": MARK},
                {MARK: 1}, [{"id": MARK, "label": 0}]):  # fmt: skip
        server.ask("/feedback", json.dumps(one).encode())
    server.ask(INFER, two().replace(b'"x"', f'"{MARK}"'.encode()))
    server.raw(f"{MARK} / HTTP/1.1\r\nHost: {MARK}\r\nConnection: close\r\n\r\n".encode(), leave=True)


def test_nothing_that_a_client_says_is_told_to_others(watched: Live, tmp_path: Path) -> None:
    say_everywhere(watched)
    for path in ("/status", "/metrics"):
        said = watched.ask(path)[1].decode()
        assert MARK not in said, path
        assert str(tmp_path) not in said, path


def test_no_client_can_make_a_series(watched: Live) -> None:
    def series() -> set[str]:
        return {line.rpartition(" ")[0] for line in watched.ask("/metrics")[1].decode().splitlines()}

    say_everywhere(watched)
    before = series()
    for n in range(40):
        body = json.dumps(json.loads(two()) | {"id": f"i{n}"}).encode()
        watched.ask(INFER, body)
        watched.ask("/feedback", json.dumps({"id": f"i{n}", "label": n % 2}).encode())
        watched.ask("/feedback", json.dumps({"id": f"unknown{n}", "label": f"label{n}", "model": f"m{n}"}).encode())
        watched.ask(f"/made-up-{n}")
        watched.ask("/", verb=f"VERB{n}")
    assert series() - before <= {line for line in series() if "edgekit_feedback" in line or "edgekit_quality" in line}
    assert len(series()) - len(before) < 12


def test_no_words_become_a_priority_of_the_journal() -> None:
    stream = io.StringIO()
    lines = Lines(stream, Text(), prefix=True)
    logger = logging.Logger("edgekit_runtime.test")
    logger.addHandler(lines)
    for words in ("<0>panic", "a\n<0>panic", "a\r<0>panic", "a\u2028<0>panic", "a\x85<0>panic", "a\x0b<0>panic"):
        logger.warning(words)
        logger.warning("of a client: %s", words)
        try:
            raise ValueError(words)
        except ValueError as error:
            logger.error("it failed", exc_info=error)
    lines.close()
    assert sum(line.startswith("<4>") for line in stream.getvalue().splitlines()) == 12
    for line in stream.getvalue().splitlines():
        assert line.startswith(("<4>WARNING ", "<3>ERROR ", "<4>  ", "<3>  ")), line


# --- floods


@pytest.mark.slow
def test_who_looks_all_the_time_keeps_nobody_from_an_answer(watched: Live) -> None:
    over = threading.Event()

    def looks(path: str) -> int:
        seen = 0
        while not over.is_set():
            assert watched.ask(path)[0] == 200
            seen += 1
        return seen

    with ThreadPoolExecutor(9) as threads:
        looking = [threads.submit(looks, path) for path in ("/status", "/metrics", "/status") for _ in range(3)]
        try:
            slowest = 0.0
            for _ in range(30):
                start = time.perf_counter()
                assert watched.ask(INFER, two())[0] == 200
                slowest = max(slowest, time.perf_counter() - start)
        finally:
            over.set()
        assert sum(one.result() for one in looking) > 30
    assert slowest < here(PROMPT)


def written() -> int:
    """What this process gave to files so far."""
    return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])


def test_labels_told_again_and_again_do_not_wear_out_the_disk(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert store.told("m", "id-0", "cat", 0)
    before = written()
    for _ in range(100):
        assert store.told("m", "id-0", "cat", 0)
    assert written() == before


def test_labels_of_a_flood_are_all_known_until_a_restart(tmp_path: Path) -> None:
    limit = 64 * 1024
    store = Samples(tmp_path, limit)
    store.consider(sample(0))
    assert store.held.kept == {"m": 1}
    store._allowed = 8 * 4096.0
    told = [store.told("m", "id-0", f"label {n}", n) for n in range(50)]
    assert all(told)
    assert store.held.dropped["writes"] == 46
    assert exported(store)[0]["label"] == "label 49"
    assert exported(Samples(tmp_path, limit))[0]["label"] == "label 3"


def test_a_caller_who_forces_spans_gets_few_and_they_are_counted() -> None:
    traces = pytest.importorskip("edgekit_runtime.traces")
    from tests.runtime.test_traces import PARENT, collector, counted

    with collector() as found:
        tracer = traces.Tracer(f"http://127.0.0.1:{found.port}", 0.0)
        for _ in range(3 * QUEUE):
            begun = tracer.begin(PARENT, "a=" + "b" * 200)
            assert begun is not None
            begun.grpc("/a", "OK")
        assert counted(tracer)["dropped"] >= 2 * QUEUE - BATCH
        tracer.close()
        assert sum(counted(tracer).values()) == 3 * QUEUE
        assert len(found.spans) <= QUEUE + BATCH


# --- where it sends


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_spans_follow_no_redirect_and_one_is_no_success(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    traces = pytest.importorskip("edgekit_runtime.traces")
    from tests.runtime.test_traces import counted

    asked: list[str] = []

    class Bent(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Location", "/latest/meta-data")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # not asked: what is sent is what the operator gave
        tracer = traces.Tracer(f"http://127.0.0.1:{server.server_port}", 1.0)
        tracer.begin(None).grpc("/a", "OK")
        tracer.close()
        server.shutdown()
        thread.join()
    assert asked == ["/v1/traces"]
    assert counted(tracer) == {"sent": 0, "failed": 1, "dropped": 0}


# --- what lies on the disk


def test_whichever_bit_of_a_samples_tensors_flips_it_is_refused_in_words_of_ours() -> None:
    whole = pack({"x": [np.arange(4, dtype=np.float32).reshape(1, 4)]})
    refused = 0
    for at in range(8 * len(whole)):
        touched = bytearray(whole)
        touched[at // 8] ^= 1 << at % 8
        try:
            assert all(isinstance(value, np.ndarray) for value in unpack(bytes(touched)).values())
        except ValueError:
            refused += 1
    assert refused > len(whole)


def test_packed_tensors_of_somebody_else_are_not_unpacked() -> None:
    bomb, words = io.BytesIO(), io.BytesIO()
    np.savez_compressed(bomb, x=np.zeros((50_000_000,), np.int8))
    import zipfile

    with zipfile.ZipFile(words, "w") as made:
        made.writestr("x", b"no array")
    lies = pack({"x": [np.zeros((1, 4), np.float32)]}).replace(b"(1, 4), ", b"(1<<62),")
    for data, why in ((bomb.getvalue(), "packed"), (words.getvalue(), "no arrays"), (lies, ".")):
        tracemalloc.start()
        with pytest.raises(ValueError, match=why):
            unpack(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5_000_000


def rewritten(**change: Any) -> Change:
    def change_it(one: Path) -> None:
        told = json.loads((one / "facts.json").read_text())
        (one / "facts.json").write_text(json.dumps(told | change))

    return change_it


@pytest.mark.parametrize("source", [b"a text ", None])
@pytest.mark.parametrize(
    "change",
    [
        rewritten(when_ms=10**30), rewritten(when_ms=-(10**30)), rewritten(label="a", index=10**30),
        rewritten(label="a", index=-1), rewritten(id="x" * 100_000), rewritten(label="\ud800"),
        rewritten(version="\ud800"), rewritten(answer=["x"]), rewritten(worths=[1e999, 1, 1]), rewritten(kind=None),
    ],
)  # fmt: skip
def test_one_sample_that_was_touched_costs_no_other(tmp_path: Path, change: Change, source: bytes | None) -> None:
    filled(tmp_path, source=source)
    change(a_sample(tmp_path))
    store = Samples(tmp_path, 2**20)
    assert len(exported(store)) >= 2
    assert json.dumps(store.index(), allow_nan=False)
    store.consider(sample(9))
    assert store.told("m", "id-9", "dog", 1)


def test_what_stands_in_the_place_of_a_file_is_not_followed_and_holds_nobody_up(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the key")
    for n, (name, put) in enumerate(
        [(name, put) for name in ("facts.json", "tensors.npz", "floors.json") for put in ("pipe", "link", "folder")]
    ):
        folder = tmp_path / f"s{n}"
        filled(folder)
        place = folder / name if name == "floors.json" else a_sample(folder) / name
        place.unlink(missing_ok=True)
        if put == "pipe":
            os.mkfifo(place)
        elif put == "link":
            place.symlink_to(secret)
        else:
            place.mkdir()
        opened: list[Samples] = []
        thread = threading.Thread(target=lambda at, to: to.append(Samples(at, 2**20)), args=(folder, opened))
        thread.daemon = True
        thread.start()
        thread.join(10)
        assert opened, (name, put)
        assert b"the key" not in b"".join(opened[0].export("m"))
    store = filled(tmp_path / "later", source=b"a text ")
    swapped = a_sample(tmp_path / "later") / "source.txt"
    swapped.unlink()
    swapped.symlink_to(secret)  # after it was taken up
    assert b"the key" not in b"".join(store.export("m"))


def test_a_pipe_in_the_place_of_the_feedback_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "feedback.json")
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(load(tmp_path)), daemon=True)
    thread.start()
    thread.join(5)
    assert found == [None]
    save(tmp_path, Feedback().state())
    assert load(tmp_path) is not None


@pytest.mark.parametrize("floor", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_floors_that_are_no_numbers_do_not_wear_out_the_disk(tmp_path: Path, floor: str) -> None:
    filled(tmp_path)
    (tmp_path / "floors.json").write_text(f'{{"m": {{"confidence": [{floor}, "a"], "random": [{floor}, "a"]}}}}')
    store = Samples(tmp_path, 2**20)
    assert store.held.kept == {"m": 3}
    for i in range(3, 6):
        store.consider(sample(i))
    assert store.held.kept == {"m": 6}
    many = {f"m{n}": {"random": [0.5, "a"]} for n in range(20_000)}
    (tmp_path / "floors.json").write_text(json.dumps(many))
    start = time.perf_counter()
    store = Samples(tmp_path, 2**20)
    assert time.perf_counter() - start < 20
    store.consider(sample(7))
    assert store.held.kept == {"m": 7}


ODD_ROWS = [
    *(f"UPDATE slots SET moment = {odd} WHERE id = {at}" for odd in ("'x'", 2**63 - 1) for at in (1, 50, 61)),
    *(f"UPDATE slots SET {what} = {odd} WHERE id IN (1, 50)" for what in ("data", "series", "head")
      for odd in ("'x'", "7", "x'00'")),
    f"INSERT INTO slots VALUES({2**63 - 1}, 1, 1, 1, x'00')", "INSERT INTO slots VALUES(-5, -5, 1, 1, x'00')",
    *(f"UPDATE spans SET offset = {odd}" for odd in ("'x'", 2**63 - 1, -(2**63), "x'00'")),
    "UPDATE spans SET start = NULL", "UPDATE spans SET start = 'x'",
    *(f"UPDATE destinations SET {what} = {odd}" for what in ("tried", "cursor") for odd in ("'x'", 2**63 - 1)),
    "UPDATE events SET facts = '{'", "UPDATE events SET facts = '[1]'", "UPDATE events SET moment = 'x'",
    "UPDATE events SET kind = x'ff'", "CREATE TRIGGER t AFTER INSERT ON slots BEGIN DELETE FROM slots; END",
    "CREATE TRIGGER t BEFORE INSERT ON slots BEGIN SELECT RAISE(ABORT, 'no'); END",
    "CREATE VIEW v AS SELECT 1", "DROP TABLE spans; CREATE VIEW spans AS SELECT 1 first, 'b' boot, 0 offset, 0 start",
]  # fmt: skip
ODD_SERIES = [
    b"[" * 100_000, b"{}", b"null", b'[[["g","gauge","w"]],[[0,"",[["model",7]]]]]', b'[[[7,"gauge","w"]],[[0,"",[]]]]',
    b'[[["g","x","w"]],[[0,"",[]]]]', b'[[["g","gauge","w"]],[[9,"",[]]]]', b'[[["g","gauge","w"]],[[0,null,[]]]]',
    b'[[["g","gauge","w"]],[[0,"",[["a"]]]]]',
]  # fmt: skip


def a_ring(folder: Path, slots: int = 130) -> None:
    clock = Clock()
    ring = Ring(folder, 2**20, boot=clock.boot)
    ring.unsent("there", 1)
    for n in range(slots):
        ring.event(clock.now, "x", n=n)
        assert ring.put(families(n + 0.5), clock.now)
        clock.on(10_000)
    ring.trying("there", 20)
    ring.close()


def changed(folder: Path, statements: str, *given: object) -> None:
    db = sqlite3.connect(folder / NAME)
    if given:
        db.execute(statements, given)
    else:
        db.executescript(statements)
    db.commit()
    db.close()


@pytest.fixture(scope="module")
def good_ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ring")
    a_ring(folder)
    return folder


def goes_on(folder: Path) -> None:
    """The ring opens, takes what comes, gives what it can, and its slots can be sent."""
    from edgekit_runtime.telemetry.remote_write import write_request

    clock = Clock()
    clock.on(10_000_000)
    ring = Ring(folder, 2**20, boot=clock.boot)
    for _ in range(70):
        ring.event(clock.now, "y")
        assert ring.put(families(1.0), clock.now)
        clock.on(10_000)
    new = ring.unsent("there", 1000)
    assert len([slot for slot in new if slot.values.tolist() == [1.0]]) >= 65
    assert write_request(new, {"job": "x"})
    assert {kind for _, kind, _ in ring.events(60)} == {"y"}
    ring.trying("there", new[-1].cursor)
    ring.sent("there", new[-1].cursor)
    assert ring.unsent("there", 1000) == []
    ring.close()


@pytest.mark.parametrize("odd", [*ODD_ROWS, *ODD_SERIES])
def test_a_ring_of_another_hand_is_put_aside_or_left_out(tmp_path: Path, good_ring: Path, odd: str | bytes) -> None:
    (tmp_path / NAME).write_bytes((good_ring / NAME).read_bytes())
    if isinstance(odd, str):
        changed(tmp_path, odd)
    else:
        changed(tmp_path, "UPDATE series SET data = ?", zlib.compress(odd))
    goes_on(tmp_path)


def test_series_that_unpack_to_very_much_are_not_unpacked_again_and_again(tmp_path: Path, good_ring: Path) -> None:
    (tmp_path / NAME).write_bytes((good_ring / NAME).read_bytes())
    changed(tmp_path, "UPDATE series SET data = ?", zlib.compress(b"[" + b"1," * 2**21 + b" " * 2**27))
    ring = Ring(tmp_path, 2**20, boot=Clock().boot)
    start = time.perf_counter()
    assert ring.unsent("there", 1000) == []
    assert time.perf_counter() - start < 30
    ring.close()
    goes_on(tmp_path)


# --- at once


def test_events_that_come_while_the_ring_closes_break_nothing(tmp_path: Path) -> None:
    import sys

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for n in range(12):
            ring = Ring(tmp_path / str(n), 2**20, interval=0.001)
            ring.put(families(1.0), EPOCH)
            over, failed = threading.Event(), []
            for at in range(200):
                ring.event(EPOCH, "x", n=at)

            def tell(ring: Ring = ring, over: threading.Event = over) -> None:
                while not over.is_set():
                    ring.event(EPOCH, "x")

            def put(ring: Ring = ring, over: threading.Event = over, failed: list[BaseException] = failed) -> None:
                try:
                    while not over.is_set():
                        ring.put(families(1.0), EPOCH)
                        ring.unsent("there", 10)
                except BaseException as error:
                    failed.append(error)

            threads = [threading.Thread(target=one) for one in (tell, put)]
            for thread in threads:
                thread.start()
            try:
                ring.close()
            finally:
                over.set()
                for thread in threads:
                    thread.join()
            assert not failed
            assert not ring.put(families(1.0), EPOCH)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.slow
def test_samples_are_told_offered_and_exported_at_once(tmp_path: Path) -> None:
    store, over = Samples(tmp_path, 40 * 12_288), threading.Event()

    def until_over(act: Callable[[int], object]) -> int:
        n = 0
        while not over.is_set():
            act(n)
            n += 1
        return n

    def export(n: int) -> None:
        if store.held.kept:
            assert isinstance(exported(store), list)
            json.dumps(store.index())

    acts = [lambda n: store.consider(sample(2 * n, confidence=1 / (n + 1))), export,
            lambda n: store.consider(sample(2 * n + 1, confidence=1 / (n + 2))), lambda n: text(store.families()),
            lambda n: store.told("m", f"id-{n % 97}", ("cat", "dog")[n % 2], n % 2)]  # fmt: skip
    with ThreadPoolExecutor(len(acts)) as threads:
        running = [threads.submit(until_over, act) for act in acts]
        time.sleep(2)
        over.set()
        assert all(one.result(30) for one in running)
    again = Samples(tmp_path, 40 * 12_288)
    assert again.held.kept == store.held.kept
    assert not again._aside
    assert len(exported(again)) == len(exported(store)) > 5


def test_a_hook_that_closes_while_it_is_fired_runs_nothing_more(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    command = tmp_path / "command"
    command.write_text(f"#!/bin/sh\necho x >> {ran}\nsleep 30\n")
    command.chmod(0o755)
    for _ in range(3):
        hook, over = Hook(str(command), least_seconds=0.0), threading.Event()

        def fire(hook: Hook = hook, over: threading.Event = over) -> None:
            while not over.is_set():
                hook.fire({"model": "$(touch /tmp/x); `x` | -rf", "event": "\n\x00", "features": ["a\x00b", "-x"]})

        thread = threading.Thread(target=fire)
        thread.start()
        time.sleep(0.1)
        hook.close()
        count = ran.read_text() if ran.exists() else ""
        time.sleep(0.1)
        over.set()
        thread.join()
        assert count
        assert (ran.read_text() if ran.exists() else "") == count
        assert not any(one.name == "hook" and one.is_alive() for one in threading.enumerate())
    command.write_text("#!/bin/sh\nexit 0\n")
    idle, never = Hook(str(command)), Hook(str(command))
    idle.fire({"model": "m"})
    while not any(one.value for one in idle.families()[0].samples):
        time.sleep(0.01)
    for hook in (idle, never):
        hook.close()
        hook.fire({"model": "m"})
    assert not any(one.name == "hook" and one.is_alive() for one in threading.enumerate())
    assert never._thread is None
