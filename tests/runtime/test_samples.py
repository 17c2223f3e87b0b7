"""What is kept of what was seen: the right samples, within the bound, whole after any end, and fit for a build."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.errors import BadRequest, EdgeKitError, NotFound
from edgekit_runtime.families import text
from edgekit_runtime.preprocess import Photo, Text
from edgekit_runtime.samples import Candidate, Samples
from edgekit_runtime.samples.packing import pack, unpack
from edgekit_runtime.samples.shelves import REASONS, Kept, Shelves
from edgekit_runtime.tensors import TensorSpec
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekit.data import open_data
from edgekit.dataset import Wanted

X = TensorSpec("x", "float32", (None, 3))
ROOM = 12_288
"""What a small sample takes on disk."""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where that can be had: each sample waits for the disk, and the disk may be everybody's."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def sample(i: int, confidence: float | None = 0.5, drift: float | None = 1.0, **more: object) -> Candidate:
    """A sample of three numbers, all different."""
    said: dict[str, object] = {
        "model": "m", "version": "1", "id": f"id-{i}", "when_ms": 1_000 * i,
        "feeds": {"x": np.array([[i, i + 0.5, -i]], np.float32)}, "source": None, "kind": "",
        "outputs": {"y": np.array([[0.25, 0.75]], np.float32)}, "label": "dog",
    }  # fmt: skip
    return Candidate(**(said | more), confidence=confidence, drift=drift)  # type: ignore[arg-type]


def photo(seed: int, form: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(held, form)
    return held.getvalue()


def used(folder: Path) -> int:
    """Bytes that the disk gives to a folder."""
    return sum(path.lstat().st_blocks * 512 for path in [folder, *folder.rglob("*")])


def kept(store: Samples) -> dict[str, dict]:
    return {one["id"]: one for one in store.index()["samples"]}


def unpacked(store: Samples, folder: Path, *asked: object) -> dict:
    """A part of the export, unpacked; what samples.json says."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(store.export(*asked)))) as tar:
        tar.extractall(folder, filter="data")
    return json.loads((folder / "samples.json").read_text())


def filled(folder: Path, count: int = 200, limit: int = 40 * ROOM) -> Samples:
    """A store that saw more than it may keep: the stranger the higher the number, least sure in the middle."""
    store = Samples(folder, limit)
    for i in np.random.default_rng(0).permutation(count).tolist():
        store.consider(sample(i, confidence=abs(i - count / 2 + 0.25) / count, drift=float(i)))
    return store


def test_the_least_confident_and_the_most_drifted_are_kept_and_some_of_the_rest(tmp_path):
    found = kept(filled(tmp_path / "s", 150))
    assert {f"id-{i}" for i in range(71, 80)} <= found.keys()
    assert {f"id-{i}" for i in range(140, 150)} <= found.keys()
    by = {reason: [one for one in found.values() if reason in one["why"]] for reason in REASONS}
    assert all(len(ones) >= 11 for ones in by.values()), {reason: len(ones) for reason, ones in by.items()}
    assert max(one["confidence"] for one in by["confidence"]) <= min(
        abs(i - 74.75) / 150 for i in range(150) if f"id-{i}" not in found
    )


def test_the_bound_is_held_on_disk_and_no_room_is_left_unused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk") / "s"
    store = filled(folder, 60)
    assert used(folder) <= 40 * ROOM
    assert 36 * ROOM <= store.held.bytes <= 40 * ROOM
    assert store.held.bytes >= sum(used(path) for path in folder.iterdir() if path.is_dir())


def test_large_and_small_samples_never_exceed_the_bound(tmp_path):
    store, chance = Samples(tmp_path / "s", 600_000), np.random.default_rng(1)
    for i in range(150):
        feeds = {"x": np.full((1, int(chance.integers(1, 40_000))), i, np.float32)}
        store.consider(sample(i, float(chance.random()), float(chance.random()), feeds=feeds))
        assert used(tmp_path / "s") <= 600_000
        for id in list(kept(store))[:1]:
            store.told("m", id, "é" * 200, 1)
            assert used(tmp_path / "s") <= 600_000
    assert store.held.bytes > 300_000


def test_a_drift_that_grows_and_grows_does_not_wear_out_the_disk(tmp_path):
    store, names = Samples(tmp_path / "s", 20 * ROOM), set()
    for i in range(400):
        store.consider(sample(i, None, float(i)))
        names |= {path.name for path in (tmp_path / "s").iterdir() if path.is_dir()}
    assert len(names) <= 4 * 20 + 1
    assert store.held.dropped["writes"] > 200
    store._since -= 86_400
    store.consider(sample(1_000, None, 1_000.0))
    assert "id-1000" in kept(store)


def test_without_confidence_and_drift_all_room_is_for_the_random_sample(tmp_path):
    store = Samples(tmp_path / "s", 30 * ROOM)
    for i in range(100):
        store.consider(sample(i, None, None))
    assert store.held.kept["m"] >= 27
    assert {tuple(one["why"]) for one in kept(store).values()} == {("random",)}


def test_a_second_model_gets_its_share_of_a_full_store(tmp_path):
    store = filled(tmp_path / "s")
    for i in range(100):
        store.consider(sample(i, None, float(i), model="other"))
    assert store.held.kept["other"] >= 12
    assert store.held.kept["m"] >= 18
    assert used(tmp_path / "s") <= 40 * ROOM


def test_what_is_not_worth_it_costs_little(tmp_path):
    store = filled(tmp_path / "s")
    dull, spent = sample(5_000, confidence=0.49, drift=0.0), []
    for _ in range(2_000):
        start = time.perf_counter_ns()
        store.consider(dull)
        spent.append(time.perf_counter_ns() - start)
    assert sorted(spent)[len(spent) // 4] < 20_000


def test_the_random_sample_is_uniform_whatever_the_sizes_are():
    chance, early, large, total = np.random.default_rng(0), 0, 0, 0
    for _ in range(60):
        shelves = Shelves(50_000)
        for i in range(400):
            offer(shelves, f"{i}", (None, None, -float(chance.random())), 2_000 if i % 4 else 300)
        rows = [int(one.name) for one in shelves.kept.values()]
        total += len(rows)
        early += sum(i < 200 for i in rows)
        large += sum(i % 4 != 0 for i in rows)
    spread = (0.25 / total) ** 0.5
    assert abs(early / total - 0.5) < 4 * spread
    assert abs(large / total - 0.75) < 4 * spread


def offer(shelves: Shelves, name: str, worths: tuple, size: int, model: str = "m") -> None:
    """As the store does, without a disk."""
    weight = shelves.weight(size)
    wanted = shelves.wanted(model, worths, weight)
    strips = shelves.plan(weight, {(model, r): worths[REASONS.index(r)] for r in wanted}) if wanted else None
    if strips is None:
        return
    for one, reason in strips:
        shelves.strip(one, reason)
    shelves.put(Kept(name, model, "1", name, 0, "", "tensors.npz", size, worths))


some = st.one_of(st.none(), st.floats(-2, 2))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), some, some, st.floats(-1, 0), st.integers(1, 4_000)), max_size=50))
def test_shelves_hold_what_is_above_their_floor_and_no_more_than_their_limit(offers):
    shelves, seen = Shelves(10_000), {}
    for number, (model, sure, strange, draw, size) in enumerate(offers):
        offer(shelves, str(number), (sure, strange, draw), size, model)
        seen[str(number)] = (model, (sure, strange, draw), size)
        assert shelves.total == sum(shelves.weight(one.size) for one in shelves.kept.values()) <= 10_000
        for (model_of, reason), shelf in shelves._named().items():
            assert shelf.rows == sorted(shelf.rows)
            assert {name for _, name in shelf.rows} == {
                one.name for one in shelves.kept.values() if one.model == model_of and reason in one.why
            }
            assert shelf.used == sum(shelves.weight(shelves.kept[name].size) for _, name in shelf.rows)
            assert all(row > shelf.floor for row in shelf.rows)
        assert all(one.why for one in shelves.kept.values())


def test_a_store_that_is_opened_again_goes_on_with_what_it_kept(tmp_path):
    before = kept(filled(tmp_path / "s"))
    store = Samples(tmp_path / "s", 40 * ROOM)
    assert kept(store) == before
    store.consider(sample(500, confidence=0.4, drift=1.0))
    assert sum("confidence" in one["why"] for id, one in kept(store).items() if id == "id-500") == 0


def test_samples_that_are_worth_the_same_outlive_a_restart(tmp_path):
    store = Samples(tmp_path / "s", 20 * ROOM)
    for i in range(100):
        store.consider(sample(i, confidence=1.0, drift=0.0))
    assert kept(Samples(tmp_path / "s", 20 * ROOM)).keys() == kept(store).keys()
    assert store.held.kept["m"] >= 15


def test_a_lower_limit_is_held_from_the_start(tmp_path):
    filled(tmp_path / "s")
    store = Samples(tmp_path / "s", 10 * ROOM)
    assert used(tmp_path / "s") <= 10 * ROOM
    assert "id-100" in kept(store)


@pytest.mark.slow
def test_a_store_that_is_killed_at_any_time_opens_whole(tmp_path):
    code = (
        "import sys, itertools; from pathlib import Path; from tests.runtime.test_samples import Samples, sample\n"
        "import edgekit_runtime.samples.store as store_module; store_module.AT_FIRST = 10**9\n"
        "store = Samples(Path(sys.argv[1]), 200_000); print('ready', flush=True)\n"
        "for i in itertools.count(int(sys.argv[2])):\n"
        "    store.consider(sample(i, 1 / (i + 1), float(i))); store.told('m', f'id-{i}', 'cat', 0)\n"
    )
    litter, turn, chance = 0, 0, np.random.default_rng(0)
    while turn < 8 or (not litter and turn < 80):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "s"), str(turn * 100_000)],
            stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(float(chance.uniform(0.05, 0.3)))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        litter += len(list((tmp_path / "s").rglob(".new-*")) + list((tmp_path / "s").rglob(".old-*")))
        store = Samples(tmp_path / "s", 200_000)
        assert used(tmp_path / "s") <= 200_000
        assert not list((tmp_path / "s").rglob(".*"))
        assert store._aside == {}
        assert len(unpacked(store, tmp_path / f"out{turn}")["samples"]) == store.held.kept["m"] > 0
        turn += 1
    assert litter, "no kill met a write: the test proves nothing"


def test_a_write_that_fails_is_dropped_counted_and_leaves_nothing_behind(tmp_path):
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from tests.runtime.test_samples import Samples, sample, np\n"
        "store = Samples(Path(sys.argv[1]), 10_000_000)\n"
        "store.consider(sample(1)); resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))\n"
        "store.consider(sample(2, feeds={'x': np.zeros((1, 3000), np.float32)}))\n"
        "store.consider(sample(3)); print(store.held.kept, store.held.dropped['disk'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "{'m': 1} 2\n", done.stderr
    assert len(list((tmp_path / "s").iterdir())) == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2_000


@pytest.mark.slow
def test_a_full_disk_costs_samples_and_never_what_is_kept(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tests.runtime.test_samples import Samples, sample\n"
        "import edgekit_runtime.samples.store as store_module; store_module.PAUSE_SECONDS = 0.0\n"
        "store = Samples(Path(sys.argv[1]), 10_000_000)\n"
        "for i in range(100): store.consider(sample(i, i / 100))\n"
        "(Path(sys.argv[1]) / 'x').write_bytes(b'')\n"
        "again = Samples(Path(sys.argv[1]), 10_000_000)\n"
        "print(store.held.kept == again.held.kept, store.held.kept['m'], store.held.dropped['disk'])\n"
    )
    mount = f"mount -t tmpfs -o size=400k none {tmp_path} && exec {sys.executable} -c '{code.replace(chr(39), chr(34))}' {tmp_path}/s"  # noqa: E501
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no file system may be mounted here")
    same, count, dropped = done.stdout.split()
    assert same == "True", done.stderr
    assert int(count) + int(dropped) == 100
    assert int(count) > 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda one: (one / "facts.json").write_text("{"),
        lambda one: (one / "facts.json").write_text("[" * 60_000),
        lambda one: (one / "facts.json").unlink(),
        lambda one: (one / "tensors.npz").unlink(),
        lambda one: (one / "tensors.npz").write_bytes(b""),
        lambda one: (one / "facts.json").write_text((one / "facts.json").read_text().replace("tensors.npz", "../x")),
        lambda one: (one / "facts.json").write_text((one / "facts.json").read_text().replace('"dog"', "7")),
    ],
)
def test_a_damaged_sample_is_left_aside(tmp_path, damage):
    store = Samples(tmp_path / "s", 10 * ROOM)
    for i in range(3):
        store.consider(sample(i))
    damage(next(path for path in (tmp_path / "s").iterdir() if path.is_dir()))
    store = Samples(tmp_path / "s", 10 * ROOM)
    assert store.held.kept == {"m": 2}
    assert len(list((tmp_path / "s").iterdir())) == 3
    for i in range(3, 30):
        store.consider(sample(i, 0.1 / i))
        assert used(tmp_path / "s") <= 10 * ROOM
    assert not store._aside


def test_damaged_tensors_are_left_out_of_the_export(tmp_path):
    store = Samples(tmp_path / "s", 10 * ROOM)
    store.consider(sample(1))
    store.consider(sample(2))
    victim = next(path for path in (tmp_path / "s").rglob("tensors.npz"))
    victim.write_bytes(victim.read_bytes()[:-40])
    assert len(unpacked(store, tmp_path / "out")["samples"]) == 1


def test_floors_that_do_not_read_are_begun_anew(tmp_path):
    before = filled(tmp_path / "s").held.kept
    for nonsense in (b"{", b"[1]", b'{"m":3}', b'{"m":{"drift":"x"}}', b'{"m":{"drift":[{},1]}}'):
        (tmp_path / "s" / "floors.json").write_bytes(nonsense)
        assert Samples(tmp_path / "s", 40 * ROOM).held.kept == before


def test_the_same_content_is_kept_once_and_known_by_its_newest_id(tmp_path):
    store = Samples(tmp_path / "s", 10 * ROOM)
    store.consider(sample(1))
    store.consider(sample(1, id="again"))
    assert list(kept(store)) == ["again"]
    assert store.told("m", "again", "cat", 0)
    assert not store.told("m", "id-1", "cat", 0)


def test_an_id_never_becomes_a_path(tmp_path):
    store = Samples(tmp_path / "deep" / "s", 10 * ROOM)
    for id in ("../../x", "/etc/passwd", "a\0b", "é" * 5_000, "\ud800"):
        store.consider(sample(hash(id) % 1_000, id=id))
    paths = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert all(path.startswith("deep/s/") and path.split("/")[-1] in ("tensors.npz", "facts.json") for path in paths)
    again = Samples(tmp_path / "deep" / "s", 10 * ROOM)
    assert kept(again) == kept(store)
    assert max(map(len, kept(again))) == 256
    assert len(unpacked(again, tmp_path / "out")["samples"]) == 5


def test_nobody_else_may_look_into_the_folder(tmp_path):
    (tmp_path / "s").mkdir(mode=0o755)
    Samples(tmp_path / "s", 10 * ROOM).consider(sample(1))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "s").rglob("*"))


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "s").write_text("")
    with pytest.raises(EdgeKitError, match="cannot hold samples"):
        Samples(tmp_path / "s", 10 * ROOM)


def test_files_of_others_in_the_folder_are_not_touched(tmp_path):
    (tmp_path / "s" / "mine").mkdir(parents=True)
    (tmp_path / "s" / "note.txt").write_text("mine")
    filled(tmp_path / "s")
    assert (tmp_path / "s" / "note.txt").read_text() == "mine"
    assert (tmp_path / "s" / "mine").is_dir()


def test_what_is_larger_than_a_share_is_counted_and_not_kept(tmp_path):
    store = Samples(tmp_path / "s", 10 * ROOM)
    store.consider(sample(1, feeds={"x": np.zeros((1, 50_000), np.float32)}))
    assert (store.held.kept, store.held.dropped["too_large"]) == ({}, 1)


def test_what_is_neither_a_source_nor_numbers_is_counted_and_not_kept(tmp_path):
    store = Samples(tmp_path / "s", 10 * ROOM)
    store.consider(sample(1, feeds={}, source=b"no photo", kind="image"))
    assert (store.held.kept, store.held.dropped["unreadable"]) == ({}, 1)


def test_a_confidence_that_is_no_number_is_the_least(tmp_path):
    store = Samples(tmp_path / "s", 10 * ROOM)
    for i in range(40):
        store.consider(sample(i, confidence=float("nan") if i == 7 else 0.5 + i / 100, drift=float("nan")))
    assert kept(store)["id-7"]["confidence"] == 0.0
    assert kept(store)["id-7"]["drift"] is None


def test_facts_tell_the_best_classes_and_nothing_that_is_no_json(tmp_path):
    store = Samples(tmp_path / "s", 10 * ROOM)
    outputs = {"y": np.array([[0.1, np.nan, 0.9, np.inf]], np.float32), "words": np.array(["a"], object)}
    store.consider(sample(1, outputs=outputs))
    told = json.loads(next((tmp_path / "s").rglob("facts.json")).read_text(), parse_constant=pytest.fail)
    assert told["outputs"]["y"] == {"shape": [1, 4], "top": [[2, 0.9], [0, 0.1]]}
    assert told["outputs"]["words"] == {"shape": [1], "top": []}


def test_labelled_photos_are_a_dataset_that_a_build_takes(tmp_path):
    store = Samples(tmp_path / "s", 100 * ROOM)
    for i in range(9):
        source = photo(i, ("PNG", "JPEG", "BMP")[i % 3])
        store.consider(sample(i, source=source, kind="image"))
    for i in range(6):
        assert store.told("m", f"id-{i}", ("cat", "dog")[i % 2], i % 2)
    told = unpacked(store, tmp_path / "out")
    wanted = Wanted((TensorSpec("x", "float32", (None, 3, 8, 8)),), 2, ("cat", "dog"), Photo(input="x"))
    data = open_data(str(tmp_path / "out" / "labelled"), wanted)
    by_file = {one["file"]: one for one in told["samples"]}
    assert [by_file[f"labelled/{path.name}"]["label"] for path in data.files] == [
        ("cat", "dog")[i] for i in data.labels
    ]
    assert len(data) == 6
    assert len(open_data(str(tmp_path / "out" / "unlabelled"), wanted)) == 3
    for one in by_file.values():
        i = int(one["id"].removeprefix("id-"))
        assert (tmp_path / "out" / one["file"]).read_bytes() == photo(i, ("PNG", "JPEG", "BMP")[i % 3])
        assert one["file"].endswith(("png", "jpg", "bmp")[i % 3])
    assert (told["schema"], told["model"], told["version"], told["next"]) == (1, "m", "1", None)


def test_labelled_texts_are_a_dataset_that_a_build_takes(tmp_path):
    store = Samples(tmp_path / "s", 100 * ROOM)
    words = ['good, "so" good\n', "bad", "ü"]
    for i, said in enumerate(words):
        store.consider(sample(i, source=said.encode(), kind="text"))
        store.told("m", f"id-{i}", ("yes, it is", 'no "never"', "yes, it is")[i], i % 2)
    unpacked(store, tmp_path / "out")
    names = ("yes, it is", 'no "never"')
    wanted = Wanted((TensorSpec("t", "int64", (None, None)),), 2, names, Text(input="t", tokenizer="bytes"))
    data = open_data(str(tmp_path / "out" / "labelled"), wanted)
    found = {path.read_text(): names[label] for path, label in zip(data.files, data.labels, strict=True)}
    assert found == {words[0]: names[0], words[1]: names[1], words[2]: names[0]}


def test_labelled_tensors_are_a_dataset_that_a_build_takes(tmp_path):
    store = Samples(tmp_path / "s", 100 * ROOM)
    for i in range(12):
        store.consider(sample(i))
    for i in range(8):
        store.told("m", f"id-{i}", ("cat", "dog")[i % 2], i % 2)
    store.told("m", "id-8", "what", None)
    told = unpacked(store, tmp_path / "out")
    data = open_data(str(tmp_path / "out" / "labelled" / "tensors.npz"), Wanted((X,), 2))
    assert len(data) == 8
    for one in told["samples"]:
        if one["file"] == "labelled/tensors.npz":
            i = int(one["id"].removeprefix("id-"))
            assert data.feeds(one["row"])["x"].tolist() == [[i, i + 0.5, -i]]
            assert data.labels[one["row"]] == i % 2
    assert len(open_data(str(tmp_path / "out" / "unlabelled" / "tensors.npz"), Wanted((X,), 2))) == 4
    assert next(one for one in told["samples"] if one["id"] == "id-8")["label"] == "what"


def test_tensors_of_other_shapes_and_those_that_are_no_numbers_lie_apart(tmp_path):
    store = Samples(tmp_path / "s", 100 * ROOM)
    for i in range(3):
        store.consider(sample(i))
    store.consider(sample(10, feeds={"x": np.ones((2, 3), np.float32)}))
    store.consider(sample(11, feeds={"x": np.full((1, 3), np.nan, np.float32)}))
    store.consider(sample(12, feeds={"x": np.array([["word"]], object)}))
    unpacked(store, tmp_path / "out")
    shapes = {path.name: np.load(path)["x"].shape for path in (tmp_path / "out" / "unlabelled").iterdir()}
    assert shapes.pop("tensors.npz") == (3, 3)
    assert shapes.pop("not-finite.npz") == (1, 3)
    assert sorted(shapes.values()) == [(1, 1), (1, 2, 3)]


def test_an_export_in_parts_holds_every_sample_once(tmp_path):
    store = Samples(tmp_path / "s", 100 * ROOM)
    for i in range(10):
        store.consider(sample(i, source=photo(i), kind="image"))
    found, after, parts = [], "", 0
    while after is not None:
        told = unpacked(store, tmp_path / f"part{parts}", "m", None, after, 3 * ROOM)
        found += [one["id"] for one in told["samples"]]
        after, parts = told["next"], parts + 1
    assert (parts, sorted(found)) == (4, sorted(f"id-{i}" for i in range(10)))


def test_an_export_is_the_same_twice(tmp_path):
    store = filled(tmp_path / "s", 20)
    assert b"".join(store.export()) == b"".join(store.export())


def test_an_export_goes_on_where_samples_go_meanwhile(tmp_path):
    store = filled(tmp_path / "s")
    pieces = store.export()
    filled(tmp_path / "s", 400)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        told = json.loads(tar.extractfile("samples.json").read())
    assert 0 < len(told["samples"]) <= 40


def test_an_export_is_of_one_model(tmp_path):
    store = Samples(tmp_path / "s", 100 * ROOM)
    with pytest.raises(NotFound, match="no samples are kept yet"):
        store.export()
    for i, model in enumerate("aab"):
        store.consider(sample(i, model=model, version=str(i)))
    with pytest.raises(BadRequest, match="several models"):
        store.export()
    with pytest.raises(NotFound):
        store.export("c")
    with pytest.raises(NotFound):
        store.export("a", "7")
    assert unpacked(store, tmp_path / "1", "a")["version"] is None
    assert [one["id"] for one in unpacked(store, tmp_path / "2", "a", "1")["samples"]] == ["id-1"]


def test_a_label_that_comes_before_its_sample_waits_for_it(tmp_path):
    store = Samples(tmp_path / "s", 100 * ROOM)
    assert not store.told("m", "id-1", "cat", 0)
    store.consider(sample(1))
    assert kept(Samples(tmp_path / "s", 100 * ROOM))["id-1"]["label"] == "cat"
    for i in range(5_000):
        store.told("m", f"never-{i}", "cat", 0)
    assert len(store._early) == 1_000


def test_a_label_outlives_a_restart_and_can_be_changed(tmp_path):
    store = Samples(tmp_path / "s", 100 * ROOM)
    store.consider(sample(1))
    for label, index in (("cat", 0), ("dog", 1)):
        assert store.told("m", "id-1", label, index)
        store = Samples(tmp_path / "s", 100 * ROOM)
        assert kept(store)["id-1"]["label"] == label


def test_metrics_tell_what_is_kept_and_dropped(tmp_path):
    store = Samples(tmp_path / "s", 100 * ROOM)
    store.consider(sample(1))
    told = text(store.families())
    assert 'edgekit_samples_kept{model="m"} 1\n' in told
    assert f"edgekit_samples_bytes {ROOM}\n" in told
    assert 'edgekit_samples_dropped_total{reason="disk"} 0\n' in told


@given(st.integers(1, 4), st.sampled_from(["float32", "int64", "uint8", "bool", "float16"]), st.integers(0, 3))
def test_packed_arrays_come_back(count, dtype, width):
    pieces = [np.arange(width).reshape(1, width).astype(dtype) + np.array(i).astype(dtype) for i in range(count)]
    found = unpack(pack({"a/b": pieces, "file": pieces}))
    assert np.array_equal(found["a/b"], np.concatenate(pieces))
    assert found["file"].dtype == np.dtype(dtype)
