"""Draft an edgekit.toml from what can be seen in a model, with a comment at every choice. Pure: a model in, a text out.

Refuses nothing; what it cannot see stands there commented out."""

from edgekit_runtime.tensors import TensorSpec

from edgekit.model import Model, Origin

LEAST_SOUND = 4000
"""Samples from which an axis is taken for the time of a sound."""
SOUNDS = ("audio", "wave", "sound", "speech", "pcm", "signal")

GOALS = (
    '# metric = "top1"   # top1, top5, mae, cosine, agreement, or module:function',
    "",
    "# More to keep to; what misses one of these is not built. What is no faster than float32 is not built either,",
    "# unless it is wanted for its size: max_size, or smaller.",
    '# max_class_drop = "5pt"   # the most that any class may lose',
    '# max_latency = "20ms"   # 90th percentile, one thread; judged where it can be timed',
    '# max_size = "5MB"   # of the artifact',
    '# max_memory = "200MB"   # peak of a process that runs it',
    "# smaller = true   # take what is smaller than float32, faster or not",
)
SEARCH = (
    "# The first candidate that keeps to all of it is built; the cheapest to run, if best.",
    "# best = true   # a good one of each format and precision, and of these the fastest",
    '# budget_time = "10m"   # end the search then, with the best that was found',
    '# measure_on = "ssh://user@host"   # score and time on the device itself',
    '# format = "tflite"   # onnx, tflite, openvino; else what the target prefers',
    '# precision = "int8"   # float32, float16, int8, int8-weights, int4-weights',
)
CARRIED = "# with_float = true   # carry the float artifact too: the device compares a share of its answers with it"


def draft(origin: Origin, model: Model, target: str, data: str | None) -> str:
    """The text of an edgekit.toml for `model`."""
    inputs = "; ".join(map(str, model.inputs))
    outputs = "; ".join(map(str, model.outputs))
    shapes = ", ".join(
        f'"{shape.name}={",".join(map(str, shape.axes))}:{shape.dtype or "float32"}"' for shape in origin.shapes
    )
    lines = [
        "# What `edgekit build` makes in this folder. Flags override what stands here.",
        "",
        f"# {model.kind}, {model.facts.parameters:,} parameters, {model.facts.precision}",
        f"#   takes {inputs}",
        f"#   gives {outputs}",
        f'model = "{origin.model}"',
        f'weights = "{origin.weights}"'
        if origin.weights
        else '# weights = "weights.safetensors"   # for module:factory',
        f"shape = [{shapes}]"
        if shapes
        else '# shape = ["x=1x3x224x224"]   # NAME=DIMS[:DTYPE]; a word for a free size',
        "",
        "# One or more of `edgekit targets list`, or your own .toml.",
        f'target = ["{target}"]',
        "",
        "# Labelled samples: an .npz with arrays named as the inputs (and `label`), a folder of images, .wav or .txt",
        "# files by class or with labels.csv, a .csv of text,label, or module:function. Calibration is split off",
        "# unless it is given apart.",
        f'data = "{data}"' if data else '# data = "test.npz"',
        '# calibration = "train-sample.npz"',
        "",
        "# The most that may be lost: points of a share (0.5pt) or percent of the source's value (1%).",
        'max_drop = "0.5pt"' if data else '# max_drop = "0.5pt"',
        *GOALS,
        "",
        *SEARCH,
        "",
        '# labels = "labels.txt"   # a line for each class',
        CARRIED,
        *_preprocess(model),
    ]
    return "\n".join(lines) + "\n"


def _preprocess(model: Model) -> list[str]:
    """A table for the input that looks like a photo, a sound or a text; commented out: what it stood on in training
    cannot be seen in a model."""
    for spec in model.inputs:
        for lines in (_image(spec), _sound(spec), _text(spec, model)):
            if lines:
                return ["", *(f"# {line}" for line in lines)]
    return []


def _image(spec: TensorSpec) -> list[str]:
    shape = spec.shape
    if len(shape) != 4:
        return []
    layout = "NCHW" if shape[1] in (1, 3) else "NHWC" if shape[3] in (1, 3) else None
    if layout is None:
        return []
    channels, size = (shape[1], shape[2]) if layout == "NCHW" else (shape[3], shape[1])
    return [
        f"{spec.name} looks like an image. Take mean and std from the training code:",
        "wrong ones lose points, and nothing complains.",
        "[preprocess]",
        'kind = "image"',
        f'input = "{spec.name}"',
        f'channels = "{"RGB" if channels == 3 else "GRAY"}"',
        f"resize = {size or 224}",
        f"crop = {size or 224}",
        "scale = 0.00392156862745098",
        "mean = [0.485, 0.456, 0.406]" if channels == 3 else "mean = 0.0",
        "std = [0.229, 0.224, 0.225]" if channels == 3 else "std = 1.0",
        f'layout = "{layout}"',
    ]


def _sound(spec: TensorSpec) -> list[str]:
    """Where one axis is as long as a sound, or is free and the name says so, and the others are of size 1."""
    sizes = list(spec.shape[1:]) if len(spec.shape) in (2, 3) else []
    times = [size for size in sizes if size != 1]
    if not spec.dtype.startswith("float") or len(times) != 1:
        return []
    (time,) = times
    if (time or 0) < LEAST_SOUND and not (time is None and any(word in spec.name.lower() for word in SOUNDS)):
        return []
    return [
        f"{spec.name} looks like a sound. Take rate and scale from the training code:",
        "wrong ones lose points, and nothing complains.",
        "[preprocess]",
        'kind = "audio"',
        f'input = "{spec.name}"',
        "rate = 16000",
        f"samples = {time}" if time else "samples = 16000   # left out: as long as the recording",
        f'layout = "{"NT" if len(sizes) == 1 else "NCT" if sizes[0] == 1 else "NTC"}"',
    ]


def _text(spec: TensorSpec, model: Model) -> list[str]:
    """Where whole numbers are named as a tokenizer's."""
    if not spec.dtype.startswith("int") or len(spec.shape) != 2 or not spec.name.lower().endswith(("ids", "tokens")):
        return []
    names = [other.name for other in model.inputs if other.name != spec.name]
    length = spec.shape[1]
    return [
        f"{spec.name} looks like the tokens of a text. Take the vocabulary and max_length from the training code.",
        "[preprocess]",
        'kind = "text"',
        f'input = "{spec.name}"',
        *(f'mask = "{name}"' for name in names if "mask" in name),
        *(f'types = "{name}"' for name in names if "type" in name),
        'tokenizer = "wordpiece"   # characters, bytes',
        'vocab = "vocab.txt"',
        "lower = true",
        f"max_length = {length or 128}",
        f"pad = {'true' if length else 'false'}",
        f'dtype = "{spec.dtype}"',
    ]
