"""Triton's four clients (HTTP and gRPC, plain and asyncio) behind one way to call them, so that a test asks all four.

Refuses nothing: every call goes through unchanged to the client's own code."""

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

from tests.clients.serving import Running

CLIENTS: dict[str, ModuleType] = {
    "http": tritonclient.http,
    "http-aio": tritonclient.http.aio,
    "grpc": tritonclient.grpc,
    "grpc-aio": tritonclient.grpc.aio,
}


class Awaited:
    """A client whose every method can be awaited, whether it is a coroutine or not."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        async def call(*given: Any, **named: Any) -> Any:
            found = method(*given, **named)
            return await found if inspect.isawaitable(found) else found

        return call


@dataclass(frozen=True)
class Door:
    """One of the clients, and where its server is."""

    kind: str
    address: str

    @property
    def rpc(self) -> bool:
        """Whether it speaks gRPC."""
        return self.kind.startswith("grpc")

    @property
    def as_json(self) -> dict[str, bool]:
        """What has a gRPC client answer with dictionaries, as HTTP's always does."""
        return {"as_json": True} if self.rpc else {}

    @asynccontextmanager
    async def open(self, address: str | None = None, **options: Any) -> AsyncIterator[Awaited]:
        """The client, closed at the end."""
        client = CLIENTS[self.kind].InferenceServerClient(address or self.address, **options)
        try:
            yield Awaited(client)
        finally:
            found = client.close()
            if inspect.isawaitable(found):
                await found

    def given(self, value: np.ndarray, name: str = "x", datatype: str = "FP32", **how: Any) -> Any:
        """`value` as an input of this client."""
        made = CLIENTS[self.kind].InferInput(name, list(value.shape), datatype)
        made.set_data_from_numpy(value, **how)
        return made

    def wanted(self, name: str, **how: Any) -> Any:
        """An output asked for."""
        return CLIENTS[self.kind].InferRequestedOutput(name, **how)


def door(kind: str, running: Running) -> Door:
    """The client of that kind for that server."""
    return Door(kind, running.rpc if kind.startswith("grpc") else running.address)
