"""A BentoML service over ONNX Runtime: an array in JSON, read and written by its own types.

`python bentoml_peer.py MODEL.onnx PORT`. Refuses nothing. One worker."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from engine import open_session, sample


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Served:
    """One session."""

    def __init__(self) -> None:
        self.session = open_session(os.environ["SERVED_MODEL"])
        self.feed = self.session.get_inputs()[0].name
        self.session.run(None, {self.feed: sample(self.session)})

    @bentoml.api(route="/infer")
    def infer(self, x: np.ndarray) -> np.ndarray:
        """One inference."""
        return self.session.run(None, {self.feed: x.astype(np.float32)})[0]


if __name__ == "__main__":
    os.environ |= {"SERVED_MODEL": sys.argv[1], "BENTOML_DO_NOT_TRACK": "True"}
    here = Path(__file__)
    words = ["serve", f"{here.stem}:Served", "--working-dir", str(here.parent)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *words, "--host", "127.0.0.1", "--port", sys.argv[2]])
