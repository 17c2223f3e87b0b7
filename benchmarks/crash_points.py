"""Every operation of a device's store cut after each of its primitives: how many cuts, what they leave, the result.

Run it with `python -m benchmarks.crash_points [--twice]`. Refuses (exit status 1) a cut that leaves no whole version.

The disk is simulated: what was not synced is lost, in every way that it may be (see tests/runtime/simulated_disk.py).
`--twice`: the operation is done again after each cut, and cut everywhere once more."""

import sys

from tests.runtime.store.crashes import OPERATIONS, Told, crash


def main(twice: bool) -> int:
    """Cut, print a line for each operation; 1 if one of them failed."""
    _say("operation", "cut points", "states", "result")
    every: list[Told] = []
    failed = 0
    for operation in OPERATIONS:
        try:
            told = crash(operation, twice=twice)
        except Exception as error:  # whatever broke it: the table says so, and goes on to the next
            failed = 1
            _say(operation.name, "", "", f"FAILED: {error!r}")
            continue
        every.append(told)
        _say(told.name, f"{told.cuts:,}", f"{told.states:,}", "the old version or the new, whole")
    _say("in all", f"{sum(told.cuts for told in every):,}", f"{sum(told.states for told in every):,}", "")
    return failed


def _say(name: str, cuts: str, states: str, result: str) -> None:
    sys.stdout.write(f"{name:<32}{cuts:>12}{states:>10}  {result}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main("--twice" in sys.argv[1:]))
