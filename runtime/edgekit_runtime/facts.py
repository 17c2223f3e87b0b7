"""What a protocol tells of a lane's model when it is asked for its configuration: the same over HTTP and gRPC.

Refuses nothing."""

from edgekit_runtime.lane import Lane
from edgekit_runtime.protocols.v2_about import Facts


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
