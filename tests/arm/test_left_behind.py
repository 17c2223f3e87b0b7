"""Emulation leaves nothing on the host: no process, no registration with the kernel, no file outside its folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arm.conftest import Fetch
from tests.arm.exhibits import found
from tests.arm.replaying import target_of
from tests.arm.serving import serving, within

pytestmark = pytest.mark.slow

CORE = "cortex-a72"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
REPLAY = """
import sys
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engines import EngineOptions
from edgekit_runtime.selftest import selftest
from edgekit.places.cores import CORES
from edgekit.places.emulated import find_core
from edgekit.places.there import open_at
from tests.arm.exhibits import artifact
bundle = open_bundle(sys.argv[2])
with open_at(find_core(CORES[sys.argv[1]], bundle.manifest.engine), EngineOptions(), lambda words: None) as there:
    assert selftest(bundle, there.runner(artifact(bundle))).passed
"""
LOCKED = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro /
for other in "$HOME" /tmp /var /root; do
  if [ "$(stat -f -c %i "$other")" != "$(stat -f -c %i /)" ]; then mount -o remount,bind,ro "$other"; fi
done
if touch "$HOME/.written" /tmp/.written 2>/dev/null; then exit 77; fi
shift
exec "$@"
"""
"""In a namespace of its own nothing can be written but what lies below one folder."""


def processes(mark: str) -> list[str]:
    """The programs that carry a mark in their environment, but for this one."""
    told = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.name != str(os.getpid()) and mark.encode() in (path / "environ").read_bytes():
                told.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return told


def registered() -> list[str]:
    """What the kernel hands to an interpreter."""
    return sorted(path.name for path in BINFMT.iterdir()) if BINFMT.is_dir() else []


def test_a_worker_and_a_server_end_with_all_that_they_made(
    fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(CORE)
    bundle, before = found("tflite", "dense float32"), registered()
    for name in ("TMPDIR", "served"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "TMPDIR"))
    monkeypatch.setenv("EDGEKIT_TEST_MARK", mark := f"mark-{os.getpid()}-left-behind")
    command = [sys.executable, "-c", REPLAY, CORE, str(bundle.folder)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    with serving(CORE, [bundle.folder], tmp_path / "served") as live:
        within(bundle, lambda feeds: live.by_json(bundle.manifest.name, feeds))
        assert processes(mark)
    assert processes(mark) == []
    assert list((tmp_path / "TMPDIR").iterdir()) == []
    assert registered() == before


def test_nothing_is_written_outside_the_folder_for_temporary_files(fetch: Fetch, tmp_path: Path) -> None:
    fetch(CORE)
    assert target_of(CORE).name == "rpi4"
    bundle = found("tflite", "dense float32")
    locked = ["unshare", "--mount", "sh", "-c", LOCKED, "sh", str(tmp_path)]
    able = subprocess.run([*locked, "true"], capture_output=True, text=True)
    if able.returncode:
        pytest.skip(f"no file system can be made read-only here: {able.stderr.strip() or 'it stayed writable'}")
    command = [*locked, sys.executable, "-B", "-c", REPLAY, CORE, str(bundle.folder)]
    done = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(tmp_path)}, cwd=Path(__file__).parents[2], capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
