"""A small vision transformer for 28x28 grey images: 49 patches as tokens, two encoder layers of width 64, their mean.

Refuses nothing; needs torch only, since EdgeKit loads it by path as `nets/patches.py:fashion_transformer`."""

import torch
from torch import nn

WIDTH, PATCH = 64, 4


class FashionTransformer(nn.Module):
    """[N, 1, 28, 28] in 0..1 -> [N, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.place = nn.Parameter(torch.randn(1, (28 // PATCH) ** 2, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encode = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.classify = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of ten classes."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.place
        scores: torch.Tensor = self.classify(self.norm(self.encode(tokens)).mean(1))
        return scores


def fashion_transformer() -> nn.Module:
    """The net with random weights, in evaluation mode."""
    return FashionTransformer().eval()
