"""Which operators run on an accelerator: told by ONNX Runtime itself, with two providers that this machine has."""

import json
import subprocess
from pathlib import Path

import edgekit_runtime
import onnx
import onnxruntime as ort
import pytest
from edgekit_runtime.engines import EngineOptions, placement
from edgekit_runtime.engines.onnx import told
from edgekit_runtime.engines.placed import Placement, check_placement
from edgekit_runtime.errors import Unsupported

from edgekit.isolated import environment
from tests.gpu import nets

HERE = Path(__file__).parent
RUNTIME = Path(edgekit_runtime.__file__).parent.parent


def test_a_placement_tells_its_share_and_what_is_left_the_most_frequent_first():
    found = Placement("cuda", 6, {"Loop": 1, "Det": 2, "If": 1})
    assert (found.operators, found.share) == (10, 0.6)
    assert found.text() == "cuda: 6 of 10 operators (60%); on the CPU: Det x2, If, Loop"
    assert Placement("cuda", 3, {}).text() == "cuda: 3 of 3 operators (100%)"
    assert Placement("cuda", 0, {}).share == 1.0


def test_all_but_one_of_a_thousand_is_not_told_as_all():
    assert "(99%)" in Placement("cuda", 999, {"If": 1}).text()


def test_many_kinds_are_not_all_named():
    assert Placement("cuda", 0, {f"Op{n}": 1 for n in range(20)}).left_text().endswith("and 12 more kinds")


@pytest.mark.parametrize(("least", "enough"), [(0.0, True), (0.6, True), (0.61, False), (1.0, False)])
def test_less_than_the_wanted_share_is_refused_with_the_operators_named(least, enough):
    found = Placement("cuda", 6, {"Det": 2, "Loop": 2})
    if enough:
        check_placement(found, least, "m.onnx")
        return
    with pytest.raises(Unsupported, match=r"6 of 10 operators \(60%\) run on cuda.*Det x2, Loop x2") as caught:
        check_placement(found, least, "m.onnx")
    assert "--min-accelerated" in caught.value.hint


def test_a_provider_that_takes_nothing_leaves_every_operator_on_the_cpu(tmp_path):
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this build of ONNX Runtime has no second provider that takes nothing")
    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    path = nets.write(tmp_path, model=nets.with_det())
    session = ort.InferenceSession(str(path), settings, providers=["AzureExecutionProvider", "CPUExecutionProvider"])
    assert told(session, "azure", ("AzureExecutionProvider",)) == Placement(
        "azure", 0, {"Conv": 1, "Relu": 1, "Det": 2, "Add": 1, "Sigmoid": 1}
    )


def test_on_the_cpu_there_is_nothing_to_place(tmp_path):
    assert placement("onnx", nets.write(tmp_path), EngineOptions()) is None


@pytest.mark.slow
def test_a_model_that_two_providers_share_is_told_operator_by_operator(tmp_path):
    python = environment("onnxruntime-openvino", HERE / "requirements-onnxruntime-openvino.txt", lambda _: None)
    onnx.save(nets.with_det(), tmp_path / "det.onnx")
    done = subprocess.run(
        [python, HERE / "inside_two_providers.py", tmp_path / "det.onnx", RUNTIME, "0.5"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    left = found["left"]
    assert left["Det"] == 2  # OpenVINO has none
    assert found["accelerated"] + sum(left.values()) == 6
    assert found["accelerated"] > 0
    assert "Det x2" in found["refused"]
    assert "run on openvino, wanted are 50%" in found["refused"]
