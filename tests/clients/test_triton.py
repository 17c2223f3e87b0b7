"""Triton's own clients, unmodified, all four: what HTTP and gRPC, plain and asyncio, can ask alike."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.clients.doors import CLIENTS, Awaited, Door, door
from tests.clients.models import ENGINES, KINDS, some_of
from tests.clients.serving import Running
from tests.runtime.bundles import LABELS, some, truth

pytestmark = pytest.mark.slow

TINY = [f"tiny-{engine}" for engine in ENGINES]
SMALL = [f"small-{engine}" for engine in ENGINES]
Story = Callable[[Awaited], Awaitable[Any]]


@pytest.fixture(params=CLIENTS)
def to(request: pytest.FixtureRequest, running: Running) -> Door:
    """Each of the four clients."""
    return door(request.param, running)


def tell(to: Door, story: Story, **options: Any) -> Any:
    """Run a story with an open client."""

    async def whole() -> Any:
        async with to.open(**options) as client:
            return await story(client)

    return asyncio.run(whole())


def refused(to: Door, story: Story) -> InferenceServerException:
    """The error that a story ends in."""
    with pytest.raises(InferenceServerException) as caught:
        tell(to, story)
    return caught.value


def same_status(to: Door, error: InferenceServerException, status: str, code: str) -> bool:
    """Whether the error has the HTTP status or the gRPC code."""
    return error.status() == (f"StatusCode.{code}" if to.rpc else status)


@pytest.mark.parametrize("model", [*TINY, *SMALL, "every", "default"])
def test_the_server_and_each_model_are_live_and_ready(to: Door, model: str) -> None:
    async def story(client: Awaited) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(model)

    tell(to, story)


def test_a_model_or_version_that_is_not_there_is_not_ready(to: Door) -> None:
    async def story(client: Awaited) -> None:
        assert not await client.is_model_ready("nobody")
        assert not await client.is_model_ready("tiny-onnx", "4")
        assert await client.is_model_ready("tiny-onnx", "9")

    tell(to, story)


def test_the_server_tells_its_name_and_extensions(to: Door) -> None:
    async def story(client: Awaited) -> None:
        told = await client.get_server_metadata(**to.as_json)
        assert told["name"] == "edgekit-runtime"
        assert {"binary_tensor_data", "classification", "model_configuration", "statistics"} <= set(told["extensions"])
        assert "cuda_shared_memory" not in told["extensions"]

    tell(to, story)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_models_metadata_tells_its_versions_and_tensors(to: Door, engine: str) -> None:
    async def story(client: Awaited) -> None:
        told = await client.get_model_metadata(f"tiny-{engine}", **to.as_json)
        assert told["name"] == f"tiny-{engine}"
        assert told["versions"] == (["9", "10"] if engine == "onnx" else ["9"])
        assert [int(n) for n in told["inputs"][0]["shape"]] == [-1, 3, 2, 2]
        assert (told["inputs"][0]["name"], told["inputs"][0]["datatype"]) == ("x", "FP32")
        assert [int(n) for n in told["outputs"][0]["shape"]] == [-1, 4]

    tell(to, story)


def test_a_models_config_is_tritons_message(to: Door) -> None:
    async def story(client: Awaited) -> None:
        told = await client.get_model_config("tiny-onnx", **to.as_json)
        config = told["config"] if to.rpc else told
        assert config["name"] == "tiny-onnx"
        assert config["input"][0]["name"] == "x"
        assert config["input"][0]["data_type"] == "TYPE_FP32"
        assert config["output"][0]["name"] == "y"

    tell(to, story)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("model", TINY)
def test_the_numbers_are_right(to: Door, model: str, rows: int) -> None:
    async def story(client: Awaited) -> None:
        for outputs in (None, [to.wanted("y")]):
            answer = await client.infer(model, [to.given(some(rows))], outputs=outputs, request_id="r1")
            assert answer.as_numpy("y").shape == (rows, 4)
            assert np.allclose(answer.as_numpy("y"), truth(some(rows)), atol=1e-5)
            told = answer.get_response(**to.as_json)
            assert (told["id"], told["model_name"]) == ("r1", model)

    tell(to, story)


@pytest.mark.parametrize("model", SMALL)
def test_int8_inside_is_float_outside(to: Door, model: str) -> None:
    async def story(client: Awaited) -> None:
        answer = await client.infer(model, [to.given(some(2))])
        assert np.abs(answer.as_numpy("y") - truth(some(2))).max() < 0.06

    tell(to, story)


@pytest.mark.parametrize(("model", "version", "answered"), [("tiny-onnx", "9", "9"), ("tiny-onnx", "", "10")])
def test_a_version_can_be_asked_for(to: Door, model: str, version: str, answered: str) -> None:
    async def story(client: Awaited) -> None:
        answer = await client.infer(model, [to.given(some())], model_version=version)
        assert answer.get_response(**to.as_json)["model_version"] == answered

    tell(to, story)


def test_an_alias_stands_for_a_model_or_a_version_of_it(to: Door) -> None:
    async def story(client: Awaited) -> None:
        for alias, version in (("default", "10"), ("old", "9")):
            answer = await client.infer(alias, [to.given(some())])
            assert np.allclose(answer.as_numpy("y"), truth(some()), atol=1e-5)
            assert answer.get_response(**to.as_json)["model_version"] == version

    tell(to, story)


@pytest.mark.parametrize("count", [3, 1, 0])
def test_every_type_goes_in_and_comes_out_as_it_was_also_empty(to: Door, count: int) -> None:
    values = {kind: some_of(kind, 3)[:count] for kind in KINDS}

    async def story(client: Awaited) -> None:
        answer = await client.infer("every", [to.given(value, kind, kind) for kind, value in values.items()])
        for kind, value in values.items():
            came = answer.as_numpy(f"OUT_{kind}")
            assert came.shape == (count,)
            assert came.tolist() == value.tolist(), kind

    tell(to, story)


def test_half_floats_are_computed_with(to: Door) -> None:
    value = np.array([[1.5, -2], [0, 65504]], np.float16)

    async def story(client: Awaited) -> None:
        came = (await client.infer("half", [to.given(value, "h", "FP16")])).as_numpy("negative")
        assert came.dtype == np.float16
        assert came.tolist() == (-value).tolist()

    tell(to, story)


def test_strings_may_be_given_as_text(to: Door) -> None:
    words = np.empty(2, dtype=object)
    words[:] = ["gr\u00fcn", ""]

    async def story(client: Awaited) -> None:
        came = (await client.infer("words", [to.given(words, "text", "BYTES")])).as_numpy("same")
        assert [word.decode() for word in came] == ["gr\u00fcn", ""]

    tell(to, story)


@pytest.mark.parametrize("model", [*TINY, *SMALL])
def test_the_best_classes_come_with_their_labels(to: Door, model: str) -> None:
    async def story(client: Awaited) -> None:
        answer = await client.infer(model, [to.given(some(2))], outputs=[to.wanted("y", class_count=2)])
        best = answer.as_numpy("y")
        assert best.shape == (2, 2)
        for row, scores in zip(best, truth(some(2)), strict=True):
            value, index, label = row[0].decode().split(":")
            assert (int(index), label) == (int(scores.argmax()), LABELS[int(scores.argmax())])
            assert abs(float(value) - scores.max()) < 0.06

    tell(to, story)


def test_many_at_once_each_get_their_own_answer(to: Door) -> None:
    async def story(client: Awaited) -> None:
        async def one(seed: int) -> None:
            answer = await client.infer("tiny-onnx", [to.given(some(1 + seed % 3, seed))], request_id=str(seed))
            assert np.allclose(answer.as_numpy("y"), truth(some(1 + seed % 3, seed)), atol=1e-5)
            assert answer.get_response(**to.as_json)["id"] == str(seed)

        await asyncio.gather(*map(one, range(30)))

    tell(to, story)


def test_statistics_count_what_was_asked(to: Door) -> None:
    async def story(client: Awaited) -> None:
        async def success() -> tuple[int, int]:
            told = await client.get_inference_statistics("half", "1", **to.as_json)
            stats = told["model_stats"][0]
            assert (stats["name"], stats["version"]) == ("half", "1")
            return int(stats["inference_stats"]["success"]["count"]), int(stats["inference_count"])

        value = np.zeros((3, 2), np.float16)
        await client.infer("half", [to.given(value, "h", "FP16")])
        before = await success()
        await client.infer("half", [to.given(value, "h", "FP16")])
        assert await success() == (before[0] + 1, before[1] + 3)
        names = {stats["name"] for stats in (await client.get_inference_statistics(**to.as_json))["model_stats"]}
        assert {*TINY, *SMALL, "every", "half", "words"} <= names

    tell(to, story)


def test_settings_of_traces_and_logs_can_be_read_and_a_trace_is_never_on(to: Door) -> None:
    async def story(client: Awaited) -> None:
        trace = await client.get_trace_settings(**to.as_json)
        settings = trace["settings"] if to.rpc else trace
        level = settings["trace_level"]
        assert (level["value"] if to.rpc else level) in (["OFF"], "OFF")
        assert (await client.get_trace_settings("tiny-onnx", **to.as_json)) is not None
        log = await client.get_log_settings(**to.as_json)
        assert "log_verbose_level" in (log["settings"] if to.rpc else log)

    tell(to, story)


def test_a_repository_cannot_be_changed_from_the_open_address(to: Door) -> None:
    def load(client: Awaited) -> Awaitable[Any]:
        return client.load_model("spare")

    error = refused(to, load)
    assert error.status() in ("403", "404", "501", *(f"StatusCode.{code}" for code in ("PERMISSION_DENIED",)))


@pytest.mark.parametrize(
    ("shape", "datatype", "says"), [((1, 3, 2, 3), "FP32", "shape"), ((1, 3, 2, 2), "FP64", "FP32")]
)
def test_what_is_wrong_with_an_input_is_told(to: Door, shape: tuple[int, ...], datatype: str, says: str) -> None:
    value = np.zeros(shape, np.float32 if datatype == "FP32" else np.float64)
    error = refused(to, lambda client: client.infer("tiny-onnx", [to.given(value, "x", datatype)]))
    assert same_status(to, error, "400", "INVALID_ARGUMENT")
    assert says in error.message()
    assert "/" not in error.message()


def test_unknown_models_versions_inputs_and_outputs_are_told_apart(to: Door) -> None:
    given = [to.given(some())]
    for story in (
        lambda client: client.infer("nobody", given),
        lambda client: client.infer("tiny-onnx", given, model_version="4"),
        lambda client: client.get_model_metadata("nobody"),
        lambda client: client.get_model_config("nobody"),
        lambda client: client.get_inference_statistics("nobody"),
    ):
        assert same_status(to, refused(to, story), "404", "NOT_FOUND")
    for story in (
        lambda client: client.infer("tiny-onnx", [to.given(some(), "z")]),
        lambda client: client.infer("tiny-onnx", [*given, to.given(some(), "z")]),
        lambda client: client.infer("tiny-onnx", given, outputs=[to.wanted("z")]),
        lambda client: client.infer("tiny-onnx", given, sequence_id=3, sequence_start=True),
    ):
        assert same_status(to, refused(to, story), "400", "INVALID_ARGUMENT") or same_status(
            to, refused(to, story), "501", "UNIMPLEMENTED"
        )


def test_shared_memory_is_not_offered_and_says_so(to: Door) -> None:
    error = refused(to, lambda client: client.register_system_shared_memory("r", "/key", 16))
    assert same_status(to, error, "501", "UNIMPLEMENTED") or same_status(to, error, "400", "INVALID_ARGUMENT")
    assert "key" not in error.message()


def test_parameters_that_nobody_knows_are_let_through(to: Door) -> None:
    async def story(client: Awaited) -> None:
        answer = await client.infer("tiny-onnx", [to.given(some())], parameters={"mine": "yes", "count": 3}, priority=1)
        assert np.allclose(answer.as_numpy("y"), truth(some()), atol=1e-5)

    tell(to, story)


def test_a_timeout_that_is_long_enough_changes_nothing(to: Door) -> None:
    async def story(client: Awaited) -> None:
        answer = await client.infer("tiny-onnx", [to.given(some())], timeout=5_000_000)
        assert np.allclose(answer.as_numpy("y"), truth(some()), atol=1e-5)

    tell(to, story)


def test_a_config_is_json_that_can_be_written_again(to: Door) -> None:
    async def story(client: Awaited) -> None:
        assert json.loads(json.dumps(await client.get_model_config("every", **to.as_json)))

    tell(to, story)
