"""What is said to CUDA's and TensorRT's providers, and where TensorRT's engines are kept."""

import subprocess
import sys
from pathlib import Path

import pytest
from edgekit_runtime.engines import EngineOptions, nvidia
from edgekit_runtime.errors import Busy, EdgeKitError, Unsupported

from tests.gpu import nets

HERE = Path(__file__).parent


def test_float32_stays_float32_on_a_gpu_unless_somebody_says_otherwise():
    assert nvidia._cuda(EngineOptions(device="cuda"))["use_tf32"] == "0"
    assert nvidia._cuda(EngineOptions(device="cuda", settings=(("use_tf32", "1"),)))["use_tf32"] == "1"


def test_a_memory_limit_reaches_both_providers_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = EngineOptions(device="tensorrt", memory_mb=512)
    said = nvidia._cuda(options)
    assert (said["gpu_mem_limit"], said["arena_extend_strategy"]) == ("536870912", "kSameAsRequested")
    assert nvidia._tensorrt(nets.write(tmp_path), options)["trt_max_workspace_size"] == "536870912"
    assert "gpu_mem_limit" not in nvidia._cuda(EngineOptions(device="cuda"))


def test_settings_go_to_the_provider_that_they_are_for_and_over_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = (("device_id", "1"), ("enable_cuda_graph", "1"), ("trt_fp16_enable", "1"))
    options = EngineOptions(device="tensorrt", settings=settings)
    cuda, tensorrt = nvidia._cuda(options), nvidia._tensorrt(nets.write(tmp_path), options)
    assert (cuda["device_id"], cuda["enable_cuda_graph"]) == ("1", "1")
    assert (tensorrt["device_id"], tensorrt["trt_fp16_enable"]) == ("1", "1")
    assert not [name for name in cuda if name.startswith("trt_")]
    assert "enable_cuda_graph" not in tensorrt


@pytest.mark.parametrize(
    "setting",
    [
        ("user_compute_stream", "4096"),
        ("gpu_external_alloc", "4096"),
        ("trt_extra_plugin_lib_paths", "evil.so"),
        ("trt_engine_cache_path", "elsewhere"),
        ("use_tf32", "1; rm"),
        ("use_tf32", "../x"),
        ("use_tf32", ""),
    ],
)
def test_a_manifest_cannot_give_a_provider_an_address_a_path_or_a_library(tmp_path, setting):
    options = EngineOptions(device="tensorrt", settings=(setting,))
    with pytest.raises(Unsupported, match="is no setting for an NVIDIA GPU"):
        nvidia.providers(nets.write(tmp_path), options)


@pytest.mark.parametrize("said", ["", "-1", "one", "0x1", "1234"])
def test_a_number_of_no_gpu_is_refused(said):
    with pytest.raises(Unsupported, match="device_id"):
        nvidia.number(EngineOptions(device="cuda", settings=(("device_id", said),)))


def test_tensorrt_is_told_of_float16_and_of_8_bit_nodes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    plain = nvidia._tensorrt(nets.write(tmp_path), EngineOptions(device="tensorrt"))
    half = nvidia._tensorrt(nets.write(tmp_path, "float16"), EngineOptions(device="tensorrt", precision="float16"))
    small = nvidia._tensorrt(nets.write(tmp_path, "int8"), EngineOptions(device="tensorrt"))
    flags = [(one["trt_fp16_enable"], one["trt_int8_enable"]) for one in (plain, half, small)]
    assert flags == [("0", "0"), ("1", "0"), ("0", "1")]


def test_engines_are_kept_by_the_file_s_bytes_so_new_weights_never_meet_an_old_engine(tmp_path):
    path = nets.write(tmp_path)
    first = nvidia.kept(path, tmp_path)
    assert first is not None
    assert first.stat().st_mode & 0o777 == 0o700
    assert nvidia.kept(path, tmp_path) == first
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    second = nvidia.kept(path, tmp_path)
    assert second not in (None, first)
    (tmp_path / f"{path.name}.data").write_bytes(b"weights beside it")
    assert nvidia.kept(path, tmp_path) not in (None, first, second)


def test_engines_are_not_kept_where_others_may_write(tmp_path, caplog):
    path = nets.write(tmp_path)
    folder = nvidia.kept(path, tmp_path)
    assert folder is not None
    folder.chmod(0o777)
    assert nvidia.kept(path, tmp_path) is None
    assert "others may write" in caplog.text
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert nvidia.kept(path, tmp_path) is None
    (tmp_path / "file").write_text("")
    assert nvidia.kept(path, tmp_path / "file") is None


@pytest.mark.slow
def test_a_full_memory_is_a_busy_server_and_the_process_lives_on(tmp_path):
    """CUDA's provider allocates from this same arena: here it is given a limit over the CPU's memory."""
    done = subprocess.run(
        [sys.executable, HERE / "inside_full_memory.py", nets.write(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Busy: net.onnx: the GPU has no memory left for this",
        "Unsupported: net.onnx does not fit into the GPU's memory",
        "(1, 10)",
    ]


def test_errors_are_told_apart():
    full = nvidia.failure(RuntimeError("CUDA failure 2: out of memory ; GPU=0"), "m")
    broken = nvidia.failure(RuntimeError("CUDA failure 700: an illegal memory access was encountered"), "m")
    assert isinstance(full, Busy)
    assert type(broken) is EdgeKitError
    assert "start the server again" in broken.hint
    assert nvidia.failure(RuntimeError("INVALID_ARGUMENT : Got invalid dimensions for input: x"), "m") is None
