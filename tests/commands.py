"""The command line as a person meets it: words in; exit code, output and errors out. Refuses nothing."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from edgekit.cli import main


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and both outputs."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The output as JSON."""
        return json.loads(self.out)

    def error(self) -> str:
        """The one line that says what was wrong; there must be a hint after it."""
        lines = [line for line in self.err.splitlines() if line.startswith(("error:", "hint:"))]
        assert len(lines) == 2, self.err
        assert lines[0].startswith("error: "), self.err
        assert lines[1].startswith("hint: "), self.err
        return lines[0]


def edgekit(*words: object) -> Done:
    """Run `edgekit WORDS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
    return Done(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())
