"""How far a sketch may lie from its baseline by chance alone: bounds that hold for every size, not only for large ones.

Refuses nothing. All samples are taken to be independent of each other: see `Drift` for what to do where they are not.

Two things vary by chance. The baseline's m samples do so once, when the bundle is built: the bounds on it hold for all
features together but for `BASELINE_RISK` of all bundles. The field's n samples do so at each evaluation: with a level
`alpha` for one feature over one window, that feature alarms without a shift with a chance of at most `alpha`, and by
the linearity of expectation the alarms of a day are on average at most the sum of all alphas spent on it, however
much the windows overlap and the features depend on each other. That sum is what `Drift` keeps to.

Numbers: the Dvoretzky-Kiefer-Wolfowitz inequality with the constant of P. Massart, "The tight constant in the
Dvoretzky-Kiefer-Wolfowitz inequality", Annals of Probability 18 (1990): P(sup |F_n - F| > e) <= 2 exp(-2 n e^2), for
every distribution, at all points together, so for every choice of bins, also one made by looking at the baseline. By
the triangle inequality both distances add up.

Classes: Chernoff's bound in its exact form (H. Chernoff 1952, W. Hoeffding 1963): the share q of n samples in a set
of classes of probability p satisfies P(q >= x) <= exp(-n KL(x, p)) for x > p, and the mirror image below. It knows
that a share near 0 hardly varies, so it sees a class go missing that DKW does not see. The baseline's uncertainty
widens p to an interval by the same bound. Bonferroni over each class and side, and over the 2^k sets of k classes,
so that the set may be chosen by looking at the field.

Which classes are told apart is chosen too, but from sets that do not depend on the samples: each of 0 to 63 and all
above some k of 64 (`CLASS_SETS` for single ones, 64 times 2^k for sets); or by samples that are not counted.
"""

import math

import numpy as np

from edgekit_runtime.tensors import Array

BASELINE_RISK = 0.001
CLASS_SETS = 128
SMOOTH = 0.5
"""Samples added to each bin for the PSI, which an empty bin would make infinite."""
HALVINGS = 50


def baseline_distance(samples: Array, features: int) -> Array:
    """How far the cumulative distributions of so many `samples` may be from the true ones."""
    return np.asarray(np.sqrt(math.log(2 * features / BASELINE_RISK) / (2 * np.maximum(samples, 1))))


def field_distance(samples: Array, alpha: float) -> Array:
    """How far the cumulative distributions of so many `samples` may be from the true ones, at level `alpha`."""
    return np.asarray(np.sqrt(math.log(2 / alpha) / (2 * np.maximum(samples, 1))))


def share_interval(shares: Array, samples: float, features: float) -> tuple[Array, Array]:
    """The least and greatest probabilities that fit each of `shares` of so many `samples`."""
    most = math.log(2 * CLASS_SETS * features / BASELINE_RISK) / samples
    return _farthest(shares, most, np.zeros_like(shares)), _farthest(shares, most, np.ones_like(shares))


def _farthest(shares: Array, most: float, end: Array) -> Array:
    """Between `shares` and `end`, the probability whose divergence is `most`: the outer side of its bisection."""
    near, far = shares.copy(), end
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        inside = divergence(shares, middle) <= most
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    return far


def divergence(share: Array, chance: Array) -> Array:
    """KL(share, chance) of two coins, in nats; `chance` 0 or 1 stands for something next to it."""
    chance = np.clip(chance, 1e-15, 1 - 1e-15)
    share = np.clip(share, 0, 1)
    heads = share * np.log(np.maximum(share, 1e-300) / chance)
    return np.asarray(heads + (1 - share) * np.log(np.maximum(1 - share, 1e-300) / (1 - chance)))


def class_evidence(shares: Array, low: Array, high: Array, samples: Array) -> Array:
    """Minus the logarithm of the bound on the chance of each class's share; 0 where it fits."""
    chance = np.where(shares < low, low, np.where(shares > high, high, shares))
    return np.asarray(np.where(chance == shares, 0.0, samples * divergence(shares, chance)))


def share_limit(chance: float, below: bool, evidence: float) -> float | None:
    """The share nearest to `chance` with so much evidence a sample against it; None where no share has."""
    near, far = chance, 0.0 if below else 1.0
    if _plain(far, chance) < evidence:
        return None
    for _ in range(HALVINGS // 2):
        middle = (near + far) / 2
        near, far = (middle, far) if _plain(middle, chance) < evidence else (near, middle)
    return far


def _plain(share: float, chance: float) -> float:
    """`divergence` of two plain numbers, in a tenth of the time."""
    chance = min(max(chance, 1e-15), 1 - 1e-15)
    heads = share * math.log(share / chance) if share > 0 else 0.0
    return heads + ((1 - share) * math.log((1 - share) / (1 - chance)) if share < 1 else 0.0)


def stability(before: Array, after: Array, real: Array) -> Array:
    """The population stability index of counts [w, f, b] against [f, b]: sum (a - b) ln(a / b) over `real` bins.

    0.1 to 0.2 is by custom a small shift, above that a large one. What chance alone makes of it on average,
    (bins - 1) (1 / n + 1 / m), is taken off: with 100 samples in 21 bins that is 0.2.
    """
    bins = real.sum(axis=1, keepdims=True) * SMOOTH
    m, n = before.sum(axis=1, keepdims=True), after.sum(axis=2, keepdims=True)
    old, new = (before + SMOOTH) / (m + bins), (after + SMOOTH) / (n + bins)
    index = ((new - old) * np.log(new / old) * real).sum(axis=2)
    chance = ((before > 0).sum(axis=1) - 1) * (1 / np.maximum(n, 1) + 1 / np.maximum(m, 1))[:, :, 0]
    return np.asarray(np.maximum(index - chance, 0))
