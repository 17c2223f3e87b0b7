"""Whether a model in the field still sees what it was tested on: sketches of traffic beside those of the build.

Refuses nothing by itself; a baseline that does not read is `BadBundle`.

`reader` turns an answered request into `Reading`s, `Recorder` makes a `Baseline` of many, `Drift` holds later ones
against it.
"""

from edgekit_runtime.drift.baseline import Baseline, Categories, Numeric, parse_baseline, to_json
from edgekit_runtime.drift.oddness import oddness
from edgekit_runtime.drift.reading import Reading, reader
from edgekit_runtime.drift.recording import Recorder
from edgekit_runtime.drift.state import FeatureState, State
from edgekit_runtime.drift.watching import Drift

__all__ = [
    "Baseline", "Categories", "Drift", "FeatureState", "Numeric", "Reading", "Recorder", "State",
    "oddness", "parse_baseline", "reader", "to_json",
]  # fmt: skip
