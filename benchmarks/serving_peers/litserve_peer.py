"""LitServe with an API over ONNX Runtime: the v2 JSON of the others, decoded by it, answered in kind.

`python litserve_peer.py MODEL.onnx PORT`. Refuses nothing. One worker."""

import sys
from typing import Any

import litserve as ls
import numpy as np
from engine import open_session, sample


class Api(ls.LitAPI):
    """One session, in LitServe's worker."""

    def setup(self, device: str) -> None:
        """Open and warm it."""
        self.session = open_session(sys.argv[1])
        self.feed, self.out = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name
        self.session.run(None, {self.feed: sample(self.session)})

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """The array in the JSON."""
        tensor = request["inputs"][0]
        return np.array(tensor["data"], np.float32).reshape(tensor["shape"])

    def predict(self, x: np.ndarray) -> np.ndarray:
        """One inference."""
        return self.session.run(None, {self.feed: x})[0]

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """The array as JSON."""
        out = {"name": self.out, "datatype": "FP32", "shape": list(output.shape), "data": output.ravel().tolist()}
        return {"model_name": "model", "outputs": [out]}


if __name__ == "__main__":
    server = ls.LitServer(Api(api_path="/v2/models/model/infer"), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, log_level="warning", generate_client_file=False
    )
