"""One answered sample as it is offered for keeping. Pure values.

Refuses nothing."""

from dataclasses import dataclass

from edgekit_runtime.tensors import Feeds


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sample that was answered: `feeds` and `outputs` hold one row where the model takes a batch.

    `source` is the photo, sound or text as it came, `kind` what it is: "image", "audio", "text" or "". `label` is the
    model's best answer, `confidence` how sure of it the model was, `drift` how far the sample is from the baseline:
    the larger, the stranger. None where there is no such thing.
    """

    model: str
    version: str
    id: str
    when_ms: int
    feeds: Feeds
    source: bytes | None
    kind: str
    outputs: Feeds
    label: str | None = None
    confidence: float | None = None
    drift: float | None = None
