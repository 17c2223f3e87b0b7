"""PyTorch models of every kind, and what must never be unpickled."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from edgekit_runtime.errors import EdgeKitError

from edgekit import sources
from edgekit.model import Model, Origin, parse_shape

pytestmark = pytest.mark.slow

NETS = Path(__file__).with_name("torch_nets.py")


def origin(model: object, *shapes: str, weights: Path | None = None) -> Origin:
    return Origin(str(model), weights, tuple(map(parse_shape, shapes)))


def read(model: object, *shapes: str, weights: Path | None = None) -> Model:
    return sources.read(origin(model, *shapes, weights=weights))


def net(name: str) -> torch.nn.Module:
    model = read(f"{NETS}:{name}", *{"small": ["x=n,3,32,32"], "pair": ["x=nx4", "y=nx4"]}[name])
    return model.forms["torch"].flat.module


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An exported program, two of its sizes free."""
    free = {"ids": {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=64)}}
    encoder = read(f"{NETS}:encoder", "ids=n,t:int64").forms["torch"].flat.module
    path = tmp_path_factory.mktemp("program") / "m.pt2"
    torch.export.save(torch.export.export(encoder, (torch.ones(2, 7, dtype=torch.int64),), dynamic_shapes=free), path)
    return path.read_bytes()


@pytest.fixture
def exported(program: bytes, tmp_path: Path) -> Path:
    """The exported program as a file that a test may spoil."""
    (tmp_path / "m.pt2").write_bytes(program)
    return tmp_path / "m.pt2"


def repacked(path: Path, change: dict[str, bytes | None], extra: dict[str, bytes] | None = None) -> Path:
    """The archive with some members changed or added; stored as PyTorch stores them."""
    members = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            members[name] = next((new for end, new in change.items() if name.endswith(end)), None) or archive.read(name)
    root = next(iter(members)).split("/")[0]
    members |= {f"{root}/{name}": data for name, data in (extra or {}).items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_factory_becomes_a_model_with_the_shapes_that_the_user_named() -> None:
    model = read(f"{NETS}:pair", "x=n,4", "y=n,4")
    assert [str(spec) for spec in model.inputs] == ["x: float32[?, 4]", "y: float32[?, 4]"]
    assert [str(s) for s in model.outputs] == [f"{n}: float32[?, 3]" for n in ("sum", "pair_0", "pair_1")]
    answer = model.run({"x": np.ones((5, 4), np.float32), "y": np.zeros((5, 4), np.float32)})
    assert {name: value.shape for name, value in answer.items()} == dict.fromkeys(("sum", "pair_0", "pair_1"), (5, 3))


def test_a_free_sequence_is_free_in_the_specs() -> None:
    assert str(read(f"{NETS}:encoder", "ids=n,t:int64").inputs[0]) == "ids: int64[?, ?]"


@pytest.mark.parametrize(
    ("factory", "shapes", "says"),
    [
        ("small", [], "inputs of unknown size: x"),
        ("small", ["y=1x3"], "no such input: y"),
        ("small", ["x=1x4x8x8"], "does not run on inputs of 1x4x8x8"),
        ("encoder", ["ids=1x8"], "does not run on inputs of 1x8"),
        ("raising", [], "factory raised ValueError: no such thing and more of it (torch_nets.py:"),
        ("number", [], "returned int, not a torch.nn.Module"),
        ("absent", [], "absent"),
    ],
)
def test_what_a_user_can_get_wrong_is_said_in_one_line(factory: str, shapes: list[str], says: str) -> None:
    with pytest.raises(EdgeKitError) as caught:
        read(f"{NETS}:{factory}", *shapes)
    assert says in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_are_found_in_what_training_scripts_save(tmp_path: Path, nest: str | None, prefix: str) -> None:
    state = {f"{prefix}{name}": value + 1 for name, value in net("small").state_dict().items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "w.pth")
    model = read(f"{NETS}:small", "x=n,3,32,32", weights=tmp_path / "w.pth")
    loaded = model.forms["torch"].flat.module.state_dict()["last.bias"]
    assert torch.equal(loaded, state[f"{prefix}last.bias"])


def test_safetensors_are_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(net("small").state_dict(), tmp_path / "w.safetensors")
    read(f"{NETS}:small", "x=n,3,32,32", weights=tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:50])
    with pytest.raises(EdgeKitError, match="does not read as safetensors"):
        read(f"{NETS}:small", "x=n,3,32,32", weights=tmp_path / "w.safetensors")


def test_weights_that_do_not_fit_are_told_apart(tmp_path: Path) -> None:
    state = net("small").state_dict()
    state["last.bias"] = torch.zeros(7)
    state["more"] = state.pop("deep.bias")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(EdgeKitError) as caught:
        read(f"{NETS}:small", "x=n,3,32,32", weights=tmp_path / "w.pth")
    for words in ("1 missing (deep.bias)", "1 unexpected (more)", "last.bias is 7, not 5"):
        assert words in caught.value.what


def test_the_fingerprint_knows_weights_and_every_file_of_the_code(tmp_path: Path) -> None:
    (tmp_path / "layers.py").write_text("WIDTH = 4\n")
    (tmp_path / "made.py").write_text(
        "import torch\nfrom layers import WIDTH\ndef make():\n    return torch.nn.Linear(3, WIDTH)\n"
    )
    where = origin(tmp_path / "made.py:make", "input=n,3")
    first = sources.fingerprint(where)
    assert sources.fingerprint(where) == first
    (tmp_path / "layers.py").write_text("WIDTH = 4  # the same\n")
    second = sources.fingerprint(where)
    assert second != first
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "w.pth")
    weighed = Origin(where.model, tmp_path / "w.pth", where.shapes)
    third = sources.fingerprint(weighed)
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "w.pth")
    assert len({second, third, sources.fingerprint(weighed)}) == 3


def test_an_exported_program_brings_its_own_shapes(exported: Path) -> None:
    model = read(exported)
    assert str(model.inputs[0]) == "ids: int64[?, ?]"
    assert str(model.outputs[0]) == "output: float32[?, 3]"
    assert model.axes["ids"][0] == "batch"
    assert model.run({"ids": np.ones((3, 9), np.int64)})["output"].shape == (3, 3)
    fixed = read(exported, "ids=batch,12")
    assert str(fixed.inputs[0]) == "ids: int64[?, 12]"
    with pytest.raises(EdgeKitError, match="does not fit"):
        read(exported, "ids=1x2x3")


def test_an_exported_program_is_known_under_any_name(exported: Path) -> None:
    assert read(exported.rename(exported.with_suffix(".pt"))).kind == "torch"


def test_an_exported_program_with_a_pickle_inside_is_refused_and_not_opened(exported: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "exploded"
    torch.save(Bomb(bomb), tmp_path / "bomb")
    repacked(exported, {"sample_inputs/model.pt": (tmp_path / "bomb").read_bytes()})
    with pytest.raises(EdgeKitError, match="more than tensors"):
        read(exported)
    assert not bomb.exists()


@pytest.mark.parametrize(
    "name", ["data/constants/opaque_obj_0", "data/constants/custom_obj_0", "data/weights/model.pt"]
)
def test_pickled_objects_in_an_exported_program_are_refused(exported: Path, tmp_path: Path, name: str) -> None:
    repacked(exported, {}, {name: pickle.dumps(Bomb(tmp_path / "exploded"))})
    with pytest.raises(EdgeKitError, match="pickled objects"):
        read(exported)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("expr_str", "__import__('os').system('true')"),
        ("expr_str", "Symbol('s0').__class__"),
        ("target", "torch.hub.load"),
        ("target", "torch.ops.aten.from_file.default"),
    ],
)
def test_code_in_the_graph_of_an_exported_program_is_refused(exported: Path, key: str, text: str) -> None:
    from edgekit.sources.exported_safety import refuse_code

    with zipfile.ZipFile(exported) as archive:
        graph = json.loads(
            archive.read(next(name for name in archive.namelist() if name.endswith("models/model.json")))
        )
    refuse_code(exported)
    repacked(exported, {"models/model.json": json.dumps({**graph, "more": {key: text}}).encode()})
    with pytest.raises(EdgeKitError, match="refused"):
        refuse_code(exported)


def test_torchscript_is_read_with_the_shapes_that_it_lacks(tmp_path: Path) -> None:
    torch.jit.script(net("small")).save(tmp_path / "m.pt")
    model = read(tmp_path / "m.pt", "x=n,3,32,32")
    assert str(model.outputs[0]) == "output: float32[?, 5]"
    with pytest.raises(EdgeKitError, match="unknown size: x"):
        read(tmp_path / "m.pt")


@pytest.mark.parametrize("new", [True, False])
def test_a_pickled_model_is_refused_and_not_opened(tmp_path: Path, new: bool) -> None:
    bomb = tmp_path / "exploded"
    torch.save({"model": Bomb(bomb)}, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
    for refused in (
        lambda: read(tmp_path / "m.pt"),
        lambda: read(f"{NETS}:small", "x=n,3,32,32", weights=tmp_path / "m.pt"),
    ):
        with pytest.raises(EdgeKitError, match="pickled model"):
            refused()
    assert not bomb.exists()


@pytest.mark.parametrize("new", [True, False])
def test_weights_alone_are_told_to_bring_their_code(tmp_path: Path, new: bool) -> None:
    torch.save(net("small").state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(EdgeKitError, match="weights without a model") as caught:
        read(tmp_path / "w.pth")
    assert "--weights" in caught.value.hint


def test_torchscript_named_as_an_exported_program_is_told_to_be_renamed(tmp_path: Path) -> None:
    torch.jit.script(net("small")).save(tmp_path / "m.pt2")
    with pytest.raises(EdgeKitError, match="holds TorchScript") as caught:
        read(tmp_path / "m.pt2")
    assert caught.value.hint == "rename it to m.pt"


@pytest.mark.parametrize(("file", "says"), [("w.safetensors", "--weights"), ("net.py", "net.py:"), ("m.pb", "folder")])
def test_half_of_a_model_says_what_the_other_half_is(tmp_path: Path, file: str, says: str) -> None:
    (tmp_path / file).write_bytes(b"half")
    with pytest.raises(EdgeKitError, match="is not a model") as caught:
        read(tmp_path / file)
    assert says in caught.value.hint


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pt2", ".ts"])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, program: bytes, suffix: str, part: float) -> None:
    path = tmp_path / f"m{suffix}"
    if suffix == ".pt2":
        path.write_bytes(program)
    else:
        torch.jit.script(net("small")).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(EdgeKitError) as caught:
        read(path)
    assert "\n" not in caught.value.what
