"""An encrypted bundle from the host to the engine: it answers on its device alone, and is never written in clear."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.device import Device
from edgekit_runtime.errors import BadBundle, Untrusted
from edgekit_runtime.files import in_folder
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.selftest import selftest
from edgekit_runtime.verified import open_verified

from edgekit.encrypting import encrypt_bundle
from tests.runtime.bundles import WEIGHTS, make_bundle, some, truth
from tests.runtime.devices import Maker, device_folder, runtime, serving
from tests.runtime.signing import rules, trusting

DEVICE, SIGNER, ROOT = new_private_key(), new_private_key(), new_private_key()
RULES = replace(rules(trusting(ROOT, main=SIGNER)), device_key=DEVICE)


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    encrypt_bundle(make_bundle(tmp_path / "tiny.edgekit"), public_of(DEVICE), tmp_path / "locked.edgekit", SIGNER)
    return tmp_path / "locked.edgekit"


def test_on_its_device_it_is_a_bundle_like_others(locked):
    held = open_verified(in_folder(locked), RULES)
    try:
        x = some(3)
        np.testing.assert_allclose(held.bundle.open_model()({"x": x})["y"], truth(x), rtol=1e-5)
        assert selftest(held.bundle).passed
        assert held.bundle.labels() == ("cat", "dog", "bird", "fish")
    finally:
        held.close()


@pytest.mark.parametrize("key", [None, new_private_key()])
def test_another_device_is_refused(locked, key):
    with pytest.raises(Untrusted, match="encrypted for the device") as caught:
        open_verified(in_folder(locked), replace(RULES, device_key=key))
    assert caught.value.reason == "other_device"


def test_without_the_key_it_can_be_carried_and_not_run(locked):
    bundle = open_bundle(locked)
    for wanted in (bundle.open_model, bundle.labels, bundle.golden):
        with pytest.raises(BadBundle, match="is encrypted for the device") as caught:
            wanted()
        assert "flash it to that device" in caught.value.hint


def test_no_file_on_the_way_holds_the_weights_in_clear(locked, tmp_path):
    held = open_verified(in_folder(locked), RULES)
    try:
        held.bundle.open_model()({"x": some(1)})
        weights = WEIGHTS.tobytes()[:64]
        assert any(weights in path.read_bytes() for path in (tmp_path / "tiny.edgekit").iterdir())
        assert not any(weights in path.read_bytes() for path in locked.iterdir())
        found = [path for path in held.bundle.folder.rglob("*") if not path.is_symlink() and path.is_file()]
        assert not any(weights in path.read_bytes() for path in found)
    finally:
        held.close()


@pytest.mark.slow
def test_it_is_installed_and_served_by_its_device_and_refused_by_another(tmp_path):
    maker = Maker(tmp_path)
    mine, other = (device_folder(tmp_path / name, maker) for name in ("mine", "other"))
    Device(other).key()
    plain, place = make_bundle(tmp_path / "tiny.edgekit"), tmp_path / "locked.edgekit"
    encrypt_bundle(plain, Device(mine).public_key(), place, maker.key)
    refused = runtime("install", place, "--device", other, "--json")
    assert (refused.returncode, json.loads(refused.stdout)["reason"]) == (1, "other_device")
    done = runtime("install", place, "--device", mine, "--probation", 0, "--json")
    assert json.loads(done.stdout)["outcome"] == "live", done.stderr.decode()
    with serving(mine) as server:
        answer = server.infer(0.5)["outputs"][0]["data"]
        np.testing.assert_allclose(answer, truth(np.full((1, 3, 2, 2), 0.5, np.float32))[0], rtol=1e-5)
    weights = WEIGHTS.tobytes()[:64]
    assert not any(weights in path.read_bytes() for path in mine.rglob("*") if path.is_file())
