"""A bundle measured over time: what the rule says of recorded runs, what is refused, what goes back into the bundle."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgekit_runtime.bundle import describe, open_bundle, read_manifest
from edgekit_runtime.errors import BadBundle, EdgeKitError, Untrusted
from edgekit_runtime.files import in_folder
from edgekit_runtime.keypair import new_private_key
from edgekit_runtime.manifest import to_json
from edgekit_runtime.verified import Rules, open_verified

from edgekit import bench_words, benching, joules, keeping, keys, stretch
from edgekit.steadiness import judge
from edgekit.stretch import Begun, Interval, Times, parse_begun, parse_interval
from edgekit.vouching import signer_of
from tests.commands import edgekit
from tests.runtime.bundles import add_baseline, add_shadow, make_bundle, write_manifest
from tests.runtime.signing import sign_folder

BEGUN = Begun("6.6", 4, {"0": "ondemand"}, {"0": 2.4e9}, ("temperature",), {}, False, {"cpu": 50.0})
BLIND = Begun("6.6", 2, {}, {}, (), {}, False, {})
NOISE = np.random.default_rng(3).normal(1, 0.02, 1000)


def a_row(at: float, p50: float, **more: Any) -> Interval:
    fields = {"n": 80, "p50_ms": p50, "p90_ms": p50 * 1.1, "p99_ms": p50 * 1.2, "max_ms": p50 * 2, "cpu_s": 1.0}
    return Interval(at=at, seconds=1.0, **{**fields, **more})


def a_run(
    p50: Sequence[float], mhz: Sequence[float] = (), degrees: Sequence[float] = (), **more: Any
) -> list[Interval]:
    """An interval a second, with the noise of a quiet machine."""
    rows = []
    for index, value in enumerate(p50):
        felt: dict[str, Any] = {"clocks": {"0": mhz[index] * 1e6}} if len(mhz) else {}
        felt |= {"temperatures": {"cpu": degrees[index]}} if len(degrees) else {}
        rows.append(a_row(index + 1.0, value * NOISE[index], **felt, **more))
    return rows


def steps(*parts: tuple[int, float]) -> list[float]:
    return [value for count, value in parts for _ in range(count)]


def test_a_throttle_is_told_with_its_moment_its_clock_and_its_heat() -> None:
    rows = a_run(steps((38, 12.1), (22, 19.8)), steps((38, 2400), (22, 1500)), list(np.linspace(50, 82, 60)))
    found = judge(BEGUN, rows)
    assert found.kind == "throttled"
    assert found.after_s == 38
    assert (found.before_ms, found.after_ms) == (pytest.approx(12.1, rel=0.02), pytest.approx(19.8, rel=0.02))
    assert found.words.startswith("throttled after 38 s: p50 12")
    assert found.words.endswith("while the clock fell 2400 -> 1500 MHz at 82 °C")
    assert found.n == 60


@pytest.mark.parametrize("moment", [9, 15, 30, 45, 51])
def test_a_throttle_is_found_early_and_late(moment: int) -> None:
    p50, mhz = steps((moment, 10), (60 - moment, 13)), steps((moment, 2400), (60 - moment, 1800))
    found = judge(BEGUN, a_run(p50, mhz, [80] * 60))
    assert (found.kind, found.after_s) == ("throttled", moment)


def test_a_slow_rise_with_the_heat_is_a_throttle_too() -> None:
    found = judge(BEGUN, a_run(list(np.linspace(10, 14, 60)), list(np.linspace(2400, 1700, 60)), [75] * 60))
    assert found.kind == "throttled"


def test_noise_is_no_throttle() -> None:
    for seed in range(100):
        random = np.random.default_rng(seed)
        rows = [a_row(at + 1.0, value) for at, value in enumerate(random.normal(10, 0.8, 60))]
        assert judge(BEGUN, rows).kind == "steady", seed


def test_a_few_slow_intervals_are_no_throttle() -> None:
    assert judge(BEGUN, a_run(steps((40, 10), (3, 30), (17, 10)), [2400] * 60)).kind == "steady"
    assert judge(BEGUN, a_run(steps((57, 10), (3, 30)), [2400] * 60)).kind == "steady"


def test_what_gets_faster_is_no_throttle() -> None:
    assert judge(BEGUN, a_run(steps((20, 20), (40, 10)), steps((20, 1500), (40, 2400)))).kind == "steady"


def test_slower_at_the_same_clock_is_not_called_throttling() -> None:
    found = judge(BEGUN, a_run(steps((30, 10), (30, 15)), [2400] * 60, [80] * 60))
    assert found.kind == "slower"
    assert "no clock fell, so this is not throttling" in found.words


def test_slower_while_a_cool_machines_governor_lowers_the_clock_is_not_called_throttling() -> None:
    found = judge(BEGUN, a_run(steps((30, 10), (30, 15)), steps((30, 2400), (30, 1500)), [41] * 60))
    assert found.kind == "slower"
    assert "not hot (governor ondemand)" in found.words


def test_slower_on_a_machine_that_tells_nothing_says_that_nobody_knows_why() -> None:
    found = judge(BLIND, a_run(steps((30, 10), (30, 15))))
    assert found.kind == "slower"
    assert "tells no clock, so it is not known why" in found.words


def test_what_the_machine_itself_tells_of_makes_a_throttle() -> None:
    rows = a_run(steps((30, 10), (30, 15)))
    rows = [replace(row, throttled=("undervoltage",)) if row.at > 30 else row for row in rows]
    found = judge(BEGUN, rows)
    assert found.kind == "throttled"
    assert "the machine told of undervoltage" in found.words
    flat = [replace(row, throttled=("undervoltage",)) if row.at > 50 else row for row in a_run([10] * 60)]
    assert "told of undervoltage in 10 of 60 intervals; no slower for it" in judge(BEGUN, flat).words


def test_a_machine_that_was_slow_from_the_start_is_not_called_steady() -> None:
    found = judge(BEGUN, a_run([15] * 60, [1500] * 60, [84] * 60))
    assert "the clock was at most 1500 of 2400 MHz all along (governor ondemand)" in found.words
    little = replace(BEGUN, fastest={"0": 2.4e9, "4": 1.8e9})
    rows = [replace(row, clocks={"0": 2.4e9, "4": 0.6e9}) for row in a_run([15] * 60)]
    assert judge(little, rows).words.startswith("no throttling seen")


def test_too_few_intervals_say_so_and_how_long_would_do() -> None:
    found = judge(BEGUN, a_run([10, 20, 30, 40, 50]))
    assert found.kind == "short"
    assert "5 intervals; take 16 s or more" in found.words


def test_what_makes_the_numbers_less_than_a_quiet_machines_is_told() -> None:
    rows = [replace(row, busy=0.9, stolen=0.1, missed=2) for row in a_run([10, 14] * 20)]
    notes = " ".join(judge(BEGUN, rows).notes)
    for words in ("others took 2.6 of 4 cores", "a hypervisor took 10 %", "noisy", "80 starts were missed"):
        assert words in notes
    assert judge(BEGUN, [replace(row, busy=0.25, stolen=0.0) for row in a_run([10] * 40)]).notes == ()


def test_a_run_of_very_many_intervals_is_judged_too() -> None:
    rows = [a_row(at + 1.0, 10.0 if at < 7000 else 15.0) for at in range(10_000)]
    found = judge(BEGUN, rows)
    assert found.kind == "slower"
    assert found.after_s == pytest.approx(7000, abs=50)


def watts(power: Mapping[str, float], idle: Mapping[str, float], device: str = "cpu") -> joules.Energy | None:
    begun = replace(BEGUN, idle=idle)
    return joules.energy(begun, [replace(row, power=power, n=100) for row in a_run([10] * 10)], device)


def test_an_inference_takes_the_joules_above_those_of_the_idle_machine() -> None:
    found = watts({"pmic_rails": 6.0, "other": 50.0}, {"pmic_rails": 2.5, "other": 1.0})
    assert found is not None
    assert (found.of, found.watts, found.idle_watts) == ("pmic_rails", pytest.approx(6.0), 2.5)
    assert found.joules == pytest.approx(0.035)
    assert "35 mJ an inference above idle" in found.words


def test_processors_are_added_up_and_their_parts_are_not() -> None:
    power = {"rapl_package_0": 30.0, "rapl_package_1": 20.0, "rapl_package_0_core": 25.0, "rapl_psys": 90.0}
    found = watts(power, dict.fromkeys(power, 10.0))
    assert found is not None
    assert (found.of, found.watts) == ("rapl_package_0 + rapl_package_1", pytest.approx(50.0))


def test_on_a_gpu_its_own_meter_counts() -> None:
    found = watts({"gpu0": 200.0, "rapl_package_0": 40.0}, {"gpu0": 60.0, "rapl_package_0": 20.0}, "cuda")
    assert found is not None
    assert (found.of, found.joules) == ("gpu0", pytest.approx(1.4))


def test_without_a_sensor_there_is_no_energy_and_the_reason_is_told() -> None:
    assert watts({}, {}) is None
    assert watts({"a": 5.0}, {}) is None
    assert joules.why_none(BEGUN) == "no sensor"
    assert "for root alone" in joules.why_none(replace(BEGUN, locked=True))
    less = watts({"a": 5.0}, {"a": 6.0})
    assert less is not None
    assert less.words.endswith("not above idle")


def test_quantiles_of_very_many_times_come_from_an_even_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "MOST", 1000)
    times, random = Times(), np.random.default_rng(0)
    whole = np.arange(100_000, dtype=np.float32)
    cuts = np.sort(random.integers(0, 100_000, 300))
    for piece in np.split(whole, cuts):
        times.add(piece)
    assert times.n == 100_000
    kept = np.concatenate(times._pieces)
    assert 500 <= len(kept) <= 1000
    assert len(set(np.diff(kept).tolist())) == 1
    for share in (0.1, 0.5, 0.99):
        assert times.quantile(share) == pytest.approx(100_000 * share, abs=300)


GOOD = {
    "at": 1, "seconds": 1, "n": 2, "missed": 0, "p50_ms": 1, "p90_ms": 1, "p99_ms": 1, "max_ms": 1, "cpu_s": 1,
    "busy": None, "stolen": 0.1, "load": 1, "resident": None, "temperatures": {"cpu": 50}, "clocks": {}, "power": {},
    "throttled": ["temperature"], "gpus": [],
}  # fmt: skip


def test_an_interval_reads_as_it_was_told() -> None:
    row, taken = parse_interval(GOOD, {"ms": np.ones(2)})
    assert (row.hottest, row.throttled, len(taken)) == (50.0, ("temperature",), 2)


@pytest.mark.parametrize(
    "bad",
    [
        {"n": 3}, {"n": 0}, {"p50_ms": float("nan")}, {"temperatures": []}, {"temperatures": {"cpu": "hot"}},
        {"throttled": [1]}, {"gpus": [5]}, {"resident": "x"}, {"at": None}, {"clocks": {"0": float("inf")}},
    ],
)  # fmt: skip
def test_what_no_worker_would_tell_is_an_error_and_no_traceback(bad: Mapping[str, Any]) -> None:
    with pytest.raises(EdgeKitError, match="does not read"):
        parse_interval({**GOOD, **bad}, {"ms": np.ones(2)})
    for arrays in ({}, {"ms": np.array([1, np.nan])}):
        with pytest.raises(EdgeKitError, match="does not read"):
            parse_interval(GOOD, arrays)
    with pytest.raises(EdgeKitError, match="does not read"):
        parse_begun(bad)


def test_control_characters_of_a_device_do_not_reach_the_terminal() -> None:
    row, _ = parse_interval({**GOOD, "throttled": ["\x1b[2Jhot"]}, {"ms": np.ones(2)})
    assert row.throttled == ("[2Jhot",)


def test_a_row_of_bars_goes_from_the_least_to_the_most_and_is_flat_where_nothing_moves() -> None:
    assert bench_words.spark([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert bench_words.spark([100.0, 100.5, 100.2]) == "▁▁▁"
    assert bench_words.spark([1, None, 8]) == "▁ █"
    assert bench_words.spark([None]) == ""
    assert len(bench_words.spark(list(range(1, 500)))) == 40


def test_a_line_of_an_interval_says_dash_for_what_the_machine_does_not_tell() -> None:
    told = bench_words.line(BLIND, a_row(1, 12.1, missed=3))
    assert told.split()[-6:] == ["-", "-", "-", "3", "starts", "missed"]
    felt = replace(a_row(2, 12.1), temperatures={"cpu": 81.6}, clocks={"0": 1.5e9, "4": 2.4e9}, power={"vdd": 5.5})
    words = bench_words.line(BEGUN, felt)
    assert "82 °C" in words
    assert "1500-2400" in words
    assert "5.50 W" in words


def test_a_batch_is_made_of_the_recorded_rows(tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "b"))
    recorded = bundle.golden()[0][0]["x"]
    assert np.array_equal(benching.feeds_of(bundle, None)["x"], recorded)
    four = benching.feeds_of(bundle, 4)["x"]
    assert four.shape == (4, 3, 2, 2)
    assert np.array_equal(four[3], recorded[0])
    fixed = replace(bundle.manifest.inputs[0], spec=replace(bundle.manifest.inputs[0].spec, shape=(1, 3, 2, 2)))
    stiff = replace(bundle, manifest=replace(bundle.manifest, inputs=(fixed,)))
    assert benching.feeds_of(stiff, 1)["x"].shape == (1, 3, 2, 2)
    with pytest.raises(EdgeKitError, match="input x takes 1, not a batch of 4"):
        benching.feeds_of(stiff, 4)


def test_a_bundle_without_recorded_inputs_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    raw = to_json(read_manifest(folder))
    write_manifest(folder, {**raw, "golden": None})
    assert "no recorded inputs" in edgekit("bench", folder).error()


def test_only_what_the_engine_reads_is_carried_over(tmp_path: Path) -> None:
    bundle = open_bundle(add_shadow(add_baseline(make_bundle(tmp_path / "b", "openvino"))))
    with benching.artifact_of(bundle) as artifact:
        assert {path.name for path in artifact.files()} >= {"model.xml", "model.bin"}
        assert not {path.name for path in artifact.files()} & {"golden.npz", "labels.txt", "baseline.json"}
        assert artifact.path.read_bytes() == (bundle.folder / "model.xml").read_bytes()
    assert not artifact.path.exists()


@pytest.mark.parametrize("core", ["cortex-a72", "cortex-a76"])
def test_an_emulated_place_is_refused_since_it_has_no_latency(tmp_path: Path, core: str) -> None:
    assert f"an emulated {core} has no latency" in edgekit("bench", make_bundle(tmp_path / "b"), "--on", core).error()


def test_a_dry_run_connects_to_nothing(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    words = ("bench", folder, "--on", "ssh://nobody@127.0.0.1:9", "--threads", "1,2", "--rate", "30", "--dry-run")
    done = edgekit(*words)
    assert done.code == 0
    assert "30 starts a second" in done.out
    told = edgekit(*words, "--json").json()
    assert (told["threads"], told["rate"], told["keep"], told["dry_run"]) == ([1, 2], 30, False, True)


def test_a_devices_name_is_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    folder = make_bundle(tmp_path / "b")
    edgekit("devices", "add", "porch", "ssh://pi@porch.local:2222")
    assert edgekit("bench", folder, "--on", "porch", "--dry-run", "--json").json()["on"] == "ssh://pi@porch.local:2222"
    assert "did you mean" in edgekit("bench", folder, "--on", "porhc", "--dry-run").error()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--seconds", "soon"), 2, "write seconds"),
        (("--threads", "0"), 2, "write numbers"),
        (("--threads", "1,many"), 2, "write numbers"),
        (("--seconds", "48h"), 2, "write seconds"),
        (("--seconds", "100000"), 1, "seconds"),
        (("--interval", "0"), 2, "write seconds above 0"),
        (("--seconds", "0"), 2, "write seconds above 0"),
        (("--seconds", "1000m", "--interval", "100ms"), 1, "intervals"),
        (("--on", "nobody"), 1, "no device 'nobody'"),
        (("--on", "http://pi"), 1, "no device's address"),
        (("--key", "main"), 1, "a key is for --keep alone"),
    ],
)
def test_words_that_do_not_read_are_refused(tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = edgekit("bench", make_bundle(tmp_path / "b"), *words)
    assert done.code == code
    assert said in done.err


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of keys, with a signing key called bench besides the first."""
    keys.new(tmp_path / "keys", keys.FIRST)
    keys.new(tmp_path / "keys", "bench")
    return tmp_path / "keys"


def silent(_: str) -> None:
    """Nobody is told."""


def signed_bundle(tmp_path: Path, home: Path, name: str) -> Path:
    folder = make_bundle(tmp_path / "tiny")
    write_manifest(folder, {**to_json(read_manifest(folder)), "release": 7})
    return sign_folder(folder, keys.signing_key(home, name))


ENTRY = {"on": "here", "verdict": "no throttling seen", "p50_ms": 1.5}


def test_what_was_measured_is_sealed_in_by_the_key_that_signed(tmp_path: Path, home: Path) -> None:
    folder = signed_bundle(tmp_path, home, "bench")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    keeping.keep(open_bundle(folder), [ENTRY], keeping.seal_for(folder, home, None, silent))
    found = open_bundle(folder).manifest
    assert found.evidence["measured"] == [ENTRY]
    assert found.evidence["quality"] == {"metric": "top-1", "value": 0.91, "n": 100}
    assert (found.release, found.version) == (7, "1")
    assert signer_of(folder, home).name == "bench"
    changed = {path.name for path in folder.iterdir() if before.get(path.name) != path.read_bytes()}
    assert changed == {"manifest.json", "model.sig"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tiny")] == []


def test_a_device_takes_a_bundle_that_measurements_were_sealed_into(tmp_path: Path, home: Path) -> None:
    folder = signed_bundle(tmp_path, home, "bench")
    keeping.keep(open_bundle(folder), [ENTRY], keeping.seal_for(folder, home, None, silent))
    rules = Rules(keys.trusted(home), "here", lambda name: 7, time.time())
    held = open_verified(in_folder(folder), rules)
    assert held.bundle.manifest.evidence["measured"] == [ENTRY]
    held.close()
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace("no throttling", "so fast"))
    with pytest.raises(Untrusted):
        open_verified(in_folder(folder), rules)


def test_a_write_that_fails_leaves_the_bundle_as_it_was(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = signed_bundle(tmp_path, home, "main")
    seal, before = keeping.seal_for(folder, home, None, silent), {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "copy_files", full)
    with pytest.raises(OSError, match="No space"):
        keeping.keep(open_bundle(folder), [ENTRY], seal)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "tiny"]


def test_measurements_add_up_and_the_oldest_go(tmp_path: Path, home: Path) -> None:
    folder = signed_bundle(tmp_path, home, "main")
    seal = keeping.seal_for(folder, home, None, silent)
    for count in range(3):
        keeping.keep(open_bundle(folder), [{"n": count * 10 + n} for n in range(10)], seal)
    assert [one["n"] for one in open_bundle(folder).manifest.evidence["measured"]] == list(range(10, 30))


def test_an_unsigned_bundle_stays_unsigned_unless_a_key_is_named(tmp_path: Path, home: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    seal = keeping.seal_for(folder, home, None, silent)
    assert seal.warning is not None
    keeping.keep(open_bundle(folder), [ENTRY], seal)
    assert signer_of(folder, home).key is None
    keeping.keep(open_bundle(folder), [ENTRY], keeping.seal_for(folder, home, "bench", silent))
    assert signer_of(folder, home).name == "bench"


def test_a_strangers_bundle_is_signed_with_your_key_and_that_is_told(tmp_path: Path, home: Path) -> None:
    folder = sign_folder(make_bundle(tmp_path / "tiny"), new_private_key())
    seal = keeping.seal_for(folder, home, None, silent)
    assert "nobody here vouches for" in str(seal.warning)
    keeping.keep(open_bundle(folder), [ENTRY], seal)
    assert signer_of(folder, home).name == "main"


def test_a_bundle_whose_signature_is_broken_is_not_signed_anew(tmp_path: Path, home: Path) -> None:
    folder = signed_bundle(tmp_path, home, "main")
    write_manifest(folder, {**to_json(read_manifest(folder)), "release": 8})
    with pytest.raises(Untrusted):
        keeping.seal_for(folder, home, None, silent)


def test_a_bundle_that_was_built_anew_meanwhile_is_left_as_it_is(tmp_path: Path, home: Path) -> None:
    folder = signed_bundle(tmp_path, home, "main")
    measured, seal = open_bundle(folder), keeping.seal_for(folder, home, None, silent)
    write_manifest(folder, {**to_json(read_manifest(folder)), "release": 8})
    before = describe(folder / "manifest.json")
    with pytest.raises(EdgeKitError, match="changed while it was measured"):
        keeping.keep(measured, [ENTRY], seal)
    assert describe(folder / "manifest.json") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "tiny"]


def test_a_bundle_reached_by_a_link_is_replaced_where_it_lies(tmp_path: Path, home: Path) -> None:
    folder = signed_bundle(tmp_path, home, "main")
    (tmp_path / "link").symlink_to(folder)
    keeping.keep(open_bundle(tmp_path / "link"), [ENTRY], keeping.seal_for(tmp_path / "link", home, None, silent))
    assert (tmp_path / "link").is_symlink()
    assert open_bundle(folder).manifest.evidence["measured"] == [ENTRY]


def test_a_touched_bundle_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / "model.onnx").write_bytes(b"other")
    assert "touched" in edgekit("bench", folder).error()
    with pytest.raises((BadBundle, Untrusted)):
        open_bundle(folder)
