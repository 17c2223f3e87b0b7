"""The load generator's process, from outside: started once, told one load after another.

Refuses what the generator refuses: a wrong reply ends the benchmark."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from benchmarks import load
from benchmarks.load import Load, Told, Wrong, ask


class Generator:
    """`python benchmarks/load.py`, kept for many loads."""

    def __enter__(self) -> "Generator":
        self.process = subprocess.Popen(
            [sys.executable, load.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()

    def run(self, one: Load) -> Told:
        """Have it done.

        Raises:
            Wrong: a reply was not the expected one.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asdict(one)) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"wrong": "the load generator ended"}')
        if "wrong" in answer:
            raise Wrong(str(answer["wrong"]))
        return Told(**answer)


def prepared(scratch: Path, name: str, at: str, request: bytes, status: int = 200) -> tuple[str, str]:
    """The files of a request and of the body that the server answers it with now.

    Raises:
        Wrong: it answers another status.
    """
    told, body = ask(at, request)
    if told != status:
        raise Wrong(f"{name} at {at}: status {told}, {body[:300]!r}")
    paths = scratch / f"{name}.request", scratch / f"{name}.expected"
    for path, data in zip(paths, (request, body), strict=True):
        path.write_bytes(data)
    return str(paths[0]), str(paths[1])
