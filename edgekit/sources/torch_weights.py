"""Weights for a module: `.safetensors`, or `.pth` and `.pt` read as nothing but tensors.

Refuses pickled code, files that do not read, and weights that do not fit, with what is missing or too much."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from edgekit_runtime.errors import EdgeKitError, NotFound

NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys under which training scripts keep the weights among other things."""
SAFE = "save them anew with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Put the weights at `path` into `module`, all of them and nothing else.

    Raises:
        EdgeKitError: they cannot be had from there or do not fit.
    """
    state = _unwrapped(_read(path), path)
    wanted = module.state_dict()
    for prefix in ("module.", "_orig_mod."):
        if state and all(name.startswith(prefix) for name in state) and not any(n.startswith(prefix) for n in wanted):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    problems = _problems(wanted, state)
    if problems:
        raise EdgeKitError(
            f"{path.name} does not fit the model: {'; '.join(problems)}",
            hint="give the weights that belong to this factory, or mend the factory's settings",
        )
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise EdgeKitError(f"{path.name} does not fit the model: {' '.join(str(error).split())[:300]}") from error


def _read(path: Path) -> object:
    if not path.is_file():
        raise NotFound(f"no weights at {path}", hint="give a .safetensors or .pth file")
    if path.suffix == ".safetensors":
        import safetensors
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise EdgeKitError(f"{path} does not read as safetensors: {error}", hint="save or copy it again") from error
    if path.suffix not in (".pth", ".pt", ".bin", ".ckpt"):
        raise EdgeKitError(f"{path.name} is no file of weights", hint="give a .safetensors or .pth file")
    return _read_pickle(path)


def _read_pickle(path: Path) -> object:
    from edgekit.sources.torch_archive import Content, look

    content = look(path)
    if content in (Content.TORCHSCRIPT, Content.EXPORTED):
        raise EdgeKitError(f"{path.name} is a whole model, not weights", hint="give it as the model, without --weights")
    if content == Content.NOTHING:
        raise EdgeKitError(f"{path} is damaged or no file of PyTorch's", hint="save or copy it again")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have errors of their own
        if content == Content.CODE:
            raise EdgeKitError(
                f"{path.name} is a pickled model; unpickling runs whatever code is in it, so it is not read",
                hint=f"{SAFE}",
            ) from error
        line = str(error).strip().partition("\n")[0][:200]
        raise EdgeKitError(f"{path.name} does not read as plain weights: {line}", hint=SAFE) from error


def _unwrapped(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    """The weights themselves, out of what a training script saved around them."""
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            break
        if loaded and all(isinstance(value, torch.Tensor) for value in loaded.values()):
            return dict(loaded)
        nest = next((key for key in NESTS if isinstance(loaded.get(key), Mapping)), None)
        if nest is None:
            if any(isinstance(value, torch.Tensor) for value in loaded.values()):
                return dict(loaded)
            break
        loaded = loaded[nest]
    raise EdgeKitError(f"{path.name} holds no weights by name", hint=SAFE)


def _problems(wanted: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    other = [
        f"{name} is {_size(state[name])}, not {_size(value)}"
        for name, value in wanted.items()
        if isinstance(value, torch.Tensor) and name in state and _size(state[name]) != _size(value)
    ]
    problems = []
    for names, words in ((missing, "missing"), (extra, "unexpected"), (other, "of another size")):
        if names:
            problems.append(f"{len(names)} {words} ({_few(names)})")
    return problems


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _size(value: object) -> str:
    return "x".join(map(str, value.shape)) or "a scalar" if isinstance(value, torch.Tensor) else type(value).__name__
