"""Two small text classifiers on bytes as ids. Refuse nothing; need torch only, since EdgeKit loads them by path."""

import torch
from torch import nn

CLASSES = 10
LONGEST = 256


class TextLstm(nn.Module):
    """Ids [N, T] (int64, 0..255) -> [N, 10] logits: embedding, LSTM, mean over the steps, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 32)
        self.lstm = nn.LSTM(32, 64, batch_first=True)
        self.classify = nn.Linear(64, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of ten languages."""
        steps, _ = self.lstm(self.embed(ids))
        scores: torch.Tensor = self.classify(steps.mean(1))
        return scores


class TextTransformer(nn.Module):
    """Ids [N, T <= 256] (int64, 0..255) -> [N, 10] logits: two encoder layers of width 64."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 64)
        self.place = nn.Parameter(torch.randn(1, LONGEST, 64) * 0.02)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
        self.encode = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classify = nn.Linear(64, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of ten languages."""
        steps = self.encode(self.embed(ids) + self.place[:, : ids.shape[1]])
        scores: torch.Tensor = self.classify(steps.mean(1))
        return scores


def text_classifier() -> nn.Module:
    """The LSTM with random weights, in evaluation mode."""
    return TextLstm().eval()


def transformer() -> nn.Module:
    """The transformer with random weights, in evaluation mode."""
    return TextTransformer().eval()
