"""Facts of builds that never were, for the tests of the report: images, a series, a refusal, a build without a budget.

Refuses nothing; they are shaped as `edgekit.report.as_json` shapes them, JSON values alone."""

import base64
import random
import struct
import zlib
from typing import Any

Facts = dict[str, Any]
CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def picture(seed: int, side: int = 28) -> str:
    """A small grey PNG as a data URI."""
    dice = random.Random(seed)
    cx, cy, wide, tall = (dice.uniform(*ends) for ends in ((10, 18), (10, 18), (5, 10), (6, 12)))
    rows = b"".join(
        b"\0"
        + bytes(
            max(0, min(255, int(255 * (1.2 - ((x - cx) / wide) ** 2 - ((y - cy) / tall) ** 2) + dice.gauss(0, 18))))
            for x in range(side)
        )
        for y in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def quality(metric: str, n: int, reference: float, drop: float, half: float) -> Facts:
    """A metric with its drop and interval."""
    value = reference + drop if metric == "mae" else reference - drop
    return {
        "metric": metric,
        "n": n,
        "reference": reference,
        "value": value,
        "drop": drop,
        "low": drop - half,
        "high": drop + half,
    }


def interval(n: int, drop: float, half: float, **more: Any) -> Facts:
    """A drop with its interval."""
    return {"n": n, "drop": drop, "low": drop - half, "high": drop + half, **more}


def candidate(title: str, precision: str, verdict: str, **more: Any) -> Facts:
    """One that was tried; what is not given was not measured."""
    known: Facts = {
        "chosen": False,
        "title": title,
        "recipe": "",
        "format": title.split()[0].lower(),
        "precision": precision,
        "threads": 4,
        "chosen_because": "the target runs this format",
        "verdict": verdict,
        "why": f"it {verdict}",
        "bytes": 1_340_000,
        "float_bytes": 5_210_000,
        "peak_mb": 41.2,
        "quality": None,
        "agreement": None,
        "screened": None,
        "confirmed": None,
        "classes": [],
        "latency": None,
        "float_latency": None,
        "timed": "",
        "scored_on": [],
        "notes": [],
        "parity_to_source": [],
        "parity_to_float": [],
        "front": False,
    }
    return {**known, **more}


def latency(median: float, ratio: float) -> Facts:
    """A median with its ratio to float32."""
    return {
        "median_ms": median,
        "p90_ms": median * 1.13,
        "n": 200,
        "ratio": ratio,
        "low": ratio * 0.97,
        "high": ratio * 1.04,
    }


def top1(drop: float, half: float = 0.0021) -> Facts:
    """Accuracy on all samples and, with more doubt, on the search's."""
    return {
        "quality": quality("top1", 10_000, 0.9181, drop, half),
        "agreement": quality("agreement", 10_000, 1.0, 0.021 + abs(drop), 0.003),
        "screened": interval(2_000, drop + 0.0012, half * 2.2),
    }


def images() -> Facts:
    """Ten classes, seven candidates, everything measured."""
    parity = {
        "output": "logits",
        "worst": 1.7,
        "mean": 0.093,
        "cosine": 0.99621,
        "agreement": 0.9792,
        "scale": 14.1,
        "samples": 64,
    }
    base = candidate(
        "ONNX float32",
        "float32",
        "passed",
        **top1(0.0, 0.0004),
        latency=latency(9.41, 1.0),
        bytes=5_210_000,
        front=True,
        chosen_because="the yardstick of every other",
        float_latency=latency(9.41, 1.0),
    )
    ruined = candidate(
        "ONNX int8",
        "int8",
        "missed",
        **top1(0.112, 0.006),
        recipe="min-max ranges",
        latency=latency(5.1, 0.54),
        why="top1 drop +11.20pt [+10.60pt, +11.80pt], n = 2,000, over 0.5pt",
    )
    near = candidate(
        "ONNX int8",
        "int8",
        "missed",
        **top1(0.0064),
        recipe="percentile ranges 99.99",
        latency=latency(5.0, 0.53),
        front=True,
    )
    pick = candidate(
        "ONNX int8",
        "int8",
        "passed",
        **top1(0.0011),
        recipe="percentile ranges, 3 operators in float",
        chosen=True,
        front=True,
        latency=latency(5.33, 0.566),
        float_latency=latency(9.41, 1.0),
        confirmed=interval(5_120, 0.0009, 0.0027, of=8_000, level=0.975),
        why="top1 drop +0.11pt [-0.10pt, +0.32pt], n = 10,000, within 0.5pt",
        timed="here, on 4 threads of this machine's processor, in turn with float32",
        classes=recalls(),
        parity_to_float=[parity],
        parity_to_source=[{**parity, "worst": 2.1e-6, "mean": 3e-7, "cosine": 1.0}],
        notes=["Three operators stay in float: they are the most sensitive of 41."],
        scored_on=[
            {
                "where": "cortex-a72, emulated",
                "n": 512,
                "worst": 0.0021,
                "same": 0.998,
                "value": 0.9165,
                **interval(512, 0.0016, 0.009),
                "words": "qemu-user, the wheels of the target",
            },
            {
                "where": "Haswell, emulated",
                "n": 512,
                "worst": 0.21,
                "same": 0.913,
                "value": 0.889,
                **interval(512, 0.0291, 0.014),
                "words": "AVX2 saturates: not this target's",
            },
        ],
    )
    tflite = candidate(
        "TFLite int8",
        "int8",
        "passed",
        **top1(0.0021, 0.0024),
        recipe="min-max ranges",
        latency=latency(6.2, 0.66),
        bytes=1_290_000,
    )
    openvino = candidate("OpenVINO int8", "int8", "passed", **top1(0.0004), latency=latency(4.9, 0.94), bytes=1_410_000)
    refused = candidate(
        "TFLite int8-weights",
        "int8-weights",
        "refused",
        bytes=0,
        float_bytes=0,
        peak_mb=None,
        why="ai-edge-quantizer has no recipe for LSTM (use --precision float16)",
    )
    return {
        "name": "depthwise",
        "version": "1.0.0",
        "target": {"name": "rpi4", "title": "Raspberry Pi 4", "arch": "aarch64"},
        "verdict": "passed",
        "why": pick["why"],
        "hint": "",
        "budget": "0.5pt",
        "sentence": "ONNX int8 loses at most 0.32 points of accuracy on a Raspberry Pi 4, "
        "within the 0.5 that you allowed, and is 1.77 times as fast as float32.",
        "pick": "The cheapest candidate whose whole interval is within the budget: "
        "its default ranges lost 11 points, and three operators in float won them back.",
        "command": "edgekit build nets.py:depthwise --weights 'depthwise.safetensors' --target rpi4 "
        "--data fashion.npz --max-drop 0.5pt --max-class-drop 2pt --max-latency 20ms",
        "peak_mb": 812.0,
        "seconds": 143.2,
        "goals": {
            "max_drop": "0.5pt",
            "max_class_drop": "2pt",
            "max_latency_ms": 20.0,
            "max_bytes": None,
            "max_memory_mb": None,
            "smaller": False,
        },
        "source": {
            "model": "nets.py:depthwise",
            "kind": "torch",
            "sha256": "9f" * 32,
            "parameters": 1_302_410,
            "bytes": 5_209_640,
            "inputs": ["x float32 [batch, 1, 28, 28]"],
            "outputs": ["logits float32 [batch, 10]"],
        },
        "data": {
            "evaluation": {
                "where": "fashion.npz",
                "n": 10_000,
                "sha256": "3c" * 32,
                "labelled": True,
                "search": 2_000,
                "confirm": 8_000,
            },
            "calibration": {
                "where": "fashion.npz, split off",
                "n": 128,
                "sha256": "a1" * 32,
                "labelled": True,
                "classes": {name: 8 + 2 * i for i, name in enumerate(CLOTHES) if name != "Bag"},
                "missing": ["Bag"],
                "sufficient": [
                    interval(16, 0.0061, 0.004),
                    interval(32, 0.0024, 0.003),
                    interval(64, 0.0013, 0.0024),
                    interval(128, 0.0011, 0.0021),
                ],
            },
        },
        "candidates": [base, ruined, near, pick, tflite, openvino, refused],
        "left_out": ["OpenVINO int4: no kernel for it on aarch64", "TFLite float16: slower than float32 on this core"],
        "machine": {
            "processor": "AMD EPYC 9R14",
            "arch": "x86_64",
            "isa": ["avx2", "avx512_vnni"],
            "threads": 2,
            "python": "3.11.7",
        },
        "tools": {"onnxruntime": "1.31.1", "openvino": "2026.4.1", "nncf": "3.4.0", "torch": "2.13.0"},
        "edgekit": "0.1.0",
        "details": image_details(),
    }


def recalls() -> list[Facts]:
    """Recall of ten classes, the worst drop first."""
    drops = [0.018, 0.009, 0.004, 0.003, 0.001, 0.0, 0.0, -0.001, -0.002, -0.006]
    rows = []
    for name, drop in zip(
        ["Shirt", "Coat", "Pullover", *[c for c in CLOTHES if c not in ("Shirt", "Coat", "Pullover")]],
        drops,
        strict=True,
    ):
        before = 0.74 if name == "Shirt" else 0.93 - 0.05 * (name in ("Coat", "Pullover"))
        rows.append({"class": name, "reference": before, "value": before - drop, **interval(1_000, drop, 0.011)})
    return rows


def image_details(classes: int = 10) -> Facts:
    """Confusion, layers, times and samples of the pick."""
    dice = random.Random(7)
    names = list(CLOTHES) if classes == 10 else [f"class {i}" for i in range(classes)]
    before = [[930 if i == j else dice.choice([0, 0, 0, 3, 9, 24]) for j in range(classes)] for i in range(classes)]
    made = [[max(0, cell + dice.choice([0, 0, 0, 0, -4, 2, 6])) for cell in row] for row in before]
    made[classes // 2][0] += 27
    ops = ["Conv", "HardSwish", "Gemm", "Conv", "GlobalAveragePool", "HardSigmoid", "Mul", "Add"]
    layers = [
        {
            "place": i,
            "name": f"/features/{i}/{ops[i % 8].lower()}/{ops[i % 8]}_output_0",
            "op": ops[i % 8],
            "error": 0.31 * 0.83**k,
            "cosine": 1 - 0.04 * 0.7**k,
        }
        for k, i in enumerate(dice.sample(range(41), 41))
    ]
    differing = [
        {
            "index": 17 * i + 4,
            "label": CLOTHES[(i * 3) % 10],
            "picture": picture(i),
            "series": None,
            "values": None,
            "float": {"answer": CLOTHES[(i * 3 if i % 3 else i * 3 + 1) % 10], "score": 0.41 + 0.02 * i},
            "made": {"answer": CLOTHES[(i * 3 + (2 if i % 3 else 0)) % 10], "score": 0.44 + 0.01 * i},
        }
        for i in range(12)
    ]
    return {
        "of": "ONNX int8",
        "confusion": {"classes": names, "float": before, "made": made},
        "layers": layers,
        "latency": {
            "float": sorted(9.2 + dice.expovariate(3.2) for _ in range(200)),
            "made": sorted(5.2 + dice.expovariate(4.5) for _ in range(200)),
        },
        "differing": differing,
        "differing_count": 214,
        "differing_of": 10_000,
    }


def series() -> Facts:
    """A regression on series: no classes, nothing timed, a budget in percent, too few samples to tell."""
    dice = random.Random(3)
    waves = [[[dice.gauss(0, 0.3) + (t / 20) * k for t in range(200)] for k in range(3)] for _ in range(4)]
    found = quality("mae", 96, 0.412, 0.0041, 0.0066)
    pick = candidate(
        "TFLite int8",
        "int8",
        "inconclusive",
        chosen=True,
        quality=found,
        bytes=84_000,
        float_bytes=301_000,
        why="mae drop +0.0041 [-0.0025, +0.0107], n = 96: too few samples to tell against 1%; about 410 would do",
        timed="not timed: this machine is x86_64, the target is armv7l",
    )
    return {
        "name": "gait",
        "version": "2.1",
        "target": {"name": "armv7", "title": "32-bit ARM", "arch": "armv7l"},
        "verdict": "inconclusive",
        "why": pick["why"],
        "hint": "give about 410 samples with --data",
        "budget": "1%",
        "sentence": "96 samples are too few to tell whether TFLite int8 is within 1% of the source's "
        "error; about 410 would do.",
        "goals": {"max_drop": "1%"},
        "command": "edgekit build gait.keras --target armv7 --data gait.npz --max-drop 1%",
        "source": {
            "model": "gait.keras",
            "kind": "keras",
            "sha256": "00" * 32,
            "parameters": 71_000,
            "bytes": 290_000,
            "inputs": ["x float32 [batch, 3, 200]"],
            "outputs": ["y float32 [batch, 1]"],
        },
        "data": {
            "evaluation": {
                "where": "gait.npz",
                "n": 96,
                "sha256": "11" * 32,
                "labelled": True,
                "search": 96,
                "confirm": 0,
            },
            "calibration": {
                "where": "gait.npz, split off",
                "n": 32,
                "sha256": "22" * 32,
                "labelled": True,
                "classes": None,
                "missing": [],
                "sufficient": [],
            },
        },
        "candidates": [
            pick,
            candidate(
                "TFLite float32",
                "float32",
                "passed",
                quality=quality("mae", 96, 0.412, 0.0, 0.0),
                bytes=301_000,
                front=True,
            ),
        ],
        "left_out": [],
        "machine": {"processor": "a test's"},
        "tools": {"tensorflow": "2.21.0"},
        "edgekit": "0.1.0",
        "details": {
            "of": "TFLite int8",
            "confusion": None,
            "layers": [],
            "latency": None,
            "differing_count": 4,
            "differing_of": 96,
            "differing": [
                {
                    "index": i,
                    "label": None,
                    "float": {"answer": f"{1.2 + i:.2f}", "score": None},
                    "made": {"answer": f"{1.9 + i:.2f}", "score": None},
                    "picture": None,
                    "series": wave,
                    "values": None,
                }
                for i, wave in enumerate(waves)
            ],
        },
    }


def refused() -> Facts:
    """Nothing could be made."""
    return {
        "name": "speech",
        "version": "1",
        "target": {"name": "rpi5", "title": "Raspberry Pi 5", "arch": "aarch64"},
        "verdict": "refused",
        "why": "onnx2tf made a file that needs the custom operator ONNX_LSTM",
        "hint": "use --format onnx",
        "budget": "2pt",
        "source": {"model": "speech.onnx", "kind": "onnx"},
        "data": {"evaluation": None, "calibration": None},
        "candidates": [
            candidate(
                "TFLite int8",
                "int8",
                "refused",
                chosen=True,
                bytes=0,
                float_bytes=0,
                peak_mb=None,
                why="onnx2tf made a file that needs the custom operator ONNX_LSTM",
            )
        ],
        "left_out": ["ONNX int8: not asked for"],
        "machine": {},
        "tools": {},
        "edgekit": "0.1.0",
    }


def unbudgeted() -> Facts:
    """No data, no budget: nothing but a size."""
    return {
        "name": "tiny",
        "version": "1",
        "target": {"name": "x86-64-v3", "title": "Any x86-64-v3", "arch": "x86_64"},
        "verdict": "unbudgeted",
        "why": "no data: checked against the source on random inputs alone",
        "budget": None,
        "source": {"model": "tiny.onnx", "kind": "onnx"},
        "data": {"evaluation": None, "calibration": None},
        "candidates": [candidate("ONNX float32", "float32", "unbudgeted", chosen=True)],
        "left_out": [],
        "machine": {"processor": "a test's"},
        "tools": {"onnxruntime": "1.31.1"},
        "edgekit": "0.1.0",
        "details": None,
    }


ALL = {"images": images, "series": series, "refused": refused, "unbudgeted": unbudgeted}
