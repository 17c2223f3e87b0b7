"""Run with onnxruntime-openvino: where do the operators of argv[1] run? One JSON object on stdout.

Refuses nothing."""

import json
import sys

import onnxruntime as ort

sys.path.insert(0, sys.argv[2])

from edgekit_runtime.engines.onnx import told
from edgekit_runtime.engines.placed import check_placement
from edgekit_runtime.errors import Unsupported

PROVIDER = "OpenVINOExecutionProvider"
settings = ort.SessionOptions()
settings.log_severity_level = 4
settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
session = ort.InferenceSession(sys.argv[1], settings, providers=[PROVIDER], enable_fallback=0)
found = told(session, "openvino", (PROVIDER,))
assert found is not None
try:
    check_placement(found, float(sys.argv[3]), "det.onnx")
    refused = ""
except Unsupported as error:
    refused = error.what
sys.stdout.write(json.dumps({"accelerated": found.accelerated, "left": dict(found.left), "refused": refused}))
