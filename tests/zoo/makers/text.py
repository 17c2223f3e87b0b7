"""Which of ten languages is it: messages of Django's translations (BSD), as windows of 64 bytes; two nets on them.

Refuses a wheel that is not the one asked for. No message of the test set was seen in training, in any language."""

import random
import re
import zipfile
from pathlib import Path

import numpy as np
from edgekit_runtime.tensors import Array

from examples.fetch import wheel

DJANGO = ("Django==5.2", "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83")
LANGUAGES = ("cs", "de", "es", "fi", "fr", "it", "nl", "pl", "pt", "sv")
WIDTH = 64


def data(test: bool) -> tuple[Array, Array]:
    """Ids int64 [N, 64] and labels int64 [N]: 200 windows of each language for the test, 800 to train on."""
    windows, labels = [], []
    with zipfile.ZipFile(wheel(*DJANGO)) as opened:
        for label, language in enumerate(LANGUAGES):
            messages = [text for key, text in _messages(opened, language) if (_number(key) % 4 == 0) == test]
            dice = random.Random(f"{language} {test}")
            for _ in range(200 if test else 800):
                stream = b" ".join(dice.choice(messages).encode() for _ in range(12))
                start = dice.randrange(max(1, len(stream) - WIDTH))
                windows.append(np.frombuffer(stream[start : start + WIDTH].ljust(WIDTH), np.uint8).astype(np.int64))
                labels.append(label)
    return np.stack(windows), np.array(labels, np.int64)


def _number(key: str) -> int:
    """The same number for the same text on every run."""
    return random.Random(key).randrange(2**32)


def text_classifier(folder: Path) -> None:
    """Train the LSTM, write the forms and the data."""
    _make("text_classifier", folder)


def transformer(folder: Path) -> None:
    """Train the transformer, write the forms and the data."""
    _make("transformer", folder)


def _make(name: str, folder: Path) -> None:
    import torch

    from tests.zoo.makers.torch_files import Call, fit, write_data, write_forms
    from tests.zoo.nets import text

    ids, labels = data(test=False)
    torch.manual_seed(0)
    net: torch.nn.Module = getattr(text, name)()
    fit(net, ids, labels, epochs=8, batch=64, rate=0.004)
    write_forms(net, Call("ids", ids[:2], {0: "batch", 1: "time"}), folder)
    write_data("ids", data(test=True), (ids[::10], labels[::10]), folder)


def _messages(opened: zipfile.ZipFile, language: str) -> list[tuple[str, str]]:
    """(English, translation) of all messages with some length; placeholders and markup are cut out."""
    pairs = []
    files = [name for name in opened.namelist() if name.endswith(f"/locale/{language}/LC_MESSAGES/django.po")]
    for block in "\n\n".join(opened.read(name).decode() for name in files).split("\n\n"):
        parts = re.split(r"^msg\w+(?:\[\d\])? ", block, flags=re.MULTILINE)
        texts = [re.sub(r'"\s*\n\s*"|^"|"\s*$', "", part) for part in parts]
        if len(texts) >= 3 and texts[1] and len(texts[-1]) > 15:
            pairs.append((texts[1], re.sub(r"%\(\w+\)s|%s|\\n|<[^>]*>|\{[^}]*\}", " ", texts[-1])))
    return pairs
