"""Whether a `.pt2` file is nothing but data, before PyTorch may load it: its loader unpickles, evaluates and links.

Refuses pickled objects, compiled code, calls that are no operators and sizes that are no arithmetic."""

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from edgekit_runtime.errors import Unsupported
from torch.export.pt2_archive._package import PT2ArchiveReader

FUNCTIONS = re.compile(
    r"FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural"
    r"|FloatPow|FloatTrueDiv|IntTrueDiv|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat|Identity|Max|Min|Abs"
    r"|Eq|Ne|Gt|Ge|Lt|Le|And|Or|Not|Piecewise|Pow|Add|Mul|Integer|Float|floor|ceiling|Symbol"
)
"""What the size expressions of an exported program may call: PyTorch evaluates them as code."""
TARGETS = re.compile(
    r"torch\.ops\.(aten|higher_order|prims|_c10d_functional|quantized_decomposed|torchvision|quantized|torchao)\.\w+(\.\w+)?"
    r"|torch\.(sym_\w+|_check\w*)|_operator\.(?!methodcaller|attrgetter|itemgetter)\w+|math\.\w+|torch\._higher_order_ops\.[\w.]+"
    r"|torch\._C\._set_grad_enabled"
)
"""What its nodes may call."""
CODE = ("torch", "_operator", "math", "#")
"""How a name begins that PyTorch looks up to call it; others stay words."""


def refuse_code(path: Path) -> None:
    """Raise unless the exported program at `path` is data: `torch.export.load` by itself unpickles and evaluates.

    The archive is read with the reader that `torch.export.load` uses, so that both see the same.

    Raises:
        Unsupported: it holds pickles, compiled code or expressions that are more than arithmetic.
    """
    with PT2ArchiveReader(str(path)) as archive:
        for name in archive.get_file_names():
            if name.startswith("data/sample_inputs/"):
                _refuse_pickle(archive.read_bytes(name), name)
            elif name.startswith("data/aotinductor/") or name.startswith("data/executorch/"):
                raise _refusal(f"it holds compiled code ({name})")
            elif re.search(r"/(custom_obj_|opaque_obj_)|^data/(weights|constants)/[^/]*\.pt$", name):
                raise _refusal(f"it holds pickled objects ({name})")
            elif name.endswith("_config.json"):
                if '"use_pickle": true' in json.dumps(json.loads(archive.read_bytes(name))):
                    raise _refusal(f"it holds pickled tensors ({name})")
            elif name.startswith("models/"):
                for key, value in _values(json.loads(archive.read_bytes(name))):
                    _refuse_value(key, value)


def _refuse_pickle(data: bytes, name: str) -> None:
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have errors of their own
        raise _refusal(f"its {name} is more than tensors") from error


def _values(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in decoded JSON, with the key that it stands under."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _values(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _values(item, key)
    elif isinstance(value, str):
        yield key, value


def _refuse_value(key: str, value: str) -> None:
    if key == "expr_str" and not _is_arithmetic(value):
        raise _refusal(f"a size in it is no arithmetic: {value[:60]!r}")
    if key == "target" and value.startswith(CODE) and (not TARGETS.fullmatch(value) or "from_file" in value):
        raise _refusal(f"it calls {value[:80]!r}")
    if value.lstrip()[:1] in ("[", "{") and re.search(r"__enum__|default_factory|\\u", value):
        raise _refusal("its inputs or outputs name Python classes")


def _is_arithmetic(text: str) -> bool:
    """Whether an expression is numbers, symbols, operators and the functions that PyTorch's sizes are made of."""
    allowed = ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    strings = set()
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        if not isinstance(node.func, ast.Name) or not FUNCTIONS.fullmatch(node.func.id):
            return False
        if node.func.id == "Symbol" and len(node.args) == 1 and isinstance(node.args[0], ast.Constant):
            strings.add(node.args[0])
    for node in nodes:
        if isinstance(node, ast.Constant):
            plain = node in strings and isinstance(node.value, str) and re.fullmatch(r"\w+", node.value)
            if not plain and not isinstance(node.value, bool | int | float):
                return False
        elif not isinstance(node, (*allowed, ast.boolop, ast.Call, ast.Name, ast.keyword, ast.Load)):
            return False
    return True


def _refusal(why: str) -> Unsupported:
    return Unsupported(
        f"the exported program is refused: {why}, and loading that would run whatever code is in it",
        hint="save it anew with torch.export.save(torch.export.export(model, args), 'model.pt2')",
    )
