"""PyTorch models as code: `package.module:factory` or `path/file.py:factory`, with weights that are data.

Refuses a factory that raises or gives no module, weights that do not fit, and weights that are pickled code."""

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from edgekit_runtime.errors import EdgeKitError

from edgekit.model import Model, Origin
from edgekit.quiet import quiet
from edgekit.sources.files import digest
from edgekit.sources.torch_calls import Flat, TorchForm, by_name, facts, learn, runner, specs, tensor_inputs
from edgekit.sources.torch_weights import load_weights
from edgekit.userland import load_function, raised

FRAMEWORKS = {"torch", "numpy", "edgekit", "edgekit_runtime"}
"""Known by their versions, which whoever asks for a fingerprint knows by itself."""

GENERIC = {"model", "net", "network", "factory", "make", "create", "build", "load", "main", "get_model", "make_model"}
GENERIC |= {"build_model", "create_model", "load_model"}
"""Names of functions and files that say nothing of what they make."""


def fingerprint(origin: Origin) -> str:
    """Of the weights as the module holds them, and of the user's source files that it is made of."""
    module, files = _load(origin)
    state = hashlib.sha256()
    for name, value in module.state_dict().items():
        if not isinstance(value, torch.Tensor):
            state.update(f"{name} {value!r}\n".encode())
            continue
        state.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest(files, repr(origin), state.hexdigest())


def read(origin: Origin) -> Model:
    """The module that the factory makes, with its weights.

    Raises:
        EdgeKitError: the factory, the weights or the shapes are wrong.
    """
    module, _ = _load(origin)
    shapes = tensor_inputs(module, origin)
    flat = Flat(module, by_name([shape.name for shape in shapes]))
    with quiet():
        outputs, example = learn(flat, shapes)
    inputs, axes = specs(shapes)
    return Model(
        name=_name(origin.model),
        kind="torch",
        forms={"torch": TorchForm(flat, example)},
        inputs=inputs,
        outputs=outputs,
        axes=axes,
        run=runner(flat, inputs),
        facts=facts(module),
    )


def _name(where: str) -> str:
    """The first word that says more than that it is a model: the function, its file or module, the folder."""
    place, _, function = where.rpartition(":")
    path = Path(place).resolve() if place.endswith(".py") else Path(place.replace(".", "/"))
    words = (function, path.stem, path.parent.name)
    return next((word for word in words if word and word.lower() not in GENERIC), function)


def _load(origin: Origin) -> tuple[torch.nn.Module, list[Path]]:
    """The module in evaluation mode, and the files of the user's that it came from.

    Random weights are drawn from seed 0, so that the same code is the same model twice. A file's
    neighbours are forgotten again, so that two folders may each have a `layers.py`.
    """
    where = origin.model.rpartition(":")[0]
    by_path = where.endswith(".py")
    folder = Path(where).resolve().parent if by_path else Path.cwd()
    with _neighbours(folder, forget=by_path):
        factory = load_function(origin.model)
        module = _made(origin.model, factory)
        if origin.weights is not None:
            load_weights(module, origin.weights)
        return module.eval(), _files(module, factory, Path(where) if by_path else None)


def _made(where: str, factory: object) -> torch.nn.Module:
    if not callable(factory):
        raise EdgeKitError(f"{where} is not a function", hint="name a function that returns the model")
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(0)
            module = factory()
    except (Exception, SystemExit) as error:  # the factory is the user's code: it may raise anything
        raise EdgeKitError(f"factory raised {raised(error)}", hint="mend it, then run this again") from error
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise EdgeKitError(
            f"{where} returned {type(module).__name__}, not a torch.nn.Module",
            hint="return the module itself; give TorchScript as a .pt file and exported programs as .pt2",
        )
    return module


@contextmanager
def _neighbours(folder: Path, forget: bool) -> Iterator[None]:
    """Let modules of `folder` be imported for a while."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before if forget else ():
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).resolve().is_relative_to(folder) and not _foreign(Path(file)):
                del sys.modules[name]


def _files(module: torch.nn.Module, factory: object, file: Path | None) -> list[Path]:
    """The source files behind the factory and every layer's class, and what lies loaded beside them."""
    names = {type(layer).__module__ for layer in module.modules()} | {getattr(factory, "__module__", "")}
    roots, found = set(), {file.resolve()} if file else set()
    for name in names:
        source = inspect.getsourcefile(sys.modules[name]) if name in sys.modules else None
        if source and name.split(".")[0] not in FRAMEWORKS:
            found.add(Path(source).resolve())
            roots.add(name.split(".")[0])
    folders = {path.parent for path in found if not _foreign(path)}
    for name, loaded in list(sys.modules.items()):
        source = getattr(loaded, "__file__", None)
        if not source or not source.endswith(".py") or name.split(".")[0] in FRAMEWORKS:
            continue
        path = Path(source).resolve()
        if name.split(".")[0] in roots or (not _foreign(path) and any(map(path.is_relative_to, folders))):
            found.add(path)
    return sorted(found)


def _foreign(path: Path) -> bool:
    """Whether a file belongs to Python or to an installed package, not to the user's folder."""
    paths = sysconfig.get_paths()
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return True
    return path.is_relative_to(Path(paths["stdlib"]).resolve())
