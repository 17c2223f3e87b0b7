"""The arena that CUDA's provider allocates from, over the CPU's memory, with a limit that a large batch exceeds.

Refuses nothing; prints what the runtime makes of the error, then whether the session runs on."""

import sys

import numpy as np
import onnxruntime as ort
from edgekit_runtime.engines.nvidia import failure, unopened

limited = ort.OrtArenaCfg({"max_mem": 4_000_000, "arena_extend_strategy": 1})
kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
ort.create_and_register_allocator(kind, limited)
settings = ort.SessionOptions()
settings.log_severity_level = 4
settings.add_session_config_entry("session.use_env_allocators", "1")
session = ort.InferenceSession(sys.argv[1], settings, providers=["CPUExecutionProvider"], enable_fallback=0)
few, many = (np.zeros((rows, 3, 32, 32), np.float32) for rows in (1, 500))
session.run(None, {"x": few})
try:
    session.run(None, {"x": many})
except Exception as error:  # ONNX Runtime's errors share no base class below Exception
    for found in (failure(error, "net.onnx"), unopened(error, "net.onnx")):
        sys.stdout.write(f"{type(found).__name__}: {found.what if found else error}\n")
sys.stdout.write(f"{session.run(None, {'x': few})[0].shape}\n")
