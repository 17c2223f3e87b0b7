"""A new version goes over the line as deltas where the device has the old one, and as files where anything is amiss."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.bundle import read_manifest
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.verified import Vouched

from edgekit import keys
from edgekit.cache import Cache
from edgekit.encrypting import encrypt_bundle
from edgekit.flash import differing, names, trusting
from edgekit.flash.bundles import rest
from edgekit.oci.blobs import Blobs
from examples.sshd import Server
from tests.flash.devices import There, a_device, breaking, edgekit
from tests.flash.tuned import bundles

pytestmark = pytest.mark.slow

NOW = ("--yes", "--probation", "0", "--json", "--quiet")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A trained model's bundle, and the same fine-tuned; keys and caches of this module's own."""
    folder = tmp_path_factory.mktemp("versions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield bundles(folder)


@pytest.fixture
def kept(tmp_path: Path) -> differing.Kept:
    return differing.Kept(Blobs(tmp_path / "blobs"), Cache(tmp_path))


def vouched(bundle: Path) -> Vouched:
    """As its signature vouches for it."""
    return trusting.verified(bundle, None, keys.default_home(), time.time())[0]


def model(bundle: Path) -> tuple[str, int]:
    """The digest and the size of its model."""
    entry = read_manifest(bundle).files["model.onnx"]
    return entry.sha256, entry.size


def offered(kept: differing.Kept, one: Path, two: Path) -> dict[str, differing.Delta]:
    """The deltas from one bundle to the other."""
    pieces = rest(two, read_manifest(two), {}).pieces
    return differing.made(kept, read_manifest(two), pieces, [vouched(one).digest[:12]], lambda words: None)


def test_a_fine_tuned_model_is_a_delta_where_the_device_has_its_base(
    versions: tuple[Path, Path], kept: differing.Kept
) -> None:
    one, two = versions
    differing.keep(kept, one, vouched(one))
    deltas = offered(kept, one, two)
    assert deltas.keys() == {model(two)[0]}
    there = {"objects": [model(one)[0]], "parts": {}}
    plan = rest(two, read_manifest(two), there, deltas)
    assert plan.delta_bytes < 0.6 * model(two)[1]
    assert plan.delta_files == model(two)[1]
    assert plan.size < plan.written == rest(two, read_manifest(two), there).size
    begun = there | {"parts": {model(two)[0]: model(two)[1] - 1000}}
    assert rest(two, read_manifest(two), begun, deltas).delta_bytes == 0  # little of the file itself is left to send
    assert rest(two, read_manifest(two), {}, deltas).delta_bytes == 0  # the device has not got the base
    assert rest(two, read_manifest(two), {"objects": [model(two)[0]]}, deltas).deltas == {}


def test_no_delta_is_made_without_what_it_is_from(versions: tuple[Path, Path], kept: differing.Kept) -> None:
    one, two = versions
    assert offered(kept, one, two) == {}
    differing.keep(kept, one, vouched(one))
    kept.blobs.place(model(one)[0]).write_bytes(b"touched")
    assert offered(kept, one, two) == {}
    differing.keep(kept, one, vouched(one))
    kept.blobs.place(vouched(one).digest).write_bytes(b"{}")
    assert offered(kept, one, two) == {}
    for odd in ("", "*", "../" * 4, "a" * 12):
        assert differing.made(kept, read_manifest(two), [], [odd], lambda words: None) == {}


def test_what_is_encrypted_is_neither_kept_nor_compared(
    versions: tuple[Path, Path], kept: differing.Kept, tmp_path: Path
) -> None:
    secret, device = keys.signing_key(keys.default_home()), public_of(new_private_key())
    one, two = (encrypt_bundle(bundle, device, tmp_path / bundle.name, secret).place for bundle in versions)
    differing.keep(kept, one, vouched(one))
    assert kept.blobs.size() == (0, 0)
    differing.keep(kept, versions[0], vouched(versions[0]))
    said: list[str] = []
    ids = [vouched(versions[0]).digest[:12]]
    assert differing.made(kept, read_manifest(two), rest(two, read_manifest(two), {}).pieces, ids, said.append) == {}
    assert said == []  # it was not looked at


def test_a_delta_is_made_once_for_all_devices(versions: tuple[Path, Path], kept: differing.Kept) -> None:
    one, two = versions
    differing.keep(kept, one, vouched(one))
    first = offered(kept, one, two)
    (made,) = kept.steps.root.glob("steps/delta/*/delta")
    made.write_bytes(made.read_bytes() + b"x")
    (again,) = offered(kept, one, two).values()
    assert again.content == next(iter(first.values())).content + b"x"


def test_a_delta_for_other_files_is_not_sent(versions: tuple[Path, Path], kept: differing.Kept) -> None:
    one, two = versions
    differing.keep(kept, one, vouched(one))
    assert offered(kept, one, two)
    (made,) = kept.steps.root.glob("steps/delta/*/delta")
    base = bytearray(made.read_bytes())
    base[20] ^= 1  # of the base's digest
    made.write_bytes(bytes(base))
    assert offered(kept, one, two) == {}


def test_what_is_kept_is_bounded(tmp_path: Path, versions: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.oci.blobs.IN_USE", -1.0)
    blobs = Blobs(tmp_path / "blobs", limit=model(versions[0])[1] + 20_000)
    for one in versions:
        differing.keep(differing.Kept(blobs, Cache(tmp_path)), one, vouched(one))
    assert blobs.size()[1] <= blobs.limit


@pytest.fixture
def there(server: Server, tmp_path: Path, versions: tuple[Path, Path]) -> Iterator[There]:
    """A device with version 1."""
    names.default_file().unlink(missing_ok=True)  # another device had that address
    with a_device(server, tmp_path / "there") as found:
        done = edgekit("flash", versions[0], found.url, *found.words(), *NOW)
        assert done.code == 0, done.err
        yield found


def second(there: There, bundle: Path) -> tuple[int, int, int]:
    """Flash the second version: bytes that were planned, of these as deltas, and bytes that were sent."""
    done = edgekit("flash", bundle, there.url, *there.words(), *NOW)
    assert done.code == 0, done.err
    assert done.facts["runtime_bytes"] == 0
    assert there.live("digits") == "2"
    return done.facts["bundle_bytes"], done.facts["delta_bytes"], done.facts["sent"]


def stored(there: There, sha256: str) -> Path:
    return there.device / "store" / "objects" / sha256[:2] / sha256


def test_a_second_version_is_carried_as_a_delta(there: There, versions: tuple[Path, Path]) -> None:
    dry = edgekit("flash", versions[1], there.url, *there.words(), "--dry-run")
    assert "as deltas, for" in dry.out
    planned, delta, sent = second(there, versions[1])
    assert sent == planned < 0.6 * model(versions[1])[1] + 5_000
    assert 0 < delta < planned
    assert stored(there, model(versions[1])[0]).read_bytes() == (versions[1] / "model.onnx").read_bytes()


def test_whole_files_go_where_no_deltas_are_wanted(there: There, versions: tuple[Path, Path]) -> None:
    done = edgekit("flash", versions[1], there.url, *there.words(), *NOW, "--no-deltas", "--dry-run")
    assert done.facts["delta_bytes"] == 0
    assert done.facts["bundle_bytes"] > model(versions[1])[1]


def test_a_device_whose_base_was_touched_gets_the_whole_file(there: There, versions: tuple[Path, Path]) -> None:
    old = stored(there, model(versions[0])[0])
    raw = np.frombuffer(old.read_bytes(), np.uint8).copy()
    raw[1000] ^= 1
    old.chmod(0o644)
    old.write_bytes(raw.tobytes())
    planned, delta, sent = second(there, versions[1])
    assert delta > 0
    assert sent == planned + model(versions[1])[1]


def test_a_device_whose_runtime_knows_no_deltas_gets_the_whole_file(there: There, versions: tuple[Path, Path]) -> None:
    (file,) = (there.prefix / "current").glob("lib/*/site-packages/edgekit_runtime/options_store.py")
    text = file.read_text()
    assert text.count('"--delta"') == 1
    file.write_text(text.replace('"--delta"', '"--no-such-word", dest="delta"'))
    planned, delta, sent = second(there, versions[1])
    assert delta > 0
    assert model(versions[1])[1] <= sent - (planned - delta) <= delta + model(versions[1])[1]


@pytest.mark.slow
def test_a_delta_goes_over_a_line_that_breaks_at_every_step(
    there: There, versions: tuple[Path, Path], tmp_path: Path
) -> None:
    """Each run gets one step further than the last."""
    for step, how in zip(itertools.count(1), itertools.cycle(("before", "amid", "after"))):
        path = breaking(tmp_path / f"path{step}", at=step, how=how)
        done = edgekit("flash", versions[1], there.url, *there.words(), *NOW, path=path)
        assert there.live("digits") in ("1", "2")
        if done.code == 0:
            break
        assert "hint:" in done.err
    assert step > 5
    assert there.live("digits") == "2"
    assert list((there.device / "store" / "incoming").iterdir()) == []
