"""A device over a real OpenSSH server: what runs there, what is said when it cannot, and that nothing stays behind."""

import os
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.detect import detect
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.errors import EdgeKitError, NotFound

from edgekit.places.over_ssh import over_ssh
from edgekit.places.there import open_at
from examples.sshd import Server, serving
from tests.runtime.bundles import ENTRIES, some
from tests.test_places import artifact, silent

ONE = EngineOptions(threads=1)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A folder that the device is to take for its scratch folders."""
    folder = tmp_path / "device-tmp"
    folder.mkdir()
    return folder


def a_python(folder: Path, lines: str, name: str = "python3") -> Path:
    """A Python of the device: a script in front of this one."""
    path = folder / name
    path.write_text(f'#!/bin/sh\n{lines}\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def scratch_python(folder: Path, temporary: Path) -> Path:
    """A Python that notes where its scratch folder is: the script's, by the archive that it was given."""
    return a_python(folder, f'case "$*" in *unpack.py*) echo "$2" >> {temporary}/seen;; esac')


def scratch_of(temporary: Path) -> Path:
    """The scratch folder that the last worker had."""
    return Path((temporary / "seen").read_text().splitlines()[-1]).parent


@pytest.mark.slow
@pytest.mark.parametrize("engine", list(ENTRIES))
def test_an_artifact_runs_on_the_device_and_nothing_stays(
    tmp_path: Path, temporary: Path, server: Server, engine: str
) -> None:
    one = artifact(tmp_path / "model", engine, inside=True)
    place = over_ssh(server.url(str(scratch_python(tmp_path, temporary))), server.config)
    with open_at(place, ONE, silent) as found:
        assert found.machine["model"] == detect()["model"]
        answer = found.runner(one)({"x": some(3)})["y"]
        scratch = scratch_of(temporary)
        assert list(scratch.rglob(ENTRIES[engine]))
    assert np.array_equal(answer, one.in_floats().open_model()({"x": some(3)})["y"])
    assert gone(scratch)


@pytest.mark.slow
def test_a_device_gives_times_and_memory(tmp_path: Path, server: Server) -> None:
    one, two = artifact(tmp_path / "a"), artifact(tmp_path / "b", inside=True)
    with open_at(over_ssh(server.url(sys.executable), server.config), ONE, silent) as found:
        times = found.time({"float": one, "int8": two}, {"x": some()}, 0.2)
        measured = found.footprint(two, {"x": some()})
    assert list(times) == ["float", "int8"]
    assert len(times["float"]) == len(times["int8"]) >= 10
    assert all(0 < ms < 1000 for taken in times.values() for ms in taken)
    assert measured["peak_mb"] > measured["engine_mb"] > 5


@pytest.mark.slow
def test_an_engine_that_crashes_leaves_nothing_on_the_device(tmp_path: Path, temporary: Path, server: Server) -> None:
    place = over_ssh(server.url(str(scratch_python(tmp_path, temporary))), server.config)
    with open_at(place, ONE, silent) as found:
        scratch = scratch_of(temporary)
        os.kill(worker_in(scratch), 9)
        with pytest.raises(EdgeKitError, match="the worker ended"):
            found.runner(artifact(tmp_path / "model"))({"x": some()})
    assert gone(scratch)


@pytest.mark.slow
def test_a_build_that_is_killed_leaves_nothing_on_the_device(tmp_path: Path, temporary: Path, server: Server) -> None:
    place = over_ssh(server.url(str(scratch_python(tmp_path, temporary))), server.config)
    with open_at(place, ONE, silent) as found:
        scratch = scratch_of(temporary)
        found._process.kill()
        assert gone(scratch)


@pytest.mark.slow
def test_a_device_without_python_is_told(server: Server) -> None:
    assert failed(server, "/nowhere/python3", NotFound) == f"127.0.0.1:{server.port} has no /nowhere/python3"


@pytest.mark.slow
def test_a_python_that_is_too_old_is_told(tmp_path: Path, server: Server) -> None:
    old = a_python(
        tmp_path,
        f"case $1 in -m) exec false;; esac\nexec {sys.executable} -c "
        '"import sys; sys.version_info=(3,9); sys.version=\\"3.9.2 x\\"; '
        'sys.argv=sys.argv[1:]; exec(open(sys.argv[0]).read())" "$@"',
    )
    assert "is 3.9.2; the runtime needs Python 3.11" in failed(server, str(old), NotFound)


@pytest.mark.slow
def test_a_device_without_numpy_is_told(tmp_path: Path, server: Server) -> None:
    bare = a_python(tmp_path, f'exec {sys.executable} -S "$@"')
    assert "has no numpy" in failed(server, str(bare), NotFound)


@pytest.mark.slow
def test_a_device_without_room_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, "SetEnv TMPDIR=/nowhere/at-all") as full:
        assert "has no room for a scratch folder: mktemp: failed" in failed(full, sys.executable, EdgeKitError)


@pytest.mark.slow
def test_an_unknown_host_is_not_taken_on_trust(tmp_path: Path, server: Server) -> None:
    (tmp_path / "known_hosts").touch()
    text = (server.folder / "config").read_text().replace(f"{server.folder}/known_hosts", f"{tmp_path}/known_hosts")
    (tmp_path / "config").write_text(text)
    assert "the host's key is not known yet" in failed(server, "", EdgeKitError, tmp_path / "config")
    assert (tmp_path / "known_hosts").read_text() == ""


@pytest.mark.slow
def test_a_host_whose_key_has_changed_is_refused(tmp_path: Path, server: Server) -> None:
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {(server.folder / 'user.pub').read_text()}")
    text = (server.folder / "config").read_text().replace(f"{server.folder}/known_hosts", f"{tmp_path}/known_hosts")
    (tmp_path / "config").write_text(text)
    assert "has another key than known_hosts says" in failed(server, "", EdgeKitError, tmp_path / "config")


@pytest.mark.slow
def test_a_device_that_does_not_know_our_key_is_told(tmp_path: Path, server: Server) -> None:
    text = (server.folder / "config").read_text().replace(f"{server.folder}/user", f"{server.folder}/host")
    (tmp_path / "config").write_text(text)
    assert "does not let us in" in failed(server, "", EdgeKitError, tmp_path / "config")


@pytest.mark.slow
def test_a_device_that_is_off_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ssh://127.0.0.1:{free.getsockname()[1]}"
        with (
            pytest.raises(EdgeKitError, match=r"cannot be reached: .*Connection refused"),
            open_at(over_ssh(url, Path("/dev/null")), ONE, silent),
        ):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "pi@raspberry",
        "ssh://",
        "http://pi",
        "ssh://pi:secret@raspberry",
        "ssh://-oProxyCommand=touch%20x",
        "ssh://-l@raspberry",
        "ssh://host:port",
        "ssh://host:99999",
        "ssh://ho st",
        "ssh://host/python?x",
        "ssh://host;reboot",
    ],
)
def test_what_is_no_devices_address_is_refused(url: str) -> None:
    with pytest.raises(EdgeKitError, match="is no device's address") as caught:
        over_ssh(url)
    assert "ssh://user@host" in caught.value.hint


def test_an_address_becomes_one_ssh_command_that_asks_nothing(tmp_path: Path) -> None:
    place = over_ssh("ssh://pi@raspberry:2222/opt/my%20python")
    command = place.start(tmp_path).command
    assert (place.name, place.kind, place.words) == ("ssh://pi@raspberry:2222", "device", "pi@raspberry:2222")
    assert command[:2] == ("ssh", "-T")
    assert command[-3:-1] == ("--", "raspberry")
    assert "BatchMode=yes" in command
    assert command[-7:-3] == ("-p", "2222", "-l", "pi")
    assert "StrictHostKeyChecking" not in " ".join(command)
    assert "/opt/my python" in command[-1]


def failed(server: Server, python: str, kind: type[EdgeKitError], config: Path | None = None) -> str:
    """What is said of a device that cannot be used; there is a hint too."""
    place = over_ssh(server.url(python), config or server.config)
    with pytest.raises(kind) as caught, open_at(place, ONE, silent):
        pass
    assert "\n" not in caught.value.what
    assert caught.value.hint
    return caught.value.what


def worker_in(scratch: Path) -> int:
    """The process that runs the worker whose files are in `scratch`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "edgekit_runtime.worker" in words and f"{scratch}/files" in words:
            return int(process.name)
    raise AssertionError("no worker there")


def gone(folder: Path) -> bool:
    """Whether the folder is removed within some seconds."""
    for _ in range(100):
        if not folder.exists():
            return True
        time.sleep(0.1)
    return False
