"""Right on the device, not only on the builder: quality scored on the target's emulated instruction set, real models.

Refuses the builder's word where an emulator is there, and silence where none is. The emulators are fetched first."""

from pathlib import Path
from typing import Any

import pytest
from edgekit_runtime.bundle import open_bundle

from edgekit.places.cores import CORES
from edgekit.places.emulated import find_core
from edgekit.places.roots import home
from tests import tiny, zoo
from tests.commands import Done, edgekit

pytestmark = pytest.mark.slow

PROFILE = Path(__file__).parents[1] / "targets" / "x86-64-v3.toml"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fetched(core: str, engine: str = "onnx") -> None:
    """The emulated core, by the command that the hint names; skipped where this machine cannot have it."""
    done = edgekit("emulators", "add", core, "--quiet")
    if "there is no" in done.err or "no Debian source" in done.err:
        pytest.skip(done.err)
    assert done.code == 0, done.err
    assert not hasattr(find_core(CORES[core], engine), "hint")


def efficientnet(desk: Path, *words: object) -> Done:
    it = zoo.efficientnet_lite0()
    photos = desk / "photos"
    photos.mkdir()
    for photo in sorted(it.photos.evaluation.iterdir())[::2]:
        (photos / photo.name).symlink_to(photo)
    return edgekit(
        "build", it.factory, "--weights", it.weights, "--preprocess", it.preprocess, "--data", photos,
        "--calibration", it.photos.calibration, "--metric", "cosine", "--precision", "int8", "--smaller",
        "--cache", desk / "cache", "--out", "b", "--json", *words,
    )  # fmt: skip


def unwarned(desk: Path) -> Path:
    """x86-64-v3 as somebody might write it who does not know that its 8-bit multiply-add saturates."""
    lines = PROFILE.read_text().splitlines()
    own = {"name = ": 'name = "mine"', "saturates = [": "saturates = []"}
    kept = [next((new for old, new in own.items() if line.startswith(old)), line) for line in lines]
    (desk / "mine.toml").write_text("\n".join(kept))
    return desk / "mine.toml"


def test_what_avx2_loses_is_caught_and_avoided(desk: Path) -> None:
    """The same 8-bit file answers worse on Haswell than here; the one with 7-bit weights answers there as here."""
    fetched("Haswell")
    done = efficientnet(desk, "--target", unwarned(desk), "--format", "onnx", "--max-drop", "3.5%")
    (facts,) = done.json()
    assert done.code == 0, done.err
    tried: list[dict[str, Any]] = facts["candidates"]
    scored = {one["recipe"]: one["scored_on"][0] for one in tried if one["scored_on"]}
    caught = [one for one in tried if one["verdict"] == "missed" and one["scored_on"]]
    assert caught, [(one["title"], one["why"]) for one in tried]
    assert caught[0]["why"].startswith("answers worse on Haswell")
    assert caught[0]["scored_on"][0]["worse"]
    (chosen,) = (one for one in tried if one["chosen"])
    assert "7-bit weights" in chosen["recipe"]
    there = chosen["scored_on"][0]
    assert there["where"] == "Haswell, emulated"
    for recipe, one in scored.items():
        print(f"{recipe or 'plain'}: {one['words']}; cosine there {one['value']:.3f}, n = {one['n']}")  # noqa: T201
    for one in tried:
        here = one["quality"] and one["quality"]["value"]
        print(f"{one['title']}: cosine here {here}: {one['why']}")  # noqa: T201
    worse, better = caught[0], chosen
    assert worse["scored_on"][0]["value"] < worse["quality"]["value"] - 0.01
    assert there["value"] == pytest.approx(better["quality"]["value"], abs=0.01)
    assert there["value"] > worse["scored_on"][0]["value"]
    assert there["worst"] <= 0.01
    assert open_bundle(desk / "b").manifest.evidence["scored_on"] == chosen["scored_on"]


def test_a_raspberry_pi_4_is_scored_on_its_own_core(desk: Path) -> None:
    fetched("cortex-a72")
    done = efficientnet(desk, "--target", "rpi4", "--format", "tflite", "--max-drop", "10%")
    assert done.code == 0, done.err
    (one,) = open_bundle(desk / "b").manifest.evidence["scored_on"]
    assert one["where"] == "cortex-a72, emulated"
    assert one["n"] >= 16
    assert not one["worse"]
    assert one["value"] > 0.9
    assert "cortex-a72" in (desk / "b" / "report.html").read_text()


@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_an_old_32_bit_board_gets_what_its_engine_answers_rightly(desk: Path, precision: str) -> None:
    """A dense layer with a scale for each row it would answer with the bias alone, and say nothing."""
    fetched("cortex-a7", "tflite")
    model, data = tiny.write_model(desk), tiny.write_digits(desk)
    order = ("build", model, "--target", "armv7", "--data", data, "--precision", precision, "--max-drop", "2pt")
    done = edgekit(*order, "--cache", desk / "cache", "--out", "b")
    assert done.code == 0, done.err
    manifest = open_bundle(desk / "b").manifest
    (there,) = manifest.evidence["scored_on"]
    assert there["where"] == "cortex-a7, emulated"
    assert there["value"] > 0.9
    assert manifest.golden is not None
    assert manifest.golden.tolerance == pytest.approx(min(max(0.02, 2 * there["worst"]), 0.2), abs=1e-4)
    seen = edgekit("verify", "b", "--on", "armv7", "--json")
    assert seen.code == 0, seen.out + seen.err


def test_the_emulators_are_found_whatever_cache_keeps_the_steps(desk: Path) -> None:
    fetched("cortex-a72")
    model, data = tiny.write_model(desk), tiny.write_digits(desk)
    order = ("build", model, "--target", "rpi4", "--data", data, "--format", "onnx", "--precision", "int8")
    done = edgekit(*order, "--max-drop", "2pt", "--cache", desk / "cache", "--out", "b")
    assert done.code == 0, done.err
    assert [one["where"] for one in open_bundle(desk / "b").manifest.evidence["scored_on"]] == ["cortex-a72, emulated"]


def test_without_an_emulator_the_evidence_says_so_and_how_to_get_it(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("XDG_CACHE_HOME", "HOME", "PATH"):
        (desk / variable).mkdir()
        monkeypatch.setenv(variable, str(desk / variable))
    assert not home().exists()
    model, data = tiny.write_model(desk), tiny.write_digits(desk)
    order = ("build", model, "--target", "rpi4", "--data", data, "--format", "onnx", "--precision", "int8")
    done = edgekit(*order, "--max-drop", "2pt", "--out", "b")
    assert done.code == 0, done.err
    (one,) = open_bundle(desk / "b").manifest.evidence["scored_on"]
    assert one["words"].startswith("builder's instruction set only: cortex-a72 is not emulated")
    assert "edgekit emulators add cortex-a72" in one["words"]
    assert (one["n"], one["value"]) == (0, None)
    assert "builder's instruction set only" in done.out
    assert "edgekit emulators add cortex-a72" in done.out
