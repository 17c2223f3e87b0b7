"""What `edgekit --help` takes beside a bare `import click`, in turn. Refuses nothing; prints medians of 15 runs."""

import statistics
import subprocess
import sys
import time

RUNS = 15
COMMANDS = {
    "python -c 'import click'": [sys.executable, "-c", "import click"],
    "edgekit --help": [sys.executable, "-m", "edgekit", "--help"],
}


def main() -> None:
    """Time both in turn."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - start)
    bare, ours = (statistics.median(times) for times in taken.values())
    for name, times in taken.items():
        sys.stdout.write(f"{name:<28} {statistics.median(times) * 1000:6.0f} ms\n")
    sys.stdout.write(f"{ours / bare:.2f} times\n")


if __name__ == "__main__":
    main()
