"""Prometheus remote write 1.0: slots as a WriteRequest, a few varints written by hand.

Refuses nothing; a receiver that does not take old samples refuses them, and they are dropped and counted.

A slot keeps its time however late it is sent, so the receiver must take samples as old as a device may be offline.
In Prometheus (2.39 or later, started with --web.enable-remote-write-receiver) that is in its configuration:

    storage:
      tsdb:
        out_of_order_time_window: 35d

A batch that was taken while its answer was lost is sent again; the same sample at the same time is no second one."""

import struct
from collections.abc import Mapping, Sequence

from edgekit_runtime.telemetry.posting import Address, Answer, Destination, poster
from edgekit_runtime.telemetry.series import Series, Slot
from edgekit_runtime.telemetry.snappy import framed, varint

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "edgekit-runtime",
}


def remote_write(where: Address, labels: Mapping[str, str]) -> Destination:
    """Prometheus, or what speaks like it; `labels` (job, instance) go with every series."""
    post = poster(where, HEADERS)

    def deliver(slots: Sequence[Slot]) -> Answer:
        return post(framed(write_request(slots, labels)))

    return Destination(f"remote-write {where.name}", deliver)


def write_request(slots: Sequence[Slot], labels: Mapping[str, str]) -> bytes:
    """The message WriteRequest: each series once, with its samples in the order of time."""
    samples: dict[Series, list[tuple[int, float]]] = {}
    for slot in slots:
        for series, value in zip(slot.series, slot.values.tolist(), strict=True):
            samples.setdefault(series, []).append((slot.when_ms, value))
    parts = []
    for series, points in samples.items():
        body = _labels(series, labels) + b"".join(_bytes(2, _sample(*point)) for point in sorted(points))
        parts.append(_bytes(1, body))
    return b"".join(parts)


def _labels(series: Series, more: Mapping[str, str]) -> bytes:
    """Sorted by name, as the protocol wants them; a label without a value is none."""
    every = {**more, **dict(series.labels), "__name__": series.name}
    return b"".join(
        _bytes(1, _bytes(1, name.encode()) + _bytes(2, value.encode("utf-8", "replace")))
        for name, value in sorted(every.items())
        if value
    )


def _sample(when_ms: int, value: float) -> bytes:
    return b"\x09" + struct.pack("<d", value) + b"\x10" + varint(when_ms % 2**64)


def _bytes(field: int, body: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(body)) + body
