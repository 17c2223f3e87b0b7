"""A build for a device whose accelerator this machine lacks says so, and packs an exam that the device takes itself."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle, read_golden, write_golden
from edgekit_runtime.exam import read_exam
from edgekit_runtime.manifest import to_json
from edgekit_runtime.scored import score
from edgekit_runtime.tensors import TensorSpec

from edgekit import examining, sources
from edgekit.bundle import seal
from edgekit.cache import user_cache
from edgekit.job import open_job
from edgekit.keys import signing_key
from edgekit.ordering import Words, command_of, parse_order
from tests import tiny
from tests.commands import Done, edgekit
from tests.runtime.devices import runtime

pytestmark = pytest.mark.slow


def built(shelf: Path, *words: object, target: str = "nvidia-gpu") -> Done:
    return edgekit(
        "build", shelf / "digits.onnx", "--target", target, "--data", shelf / "digits.npz", "--out", "b",
        "--cache", shelf / "cache", *words,
    )  # fmt: skip


def facts_of(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    (facts,) = done.json()
    return dict(facts)


def test_a_gpu_build_here_says_that_it_was_proved_on_a_cpu_alone_and_packs_an_exam(shelf: Path, desk: Path) -> None:
    done = built(shelf, "--max-drop", "2pt")
    assert done.code == 0, done.err
    assert "proved on the CPU of this machine only: no cuda is used here" in done.out
    assert "an exam of 1,024 samples" in done.out
    bundle = open_bundle(desk / "b")
    exam = bundle.manifest.exam
    assert exam is not None
    assert (exam.n, exam.metric, exam.beside, exam.max_drop) == (1024, "top1", "source", 0.02)
    assert exam.file in bundle.manifest.files
    samples = list(read_exam(desk / "b" / exam.file, exam, [port.spec for port in bundle.manifest.inputs]))
    x, label = tiny.digits()
    known = {row.tobytes(): int(right) for row, right in zip(x, label, strict=True)}
    assert all(known[one.feeds["x"].tobytes()] == one.right for one in samples)
    assert len({one.feeds["x"].tobytes() for one in samples}) == 1024
    assert exam.reference == pytest.approx(np.mean([one.reference for one in samples]))
    assert bundle.manifest.files[exam.file].size < 60_000


def test_it_may_be_left_out_and_what_was_scored_here_brings_none_unless_asked(shelf: Path, desk: Path) -> None:
    assert facts_of(built(shelf, "--no-exam", "--json"))["exam"]["why"] == "it was not wanted (--no-exam)"
    assert "exam" not in to_json(open_bundle(desk / "b").manifest)
    assert not (desk / "b" / examining.FILE).exists()
    facts = facts_of(built(shelf, "--json", "--precision", "float32", target="x86-64-v2"))
    assert facts["exam"] == {"asked": False, "n": 0, "bytes": 0, "why": "this machine proved it (--exam)"}
    asked = facts_of(built(shelf, "--json", "--precision", "float32", "--exam", target="x86-64-v2"))
    assert asked["exam"]["n"] == 1024
    assert "--exam" in asked["command"].split()


def test_the_command_that_is_told_again_says_which() -> None:
    assert command_of(Words("m.onnx", ("rpi5",), exam=False)).endswith("--no-exam")
    assert command_of(Words("m.onnx", ("rpi5",), exam=True)).endswith("--exam")
    assert "exam" not in command_of(Words("m.onnx", ("rpi5",)))


def test_without_data_it_says_why_there_is_none(shelf: Path, desk: Path) -> None:
    done = edgekit(
        "build", shelf / "digits.onnx", "--target", "nvidia-gpu", "--out", "b", "--cache", shelf / "cache"
    )  # fmt: skip
    assert "no exam is packed: there was no evaluation data (--data)" in done.out, done.err


def test_without_a_budget_the_device_is_held_against_this_machine(shelf: Path, desk: Path) -> None:
    facts_of(built(shelf, "--json"))
    exam = open_bundle(desk / "b").manifest.exam
    assert exam is not None
    assert (exam.beside, exam.max_drop) == ("build", 0.01)
    assert exam.reference == exam.built


def test_a_metric_of_the_users_own_becomes_agreement_with_the_source(shelf: Path, desk: Path) -> None:
    (desk / "mine.py").write_text("def score(outputs, labels):\n    return [1.0] * len(outputs)\n")
    facts_of(built(shelf, "--json", "--metric", "mine:score", "--max-drop", "2pt"))
    exam = open_bundle(desk / "b").manifest.exam
    assert exam is not None
    assert (exam.metric, exam.beside, exam.max_drop) == ("agreement", "build", 0.01)


@pytest.mark.parametrize("metric", ["cosine", "mae", "agreement"])
def test_other_metrics_are_the_builds_own(shelf: Path, desk: Path, metric: str) -> None:
    x, label = tiny.digits()
    data = desk / "numbers.npz"
    np.savez(data, x=x, **({"label": np.eye(10, dtype=np.float32)[label]} if metric == "mae" else {}))
    done = edgekit(
        "build", shelf / "digits.onnx", "--target", "nvidia-gpu", "--data", data, "--out", "b", "--metric", metric,
        "--cache", shelf / "cache", "--max-drop", "5%", "--json",
    )  # fmt: skip
    quality = facts_of(done)["candidates"][0]["quality"]
    bundle = open_bundle(desk / "b")
    exam = bundle.manifest.exam
    assert exam is not None
    assert (exam.metric, exam.beside, exam.n) == (metric, "source", 1024)
    assert exam.reference == pytest.approx(quality["reference"], abs=0.02)
    on_cpu = replace(bundle, manifest=replace(bundle.manifest, options=replace(bundle.manifest.options, device="cpu")))
    assert score(on_cpu, on_cpu.open_model(), lambda done, of: None).value == pytest.approx(exam.built, abs=1e-6)


def test_what_does_not_fit_is_left_out(shelf: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "MOST_BYTES", 5_000)
    facts = facts_of(built(shelf, "--json", "--fresh"))
    assert 8 <= facts["exam"]["n"] < 300
    assert facts["exam"]["bytes"] <= 5_000
    monkeypatch.setattr(examining, "MOST_BYTES", 100)
    facts = facts_of(built(shelf, "--json", "--fresh"))
    assert facts["exam"]["n"] == 0
    assert "are too few" in facts["exam"]["why"]


def test_samples_that_the_search_never_saw_come_first(shelf: Path, desk: Path) -> None:
    words = Words(
        str(shelf / "digits.onnx"), ("nvidia-gpu",), data=str(shelf / "digits.npz"), max_drop="2pt"
    )  # fmt: skip
    order = parse_order(words)
    model, cache = sources.read(order.origin), user_cache(str(shelf / "cache"), False)
    job = open_job(order, model, "", cache, lambda words: None)
    assert job.evaluation is not None
    assert 0 < job.seen < len(job.evaluation)
    unseen = [job.evaluation.feeds(i)["x"].tobytes() for i in range(job.seen, len(job.evaluation))]
    facts_of(built(shelf, "--json", "--max-drop", "2pt"))
    found = _bytes(desk)
    assert found == unseen[: len(found)]


def _bytes(desk: Path) -> list[bytes]:
    bundle = open_bundle(desk / "b")
    exam = bundle.manifest.exam
    assert exam is not None
    specs: list[TensorSpec] = [port.spec for port in bundle.manifest.inputs]
    return [one.feeds["x"].tobytes() for one in read_exam(desk / "b" / exam.file, exam, specs)]


def test_a_build_is_scored_on_its_device_and_a_wrong_artifact_is_refused_there(
    shelf: Path, desk: Path, spoil: Callable[[Path], None]
) -> None:
    """All of it for real, on this machine's CPU: build, install, and the same bundle with a wrong model of the same
    shapes, whose recorded answers were made to fit, sealed again by the same key."""
    facts = facts_of(
        built(shelf, "--json", "--exam", "--precision", "float32", "--max-drop", "2pt", target="x86-64-v2",)
    )  # fmt: skip
    keys = Path(facts_of_keys())
    (desk / "dev").mkdir()
    (desk / "dev" / "target").write_text("x86-64-v2\n")
    words = ("--device", desk / "dev", "--trust", keys / "trust.json", "--probation", 0, "--json")
    done = runtime("install", desk / "b", *words)
    told = json.loads(done.stdout)
    assert (told["outcome"], told["found"]["exam"]["outcome"]) == ("live", "passed"), done.stderr.decode()
    assert told["found"]["exam"]["value"] == facts["exam"]["built"]
    spoil(desk / "b")
    bundle = open_bundle(desk / "b")
    assert all(
        np.array_equal(bundle.open_model()(feeds)["scores"], answer["scores"])
        for feeds, answer in read_golden(desk / "b" / "golden.npz")
    )
    refused = runtime("install", desk / "b", *words)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["reason"] == "exam"
    (model,) = json.loads(runtime("status", "--device", desk / "dev", "--json").stdout)["models"]
    assert model["live"]["id"] == told["id"]


def facts_of_keys() -> str:
    from edgekit.keys import default_home

    return str(default_home())


@pytest.fixture
def spoil() -> Callable[[Path], None]:
    """Puts a model of the same shapes with other weights in place of the bundle's, records it, seals the bundle."""

    def done(folder: Path) -> None:
        import onnx
        from onnx import numpy_helper

        manifest = open_bundle(folder).manifest
        model = onnx.load(folder / manifest.entry)
        chance = np.random.default_rng(5)
        for one in model.graph.initializer:
            value = numpy_helper.to_array(one)
            if value.dtype == np.float32:
                made = chance.normal(0, float(value.std()) or 1.0, value.shape).astype(np.float32)
                one.CopyFrom(numpy_helper.from_array(made, one.name))
        onnx.save(model, folder / manifest.entry)
        secret = signing_key(Path(facts_of_keys()), None, lambda words: None)
        manifest = seal(folder, replace(manifest, version="2", release=manifest.release + 1), secret)
        run = open_bundle(folder).open_model()
        pairs = [(feeds, run(feeds)) for feeds, _ in read_golden(folder / "golden.npz")]
        write_golden(folder / "golden.npz", pairs)
        seal(folder, manifest, secret)

    return done
