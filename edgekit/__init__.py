"""EdgeKit takes a trained model to a device: converts, quantizes, proves what it costs, packs. Imports no framework.

Refuses to ship what misses its budget: the `Outcome` says why, and there is no bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import EdgeKitError

if TYPE_CHECKING:
    from edgekit.outcome import Outcome

__all__ = ["EdgeKitError", "build"]


def build(
    model: str, *, target: str | Sequence[str], data: str | None = None, max_drop: str | None = None,
    preprocess: str | Mapping[str, Any] | None = None, cache: str | None = None,
    tell: Callable[[str], None] = lambda words: None, **words: Any,
) -> tuple[Outcome, ...]:  # fmt: skip
    """Build `model` for each target; what `edgekit build` does, with the same words.

    Args:
        model: a file, a SavedModel folder, or `package.module:factory`.
        target: one name or several, or paths of target files.
        data: an `.npz`, a folder of images, or `module:function` (first axis the sample).
        max_drop: `"0.5pt"` (points of a share) or `"1%"` (of the source's value).
        preprocess: a TOML file or the table itself.
        cache: the cache folder; the user's own where None.
        tell: told in words what is going on.
        **words: any other flag of `edgekit build`, with `_` for `-`: calibration, weights, shape, labels,
            metric, output, format, precision, integer_io, calibration_samples, with_float, out, name, version,
            release, expires, key, keys, unsigned.

    Returns:
        One outcome for each target: its verdict, its bundle (None where it missed), and all facts as JSON values.

    Raises:
        EdgeKitError: the order cannot be carried out as it stands; nothing was made.
    """
    from edgekit.building import build as carry_out
    from edgekit.cache import user_cache
    from edgekit.ordering import KEYS, Words, parse_order
    from edgekit.plan import known

    for key in words:
        known("argument", key, KEYS)
    targets = (target,) if isinstance(target, str) else tuple(target)
    shapes = words.pop("shape", ())
    said = Words(
        model=str(model), target=targets, data=data, max_drop=max_drop, preprocess=preprocess,
        shape=(shapes,) if isinstance(shapes, str) else tuple(shapes), **words,
    )  # fmt: skip
    return carry_out(parse_order(said), user_cache(cache), tell)
