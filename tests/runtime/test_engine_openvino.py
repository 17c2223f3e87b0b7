"""OpenVINO's devices: the best there is, several together, and what is told of them; on CPUs, one of them twice."""

from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.engines import EngineOptions, open_model
from edgekit_runtime.engines import openvino as engine
from edgekit_runtime.errors import Unsupported

from tests.runtime.bundles import some, truth, write_model

ALONE = engine.ov.Core().available_devices == ["CPU"]
cpu_alone = pytest.mark.skipif(not ALONE, reason="OpenVINO has an accelerator here: what the lack of one does is moot")
PROPERTIES = ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.xml"
    write_model(path, "openvino")
    return path


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO with its CPU plugin twice, as CPU and as XCPU, so that there are two real devices."""
    libraries = Path(engine.ov.__file__).parent / "libs"
    plugins = {"CPU": "intel_cpu", "XCPU": "intel_cpu", "AUTO": "auto", "HETERO": "hetero", "BATCH": "auto_batch"}
    lines = (
        f'<plugin name="{name}" location="{libraries}/libopenvino_{library}_plugin.so"></plugin>'
        for name, library in plugins.items()
    )
    (tmp_path / "plugins.xml").write_text(f"<ie><plugins>{''.join(lines)}</plugins></ie>")
    core = engine.ov.Core
    monkeypatch.setattr(engine.ov, "Core", lambda: core(tmp_path / "plugins.xml"))


def right(path: Path, options: EngineOptions) -> bool:
    run = open_model("openvino", path, options)
    return all(np.abs(run({"x": some(rows)})["y"] - truth(some(rows))).max() < 1e-5 for rows in (1, 3))


@cpu_alone
@pytest.mark.parametrize("device", ["gpu", "npu"])
def test_a_device_that_is_not_there_is_refused_naming_those_that_are(model, device):
    with pytest.raises(Unsupported, match=f"model.xml is for {device}, and OpenVINO finds none") as caught:
        open_model("openvino", model, EngineOptions(device=device))
    assert "devices here: CPU" in caught.value.hint


@cpu_alone
@pytest.mark.parametrize("device", ["auto", "hetero"])
@pytest.mark.parametrize("order", [(), ("gpu", "cpu"), ("npu", "gpu", "cpu")])
def test_an_order_with_the_cpu_in_it_falls_back_to_it_and_says_so(model, device, order):
    options = EngineOptions(device=device, order=order)
    assert right(model, options)
    found = engine.placement(model, options)
    assert (found.device, found.accelerated) == (device, 0)
    assert dict(found.left)["MatMul"] == 1


@cpu_alone
@pytest.mark.parametrize("device", ["auto", "hetero"])
def test_an_order_without_the_cpu_does_not_fall_back_to_it(model, device):
    with pytest.raises(Unsupported, match="is for npu or gpu, and OpenVINO finds none"):
        open_model("openvino", model, EngineOptions(device=device, order=("npu", "gpu")))


@cpu_alone
@pytest.mark.parametrize("device", ["auto", "hetero"])
def test_the_cpu_is_no_accelerator_and_the_operators_left_on_it_are_named(model, device):
    with pytest.raises(Unsupported, match=r"0 of \d operators.*wanted are 90%.*MatMul"):
        open_model("openvino", model, EngineOptions(device=device, order=("gpu", "cpu"), least=0.9))


def test_the_cpu_that_was_asked_for_holds_all_of_it(model):
    found = engine.placement(model, EngineOptions(least=1.0))
    assert found.share == 1.0
    assert found.text().startswith("cpu: ")
    assert right(model, EngineOptions(least=1.0))


@pytest.mark.slow
def test_hetero_says_which_device_takes_what(two, model):
    options = EngineOptions(device="hetero", order=("xcpu", "cpu"), least=1.0)
    assert right(model, options)
    found = engine.placement(model, options)
    assert (found.device, dict(found.left)) == ("xcpu", {})
    turned = engine.placement(model, EngineOptions(device="hetero", order=("cpu", "xcpu")))
    assert turned.accelerated == 0


@pytest.mark.slow
def test_a_second_device_is_used_by_its_name(two, model):
    assert right(model, EngineOptions(device="xcpu"))
    assert engine.placement(model, EngineOptions(device="xcpu")).device == "xcpu"


def test_an_operator_that_hetero_says_nothing_of_is_on_the_cpu():
    work = {"a": "MatMul", "b": "Softmax", "c": "Softmax", "d": "TopK"}
    found = engine._counted(work, {"a": "NPU", "b": "CPU", "c": "CPU"}, "hetero")
    assert found.text() == "npu: 1 of 4 operators (25%); on the CPU: Softmax x2, TopK"


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "auto", "hetero"])
@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_no_device_lowers_the_precision_or_takes_more_than_its_threads(model, device, hint):
    compiled, _, _ = engine._compiled(model, EngineOptions(device=device, order=("cpu",), hint=hint))
    said = compiled.get_property("DEVICE_PROPERTIES")["CPU"] if device != "cpu" else {}
    asked = [said[name] if said else compiled.get_property(name) for name in PROPERTIES]
    assert (asked[0].to_string(), *map(str, asked[1:])) == ("f32", "1", "1", hint.upper())
    assert right(model, EngineOptions(device=device, order=("cpu",), hint=hint))
