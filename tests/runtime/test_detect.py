"""What `detect` makes of /proc, and that the profile it writes is a target like any other."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from edgekit_runtime.detect import FEATURES, PACKAGES, detect, profile, saturating
from edgekit_runtime.engines import ENGINES

from edgekit.target import Target, find_target, parse_target

PI5 = """processor\t: {n}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b

"""
PC = """processor\t: {n}
vendor_id\t: GenuineIntel
model name\t: Intel(R) Core(TM) i5-7200U CPU @ 2.50GHz
flags\t\t: fpu sse sse2 pni ssse3 fma sse4_1 sse4_2 popcnt avx f16c avx2
bugs\t\t: spectre_v1

"""


@pytest.fixture
def pi5(tmp_path: Path) -> Path:
    (tmp_path / "cpuinfo").write_text(
        "".join(PI5.format(n=n) for n in range(4)) + "Model\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
    )
    (tmp_path / "meminfo").write_text("MemTotal:        8255856 kB\nMemFree:         6000000 kB\n")
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    return tmp_path


@pytest.fixture
def pc(tmp_path: Path) -> Path:
    (tmp_path / "cpuinfo").write_text("".join(PC.format(n=n) for n in range(4)))
    (tmp_path / "meminfo").write_text("MemTotal:       16000000 kB\n")
    return tmp_path


def read(text: str) -> Target:
    return parse_target(tomllib.loads(text), "profile")


def test_a_raspberry_pi_5_is_told_by_its_proc(pi5: Path) -> None:
    facts = detect(pi5, machine="aarch64")
    assert facts["model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert facts["isa"] == ["asimd", "fphp", "asimdhp", "asimddp"] == list(find_target("rpi5").isa)
    assert (facts["arch"], facts["cores"], facts["memory_mb"]) == ("aarch64", 4, 8062)


def test_a_pc_with_avx2_wants_seven_bit_weights(pc: Path) -> None:
    target = read(profile(detect(pc, machine="x86_64")))
    assert set(find_target("x86-64-v3").isa) == set(target.isa)
    assert target.saturates == ("onnx", "openvino")
    assert target.name == "intel-r-core-tm-i5-7200u-cpu-2-50ghz"


def test_a_profile_reads_back_as_a_target_with_all_its_sources(pi5: Path) -> None:
    facts = detect(pi5, machine="aarch64")
    target = read(profile(facts))
    assert (target.title, target.cores, target.threads) == (facts["model"], 4, 4)
    assert (target.memory_mb, target.storage_mb) == (facts["memory_mb"], facts["storage_mb"])
    assert target.saturates == ()
    assert {"arch", "isa", "cores", "memory_mb", "storage_mb", "engines", "precisions"} <= target.sources.keys()


def test_the_profile_of_this_machine_is_taken_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "here.toml").write_text(profile(detect()), encoding="utf-8")
    assert find_target(str(tmp_path / "here.toml")).arch == detect()["arch"]


def test_a_feature_that_one_core_lacks_does_not_count(pi5: Path) -> None:
    cpuinfo = pi5 / "cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace(" asimddp\n", "\n", 1))
    assert "asimddp" not in detect(pi5, machine="aarch64")["isa"]


def test_a_32_bit_system_has_neon_by_either_name(pi5: Path) -> None:
    facts = detect(pi5, machine="armv7l")
    assert facts["isa"] == ["neon", "vfpv4", "asimdhp", "asimddp"]
    assert read(profile(facts)).engines == ("tflite",)


A2000 = """Model: \t\t NVIDIA RTX A2000 12GB
IRQ:   \t\t 143
GPU UUID: \t GPU-5a5a5a5a-0000-0000-0000-000000000000
Video BIOS: \t 94.06.42.00.2a
Bus Type: \t PCIe
DMA Size: \t 47 bits
Bus Location: \t 0000:01:00.0
Device Minor: \t 0
GPU Firmware: \t 550.90.07
GPU Excluded:\t No
"""


def with_gpu(proc: Path, information: str = A2000) -> Path:
    folder = proc / "driver" / "nvidia" / "gpus" / "0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text(information)
    return proc


def test_an_nvidia_gpu_with_its_build_of_onnx_runtime_makes_a_profile_for_cuda(pc: Path) -> None:
    facts = {**detect(with_gpu(pc), machine="x86_64"), "cuda": True}
    assert facts["gpus"] == ["NVIDIA RTX A2000 12GB"]
    target = read(profile(facts))
    assert (target.engines, target.precisions, target.accelerators) == (("onnx",), ("float16", "float32"), ("cuda",))
    assert target.engine_options("onnx").device == "cuda"
    assert "A2000" in target.sources["accelerators"]
    assert target.saturates == ()


def test_an_nvidia_gpu_without_that_build_stays_a_cpu_s_profile_and_says_how_to_have_more(pc: Path) -> None:
    facts = {**detect(with_gpu(pc), machine="x86_64"), "cuda": False}
    text = profile(facts)
    assert text.startswith("# NVIDIA RTX A2000 12GB computes once onnxruntime-gpu stands in for onnxruntime")
    assert read(text).engine_options("onnx").device == "cpu"


def test_a_driver_without_a_gpu_and_a_gpu_without_a_name_are_no_trouble(pc: Path) -> None:
    (pc / "driver" / "nvidia" / "gpus").mkdir(parents=True)
    assert detect(pc, machine="x86_64")["gpus"] == []
    assert detect(with_gpu(pc, "Model:\t\n\x1b[2J"), machine="x86_64")["gpus"] == ["NVIDIA GPU"]


def test_a_jetson_has_a_gpu(pi5: Path) -> None:
    (pi5 / "device-tree" / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0003\0nvidia,tegra234\0")
    assert read(profile({**detect(pi5, machine="aarch64"), "cuda": True})).accelerators == ("cuda",)


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    facts = detect(tmp_path, machine="riscv64")
    assert (facts["model"], facts["isa"], facts["memory_mb"]) == ("unknown", [], 0)
    assert facts["cores"] >= 1


@pytest.mark.parametrize("named", [b"", b"\0", b'Board "X"\\\x7f\n\tRev \xc3\xa4\0'])
def test_any_board_name_makes_a_profile(pi5: Path, named: bytes) -> None:
    (pi5 / "device-tree" / "model").write_bytes(named)
    assert read(profile(detect(pi5, machine="aarch64"))).title in ("unknown", 'Board "X"\\Rev ä')


@pytest.mark.parametrize(
    ("isa", "engines"),
    [
        (["ssse3", "sse4_2"], ("openvino",)),
        (["avx2"], ("onnx", "openvino")),
        (["avx2", "avx512f"], ("onnx", "openvino")),
        (["avx2", "avx512f", "avx512_vnni"], ()),
        (["avx2", "avx_vnni"], ()),
    ],
)
def test_saturation_follows_the_instruction_set(isa: list[str], engines: tuple[str, ...]) -> None:
    assert saturating("x86_64", isa) == engines


def test_arm_does_not_saturate() -> None:
    assert saturating("aarch64", ["asimd"]) == saturating("armv7l", ["neon"]) == ()


def test_the_engines_of_the_table_are_the_ones_looked_for() -> None:
    assert PACKAGES.keys() == ENGINES.keys()


def test_an_arm_system_without_engines_yet_is_offered_litert_first(pi5: Path) -> None:
    bare = {**detect(pi5, machine="aarch64"), "engines": {}}
    assert read(profile(bare)).engines == ("tflite", "onnx", "openvino")


def test_every_architecture_has_its_features() -> None:
    assert FEATURES.keys() == {"aarch64", "armv7l", "x86_64"}


def test_engines_are_found_without_being_imported() -> None:
    code = (
        "import sys; from edgekit_runtime.detect import detect; detect(); print(sys.modules.keys()"
        " & {'onnxruntime', 'openvino', 'ai_edge_litert', 'tflite_runtime', 'edgekit'})"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert told.stdout == "set()\n"
