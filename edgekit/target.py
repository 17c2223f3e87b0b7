"""A target: what a device is, which engines run there and what is known to go wrong, from one TOML file.

Refuses a profile with a missing, misspelt or wrong field, and an unknown name, saying what was probably meant."""

import difflib
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from edgekit_runtime.detect import FEATURES
from edgekit_runtime.engines import ENGINES, EngineOptions, parse_options
from edgekit_runtime.engines.options import FLOATS, HINTS
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.manifest import PLAIN

PRECISIONS = ("float32", "float16", "int8", "int8-weights", "int4-weights")
OVERRIDES = {
    "device": ("cpu", "cuda", "tensorrt", "gpu", "npu", "auto", "hetero", "delegate"),
    "precision": FLOATS,
    "spin": ("true", "false"),
    "hint": HINTS,
}
"""What some of an engine's options may be in a target; it sets any of them but the threads, which are its own."""
CORES = {
    "aarch64": ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1"),
    "armv7l": ("cortex-a7",),
    "x86_64": ("Nehalem", "Haswell"),
}
"""By architecture: the CPUs that can stand for a target under emulation, as qemu's -cpu names them."""

ONE_SCALE = ("tflite",)
"""The engines whose quantizer can be told to give a dense layer one scale."""
REQUIRED = ("name", "title", "arch", "isa", "cores", "memory_mb", "storage_mb", "engines", "precisions")
WORDS = ("isa", "engines", "precisions", "accelerators", "saturates", "dense_per_tensor")
NUMBERS = ("cores", "threads", "memory_mb", "storage_mb")


@dataclass(frozen=True)
class Never:
    """A combination known to be bad: its reason and where that is known from.

    None stands for any format or precision. `ops` are words: the rule holds for a model with an
    operator whose name has one of them ("conv" is in Conv, CONV_2D, aten.conv2d and DepthwiseConv2D).
    """

    format: str | None
    precision: str | None
    ops: tuple[str, ...]
    reason: str
    source: str

    def holds(self, format: str, precision: str, ops: Collection[str]) -> bool:
        """Whether the rule speaks of this format, this precision and a model with these operators."""
        return (
            self.format in (None, format)
            and self.precision in (None, precision)
            and (not self.ops or any(word in _words(op) for op in ops for word in self.ops))
        )


EVERYWHERE = (
    Never(
        "tflite",
        "int4-weights",
        ("conv", "convolution"),
        "4-bit weights ruin convolutional networks in LiteRT (cosine to float 0.40 on EfficientNet-Lite0)",
        "measured with LiteRT 2.3.0 and ai-edge-quantizer 0.10.0 on EfficientNet-Lite0",
    ),
)
"""What is bad on every target, for a fault of the format or the tool."""


@dataclass(frozen=True)
class Target:
    """A kind of device. Engines, precisions: best first. Memory and storage: installed, in MB.

    `isa` holds the CPU features that change int8 arithmetic or speed, as /proc/cpuinfo names them.
    `saturates` are the engines whose 8-bit multiply-add saturates here and that want 7-bit weights;
    `dense_per_tensor` those whose dense layers and embeddings, where their integer weights meet float numbers, know
    but one scale for all of them.
    `static_shapes`: nothing with a free dimension runs here. `emulate` is the core that stands for this CPU
    under emulation. `sources` says where each claim is from.
    """

    name: str
    title: str
    arch: str
    isa: tuple[str, ...]
    cores: int
    memory_mb: int
    storage_mb: int
    engines: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: int = 1
    accelerators: tuple[str, ...] = ()
    saturates: tuple[str, ...] = ()
    dense_per_tensor: tuple[str, ...] = ()
    static_shapes: bool = False
    emulate: str | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    never: tuple[Never, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def forbids(self, format: str, precision: str, ops: Collection[str]) -> str | None:
        """Why this format at this precision is not for this target and a model with these operators, or None."""
        for rule in (*self.never, *EVERYWHERE):
            if rule.holds(format, precision, ops):
                return rule.reason
        if format not in self.engines:
            return f"{self.title} has no engine for {format}"
        if precision not in self.precisions:
            return f"{self.title} is not for {precision} (it takes {', '.join(self.precisions)})"
        return None

    def engine_options(self, engine: str) -> EngineOptions:
        """How to run `engine` here."""
        return EngineOptions(threads=self.threads, **self.options.get(engine, {}))


def find_target(name_or_path: str) -> Target:
    """The target of that name, or the one that the TOML file at that path describes.

    Raises:
        EdgeKitError: there is none, or it does not read.
    """
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        return _read(Path(name_or_path), name_or_path)
    names = {target.name: target for target in list_targets()}
    if name_or_path not in names:
        raise EdgeKitError(
            f"no target {name_or_path!r}{did_you_mean(name_or_path, names)}",
            hint="choose from `edgekit targets list`, or give a .toml that `edgekit targets detect` wrote",
        )
    return names[name_or_path]


def list_targets() -> list[Target]:
    """The targets that EdgeKit brings, by name."""
    found = [entry for entry in files("targets").iterdir() if entry.name.endswith(".toml")]
    return sorted((_read(entry, entry.name) for entry in found), key=lambda target: target.name)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the word nearest to `word`, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def parse_target(raw: Mapping[str, Any], where: str) -> Target:
    """The target that decoded TOML describes; `where` names it in errors.

    Raises:
        EdgeKitError: a field is missing, unknown, of the wrong type or says what cannot be.
    """
    known = [one.name for one in fields(Target)]
    _known(where, "field", raw, known)
    for name in REQUIRED:
        if name not in raw:
            raise _wrong(
                where, f"{name} is missing", f"add {name} = ...; `edgekit targets detect` writes whole profiles"
            )
    values = {name: _typed(where, name, value) for name, value in raw.items()}
    if not PLAIN.fullmatch(values["name"]):
        raise _wrong(where, f"name {values['name']!r} is not a plain word", "use letters, digits, . _ -")
    _known(where, "arch", [values["arch"]], FEATURES)
    _known(where, "isa feature", values["isa"], FEATURES[values["arch"]])
    _known(where, "engine", values["engines"], ENGINES)
    _known(where, "engine", values.get("saturates", ()), ENGINES)
    _known(where, "engine", values.get("dense_per_tensor", ()), ONE_SCALE)
    _known(where, "precision", values["precisions"], PRECISIONS)
    if "emulate" in values:
        arch = values["arch"]
        _known(where, f"core of {arch}", [values["emulate"]], CORES[arch])
    _known(where, "field in sources", values.get("sources", ()), known)
    return Target(**{"threads": values["cores"], **values})


def _typed(where: str, name: str, value: object) -> Any:
    """The value as its field wants it."""
    if name in WORDS:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _wrong(where, f"{name} is not a list of words", f'write {name} = ["...", "..."]')
        if not value and name in ("engines", "precisions"):
            raise _wrong(where, f"{name} is empty", "name at least one, the best first")
        return tuple(value)
    if name in NUMBERS:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _wrong(where, f"{name} is not a whole number above 0: {value!r}", f"write for example {name} = 4")
        return value
    if name == "static_shapes":
        if not isinstance(value, bool):
            raise _wrong(where, f"{name} is neither true nor false: {value!r}", f"write {name} = true")
        return value
    if name == "never":
        if not isinstance(value, list):
            raise _wrong(where, "never is not a list of tables", "write [[never]] above each rule")
        return tuple(_never(where, rule) for rule in value)
    if name == "options":
        return _options(where, value)
    return _texts(where, name, value) if name == "sources" else _text(where, name, value)


def _never(where: str, rule: object) -> Never:
    if not isinstance(rule, dict):
        raise _wrong(where, "a rule in never is not a table", "write [[never]] above each rule")
    _known(where, "field in never", rule, [one.name for one in fields(Never)])
    ops = rule.get("ops", [])
    texts = _texts(where, "never", {name: value for name, value in rule.items() if name != "ops"})
    if not isinstance(ops, list) or not all(isinstance(op, str) for op in ops):
        raise _wrong(where, "ops in never is not a list of words", 'write ops = ["conv"]')
    for name in ("reason", "source"):
        if name not in texts:
            raise _wrong(where, f"a rule in never has no {name}", f"add {name} = ... to each [[never]]")
    _known(where, "format in never", [texts["format"]] if "format" in texts else [], ENGINES)
    _known(where, "precision in never", [texts["precision"]] if "precision" in texts else [], PRECISIONS)
    words = tuple(op.lower() for op in ops)
    return Never(texts.get("format"), texts.get("precision"), words, texts["reason"], texts["source"])


def _options(where: str, value: object) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict):
        raise _wrong(where, "options is not a table", "write [options.onnx] above device and precision")
    _known(where, "engine in options", value, ENGINES)
    return {engine: _overrides(where, f"options.{engine}", table) for engine, table in value.items()}


def _overrides(where: str, name: str, value: object) -> dict[str, Any]:
    """What a target says of an engine's options, as `EngineOptions` takes it."""
    if not isinstance(value, dict):
        raise _wrong(where, f"{name} is not a table", f"write [{name}] above its lines")
    settable = [one.name for one in fields(EngineOptions) if one.name != "threads"]
    _known(where, f"field in {name}", value, settable)
    for key in value.keys() & OVERRIDES.keys():
        given = value[key]
        word = str(given).lower() if isinstance(given, bool) else _text(where, f"{name}.{key}", given)
        _known(where, f"{key} in {name}", [word], OVERRIDES[key])
    said = {**value, **({"spin": value["spin"] in (True, "true")} if "spin" in value else {})}
    try:
        options = parse_options(said)
    except (EdgeKitError, TypeError, ValueError) as error:
        what = error.what.removeprefix("manifest options: ") if isinstance(error, EdgeKitError) else str(error)
        raise _wrong(where, f"{name}: {what}", f"mend it under [{name}]") from error
    return {key: getattr(options, key) for key in value}


def _texts(where: str, name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(where, f"{name} is not a table", f"write [{name}] above its lines")
    return {key: _text(where, f"{name}.{key}", text) for key, text in value.items()}


def _text(where: str, name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(where, f"{name} is not a text: {value!r}", f'write {name} = "..."')
    return value


def _known(where: str, what: str, words: Iterable[str], known: Iterable[str]) -> None:
    for word in words:
        if word not in known:
            raise _wrong(where, f"unknown {what} {word!r}{did_you_mean(word, known)}", f"use {', '.join(known)}")


def _wrong(where: str, what: str, hint: str) -> EdgeKitError:
    return EdgeKitError(f"{where}: {what}", hint=hint)


def _read(entry: Path | Traversable, where: str) -> Target:
    """The target in a TOML file: a path, or an entry of the package data."""
    try:
        raw = tomllib.loads(entry.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgeKitError(
            f"no target at {where}: {error.strerror}", hint="give a .toml or a name of `edgekit targets list`"
        ) from error
    except ValueError as error:  # what is not TOML, and what is not UTF-8
        raise _wrong(
            where, f"not TOML: {error}", "mend that line, or write the file with `edgekit targets detect`"
        ) from error
    return parse_target(raw, where)


def _words(op: str) -> set[str]:
    """The words in an operator's name: `DEPTHWISE_CONV_2D` and `DepthwiseConv2D` both give depthwise, conv, d."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", op)}
