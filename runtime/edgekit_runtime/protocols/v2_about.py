"""What the Open Inference Protocol v2 tells of a server and its models: metadata, config, statistics, index. Pure.

Refuses nothing: it only words what it is given."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgekit_runtime.protocols.v2_tensors import NAMES
from edgekit_runtime.tensors import TensorSpec

Json = dict[str, Any]
Specs = Sequence[TensorSpec]

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "parameters",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
    "trace",
    "logging",
)
"""What is here, and nothing else: no sequences, no schedule policy, no shared memory."""
ON_A_GPU = ("cuda", "tensorrt", "gpu")


@dataclass(frozen=True)
class Facts:
    """A served model in plain words; `batch` is the most rows that are run together, 0 where none are."""

    name: str
    version: str
    engine: str
    specs: tuple[Specs, Specs]
    labels: int = 0
    label_file: str = ""
    entry: str = ""
    device: str = "cpu"
    batch: int = 0
    delay: float = 0.0
    preferred: tuple[int, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)


class Spent(Protocol):
    """How often, and how long in all."""

    count: int
    ns: int


class Entry(Protocol):
    """A line of the repository's index."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...


def server(name: str, version: str) -> Json:
    """What GET /v2 answers."""
    return {"name": name, "version": version, "extensions": list(EXTENSIONS)}


def metadata(name: str, versions: Sequence[str], platform: str, specs: tuple[Specs, Specs]) -> Json:
    """What GET /v2/models/NAME answers; -1 is a free size."""
    sides = [[{"name": s.name, "datatype": _datatype(s), "shape": _sizes(s)} for s in side] for side in specs]
    return {"name": name, "versions": list(versions), "platform": platform, "inputs": sides[0], "outputs": sides[1]}


def config(facts: Facts) -> Json:
    """What GET /v2/models/NAME/config answers: Triton's model_config.proto as JSON.

    With batching on, sizes are told without the batch, as there.
    """
    skip = 1 if facts.batch else 0
    kind = "KIND_GPU" if facts.device in ON_A_GPU else "KIND_CPU"
    told: Json = {
        "name": facts.name,
        "platform": platform(facts.engine),
        "backend": facts.engine,
        "version_policy": {"all": {}},
        "max_batch_size": facts.batch,
        "input": [_port(spec, skip) for spec in facts.specs[0]],
        "output": [{**_port(spec, skip), "label_filename": _label_file(spec, facts)} for spec in facts.specs[1]],
        "instance_group": [{"name": facts.name, "kind": kind, "count": 1, "gpus": []}],
        "default_model_filename": facts.entry,
        "parameters": {key: {"string_value": value} for key, value in facts.parameters.items()},
    }
    if facts.batch:
        told["dynamic_batching"] = {
            "preferred_batch_size": list(facts.preferred),
            "max_queue_delay_microseconds": round(facts.delay * 1e6),
        }
    return told


def platform(engine: str) -> str:
    """The protocol's word for what runs a model."""
    return f"edgekit_{engine}"


def statistics(name: str, version: str, stats: Any) -> Json:
    """One element of `model_stats`, in Triton's words; there is no response cache here."""
    spent = {
        "success": stats.success,
        "fail": stats.fail,
        "queue": stats.queue,
        "compute_input": stats.input,
        "compute_infer": stats.infer,
        "compute_output": stats.output,
    }
    return {
        "name": name,
        "version": version,
        "last_inference": stats.last_ms,
        "inference_count": stats.inferences,
        "execution_count": stats.executions,
        "inference_stats": {key: _spent(value) for key, value in spent.items()}
        | {"cache_hit": {"count": 0, "ns": 0}, "cache_miss": {"count": 0, "ns": 0}},
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _spent(batch.input),
                "compute_infer": _spent(batch.infer),
                "compute_output": _spent(batch.output),
            }
            for size, batch in sorted(stats.batches.items())
        ],
        "memory_usage": [],
    }


def index(entries: Iterable[Entry], ready: bool = False) -> list[Json]:
    """What POST /v2/repository/index answers; `ready` leaves out what is not."""
    return [
        {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
        for entry in entries
        if entry.state == "READY" or not ready
    ]


def _spent(value: Spent) -> Json:
    return {"count": value.count, "ns": value.ns}


def _datatype(spec: TensorSpec) -> str:
    return NAMES.get(spec.dtype, spec.dtype.upper())


def _sizes(spec: TensorSpec) -> list[int]:
    return [-1 if size is None else size for size in spec.shape]


def _port(spec: TensorSpec, skip: int) -> Json:
    datatype = _datatype(spec)
    kind = "STRING" if datatype == "BYTES" else datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": _sizes(spec)[skip:]}


def _label_file(spec: TensorSpec, facts: Facts) -> str:
    return facts.label_file if facts.labels and spec.shape and spec.shape[-1] == facts.labels else ""
