"""Which pictures are copies of one another: encoded again, resized, made brighter, or cropped by a hair.

Refuses to call pictures copies that merely show the same kind of thing; one of a single colour is like no other.
Not found: copies of pictures with next to no contrast, and cropped or poorly encoded ones of less than 48 pixels.

A perceptual hash finds candidates: the signs of the lowest frequencies of a cosine transform (pHash; C. Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions", 2010). What confirms them is the correlation of
what is fine in the pictures, for larger ones after a shift and a zoom have been fitted to them, to first order and
twice (B. Lucas and T. Kanade, "An Iterative Image Registration Technique", 1981)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from edgekit_runtime.tensors import Array
from PIL import Image

SIDE, COLOURS = 32, 8
"""Sides of the small pictures that are compared: in grey, and in colour."""
NEAR = 12
"""Of the 64 bits of a hash, how many may differ in a candidate."""
NEAREST = 4
"""How many candidates a picture may have: those with the nearest hashes."""
SAME_DETAIL = 0.965
"""Correlation of what is finer than about a 30th of the picture. Of 60 million pairs of Fashion-MNIST 4 reach it."""
LARGE = 48
"""Pixels; pictures with shorter sides are not aligned: at 28 pixels one pair of trousers then is the other."""
SAME_ALIGNED, SAME_FINE = 0.99, 0.94
"""Correlations after a shift and a zoom: of what is finer than a tenth of the picture, and of what is finer still."""
SAME_COLOURS = 0.9
ALIKE_BY_NATURE = 0.1
"""Where this share of random pairs within one set are copies (one fixed camera), being alike tells nothing."""
MARGIN, FARTHEST = 3, 1.2
BLOCK = 1000


@dataclass(frozen=True)
class Looks:
    """What is kept of n pictures, about 1.2 kB each: grey [n, 32, 32], colour [n, 8, 8, 3], hash [n], large [n]."""

    grey: Array
    colour: Array
    hashes: Array
    large: Array

    def __len__(self) -> int:
        return len(self.hashes)


def look(pictures: Iterable[Image.Image | None]) -> Looks:
    """What is to be kept of the pictures; None is like a picture of a single colour."""
    grey, colour, large = [], [], []
    for image in pictures:
        image = image or Image.new("L", (SIDE, SIDE))
        grey.append(np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
        colour.append(np.asarray(image.resize((COLOURS, COLOURS), Image.Resampling.BOX).convert("RGB")))
        large.append(min(image.size) >= LARGE)
    stacked = np.stack(grey)
    return Looks(stacked, np.stack(colour), _hashes(stacked), np.array(large))


def joined(blocks: Iterable[Looks]) -> Looks:
    """All blocks as one."""
    kept = list(blocks)
    return Looks(*(np.concatenate([getattr(one, name) for one in kept]) for name in Looks.__dataclass_fields__))


def copies(held: Looks, blocks: Iterable[Looks]) -> list[tuple[int, int]]:
    """(index in `held`, index in all blocks together) of pictures that are copies; of a few equally near, the best.

    Empty where the pictures in `held` are copies of one another as it is, which says that all look the same.
    """
    found: list[tuple[int, int]] = []
    if _alike_by_nature(held):
        return found
    start = 0
    for block in blocks:
        i, j = _candidates(held.hashes, block.hashes)
        score = _likeness(held, block, i, j)
        worst_first = [k for k in np.argsort(score, kind="stable") if score[k] > 0]
        best = {int(j[k]): int(i[k]) for k in worst_first}
        found += [(ours, start + theirs) for theirs, ours in sorted(best.items())]
        start += len(block)
    return found


def _hashes(grey: Array) -> Array:
    from scipy.fft import dctn  # slow to import, and seldom asked

    low = dctn(grey.astype(np.float32), axes=(1, 2))[:, :8, :8].reshape(len(grey), 64)
    low[:, 0] = 0  # how bright it is
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _candidates(ours: Array, theirs: Array) -> tuple[Array, Array]:
    """Index pairs of hashes that are near: for each of `theirs` the nearest few, 100 at a time to bound memory."""
    pairs = []
    for start in range(0, len(theirs), 100):
        far = np.bitwise_count(theirs[start : start + 100, None] ^ ours)
        nearest = np.argpartition(far, min(NEAREST, len(ours)) - 1, axis=1)[:, :NEAREST]
        j, k = np.nonzero(np.take_along_axis(far, nearest, 1) <= NEAR)
        pairs.append((nearest[j, k], j + start))
    return np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])


def _alike_by_nature(looks: Looks) -> bool:
    if len(looks) < 8:
        return False
    dice = np.random.default_rng(0)
    i = dice.integers(0, len(looks), 200)
    j = (i + dice.integers(1, len(looks), 200)) % len(looks)
    return bool((_likeness(looks, looks, i, j) > 0).mean() > ALIKE_BY_NATURE)


def _likeness(ours: Looks, theirs: Looks, i: Array, j: Array) -> Array:
    """For each pair how alike, 0 where they are not copies."""
    score = np.zeros(len(i))
    for start in range(0, len(i), BLOCK):
        part = slice(start, start + BLOCK)
        a, b = ours.grey[i[part]].astype(np.float32), theirs.grey[j[part]].astype(np.float32)
        same = _correlation(_finer(a, 0, 1), _finer(b, 0, 1))
        same[same < SAME_DETAIL] = 0
        other = np.flatnonzero((same == 0) & ours.large[i[part]] & theirs.large[j[part]])
        if len(other):
            same[other] = _aligned_likeness(a[other], b[other])
        colours = _correlation(ours.colour[i[part]].astype(np.float32), theirs.colour[j[part]].astype(np.float32))
        score[part] = np.where(colours >= SAME_COLOURS, same, 0)
    return score


def _aligned_likeness(a: Array, b: Array) -> Array:
    """How alike they are once a shift and a zoom of up to about a pixel of 32 are undone; 0 where that is not it."""
    score = np.zeros(len(a))
    r, move = _fit(_finer(a, 1, 3), _finer(b, 1, 3))
    left = np.flatnonzero((r >= SAME_ALIGNED - 0.03) & (np.abs(move) < FARTHEST).all(1))
    if not len(left):
        return score
    a, b = _moved(a[left], move[left]), b[left]
    r, move = _fit(_finer(a, 1, 3), _finer(b, 1, 3))
    fine, _ = _fit(_finer(_moved(a, move), 0.5, 1.5), _finer(b, 0.5, 1.5))
    score[left] = np.where((r >= SAME_ALIGNED) & (fine >= SAME_FINE), fine, 0)
    return score


def _finer(images: Array, blur: float, than: float) -> Array:
    """What is finer than `than` pixels, without what is finer than `blur`."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(images, (0, blur, blur)) if blur else images
    return np.asarray(smooth - gaussian_filter(smooth, (0, than, than)))


def _correlation(a: Array, b: Array) -> Array:
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.divide((a * b).sum(1), lengths, out=np.zeros(len(a), a.dtype), where=lengths > 1e-3))


def _fit(a: Array, b: Array) -> tuple[Array, Array]:
    """(multiple correlation of each b with a, moved to first order; by how much: x, zoom of x, y, zoom of y)."""
    dy, dx = np.gradient(a, axis=(1, 2))
    y, x = np.meshgrid(*[(np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2) / (SIDE / 2)] * 2, indexing="ij")
    inner = slice(MARGIN, -MARGIN)
    columns = np.stack([a, np.ones_like(a), dx, dx * x, dy, dy * y], -1)[:, inner, inner].reshape(len(a), -1, 6)
    wanted = b[:, inner, inner].reshape(len(b), -1, 1)
    square = columns.transpose(0, 2, 1) @ columns
    size = np.trace(square, axis1=1, axis2=2)[:, None, None]
    weights = np.linalg.solve(square + (1e-7 * size + 1e-6) * np.eye(6), columns.transpose(0, 2, 1) @ wanted)
    missed = ((wanted - columns @ weights) ** 2).sum((1, 2))
    spread = ((wanted - wanted.mean(1, keepdims=True)) ** 2).sum((1, 2))
    r = np.sqrt(np.clip(1 - missed / np.maximum(spread, 1e-3), 0, 1))
    gain = weights[:, :1, 0]
    return r, np.divide(weights[:, 2:, 0], gain, out=np.full((len(a), 4), np.inf), where=gain > 0.1)


def _moved(images: Array, move: Array) -> Array:
    """The images under the shift and zoom that `_fit` found."""
    from scipy.ndimage import affine_transform

    centre, moved = (SIDE - 1) / 2, np.empty_like(images)
    for k, (x, wide, y, high) in enumerate(np.clip(move, -2 * FARTHEST, 2 * FARTHEST)):
        wide, high = wide / (SIDE / 2), high / (SIDE / 2)
        offset = [y - high * centre, x - wide * centre]
        moved[k] = affine_transform(images[k], [1 + high, 1 + wide], offset, order=3, mode="nearest")
    return moved
