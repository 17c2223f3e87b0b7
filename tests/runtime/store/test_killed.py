"""A process that is killed at any moment, on the real disk: what it leaves opens, and others go on."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from edgekit_runtime.errors import Busy
from edgekit_runtime.store import Store

from tests.runtime.store.crashes import check_whole, live
from tests.runtime.store.steps import MODEL, install, installed

ROOT = Path(__file__).parents[3]
CHILD = """
import sys
from pathlib import Path
from edgekit_runtime.store import Store
from tests.runtime.store.steps import MODEL, install, NOW
store, number = Store(Path(sys.argv[1]), Path(sys.argv[2])), int(sys.argv[3])
print("ready", flush=True)
while True:
    install(store, number)
    store.good(MODEL)
    number += 1
    install(store, number)
    store.roll_back(MODEL, "it answers wrongly")
    store.boot("another", NOW)
    store.gc()
"""


@pytest.mark.slow
def test_thirty_kills_at_random_leave_a_whole_version_each_time(tmp_path: Path) -> None:
    draw = random.Random(5)
    store = Store(tmp_path / "store", tmp_path / "floor.json")
    installed(store, 1)
    for turn in range(30):
        words = [sys.executable, "-c", CHILD, store.root, tmp_path / "floor.json", str(100 * turn + 2)]
        child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(draw.random() * 0.3)
        assert child.poll() is None, "it ended by itself"
        child.kill()
        child.wait()
        child.stdout.close()
        assert live(store) is not None
        slot = store.slot(MODEL)
        assert slot is not None
        for id in slot.kept:
            check_whole(store, id)
        assert not slot.unsound
        store.gc()
        assert live(store) == slot.live
        assert not list(store.root.rglob("*.tmp"))
    version = install(store, 99_999)
    store.good(MODEL)
    assert live(store) == version.id
    assert len(store.history(MODEL)) > 30


def test_the_second_of_two_installations_is_told_of_the_first(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom edgekit_runtime.store import Store\n"
        "with Store(Path(sys.argv[1]), Path(sys.argv[2])).installing():\n"
        "    print('ready', flush=True)\n    sys.stdin.read()\n"
    )
    store = Store(tmp_path / "store", tmp_path / "floor.json")
    installed(store, 1)
    words = [sys.executable, "-c", code, store.root, tmp_path / "floor.json"]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    with pytest.raises(Busy, match="another installation is going on"):
        install(store, 2)
    with pytest.raises(Busy, match="another installation is going on"):
        store.gc()
    store.good(MODEL)  # a server goes on meanwhile
    assert store.boot("another", 0) == ()
    child.kill()
    child.wait()
    install(store, 2)  # its lock died with it
    child.stdout.close()
    if child.stdin is not None:
        child.stdin.close()
