"""What targets rule out for the sake of a core is still so: a rule that is no longer true is to go."""

import pytest
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import Unsupported
from edgekit_runtime.selftest import SelfTest, selftest

from edgekit.places import Place
from edgekit.places.cores import CORES
from edgekit.places.emulated import find_core
from edgekit.places.there import open_at
from edgekit.target import find_target, list_targets
from tests.arm.conftest import Fetch
from tests.arm.exhibits import artifact, found


def replayed(core: str, engine: str, *titles: str) -> list[SelfTest | None]:
    """What becomes of some bundles on a core, whatever its target says; None for one that the engine refuses."""
    place = find_core(CORES[core], engine)
    assert isinstance(place, Place), place
    told: list[SelfTest | None] = []
    with open_at(place, EngineOptions(threads=1), lambda words: None) as there:
        for title in titles:
            bundle = found(engine, title)
            try:
                told.append(selftest(bundle, there.runner(artifact(bundle))))
            except Unsupported:
                told.append(None)
    return told


@pytest.mark.slow
def test_openvino_still_cannot_run_an_int8_efficientnet_without_dot_product(fetch: Fetch) -> None:
    (refused,) = replayed(fetch("cortex-a72"), "openvino", "efficientnet-lite0 int8")
    assert refused is None or not refused.passed, "it can: take the rule out of targets/rpi4.toml and its like"


@pytest.mark.slow
def test_openvino_still_answers_otherwise_in_int8_on_arm_with_dot_product(fetch: Fetch) -> None:
    """It runs, unlike there; a Raspberry Pi 5 would not install such a bundle, whose recorded answers are not its."""
    (off,) = replayed(fetch("cortex-a76"), "openvino", "efficientnet-lite0 int8")
    assert off is not None
    assert not off.passed, "it answers as on x86: take the rule out of targets/rpi5.toml"


def test_every_arm_target_rules_openvinos_int8_convolutions_out() -> None:
    on_arm = [target for target in list_targets() if target.arch == "aarch64"]
    assert len(on_arm) >= 6
    for target in on_arm:
        assert target.forbids("openvino", "int8", ("conv",)), target.name


@pytest.mark.slow
def test_the_last_tflite_runtime_still_takes_one_scale_for_all_rows_of_a_dense_layer(fetch: Fetch) -> None:
    """It says nothing, and answers wrongly: what is built for armv7 has one scale there, and answers rightly."""
    titles = ("dense int8", "dense int8-weights", "dense int4-weights", "dense int8, one scale a dense layer")
    *wrong, right = replayed(fetch("cortex-a7"), "tflite", *titles)
    assert all(one is None or one.worst > 0.3 for one in wrong), "it can: take dense_per_tensor out of armv7.toml"
    assert right is not None
    assert right.passed
    assert find_target("armv7").dense_per_tensor == ("tflite",)
    assert find_target("armv7").forbids("tflite", "int4-weights", ("linear",))
