"""A bundle is scored on the device before it is served there: one that does worse than was allowed is not activated."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime import trying
from edgekit_runtime.device import Device
from edgekit_runtime.exam import write_exam
from edgekit_runtime.installing import Wishes, install
from edgekit_runtime.receipts import read_receipt
from edgekit_runtime.scored import FOLDER
from edgekit_runtime.trying import Unfit

from edgekit.encrypting import encrypt_bundle
from tests.runtime.bundles import X
from tests.runtime.devices import Maker, graph, runtime, serving, soon
from tests.runtime.examined import add_exam, samples_of
from tests.runtime.signing import relisted, sign_folder

pytestmark = pytest.mark.slow
QUIET = Wishes(probation=0)


def examined(maker: Maker, version: str, model: bytes | None = None, **changes: Any) -> Path:
    """A signed bundle with an exam; `model` in place of its own, the recorded answers made to fit it."""
    folder = add_exam(maker.bundle(version, model), **changes)
    return sign_folder(relisted(folder), maker.key)


def negated() -> bytes:
    """A model of the same shapes that takes the worst class for the best."""
    from onnx import helper

    return graph(helper.make_node("Neg", ["line"], ["y"]))


def receipts(device: Device) -> dict[str, Mapping[str, Any]]:
    """What each says, by version."""
    every = [json.loads(path.read_text()) for path in (device.folder / "receipts").iterdir()]
    return {said["version"]: said for said in (read_receipt(one, device.public_key()) for one in every)}


def test_a_good_one_passes_and_the_receipt_and_status_tell_it(device: Device, maker: Maker) -> None:
    said: list[str] = []
    done = install(device, examined(maker, "1"), QUIET, said.append)
    assert done.outcome == "live"
    assert any(line.startswith("exam: passed: top1 100.00 % here") for line in said)
    told = read_receipt(done.receipt, device.public_key())["exam"]
    assert (told["outcome"], told["n"], told["of"], told["drop"]) == ("passed", 200, 200, 0.0)
    shown = runtime("status", "--device", device.folder)
    assert "  exam      passed: top1 100.00 % here" in shown.stdout.decode()
    (model,) = json.loads(runtime("status", "--device", device.folder, "--json").stdout)["models"]
    assert model["exam"]["outcome"] == "passed"


def test_a_wrong_model_whose_recorded_answers_were_made_to_fit_is_refused(device: Device, maker: Maker) -> None:
    install(device, examined(maker, "1"), QUIET, lambda line: None)
    device.store.good("tiny")
    with pytest.raises(Unfit, match="does not do here what its build proved") as caught:
        install(device, examined(maker, "2", negated()), QUIET, lambda line: None)
    assert caught.value.reason == "exam"
    live = device.store.live("tiny")
    assert live is not None
    assert live.manifest.version == "1"
    said = receipts(device)["2"]
    assert (said["outcome"], said["exam"]["outcome"]) == ("refused", "missed")
    assert len(list((device.folder / FOLDER).iterdir())) == 1


def test_one_with_too_few_samples_to_tell_is_served_and_that_is_told(device: Device, maker: Maker) -> None:
    done = install(device, examined(maker, "1", count=12), QUIET, lambda line: None)
    assert done.outcome == "live"
    assert "too few samples to tell" in runtime("status", "--device", device.folder).stdout.decode()


def test_an_exam_that_does_not_fit_its_model_is_refused(device: Device, maker: Maker) -> None:
    folder = examined(maker, "1")
    (folder / "exam.npz").write_bytes(b"no archive")
    with pytest.raises(Unfit, match=r"exam\.npz does not read") as caught:
        install(device, sign_folder(relisted(folder), maker.key), QUIET, lambda line: None)
    assert caught.value.reason == "exam"


def test_how_far_it_is_is_told_while_it_lasts(
    device: Device, maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run of the engine takes a while, in the child alone; the exam ends when its time is over."""
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if 'edgekit_runtime.candidate' in ' '.join(sys.orig_argv):\n"
        "    from edgekit_runtime import scored\n"
        "    scored.TOLD_SECONDS = 0.1\n"
        "    whole = scored._mark\n"
        "    scored._mark = lambda *given: (time.sleep(0.05), whole(*given))[1]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(slow), prepend=":")
    whole = trying.limits_of
    short = "edgekit_runtime.installing.limits_of"
    monkeypatch.setattr(short, lambda *facts: replace(whole(*facts), exam_seconds=1.0))
    said: list[str] = []
    done = install(device, examined(maker, "1", count=2000), QUIET, said.append)
    steps = [line for line in said if line.startswith("exam: ") and line.endswith("of 2,000 samples")]
    assert steps
    assert read_receipt(done.receipt, device.public_key())["exam"]["n"] < 2000


def test_an_encrypted_one_takes_its_exam_in_memory(device: Device, maker: Maker, tmp_path: Path) -> None:
    plain, place = examined(maker, "1"), tmp_path / "locked.edgekit"
    encrypt_bundle(plain, device.public_key(), place, maker.key)
    assert (place / "exam.npz").read_bytes()[:2] != b"PK"
    done = install(device, place, QUIET, lambda line: None)
    assert done.outcome == "live"
    assert read_receipt(done.receipt, device.public_key())["exam"]["outcome"] == "passed"
    with serving(device.folder) as server:
        (model,) = soon(lambda: server.ask("/status")["models"])
        assert (
            soon(lambda: server.ask("/status")["models"][0]["exam"])["when"]
            == (read_receipt(done.receipt, device.public_key())["exam"]["when"])
        ), model
    exam = (plain / "exam.npz").read_bytes()
    assert not any(exam[:64] in path.read_bytes() for path in device.folder.rglob("*") if path.is_file())


def test_an_exam_of_samples_that_the_model_does_not_take_is_refused(device: Device, maker: Maker) -> None:
    folder = examined(maker, "1")
    wide = [replace(one, feeds={"x": np.zeros((1, 3, 2, 3), np.float32)}) for one in samples_of(200)]
    write_exam(folder / "exam.npz", wide, [X])
    with pytest.raises(Unfit, match=r"a sample of shape \[1, 3, 2, 3\]"):
        install(device, sign_folder(relisted(folder), maker.key), QUIET, lambda line: None)
