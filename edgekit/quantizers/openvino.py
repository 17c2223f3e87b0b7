"""Quantize an OpenVINO model by NNCF: static int8, weights alone in 8 or 4 bits, float16 storage.

Refuses files that are already quantized or in float16, 4 bits for convolutions, and integer inputs and outputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgeKitError, Unsupported

from edgekit.model import Artifact, Tell
from edgekit.quantizers import Wish
from edgekit.quantizers.coverage import insist
from edgekit.quantizers.feeding import calibration, first_run, probed
from edgekit.quantizers.openvino_graph import coverage, storage
from edgekit.quantizers.openvino_sensitivity import measured
from edgekit.quantizers.openvino_static import Samples, import_nncf, static
from edgekit.quantizers.openvino_weights import recurrent_as_int8
from edgekit.quiet import last_line, quiet
from edgekit.recipes import Group

GROUP = 32
"""How many 4-bit weights share a scale."""


def quantize(artifact: Artifact, wish: Wish, folder: Path, tell: Tell) -> Artifact:
    """Write `model.xml` and `model.bin` at `wish.precision` into `folder`.

    Raises:
        Unsupported: this model cannot be had at that precision.
        EdgeKitError: int8 without calibration data.
    """
    from edgekit_runtime.engines.openvino import ov

    precision, notes = wish.precision, artifact.notes
    if wish.integer_io:
        raise Unsupported(
            "an OpenVINO artifact keeps float inputs and outputs", hint="leave --integer-io out, or use --format tflite"
        )
    model = ov.Core().read_model(artifact.path)
    _check_source(model, artifact)
    before = storage(model)
    if precision == "float16":
        notes += ("weights are stored as float16; a CPU still computes in float32",)
    else:
        model = _integers(model, artifact, wish, tell)
        covered = coverage(before, storage(model))
        insist(covered, precision)
        notes += (covered.note(precision),)
    path = folder / "model.xml"
    with quiet():
        ov.save_model(model, path, compress_to_fp16=precision == "float16")
    made = replace(artifact, precision=precision, path=path, notes=notes)
    first_run(made, artifact, wish)
    return made


def sensitivity(artifact: Artifact, wish: Wish, scratch: Path, tell: Tell) -> tuple[Group, ...]:
    """The operators that int8 can hold, in at most twelve groups in execution order, each with what int8 of it alone
    does to the answers. Calibrated once, by the wish's recipe with nothing kept and biases as they are.

    Raises:
        Unsupported: NNCF cannot quantize this model.
        EdgeKitError: there are no calibration data.
    """
    from edgekit_runtime.engines.openvino import ov

    model = ov.Core().read_model(artifact.path)
    _check_source(model, artifact)
    calibration(artifact, wish)
    probes, wish = probed(wish)
    samples = _samples(artifact, wish)
    recipe = replace(wish.recipe, precision="int8", keep=(), correct_bias=False)
    tell(f"calibrating on {wish.samples} samples")
    with _refusing("int8"):
        return measured(static(model, samples, recipe, weights_as_integers=False), artifact, probes, scratch, tell)


def _integers(model: Any, artifact: Artifact, wish: Wish, tell: Tell) -> Any:
    """The model with integer weights, and for int8 integer activations."""
    work: dict[str, Callable[[], Any]] = {
        "int8": lambda: _static(model, artifact, wish, tell),
        "int8-weights": lambda: _compressed(model, "INT8_SYM"),
        "int4-weights": lambda: _compressed(model, "INT4_SYM", group_size=GROUP, ratio=1.0, all_layers=True),
    }
    if wish.precision not in work:
        raise Unsupported(f"openvino has no precision {wish.precision!r}", hint=f"use float16, {', '.join(work)}")
    if wish.precision == "int4-weights":
        _only_products(model)
    with _refusing(wish.precision):
        return work[wish.precision]()


@contextmanager
def _refusing(precision: str) -> Iterator[None]:
    """A foreign error as a refusal."""
    try:
        yield
    except EdgeKitError:
        raise
    except Exception as error:  # NNCF and OpenVINO raise whatever they meet
        nearest = "int8-weights" if precision != "int8-weights" else "float16"
        raise Unsupported(
            f"NNCF cannot make {precision}: {last_line(error)}", hint=f"use --precision {nearest}"
        ) from error


def _samples(artifact: Artifact, wish: Wish) -> Samples:
    return Samples(calibration(artifact, wish), tuple(port.inside.name for port in artifact.inputs))


def _static(model: Any, artifact: Artifact, wish: Wish, tell: Tell) -> Any:
    samples = _samples(artifact, wish)
    tell(f"calibrating on {wish.samples} samples")
    return static(model, samples, wish.recipe)


def _compressed(model: Any, mode: str, **settings: Any) -> Any:
    nncf = import_nncf()
    with quiet():
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode[mode], **settings)
    if mode == "INT8_SYM":
        recurrent_as_int8(model)
    return model


def _only_products(model: Any) -> None:
    sizes = storage(model)
    total = sum(size for size, _ in sizes.floats.values())
    dense = sum(size for size, op in sizes.floats.values() if op in ("MatMul", "Gather"))
    if total and dense < total / 2:
        raise Unsupported(
            f"4-bit weights are for matrix products and embeddings, which hold {100 * dense // total} % of the weights",
            hint="use --precision int8-weights",
        )


def _check_source(model: Any, artifact: Artifact) -> None:
    held = storage(model)
    if held.integers or any(op.get_type_name() == "FakeQuantize" for op in model.get_ops()):
        raise Unsupported(
            f"{artifact.path.name} is already quantized",
            hint=f"use --precision {artifact.precision}, or start from the float model",
        )
    if held.half:
        raise Unsupported(
            f"{artifact.path.name} is in float16 already",
            hint=f"use --precision {artifact.precision}, or start from a float32 model",
        )
