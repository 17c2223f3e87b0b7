"""`python -m examples.efficientnet_lite0 FOLDER`: fetch the weights and the photos of the demo into FOLDER.

Refuses to go on, in one line, when something cannot be fetched."""

import sys
from pathlib import Path

import click

from examples.efficientnet_lite0.photos import photos
from examples.efficientnet_lite0.weights import weights
from examples.fetch import CannotFetch


def main() -> int:
    """Fetch, and say what is where."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    try:
        file, folders = weights(folder, click.echo), photos(folder, click.echo)
    except CannotFetch as error:
        click.echo(f"error: {error}", err=True)
        return 1
    click.echo(f"weights {file}\ncalibration {folders.calibration}\nevaluation {folders.evaluation}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
