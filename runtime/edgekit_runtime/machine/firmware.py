"""What the firmware of a Raspberry Pi tells: why it slows the CPU down, and on a Pi 5 the power of its rails.

Refuses nothing. Asks by `vcgencmd`, a program: every ten seconds unless told, with a timeout, and never elsewhere."""

import re
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.machine.files import text

UNDERVOLTAGE = "undervoltage"
BITS = (UNDERVOLTAGE, "frequency_capped", "throttled", "temperature")
"""Bits 0 to 3 of get_throttled: so now. Bits 16 to 19: so at some time before."""
BEFORE = 16
FILE = "sys/devices/platform/soc/soc:firmware/get_throttled"
EVERY = 10.0
AFTER_FAILURE = 100.0
TIMEOUT = 2.0
LONGEST = 8192
RAIL = re.compile(r"\s*(\w+)_([AV]) (?:current|volt)\(\d+\)=(\d+\.\d+)[AV]\s*", re.ASCII)


@dataclass(frozen=True)
class Told:
    """`reasons` why it is slowed down, None where it does not say; `watts` of all rails that the firmware measures."""

    reasons: frozenset[str] | None = None
    watts: float | None = None


class Firmware:
    """The firmware under `root`, asked every so many seconds at most; asks nobody where that is no Raspberry Pi."""

    def __init__(self, root: Path, every: float = EVERY) -> None:
        self._every = every
        self._file = root / FILE
        self._there = (text(root / "proc/device-tree/model") or "").startswith("Raspberry Pi")
        self._program = self._there
        self._rails = True
        self._next = float("-inf")
        self._told = Told()
        self._before: int | None = None

    def read(self, now: float) -> Told:
        """What it told last, at most `every` seconds ago."""
        if not self._there:
            return self._told
        if self._program and now >= self._next:
            bits = _bits(self._ask("get_throttled"))
            self._next = now + (self._every if bits is not None else AFTER_FAILURE)
            self._told = Told(self._reasons(bits), self._watts() if bits is not None else None)
        if self._told.reasons is None:
            # the file tells what somebody's last question to the firmware gave, and a kernel warns of its use once
            # in its log: it is for where the program is missing, or may not ask
            return Told(self._reasons(_hexadecimal(text(self._file, 32))), None)
        return self._told

    def _reasons(self, bits: int | None) -> frozenset[str] | None:
        """Those now, and those that the firmware remembers but did not when asked before."""
        if bits is None:
            return None
        since = 0 if self._before is None else bits & ~self._before
        self._before = bits
        return frozenset(word for index, word in enumerate(BITS) if (bits >> index | since >> BEFORE + index) & 1)

    def _watts(self) -> float | None:
        if not self._rails:
            return None
        watts = rails(self._ask("pmic_read_adc") or "")
        self._rails = watts is not None  # a Pi 4 does not know the question: ask it once
        return watts

    def _ask(self, question: str) -> str | None:
        import subprocess

        try:
            done = subprocess.run(
                ["vcgencmd", question], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT
            )
        except FileNotFoundError:
            self._program = False
            return None
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return done.stdout[:LONGEST].decode("ascii", "replace") if done.returncode == 0 else None


def rails(told: str) -> float | None:
    """The sum over all rails of volts by amperes, from what `vcgencmd pmic_read_adc` prints; None without a rail.

    The 5 V input has no ammeter, so what hangs on USB is not in it, nor what the converters lose.
    """
    found: dict[str, dict[str, float]] = {}
    for line in told.splitlines():
        if match := RAIL.fullmatch(line):
            found.setdefault(match[1], {})[match[2]] = float(match[3])
    whole = [rail["A"] * rail["V"] for rail in found.values() if len(rail) == 2]
    return sum(whole) if whole else None


def _bits(told: str | None) -> int | None:
    match = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})", (told or "").strip())
    return int(match[1], 16) if match else None


def _hexadecimal(told: str | None) -> int | None:
    return int(told, 16) if told and re.fullmatch(r"(?:0x)?[0-9a-fA-F]{1,8}", told) else None
