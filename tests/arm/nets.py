"""Two small networks on the 8x8 digits, in PyTorch: what a core does to each precision, without a large model's time.

Refuse nothing; their weights are random, of a fixed seed: how they answer counts here, not what they know."""

import torch
from torch import nn


class Dense(nn.Module):
    """x [N, 64] -> [N, 10]: two matrix products, the first of the size that 4-bit blocks need."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 256)
        self.outer = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of ten classes."""
        scores: torch.Tensor = self.outer(torch.relu(self.inner(x)))
        return scores


class Convolving(nn.Module):
    """x [N, 1, 8, 8] -> [N, 10]: a convolution, a depthwise one, a pointwise one, a mean and a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 32, 1)
        self.classify = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of ten classes."""
        seen = nn.functional.relu6(self.depthwise(nn.functional.relu6(self.first(x))))
        scores: torch.Tensor = self.classify(torch.relu(self.pointwise(seen)).mean((2, 3)))
        return scores


def dense() -> nn.Module:
    """The network of matrix products, in evaluation mode."""
    torch.manual_seed(0)
    return Dense().eval()


def convolving() -> nn.Module:
    """The network of convolutions, in evaluation mode."""
    torch.manual_seed(0)
    return Convolving().eval()
