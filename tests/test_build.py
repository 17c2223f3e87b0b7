"""The whole story on a real, small model: words in, a proven bundle out, or a report and no bundle."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.selftest import selftest

import edgekit as api
from tests import tiny
from tests.commands import Done, edgekit

TARGET = "x86-64-v4"


def build(shelf: Path, *words: object, target: str = TARGET) -> Done:
    """The digits are so small that int8 is no faster: it is wanted for its size."""
    return edgekit("build", shelf / "digits.onnx", "--target", target, "--cache", shelf / "cache", "--smaller", *words)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_int8_is_built_proven_and_replayed(shelf: Path, desk: Path) -> None:
    done = build(shelf, "--data", shelf / "digits.npz", "--format", "onnx", "--max-drop", "2pt")
    assert done.code == 0, done.err
    bundle = open_bundle(desk / f"digits-{TARGET}.edgekit")
    assert (bundle.manifest.format, bundle.manifest.precision) == ("onnx", "int8")
    assert selftest(bundle).passed
    quality = bundle.manifest.evidence["quality"]
    assert quality["metric"] == "top1"
    assert quality["reference"] > 0.9
    assert quality["n"] > 1300
    assert "digits-x86-64-v4.edgekit" in done.out
    assert "top1" in done.out


@pytest.mark.slow
def test_the_bundle_carries_its_report_for_people_and_machines(shelf: Path, desk: Path) -> None:
    build(shelf, "--data", shelf / "digits.npz", "--format", "onnx", "--max-drop", "2pt")
    page = (desk / f"digits-{TARGET}.edgekit" / "report.html").read_text()
    facts = json.loads((desk / f"digits-{TARGET}.edgekit" / "report.json").read_text())
    assert "http://" not in page
    assert facts["verdict"] == "passed"
    assert facts["why"] in page


@pytest.mark.slow
def test_json_says_what_the_table_says(shelf: Path, desk: Path) -> None:
    facts = build(shelf, "--data", shelf / "digits.npz", "--format", "onnx", "--json").json()[0]
    assert facts["verdict"] == "unbudgeted"
    assert facts["candidates"][0]["quality"]["n"] == facts["data"]["evaluation"]["n"]
    assert facts["bundle"].endswith(".edgekit")


@pytest.mark.slow
def test_a_bundle_says_when_it_was_built_and_a_copy_of_it_the_same(
    shelf: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(epoch: str) -> str:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        assert build(shelf, "--format", "onnx").code == 0
        return str(open_bundle(desk / f"digits-{TARGET}.edgekit").manifest.provenance["built"])

    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    before = datetime.now(UTC).replace(microsecond=0)
    first = built("")
    assert before <= datetime.fromisoformat(first) <= datetime.now(UTC)
    assert built("1700000000") == "2023-11-14T22:13:20Z", "what was kept was made at another time"
    assert built("") == first


@pytest.mark.slow
def test_a_ruined_calibration_misses_the_budget_and_leaves_the_report_alone(shelf: Path, desk: Path) -> None:
    x, _ = tiny.digits()
    np.savez(desk / "ruined.npz", x=x[:64] * 1000)
    done = build(
        shelf, "--data", shelf / "digits.npz", "--calibration", "ruined.npz", "--format", "onnx", "--precision", "int8",
        "--max-drop", "0.5pt",
    )  # fmt: skip
    assert done.code == 3
    assert "nearest is ONNX int8" in done.error()
    assert left(desk) == [f"digits-{TARGET}.report.html", f"digits-{TARGET}.report.json", "ruined.npz"]


@pytest.mark.slow
def test_too_few_samples_to_tell_is_said_with_how_many_would_do(shelf: Path, desk: Path) -> None:
    x, label = tiny.digits()
    np.savez(desk / "few.npz", x=x[:80], label=label[:80])
    done = build(shelf, "--data", "few.npz", "--format", "onnx", "--max-drop", "1pt")
    assert done.code == 4
    assert "would do" in done.error()
    assert f"digits-{TARGET}.edgekit" not in left(desk)


@pytest.mark.slow
def test_without_labels_agreement_with_the_source_is_judged(shelf: Path, desk: Path) -> None:
    x, _ = tiny.digits()
    np.savez(desk / "plain.npz", x=x)
    facts = build(shelf, "--data", "plain.npz", "--format", "onnx", "--json").json()[0]
    assert facts["candidates"][0]["quality"]["metric"] == "agreement"


@pytest.mark.slow
def test_without_data_the_float_artifact_is_checked_on_random_inputs(shelf: Path, desk: Path) -> None:
    facts = build(shelf, "--format", "onnx", "--json").json()[0]
    assert facts["candidates"][0]["precision"] == "float32"
    assert "random" in facts["why"]
    assert facts["candidates"][0]["parity_to_source"][0]["worst"] < 1e-5


@pytest.mark.slow
def test_several_targets_share_what_can_be_shared(shelf: Path, desk: Path) -> None:
    done = edgekit(
        "build", shelf / "digits.onnx", "--target", "rpi5", "--target", "rpi4", "--format", "onnx", "--json",
        "--data", shelf / "digits.npz", "--out", "all", "--cache", desk / "cache",
    )  # fmt: skip
    assert [facts["target"]["name"] for facts in done.json()] == ["rpi5", "rpi4"]
    assert left(desk / "all") == ["digits-rpi4.edgekit", "digits-rpi5.edgekit"]
    assert len(list((desk / "cache" / "steps" / "onnx_int8").iterdir())) == 1


@pytest.mark.slow
def test_latency_of_another_architecture_is_not_claimed(shelf: Path, desk: Path) -> None:
    facts = build(shelf, "--data", shelf / "digits.npz", "--format", "onnx", "--json", target="rpi5").json()[0]
    assert facts["candidates"][0]["latency"] is None
    assert "aarch64" in facts["candidates"][0]["timed"]


@pytest.mark.slow
def test_the_same_order_is_a_copy_the_second_time(shelf: Path, desk: Path) -> None:
    order = ("--data", shelf / "digits.npz", "--format", "onnx", "--json", "--name", "again")
    first = build(shelf, *order).json()[0]
    again = build(shelf, *order, "--out", "elsewhere").json()[0]
    assert "remembered" not in first
    assert again["remembered"]
    assert open_bundle(desk / "elsewhere").manifest == open_bundle(desk / f"again-{TARGET}.edgekit").manifest


@pytest.mark.slow
def test_a_changed_model_is_built_anew(shelf: Path, desk: Path) -> None:
    order = ("--target", TARGET, "--format", "onnx", "--json", "--cache", shelf / "cache")
    shutil.copy(shelf / "digits.onnx", desk / "m.onnx")
    first = edgekit("build", "m.onnx", *order).json()[0]
    tiny.write_model(desk, "m.onnx", batch=1)
    second = edgekit("build", "m.onnx", *order).json()[0]
    assert "remembered" not in second
    assert first["source"]["sha256"] != second["source"]["sha256"]


@pytest.mark.slow
def test_integer_io_stays_integer_only_if_asked(shelf: Path, desk: Path) -> None:
    order = ("--data", shelf / "digits.npz", "--format", "tflite")
    build(shelf, *order, "--out", "floats")
    build(shelf, *order, "--out", "integers", "--integer-io")
    assert open_bundle(desk / "floats").manifest.inputs[0].spec.dtype == "float32"
    spec = open_bundle(desk / "integers").manifest.inputs[0].spec
    assert (spec.dtype, spec.scale is not None) == ("int8", True)
    assert selftest(open_bundle(desk / "integers")).passed


def test_a_dry_run_reads_like_a_plan_and_makes_nothing(shelf: Path, desk: Path) -> None:
    done = build(shelf, "--data", shelf / "digits.npz", "--max-drop", "0.5pt", "--dry-run", target="rpi5")
    assert done.code == 0
    assert left(desk) == []
    for words in ("Raspberry Pi 5", "1. TFLite int8", "check", "0.5pt", "digits-rpi5.edgekit"):
        assert words in done.out
    plan = build(shelf, "--data", shelf / "digits.npz", "--dry-run", "--json").json()[0]
    assert plan["candidates"][0]["why"]


def test_the_project_file_says_it_all_and_flags_override(shelf: Path, desk: Path) -> None:
    shutil.copy(shelf / "digits.onnx", desk)
    shutil.copy(shelf / "digits.npz", desk)
    assert edgekit("init", "digits.onnx", "--target", TARGET, "--data", "digits.npz").code == 0
    text = (desk / "edgekit.toml").read_text()
    assert "# onnx" in text
    assert "float32[?, 64]" in text
    words = ("--format", "onnx", "--max-drop", "3pt", "--smaller", "--cache", shelf / "cache", "--json")
    facts = edgekit("build", *words).json()[0]
    assert facts["budget"] == "3pt"
    assert facts["verdict"] == "passed"


def test_an_edgekit_toml_is_not_overwritten(shelf: Path, desk: Path) -> None:
    (desk / "edgekit.toml").write_text("# mine\n")
    assert "is there already" in edgekit("init", shelf / "digits.onnx").error()
    assert (desk / "edgekit.toml").read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [("modell = 'x'", "did you mean 'model'"), ("model = 3", "model is 3"), ("model = ", "does not read")],
)
def test_a_project_file_that_does_not_read_is_told(desk: Path, line: str, words: str) -> None:
    (desk / "edgekit.toml").write_text(line)
    assert words in edgekit("build").error()


def test_python_gives_what_the_command_prints(shelf: Path, desk: Path) -> None:
    (outcome,) = api.build(
        str(shelf / "digits.onnx"),
        target=TARGET,
        data=str(shelf / "digits.npz"),
        format="onnx",
        smaller=True,
        cache=str(shelf / "cache"),
    )
    printed = build(shelf, "--data", shelf / "digits.npz", "--format", "onnx", "--json").json()[0]
    assert outcome.bundle is not None
    assert {**outcome.facts, "remembered": True} == {**printed, "remembered": True}


def test_python_refuses_a_word_it_does_not_know(shelf: Path) -> None:
    with pytest.raises(api.EdgeKitError, match="did you mean 'precision'"):
        api.build(str(shelf / "digits.onnx"), target=TARGET, precison="int8")


@pytest.mark.slow
def test_run_inspect_bench_and_compare_take_the_bundle(
    shelf: Path, desk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build(shelf, "--data", shelf / "digits.npz", "--format", "onnx", "--out", "b")
    x, _ = tiny.digits()
    np.save(desk / "x.npy", x[:2])
    assert edgekit("run", "b", "--input", "x.npy", "--json").json()["outputs"]
    assert edgekit("inspect", "b", "--json").json()["name"] == "digits"
    assert edgekit("bench", "b", "--seconds", "0.2", "--json").json()["median_ms"] > 0
    beside = edgekit("compare", "b", shelf / "digits.onnx", "--json").json()
    assert beside["parity"][0]["cosine"] > 0.9
    assert "latency" in edgekit("compare", "b", shelf / "digits.onnx").out


@pytest.mark.slow
def test_the_cache_can_be_looked_at_and_cleared(shelf: Path, desk: Path) -> None:
    edgekit("build", shelf / "digits.onnx", "--target", TARGET, "--format", "onnx", "--cache", desk / "cache")
    assert "onnx_to_onnx" in edgekit("cache", "--cache", desk / "cache").out
    assert "removed" in edgekit("cache", "--cache", desk / "cache", "clear").out
    assert "onnx_to_onnx" not in edgekit("cache", "--cache", desk / "cache").out


def test_what_does_not_fit_the_device_once_measured_is_refused(shelf: Path, desk: Path) -> None:
    """No process of this kind fits 20 MB; the weights alone (75 kB) would have."""
    profile = edgekit("targets", "detect").out.splitlines()
    small = [
        "memory_mb = 20" if line.startswith("memory_mb = ") and line.split()[-1].isdigit() else line for line in profile
    ]
    (desk / "small.toml").write_text("\n".join(small))
    done = build(shelf, "--format", "onnx", target="./small.toml")
    assert done.code == 1
    assert "peaks at" in done.error()
    assert not list(desk.glob("*.edgekit"))
