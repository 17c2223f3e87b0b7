"""The gRPC health checks, grpc.health.v1.Health: of the server, of each service, of each model.

Refuses names that are neither: a check of them is not found. Models are told only to whom may ask them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import Forbidden, NotFound, Unauthenticated
from edgekit_runtime.messages import classes
from edgekit_runtime.rpc import Context, Method

if TYPE_CHECKING:
    from edgekit_runtime.service import Service

Message = Any

KNOWN = classes("health")
REPLY = KNOWN["grpc.health.v1.HealthCheckResponse"]
LOOK_AGAIN = 0.5
"""Seconds between two looks at what is watched."""


def methods(services: Iterable[str]) -> list[Method]:
    """The methods; `services` are the names of the gRPC services that are as well as the server is."""
    names = frozenset((*services, "", "grpc.health.v1.Health"))

    async def check(service: "Service", message: Message, context: Context) -> Message:
        return REPLY(status=_status(service, message.service, names, context))

    async def every(service: "Service", message: Message, context: Context) -> Message:
        found = sorted(names)
        try:
            context.allow("infer")
            found += service.names()
        except (Unauthenticated, Forbidden):
            pass
        made = KNOWN["grpc.health.v1.HealthListResponse"]()
        for name in found:
            made.statuses[name].status = REPLY.SERVING if service.ready else REPLY.NOT_SERVING
        return made

    async def watch(service: "Service", messages: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        async for message in messages:
            told = None
            while not context.stopping.is_set():
                try:
                    status = _status(service, message.service, names, context)
                except NotFound:
                    status = REPLY.SERVICE_UNKNOWN
                if status != told:
                    yield REPLY(status=status)
                    told = status
                try:
                    await asyncio.wait_for(context.stopping.wait(), LOOK_AGAIN)
                except TimeoutError:
                    continue
            yield REPLY(status=REPLY.NOT_SERVING)
            return

    asks = KNOWN["grpc.health.v1.HealthCheckRequest"]
    lists = (KNOWN["grpc.health.v1.HealthListRequest"], KNOWN["grpc.health.v1.HealthListResponse"])
    return [
        Method("/grpc.health.v1.Health/Check", asks, REPLY, "open", check),
        Method("/grpc.health.v1.Health/List", *lists, "open", every),
        Method("/grpc.health.v1.Health/Watch", asks, REPLY, "open", stream=watch),
    ]


def _status(service: "Service", name: str, names: frozenset[str], context: Context) -> int:
    if name not in names:
        context.allow("infer")
        service.find(name)
    status: int = REPLY.SERVING if service.ready else REPLY.NOT_SERVING
    return status
