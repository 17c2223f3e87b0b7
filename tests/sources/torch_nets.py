"""Small networks that tests read by path, as a user's file would be."""

import torch
from torch import nn


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.deep = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.deep(torch.relu(self.first(x)))).mean((2, 3)))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 3)
        self.b = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor, scale: float = 2.0) -> dict[str, object]:
        return {"sum": self.a(x) - self.b(y), "pair": (self.a(x), self.b(y) * scale)}


class Series(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.series = kind(6, 16, 2, batch_first=True)
        self.last = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.series(x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 32)
        self.places = nn.Parameter(torch.randn(64, 32))
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)
        self.last = nn.Linear(32, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(self.words(ids) + self.places[: ids.shape[1]]).mean(1))


def small() -> nn.Module:
    return Small()


def pair() -> nn.Module:
    return Pair()


def lstm() -> nn.Module:
    return Series(nn.LSTM)


def gru() -> nn.Module:
    return Series(nn.GRU)


def encoder() -> nn.Module:
    return Encoder()


def raising() -> nn.Module:
    raise ValueError("no such thing\nand more of it")


def number() -> int:
    return 3
