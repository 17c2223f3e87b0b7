"""What is held stays as it is, and leaves nothing behind."""

import errno
import gc
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.held import MEMORY, View, hold


@contextmanager
def at_most(what, limit):
    before = resource.getrlimit(what)
    resource.setrlimit(what, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


@pytest.fixture
def view():
    made = View()
    yield made
    made.close()


def test_held_bytes_are_read_and_not_written():
    descriptor = hold("a", [b"he", b"", b"llo"])
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    try:
        assert os.pread(descriptor, 10, 0) == b"hello"
        for number in (descriptor, again):
            with pytest.raises(PermissionError):
                os.pwrite(number, b"j", 0)
            with pytest.raises(PermissionError):
                os.ftruncate(number, 1)
            with pytest.raises(PermissionError):
                os.ftruncate(number, 9)
    finally:
        os.close(descriptor)
        os.close(again)


def test_a_view_shows_files_under_their_names(view):
    view.add("model.onnx", [b"model"])
    view.add("sub/folder/ü.txt", [b"text"])
    view.add_plain("sub/weights.bin", iter([b"wei", b"ghts"]))
    assert (view.folder / "model.onnx").read_bytes() == b"model"
    assert (view.folder / "sub/folder/ü.txt").read_bytes() == b"text"
    assert (view.folder / "sub/weights.bin").read_bytes() == b"weights"


def test_nobody_else_may_look_into_a_view(view):
    view.add_plain("sub/weights.bin", [b"x"])
    assert view.folder.stat().st_mode & 0o777 == 0o700
    assert (view.folder / "sub").stat().st_mode & 0o777 == 0o700
    assert (view.folder / "sub/weights.bin").stat().st_mode & 0o777 == 0o400


def test_a_plain_file_lies_in_memory_and_never_over_another(view):
    view.add_plain("w.bin", [b"x"])
    assert (view.folder / "w.bin").stat().st_dev == MEMORY.stat().st_dev
    with pytest.raises(EdgeKitError, match="held"):
        view.add_plain("w.bin", [b"y"])


def test_where_no_memory_is_a_file_system_a_plain_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit_runtime.held.MEMORY", tmp_path)
    view = View()
    try:
        with pytest.raises(EdgeKitError, match="memory"):
            view.add_plain("w.bin", [b"x"])
        view.add("a", [b"x"])
        assert (view.folder / "a").read_bytes() == b"x"
    finally:
        view.close()


def test_closing_leaves_nothing_and_twice_is_once():
    before = descriptors()
    view = View()
    view.add("a", [b"x" * 100_000])
    view.add_plain("b", [b"y"])
    view.close()
    view.close()
    assert not view.folder.exists()
    assert descriptors() == before
    assert "memfd:" not in Path("/proc/self/maps").read_text()


def test_a_view_that_is_forgotten_leaves_nothing_either():
    gc.collect()  # what other tests forgot
    before, view = descriptors(), View()
    view.add("a", [b"x"])
    folder = view.folder
    del view
    gc.collect()
    assert not folder.exists()
    assert descriptors() == before


def test_the_end_of_the_process_takes_the_folder_along_and_a_fork_does_not():
    code = (
        "import os, sys\nfrom edgekit_runtime.held import View\nview = View()\nview.add('a', [b'x'])\n"
        "if os.fork() == 0:\n    sys.exit()\n"
        "os.wait()\nprint(view.folder, (view.folder / 'a').read_text())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert told[1] == "x"
    assert not Path(told[0]).exists()


def test_what_fails_while_it_is_read_is_not_held():
    def broken():
        yield b"some"
        raise EdgeKitError("touched")

    before, view = descriptors(), View()
    for add in (view.add, view.add_plain):
        with pytest.raises(EdgeKitError, match="touched"):
            add("a", broken())
    view.close()
    assert descriptors() == before


def test_what_does_not_fit_is_an_error_with_a_hint_and_leaves_nothing():
    before, view = descriptors(), View()
    with at_most(resource.RLIMIT_FSIZE, 2**16):
        for add, name in ((view.add, "a"), (view.add_plain, "b")):
            with pytest.raises(EdgeKitError, match=os.strerror(errno.EFBIG)) as raised:
                add(name, [b"x" * 2**17])
            assert raised.value.hint
    view.close()
    assert descriptors() == before


def test_no_descriptors_left_is_an_error_with_a_hint():
    def fill():
        for number in range(10):
            view.add(str(number), [b"x"])

    view = View()
    with at_most(resource.RLIMIT_NOFILE, len(descriptors()) + 3), pytest.raises(EdgeKitError, match="held"):
        fill()
    view.close()
    assert not view.folder.exists()


HOLDING = """
import os, sys
from edgekit_runtime.held import View
view = View()
view.add_plain('weights', [b'secret'])
print(view.folder, flush=True)
if 'fork' in sys.argv and os.fork():
    os._exit(0)
sys.stdin.read()
"""


def holding(*words):
    return subprocess.Popen(
        [sys.executable, "-c", HOLDING, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_what_a_killed_process_left_goes_with_the_next_view_and_what_a_live_one_holds_stays():
    killed, alive, forked = holding(), holding(), holding("fork")
    folders = [Path(one.stdout.readline().strip()) for one in (killed, alive, forked)]
    killed.kill()
    for one in (killed, forked):
        one.wait()
    assert all(folder.is_dir() for folder in folders)
    View().close()
    assert [folder.is_dir() for folder in folders] == [False, True, True]
    for one in (alive, forked):
        one.stdin.close()
    alive.wait()
    forked.stdout.read()  # until the fork is gone too
    View().close()
    assert not any(folder.exists() for folder in folders)


def test_what_others_called_so_is_not_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit_runtime.held.MEMORY", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary").write_text("dear")
    (tmp_path / "edgekit-1-link").symlink_to(tmp_path / "mine")
    (tmp_path / "edgekit-notes").mkdir()
    View().close()
    assert (tmp_path / "mine" / "diary").read_text() == "dear"
    assert (tmp_path / "edgekit-1-link").is_symlink()
    assert (tmp_path / "edgekit-notes").is_dir()


def test_views_that_are_made_at_once_do_not_sweep_each_other():
    code = "from edgekit_runtime.held import View\n" + "for _ in range(300):\n    view = View()\n"
    code += "    view.add('a', [b'x'])\n    assert (view.folder / 'a').read_bytes() == b'x'\n    view.close()\n"
    running = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [one.communicate()[1] for one in running] == ["", "", ""]


def test_no_room_for_a_folder_is_an_error_with_a_hint():
    before = os.listdir(MEMORY)
    with at_most(resource.RLIMIT_NOFILE, 3), pytest.raises(EdgeKitError, match="held"):
        View()
    assert os.listdir(MEMORY) == before
