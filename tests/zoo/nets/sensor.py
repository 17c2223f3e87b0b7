"""A small recurrent net for sensor series. Refuses nothing; needs torch only, since EdgeKit loads it by path."""

import torch
from torch import nn


class SensorGru(nn.Module):
    """[N, T, 1] -> [N, 2] logits, read off the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 32, batch_first=True)
        self.classify = nn.Linear(32, 2)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """Logits of two classes."""
        steps, _ = self.gru(series)
        scores: torch.Tensor = self.classify(steps[:, -1])
        return scores


def sensor_gru() -> nn.Module:
    """The net with random weights, in evaluation mode."""
    return SensorGru().eval()
