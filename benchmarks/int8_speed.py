"""How much faster int8 is than float32, for each engine: EfficientNet-Lite0, one thread, side by side in one process.

`python benchmarks/int8_speed.py [SECONDS]`. Prints medians;
exits 1 where int8 is less than 1.6 times as fast. Refuses nothing."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.tensors import Runner

import edgekit
from edgekit.plan import ENGINE_TITLES
from edgekit.timing import interleaved
from examples.efficientnet_lite0.photos import photos
from examples.efficientnet_lite0.weights import weights

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "efficientnet_lite0"
WANTED = 1.6


def main(seconds: float) -> int:
    """Build float32 and int8 for this architecture in each format, then time all six in turn."""
    runners: dict[str, Runner] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, data = weights(folder, _tell), photos(folder, _tell)
        for format in ENGINE_TITLES:
            for precision in ("float32", "int8"):
                (outcome,) = edgekit.build(
                    f"{EXAMPLE / 'model.py'}:model", target="x86-64-v4", data=str(data.evaluation), tell=_tell,
                    calibration=str(data.calibration), preprocess=str(EXAMPLE / "preprocess.toml"), weights=str(model),
                    shape="x=batch,3,224,224", format=format, precision=precision,
                    out=str(folder / f"{format}-{precision}"),
                )  # fmt: skip
                assert outcome.bundle is not None, outcome.why
                bundle = open_bundle(outcome.bundle)
                one = replace(bundle, manifest=replace(bundle.manifest, options=EngineOptions(threads=1)))
                runners[f"{format} {precision}"] = one.open_model()
                feeds = bundle.golden()[0][0]
        slow = 0
        for format, title in ENGINE_TITLES.items():
            both = {precision: runners[f"{format} {precision}"] for precision in ("float32", "int8")}
            found = interleaved(both, feeds, seconds)
            faster = 1 / found["int8"].ratio
            slow += faster < WANTED
            click.echo(
                f"{title:<14} float32 {found['float32'].median_ms:6.2f} ms   int8 {found['int8'].median_ms:6.2f} ms   "
                f"{faster:.2f}x as fast   (n = {found['int8'].n}, one thread)"
            )
    return 1 if slow else 0


def _tell(words: str) -> None:
    click.echo(words, err=True)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))
