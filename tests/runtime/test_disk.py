"""The real disk behind the plug, and that it and the simulated one are the same to the store."""

import errno
import os
import threading
from pathlib import Path

import pytest
from edgekit_runtime.disk import REAL, Disk, make_folder, plain_errors, remove, replace, swap_link, write
from edgekit_runtime.errors import BadBundle, EdgeKitError, NotFound
from edgekit_runtime.files import in_folder

from tests.runtime.simulated_disk import Folder, SimulatedDisk, frozen, survivors


def tree(disk: Disk, path: Path) -> object:
    """All that is there."""
    kind = disk.kind(path)
    if kind == "folder":
        return {name: tree(disk, path / name) for name in disk.names(path)}
    if kind == "link":
        return disk.target(path)
    with disk.open(path) as file:
        return file.read()


def simulated(top: Path) -> SimulatedDisk:
    """One that has this folder."""
    folder = Folder()
    for part in reversed(top.parts[1:]):
        folder = Folder({part: folder})
    return SimulatedDisk(folder)


def test_the_simulated_disk_does_what_the_real_one_does(tmp_path: Path) -> None:
    kept: list[object] = []
    for disk in (REAL, simulated(tmp_path)):
        make_folder(disk, tmp_path / "a" / "b")
        replace(disk, tmp_path / "a" / "file", b"one")
        replace(disk, tmp_path / "a" / "file", b"two")
        swap_link(disk, tmp_path / "a" / "link", "b")
        swap_link(disk, tmp_path / "a" / "link", "c")
        sink = disk.append(tmp_path / "log")
        sink.write(b"1\n")
        sink.sync()
        sink.close()
        make_folder(disk, tmp_path / "gone" / "deep")
        write(disk, tmp_path / "gone" / "deep" / "file", [b"x" * 10, b"y" * 5])
        assert remove(disk, tmp_path / "gone") == 15
        errors = []
        for wrong in (
            lambda disk=disk: disk.mkdir(tmp_path / "a"),
            lambda disk=disk: disk.create(tmp_path / "log"),
            lambda disk=disk: disk.rmdir(tmp_path / "a"),
            lambda disk=disk: disk.unlink(tmp_path / "none"),
            lambda disk=disk: disk.open(tmp_path / "a" / "link"),
            lambda disk=disk: disk.symlink("x", tmp_path / "log"),
            lambda disk=disk: disk.names(tmp_path / "log"),
        ):
            with pytest.raises(OSError) as caught:  # noqa: PT011
                wrong()
            errors.append(caught.value.errno)
        kept.append((tree(disk, tmp_path), errors, disk.size(tmp_path / "log"), disk.kind(tmp_path / "none")))
    assert kept[0] == kept[1]


def test_a_name_and_bytes_that_were_not_synced_may_be_lost_or_torn() -> None:
    disk = SimulatedDisk()
    sink = disk.create(Path("/new"))
    sink.write(b"abcd")
    left = survivors(disk.root)
    assert left == {("folder",), *(("folder", ("new", ("file", data))) for data in (b"", b"ab", b"abcd"))}
    sink.sync()
    disk.sync_folder(Path("/"))
    assert survivors(disk.root) == {frozen(disk.root)}


def test_a_rename_before_the_bytes_were_synced_may_give_an_empty_file() -> None:
    disk = SimulatedDisk()
    replace(disk, Path("/file"), b"old!")
    sink = disk.create(Path("/file.tmp"))
    sink.write(b"new!")
    disk.rename(Path("/file.tmp"), Path("/file"))
    disk.sync_folder(Path("/"))
    assert ("folder", ("file", ("file", b""))) in survivors(disk.root)


def test_what_fails_while_it_is_written_leaves_no_file(tmp_path: Path) -> None:
    def chunks():  # type: ignore[no-untyped-def]
        yield b"some"
        raise BadBundle("the rest is wrong")

    with pytest.raises(BadBundle):
        write(REAL, tmp_path / "file", chunks())
    assert not list(tmp_path.iterdir())


def test_no_link_is_written_or_read_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("target")
    for wrong in (REAL.append, REAL.open):
        with pytest.raises(OSError, match="symbolic links"):
            wrong(tmp_path / "link")
    replace(REAL, tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"mine"
    assert remove(REAL, tmp_path) > 0


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a plain file"):
        REAL.open(tmp_path / "pipe")
    with pytest.raises(BadBundle, match="not a plain file"):
        in_folder(tmp_path)


def test_a_lock_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with REAL.lock(tmp_path / "lock", 0):
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    with pytest.raises(BlockingIOError), REAL.lock(tmp_path / "lock", 0.1):
        pass
    threading.Timer(0.1, let_go.set).start()
    with REAL.lock(tmp_path / "lock", 60):
        pass
    thread.join()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES, errno.ENXIO])
def test_an_error_of_the_system_says_what_to_do(number: int) -> None:
    with pytest.raises(EdgeKitError) as caught, plain_errors("/some/where"):
        raise OSError(number, os.strerror(number))
    assert "/some/where" in caught.value.what
    assert caught.value.hint


@pytest.mark.slow
def test_a_deep_folder_is_removed_without_a_deep_stack(tmp_path: Path) -> None:
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        os.mkdir("top")
        os.chdir("top")
        for _ in range(1020):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    assert remove(REAL, tmp_path / "top") == 0
    assert not (tmp_path / "top").exists()


def test_a_folder_is_its_plain_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    files = in_folder(tmp_path)
    assert files.names == {"a/b/one", "two"}
    with files.open("a/b/one") as file:
        assert file.read() == b"1"


@pytest.mark.parametrize("name", ["../two", "a/../two", "/etc/passwd", "a//b"])
def test_nothing_outside_a_folder_is_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "two").write_bytes(b"2")
    (tmp_path / "in" / "two").write_bytes(b"2")
    with pytest.raises(OSError):  # noqa: PT011
        in_folder(tmp_path / "in").open(name)


def test_a_folder_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "one").write_bytes(b"1")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "one").write_bytes(b"secret")
    files = in_folder(tmp_path / "in")
    (tmp_path / "in" / "a").rename(tmp_path / "in" / "was")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "out")
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        files.open("a/one")


def test_links_too_many_files_and_names_that_are_no_text_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="does not read"):
        in_folder(tmp_path / "none")
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(BadBundle, match="'link' is not a plain file"):
        in_folder(tmp_path)
    (tmp_path / "link").unlink()
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff")).write_bytes(b"")
    with pytest.raises(BadBundle, match="not a plain file"):
        in_folder(tmp_path)
    monkeypatch.setattr("edgekit_runtime.files.MAX_FILES", 0)
    with pytest.raises(BadBundle, match="more than 0"):
        in_folder(tmp_path)


def test_a_file_in_a_folders_place_is_not_called_a_broken_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EdgeKitError, match="Not a directory") as caught, plain_errors("the store"):
        replace(REAL, tmp_path / "file" / "floor.json", b"{}")
    assert "a file stands where" in caught.value.hint
    (tmp_path / "folder").mkdir()
    with pytest.raises(EdgeKitError, match="Is a directory") as caught, plain_errors("the store"):
        replace(REAL, tmp_path / "folder", b"{}")
    assert "a folder stands where" in caught.value.hint


def test_no_other_user_may_write_where_a_process_without_a_mask_made_folders(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_folder(REAL, tmp_path / "a" / "b")
        write(REAL, tmp_path / "a" / "b" / "c", [b""])
    finally:
        os.umask(before)
    assert [
        path.stat().st_mode & 0o022 for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c")
    ] == [0] * 3
