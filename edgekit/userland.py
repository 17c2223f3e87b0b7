"""The user's own Python: `package.module:function` or `path/file.py:function`, imported and nothing more.

Refuses what cannot be imported or called, with the line of the user's file where it went wrong."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekit_runtime.errors import EdgeKitError


def load_function(where: str) -> Callable[..., Any]:
    """The function that `where` names.

    Raises:
        EdgeKitError: no such module, file or function, or the module raised while it was imported.
    """
    module_name, _, function_name = where.rpartition(":")
    module = _module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise EdgeKitError(
            f"{module_name} has no function {function_name!r}",
            hint=f"name one of {', '.join(known[:8]) or 'its functions'}",
        )
    return function  # type: ignore[no-any-return]


def load_constant(where: str, name: str) -> Any:
    """What the module of `module:function` has by that name; None where it has none. Raises as `load_function`."""
    return getattr(_module(where.rpartition(":")[0]), name, None)


def raised(error: BaseException) -> str:
    """`ValueError: text (file.py:12)`: an error of the user's code in one line, with the last line of theirs."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    place = f" ({Path(last.filename).name}:{last.lineno})" if last else ""
    words = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {words}{place}"


def _module(name: str) -> ModuleType:
    return _import_file(Path(name)) if name.endswith(".py") else _import_module(name)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise EdgeKitError(f"no file {path}", hint="give path/file.py:function or package.module:function")
    name = f"edgekit_userland_{path.stem}_{abs(hash(str(path.resolve())))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    return _running(lambda: spec.loader.exec_module(module) or module, path.resolve().parent, str(path))  # type: ignore[union-attr]


def _import_module(name: str) -> ModuleType:
    return _running(lambda: importlib.import_module(name), Path.cwd(), name)


def _running(load: Callable[[], ModuleType], folder: Path, what: str) -> ModuleType:
    sys.path.insert(0, str(folder))
    try:
        return load()
    except ModuleNotFoundError as error:
        raise EdgeKitError(
            f"{what} cannot be imported: no module {error.name!r}", hint="install it, or run where it is"
        ) from error
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise EdgeKitError(f"importing {what} raised {raised(error)}", hint="mend it, then run this again") from error
    finally:
        sys.path.remove(str(folder))
