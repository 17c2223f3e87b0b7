"""Flashing without a network: real ext4 images, folders and sticks, and what must never happen to them."""

import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from edgekit_runtime.bundle import read_manifest
from edgekit_runtime.errors import Busy, EdgeKitError, NotFound

from edgekit import keys
from edgekit.cache import Cache
from edgekit.flash import arrival, ext4, folder, staging
from edgekit.flash.at_rest import Item, content, facts_of, find
from edgekit.flash.bundles import Terms
from edgekit.flash.card import Part, read_card, read_ext
from edgekit.flash.checks import refused
from edgekit.flash.differing import Kept
from edgekit.flash.facts import Homes
from edgekit.flash.offline import carry_out, prepare
from edgekit.flash.parcel import Contents, in_root, parcel_of
from edgekit.flash.staging import Wishes
from edgekit.oci.blobs import Blobs
from edgekit.places import roots
from tests.commands import edgekit
from tests.flash.cards import FAT, LINUX, MIB, elf, fsck, gpt, make_ext4, make_root, mbr, silent
from tests.runtime.bundles import make_bundle
from tests.runtime.signing import relisted, sign_folder

pytestmark = pytest.mark.slow

START = MIB * 2


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The keys that the bundles are signed with."""
    folder = tmp_path_factory.mktemp("keys") / "keys"
    keys.new(folder, "main")
    return folder


@pytest.fixture(scope="module")
def bundle(home, tmp_path_factory) -> Path:
    """A signed bundle for a Raspberry Pi 5."""
    folder = make_bundle(tmp_path_factory.mktemp("bundles") / "tiny", "onnx")
    relisted(folder, target="rpi5", release=1000)
    return sign_folder(folder, keys.signing_key(home))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The files of a device's root."""
    return make_root(tmp_path_factory.mktemp("root") / "root")


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory) -> bytes:
    """An image of a card: a boot partition, and that root."""
    folder = tmp_path_factory.mktemp("card")
    return mbr(folder / "card.img", [(FAT, 1), (LINUX, make_ext4(folder / "root.img", root))]).read_bytes()


@pytest.fixture
def card(whole, tmp_path) -> Path:
    """One of our own."""
    (tmp_path / "card.img").write_bytes(whole)
    return tmp_path / "card.img"


def flash(bundle: Path, where: str, home: Path, **more: object) -> str:
    """Prepare and carry out; the outcome."""
    return carry_out(prepare(replace(Wishes(bundle, where, home), **more), silent), silent).outcome


def digest(path: Path) -> str:
    """Of all its bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def look(card: Path, path: str) -> bytes | None:
    """A file in a card's root."""
    part = next(part for part in read_card(card).parts if part.holds == "ext")
    with ext4.opened(card, part, ext4.programs(silent)) as one:
        return content(ext4.as_root(one), path)


def parcel_in(root: Path) -> Path:
    """The one parcel in a mounted root."""
    (found,) = (root / "opt/edgekit/arrived").iterdir()
    return found


def test_a_bundle_is_staged_in_the_image_of_a_card(bundle, home, card):
    card.chmod(0o640)
    assert flash(bundle, f"image:{card}", home) == "staged"
    assert fsck(card, START) == 0
    assert card.stat().st_mode & 0o777 == 0o640
    with ext4.opened(card, read_card(card).parts[1], ext4.programs(silent)) as one:
        tree = ext4.as_root(one)
        name, _ = find(tree, "etc/systemd/system/multi-user.target.wants/edgekit-install.service")
        assert name == "etc/systemd/system/edgekit-install.service"
        arrived = find(tree, "opt/edgekit/arrived")[1]
        (parcel,) = tree.names(arrived)
        assert parcel.startswith("000000001000-tiny-")
        at = f"opt/edgekit/arrived/{parcel}"
        assert content(tree, f"{at}/bundle/manifest.json") == (bundle / "manifest.json").read_bytes()
        assert content(tree, f"{at}/trust/0.json") == keys.trust_document(home)
        label = json.loads(content(tree, f"{at}/parcel.json"))
        assert (label["name"], label["arch"], label["runtimes"]) == ("tiny", "aarch64", None)
        owned = one.ask(f"stat /{at}/hands.py").decode()
        assert "Mode:  0644" in owned
        assert "User:     0   Group:     0" in owned


def test_the_same_again_changes_nothing(bundle, home, card):
    assert flash(bundle, f"image:{card}", home) == "staged"
    before, when = digest(card), card.stat().st_mtime_ns
    assert flash(bundle, f"image:{card}", home) == "unchanged"
    assert (digest(card), card.stat().st_mtime_ns) == (before, when)


def test_a_gpt_card_and_a_bare_file_system_are_staged_too(bundle, home, root, tmp_path):
    bare = make_ext4(tmp_path / "root.img", root)
    table = gpt(tmp_path / "card.img", [1, bare])
    for path, offset in ((bare, 0), (table, START)):
        assert flash(bundle, f"image:{path}", home) == "staged"
        assert fsck(path, offset) == 0


def test_an_image_with_a_strange_name_is_staged(bundle, home, card):
    odd = card.with_name("my card?offset=1 [x].img")
    card.rename(odd)
    assert flash(bundle, f"image:{odd}", home) == "staged"
    assert fsck(odd.rename(card), START) == 0


def test_a_plan_alone_writes_nothing(bundle, home, card):
    before = digest(card)
    plan = prepare(Wishes(bundle, f"image:{card}", home), silent).plan
    told = staging.to_json(plan)
    assert not told["refused"]
    assert plan.size == told["bytes"] > 0
    assert any("copy the image" in line for line in staging.lines(plan))
    assert digest(card) == before
    assert [path.name for path in card.parent.iterdir()] == ["card.img"]


def test_in_place_is_said_plainly_and_done(bundle, home, card):
    inode = card.stat().st_ino
    plan = prepare(Wishes(bundle, f"image:{card}", home, in_place=True), silent).plan
    assert any("has to be made anew" in line for line in staging.lines(plan))
    assert flash(bundle, f"image:{card}", home, in_place=True) == "staged"
    assert card.stat().st_ino == inode
    assert fsck(card, START) == 0


def write(path: Path, raw: bytes) -> None:
    """A file in a root, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)


WRONG = {
    "architecture": lambda root: (root / "usr/bin/python3.11").write_bytes(elf(62)),
    "C library": lambda root: (root / "usr/lib/aarch64-linux-gnu/libstdc++.so.6").unlink(),
    "Python": lambda root: (root / "usr/bin/python3").unlink(),
    "target": lambda root: write(root / "var/lib/edgekit/target", b"jetson-orin-nano\n"),
    "system": lambda root: (root / "usr/lib/systemd/systemd").unlink(),
    "floor": lambda root: write(root / "var/lib/edgekit/floor.json", b'{"names": {"tiny": 1001}, "seen": 0}'),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_device_that_would_refuse_it_later_is_refused_now(bundle, home, root, tmp_path, name):
    shutil.copytree(root, tmp_path / "root", symlinks=True)
    WRONG[name](tmp_path / "root")
    card = make_ext4(tmp_path / "card.img", tmp_path / "root")
    before = digest(card)
    prepared = prepare(Wishes(bundle, f"image:{card}", home), silent)
    assert [check.name for check in refused(prepared.plan.checks)] == [name]
    with pytest.raises(EdgeKitError, match=name):
        carry_out(prepared, silent)
    assert digest(card) == before


def test_a_touched_bundle_and_one_of_a_stranger_are_refused(bundle, home, card, tmp_path):
    touched = shutil.copytree(bundle, tmp_path / "touched")
    (touched / "labels.txt").write_text("no\n")
    keys.new(tmp_path / "others", "other")
    for which, trust in ((touched, home), (bundle, tmp_path / "others")):
        plan = prepare(Wishes(which, f"image:{card}", trust), silent).plan
        assert [check.name for check in refused(plan.checks)] == ["bundle"]


def test_a_device_that_trusts_another_root_refuses_ours(bundle, home, root, tmp_path):
    keys.new(tmp_path / "others", "other")
    shutil.copytree(root, tmp_path / "root", symlinks=True)
    write(tmp_path / "root/var/lib/edgekit/trust.json", keys.trust_document(tmp_path / "others"))
    plan = prepare(Wishes(bundle, f"file://{tmp_path}/root", home), silent).plan
    assert [check.name for check in refused(plan.checks)] == ["bundle"]


def test_a_full_image_is_refused_and_stays_as_it_was(bundle, home, root, tmp_path):
    shutil.copytree(root, tmp_path / "root", symlinks=True)
    card = make_ext4(tmp_path / "card.img", tmp_path / "root")
    (tmp_path / "root/filler").write_bytes(os.urandom(read_ext(card, Part(0, 0, 16 * MIB)).free - 100_000))
    card.unlink()
    make_ext4(card, tmp_path / "root")
    before = digest(card)
    plan = prepare(Wishes(bundle, f"image:{card}", home), silent).plan
    (check,) = refused(plan.checks)
    assert check.name == "disk"
    with (
        pytest.raises(EdgeKitError, match="could not be written"),
        ext4.opened(card, Part(0, 0, 16 * MIB, "ext"), ext4.programs(silent)) as one,
    ):
        ext4.put(one, [Item("large", os.urandom(8 * MIB))])
    assert plan.where.endswith("(the whole)")
    assert digest(card) != before  # that was written into the image itself, on purpose


def test_a_damaged_file_system_is_refused_and_stays_as_it_was(bundle, home, card):
    with card.open("r+b") as file:
        programs = ext4.programs(silent)
        with ext4.opened(card, read_card(card).parts[1], programs) as one:
            said = one.ask("imap /usr/lib").decode()
        block = int(said.split("located at block ")[1].split(",")[0])
        at = int(said.split("offset ")[1].split()[0], 16)
        size = 1024 << struct.unpack_from("<I", card.read_bytes(), START + 1024 + 24)[0]
        file.seek(START + block * size + at + 40)
        file.write(b"\xff" * 60)  # where its folder's blocks are
    before = digest(card)
    with pytest.raises(EdgeKitError) as told:
        flash(bundle, f"image:{card}", home)
    assert told.value.hint
    assert digest(card) == before
    assert [path.name for path in card.parent.iterdir()] == ["card.img"]


def test_the_journal_of_a_device_that_lost_its_power_is_replayed(bundle, home, card):
    """A block that is only in the journal of a partition: it is in the file system afterwards."""
    part = read_card(card).parts[1]
    with ext4.opened(card, part, ext4.programs(silent)) as one:
        ext4.put(one, [Item("etc/hostname", b"before".ljust(1024))])
        block = int(one.ask("bmap /etc/hostname 0").split()[0])
        size = 1024 << struct.unpack_from("<I", card.read_bytes(), START + 1024 + 24)[0]
        (one.folder / "block").write_bytes(b"after!".ljust(size))
        one.change(["journal_open", f"journal_write -b {block} block", "journal_close"])
    assert read_ext(card, part).unclean
    assert look(card, "etc/hostname")[:6] == b"before"
    assert flash(bundle, f"image:{card}", home) == "staged"
    assert not read_ext(card, part).unclean
    assert look(card, "etc/hostname")[:6] == b"after!"
    assert fsck(card, START) == 0


def test_an_image_that_somebody_writes_to_is_left_alone(bundle, home, card):
    writer = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, stdout=card.open("ab"))
    try:
        with pytest.raises(Busy, match="has it open to write"):
            flash(bundle, f"image:{card}", home)
    finally:
        writer.kill()
        writer.wait()


def test_an_image_that_an_emulator_runs_is_left_alone(bundle, home, card):
    """qemu locks single bytes, to read."""
    lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 201, 1, 0)
    with card.open("rb") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        with pytest.raises(Busy, match="in use by another program"):
            flash(bundle, f"image:{card}", home)
    assert flash(bundle, f"image:{card}", home) == "staged"


def test_two_flashes_of_one_image_do_not_meet(bundle, home, card):
    with card.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another flash"):
            flash(bundle, f"image:{card}", home)


KILLED = """
import sys
from pathlib import Path
from edgekit.flash.offline import carry_out, prepare
from edgekit.flash.staging import Wishes
prepared = prepare(Wishes(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])), lambda words: None)
print("ready", flush=True)
carry_out(prepared, lambda words: None)
print("done", flush=True)
"""


def test_a_flash_that_is_killed_leaves_the_old_image_or_the_new_one(bundle, home, card, whole):
    """At twelve random moments; what it left beside the image is gone after the next flash."""
    command = [sys.executable, "-c", KILLED, str(bundle), f"image:{card}", str(home)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        assert process.stdout.readline() == "done\n"
        takes = time.monotonic() - began
    assert fsck(card, START) == 0
    old, chance, kept = hashlib.sha256(whole).hexdigest(), random.Random(3), 0
    for _ in range(12):
        card.write_bytes(whole)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, takes))
            process.send_signal(signal.SIGKILL)
        kept += digest(card) == old
        if digest(card) != old:
            assert fsck(card, START) == 0
            assert look(card, "etc/systemd/system/multi-user.target.wants/edgekit-install.service")
    assert kept
    assert flash(bundle, f"image:{card}", home) in ("staged", "unchanged")
    card.write_bytes(whole)
    assert flash(bundle, f"image:{card}", home) == "staged"
    assert [path.name for path in card.parent.iterdir()] == ["card.img"]


def test_a_mounted_root_is_staged_and_read_as_the_device_would(bundle, home, root, tmp_path):
    mounted = shutil.copytree(root, tmp_path / "root", symlinks=True)
    assert flash(bundle, f"file://{mounted}", home) == "staged"
    parcel = parcel_in(mounted)
    assert (parcel / "bundle/manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()
    link = mounted / "etc/systemd/system/multi-user.target.wants/edgekit-install.service"
    assert os.readlink(link) == "/etc/systemd/system/edgekit-install.service"
    assert flash(bundle, f"file://{mounted}", home) == "unchanged"


def test_how_it_is_to_be_installed_goes_along_with_it(bundle, home, root, tmp_path):
    """Wishes, a signed leave and the words to serve with; other ones are another parcel, and so is another trust."""
    mounted, keys_here = shutil.copytree(root, tmp_path / "root", symlinks=True), tmp_path / "keys"
    shutil.copytree(home, keys_here)
    terms = Terms(7.0, True, True, keys.allow(home, "tiny", 5, 1))
    assert flash(bundle, f"file://{mounted}", keys_here, terms=terms, serve=("--port", "0")) == "staged"
    with pytest.raises(EdgeKitError, match="--python is for a stick"):
        flash(bundle, f"file://{mounted}", home, pythons=("3.11",))
    label = json.loads((parcel_in(mounted) / "parcel.json").read_text())
    assert label["install"] == ["--probation", "7", "--again", "--roll-back-on-drift"]
    assert (parcel_in(mounted) / label["leave"]).read_bytes() == terms.downgrade
    assert label["serve"] == ["--port", "0"]
    changes = ({}, {"terms": replace(terms, downgrade=keys.allow(home, "tiny", 6, 1))}, {"serve": None}, {})
    wished, outcomes = {"terms": terms, "serve": ("--port", "0")}, []
    for change in changes:
        wished |= change
        outcomes.append(flash(bundle, f"file://{mounted}", keys_here, **wished))
    keys.new(keys_here, "more")
    outcomes += [flash(bundle, f"file://{mounted}", keys_here, **wished) for _ in range(2)]
    assert outcomes == ["unchanged", "staged", "staged", "unchanged", "staged", "unchanged"]
    plan = prepare(Wishes(bundle, f"file://{mounted}", home, terms=terms, serve=()), silent).plan
    told = " ".join(staging.lines(plan))
    assert "it serves with these words from then on: none" in told
    assert "on probation for 7 s, which a drift alarm ends too" in told
    assert "even if the device went back from it before" in told
    assert "a signed leave" in told


def of_the_model(root: Path, bundle: Path, live: bool = False, refused: bool = False) -> None:
    """What a device's folders hold once it was served: another version, or this one, or it went back from this one."""
    store, id = root / "var/lib/edgekit/store", digest(bundle / "manifest.json")[:12]
    shown = id if live else "0" * 12
    (store / "versions/tiny" / shown).mkdir(parents=True)
    (store / "slots/tiny").mkdir(parents=True)
    (store / "slots/tiny/live").symlink_to(f"../../versions/tiny/{shown}")
    if refused:
        (store / "slots/tiny/refused").write_text(f"{'1' * 12}\n{id}\n")


def test_a_version_that_the_device_went_back_from_is_staged_only_when_that_is_said(bundle, home, root, tmp_path):
    mounted = shutil.copytree(root, tmp_path / "root", symlinks=True)
    of_the_model(mounted, bundle, refused=True)
    plan = prepare(Wishes(bundle, f"file://{mounted}", home), silent).plan
    assert [(one.name, "--again" in one.hint) for one in refused(plan.checks)] == [("refused", True)]
    assert flash(bundle, f"file://{mounted}", home, terms=Terms(again=True)) == "staged"


def test_an_older_release_is_staged_with_a_signed_leave_for_it(bundle, home, root, tmp_path):
    mounted = shutil.copytree(root, tmp_path / "root", symlinks=True)
    WRONG["floor"](mounted)
    for raw, name in ((None, "floor"), (b"{}", "leave"), (keys.allow(home, "tiny", 1001, 1), "leave")):
        plan = prepare(Wishes(bundle, f"file://{mounted}", home, terms=Terms(downgrade=raw)), silent).plan
        assert [one.name for one in refused(plan.checks)] == [name]
    terms = Terms(downgrade=keys.allow(home, "tiny", 1000, 1))
    assert flash(bundle, f"file://{mounted}", home, terms=terms) == "staged"


def test_a_version_is_compared_first_only_where_one_is_live(bundle, home, root, tmp_path):
    mounted, terms = shutil.copytree(root, tmp_path / "root", symlinks=True), Terms(shadow=("--shadow", "0.1"))
    plan = prepare(Wishes(bundle, f"file://{mounted}", home, terms=terms), silent).plan
    assert [one.words for one in refused(plan.checks)] == ["no version of tiny is live there to compare with"]
    of_the_model(mounted, bundle)
    plan = prepare(Wishes(bundle, f"file://{mounted}", home, terms=terms), silent).plan
    assert "compared with the live version on 0.1 of its requests" in " ".join(staging.lines(plan))
    assert flash(bundle, f"file://{mounted}", home, terms=terms) == "staged"
    assert json.loads((parcel_in(mounted) / "parcel.json").read_text())["install"][-2:] == ["--shadow", "0.1"]


def test_what_is_live_already_is_staged_again_only_for_new_trust_or_other_words(bundle, home, root, tmp_path):
    mounted, keys_here = shutil.copytree(root, tmp_path / "root", symlinks=True), tmp_path / "keys"
    shutil.copytree(home, keys_here)
    of_the_model(mounted, bundle, live=True)
    write(mounted / "var/lib/edgekit/trust.json", keys.trust_document(home))
    write(mounted / "opt/edgekit/serve.json", b'["--port", "0"]')
    for serve, outcome in ((None, "unchanged"), (("--port", "0"), "unchanged"), ((), "staged")):
        assert flash(bundle, f"file://{mounted}", keys_here, serve=serve) == outcome
    shutil.rmtree(parcel_in(mounted))
    keys.new(keys_here, "more")
    assert flash(bundle, f"file://{mounted}", keys_here) == "staged"


def test_another_bundle_of_the_same_name_and_version_is_another_parcel(bundle, home, tmp_path):
    """On a stick all parcels lie in one folder."""
    other = shutil.copytree(bundle, tmp_path / "bundle")
    relisted(other, release=1001)
    labels = set()
    for which in (bundle, bundle, other):
        told = read_manifest(which), digest(which / "manifest.json")
        labels.add(parcel_of(Contents(which, *told, "aarch64", (), None, Homes(), Terms())).label)
    assert len(labels) == 2


def test_the_command_line_stages_and_tells_it_as_json(bundle, home, root, tmp_path):
    mounted, where = shutil.copytree(root, tmp_path / "root", symlinks=True), ("--keys", home, "--json", "--quiet")
    words = ("--again", "--serve", "--port 0", *where)
    dry = edgekit("flash", bundle, f"file://{mounted}", *words, "--dry-run")
    assert (dry.code, dry.json()["dry_run"], dry.json()["refused"]) == (0, True, False), dry.err
    assert "it serves with these words from then on: --port 0" in dry.json()["steps"]
    assert "say --yes" in edgekit("flash", bundle, f"file://{mounted}", *words).err
    assert not list(mounted.glob("opt/edgekit/arrived/*"))
    done = edgekit("flash", bundle, f"file://{mounted}", *words, "--yes")
    assert (done.code, done.json()["outcome"]) == (0, "staged"), done.err
    assert "--again" in json.loads((parcel_in(mounted) / "parcel.json").read_text())["install"]


def test_what_was_staged_is_kept_for_the_deltas_of_later_flashes(bundle, home, root, tmp_path):
    mounted = shutil.copytree(root, tmp_path / "root", symlinks=True)
    large = shutil.copytree(bundle, tmp_path / "bundle")
    (large / "report.html").write_bytes(os.urandom(70_000))
    relisted(large)
    sign_folder(large, keys.signing_key(home))
    kept = Kept(Blobs(tmp_path / "blobs"), Cache(tmp_path / "cache"))
    assert flash(large, f"file://{mounted}", home, kept=kept) == "staged"
    named = {path.name for path in kept.blobs.root.iterdir()}
    assert {
        hashlib.sha256((large / name).read_bytes()).hexdigest() for name in ("manifest.json", "report.html")
    } == named


def test_a_staging_that_was_cut_short_does_not_count_and_is_finished_later(bundle, home, root, tmp_path):
    """What says that a parcel is whole is written after all else of it."""
    mounted = shutil.copytree(root, tmp_path / "root", symlinks=True)
    prepared = prepare(Wishes(bundle, f"file://{mounted}", home), silent)
    items = in_root(prepared.parcel, Homes())
    folder.put(mounted, items[:4])
    assert not list(mounted.glob("opt/edgekit/arrived/*/parcel.json"))
    assert flash(bundle, f"file://{mounted}", home) == "staged"


def test_a_link_never_leads_out_of_a_mounted_root(bundle, home, root, tmp_path):
    mounted = shutil.copytree(root, tmp_path / "root", symlinks=True)
    outside = tmp_path / "outside"
    (mounted / "data").mkdir()
    shutil.rmtree(mounted / "opt/edgekit")
    shutil.rmtree(mounted / "opt")
    outside.mkdir()
    (mounted / "opt").symlink_to(outside)
    shutil.copytree(root / "opt/edgekit", mounted / str(outside).strip("/") / "edgekit", symlinks=True)
    assert flash(bundle, f"file://{mounted}", home) == "staged"
    assert not list(outside.iterdir())
    assert (mounted / str(outside).strip("/") / "edgekit/arrived").is_dir()


def test_links_in_circles_are_refused(bundle, home, root, tmp_path):
    mounted = shutil.copytree(root, tmp_path / "root", symlinks=True)
    shutil.rmtree(mounted / "opt")
    (mounted / "opt").symlink_to("opt2")
    (mounted / "opt2").symlink_to("opt")
    with pytest.raises(EdgeKitError, match="circles"):
        flash(bundle, f"file://{mounted}", home)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("config.txt", "cmdline.txt", "kernel8.img"), "is a boot partition"),
        (("EFI/boot/x.efi",), "is a boot partition"),
        (("holiday.jpg",), "not empty"),
    ],
)
def test_a_folder_that_is_no_root_is_refused_with_what_would_be(bundle, home, tmp_path, files, words):
    for name in files:
        write(tmp_path / "there" / name, b"")
    with pytest.raises(EdgeKitError, match=words) as told:
        flash(bundle, f"file://{tmp_path}/there", home)
    assert told.value.hint


def test_places_that_are_none_are_refused(bundle, home, tmp_path):
    for where in ("file://", "file:relative", "file://elsewhere/x", "image:/dev/null"):
        with pytest.raises(EdgeKitError):
            flash(bundle, where, home)
    for where in (f"file://{tmp_path}/nothing", f"image:{tmp_path}/nothing"):
        with pytest.raises(NotFound):
            flash(bundle, where, home)
    with pytest.raises(EdgeKitError, match="own root"):
        flash(bundle, "file:///", home)


@pytest.fixture
def parcel(bundle, home, root, tmp_path, monkeypatch) -> Path:
    """A parcel as it lies on a device, with the device's own folders somewhere else."""
    monkeypatch.setattr(arrival, "say", lambda words: None)
    mounted = shutil.copytree(root, tmp_path / "device", symlinks=True)
    assert flash(bundle, f"file://{mounted}", home) == "staged"
    here = parcel_in(mounted)
    label = json.loads((here / "parcel.json").read_text())
    label["prefix"], label["device"] = str(mounted / "opt/edgekit"), str(mounted / "var/lib/edgekit")
    (here / "parcel.json").write_text(json.dumps(label))
    return here


def told(parcel: Path) -> list[dict[str, object]]:
    """What the device wrote down of its parcels."""
    return [json.loads(line) for line in (parcel.parent.parent / "arrivals.jsonl").read_text().splitlines()]


def test_what_the_device_cannot_take_is_tried_three_times_and_told(parcel):
    """This machine is none that the parcel is for."""
    label = json.loads((parcel / "parcel.json").read_text())
    (parcel / "parcel.json").write_text(json.dumps(label | {"arch": "mips"}))
    for left in (True, True, False):
        assert arrival.at_boot(parcel) == 1
        assert parcel.is_dir() is left
    assert [one["over"] for one in told(parcel)] == [False, False, True]
    assert "this is for mips" in str(told(parcel)[0]["came"])


def test_another_python_than_was_brought_for_is_told(parcel):
    label = json.loads((parcel / "parcel.json").read_text())
    (parcel / "parcel.json").write_text(json.dumps(label | {"arch": os.uname().machine, "runtimes": {"3.99": {}}}))
    assert arrival.at_boot(parcel) == 1
    assert "--python" in str(told(parcel)[0]["came"])


def test_a_parcel_that_always_cuts_the_power_is_not_tried_for_ever(parcel, monkeypatch):
    (parcel / "starts").write_text(str(arrival.STARTS - 1))
    monkeypatch.setattr(arrival, "arrive", lambda here: (_ for _ in ()).throw(arrival.Refused("no")))
    assert arrival.at_boot(parcel) == 1
    assert not parcel.exists()


AWAY = """
set -e
for d in /opt /var/lib /usr/local/bin /run; do mount -t tmpfs none $d; done
cp /etc/passwd {scratch}/passwd; echo 'edgekit:x:64999:64999::/var/lib/edgekit:/bin/false' >> {scratch}/passwd
mount --bind {scratch}/passwd /etc/passwd
PATH=/usr/bin:/bin:/usr/sbin:/sbin
export PATH
sh {sticks}/1/edgekit/install.sh
/usr/local/bin/edgekit-runtime status --json
cat /opt/edgekit/serve.json; ls /var/lib/edgekit/on-drift
sh {sticks}/1/edgekit/install.sh
rm /var/lib/edgekit/store/slots/tiny/trial.json
sh {sticks}/2/edgekit/install.sh
/usr/local/bin/edgekit-runtime status --json
echo '{{"names": {{"tiny": 1000}}, "seen": 0}}' > /var/lib/edgekit/floor.json
sh {sticks}/3/edgekit/install.sh
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount namespace of its own")
@pytest.mark.skipif(not Path("/usr/bin/python3.11").exists(), reason="the system's Python is another one")
def test_a_stick_installs_runtime_and_bundle_on_a_device_without_network(bundle, home, tmp_path):
    """By the script on it, in a namespace without a network, by the system's own Python."""
    terms = {
        1: Terms(7.0, roll_back_on_drift=True),
        2: Terms(shadow=("--shadow", "0.25", "--shadow-requests", "7")),
        3: Terms(downgrade=keys.allow(home, "tiny", 999, 1)),
    }
    for number, release in ((1, 1000), (2, 1002), (3, 999)):
        ours = shutil.copytree(bundle, tmp_path / f"bundle{number}")
        relisted(ours, target="x86-64-v3", version=str(number), release=release)
        sign_folder(ours, keys.signing_key(home))
        (tmp_path / str(number) / "System Volume Information").mkdir(parents=True)
        for outcome in ("carried", "unchanged") if number == 1 else ("carried",):
            more = {"pythons": ("3.11",), "terms": terms[number], "serve": ("--port", "8123")}
            assert flash(ours, f"file://{tmp_path}/{number}", home, **more) == outcome
    script = AWAY.format(scratch=tmp_path, sticks=tmp_path)
    done = subprocess.run(["unshare", "--mount", "--net", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"tiny"' in done.stdout
    assert "tiny 1: live; there is no systemd to start it" in done.stdout
    assert "tiny 1: unchanged" in done.stdout
    assert '["--port", "8123"]tiny' in done.stdout
    assert '"seconds_left": 7.0' in done.stdout
    assert "tiny 2: shadowing" in done.stdout
    assert '"share": 0.25' in done.stdout
    assert "tiny 3: live" in done.stdout


def test_debians_own_arm_files_tell_what_they_are(tmp_path):
    """A real Python and C library for ARM, in an image and as a folder."""
    part = roots.root("aarch64")
    if not part.ready():
        part = replace(part, folder=tmp_path / "root")
        part.make(part.folder, silent)
    seen = [folder.as_root(part.folder)]
    image = make_ext4(tmp_path / "root.img", part.folder, 160)
    with ext4.opened(image, read_card(image).parts[0], ext4.programs(silent)) as one:
        seen.append(ext4.as_root(one))
        for tree in seen:
            facts = facts_of(tree)
            assert (facts.arch, facts.bits, facts.libstdcxx) == ("aarch64", 64, True)
            assert facts.glibc is not None
            assert facts.glibc >= (2, 31)
            assert find(tree, str(roots.root_python(part.folder)))[1].kind == "file"


def test_the_programs_are_fetched_where_there_are_none(bundle, home, card, tmp_path, monkeypatch):
    """Debian's own, with their libraries."""
    monkeypatch.setattr(ext4, "programs", lambda tell: ext4.fetched(tell, tmp_path / "cache"))
    assert flash(bundle, f"image:{card}", home) == "staged"
    monkeypatch.undo()
    assert fsck(card, START) == 0
