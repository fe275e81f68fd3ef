"""Scripts in processes of their own: their exit waits for their jobs, and their status tells the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def run(folder: Path, text: str, *, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=timeout, check=False)


def test_the_exit_waits_for_submitted_jobs(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
import atexit
from sage_actor import LocalEnvironment
atexit.register(print, "at exit")
env = LocalEnvironment("slow")

def slow():
    import time
    for i in range(3):
        time.sleep(0.05)
        yield i

env.from_source(slow()).map(lambda x: f"got {x}").print()
job = env.submit()
print("submitted", job.status)
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["submitted running", "got 0", "got 1", "got 2", "at exit"]


@pytest.mark.parametrize("backend", ["local", "process"])
def test_a_failure_nobody_waited_for_is_printed_with_status_1(tmp_path: Path, backend: str) -> None:
    done = run(
        tmp_path,
        f"""
import atexit
from sage_actor import LocalEnvironment
atexit.register(print, "at exit")
env = LocalEnvironment("fails", backend={backend!r})
env.from_collection([1, 0]).rebalance().map(lambda x: 1 / x, name="divide").print()
env.submit()
print("submitted")
""",
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "'divide'" in done.stderr
    assert "submitted" in done.stdout
    assert "at exit" in done.stdout


def test_a_failure_that_was_seen_is_not_printed_again(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
import sage_actor as sage
env = sage.LocalEnvironment("fails")
env.from_collection([0]).map(lambda x: 1 / x).print()
job = env.submit()
try:
    env.wait_for_completion(job)
except sage.OperatorError as error:
    print("seen", type(error.__cause__).__name__)
""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "seen ZeroDivisionError\n", "")


def test_an_uncaught_failure_of_execute_is_status_1(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
from sage_actor import LocalEnvironment
env = LocalEnvironment("fails")
env.from_collection([0]).map(lambda x: 1 / x).print()
env.execute()
""",
    )
    assert done.returncode == 1
    assert "OperatorError" in done.stderr


INTERRUPTED = """
import sys, time
import sage_actor as sage

async def endless():
    import asyncio
    n = 0
    while True:
        yield n
        n += 1
        await asyncio.sleep(0.001)

read = []
seen = []
env = sage.LocalEnvironment("live", backend={backend!r})
stream = env.from_source(endless()).map(lambda x: (read.append(x), x)[1])
stream.rebalance().map(lambda x: x * 2, parallelism=2).sink(print)
print("ready", file=sys.stderr, flush=True)
{start}
print("status", job.status, file=sys.stderr)
"""


def interrupted(folder: Path, text: str) -> tuple[int, list[int], str]:
    """Runs a script, sends Ctrl-C once it has printed some records, and reads the rest."""
    script = folder / "script.py"
    script.write_text(text)
    errors = folder / "errors.txt"
    with (
        errors.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-u", str(script)], stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True
        ) as child,
    ):
        assert child.stdout is not None
        first = [child.stdout.readline() for _ in range(5)]
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to the whole group
        rest = child.stdout.read()
        child.wait(20)
    return child.returncode, sorted(int(line) for line in "".join([*first, rest]).split()), errors.read_text()


@pytest.mark.parametrize("backend", ["local", "process"])
def test_ctrl_c_drains_run_streaming(tmp_path: Path, backend: str) -> None:
    status, numbers, errors = interrupted(tmp_path, INTERRUPTED.format(backend=backend, start="job = env.run_streaming()"))
    assert status == 0, errors
    assert "status finished" in errors
    assert numbers == [2 * i for i in range(len(numbers))]
    assert "Traceback" not in errors


def test_ctrl_c_at_the_exit_drains_submitted_jobs(tmp_path: Path) -> None:
    status, numbers, errors = interrupted(tmp_path, INTERRUPTED.format(backend="local", start="job = env.submit()"))
    assert numbers == [2 * i for i in range(len(numbers))]
    assert "Traceback" not in errors, errors
    assert status in (0, 130, -2)


def test_ctrl_c_in_execute_cancels_and_raises(tmp_path: Path) -> None:
    status, _, errors = interrupted(tmp_path, INTERRUPTED.format(backend="local", start="job = env.execute()"))
    assert "KeyboardInterrupt" in errors
    assert status in (1, 130, -2)


def test_classes_and_functions_of_a_script_travel_to_workers(tmp_path: Path) -> None:
    """No main guard; classes of the script are records, keys, functions and errors."""
    done = run(
        tmp_path,
        """
from dataclasses import dataclass
from enum import Enum
import sage_actor as sage

class Kind(Enum):
    ODD = 1
    EVEN = 0

@dataclass(frozen=True)
class Row:
    kind: Kind
    number: int

@dataclass(frozen=True)
class Key:
    kind: Kind

class Refused(Exception):
    def __init__(self, row, reason):
        super().__init__(row, reason)
        self.row, self.reason = row, reason

OFFSET = 100

class Shift(sage.MapFunction):
    def __init__(self, by):
        self.by = by
    def map(self, row):
        if row.number == 13:
            raise Refused(row, "thirteen")
        return Row(row.kind, row.number + self.by + OFFSET)

env = sage.LocalEnvironment("script", backend="process", parallelism=2)
rows = [Row(Kind(i % 2), i) for i in range(20)]
shifted = env.from_collection(rows).rebalance().map(Shift, by=1, on_error="dead_letter")
bad = shifted.dead_letters().collect()
out = shifted.collect()
counts = shifted.key_by(lambda r: Key(r.kind)).count(emit="final").collect()
env.execute()
assert sorted(r.number for r in out) == [i + 101 for i in range(20) if i != 13], out
assert all(type(r) is Row and type(r.kind) is Kind for r in out)
assert dict(counts) == {Key(Kind.ODD): 9, Key(Kind.EVEN): 10}, counts
[letter] = bad
assert isinstance(letter.error, Refused) and letter.error.reason == "thirteen" and letter.value == Row(Kind.ODD, 13)
print("ok")
""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
