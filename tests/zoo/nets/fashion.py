"""A small convolutional net for 28x28 grey images: plain, strided, depthwise and pointwise convolutions, batch norms.

Refuses nothing; needs torch only, since EdgeKit loads it by path as `nets/fashion.py:fashion_cnn`."""

import torch
from torch import nn


def _block(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class FashionCnn(nn.Module):
    """[N, 1, 28, 28] in 0..1 -> [N, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            _block(16, 32, 3, stride=2),
            _block(32, 32, 3, groups=32),
            _block(32, 96, 1),
        )
        self.classify = nn.Linear(96 * 7 * 7, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of ten classes."""
        scores: torch.Tensor = self.classify(self.features(x).flatten(1))
        return scores


def fashion_cnn() -> nn.Module:
    """The net with random weights, in evaluation mode."""
    return FashionCnn().eval()
