"""What a protocol has to know of a lane's model, and tells of it: the same over HTTP and gRPC.

Refuses nothing."""

from functools import partial

from edgekit_runtime.lane import Lane
from edgekit_runtime.preprocess import apply
from edgekit_runtime.protocols.tfserving import Signature
from edgekit_runtime.protocols.tfserving_status import Version
from edgekit_runtime.protocols.tfserving_values import Encoded
from edgekit_runtime.protocols.v2_about import Facts
from edgekit_runtime.service import Service


def facts(lane: Lane) -> Facts:
    """The lane's model and how it is run, in plain words."""
    served, batching, manifest = lane.served, lane.options.batching, lane.served.manifest
    said = {} if manifest is None else {key: getattr(manifest, key) for key in ("target", "format", "precision")}
    return Facts(
        name=served.name,
        version=served.version,
        engine=served.engine,
        specs=(served.inputs, served.outputs),
        labels=len(served.labels),
        label_file="" if manifest is None else manifest.labels or "",
        entry="" if manifest is None else manifest.entry,
        device="cpu" if manifest is None else manifest.options.device,
        batch=batching.size if batching.size > 1 and served.batchable() else 0,
        delay=batching.delay,
        preferred=batching.preferred,
        parameters=said,
    )


def signature(lane: Lane) -> Signature:
    """What TensorFlow Serving's protocol calls the model's inputs and outputs."""
    served, preprocess = lane.served, lane.served.preprocess
    encoded = None if preprocess is None else Encoded(preprocess.input, preprocess.kind, partial(apply, preprocess))
    return Signature(served.inputs, served.outputs, served.labels, encoded, lane.options.limits)


def available(service: Service, lane: Lane, name: str) -> list[Version]:
    """The versions behind the `name` that was asked for, newest first: all of a model, or the one of an alias."""
    found = lane.served
    versions = service.versions(name) or [found.version]
    numbers = [service.number(service.find(found.name, version).served) for version in reversed(versions)]
    return [Version(number, "AVAILABLE") for number in numbers]
