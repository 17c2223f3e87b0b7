"""The options by which a server watches itself: what each begins, and what is refused with what to type instead."""

import argparse
import json
import urllib.request

import pytest
from edgekit_runtime import options_watch
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.limits import MIB


@pytest.fixture
def watched():
    """What these words begin; ended with the test."""
    made = []

    def of(*words):
        parser = argparse.ArgumentParser()
        options_watch.add(parser.add_argument_group("watching"))
        made.append(options_watch.watch(parser.parse_args(list(map(str, words)))))
        return made[-1]

    yield of
    for watch in made:
        for part in (watch.telemetry, watch.tracer, watch.hook):
            if part is not None:
                part.close()


def test_without_words_there_is_the_page_and_drift_and_nothing_on_disk(watched):
    found = watched()
    assert (found.page, found.triton, found.state) == (True, False, None)
    assert (found.telemetry, found.tracer, found.hook) == (None, None, None)
    wishes = found.wishes
    assert (wishes.drift, wishes.rate, wishes.per_second, wishes.shadow) == (True, 0.01, None, 0.0)
    assert (wishes.samples, wishes.feedback) == (None, None)


def test_each_word_begins_what_it_says(watched, tmp_path):
    words = ("--no-page", "--triton-metrics", "--drift-rate", "0.5", "--drift-samples", "2", "--shadow", "0.1")
    more = ("--feedback", "--on-drift", "/bin/true now", "--state", tmp_path / "state", "--keep-samples", "3")
    found = watched(*words, *more, "--telemetry-mb", "2", "--log-format", "ecs")
    assert (found.page, found.triton, found.state) == (False, True, tmp_path / "state")
    assert (found.wishes.rate, found.wishes.per_second, found.wishes.shadow) == (0.5, 2.0, 0.1)
    assert found.wishes.feedback is not None
    assert (found.wishes.samples.folder, found.wishes.samples.limit) == (tmp_path / "state" / "samples", 3 * MIB)
    assert found.hook.words[1:] == ["now"]
    assert (tmp_path / "state").is_dir()
    assert found.telemetry is not None
    assert watched("--no-drift").wishes.drift is False


def test_it_sends_with_the_headers_of_the_file(watched, tmp_path):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra [otlp]")
    (tmp_path / "headers").write_text("Authorization: Bearer x\n")
    to = ("--otlp", "http://127.0.0.1:9", "--remote-write", "http://127.0.0.1:9/write", "--traces", "0.5")
    found = watched("--state", tmp_path / "state", *to, "--send-headers", tmp_path / "headers")
    assert found.tracer is not None
    assert len(found.telemetry._senders) == 2


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("--keep-samples 5", "--keep-samples without --state", "say --state DIR"),
        ("--otlp http://a", "--otlp without --state", "say --state DIR"),
        ("--remote-write http://a", "--remote-write without --state", "say --state DIR"),
        ("--traces 0.1 --state {0}", "--traces without --otlp", "say --otlp URL"),
        ("--send-headers {0}/h --state {0}", "--send-headers with nobody to send to", "say --otlp URL"),
        ("--on-drift /bin/true --no-drift", "--on-drift with --no-drift", "leave out --no-drift"),
        ("--telemetry-mb 64", "--telemetry-mb without --state", "say --state DIR"),
        ("--drift-rate 0.01 --no-drift", "--drift-rate with --no-drift", "leave out --no-drift, or --drift-rate"),
        ("--drift-samples 1 --no-drift", "--drift-samples with --no-drift", "leave out --no-drift"),
        ("--on-drift ''", "empty", "name a program: --on-drift"),
        ("--state {0} --otlp ''", "not one of a web server", "say http://HOST:PORT/PATH"),
        ("--state {0} --remote-write ''", "not one of a web server", "say http://HOST:PORT/PATH"),
        ("--on-drift nosuchcommand", "no command 'nosuchcommand'", "give the whole path"),
        ("--state {0}/file", "file", ""),
        ("--state {0}/file/below --keep-samples 5", "cannot hold samples", "name a folder that can be written"),
        ("--state {0} --telemetry-mb 0.5", "telemetry needs 1 MB", "say --telemetry-mb 64"),
        ("--state {0} --otlp ftp://a", "not one of a web server", "say http://HOST:PORT/PATH"),
        ("--state {0} --remote-write nonsense", "not one of a web server", "say http://HOST:PORT/PATH"),
        ("--state {0} --remote-write http://a --send-headers {0}/none", "No such file", "Name: value"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_type(watched, tmp_path, words, said, hint):
    import shlex

    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeKitError) as refused:
        watched(*shlex.split(words.format(tmp_path)))
    assert said in refused.value.what
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    "words",
    ["--drift-rate 0", "--drift-rate nan", "--drift-samples -1", "--shadow 2", "--traces 1.5", "--keep-samples 0",
     "--keep-samples 5MB", "--telemetry-mb x", "--log-format json"],
)  # fmt: skip
def test_a_word_that_is_no_value_is_wrong_usage(watched, capsys, words):
    with pytest.raises(SystemExit) as ended:
        watched(*words.split())
    assert ended.value.code == 2
    assert words.split()[0] in capsys.readouterr().err


def test_after_a_refusal_the_folder_is_free_again(watched, tmp_path):
    with pytest.raises(EdgeKitError):
        watched("--state", tmp_path, "--remote-write", "nonsense")
    assert watched("--state", tmp_path).telemetry is not None


@pytest.mark.slow
def test_they_reach_a_server_that_is_started_with_them(tmp_path):
    from tests.clients.serving import serving
    from tests.runtime.bundles import make_bundle

    words = ("--no-page", "--triton-metrics", "--state", tmp_path / "state", "--feedback", "--log-format", "ecs")
    with serving([make_bundle(tmp_path / "tiny")], *words) as one:
        accept = urllib.request.Request(f"{one.http}/", headers={"Accept": "text/html"})
        assert json.loads(urllib.request.urlopen(accept, timeout=10).read())["status"] == "alive"
        metrics = urllib.request.urlopen(f"{one.http}/metrics", timeout=10).read().decode()
        assert "nv_inference_count" in metrics
        assert "edgekit_telemetry_bytes" in metrics
        lines = [json.loads(line) for line in one.errors.read_text().splitlines()]
        assert any(line.get("event", {}).get("action") == "server-started" for line in lines)
