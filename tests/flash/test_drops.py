"""The connection breaks at every step of a flash, before, amid and after it: the same again finishes, and meanwhile
the device has the version before or the new one, whole."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.sshd import Server
from tests.flash.devices import There, a_bundle, a_device, breaking, edgekit, steps

pytestmark = pytest.mark.slow
HOWS = ("before", "amid", "after")
NOW = ("--yes", "--probation", "0")


@pytest.fixture
def there(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with a_device(server, tmp_path / "there") as found:
        yield found


def test_an_empty_device_is_flashed_through_a_line_that_breaks_at_every_step(there: There, tmp_path: Path) -> None:
    """Each run gets one step further than the last."""
    bundle = a_bundle(tmp_path / "one")
    for count, how in zip(itertools.count(1), itertools.cycle(HOWS)):
        path = breaking(tmp_path / f"path{count}", at=count, how=how)
        done = edgekit("flash", bundle, there.url, *there.words(), *NOW, path=path)
        assert there.live() in (None, "1")
        if steps(path) < count:
            break
        assert done.code == 1, (count, how, done.out, done.err)
        assert "hint:" in done.err
    assert done.code == 0, done.err
    assert count > 4
    assert there.live() == "1"


def test_a_device_keeps_the_old_version_or_has_the_new_one_wherever_the_line_breaks(
    there: There, tmp_path: Path
) -> None:
    """A version for each step, whose flash breaks there, and is done again."""
    assert edgekit("flash", a_bundle(tmp_path / "0"), there.url, *there.words(), *NOW).code == 0
    for step, how in zip(itertools.count(1), itertools.cycle(HOWS[::-1])):
        bundle = a_bundle(tmp_path / f"bundle{step}", str(step + 1), step + 1, noise=200_000)
        path = breaking(tmp_path / f"path{step}", step, how)
        done = edgekit("flash", bundle, there.url, *there.words(), *NOW, path=path)
        live = there.live()
        assert live in (str(step), str(step + 1)), (step, done.err)
        again = edgekit("flash", bundle, there.url, *there.words(), *NOW)
        assert again.code == 0, (step, again.err)
        assert there.live() == str(step + 1)
        if steps(path) < step:
            assert done.code == 0
            break
        assert done.code == 1
    assert step > 5
