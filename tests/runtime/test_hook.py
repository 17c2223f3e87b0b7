"""The operator's command for drift, run for real: what it is told, how often, and what becomes of a bad one."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
from edgekit_runtime.errors import EdgeKitError
from edgekit_runtime.families import text
from edgekit_runtime.hook import Hook

from tests.waiting import until

pytestmark = pytest.mark.slow

TELL = """#!{python} -I
import json, os, sys
facts = json.load(sys.stdin)
with open({log!r}, "a") as out:
    out.write(json.dumps([facts, dict(os.environ), sys.argv[1:], os.getpid() == os.getsid(0)]) + "\\n")
print("told")
"""


@pytest.fixture
def hooks():
    made = []
    yield lambda *words, **more: made.append(Hook(*words, **more)) or made[-1]
    for hook in made:
        hook.close()


def script(folder, text, name="tell"):
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def counted(hook, outcome):
    return next(one.value for one in hook.families()[0].samples if one.labels == (("outcome", outcome),))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_command_is_told_the_facts_and_nothing_else(tmp_path, hooks, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    log = tmp_path / "log"
    path = script(tmp_path, TELL.format(python=sys.executable, log=str(log)))
    hook = hooks(f"'{path}' --to 'me and you' '$HOME;ls'")
    facts = {
        "event": "drift-raised",
        "model": "birds",
        "features": ["brightness", "se\x00d\n"],
        "psi": float("nan"),
        "n": 3,
    }
    hook.fire(facts)
    until(lambda: counted(hook, "ok") == 1)
    told, env, words, leads = json.loads(log.read_text())
    assert told == {**facts, "psi": None}
    assert words == ["--to", "me and you", "$HOME;ls"]
    assert leads
    env.pop("LC_CTYPE", None)
    assert env == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "EDGEKIT_EVENT": "drift-raised",
        "EDGEKIT_MODEL": "birds",
        "EDGEKIT_FEATURES": "brightness,se?d?",
    }
    assert 'edgekit_hook_runs_total{outcome="ok"} 1' in text(hook.families())


def test_the_last_state_wins_and_no_model_is_forgotten(tmp_path, hooks):
    log = tmp_path / "log"
    hook = hooks(str(script(tmp_path, TELL.format(python=sys.executable, log=str(log)))), least_seconds=0.8)
    start = time.monotonic()
    hook.fire({"model": "a", "n": 0})
    until(lambda: counted(hook, "ok") == 1)
    for number in range(1, 6):
        hook.fire({"model": "a", "n": number})
        hook.fire({"model": "b", "n": number})
    until(lambda: counted(hook, "ok") == 3)
    assert time.monotonic() - start >= 1.6
    told = [json.loads(line)[0] for line in log.read_text().splitlines()]
    assert told == [{"model": "a", "n": 0}, {"model": "a", "n": 5}, {"model": "b", "n": 5}]
    assert counted(hook, "superseded") == 8


def test_one_that_hangs_is_killed_with_its_children_and_the_next_runs(tmp_path, hooks, caplog):
    pids = tmp_path / "pids"
    hang = script(tmp_path, f"#!/bin/sh\ntrap '' TERM\nsleep 60 &\necho $! $$ >> {pids}\necho started\nsleep 60\n")
    hook = hooks(str(hang), least_seconds=0.0, seconds=1.5)
    hook.fire({"model": "a"})
    until(lambda: counted(hook, "timeout") == 1)
    assert not any(map(alive, map(int, pids.read_text().split())))
    assert "was killed: started" in caplog.text
    hook.fire({"model": "a"})
    until(lambda: counted(hook, "timeout") == 2)


def test_what_a_command_leaves_behind_ends_with_it(tmp_path, hooks):
    pids = tmp_path / "pids"
    leave = script(tmp_path, f"#!/bin/sh\nsleep 60 &\necho $! > {pids}\n")
    hook = hooks(str(leave))
    start = time.monotonic()
    hook.fire({"model": "a"})
    until(lambda: counted(hook, "ok") == 1)
    assert time.monotonic() - start < 30
    assert not alive(int(pids.read_text()))


def test_a_failure_is_counted_and_told_with_the_end_of_what_it_said(tmp_path, hooks, caplog):
    hook = hooks(str(script(tmp_path, "#!/bin/sh\necho no network >&2\nexit 3\n")))
    hook.fire({"model": "a"})
    until(lambda: counted(hook, "failed") == 1)
    until(lambda: "exit code 3 no network" in caplog.text)


def test_a_flood_of_output_costs_no_memory_and_fills_no_log(tmp_path, hooks, caplog):
    hook = hooks(str(script(tmp_path, "#!/bin/sh\nhead -c 200000000 /dev/zero | tr '\\0' x\necho end\nexit 1\n")))
    before = _peak()
    hook.fire({"model": "a"})
    until(lambda: counted(hook, "failed") == 1, 100)
    until(lambda: "end" in caplog.text)
    assert len(caplog.text) < 3000
    assert _peak() - before < 20_000


def test_facts_larger_than_a_pipe_reach_who_reads_and_hold_up_nobody_who_does_not(tmp_path, hooks):
    large = {"model": "a", "features": ["x" * 100] * 20_000}
    log = tmp_path / "log"
    reads = hooks(str(script(tmp_path, f"#!/bin/sh\nwc -c > {log}\n")))
    reads.fire(large)
    until(lambda: counted(reads, "ok") == 1)
    assert int(log.read_text()) == len(json.dumps(large))
    deaf = hooks(str(script(tmp_path, "#!/bin/sh\nexit 0\n", "deaf")))
    deaf.fire(large)
    until(lambda: counted(deaf, "ok") == 1)


def test_one_that_closes_its_ears_and_mouth_and_goes_on_costs_no_processor_time(tmp_path, hooks):
    hook = hooks(str(script(tmp_path, "#!/bin/sh\nexec <&- >&- 2>&-\nsleep 1\n")))
    before = time.process_time()
    hook.fire({"model": "a"})
    until(lambda: counted(hook, "ok") == 1)
    assert time.process_time() - before < 0.5


def test_one_that_is_gone_by_then_or_is_no_program_is_counted(tmp_path, hooks):
    path = script(tmp_path, "#!/no/such/shell\n")
    hook = hooks(str(path), least_seconds=0.0)
    hook.fire({"model": "a"})
    until(lambda: counted(hook, "not_started") == 1)
    path.unlink()
    hook.fire({"model": "a"})
    until(lambda: counted(hook, "not_started") == 2)


def test_a_server_that_ends_does_not_wait_for_it(tmp_path, hooks):
    pid = tmp_path / "pid"
    hook = hooks(str(script(tmp_path, f"#!/bin/sh\necho $$ > {pid}.new\nmv {pid}.new {pid}\nexec sleep 60\n")))
    start = time.monotonic()
    hook.fire({"model": "a"})
    until(pid.exists)
    hook.close()
    assert time.monotonic() - start < 30
    assert not alive(int(pid.read_text()))
    hook.fire({"model": "a"})
    assert counted(hook, "timeout") == 0


def test_a_command_without_a_slash_is_looked_for_where_systemd_would():
    assert Path(Hook("true").words[0]).is_absolute()


@pytest.mark.parametrize(
    ("command", "what", "hint"),
    [
        ("/no/such/command --x", "no command", "whole path"),
        ("edgekit-no-such-command", "no command", "whole path"),
        ("", "empty", "name a program"),
        ("  # nothing", "no command", "shell"),
        ("say 'unclosed", "does not read", "quote it"),
    ],
)
def test_a_command_that_cannot_run_is_refused_at_the_start(command, what, hint):
    with pytest.raises(EdgeKitError, match=what) as error:
        Hook(command)
    assert hint in error.value.hint


def test_a_script_that_may_not_be_run_is_refused_with_what_to_type(tmp_path):
    path = tmp_path / "tell"
    path.write_text("#!/bin/sh\n")
    with pytest.raises(EdgeKitError, match="no command") as error:
        Hook(str(path))
    assert error.value.hint == f"chmod +x {path}"


def _peak():
    """Kilobytes that this process had at most."""
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    return 0
