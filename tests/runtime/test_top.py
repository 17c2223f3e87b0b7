"""A server shown in a terminal: the numbers right, no line too wide, nothing a terminal would obey, and errors told."""

import argparse
import io
import json
import os
import pty
import re
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice

import pytest
from edgekit_runtime import top
from edgekit_runtime.__main__ import main
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.service import Policy, Service
from edgekit_runtime.top_asking import look
from edgekit_runtime.top_rates import Look, now
from edgekit_runtime.top_text import picture
from edgekit_runtime.top_words import Look as Shown
from edgekit_runtime.top_words import bins, cells, clipped, rendered, row, seconds, size, span, words

from tests.runtime.live import live, pair, two

BOUNDS = [0.001, 0.01, 0.1, 1.0]


def times(*counts):
    return {"bounds": BOUNDS, "counts": list(counts), "sum": 1.0}


def feature(name, ks, limit=0.1, **more):
    return {"name": name, "words": name, "psi": ks * 2, "ks": ks, "limit": limit, "alarm": ks > limit,
            "labels": [], "edges": [1.0, 2.0, 3.0], "baseline": [0.1, 0.4, 0.4, 0.1],
            "now": [0.7, 0.2, 0.1, 0.0], **more}  # fmt: skip


def model(**more):
    return {
        "name": "flowers", "version": "1.2.0", "engine": "onnx", "target": "rpi5", "precision": "int8",
        "format": "onnx", "paused": False, "loaded_ms": 1_763_800_000_000, "takes": "image", "labels": 102,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3, 224, 224]}], "outputs": [],
        "evidence": {"metric": "top1", "value": 0.912, "reference": 0.915, "drop": 0.003, "low": 0.001, "high": 0.005,
                     "n": 5000},
        "requests": {"answered": 1000, "failed": 2, "rejected": 3, "late": 0, "cancelled": 1, "waiting": 4},
        "samples": 1500, "executions": 500,
        "seconds": {"request": times(0, 1000, 0, 0, 0), "queue": times(1000, 0, 0, 0, 0),
                    "compute": times(0, 1000, 0, 0, 0)},
        "batch": {"bounds": [1, 2], "counts": [0, 500, 0], "sum": 1000},
        "drift": None, "quality": None, "shadow": None, "selftest": None, **more,
    }  # fmt: skip


MACHINE = {
    "cpu": 0.25, "cpus": 4, "load": 0.5, "temperatures": {"cpu_thermal": 82.35, "nvme": 40.0},
    "throttled": ["undervoltage"], "reasons": ["undervoltage"], "frequencies": {"0": 2_400_000_000},
    "memory_total": 8_000_000_000, "memory_available": 6_500_000_000, "resident": 85_000_000,
    "disk_total": 32_000_000_000, "disk_free": 12_000_000_000, "power": {"pmic_rails": 5.31}, "uptime": 93784.0,
    "gpus": [{"name": "A2000", "utilization": 0.37, "memory_used": 5_400_000_000, "memory_total": 12_900_000_000,
              "temperature": 61.0, "power": 43.21}],
}  # fmt: skip


def status(*models, **more):
    return {
        "name": "edgekit-runtime", "version": "0.1.0", "host": "pi5", "started_ms": 1_763_800_000_000,
        "now_ms": 1_763_800_100_000, "models": list(models), "machine": {}, "errors": [], "history": [],
        "counters": {"requests": 1234, "refused": {"bad_request": 7, "depth": 0}, "connections": 5},
        "monitor": {"looked": 10, "skipped": 0}, **more,
    }  # fmt: skip


FULL = status(
    model(
        drift={"alarm": True, "since_ms": 1_763_800_000_000 - 80_000, "n": 700, "features": [
            feature("contrast", 0.05), feature("brightness", 0.42), feature("sharpness", 0.2), feature("class", 0.01)]},
        quality={"n": 210, "accuracy": 0.89, "low": 0.84, "high": 0.93, "built": None},
        shadow={"n": 300, "agreement": 0.98, "low": 0.96, "high": 0.99},
        selftest={"passed": False, "when_ms": 1_763_800_040_000},
    ),
    model(name="a-model-with-quite-a-long-name-as-people-give-them", version="2025.11.22-nightly.3", paused=True),
    machine=MACHINE,
    errors=[{"when_ms": 1_763_800_090_000, "what": "flowers: the engine failed on a run of 4 rows, they were refused",
             "times": 3}],
    history=[{"when_ms": 1_763_800_000_000, "what": "activated", "model": "flowers", "version": "1.2.0", "why": ""}],
)  # fmt: skip


def drawn(told, columns=100, **more):
    found = Look(told, 0.0)
    shown = Shown(columns, **more)
    return [rendered(line, shown) for line in picture(found, now(None, found), "http://x", shown)]


class Told:
    """What the little server answers: `status`, or `raw` bytes; `seen` are the headers that came."""

    def __init__(self):
        self.status, self.raw, self.code, self.token, self.seen = FULL, None, 200, "", []

    def answer(self, handler):
        self.seen.append(handler.headers)
        allowed = not self.token or handler.headers["Authorization"] == f"Bearer {self.token}"
        code = self.code if allowed and handler.path == "/status" else 401 if not allowed else 404
        body = (self.raw if self.raw is not None else json.dumps(self.status).encode()) if code == 200 else b"{}"
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def serving(told, path=None):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            told.answer(self)

        def log_message(self, *_):
            pass

    if path is not None:
        Handler.address_string = lambda self: "unix"
    server = HTTPServer(("127.0.0.1", 0), Handler) if path is None else socketserver.UnixStreamServer(path, Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}" if path is None else f"unix:{path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def place(told):
    with serving(told) as found:
        yield found


class Terminal(io.StringIO):
    """An output that is a terminal, or not."""

    def __init__(self, tty=True, encoding="utf-8"):
        super().__init__()
        self._tty, self._encoding = tty, encoding

    def isatty(self):
        return self._tty

    @property
    def encoding(self):
        return self._encoding


def asked(*typed, environ=None, out=None):
    parser = argparse.ArgumentParser()
    top.add(parser)
    return top.wanted(parser.parse_args(typed), environ or {}, out or Terminal())


def first(wanted, count=1):
    return list(islice(top.frames(wanted, sleep=lambda s: None), count))


def test_rates_and_percentiles_are_of_what_happened_between_two_looks():
    before = status(model())
    after = deepcopy(before)
    one = after["models"][0]
    one["requests"] |= {"answered": 1100, "failed": 5}
    one["samples"], one["executions"] = 1800, 600
    # 100 more: 50 of at most 1 ms, 45 of 1 to 10 ms, 4 of 10 to 100 ms, 1 beyond all bounds
    one["seconds"]["request"] = times(50, 1045, 4, 0, 1)
    (found,) = now(Look(before, 100.0), Look(after, 104.0)).values()
    assert (found.seconds, found.whole, found.per_second, found.failed, found.rows) == (4.0, False, 25.0, 3, 3.0)
    assert found.request == {"p50": 0.001, "p90": pytest.approx(0.009), "p99": pytest.approx(0.1)}
    assert found.queue == {}  # nobody waited in these seconds
    rates = now(Look(before, 100.0), Look(after, 104.0))
    lines = "\n".join(rendered(line, Shown()) for line in picture(Look(after, 104.0), rates, "x", Shown()))
    for said in ("25 requests/s", "p50 1 ms", "p90 9 ms", "p99 100 ms", "3 failed", "3.0 samples a run", "over 4 s"):
        assert said in lines


def test_without_a_look_before_rates_are_since_the_model_was_loaded():
    found = Look(status(model()), 5.0)
    (alone,) = now(None, found).values()
    assert (alone.seconds, alone.whole, alone.per_second, alone.failed) == (100.0, True, 10.0, 2)
    assert "10 requests/s" in "\n".join(drawn(found.status))
    assert "since it was loaded" in "\n".join(drawn(found.status))


@pytest.mark.parametrize("change", ["loaded again", "set back", "other bounds", "fewer in a bucket"])
def test_counters_that_began_anew_are_not_subtracted(change):
    before, after = status(model()), status(model())
    one = after["models"][0]
    if change == "loaded again":
        one["loaded_ms"] += 90_000
    elif change == "set back":
        before["models"][0]["requests"]["answered"] = 5000
    elif change == "other bounds":
        one["seconds"]["request"] = {"bounds": [1.0], "counts": [1000, 0], "sum": 1}
    else:
        one["seconds"]["queue"] = times(999, 5, 0, 0, 0)
    (found,) = now(Look(before, 0.0), Look(after, 1.0)).values()
    assert found.whole
    assert found.per_second == (100.0 if change == "loaded again" else 10.0)


def test_times_beyond_the_last_bound_are_said_to_be_beyond_it():
    lines = "\n".join(drawn(status(model(seconds={"request": times(0, 0, 0, 0, 9)}))))
    assert "p50 >1 s" in lines


def test_a_picture_tells_each_model_the_machine_and_what_went_wrong():
    said = "\n".join(drawn(FULL, 140))
    for part in (
        "edgekit-runtime 0.1.0 on pi5", "up 1 min", "cpu ██░░░░░░ 25 % of 4", "82.3 C cpu_thermal",
        "THROTTLED: supply voltage too low", "2.40 GHz", "memory 1.5 GB of 8 GB", "disk 20 GB of 32 GB", "server 85 MB",
        "5.3 W pmic_rails", "A2000  37 %  5.4 GB of 12.9 GB  61 C  43.2 W", "1,234 requests", "7 bad_request",
        "flowers 1.2.0  onnx int8 rpi5", "1,000 answered", "2 failed", "3 rejected", "4 waiting",
        "top1 91.2 %  drop +0.3 pt (+0.1 to +0.5)  on 5,000 samples",
        "accuracy 89.0 % (84.0 % to 93.0 %) of 210",
        "float model agrees 98.0 % (96.0 % to 99.0 %) of 300", "FAILED  1 min ago",
        "ALARM since 3 min  700 samples seen", "PAUSED", "the engine failed on a run of 4 rows", "(3 times)",
        "activated flowers 1.2.0",
    ):  # fmt: skip
        assert part in said, part
    assert "depth" not in said


def test_the_worst_features_of_a_drift_come_first_with_both_histograms():
    lines = [line.strip() for line in drawn(FULL, 120) if "distance" in line]
    assert [line.split()[0] for line in lines] == ["brightness", "sharpness", "contrast"]
    assert lines[0] == "brightness  |▂██▂| now |█▃▂ |  distance 0.42 > 0.10  PSI 0.84"
    assert "distance 0.05 of 0.10" in lines[2]


@pytest.mark.parametrize("columns", [20, 33, 60, 80, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(columns, unicode):
    wide = status(model(name="図" * 40, engine="é" * 90), machine=MACHINE,
                  errors=[{"when_ms": 1.0, "what": "長" * 200}, {"when_ms": None, "what": "x" * 500}])  # fmt: skip
    for told in (FULL, wide):
        lines = drawn(told, columns, unicode=unicode)
        assert max(map(cells, lines)) <= columns
        assert len(lines) > 15
    assert all(line.isascii() for line in drawn(FULL, columns, unicode=False))


def test_at_sixty_columns_parts_wrap_whole_and_under_each_other():
    lines = drawn(FULL, 60)
    begin = next(index for index, line in enumerate(lines) if line.startswith("machine"))
    assert lines[begin + 1].startswith(" " * 10)
    text = " ".join(line.strip() for line in lines)
    assert "THROTTLED: supply voltage too low" in text
    assert "memory 1.5 GB of 8 GB" in text
    assert "…" not in "\n".join(lines[begin : begin + 3])


def test_nothing_that_a_terminal_obeys_comes_through():
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202e\x00ok"

    def spoiled(value):
        if isinstance(value, dict):
            return {key: spoiled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [spoiled(one) for one in value]
        return evil if isinstance(value, str) else value

    told = spoiled(FULL)
    told["machine"] = spoiled(MACHINE) | {"temperatures": {evil: 50}, "power": {evil: 5}, "throttled": [evil]}
    told["counters"] = {"refused": {evil: 5}}
    for line in drawn(told, 100):
        assert line.isprintable(), ascii(line)
    assert words(evil) == r"\x1b]0;owned\x07\x1b[2J\r \x9b31m\u202e\x00ok"


ODD = [None, True, "x", -1, 10**400, float("nan"), {"a": 1}, [None, [], {}], "長" * 999]


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
def test_a_server_that_tells_something_odd_is_shown_without_it(odd):
    def each(value, path=()):
        yield path
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, one in items:
            yield from each(one, (*path, key))

    full = status(FULL["models"][0], machine=MACHINE, errors=FULL["errors"], history=FULL["history"])
    for path in each(full):
        if not path:
            continue
        told = deepcopy(full)
        inside = told
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = odd
        found = Look(told, 1.0)
        for before in (None, Look(full, 0.0)):
            lines = picture(found, now(before, found), "x", Shown(60))
            assert all(cells(rendered(line, Shown(60))) <= 60 for line in lines), path


def test_one_picture_is_printed_and_ends_without_control_codes(place):
    (said,) = first(asked(place, "--once", out=Terminal(tty=False)), 5)
    assert said.isprintable() or said.replace("\n", "").isprintable()
    assert said.endswith("\n")
    assert "flowers 1.2.0" in said


def test_json_is_one_line_each_time_and_says_what_happens_now(place, told):
    (said,) = first(asked(place, "--once", "--json"), 5)
    assert said.endswith("}\n")
    assert said.count("\n") == 1
    found = json.loads(said)
    assert {key: value for key, value in found.items() if key != "models"} == {
        key: value for key, value in FULL.items() if key != "models"
    }
    assert found["models"][0]["now"]["per_second"] == 10.0
    assert found["models"][0]["now"]["request"]["p50"] == pytest.approx(0.0055)

    made = top.frames(asked(place, "--json"), sleep=lambda s: time.sleep(0.05))
    next(made)
    told.status = deepcopy(FULL)
    told.status["models"][0]["requests"]["answered"] += 10
    one = json.loads(next(made))["models"][0]["now"]
    assert one["since_loaded"] is False
    assert one["per_second"] == pytest.approx(10 / one["seconds"])
    made.close()


def test_a_live_picture_has_its_own_screen_and_gives_the_terminal_back(place):
    wanted = asked(place, environ={"COLUMNS": "60", "LINES": "12", "TERM": "xterm"})
    begun, again = first(wanted, 2)
    assert begun.startswith("\x1b[?1049h\x1b[?25l\x1b[H")
    assert again.startswith("\x1b[H")
    assert again.count("\n") == 11  # or the terminal would scroll
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", again)
    assert all(cells(line) < 60 for line in plain.splitlines())
    assert "\x1b[31m" in again  # the machine is too hot
    assert top.after(wanted) == "\x1b[?25h\x1b[?1049l"


def test_no_colour_is_written_where_none_is_wanted_and_no_code_at_all_where_it_is_no_terminal(place):
    plain = first(asked(place, environ={"NO_COLOR": "1"}))[0]
    assert "\x1b[?25l" in plain
    assert not re.search(r"\x1b\[\d+m", plain)
    for environ, out in (({}, Terminal(tty=False)), ({"TERM": "dumb"}, Terminal())):
        wanted = asked(place, environ=environ, out=out)
        both = first(wanted, 2)
        assert "\x1b" not in "".join(both)
        assert both[0].endswith("\n\n")
        assert top.after(wanted) == ""


def test_a_terminal_without_unicode_gets_what_it_can_write(place):
    said = first(asked(place, "--once", out=Terminal(encoding="iso-8859-1")))[0]
    said.encode("iso-8859-1")
    assert "cpu ##......" in said


def test_a_unix_socket_and_a_prefix_are_asked_too(told, tmp_path, place):
    with serving(told, str(tmp_path / "s")) as unix:
        assert "flowers" in first(asked(unix, "--once"))[0]
    assert look(place.removeprefix("http://")).status["host"] == "pi5"
    with pytest.raises(EdgeKitError, match="HTTP 404"):
        look(f"{place}/behind/a/proxy")


def test_the_token_comes_from_a_file_or_the_environment(place, told, tmp_path):
    told.token = "ek_secret"
    with pytest.raises(EdgeKitError, match="asks for a token") as error:
        first(asked(place, "--once"))
    assert error.value.hint == "say --token FILE, or set EDGEKIT_TOKEN"
    (tmp_path / "token").write_text("ek_secret\n")
    assert first(asked(place, "--once", "--token", str(tmp_path / "token")))
    assert first(asked(place, "--once", environ={"EDGEKIT_TOKEN": "ek_secret"}))
    for wrong in ("", "two words", "é"):
        (tmp_path / "token").write_text(wrong)
        with pytest.raises(EdgeKitError, match="holds no token"):
            asked(place, "--token", str(tmp_path / "token"))


def test_a_server_that_is_not_there_is_an_error_with_a_hint():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(EdgeKitError, match=f"no answer from http://127.0.0.1:{port}: Connection refused") as error:
        first(asked(f"http://127.0.0.1:{port}"))
    assert "edgekit-runtime serve" in error.value.hint


def test_a_server_that_goes_ends_the_lines_but_not_the_live_picture(told):
    with serving(told) as place:
        lines, alive = top.frames(asked(place, "--json"), lambda s: None), top.frames(asked(place), lambda s: None)
        next(lines)
        next(alive)
    with pytest.raises(EdgeKitError, match="no answer"):
        next(lines)
    said = next(alive)
    assert "Connection refused" in said
    assert "flowers" in said
    alive.close()


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b"{}", b'{"models": 3}', b"\xff", b"[" * 100_000, b'{"models": [', b"NaN"]
)
def test_an_answer_that_is_no_state_is_refused(place, told, raw):
    told.raw = raw
    with pytest.raises(EdgeKitError, match="does not tell its state") as error:
        look(place)
    assert error.value.hint


@pytest.mark.parametrize(
    "bad",
    ["ftp://x", "http://", "http://x:99999", "http://u:p@x", "unix:", "http://[::1", "", "a b", "http://a\tb\x7f"],
)
def test_an_address_that_does_not_read_is_refused(bad):
    with pytest.raises(EdgeKitError) as error:
        look(bad)
    assert error.value.hint


def test_an_interval_is_a_number_of_seconds():
    assert asked("--interval", "2.5").interval == 2.5
    for bad in ("0", "x", "nan", "1e9"):
        with pytest.raises(SystemExit):
            asked("--interval", bad)


def test_words_for_numbers_are_those_of_a_person():
    assert [seconds(one) for one in (27e-6, 0.00123, 0.0456, 0.5, 1.25, 12.5)] == [
        "27 us", "1.23 ms", "45.6 ms", "500 ms", "1.25 s", "12.5 s"]  # fmt: skip
    assert [span(one) for one in (5, 60, 200, 3600, 7500, 90000, 86400 * 3)] == [
        "5 s", "1 min", "3 min", "1 h", "2 h 5 min", "1 d 1 h", "3 d"]  # fmt: skip
    assert [size(one) for one in (12, 1500, 999_900, 8.25e9, 2e12)] == [
        "12 bytes", "1.5 kB", "1000 kB", "8.25 GB", "2 TB"]  # fmt: skip
    assert bins([0.0] * 3, Shown()) == ""
    assert len(bins([0.1] * 40, Shown())) == 12
    assert clipped("図図図", 4, Shown()) == "図…"
    assert row("t", [], Shown()) == []


@pytest.mark.slow
def test_a_real_server_is_shown_as_it_counts():
    service = Service([pair(lambda feeds: {"y": feeds["x"]}, "echo", "7")], {}, Policy())
    with live(service) as real:
        made = top.frames(asked(real.at["http"], "--json"), sleep=lambda s: time.sleep(0.2))
        next(made)
        for _ in range(20):
            assert real.ask("/v2/models/echo/infer", two(1, 2))[0] == 200
        (one,) = json.loads(next(made))["models"]
        assert one["now"]["per_second"] * one["now"]["seconds"] == pytest.approx(20)
        assert 0 < one["now"]["request"]["p50"] <= one["now"]["request"]["p99"] < 5
        (said,) = first(asked(real.at["http"], "--once"))
        assert "echo 7" in said
        assert "20 answered" in said


def _read(file, end):
    said = b""
    while end not in said and select.select([file], [], [], 20)[0]:
        said += os.read(file, 65536)
    return said


def test_ctrl_c_gives_a_real_terminal_back(place):
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "edgekit_runtime", "top", place]
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "70", "LINES": "20"}
        made = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
        try:
            said = _read(ours, b"flowers")
            made.send_signal(signal.SIGINT)
            assert made.wait(10) == 130
            said += _read(ours, top.END.encode())
        finally:
            made.kill()
            made.wait(10)
    finally:
        os.close(ours)
        os.close(theirs)
    assert said.startswith(top.BEGIN.encode())
    assert said.endswith(top.END.encode())
    assert b"Traceback" not in said


def test_the_command_prints_a_picture_or_an_error(place, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    assert main(["top", place, "--once"]) == 0
    said = capsys.readouterr()
    assert "flowers 1.2.0" in said.out
    assert max(map(cells, said.out.splitlines())) < 70
    assert main(["top", "unix:/nowhere/at/all", "--once"]) == 1
    assert capsys.readouterr().err.startswith("error: no answer from unix:/nowhere/at/all: No such file")
