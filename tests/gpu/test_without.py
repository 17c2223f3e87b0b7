"""Where there is no GPU: what is refused, in which words, with the build of ONNX Runtime that is here and with the real
onnxruntime-gpu."""

import json
import subprocess
from pathlib import Path

import edgekit_runtime
import onnxruntime as ort
import pytest
from edgekit_runtime.engines import EngineOptions, nvidia, open_model
from edgekit_runtime.errors import Unsupported

from edgekit.isolated import environment
from tests.gpu import nets

HERE = Path(__file__).parent
RUNTIME = Path(edgekit_runtime.__file__).parent.parent


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_cpu_build_refuses_a_gpu_and_says_what_to_install(tmp_path, device):
    if nvidia.CUDA in ort.get_available_providers():
        pytest.skip("this is ONNX Runtime's GPU build")
    with pytest.raises(Unsupported, match="has no CUDAExecutionProvider") as caught:
        open_model("onnx", nets.write(tmp_path), EngineOptions(device=device))
    assert "onnxruntime-gpu instead of onnxruntime" in caught.value.hint


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """What onnxruntime-gpu does without CUDA or without a driver."""
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU here")
    python = environment("onnxruntime-gpu", HERE / "requirements-onnxruntime-gpu.txt", lambda _: None)
    path = nets.write(tmp_path_factory.mktemp("bare"))
    done = subprocess.run(
        [python, HERE / "inside_no_gpu.py", path, RUNTIME], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_onnxruntime_gpu_itself_takes_the_cpu_without_a_word_to_the_caller(bare):
    assert nvidia.CUDA in bare["available"]
    assert bare["alone"] == ["CPUExecutionProvider"]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_our_engine_names_the_library_that_does_not_load_and_what_to_do(bare, device):
    kind, what, hint = bare["said"][device]
    assert kind == "Unsupported"
    assert ".so" in what
    assert "cannot open shared object file" in what
    assert "/" not in what
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in hint or "driver" in hint


@pytest.mark.slow
def test_what_is_lacking_is_told_for_each_provider(bare):
    assert "cannot open" in bare["lack"][nvidia.CUDA]
    assert "cannot open" in bare["lack"][nvidia.TENSORRT]
    assert bare["cuda"] is True  # the package is there: `detect` tells packages, not GPUs


@pytest.mark.slow
def test_a_provider_that_onnx_runtime_drops_all_the_same_is_noticed_when_the_file_is_open(bare):
    assert bare["late"].endswith(
        "ONNX Runtime did not take CUDAExecutionProvider and would run on CPUExecutionProvider"
    )


# ONNX Runtime 1.31.1 with a driver's library that says CUDA_ERROR_NO_DEVICE, as it was printed
NO_DEVICE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static "
    "onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const "
    "onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse "
    'provider option "device_id": CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm ; '
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc ; line=70 ; "
    "expr=cudaGetDeviceCount(&num_devices);"
)


def test_a_driver_without_a_gpu_is_told_in_cuda_s_own_words_and_no_more():
    found = nvidia.unopened(RuntimeError(NO_DEVICE), "m.onnx")
    assert isinstance(found, Unsupported)
    assert found.what == "m.onnx does not open on the GPU: CUDA failure 100: no CUDA-capable device is detected"
    assert "nvidia-smi" in found.hint
    assert nvidia.unopened(RuntimeError("Load model failed: Protobuf parsing failed"), "m.onnx") is None
