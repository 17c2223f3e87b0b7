"""On an NVIDIA GPU: the provider is used, the answers are right, memory is bounded. Skipped where there is none."""

import numpy as np
import pytest
from edgekit_runtime.engines import EngineOptions, nvidia, open_model, placement
from edgekit_runtime.errors import Busy, EdgeKitError, Unsupported
from edgekit_runtime.machine.gpu import open_nvml

from tests.gpu import nets

TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "int8": 5e-2}
"""Of the largest answer: another order of summing, half precision, and rounding at a step's edge."""


@pytest.fixture(autouse=True)
def gpu():
    """A GPU that ONNX Runtime can use, or the reason why there is none."""
    if (reason := nvidia.lack(nvidia.CUDA)) is not None:
        pytest.skip(f"no NVIDIA GPU for ONNX Runtime here: {reason}")


def device(name):
    """Skips TensorRT where its libraries are not."""
    if name == "tensorrt" and (reason := nvidia.lack(nvidia.TENSORRT)) is not None:
        pytest.skip(f"no TensorRT here: {reason}")
    return name


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
@pytest.mark.parametrize("precision", list(TOLERANCES))
@pytest.mark.parametrize("batch", ["batch", 2])
def test_each_precision_answers_on_the_gpu_as_on_the_cpu(tmp_path, name, precision, batch):
    path = nets.write(tmp_path, precision, nets.cnn(batch))
    arithmetic = "float16" if precision == "float16" else "float32"
    run = open_model("onnx", path, EngineOptions(device=device(name), precision=arithmetic))
    plain = open_model("onnx", path)
    for seed in range(3):
        x = nets.photos(2, seed=seed)
        want = plain({"x": x})["y"]
        assert np.abs(run({"x": x})["y"] - want).max() <= TOLERANCES[precision] * np.abs(want).max()


def test_every_operator_of_a_convolutional_net_runs_on_the_gpu(tmp_path):
    path = nets.write(tmp_path)
    found = placement("onnx", path, EngineOptions(device="cuda"))
    assert found is not None
    assert (found.device, dict(found.left)) == ("cuda", {})
    open_model("onnx", path, EngineOptions(device="cuda", least=1.0))({"x": nets.photos(1)})


def test_a_model_of_which_an_operator_stays_on_the_cpu_is_refused_by_its_name(tmp_path):
    path = nets.write(tmp_path, model=nets.with_det())
    with pytest.raises(Unsupported, match="Det x2"):
        open_model("onnx", path, EngineOptions(device="cuda", least=1.0))
    open_model("onnx", path, EngineOptions(device="cuda"))({"x": nets.photos(1, 8)})


def test_a_full_gpu_is_a_busy_server_that_answers_the_next_request(tmp_path):
    path = nets.write(tmp_path)
    run = open_model("onnx", path, EngineOptions(device="cuda", memory_mb=64))
    x = nets.photos(1)
    before = run({"x": x})["y"]
    with pytest.raises(Busy):
        run({"x": nets.photos(2048)})  # 256 MiB for one layer
    assert np.allclose(run({"x": x})["y"], before, atol=1e-5)


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(EdgeKitError):
        open_model("onnx", nets.write(tmp_path), EngineOptions(device="cuda", settings=(("device_id", "99"),)))


def test_nvml_tells_of_the_memory_that_a_model_takes(tmp_path):
    read = open_nvml()
    assert read is not None, "CUDA runs, and NVML does not answer"
    first = read()[0]
    assert first.memory_total is not None
    assert first.memory_used is not None
    run = open_model("onnx", nets.write(tmp_path), EngineOptions(device="cuda"))
    run({"x": nets.photos(512)})
    second = read()[0]
    assert second.memory_used is not None
    assert 0 < second.memory_used <= first.memory_total
    assert second.temperature is None or 0 < second.temperature < 120
