"""The ring on disk: what comes back, what a kill, a power cut, a full disk and a wrong clock leave of it."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.telemetry import slate as slates
from edgekit_runtime.telemetry.boots import Boot, this_boot
from edgekit_runtime.telemetry.packing import pack, unpack
from edgekit_runtime.telemetry.recording import record
from edgekit_runtime.telemetry.ring import TOGETHER, Ring

EPOCH = 1_790_000_000_000
MB = 2**20


class Clock:
    """A machine's clock that tests turn: `boot` since its start, `wall` as it is set."""

    def __init__(self, wall: int = EPOCH, name: str = "a boot") -> None:
        self.ms, self.wall = 0, wall
        self.boot = Boot(name, lambda: self.ms)

    @property
    def now(self) -> int:
        return self.wall + self.ms

    def on(self, ms: int) -> None:
        self.ms += ms


def families(*values: float, label: str = "m") -> list[Family]:
    """One gauge a value."""
    named = enumerate(values)
    return [Family(f"g{at}", "gauge", "A number.", (Sample(value, (("model", label),)),)) for at, value in named]


def fill(ring: Ring, clock: Clock, slots: int, numbers: int = 4, seed: int = 0) -> dict[int, list[float]]:
    """So many slots of random numbers, and what they were by time."""
    drawn = random.Random(seed)
    kept = {}
    for _ in range(slots):
        values = [drawn.random() for _ in range(numbers)]
        assert ring.put(families(*values), clock.now)
        kept[clock.now] = values
        clock.on(10_000)
    return kept


def read(ring: Ring) -> dict[int, list[float]]:
    """All closed slots by time."""
    slots = ring.read(0, 10**6)
    found = {slot.when_ms: slot.values.tolist() for slot in slots}
    assert len(found) == len(slots), "two slots of one time"
    return found


def dropped(ring: Ring) -> dict[str, float]:
    """By reason, those that are not 0."""
    return {one.labels[0][1]: one.value for one in ring.families()[0].samples if one.value}


def on_disk(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.iterdir())


@pytest.mark.parametrize("base", [None, np.array([1.0, 2.0, np.nan, 0.0, 5e-324])])
def test_numbers_come_back_to_the_bit(base: np.ndarray | None) -> None:
    values = np.array([1.0, -0.0, np.nan, np.inf, 1e300])
    assert unpack(pack(values, base), base, 5).tobytes() == values.tobytes()
    with pytest.raises(ValueError, match="numbers"):
        unpack(pack(values, base)[:-3] + b"abc", base, 5)
    with pytest.raises(ValueError, match="numbers"):
        unpack(pack(np.zeros(10**6), None), None, 5)


def test_what_was_put_comes_back_whole(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, 4 * MB, boot=clock.boot)
    kept = fill(ring, clock, 200)
    ring.close()
    assert read(Ring(tmp_path, 4 * MB, boot=clock.boot)) == kept


def test_series_keep_their_names_kinds_and_words(tmp_path: Path) -> None:
    made = Family("h_seconds", "histogram", "How long.", (Sample(3, (("le", "+Inf"),), "_bucket"),))
    ring = Ring(tmp_path, MB)
    ring.put([made, Family("c_total", "counter", "How many.", (Sample(7),)), Family("none", "gauge", "", ())], EPOCH)
    ring.close()
    (slot,) = Ring(tmp_path, MB).read(0, 10)
    first, second = slot.series
    assert (first.name, first.kind, first.words, first.labels) == (
        "h_seconds_bucket",
        "histogram",
        "How long.",
        (("le", "+Inf"),),
    )
    assert (second.name, second.kind) == ("c_total", "counter")
    assert slot.values.tolist() == [3.0, 7.0]


def test_a_slot_is_what_was_last_put_in_its_time_and_not_read_before_it_ended(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, MB, boot=clock.boot)
    for second in range(10):
        ring.put(families(second), clock.now)
        assert ring.read(0, 10) == []
        clock.on(1000)
    ring.put(families(10.0), clock.now)
    assert read(ring) == {EPOCH + 9000: [9.0]}


def test_series_that_come_and_go_are_read_as_they_were(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, MB, boot=clock.boot)
    for label in ("a", "b", "a", "a", "c"):
        ring.put(families(1.0, 2.0, label=label), clock.now)
        clock.on(10_000)
    ring.close()
    slots = Ring(tmp_path, MB).read(0, 10)
    assert [slot.series[0].labels[0][1] for slot in slots] == ["a", "b", "a", "a", "c"]


@pytest.mark.slow
def test_the_ring_stays_within_its_bytes_and_the_newest_stay(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, MB, boot=clock.boot)
    assert ring.unsent("there", 1) == []
    kept: dict[int, list[float]] = {}
    most = 0
    for seed in range(20):
        kept |= fill(ring, clock, 50, numbers=150, seed=seed)
        most = max(most, on_disk(tmp_path))
    assert most <= MB
    ring.put(families(), clock.now)
    found = read(ring)
    assert found == dict(list(kept.items())[-len(found) :])
    assert len(found) >= 250
    assert dropped(ring) == {"full": 1000 - len(found)}, "what a destination never had is counted"


@pytest.mark.slow
def test_a_lower_limit_makes_the_file_shorter(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, 8 * MB, boot=clock.boot)
    kept = fill(ring, clock, 1500, numbers=150)
    ring.close()
    assert on_disk(tmp_path) > 1.5 * MB
    ring = Ring(tmp_path, MB, boot=clock.boot)
    found = read(ring)
    ring.close()
    assert on_disk(tmp_path) <= MB
    assert found == dict(list(kept.items())[-len(found) :])
    assert len(found) >= 250


@pytest.mark.slow
def test_what_is_too_old_goes(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, MB, days=0.1, boot=clock.boot)
    fill(ring, clock, 1500)
    found = read(ring)
    assert 864 - 1 <= len(found) <= 864 + 60
    assert not dropped(ring), "nobody waits for it"


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "state", MB)
    ring.put(families(1.0), EPOCH)
    assert {one.stat().st_mode & 0o777 for one in (tmp_path / "state").iterdir()} == {0o600}


@pytest.mark.slow
def test_a_second_server_is_told_that_the_file_is_taken(tmp_path: Path) -> None:
    ring = Ring(tmp_path, MB)
    ring.put(families(1.0), EPOCH)
    run = "import sys, pathlib; from edgekit_runtime.telemetry import ring; ring.Ring(pathlib.Path(sys.argv[1]), 2**20)"
    done = subprocess.run([sys.executable, "-c", run, tmp_path], capture_output=True, text=True, timeout=30)
    assert "EdgeKitError: another server keeps its telemetry" in done.stderr


CHILD = """
import os, sys
from pathlib import Path
from edgekit_runtime.families import Family, Sample
from edgekit_runtime.telemetry.ring import Ring
ring = Ring(Path(sys.argv[1]), 2**20, interval=0.005)
when = int(sys.argv[2])
while True:
    when += 1
    ring.event(when, "tick", at=when)
    ring.put([Family("g", "gauge", "", tuple(Sample(when + n, (("n", str(n)),)) for n in range(50)))], when)
    os.write(1, b"%d\\n" % when)
"""


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_put(tmp_path: Path) -> None:
    when = EPOCH
    for turn in range(4):
        child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path, str(when)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(random.Random(turn).randrange(50, 400)):
            line = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        when = int([line, *child.stdout.read().splitlines()][-1])
        child.wait()
        child.stdout.close()
        ring = Ring(tmp_path, MB)
        last = ring.read(0, 10**6)[-1]
        assert last.values.tolist() == [last.values[0] + n for n in range(50)]
        assert when <= last.values[0] <= when + 1, "the last put, or the one that was being told"
        assert ring.events(1)[0][1:] == ("tick", {"at": last.values[0]})
        ring.close()
        database = sqlite3.connect(tmp_path / "telemetry.db")
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.close()


def left(ring: Ring, folder: Path, to: Path) -> Path:
    """The folder as a kill now would leave it."""
    shutil.copytree(folder, to)
    ring.close()
    return to


def test_what_waits_for_the_file_is_taken_up_from_the_slate(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path / "a", MB, boot=clock.boot)
    kept = fill(ring, clock, 3)
    ring.event(clock.now, "loaded", model="m")
    kept |= fill(ring, clock, 1)
    ring.sent("there", 2)
    folder = left(ring, tmp_path / "a", tmp_path / "b")
    with sqlite3.connect(folder / "telemetry.db") as database:
        assert database.execute("SELECT count(*) FROM slots").fetchone() == (0,), "else this shows nothing"
    database.close()
    ring = Ring(folder, MB, boot=clock.boot)
    assert read(ring) == kept
    assert ring.events(9) == [(EPOCH + 30_000, "loaded", {"model": "m"})]
    assert [slot.cursor for slot in ring.unsent("there", 9)] == [3, 4]


def test_what_is_in_the_file_already_is_not_doubled_by_the_slate(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path / "a", MB, boot=clock.boot)
    for number in range(100):
        ring.event(clock.now, "tick", number=number)
    kept = fill(ring, clock, 3)
    slate = (tmp_path / "a" / "telemetry.open").read_bytes()
    kept |= fill(ring, clock, 20, seed=1)
    ring.close()
    (tmp_path / "a" / "telemetry.open").write_bytes(slate)  # a kill between the file's commit and the slate's clearing
    ring = Ring(tmp_path / "a", MB, boot=clock.boot)
    assert read(ring) == kept
    assert [facts["number"] for _, _, facts in ring.events(99)] == list(range(99, 99 - 64, -1))


def test_a_slot_of_the_last_minute_is_read_and_sent_though_it_is_not_in_the_file(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, MB, boot=clock.boot)
    for at in range(1, 200):
        fill(ring, clock, 1, seed=at)
        slots = ring.unsent("there", 10)
        assert [slot.cursor for slot in slots] == ([at - 1] if at > 1 else [])
        ring.sent("there", at - 1)


def cut(whole: bytes) -> bytes:
    return whole[: len(whole) // 2 + 40]


def of_another_hand(whole: bytes) -> bytes:
    content = b'[[[7,1,1,0,3]],[[1,1,1,"x","{}"]],{"there":["a",0]}]\nabc'
    head = slates.HEAD.pack(slates.MAGIC, 2**40, len(content), slates._sum(2**40, content))
    return (head + content).ljust(slates.SIZE, b"\0")


@pytest.mark.parametrize(
    "spoil", [cut, of_another_hand, lambda _: b"", lambda whole: random.Random(0).randbytes(99_999)]
)
def test_a_slate_that_does_not_read_costs_the_last_minute_at_most(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    clock = Clock()
    ring = Ring(tmp_path / "a", MB, boot=clock.boot)
    kept = fill(ring, clock, 20)
    folder = left(ring, tmp_path / "a", tmp_path / "b")
    (folder / slates.NAME).write_bytes(spoil((folder / slates.NAME).read_bytes()))
    ring = Ring(folder, MB, boot=clock.boot)
    found = read(ring)
    assert list(found) == list(kept)[: len(found)]
    assert len(found) >= 14
    clock.on(10_000)
    kept = fill(ring, clock, 3, seed=1)
    ring.close()
    assert kept.items() <= read(Ring(folder, MB, boot=clock.boot)).items()


def test_a_slate_whose_disk_fails_says_so_and_ends_nothing(tmp_path: Path) -> None:
    slate = slates.Slate(tmp_path)
    assert slate.keep(b"one")
    os.truncate(tmp_path / slates.NAME, 0)  # storing into such a page is SIGBUS
    assert not slate.keep(b"two")
    slate.close()


def test_of_a_slate_that_a_kill_cut_the_one_before_counts(tmp_path: Path) -> None:
    slate = slates.Slate(tmp_path)
    for one in (b"one", b"two", b"three"):
        assert slate.keep(one)
    assert not slate.keep(bytes(slates.HALF))
    slate.close()
    whole = bytearray((tmp_path / slates.NAME).read_bytes())
    assert slates.Slate(tmp_path).found == b"three"
    place = whole.index(b"three")
    whole[place] ^= 1
    (tmp_path / slates.NAME).write_bytes(whole)
    assert slates.Slate(tmp_path).found == b"two"


def test_where_no_slate_can_be_had_each_second_goes_to_the_file(tmp_path: Path) -> None:
    (tmp_path / slates.NAME).mkdir()
    clock = Clock()
    ring = Ring(tmp_path, MB, boot=clock.boot)
    kept = fill(ring, clock, 3)
    with sqlite3.connect(left(ring, tmp_path, tmp_path.parent / "copy") / "telemetry.db") as database:
        assert database.execute("SELECT count(*) FROM slots").fetchone() == (3,)
    database.close()
    assert read(Ring(tmp_path, MB, boot=clock.boot)) == kept


@pytest.mark.slow
def test_an_hour_of_seconds_writes_a_fifth_of_what_it_would_if_each_were_committed(tmp_path: Path) -> None:
    from benchmarks.wear import taken, written

    before = taken()
    (tmp_path / "probe").write_bytes(bytes(8192))
    if taken() == before:
        pytest.skip("the system does not count what is written here")
    assert 5 * written(tmp_path, 0.25, TOGETHER) < written(tmp_path, 0.25, 0)


def test_a_clock_that_is_set_moves_what_was_not_sent(tmp_path: Path) -> None:
    clock = Clock(wall=0)  # no clock of its own: it boots in 1970
    ring = Ring(tmp_path, MB, boot=clock.boot)
    fill(ring, clock, 5)
    ring.event(clock.now, "loaded", model="m")
    fill(ring, clock, 1)
    first = ring.unsent("there", 2)
    ring.trying("there", first[-1].cursor)  # whatever becomes of it: they may have arrived
    ring.close()
    ring = Ring(tmp_path, MB, boot=clock.boot)
    clock.wall = EPOCH  # NTP
    fill(ring, clock, 3)
    ring.put(families(0.0), clock.now)
    times = [slot.when_ms for slot in ring.read(0, 100)]
    assert times == [0, 10_000, *(EPOCH + 10_000 * n for n in range(2, 9))]
    assert ring.read(2, 1)[0].start_ms == EPOCH
    assert ring.events(1) == [(EPOCH + 50_000, "loaded", {"model": "m"})]
    clock.on(10_000)
    clock.wall -= 3_600_000  # and back by an hour, while it runs
    ring.put(families(0.0), clock.now)
    moved = [slot.when_ms for slot in ring.read(2, 100)]
    assert moved == [EPOCH - 3_600_000 + 10_000 * n for n in range(2, 10)]


def test_another_boots_times_stay(tmp_path: Path) -> None:
    before, after = Clock(name="one"), Clock(wall=EPOCH + 10**9, name="two")
    ring = Ring(tmp_path, MB, boot=before.boot)
    kept = fill(ring, before, 3)
    ring.close()
    ring = Ring(tmp_path, MB, boot=after.boot)
    kept |= fill(ring, after, 3)
    ring.put(families(0.0), after.now)
    assert read(ring) == kept


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096 + 100)


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def no_header(path: Path) -> None:
    path.write_bytes(bytes(4096) + path.read_bytes()[4096:])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def another_database(path: Path) -> None:
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE slots(whatever)")
    other.commit()
    other.close()


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [truncated, garbage, no_header, emptied, another_database])
def test_a_broken_file_is_put_aside_and_a_new_one_begun(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    for turn in range(3):
        clock = Clock()
        ring = Ring(tmp_path, MB, boot=clock.boot)
        fill(ring, clock, 300, numbers=50, seed=turn)
        ring.close()
        spoil(tmp_path / "telemetry.db")
    ring = Ring(tmp_path, MB, boot=clock.boot)
    kept = fill(ring, clock, 3)
    ring.put(families(0.0), clock.now)
    assert read(ring) == kept
    aside = [one for one in tmp_path.iterdir() if "broken" in one.name]
    assert len(aside) == (0 if spoil is emptied else 1)
    assert all(one.stat().st_size <= MB // 4 for one in aside)


@pytest.mark.slow
def test_a_file_that_breaks_while_it_is_read_does_not_stop_the_writing(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, 4 * MB, boot=clock.boot)
    fill(ring, clock, 2000, numbers=50)
    ring.close()
    path = tmp_path / "telemetry.db"
    whole = path.read_bytes()
    middle = bytes(random.Random(2).randbytes(40 * 4096))
    path.write_bytes(whole[: 20 * 4096] + middle + whole[60 * 4096 :])
    ring = Ring(tmp_path, 4 * MB, boot=clock.boot)
    fill(ring, clock, 2)
    for _ in range(3):
        ring.unsent("there", 10**6)
    fill(ring, clock, 5)
    assert len(read(ring)) >= 4
    assert dropped(ring)["broken"] >= 1


def test_a_slot_that_does_not_read_is_passed_over(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, MB, boot=clock.boot)
    kept = fill(ring, clock, 10)
    ring.close()
    database = sqlite3.connect(tmp_path / "telemetry.db")
    database.execute("UPDATE slots SET data = X'00' WHERE id IN (3, 5)")
    database.commit()
    database.close()
    ring = Ring(tmp_path, MB, boot=clock.boot)
    assert list(read(ring)) == [when for at, when in enumerate(kept, 1) if at not in (3, 5)]
    assert dropped(ring) == {"broken": 2}


def test_a_folder_that_cannot_be_written_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "telemetry.db").symlink_to(tmp_path / "elsewhere")
    for folder in (tmp_path / "file", tmp_path / "file" / "under", tmp_path / "link", Path("/proc/none")):
        with pytest.raises(EdgeKitError, match="telemetry cannot be kept in") as caught:
            Ring(folder, MB)
        assert "--state DIR" in caught.value.hint
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1.5 MB; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_file_system_is_refused_with_a_hint(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(EdgeKitError, match="telemetry cannot be kept in") as caught:
        Ring(small_disk, MB)
    assert "--state DIR" in caught.value.hint


def test_a_full_disk_loses_what_does_not_fit_and_it_goes_on_when_there_is_room(small_disk: Path) -> None:
    clock = Clock()
    ring = Ring(small_disk, 8 * MB, boot=clock.boot)
    ring.unsent("there", 1)
    kept = fill(ring, clock, 100, numbers=100)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    drawn = random.Random(3)
    failed = 0
    for _ in range(400):
        values = [drawn.random() for _ in range(100)]
        if ring.put(families(*values), clock.now):
            kept[clock.now] = values
        else:
            failed += 1
        clock.on(10_000)
    assert failed > 100
    assert dropped(ring)["disk"] == failed
    ring.sent("there", 5)  # neither the reading nor the sending stops
    assert ring.unsent("there", 1)[0].cursor == 6
    (small_disk / "ballast").unlink()
    kept |= fill(ring, clock, 50, numbers=100, seed=4)
    ring.put(families(0.0), clock.now)
    found = read(ring)
    assert {when: kept[when] for when in found} == found
    assert len(found) == len(kept), "all that was said to be on disk is there"
    ring.close()
    assert len(read(Ring(small_disk, 8 * MB, boot=clock.boot))) == len(kept) + 1


@pytest.mark.slow
def test_the_events_stay_few(tmp_path: Path) -> None:
    clock = Clock()
    ring = Ring(tmp_path, MB, boot=clock.boot)
    for number in range(500):
        ring.event(clock.now, "error", what="x" * (5000 if number == 499 else 1900), number=number)
        ring.put(families(number), clock.now)
        clock.on(1000)
    found = ring.events(1000)
    assert len(found) == MB // 8 // 2048
    assert "cut" in found[0][2]
    assert [facts["number"] for _, _, facts in found[1:]] == list(range(498, 498 - len(found) + 1, -1))


def test_a_closed_ring_says_nothing_and_raises_nothing(tmp_path: Path) -> None:
    ring = Ring(tmp_path, MB)
    ring.put(families(1.0), EPOCH)
    ring.event(EPOCH, "ended")
    ring.close()
    ring.close()
    assert not ring.put(families(1.0), EPOCH)
    assert ring.unsent("there", 1) == []
    ring.sent("there", 1)
    assert Ring(tmp_path, MB).events(1)[0][1] == "ended"


def test_a_thread_writes_once_a_second_and_lives_on_when_measuring_fails(tmp_path: Path) -> None:
    ring = Ring(tmp_path, MB)
    asked = []

    def measure() -> list[Family]:
        asked.append(1)
        if len(asked) == 1:
            raise RuntimeError("not yet")
        return families(len(asked))

    end = record(ring, measure)
    end()
    ring.close()
    assert read(Ring(tmp_path, MB)).popitem()[1] == [2.0]


def test_a_boot_has_a_name_and_a_clock() -> None:
    one = this_boot()
    assert one.name
    assert this_boot().now_ms() >= one.now_ms() > 0


def test_facts_are_plain_json(tmp_path: Path) -> None:
    ring = Ring(tmp_path, MB)
    ring.event(EPOCH, "odd", path=tmp_path, numbers=[1.5, None])
    ring.put([], EPOCH)
    assert json.dumps(ring.events(1)[0][2]) == json.dumps({"path": str(tmp_path), "numbers": [1.5, None]})
