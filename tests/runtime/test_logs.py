"""The server's log: text as it always read, documents that fit Elastic's schema, and no flood of either."""

import io
import json
import logging
import os
import re
import time
import tomllib
from importlib.resources import files

import pytest
import yaml
from edgekit_runtime import __version__, logs
from edgekit_runtime.errors import BadRequest
from edgekit_runtime.logs import ACTIONS, FIELDS, Lines, event, is_journal, setup

ECS = {
    "@timestamp": "date", "message": "match_only_text", "ecs.version": "keyword", "log.level": "keyword",
    "log.logger": "keyword", "service.name": "keyword", "service.version": "keyword", "host.hostname": "keyword",
    "process.pid": "long", "event.kind": "keyword", "event.category": "keyword", "event.type": "keyword",
    "event.action": "keyword", "event.outcome": "keyword", "event.reason": "keyword", "event.dataset": "keyword",
    "event.duration": "long", "event.ingested": "date", "error.type": "keyword", "error.message": "match_only_text",
    "error.stack_trace": "wildcard", "trace.id": "keyword", "span.id": "keyword", "http.request.id": "keyword",
    "http.request.method": "keyword", "http.response.status_code": "long", "labels": "object",
}  # fmt: skip
"""The types that Elastic publishes for ECS 9.4 (ecs_flat), of the fields that are used here."""
KINDS = {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"}
TYPES = {  # those that ECS expects of a category
    "": {"access", "change", "creation", "deletion", "end", "error", "info", "start"},
    "process": {"access", "change", "end", "info", "start"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
    "web": {"access", "error", "info"},
}
ARRAYS = {"event.category", "event.type"}
log = logging.getLogger("edgekit_runtime.test")


@pytest.fixture
def written():
    """Set the log up; then the text that was written."""
    ours = logging.getLogger("edgekit_runtime")
    before, level, propagate = list(ours.handlers), ours.level, ours.propagate
    stream = io.StringIO()

    def begin(form, journal=""):
        setup(form, stream, journal)
        return stream

    yield begin
    for handler in [one for one in ours.handlers if isinstance(one, Lines)]:
        handler.close()
    ours.handlers, ours.propagate = before, propagate
    ours.setLevel(level)


def documents(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def flat(document, before=""):
    for key, value in document.items():
        if isinstance(value, dict) and before + key != "labels":
            yield from flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def fits(document):
    """Raise unless Elasticsearch, with the template, would take the document as ECS means it."""
    for path, value in flat(document):
        kind = ECS[path]
        assert isinstance(value, list) == (path in ARRAYS), path
        for one in value if isinstance(value, list) else [value]:
            if kind == "long":
                assert type(one) is int
                assert abs(one) < 2**63
            elif kind == "date":
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one)
            elif kind == "object":
                assert all(isinstance(item, str) and len(item) <= 1024 and "." not in key for key, item in one.items())
            else:
                assert isinstance(one, str)
                assert kind != "keyword" or len(one) <= 1024
                assert one.encode("utf-8")
    said = document.get("event")
    if said is not None:
        assert said["kind"] in KINDS
        assert set(said["type"]) <= TYPES[said.get("category", [""])[0]]


def test_text_reads_as_it_always_did(written):
    stream = written("text")
    log.info("not told")
    log.warning("%s has\na line", "it")
    event(log, logging.WARNING, "drift-alarm-raised", "birds drifts: brightness", model="birds")
    event(log, logging.INFO, "request-refused", "not told", reason="busy")
    try:
        raise ValueError("forged\nERROR edgekit_runtime.x: y\x1b[2J")
    except ValueError:
        log.exception("unexpected error")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "WARNING edgekit_runtime.test: it has\\na line"
    assert lines[1] == "WARNING edgekit_runtime.test: birds drifts: brightness"
    assert lines[2] == "ERROR edgekit_runtime.test: unexpected error"
    assert lines[3] == "  Traceback (most recent call last):"
    assert lines[-2:] == ["  ValueError: forged", "  ERROR edgekit_runtime.x: y\\x1b[2J"]


def test_each_action_is_a_document_of_the_schema(written):
    stream = written("ecs")
    for action in ACTIONS:
        event(log, logging.INFO, action, f"{action} it is", model="birds", version="3", outcome="success",
              reason="busy", duration_ns=1500, trace_id="ab" * 16, span_id="cd" * 8, request_id="r1", method="POST",
              status=503, share=0.12345678, features=["a", "b"], passed=True, nothing=None)  # fmt: skip
    found = documents(stream)
    assert [one["event"]["action"] for one in found] == list(ACTIONS)
    for one in found:
        fits(one)
    first = found[0]
    assert first["message"] == "server-started it is"
    assert first["log"] == {"level": "info", "logger": "edgekit_runtime.test"}
    assert first["service"] == {"name": "edgekit-runtime", "version": __version__}
    assert first["process"]["pid"] == os.getpid()
    assert first["event"]["duration"] == 1500
    assert (first["trace"]["id"], first["span"]["id"], first["http"]["request"]) == (
        "ab" * 16, "cd" * 8, {"id": "r1", "method": "POST"},
    )  # fmt: skip
    assert first["labels"] == {
        "model": "birds", "model_version": "3", "share": "0.123457", "features": "a, b", "passed": "True",
    }  # fmt: skip
    assert abs(time.time() - _seconds(first["@timestamp"])) < 60


def test_the_template_gives_each_field_the_type_that_the_schema_has():
    template = json.loads(files("edgekit_runtime").joinpath("ecs/template.json").read_text())
    mapped = {}

    def walk(properties, before=""):
        for key, value in properties.items():
            if "properties" in value:
                walk(value["properties"], f"{before}{key}.")
            else:
                mapped[before + key] = value["type"]

    walk(template["template"]["mappings"]["properties"])
    assert mapped == ECS
    assert {path.replace("labels.model_version", "labels") for path, _ in FIELDS.values()} <= mapped.keys()
    assert template["template"]["settings"]["index.default_pipeline"] == "logs-edgekit"


def test_the_pipeline_makes_fields_of_a_line_and_leaves_other_words_alone(written):
    """By the documented meaning of its processors: no Elasticsearch runs here."""
    pipeline = json.loads(files("edgekit_runtime").joinpath("ecs/pipeline.json").read_text())
    kinds = [next(iter(one)) for one in pipeline["processors"]]
    assert kinds == ["json", "set", "set", "set"]
    stream = written("ecs")
    event(log, logging.WARNING, "drift-alarm-raised", "birds drifts", model="birds")
    line = stream.getvalue().splitlines()[0]
    assert line.startswith('{"@timestamp"')  # what the processor's condition looks for
    assert "startsWith('{\"@timestamp\"')" in pipeline["processors"][0]["json"]["if"]
    made = {"message": line, "host": {"name": "pi"}, "@timestamp": "2020-01-01T00:00:00.000Z"}
    _merge(made, json.loads(line))
    for one in pipeline["processors"][1:]:
        *folders, leaf = one["set"]["field"].split(".")
        inside = made
        for folder in folders:
            inside = inside.setdefault(folder, {})
        if one["set"].get("override", True) or leaf not in inside:
            inside[leaf] = one["set"]["value"].replace("{{{_ingest.timestamp}}}", "2020-01-01T00:00:00.000Z")
    assert made["host"].pop("name") == "pi"
    assert made["event"]["kind"] == "alert"
    assert made["event"]["dataset"] == "edgekit"
    fits(made)


def test_the_examples_for_shippers_read_and_point_to_the_unit_and_the_pipeline():
    folder = files("edgekit_runtime").joinpath("ecs")
    beat = yaml.safe_load(folder.joinpath("filebeat.yml").read_text())
    vector = tomllib.loads(folder.joinpath("vector.toml").read_text())
    assert beat["filebeat.inputs"][0]["include_matches.match"] == ["_SYSTEMD_UNIT=edgekit.service"]
    assert beat["output.elasticsearch"]["pipeline"] == "logs-edgekit"
    assert vector["sources"]["edgekit"]["include_units"] == ["edgekit.service"]
    assert vector["sinks"]["elasticsearch"]["inputs"] == ["ecs"]


def test_an_error_tells_its_kind_and_words_and_a_bug_where_it_was_raised(written):
    stream = written("ecs")
    event(log, logging.INFO, "request-refused", "refused", error=BadRequest("x: a float\x00", "send one"))
    try:
        try:
            raise KeyError("the payload " * 1000)
        except KeyError as error:
            raise ValueError("could not convert " + "payload " * 1000) from error
    except ValueError:
        log.exception("unexpected error")
    refused, bug = documents(stream)
    assert refused["error"] == {"type": "BadRequest", "message": "x: a float\x00"}
    assert bug["error"]["type"] == "ValueError"
    assert len(bug["error"]["message"]) == 200
    stack = bug["error"]["stack_trace"]
    assert "payload" not in re.sub(r"raise .*", "", stack)
    assert stack.count(f'File "{__file__}"') == 2
    assert stack.rstrip().endswith("KeyError")
    fits(refused)
    fits(bug)


def test_no_line_is_longer_than_it_may_be_nor_has_a_line_end_in_it(written):
    stream = written("ecs")
    long = "\U0001f426\n\x1b[2J\u2028" * 50_000
    try:
        raise ValueError(long)
    except ValueError:
        log.exception(long)
    event(log, logging.INFO, long, long, request_id=long, reason=long, **{f"{long[:300]}{n}": long for n in range(90)})
    lines = stream.getvalue().split("\n")
    assert [bool(line) for line in lines] == [True, True, False]
    for line in lines[:2]:
        assert len(line) <= 16_384
        assert line.isascii()
        assert line.isprintable()
        document = json.loads(line)
        assert {"@timestamp", "message", "log", "ecs"} <= document.keys()
        fits(document)


def test_what_does_not_turn_into_words_is_still_told(written):
    class Bad(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    stream = written("ecs")
    try:
        raise Bad
    except Bad:
        log.exception("unexpected error")
    log.warning("%d rows", "many")
    event(
        log, logging.INFO, "model-loaded", "\udc80 \ud83d", model="\udc80", share=float("nan"), status="x", when=2**70
    )
    event(log, logging.INFO, "model-loaded", "numbers", duration_ns=2**70, status=True)
    found = documents(stream)
    assert len(found) == 4
    assert "does not read" in found[0]["message"]
    assert "does not read" in found[1]["message"]
    assert found[2]["labels"] == {"model": "?", "share": "nan", "status": "x", "when": str(2**70)}
    assert found[3]["labels"] == {"duration_ns": str(2**70), "status": "True"}
    for one in found[1:]:
        fits(one)


@pytest.mark.parametrize("form", ["text", "ecs"])
def test_neither_a_token_nor_a_password_in_a_url_is_logged(written, form):
    stream = written(form)
    secret = "ek_" + "Zz9_-aA0" * 5
    log.warning("no answer from %s", f"https://me:pass@word@collector:4318/v1?x=1 nor {secret}")
    log.warning("header Authorization: Bearer %s", secret)
    event(log, logging.WARNING, "model-failed", "x", error=ValueError(f"Basic {'QWxhZGRpbjo='}"), url="http://u:p@h/")
    text = stream.getvalue()
    assert "https://***@collector:4318/v1?x=1 nor ***" in text
    assert not any(word in text for word in ("Zz9", "pass@", "word@", "QWxh", "u:p"))


def test_a_flood_is_thinned_out_and_what_was_left_out_is_counted(written):
    stream = written("ecs")
    for _ in range(1000):
        event(log, logging.INFO, "request-refused", "refused", reason="busy")
        event(log, logging.INFO, "request-refused", "refused", reason="late")
    event(log, logging.WARNING, "drift-alarm-raised", "another matter", model="birds")
    found = documents(stream)
    assert [one["event"]["reason"] for one in found[:-1]] == ["busy", "late"] * 10
    assert found[-1]["event"]["action"] == "drift-alarm-raised"
    end = time.monotonic() + 60
    while len(documents(stream)) < 23 and time.monotonic() < end:  # nothing more is logged meanwhile
        time.sleep(0.05)
    told = documents(stream)[21:]
    assert [one["message"] for one in told] == [
        f"990 more lines like this were left out: {word}" for word in ("busy", "late")
    ]
    assert [one["labels"]["count"] for one in told] == ["990", "990"]
    for one in told:
        fits(one)


def test_words_of_many_kinds_do_not_fill_the_journal_either(written):
    stream = written("text")
    for number in range(5000):
        log.warning(f"message {number}")
    assert len(stream.getvalue().splitlines()) <= 200
    _handler().settle()
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 402
    assert lines[-1] == "WARNING edgekit_runtime: 4800 more lines like this were left out: others"


def test_traces_that_an_operator_asked_for_are_all_told(written):
    stream = written("ecs")
    for _ in range(300):
        logging.getLogger("edgekit_runtime.trace").info("{}")
    assert len(documents(stream)) == 300


def test_a_log_that_is_thinned_out_keeps_nobodys_request_in_memory(written):
    import gc
    import weakref

    class Payload:
        pass

    written("ecs")
    payload = Payload()
    gone = weakref.ref(payload)
    try:
        raise ValueError(payload)
    except ValueError:
        log.exception("unexpected error")
    del payload
    gc.collect()
    assert gone() is None


def test_each_line_for_the_journal_says_its_priority(tmp_path, written):
    ours = logging.getLogger("edgekit_runtime")
    with open(tmp_path / "log", "w+") as stream:
        found = os.fstat(stream.fileno())
        journal = f"{found.st_dev}:{found.st_ino}"
        written("text")
        setup("text", stream, journal)
        ours.setLevel(logging.DEBUG)
        for level in (logging.DEBUG, logging.INFO, 25, logging.WARNING, logging.ERROR, logging.CRITICAL, 99):
            log.log(level, "a")
        try:
            raise ValueError("b")
        except ValueError:
            log.exception("c")
        setup("ecs", stream, journal)
        log.error("d")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:3] for line in lines[:7]] == ["<7>", "<6>", "<6>", "<4>", "<3>", "<2>", "<2>"]
    assert all(line.startswith("<3>") for line in lines[7:])
    assert "<3>  ValueError: b" in lines
    assert json.loads(lines[-1].removeprefix("<3>"))["message"] == "d"


def test_the_journal_is_known_by_device_and_inode_alone(tmp_path):
    with open(tmp_path / "a", "w") as stream:
        found = os.fstat(stream.fileno())
        assert is_journal(stream, f"{found.st_dev}:{found.st_ino}")
        for other in ("", "1", f"{found.st_dev}:{found.st_ino + 1}", f"{found.st_dev}:{found.st_ino} "):
            assert not is_journal(stream, other)
    assert not is_journal(stream, f"{found.st_dev}:{found.st_ino}")
    assert not is_journal(io.StringIO(), "1:2")


def test_a_full_disk_or_a_reader_that_left_stops_nobody(written, capfd):
    written("ecs")
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full", "w") as full, os.fdopen(write, "w") as gone:
        for stream in (full, gone):
            setup("ecs", stream)
            for _ in range(3):
                log.warning("x")
            _handler().close()
            logging.getLogger("edgekit_runtime").handlers.clear()
            stream.buffer.raw.close()
    assert capfd.readouterr().err == ""


def test_set_up_twice_logs_once(written):
    written("text")
    stream = written("text")
    log.warning("x")
    assert stream.getvalue() == "WARNING edgekit_runtime.test: x\n"


def _handler():
    return next(one for one in logging.getLogger("edgekit_runtime").handlers if isinstance(one, Lines))


def _merge(target, more):
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _seconds(text):
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def test_the_service_in_logs_and_traces_has_one_name():
    assert logs.SERVICE == "edgekit-runtime"
