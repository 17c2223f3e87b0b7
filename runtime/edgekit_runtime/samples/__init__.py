"""Samples that are worth a look later: the least confident, the strangest and a random few, on disk, within a bound.

Refuses nothing itself: see `store`, which keeps them, `shelves`, which chooses, and `entries`, one on disk.

`Samples.export` gives them as a tar, one model's at a time, in parts of about 16 MiB. A part is laid out so:

    labelled/NAME.jpg|png|webp|bmp|gif|tif|wav|txt    sources whose true label was told, as they came
    labelled/labels.csv                               file,label of those: `edgekit build --data labelled` takes it
    unlabelled/NAME.jpg|...                           sources without a true label, and no labels.csv
    labelled/tensors.npz, tensors-2.npz, ...          samples that came as tensors: an array for each input by its name,
                                                      the sample its first axis, and `label` with class indices; one
                                                      file for each combination of shapes, the most frequent first.
                                                      `edgekit build --data labelled/tensors.npz` takes it
    unlabelled/tensors.npz, ...                       the same without `label`: no label, or one that is no class index
    unlabelled/not-finite.npz, ...                    tensors that hold NaN or infinity, which no build takes
    samples.json                                      at the root and last: where it is, the part is whole

samples.json is {"schema": 1, "model", "version", "next", "samples": [{"file", "row", "label", "answer", "confidence",
"drift", "why", "when_ms", "id", "version"}]}. `version` is null where the part has several; `next` is what to give as
`after` for the next part, null in the last; `file` is a path in the tar and `row` the place in an .npz, else null;
`label` is the true one or null, `answer` the model's; `why` holds "confidence", "drift" and "random". To join parts,
put their files into one folder; append the rows of labels.csv to each other and the lists of samples.json, and join
arrays of the same .npz by their first axis where shapes and names are the same. NAME never repeats over parts.
"""

from edgekit_runtime.samples.candidate import Candidate
from edgekit_runtime.samples.exporting import PART
from edgekit_runtime.samples.store import Samples

__all__ = ["PART", "Candidate", "Samples"]
