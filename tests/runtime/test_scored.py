"""A model is scored where it runs, by the rule of its build: passed, missed, or too few samples to tell."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.__main__ import main
from edgekit_runtime.bundle import Bundle, open_bundle, read_manifest
from edgekit_runtime.errors import BadBundle, NotFound
from edgekit_runtime.exam import write_exam
from edgekit_runtime.scored import FOLDER, KEPT, Scored, engine_version, from_json, keep, kept, key, last, score
from edgekit_runtime.tensors import Array, Feeds, Runner, TensorSpec

from tests.runtime.bundles import X, listed, make_bundle, truth
from tests.runtime.examined import add_exam, make_examined, samples_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(make_examined(tmp_path_factory.mktemp("b") / "tiny"))


def quiet(done: int, of: int) -> None:
    """Who hears nothing."""


def off(share: float, to: float | None = None) -> Runner:
    """The model, but for a share of the photos turned round, or all of it that number."""
    count = 0

    def run(feeds: Feeds) -> Feeds:
        nonlocal count
        count += 1
        answer = truth(feeds["x"])
        if round(count * share) == round((count - 1) * share):
            return {"y": answer}
        return {"y": -answer if to is None else np.full_like(answer, to)}

    return run


def test_a_model_that_does_as_well_as_the_source_passes(bundle: Bundle) -> None:
    found = score(bundle, bundle.open_model(), quiet)
    assert (found.outcome, found.n, found.of, found.value, found.drop) == ("passed", 200, 200, 1.0, 0.0)
    assert found.high is not None
    assert 0 < found.high < 0.05
    assert found.text().startswith("exam: passed: top1 100.00 % here, the source model's 100.00 %: drop +0.00pt [")


def test_one_that_does_worse_than_was_allowed_misses_it(bundle: Bundle) -> None:
    found = score(bundle, off(0.2), quiet)
    assert (found.outcome, found.value) == ("missed", 0.8)
    assert found.low is not None
    assert found.low > 0.05
    assert "MISSED" in found.text()


def test_where_the_interval_holds_what_is_allowed_nobody_can_tell(bundle: Bundle) -> None:
    found = score(bundle, off(0.04), quiet)
    assert (found.outcome, found.value) == ("untold", 0.96)
    assert "too few samples to tell" in found.text()


@pytest.mark.parametrize("metric", ["top1", "top5", "agreement", "mae", "cosine"])
def test_a_model_gone_nan_misses_by_every_metric(tmp_path: Path, metric: str) -> None:
    if metric == "top5":  # of four classes every one is among the best five
        metric = "top1"
    folder = make_examined(tmp_path / "tiny", 100, metric)
    found = score(open_bundle(folder), off(1.0, float("nan")), quiet)
    assert found.outcome == "missed"
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["outcome"] == "missed"
    assert "MISSED" in found.text()


@pytest.mark.parametrize("metric", ["mae", "cosine"])
def test_numbers_are_scored_by_their_distance(tmp_path: Path, metric: str) -> None:
    one = open_bundle(make_examined(tmp_path / "tiny", 100, metric))
    good = score(one, lambda feeds: {"y": truth(feeds["x"]) + np.float32(1e-4)}, quiet)
    assert good.outcome == "passed"
    bad = score(one, lambda feeds: {"y": truth(feeds["x"])[:, ::-1]}, quiet)
    assert bad.outcome == "missed"
    assert bad.drop is not None
    assert bad.drop > 0.05


def test_of_a_few_numbers_nothing_is_said(tmp_path: Path) -> None:
    one = open_bundle(make_examined(tmp_path / "tiny", 7, "mae"))
    found = score(one, one.open_model(), quiet)
    assert (found.outcome, found.low, found.high) == ("untold", None, None)


def test_when_its_time_is_over_what_was_done_is_told(bundle: Bundle) -> None:
    found = score(bundle, bundle.open_model(), quiet, seconds=0.0)
    assert (found.n, found.of, found.outcome) == (1, 200, "untold")
    assert "n = 1 of 200, all that the time was enough for" in found.text()


def test_integers_are_scored_as_the_numbers_that_they_stand_for(tmp_path: Path) -> None:
    folder = make_examined(tmp_path / "tiny", 50, "mae")
    manifest = read_manifest(folder)
    (port,) = manifest.outputs
    whole = replace(port, spec=TensorSpec("y", "int8", port.spec.shape, 0.05, 3))
    listed(folder, replace(manifest, outputs=(whole,)))

    def run(feeds: Feeds) -> Feeds:
        return {"y": (np.rint(truth(feeds["x"]) / 0.05) + 3).astype(np.int8)}

    assert (score(open_bundle(folder), run, quiet).value or 0) < 0.03


@pytest.mark.parametrize("answer", [np.zeros((1, 2, 2)), np.zeros((2, 4)), np.zeros((1, 1)), np.array([["a", "b"]])])
def test_an_answer_that_the_exam_does_not_fit_is_refused(bundle: Bundle, answer: Array) -> None:
    with pytest.raises(BadBundle, match="does not fit"):
        score(bundle, lambda feeds: {"y": answer}, quiet)


def test_a_bundle_without_an_exam_takes_none(tmp_path: Path) -> None:
    one = open_bundle(make_bundle(tmp_path / "tiny"))
    with pytest.raises(NotFound, match="brings no exam"):
        score(one, one.open_model(), quiet)


def test_an_engines_own_error_is_not_taken_for_a_damaged_exam(bundle: Bundle) -> None:
    def run(feeds: Feeds) -> Feeds:
        raise ValueError("the engine's own")

    with pytest.raises(ValueError, match="the engine's own"):
        score(bundle, run, quiet)


def test_how_far_it_is_is_told_now_and_then(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_runtime.scored.TOLD_SECONDS", 0.0)
    said: list[tuple[int, int]] = []
    score(bundle, bundle.open_model(), lambda done, of: said.append((done, of)))
    assert said == [(done, 200) for done in range(1, 201)]


def test_a_result_is_kept_for_these_bytes_this_engine_and_this_device(bundle: Bundle, tmp_path: Path) -> None:
    found = score(bundle, bundle.open_model(), quiet)
    name = key(bundle)
    assert kept(tmp_path, name) is None
    keep(tmp_path, name, found)
    assert kept(tmp_path, name) == found
    assert last(tmp_path, name[:12]) == found
    assert last(tmp_path, "0" * 12) is None
    options = replace(bundle.manifest.options, device="cuda")
    assert key(replace(bundle, manifest=replace(bundle.manifest, options=options))) != name
    assert any(one.startswith("onnxruntime") for one in engine_version("onnx"))
    for number in range(KEPT + 3):
        keep(tmp_path, f"{number:064}-x.json", replace(found, when=number))
    assert len(list((tmp_path / FOLDER).iterdir())) == KEPT


@pytest.mark.parametrize("raw", ["", "[1", "[]", "{}", '{"outcome": "passed"}', "9" * 20_000, "[" * 9_000])
def test_a_result_that_does_not_read_is_none(tmp_path: Path, raw: str) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "0-0.json").write_text(raw)
    assert kept(tmp_path, "0-0.json") is None
    assert last(tmp_path, "0") is None


GOOD = asdict(Scored("passed", "top1", 9, 9, "source", 1.0, 1.0, 0.0, -0.1, 0.1, 0.2, 0.5, 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [("outcome", "fine"), ("outcome", ["passed"]), ("n", "9"), ("value", float("nan")), ("metric", 5), ("more", 1)],
)
def test_only_a_result_reads_as_one(field: str, value: Any) -> None:
    assert asdict(from_json(GOOD)) == GOOD
    with pytest.raises(BadBundle):
        from_json({**GOOD, field: value})


def test_the_command_scores_tells_and_fails_where_it_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_examined(tmp_path / "tiny", 100)
    assert main(["selftest", str(folder), "--score"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("exam: passed: top1 100.00 % here")
    assert main(["inspect", str(folder)]) == 0
    assert "exam        100 samples by top1, beside the source model: +5.00pt is allowed" in capsys.readouterr().out
    turned = [replace(one, right=(one.right + 1) % 4) for one in samples_of(100)]
    write_exam(folder / "exam.npz", turned, [X])
    listed(folder, read_manifest(folder))
    assert main(["selftest", str(folder), "--score", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["exam"]["outcome"] == "missed"
    assert main(["selftest", str(folder)]) == 0
    assert main(["selftest", str(add_exam(make_bundle(tmp_path / "other"))), "--score", "--seconds", "1e-9"]) == 0
    assert "n = 1 of 200" in capsys.readouterr().out
    assert main(["selftest", str(make_bundle(tmp_path / "none")), "--score"]) == 1
    assert "brings no exam" in capsys.readouterr().err
