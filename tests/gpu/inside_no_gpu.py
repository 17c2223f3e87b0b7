"""Run with onnxruntime-gpu where there is no GPU: what it does by itself with argv[1], and what our engine does, also
when it does not look for CUDA's libraries beforehand.

Refuses nothing; one JSON object on stdout."""

import json
import sys
from pathlib import Path

import onnxruntime as ort

sys.path.insert(0, sys.argv[2])

from edgekit_runtime.detect import detect
from edgekit_runtime.engines import EngineOptions, nvidia, open_model
from edgekit_runtime.engines.nvidia import CUDA, TENSORRT, lack
from edgekit_runtime.errors import EdgeKitError

said = {}
for device in ("cuda", "tensorrt"):
    try:
        open_model("onnx", Path(sys.argv[1]), EngineOptions(device=device))
    except EdgeKitError as error:
        said[device] = [type(error).__name__, error.what, error.hint]
alone = ort.InferenceSession(sys.argv[1], providers=[CUDA]).get_providers()
lacking = {one: lack(one) for one in (CUDA, TENSORRT)}
nvidia.lack = lambda provider: None
try:
    open_model("onnx", Path(sys.argv[1]), EngineOptions(device="cuda"))
    late = ""
except EdgeKitError as error:
    late = error.what
told = {"said": said, "alone": alone, "available": ort.get_available_providers(), "cuda": detect()["cuda"]}
sys.stdout.write(json.dumps({**told, "lack": lacking, "late": late}))
