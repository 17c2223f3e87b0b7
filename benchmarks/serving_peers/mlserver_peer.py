"""MLServer with a custom runtime over ONNX Runtime: v2 in JSON over HTTP, and over gRPC.

`python mlserver_peer.py MODEL.onnx PORT GRPC_PORT METRICS_PORT`. Refuses nothing. Left to itself it runs the model in a
worker process; MLSERVER_WORKERS=0 has it run in the server's own, which answers a quick model sooner."""

import asyncio
import os
import sys

from engine import open_session, sample
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """One session."""

    async def load(self) -> bool:
        """Open and warm it."""
        assert self.settings.parameters is not None
        self.session = open_session(str(self.settings.parameters.uri))
        self.feed, self.out = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name
        self.session.run(None, {self.feed: sample(self.session)})
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One inference."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = self.session.run(None, {self.feed: x})[0]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[NumpyCodec.encode_output(self.out, y)])


async def main(model: str, port: int, grpc_port: int, metrics_port: int) -> None:
    """Serve until killed."""
    settings = Settings(
        debug=False, host="127.0.0.1", http_port=port, grpc_port=grpc_port, metrics_port=metrics_port,
        parallel_workers=int(os.environ.get("MLSERVER_WORKERS", "1")), load_models_at_startup=False,
        grpc_max_message_length=1 << 28,
    )  # fmt: skip
    parameters = {"uri": model}
    one = ModelSettings(name="model", implementation="mlserver_peer.OnnxModel", parameters=parameters)
    await MLServer(settings).start([one])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
