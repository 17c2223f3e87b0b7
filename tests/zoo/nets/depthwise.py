"""A small net in the manner of MobileNetV3: depthwise convolutions, hard-swish, squeeze-and-excitation, residuals.

Refuses nothing; needs torch only, since EdgeKit loads it by path as `nets/depthwise.py:fashion_depthwise`."""

import torch
from torch import nn


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Squeeze(nn.Module):
    """Every channel times a factor in 0..1 that the means of all channels decide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        scaled: torch.Tensor = x * self.factor(x)
        return scaled


class Bottleneck(nn.Module):
    """Widen by 1x1, 3x3 depthwise, squeeze, narrow by 1x1; added to its input where the shapes are the same."""

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.added = inputs == outputs and stride == 1
        self.steps = nn.Sequential(
            *_convolution(inputs, wide, 1),
            nn.Hardswish(),
            *_convolution(wide, wide, 3, stride, groups=wide),
            nn.Hardswish(),
            Squeeze(wide),
            *_convolution(wide, outputs, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H / stride, W / stride]."""
        made: torch.Tensor = self.steps(x)
        return x + made if self.added else made


class FashionDepthwise(nn.Module):
    """[N, 1, 28, 28] in 0..1 -> [N, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 16, 3, stride=2),
            nn.Hardswish(),
            Bottleneck(16, 32, 16),
            Bottleneck(16, 64, 24, stride=2),
            Bottleneck(24, 96, 24),
            Bottleneck(24, 96, 32),
            *_convolution(32, 128, 1),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classify = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of ten classes."""
        scores: torch.Tensor = self.classify(self.features(x).flatten(1))
        return scores


def fashion_depthwise() -> nn.Module:
    """The net with random weights, in evaluation mode."""
    return FashionDepthwise().eval()
