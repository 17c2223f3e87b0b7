"""What the Open Inference Protocol tells of a model, as messages: metadata, configuration, statistics.

Refuses nothing; the words are those of HTTP."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit_runtime.facts import facts
from edgekit_runtime.messages import classes
from edgekit_runtime.protocols import v2_about

if TYPE_CHECKING:
    from edgekit_runtime.lane import Lane
    from edgekit_runtime.served import Served


def metadata(served: "Served", versions: Sequence[str]) -> Any:
    """A ModelMetadataResponse."""
    platform, specs = v2_about.platform(served.engine), (served.inputs, served.outputs)
    return _made("ModelMetadataResponse", v2_about.metadata(served.name, versions, platform, specs))


def config(lane: "Lane") -> Any:
    """A ModelConfig."""
    return _made("ModelConfig", v2_about.config(facts(lane)))


def statistics(lane: "Lane") -> Any:
    """A ModelStatistics."""
    return _made("ModelStatistics", v2_about.statistics(lane.served.name, lane.served.version, lane.stats))


def _made(kind: str, told: Mapping[str, Any]) -> Any:
    from google.protobuf.json_format import ParseDict

    return ParseDict(told, classes("inference")[f"inference.{kind}"]())
