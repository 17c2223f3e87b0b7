"""ONNX Runtime as all peers open it: one thread that does not spin, as EdgeKit's. As a program, the bare engine itself.

`python engine.py MODEL.onnx` runs once, prints a line, then for each line of stdin (seconds) runs for so long and
prints JSON: runs, seconds, p50 and p99 in ms. Refuses a model of more than one input or output."""

import json
import sys
import time

import numpy as np
import onnxruntime as ort


def open_session(path: str) -> ort.InferenceSession:
    """A session of one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert len(session.get_inputs()) == len(session.get_outputs()) == 1
    return session


def sample(session: ort.InferenceSession, value: float = 0.0) -> np.ndarray:
    """Zeros of the model's input; free sizes are 1."""
    shape = [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape]
    return np.full(shape, value, np.float32)


def main(path: str) -> None:
    """The first run, then runs for as long as it is told."""
    session = open_session(path)
    name, x = session.get_inputs()[0].name, sample(session, 0.5)
    session.run(None, {name: x})
    say({"ready": True})
    for line in sys.stdin:
        taken: list[float] = []
        began = last = time.perf_counter()
        until = began + float(line)
        while last < until:
            session.run(None, {name: x})
            now = time.perf_counter()
            taken.append(now - last)
            last = now
        order = sorted(taken)
        p50, p99 = (order[int(len(order) * share)] * 1e3 for share in (0.5, 0.99))
        told = {"requests": len(taken), "seconds": last - began, "p50": p50, "p99": p99, "worst": order[-1] * 1e3}
        say({**told, "answered": len(taken)})


def say(told: object) -> None:
    """One line of JSON to whoever started this."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
