"""Flash an emulated arm64 machine over ssh again and again, and cut its power meanwhile, at random moments.

Refuses, with why, where there can be no such machine. After each cut it boots and has to serve, the old version or the
new; and the same command has to bring the new one."""

import argparse
import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
from edgekit_runtime.bundle import read_manifest

from edgekit import keys
from edgekit.bundle import copy_files, seal
from tests import tiny
from tests.machine import Machine, machine, missing

NAME, KEYS = "digits", "edgekit/keys"
SHORT = 0.05
"""Seconds: lines that are told together make no stretch between them."""


def cuts(there: Machine, desk: Path, count: int, dice: random.Random, tell: Callable[[str], None]) -> Counter[str]:
    """How often the old and how often the new version was served after a cut in the midst of a flash.

    Each cut comes in a stretch of the flash chosen at random, by what the flash tells, at a random moment of it: so the
    short ones get their share, and a busy machine does not end all of them in the first.
    """
    bundles = _bundles(desk, count + 2)
    tell("a flash with the runtime, and one without it, before any cut")
    ended(flash(there, desk, bundles[0], "--quiet"))
    stretches = _stretches(flash(there, desk, bundles[1]))
    told: Counter[str] = Counter()
    before = "2"
    for number, bundle in enumerate(bundles[2:], 3):
        running = flash(there, desk, bundle)
        stretch = dice.choice([said for said, long in stretches.items() if long > SHORT])
        _reached(running, stretch)
        after = dice.uniform(0.0, 1.2 * stretches[stretch])
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(after)
        there.cut()
        running.communicate(timeout=120)
        there.start()
        served = _served(there)
        assert served in (before, str(number)), f"after cut {number - 2} version {served} is served"
        told["new" if served == str(number) else "old"] += 1
        tell(f"cut {number - 2} of {count}, {after:.1f} s after {stretch!r}: version {served} is served")
        before = served
    tell("the last flash again, without a cut")
    ended(flash(there, desk, bundles[-1], "--quiet", "--again"))
    assert _served(there) == str(len(bundles))
    return told


def _stretches(running: "subprocess.Popen[str]") -> dict[str, float]:
    """What a flash tells, without its numbers, in its order; and how long it is until it tells the next."""
    assert running.stdout is not None
    begun = {"": time.monotonic()}
    for line in running.stdout:
        begun.setdefault(_said(line), time.monotonic())
    assert running.wait(60) == 0
    moments = [*begun.values(), time.monotonic()]
    return {said: later - now for said, (now, later) in zip(begun, pairwise(moments), strict=True)}


def _reached(running: "subprocess.Popen[str]", stretch: str) -> None:
    """Wait until a flash tells that, or ends."""
    assert running.stdout is not None
    while stretch and (line := running.stdout.readline()) and _said(line) != stretch:
        pass


def _said(line: str) -> str:
    return re.sub(r"[0-9a-f]*[0-9][0-9a-f.]*", "#", line.strip())


def _bundles(desk: Path, count: int) -> list[Path]:
    """So many versions of a small net for the machine's architecture, signed; they differ in weights that cannot be
    packed."""
    tiny.write_model(desk)
    tiny.write_digits(desk)
    first = desk / f"{NAME}-1.edgekit"
    words = ["build", desk / "digits.onnx", "--target", "rpi4", "--data", desk / "digits.npz", "--max-drop", "3pt"]
    words += ["--smaller", "--format", "onnx", "--precision", "int8", "--name", NAME, "--bundle-version", "1"]
    ended(_edgekit(desk, *words, "--release", "1", "--out", first))
    secret, made = keys.signing_key(desk / KEYS), [first]
    for number in range(2, count + 1):
        place = desk / f"{NAME}-{number}.edgekit"
        copy_files(first, place)
        (place / "MODEL_CARD.md").write_bytes(random.Random(number).randbytes(3_000_000))
        seal(place, replace(read_manifest(place), version=str(number), release=number), secret)
        made.append(place)
    return made


def flash(there: Machine, desk: Path, bundle: Path, *words: str) -> "subprocess.Popen[str]":
    """A flash of the machine that is under way; its keys lie under `desk`."""
    config = ("--ssh-config", there.ssh_config)
    return _edgekit(desk, "flash", bundle, "ssh://device", "--yes", "--probation", "2", *config, *words)


def _edgekit(desk: Path, *words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "edgekit", *map(str, words)]
    environ = {**os.environ, "XDG_CONFIG_HOME": str(desk), "XDG_STATE_HOME": str(desk)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ)


def ended(running: "subprocess.Popen[str]") -> None:
    """Wait for a command, which has to go well."""
    said, _ = running.communicate(timeout=1800)
    assert running.returncode == 0, said


def _served(there: Machine) -> str:
    """The version that the machine's server answers with, once it answers."""
    found = there.get(f"/v2/models/{NAME}")
    assert isinstance(found, dict)
    return str(found["versions"][-1])


def main() -> int:
    """So many cuts as are asked for, printed one by one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=25)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    if why := missing():
        click.echo(f"error: {why}", err=True)
        return 1
    click.echo(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="cuts") as folder, machine(Path(folder)) as there:
        desk = Path(folder) / "desk"
        desk.mkdir()
        told = cuts(there, desk, given.cuts, random.Random(given.seed), click.echo)
    click.echo(f"{given.cuts} cuts: the old version was served after {told['old']}, the new after {told['new']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
