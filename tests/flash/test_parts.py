"""The parts of a flash, each alone: what a device says, how it is judged, names, wheels, the hands on the device."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from edgekit_runtime.bundle import read_manifest
from edgekit_runtime.errors import EdgeKitError, NotFound, Untrusted
from edgekit_runtime.keypair import new_private_key, public_of
from edgekit_runtime.manifest import Manifest

from edgekit import keys
from edgekit.cli import cli
from edgekit.flash import carrying, checks, facts, hands, line, names, remote, running, trusting, wheels
from edgekit.flash.bundles import Terms, rest
from edgekit.flash.facts import Disk, Facts, Homes
from edgekit.target import find_target
from tests.runtime.bundles import make_bundle

pytestmark = pytest.mark.slow

ANSWER = b"""
@@root
sudo

@@who
1000
pi

@@home
/home/pi

@@arch
aarch64

@@python
[[3, 11, 2], 64, false]
c++

@@libc
glibc 2.36

@@now
1700000000

@@memory
MemTotal:        8000000 kB
MemAvailable:    7000000 kB

@@cpu
Features	: fp asimd evtstrm fphp asimdhp asimddp

@@disk
/dev/mmcblk0p2  30000000 10000000 19000000      35% /
/dev/mmcblk0p2  30000000 10000000 19000000      35% /

@@systemd
systemd 252 (252.39-1~deb12u2)

@@tools
useradd
nohup
"""
NOW = 1_700_000_000.0


@pytest.fixture
def pi() -> Facts:
    return facts.parse(ANSWER, Homes())


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    made = read_manifest(make_bundle(tmp_path / "made"))
    return replace(made, target="rpi5", evidence={"peak_mb": 58.2})


def judged(pi: Facts, manifest: Manifest) -> dict[str, checks.Check]:
    return {check.name: check for check in checks.first(pi, manifest, find_target("rpi5"), NOW)}


def test_a_good_device_passes_every_check(pi: Facts, manifest: Manifest) -> None:
    assert {check.state for check in judged(pi, manifest).values()} == {"ok"}
    assert pi.root == ("sudo", "-n", "--")
    assert not checks.refused(checks.room(pi, checks.Needed(200_000_000, 6_000_000)))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("rights", {"root": None}, "sudo asks for a password"),
        ("architecture", {"arch": "x86_64"}, "the device is x86_64, rpi5 is aarch64"),
        ("architecture", {"arch": "riscv64"}, "none that EdgeKit knows"),
        ("C library", {"glibc": None}, "no glibc"),
        ("C library", {"libstdcxx": False}, "libstdc++"),
        ("Python", {"python": None}, "no python3"),
        ("Python", {"python": (3, 9, 2)}, "needs 3.11"),
        ("Python", {"shut": "/root"}, "below /root, where the service's user may not look"),
        ("target", {"target": "jetson-orin"}, "the device is jetson-orin"),
        ("memory", {"memory": (100_000_000, 90_000_000)}, "in all"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do(
    pi: Facts, manifest: Manifest, name: str, change: dict[str, Any], words: str
) -> None:
    found = judged(replace(pi, **change), manifest)[name]
    assert (found.state, words in found.words, bool(found.hint)) == ("refusal", True, True)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("instructions", {"isa": ("asimd",)}, "no fphp"),
        ("clock", {"now": 0}, "19,676 days behind"),
        ("clock", {"now": int(NOW) + 90 * 60}, "90 minutes ahead"),
        ("memory", {"memory": (8_000_000_000, 90_000_000)}, "are free"),
        ("runs there", {"runtime": {"engines": ["onnx"]}, "starts": None}, "does not start"),
    ],
)
def test_what_is_odd_is_warned_of(pi: Facts, manifest: Manifest, name: str, change: dict[str, Any], words: str) -> None:
    found = judged(replace(pi, **change), manifest)[name]
    assert (found.state, words in found.words) == ("warning", True), found


def test_what_the_device_would_not_take_is_told_before_it_is_sent(pi: Facts, manifest: Manifest) -> None:
    model = {"name": "tiny", "live": {"id": "a" * 12}, "floor": 7, "refused": ["b" * 12], "trial": {"id": "a" * 12}}
    there, old = replace(pi, status={"models": [model]}), replace(manifest, release=6)
    assert [one.name for one in checks.refused(checks.version(there, old, "b" * 12, Terms()))] == [
        "floor",
        "refused",
    ]
    (only,) = checks.version(there, old, "b" * 12, Terms(again=True, downgrade=b""))
    assert (only.state, "on trial" in only.words) == ("warning", True)
    assert checks.version(pi, old, "b" * 12, Terms()) == []
    beside = Terms(again=True, downgrade=b"", shadow=("--shadow", "0.1"))
    assert [one.name for one in checks.refused(checks.version(pi, old, "b" * 12, beside))] == ["shadow"]
    assert [one.name for one in checks.refused(checks.version(there, old, "b" * 12, beside))] == ["shadow"]
    proven = replace(pi, status={"models": [model | {"trial": None}]})
    assert not checks.refused(checks.version(proven, old, "b" * 12, beside))


def test_a_full_disk_is_refused_before_anything_is_sent(pi: Facts) -> None:
    full = replace(pi, disks=(Disk(10**9, 50_000_000, "/"), Disk(10**9, 50_000_000, "/")))
    (check,) = checks.room(full, checks.Needed(30_000_000, 10_000_000))
    assert check.state == "refusal"
    apart = replace(pi, disks=(Disk(10**9, 50_000_000, "/"), Disk(10**9, 20_000_000, "/data")))
    assert [one.state for one in checks.room(apart, checks.Needed(30_000_000, 10_000_000))] == ["ok", "refusal"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"@@who\n",
        b"\xff" * 1000,
        ANSWER.replace(b"[[3, 11, 2], 64, false]", b"[" * 100_000),
        b"@@now\n-5\n@@cpu\n\0",
    ],
)
def test_a_device_may_answer_anything(answer: bytes, manifest: Manifest) -> None:
    assert checks.refused(checks.first(facts.parse(answer, Homes()), manifest, find_target("rpi5"), NOW))


def test_the_script_asks_this_machine() -> None:
    done = subprocess.run(["sh", "-c", facts.script(Homes("/nowhere/p", "/nowhere/d", True))], capture_output=True)
    found = facts.parse(done.stdout, Homes("/nowhere/p", "/nowhere/d", True))
    assert found.root == ()
    assert found.python is not None
    assert found.shut == "" or found.shut.startswith("/")
    assert found.disks[0] is not None
    assert found.disks[1] is not None
    assert found.disks[0].place == found.disks[1].place
    assert abs(found.now - time.time()) < 100


@pytest.mark.parametrize(("mode", "shut"), [(0o755, False), (0o700, True)])
def test_a_python_that_only_its_owner_reaches_is_seen(mode: int, shut: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # pytest's own folders are shut to others
        own = Path(folder)
        own.chmod(mode)
        asks = f"import os; os.__file__ = {str(own / 'os.py')!r}\n{facts.PYTHON}"
        done = subprocess.run([sys.executable, "-c", asks], capture_output=True)
        assert facts.parse(b"@@python\n" + done.stdout, Homes()).shut == (str(own) if shut else "")


def test_a_python_that_its_owner_alone_reaches_serves_that_owner(pi: Facts, manifest: Manifest) -> None:
    for homes in (Homes(own=True), Homes("/srv/p", "/srv/d", usual=False)):
        assert judged(replace(pi, shut="/home/pi", homes=homes), manifest)["Python"].state == "ok"


def test_names_are_kept_and_an_unknown_one_is_told(tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    names.add(file, "kitchen", "ssh://pi@10.0.0.7:2222")
    assert names.find(file, "kitchen").url == "ssh://pi@10.0.0.7:2222"
    with pytest.raises(NotFound, match="did you mean 'kitchen'"):
        names.find(file, "kitchn")
    with pytest.raises(NotFound) as caught:
        names.find(file, "pi@camera.local")
    assert caught.value.hint.endswith("give the address: ssh://pi@camera.local")
    with pytest.raises(EdgeKitError, match="no device's address"):
        names.add(file, "hall", "ssh://-oProxyCommand=sh")
    names.remove(file, "kitchen")
    assert names.listed(file) == []


def test_who_gives_a_name_another_address_is_told_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def said(*words: str) -> str:
        return CliRunner().invoke(cli, ["devices", *words], catch_exceptions=False).output

    assert said("add", "kitchen", "ssh://pi@one") == "kitchen is ssh://pi@one\n"
    names.remember(names.default_file(), names.find(names.default_file(), "kitchen"), public_of(new_private_key()).pem)
    assert said("add", "kitchen", "ssh://pi@one") == "kitchen is ssh://pi@one\n"
    told = said("add", "kitchen", "ssh://pi@two")
    assert told == "kitchen is ssh://pi@two; it was ssh://pi@one, whose key is forgotten\n"
    assert "kitchen" in said("forget-key", "kitchen")
    assert said("remove", "kitchen") == "kitchen is forgotten\n"


def test_a_bundle_that_is_not_there_is_told_before_a_device_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(NotFound, match="no bundle at"):
        CliRunner().invoke(cli, ["flash", str(tmp_path), "ssh://127.0.0.1:1"], catch_exceptions=False)


def test_a_changed_device_key_is_refused_until_it_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    first, second = (public_of(new_private_key()).pem for _ in range(2))
    device = names.add(file, "kitchen", "ssh://pi@kitchen")
    names.remember(file, device, first)
    known = names.find(file, "ssh://pi@kitchen")
    names.same_key(known, first)
    for other in (second, None):
        with pytest.raises(Untrusted):
            names.same_key(known, other)
    names.remember(file, known, None)
    names.same_key(names.find(file, "kitchen"), second)


def test_a_names_file_that_is_broken_is_told(tmp_path: Path) -> None:
    (tmp_path / "devices.toml").write_text("[kitchen]\nurl = 5\n")
    with pytest.raises(EdgeKitError, match="has no url"):
        names.listed(tmp_path / "devices.toml")


def test_only_what_is_not_there_is_sent(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "made")
    manifest = read_manifest(bundle)
    digests = {name: entry.sha256 for name, entry in manifest.files.items()}
    found = rest(bundle, manifest, {"objects": [digests["labels.txt"]], "parts": {digests["model.onnx"]: 10}})
    assert (found.there, found.of) == (1, 3)
    assert {piece.path.name: piece.offset for _, piece in found.pieces} == {"golden.npz": 0, "model.onnx": 10}
    for odd in (None, [], {"objects": 5, "parts": []}, {"parts": {digests["model.onnx"]: 10**9}}, {"objects": [[]]}):
        assert [piece.offset for _, piece in rest(bundle, manifest, odd).pieces] == [0, 0, 0]


def test_the_engine_is_of_the_version_that_the_bundle_was_proven_with(manifest: Manifest) -> None:
    proven = replace(manifest, provenance={"tools": {"onnxruntime": "1.20.0"}})
    there = {"engines": ["tflite", "nonsense"], "pins": {"ai-edge-litert": "2.0.1", "onnxruntime": "1.19.0"}}
    pins, engines = wheels.wanted(proven, "aarch64", there)
    assert engines == ["onnx", "tflite"]
    assert (pins["onnxruntime"], pins["ai-edge-litert"]) == ("1.20.0", "2.0.1")
    assert "pillow" in pins
    pins, _ = wheels.wanted(replace(manifest, engine="tflite"), "armv7l")
    assert "numpy" not in pins
    assert {"tflite-runtime", "h11", "cryptography"} <= pins.keys()


def test_the_same_sources_make_the_same_wheel(tmp_path: Path) -> None:
    one, two = (wheels.own_wheel(tmp_path / name) for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert {"edgekit_runtime/__main__.py", "edgekit_runtime/page/index.html"} <= set(archive.namelist())


def a_wheel(folder: Path, name: str, files: dict[str, str]) -> wheels.Wheel:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
    return wheels._wheel(path)


RUNTIME = {"edgekit_runtime/__init__.py": "__version__ = '9'\n", "numpy/__init__.py": ""}


def there(verb: str, folder: Path, *pieces: bytes) -> "subprocess.CompletedProcess[bytes]":
    """The hands at work, as on a device: as text that a fresh Python reads."""
    code = Path(hands.__file__).read_bytes()
    command = [sys.executable, "-I", "-c", carrying.BEGIN.format(size=len(code)), verb, str(folder)]
    return subprocess.run(command, input=b"".join([code, *pieces]), capture_output=True, timeout=120)


def wish(digest: str, *made: wheels.Wheel) -> bytes:
    listed = [{"sha256": one.sha256, "name": one.name, "size": one.size} for one in made]
    return (
        json.dumps({"digest": digest, "wheels": listed, "system_site": False, "facts": {"digest": digest}}).encode()
        + b"\n"
    )


def sent(folder: Path, *made: wheels.Wheel, offset: int = 0) -> "subprocess.CompletedProcess[bytes]":
    told = json.dumps([[one.sha256, one.size, offset] for one in made]).encode() + b"\n"
    return there("receive", folder, told, *(one.path.read_bytes()[offset:] for one in made))


def test_a_runtime_is_made_of_wheels_and_the_one_before_is_kept(tmp_path: Path) -> None:
    prefix = tmp_path / "it's here"
    one = a_wheel(tmp_path, "one.whl", RUNTIME)
    assert sent(prefix, one).returncode == 0
    assert there("unpack", prefix, wish("1" * 64, one)).returncode == 0
    done = subprocess.run([prefix / "current/bin/edgekit-runtime"], capture_output=True)
    assert b"edgekit_runtime.__main__" in done.stderr  # it is this runtime that was asked; it has no such part
    more = a_wheel(tmp_path, "more.whl", {"more.py": "x = 1\n", "more.data/scripts/sh": "", "m.data/purelib/p.py": ""})
    have = json.loads(there("have", prefix).stdout)
    assert have == {one.sha256: one.size}  # what the runtime there was made of is not sent again
    assert sent(prefix, more).returncode == 0
    assert there("unpack", prefix, wish("2" * 64, one, more)).returncode == 0
    assert os.readlink(prefix / "previous") == "runtimes/" + "1" * 16
    site = next((prefix / "current").glob("lib/*/site-packages"))
    assert (site / "more.py").exists()
    assert (site / "p.py").exists()
    assert not list(site.rglob("sh"))


def test_a_file_that_was_spoilt_there_is_sent_again(tmp_path: Path) -> None:
    one = a_wheel(tmp_path, "one.whl", RUNTIME)
    assert sent(tmp_path / "p", one).returncode == 0
    assert there("unpack", tmp_path / "p", wish("1" * 64, one)).returncode == 0
    next((tmp_path / "p" / "runtimes").glob("*/lib/*/site-packages/numpy/__init__.py")).write_text("import nothing\n")
    assert b"not whole there" in there("unpack", tmp_path / "p", wish("2" * 64, one)).stderr
    assert json.loads(there("have", tmp_path / "p").stdout) == {}
    assert sent(tmp_path / "p", one).returncode == 0
    assert there("unpack", tmp_path / "p", wish("2" * 64, one)).returncode == 0


def test_a_runtime_that_does_not_start_never_becomes_current(tmp_path: Path) -> None:
    broken = a_wheel(tmp_path, "broken.whl", {**RUNTIME, "numpy/__init__.py": "import libnothing\n"})
    assert sent(tmp_path / "p", broken).returncode == 0
    done = there("unpack", tmp_path / "p", wish("1" * 64, broken))
    assert done.returncode == carrying.WRONG
    assert b"No module named 'libnothing'" in done.stderr
    assert not (tmp_path / "p" / "current").exists()


@pytest.mark.parametrize(
    "name", ["../evil.py", "/evil.py", "a/../../evil.py", "a\\..\\evil.py", "x.data/purelib/../../e.py"]
)
def test_a_wheel_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    evil = a_wheel(tmp_path, "evil.whl", {**RUNTIME, name: ""})
    assert sent(tmp_path / "p", evil).returncode == 0
    done = there("unpack", tmp_path / "p", wish("1" * 64, evil))
    assert (done.returncode, b"leads out of it" in done.stderr) == (carrying.WRONG, True)
    assert not list(tmp_path.rglob("evil.py"))


def test_a_file_goes_on_where_it_stopped_and_only_there(tmp_path: Path) -> None:
    one = a_wheel(tmp_path, "one.whl", RUNTIME)
    told = json.dumps([[one.sha256, one.size, 0]]).encode() + b"\n"
    cut = there("receive", tmp_path / "p", told, one.path.read_bytes()[:100])
    assert (cut.returncode, b"ended too early" in cut.stderr) == (carrying.WRONG, True)
    assert json.loads(there("have", tmp_path / "p").stdout) == {one.sha256: 100}
    assert b"another flash" in sent(tmp_path / "p", one, offset=7).stderr
    assert sent(tmp_path / "p", one, offset=100).returncode == 0
    assert there("unpack", tmp_path / "p", wish("1" * 64, one)).returncode == 0


def test_other_bytes_than_were_told_are_thrown_away(tmp_path: Path) -> None:
    one = a_wheel(tmp_path, "one.whl", RUNTIME)
    one.path.write_bytes(one.path.read_bytes()[:-1] + b"x")
    assert sent(tmp_path / "p", one).returncode == 0
    assert b"did not arrive as it was sent" in there("unpack", tmp_path / "p", wish("1" * 64, one)).stderr
    assert json.loads(there("have", tmp_path / "p").stdout) == {}


def test_two_that_install_a_runtime_at_once_are_kept_apart(tmp_path: Path) -> None:
    one = a_wheel(tmp_path, "one.whl", RUNTIME)
    with hands._alone(tmp_path / "p"):
        assert sent(tmp_path / "p", one).returncode == carrying.BUSY
    assert sent(tmp_path / "p", one).returncode == 0


def test_a_link_that_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "edgekit-runtime").write_text("somebody's")
    with pytest.raises(hands.Refused, match="not ours"):
        hands._link(tmp_path / "edgekit-runtime", tmp_path)


def test_small_files_go_below_the_store_alone(tmp_path: Path) -> None:
    head = json.dumps(["flash-1", {"manifest.json": 2, "model.sig": 3}]).encode() + b"\n"
    assert there("stage", tmp_path, head, b"{}", b"sig").returncode == 0
    assert (tmp_path / "store/incoming/flash-1/model.sig").read_bytes() == b"sig"
    for odd in (["..", {}], ["a/b", {}], ["x", {"../y": 0}], ["", {}]):
        assert there("stage", tmp_path, json.dumps(odd).encode() + b"\n").returncode == carrying.WRONG


def test_a_refusal_of_the_device_is_told_in_its_words() -> None:
    here = line.Line("pi", (), lambda status, said: None)
    said = {"outcome": "refused", "reason": "golden", "error": "answers otherwise\x1b[2J", "hint": "build it"}
    with pytest.raises(EdgeKitError) as caught:
        remote.answered(here, line.Done(1, json.dumps(said).encode(), ""))
    assert (caught.value.reason, caught.value.what, caught.value.hint) == (
        "golden",
        "pi: answers otherwise?[2J",
        "build it",
    )
    with pytest.raises(EdgeKitError) as caught:
        remote.answered(here, line.Done(1, b"", "warning: old\nerror: user 7 cannot read it\nhint: move it\x1b[2J\n"))
    assert (caught.value.what, caught.value.hint) == ("pi: user 7 cannot read it", "move it?[2J")
    with pytest.raises(NotFound, match="no runtime"):
        remote.answered(here, line.Done(127, b"", "sh: not found"))
    with pytest.raises(EdgeKitError):
        remote.answered(here, line.Done(0, b"{" * 100_000, ""))


def test_a_status_may_say_anything() -> None:
    for odd in (None, {}, {"models": 5}, {"models": [5, {"name": []}]}, {"models": [{"name": "a", "live": 5}]}):
        assert running.live_of(running.model_of(odd, "a")) is None


def test_a_trust_document_that_is_none_is_told(tmp_path: Path) -> None:
    found = trusting.trusting(b"{}", tmp_path)
    assert found.check.state == "refusal"
    assert trusting.trusting(None, tmp_path).check.state == "refusal"


def two_machines(folder: Path) -> tuple[Path, Path]:
    """The folder of the keys, and a copy of it on another machine."""
    keys.new(folder / "here", "main")
    shutil.copytree(folder / "here", folder / "there")
    return folder / "here", folder / "there"


def test_a_trust_that_was_changed_on_two_machines_is_told(tmp_path: Path) -> None:
    here, there = two_machines(tmp_path)
    keys.new(here, "mine")
    keys.new(there, "theirs")
    found = trusting.trusting(keys.trust_document(there), here)
    assert (found.check.state, found.documents) == ("warning", ())
    assert found.check.words == "the device has another document 2 than yours: keys were changed on two machines"
    assert "copy the newer folder" in found.check.hint
    assert found.trust is not None
    assert [key.name for key in found.trust.keys] == ["main", "theirs"]


def test_a_device_that_knows_a_later_trust_than_ours_is_told(tmp_path: Path) -> None:
    here, there = two_machines(tmp_path)
    assert trusting.trusting(keys.trust_document(there), here).check.state == "ok"
    keys.new(there, "theirs")
    found = trusting.trusting(keys.trust_document(there), here)
    assert (found.check.state, "has document 2, yours is 1" in found.check.words) == ("warning", True)
    assert found.documents == ()
    assert trusting.trusting(keys.trust_document(here), there).check.words == "the device has document 1 and gets 2"


def test_a_later_trust_that_was_not_made_from_the_devices_is_refused(tmp_path: Path) -> None:
    """The device itself would take it: its root signed it, and no revocation is forgotten."""
    here, there = two_machines(tmp_path)
    keys.new(there, "theirs")
    keys.new(here, "mine")
    keys.new(here, "another")
    document = keys.trust_document(there)
    for _ in range(2):
        found = trusting.trusting(document, here)
        assert (found.check.state, found.documents) == ("refusal", ())
        assert "another document 2 than yours (3) was made from, which forgets theirs" in found.check.words
        assert "the folder of keys that the device follows" in found.check.hint
        # Without its history, a folder has to know every key of the device's.
        shutil.rmtree(here / keys.EARLIER, ignore_errors=True)


def test_a_later_trust_of_another_root_is_refused(tmp_path: Path) -> None:
    keys.new(tmp_path / "theirs", "main")
    keys.new(tmp_path / "ours", "main")
    keys.new(tmp_path / "ours", "more")
    found = trusting.trusting(keys.trust_document(tmp_path / "theirs"), tmp_path / "ours")
    assert (found.check.state, "which forgets main, the root" in found.check.words) == ("refusal", True)
    assert found.check.hint


def test_a_later_trust_is_sent_where_the_earlier_ones_are_gone(tmp_path: Path) -> None:
    here, there = two_machines(tmp_path)
    keys.new(here, "more")
    keys.rotate(here, "main")
    shutil.rmtree(here / keys.EARLIER)
    found = trusting.trusting(keys.trust_document(there), here)
    assert (found.check.words, len(found.documents)) == ("the device has document 1 and gets 3", 1)


def test_a_leave_to_go_back_is_judged_before_anything_is_sent(tmp_path: Path, manifest: Manifest) -> None:
    keys.new(tmp_path / "mine", "main")
    keys.new(tmp_path / "other", "main")
    trust, old = keys.trusted(tmp_path / "mine"), replace(manifest, release=5)

    def judged(raw: bytes, later: float = 0.0) -> tuple[str, str]:
        check = trusting.leave(raw, trust, old, time.time() + later)
        return check.state, check.words

    good = keys.allow(tmp_path / "mine", "tiny", 5, 1)
    assert judged(good)[0] == "ok"
    assert judged(good, 2 * 86400)[0] == "refusal"
    assert "from release 6 on" in judged(keys.allow(tmp_path / "mine", "tiny", 6, 1))[1]
    assert "it is for tony" in judged(keys.allow(tmp_path / "mine", "tony", 5, 1))[1]
    assert "not trusted" in judged(keys.allow(tmp_path / "other", "tiny", 5, 1))[1]
    assert judged(b"{}")[0] == "refusal"


def test_a_runtime_is_told_the_same_over_a_line_and_on_a_stick(tmp_path: Path) -> None:
    made = a_wheel(tmp_path, "one.whl", RUNTIME)
    house = wheels.Wheelhouse(wheels.Platform("armv7l", (3, 11), (2, 36)), (made,), {}, ("onnx",))
    wish = carrying.wish_of(house, Homes())
    assert (wish["link"], wish["system_site"], wish["digest"]) == (carrying.LINK, True, house.digest)
    assert carrying.wish_of(house, Homes("/elsewhere", "/else", usual=False))["link"] is None
    assert carrying.wish_of(house, Homes("/home/p", "/home/d", own=True))["link"] is None


def test_a_terminal_is_not_moved_by_what_a_device_says() -> None:
    assert line.printable(b"\x1b]0;title\x07a\r") == "?]0;title?a"
    assert io.StringIO(line.printable(b"\xff\xfe")).read().isprintable()


@pytest.mark.parametrize("arch", ["aarch64", "x86_64"])
def test_all_wheels_of_a_device_can_be_had_and_belong_together(arch: str, manifest: Manifest) -> None:
    pins, engines = wheels.wanted(replace(manifest, engine="tflite"), arch)
    house = wheels.fetched(wheels.Platform(arch, (3, 11), (2, 36)), pins, engines, lambda words: None)
    assert {one.name.split("-")[0].lower().replace("_", "-").replace(".", "-") for one in house.wheels} == {
        *(name.replace(".", "-").replace("_", "-") for name in pins), "edgekit-runtime"
    }  # fmt: skip
    assert all(arch in one.name or one.name.endswith("-none-any.whl") for one in house.wheels)
    assert house.unpacked > sum(one.size for one in house.wheels)


def test_a_version_that_no_wheel_has_is_told(manifest: Manifest) -> None:
    with pytest.raises(NotFound, match=r"no wheel of numpy==0\.0\.1 for aarch64"):
        wheels.fetched(wheels.Platform("aarch64", (3, 11), (2, 36)), {"numpy": "0.0.1"}, [], lambda words: None)
