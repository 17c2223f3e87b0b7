"""Which tensors are looked at, and how: by what preprocessing says of them, else by their type and shape.

Refuses nothing: a tensor that fits no kind is looked at as numbers, one that holds none not at all."""

from collections.abc import Sequence

from edgekit_runtime.drift.answers import Verdict, number_of_class, scores, values
from edgekit_runtime.drift.looking import Look, anything, image, table
from edgekit_runtime.drift.series import series
from edgekit_runtime.drift.texts import raw, tokens
from edgekit_runtime.preprocess.kinds import Photo, Preprocess, Sound, Text
from edgekit_runtime.tensors import Shape, TensorSpec

MOST_TENSORS = 4
SMALL, LEAST_SIDE, MOST_COLUMNS = 64, 8, 32
"""Up to so many are channels; a side of an image has at least so many pixels; a longer row is a series."""


def batched(specs: Sequence[TensorSpec], preprocess: Preprocess | None) -> bool:
    """Whether the first axis counts samples: all have one that is free, or of the same size."""
    layout = preprocess.layout if preprocess is not None else "N"
    return "N" in layout and all(spec.shape for spec in specs) and len({spec.shape[0] for spec in specs}) == 1


def input_looks(
    specs: Sequence[TensorSpec], preprocess: Preprocess | None, by_row: bool
) -> list[tuple[TensorSpec, Look]]:
    """A look at each input that says something of the sample."""
    chosen = []
    for spec in specs:
        shape = spec.shape[1:] if by_row else spec.shape
        if preprocess is not None and spec.name in preprocess.inputs:
            look = _declared(spec, shape, preprocess) if spec.name == preprocess.input else None
        else:
            look = _guessed(spec, shape)
        if look is not None:
            chosen.append((spec, look))
    return chosen[:MOST_TENSORS]


def output_looks(
    specs: Sequence[TensorSpec], labels: int, by_row: bool
) -> tuple[list[tuple[TensorSpec, Look]], list[tuple[TensorSpec, Verdict]]]:
    """How to look at the outputs: the first that holds scores, or every integer, as a class, the others as values."""
    looks: list[tuple[TensorSpec, Look]] = []
    verdicts: list[tuple[TensorSpec, Verdict]] = []
    for spec in specs[:MOST_TENSORS]:
        shape = spec.shape[1:] if by_row else spec.shape
        count = _count(shape)
        whole = spec.dtype[:3] in ("int", "uin", "boo") and spec.scale is None
        if spec.dtype == "object" or spec.dtype.startswith("str"):
            continue
        if whole and count == 1:
            verdicts.append((spec, number_of_class()))
        elif count is not None and count > 1 and not verdicts and _are_scores(shape, count, labels):
            verdicts.append((spec, scores(spec, count, values=not labels and count <= 8)))
        else:
            looks.append((spec, values(spec, count)))
    return looks, verdicts


def _are_scores(shape: Shape, count: int, labels: int) -> bool:
    return count == labels if labels else len(shape) == 1


def _declared(spec: TensorSpec, shape: Shape, preprocess: Preprocess) -> Look | None:
    layout = preprocess.layout.replace("N", "")
    if isinstance(preprocess, Text):
        return raw() if preprocess.tokenizer == "none" else tokens(preprocess)
    if len(shape) != len(layout):
        return _guessed(spec, shape)
    if isinstance(preprocess, Photo):
        return image(layout, 1 if preprocess.channels == "GRAY" else 3)
    return _sound(preprocess, layout, shape)


def _sound(sound: Sound, layout: str, shape: Shape) -> Look:
    """C has the size 1 in every layout of a sound, so what is left is T or the bands F with it."""
    if sound.features is None:
        return series(1, None)
    if "C" not in layout:
        return series(sound.features.n_mels, layout.index("F"))
    return series(sound.features.n_mels, layout.replace("C", "").index("F"), squeezed=layout.index("C"))


def _guessed(spec: TensorSpec, shape: Shape) -> Look | None:
    if spec.dtype == "object" or spec.dtype.startswith("str"):
        return raw()
    if spec.dtype in ("int32", "int64") and spec.scale is None and len(shape) <= 1:
        return tokens(None) if shape else None
    if not shape:
        return anything()
    if len(shape) == 1:
        return table(shape[0]) if shape[0] is not None and shape[0] <= MOST_COLUMNS else series(1, None)
    if len(shape) == 2:
        return _two_axes(shape)
    if len(shape) == 3 and (layout := _layout(shape)) is not None:
        return image(layout, shape[layout.index("C")] or 1)
    return anything()


def _two_axes(shape: Shape) -> Look:
    """The channels of a series are along the shorter axis, if that is fixed and short."""
    first, second = shape
    for axis, size, other in ((1, second, first), (0, first, second)):
        if size is not None and size <= SMALL and (other is None or size <= other):
            return series(size, axis)
    return series(1, None)


def _layout(shape: Shape) -> str | None:
    for layout, channels, sides in (("CHW", shape[0], shape[1:]), ("HWC", shape[2], shape[:2])):
        if channels in (1, 3) and all(side is None or side >= LEAST_SIDE for side in sides):
            return layout
    return None


def _count(shape: Shape) -> int | None:
    """Values in a sample; None where a size is free."""
    count = 1
    for size in shape:
        if size is None:
            return None
        count *= size
    return count
