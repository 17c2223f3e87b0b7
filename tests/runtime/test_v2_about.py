"""What the Open Inference Protocol v2 tells of models, and its settings."""

import logging
from types import SimpleNamespace

import pytest
from edgekit_runtime.errors import BadRequest, NotOffered
from edgekit_runtime.protocols import v2_about
from edgekit_runtime.protocols.v2_settings import Settings, trace_json
from edgekit_runtime.stats import Stats
from edgekit_runtime.tensors import TensorSpec

X, Y = TensorSpec("x", "float32", (None, 3, 2)), TensorSpec("y", "object", (None, 4))
SPECS = ((X,), (Y,))


@pytest.fixture(autouse=True)
def _the_log_as_it_was():
    levels = {name: logging.getLogger(name).level for name in ("edgekit_runtime", "edgekit_runtime.trace")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_metadata_says_minus_one_for_a_free_size():
    told = v2_about.metadata("m", ["1", "2"], "edgekit_onnx", SPECS)
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 2]}]
    assert told["outputs"] == [{"name": "y", "datatype": "BYTES", "shape": [-1, 4]}]
    assert told["versions"] == ["1", "2"]


def test_a_type_that_the_protocol_lacks_is_told_and_breaks_nothing():
    odd = TensorSpec("z", "complex64", (1,))
    assert v2_about.metadata("m", ["1"], "p", ((odd,), ()))["inputs"][0]["datatype"] == "COMPLEX64"


def test_config_tells_sizes_whole_without_batching_and_without_the_batch_with_it():
    whole = v2_about.config(v2_about.Facts("m", "1", "onnx", SPECS, 4, "labels.txt", "model.onnx"))
    assert (whole["max_batch_size"], whole["input"][0]["dims"]) == (0, [-1, 3, 2])
    assert whole["input"][0]["data_type"] == "TYPE_FP32"
    assert whole["output"][0] == {
        "name": "y",
        "data_type": "TYPE_STRING",
        "dims": [-1, 4],
        "label_filename": "labels.txt",
    }
    assert "dynamic_batching" not in whole
    facts = v2_about.Facts("m", "1", "onnx", SPECS, batch=8, delay=0.002, preferred=(4, 8), device="cuda")
    batched = v2_about.config(facts)
    assert (batched["max_batch_size"], batched["input"][0]["dims"]) == (8, [3, 2])
    assert batched["dynamic_batching"] == {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 2000}
    assert batched["instance_group"][0]["kind"] == "KIND_GPU"


def test_statistics_are_what_was_counted():
    stats = Stats()
    stats.executed(3, 1000)
    stats.executed(1, 500)
    stats.answered(10, 20, 1000, 30)
    stats.failed(7)
    told = v2_about.statistics("m", "1", stats)
    assert (told["inference_count"], told["execution_count"]) == (4, 2)
    assert told["inference_stats"]["success"] == {"count": 1, "ns": 1060}
    assert told["inference_stats"]["fail"] == {"count": 1, "ns": 7}
    assert told["inference_stats"]["queue"] == {"count": 1, "ns": 20}
    assert told["inference_stats"]["compute_output"] == {"count": 1, "ns": 30}
    assert [one["batch_size"] for one in told["batch_stats"]] == [1, 3]
    assert told["batch_stats"][1]["compute_infer"] == {"count": 1, "ns": 1000}
    assert told["last_inference"] == stats.last_ms > 1_600_000_000_000


def test_the_index_can_leave_out_what_is_not_ready():
    entries = [SimpleNamespace(name=n, version="1", state=s, reason="") for n, s in (("a", "READY"), ("b", "LOADING"))]
    assert [one["name"] for one in v2_about.index(entries)] == ["a", "b"]
    assert v2_about.index(entries, ready=True) == [{"name": "a", "version": "1", "state": "READY", "reason": ""}]


def test_trace_settings_are_one_models_or_everyones_and_null_gives_back_the_default():
    settings = Settings()
    assert trace_json(settings.trace("m"))["trace_level"] == ["OFF"]
    settings.set_trace({"trace_level": ["TIMESTAMPS"], "trace_rate": "2"})
    settings.set_trace({"trace_rate": 5, "trace_count": "3"}, "m")
    told = trace_json(settings.trace("m"))
    assert (told["trace_level"], told["trace_rate"], told["trace_count"]) == (["TIMESTAMPS"], "5", "3")
    assert settings.trace("other").trace_rate == 2
    settings.set_trace({"trace_rate": None}, "m")
    assert settings.trace("m").trace_rate == 2
    settings.set_trace({"trace_rate": None, "trace_level": None})
    assert (settings.trace().trace_rate, settings.tracing) == (1000, False)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"trace_file": "/etc/passwd"}, NotOffered),
        ({"trace_file": None}, NotOffered),
        ({"trace_level": ["TENSORS"]}, BadRequest),
        ({"trace_level": ["OFF", "TIMESTAMPS"]}, BadRequest),
        ({"trace_level": {}}, BadRequest),
        ({"trace_rate": "0"}, BadRequest),
        ({"trace_rate": "many"}, BadRequest),
        ({"trace_rate": True}, BadRequest),
        ({"trace_count": "-2"}, BadRequest),
        ({"log_frequency": 2**40}, BadRequest),
        ({"trace_rat": "1"}, BadRequest),
    ],
)
def test_trace_settings_that_are_none_change_nothing(said, kind):
    settings = Settings()
    with pytest.raises(kind):
        settings.set_trace({"trace_level": ["TIMESTAMPS"], **said} if "trace_level" not in said else said)
    assert not settings.tracing


def test_traces_are_told_at_their_rate_and_up_to_their_count(caplog):
    settings = Settings()
    settings.set_trace({"trace_level": ["TIMESTAMPS"], "trace_rate": "3", "trace_count": "2"})
    for turn in range(30):
        settings.traced("m", "1", {"REQUEST_START": turn})
    lines = [record.getMessage() for record in caplog.records if record.name == "edgekit_runtime.trace"]
    assert len(lines) == 2
    assert '"model_name": "m"' in lines[0]
    assert '"REQUEST_START": 5' in lines[1]


def test_log_levels_include_each_other():
    settings = Settings()
    told = settings.set_logging({"log_info": True})
    assert (told["log_info"], told["log_warning"], told["log_error"], told["log_verbose_level"]) == (
        True,
        True,
        True,
        0,
    )
    assert logging.getLogger("edgekit_runtime.http").isEnabledFor(logging.INFO)
    assert settings.set_logging({"log_verbose_level": 2})["log_verbose_level"] == 1
    assert logging.getLogger("edgekit_runtime").isEnabledFor(logging.DEBUG)
    assert settings.set_logging({"log_verbose_level": 0, "log_info": False})["log_info"] is False
    told = settings.set_logging({"log_error": False, "log_file": None})
    assert not any(told[key] for key in ("log_info", "log_warning", "log_error"))
    assert not logging.getLogger("edgekit_runtime").isEnabledFor(logging.CRITICAL)
    assert settings.set_logging({"log_warning": True})["log_error"] is True


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"log_file": "/tmp/x"}, NotOffered),
        ({"log_format": "ISO8601"}, NotOffered),
        ({"log_info": 1}, BadRequest),
        ({"log_info": True, "log_error": False}, BadRequest),
        ({"log_verbose_level": -1}, BadRequest),
        ({"log_verbose_level": "1"}, BadRequest),
        ({"log_everything": True}, BadRequest),
    ],
)
def test_log_settings_that_are_none_change_nothing(said, kind):
    settings, before = Settings(), Settings().logging()
    with pytest.raises(kind):
        settings.set_logging({"log_verbose_level": 1, **said})
    assert settings.logging() == before
