"""``sage run``: stdout belongs to the script, stderr to us, the exit status to the truth."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HELLO = """
from sage_actor import LocalEnvironment
env = LocalEnvironment("hello-sage")
env.from_collection(["Hello", "World", "SAGE"]).map(lambda x: f"Processed: {x}", name="greet").print()
env.submit()
"""
BREAKS = """
import sage_actor as sage
env = sage.LocalEnvironment("breaks")
env.from_collection([2, 1, 0]).map(lambda x: 1 // x, name="divide").print()
env.submit()
"""
ENDLESS = """
import itertools
import sage_actor as sage
env = sage.LocalEnvironment("endless")
env.from_source(itertools.count(), bounded=False).map(lambda n: n).filter(lambda n: n % 50_000 == 0).print()
env.submit()
"""


def command(tmp_path: Path, source: str, *options: str, args: tuple[str, ...] = ()) -> list[str]:
    file = tmp_path / "it.py"
    file.write_text(source)
    return [sys.executable, "-m", "sage_actor", "run", *options, str(file), *args]


def sage_run(tmp_path: Path, source: str, *options: str, args: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(tmp_path, source, *options, args=args), capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("options", [(), ("local",), ("local", "--parallelism=4"), ("--parallelism", "4")])
def test_the_seeds_script_gives_its_three_lines_and_nothing_else(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = sage_run(tmp_path, HELLO, *options)
    assert (done.returncode, done.stdout) == (0, "Processed: Hello\nProcessed: World\nProcessed: SAGE\n")
    assert "hello-sage: finished after" in done.stderr
    assert next(line.split() for line in done.stderr.splitlines() if line.startswith("greet"))[:4] == ["greet", "3", "3", "0"]


def test_a_script_is_main_and_gets_its_arguments(tmp_path: Path) -> None:
    source = "import sys\nif __name__ == '__main__':\n    print(sys.argv[1:], __file__ == sys.argv[0])\n"
    done = sage_run(tmp_path, source, args=("--parallelism", "x", "-h"))
    assert (done.returncode, done.stdout) == (0, "['--parallelism', 'x', '-h'] True\n")


def test_defaults_reach_the_script_and_its_own_word_outweighs_them(tmp_path: Path) -> None:
    source = """
import sage_actor as sage
env = sage.LocalEnvironment("asked")
print(env.settings.backend, env.settings.parallelism)
env = sage.LocalEnvironment("fixed", backend="local", parallelism=1)
print(env.settings.backend, env.settings.parallelism)
env.from_collection([1]).print()
env.execute()
"""
    done = sage_run(tmp_path, source, "--backend", "process", "-p", "2")
    assert (done.returncode, done.stdout) == (0, "process 2\nlocal 1\n1\n")
    assert "note: fixed ran on backend 'local', which the script fixes" in done.stderr


def test_a_failed_job_nobody_waited_for_is_told_with_its_operator(tmp_path: Path) -> None:
    done = sage_run(tmp_path, BREAKS)
    assert (done.returncode, done.stdout) == (1, "0\n1\n")
    assert "error: job 'breaks', operator 'divide', source position 2: ZeroDivisionError" in done.stderr
    assert 'it.py", line 4, in <lambda>' in done.stderr, "the user's own line"
    assert "breaks: failed after" in done.stderr


def test_a_failed_job_that_was_waited_for_is_the_scripts_exception(tmp_path: Path) -> None:
    done = sage_run(tmp_path, BREAKS.replace("env.submit()", "env.execute()"))
    assert done.returncode == 1
    assert "OperatorError: job 'breaks', operator 'divide'" in done.stderr
    handled = BREAKS.replace("env.submit()", "try: env.execute()\nexcept sage.OperatorError: print('handled')")
    done = sage_run(tmp_path, handled)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "handled")
    assert "breaks: failed" in done.stderr, "the summary hides nothing"


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("raise ValueError('mine')", 1, "ValueError: mine"),
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('no')", 1, "no"),
        ("import sys; sys.exit()", 0, ""),
        ("x = = 1", 1, "SyntaxError"),
        (
            "import sage_actor as sage\nsage.LocalEnvironment('x', backend='bogus').from_collection([1]).print().env.execute()",
            1,
            "no backend 'bogus'",
        ),
    ],
)
def test_the_exit_status_tells_the_truth(tmp_path: Path, source: str, status: int, said: str) -> None:
    done = sage_run(tmp_path, source)
    assert done.returncode == status, done.stderr
    assert said in done.stderr


def test_an_async_script(tmp_path: Path) -> None:
    source = """
import asyncio
import sage_actor as sage
async def main():
    async with sage.Environment("async") as env:
        env.from_collection([1, 2]).print()
        await env.execute()
asyncio.run(main())
"""
    done = sage_run(tmp_path, source)
    assert (done.returncode, done.stdout) == (0, "1\n2\n")
    assert "async: finished after" in done.stderr


@pytest.mark.parametrize("leave", ["env.submit()", "env.run_streaming()", "env.execute()"])
def test_the_first_interrupt_drains(tmp_path: Path, leave: str) -> None:
    source = ENDLESS.replace("env.submit()", f"{leave}\nprint('after', flush=True)")
    with subprocess.Popen(command(tmp_path, source), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() not in ("50000\n", ""):
            pass
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert "stopping: sources stop" in errors
    assert "endless: finished after" in errors, "drained, not cancelled"
    assert "after" in out or leave == "env.submit()"
    assert process.returncode == 130


def test_the_second_interrupt_cancels(tmp_path: Path) -> None:
    # Draining cannot end here: what was read is more than will ever be written.
    source = ENDLESS.replace("map(lambda n: n)", "map_async(never)").replace(
        "env = sage", "import asyncio\nasync def never(n):\n    print('stuck', flush=True)\n    await asyncio.Event().wait()\nenv = sage"
    )
    with subprocess.Popen(command(tmp_path, source), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGINT)
        while "stopping" not in (line := process.stderr.readline()):
            assert line, "it never said that it stops"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert "cancelling" in errors
    assert "endless: cancelled after" in errors
    assert process.returncode == 130


def test_progress_tells_restarts_checkpoints_and_late_records(tmp_path: Path) -> None:
    source = """
import asyncio
import sage_actor as sage

class Numbers(sage.Source):
    place = 0
    async def read(self, limit):
        await asyncio.sleep(0.005)
        if self.place == 100:
            return None
        self.place += 1
        return [self.place - 1]
    def position(self):
        return self.place
    async def seek(self, position):
        self.place = position

failed = []
def checked(n):
    if n == 50 and not failed:
        failed.append(n)
        raise ValueError("at 50")
    return n

config = {"checkpoint.interval": "20ms", "restart.delay": "2.5s"}
env = sage.LocalEnvironment("progress", config=config)
late_last = env.from_source(Numbers).map(checked, name="checked").assign_timestamps(lambda n: -1000 if n == 99 else n)
late_last.key_by(lambda n: 0).window(sage.Tumbling("10ms")).count().sink(lambda count: None)
env.execute()
"""
    done = sage_run(tmp_path, source)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"progress: restarting after .*operator 'checked', source position 50: ValueError: at 50.* \(attempt 2\), ", done.stderr
    )
    assert re.search(
        r"progress: finished after [\d.]+ s, [\d,]+ checkpoints, the last of [\d.]+ k?B in [\d.e-]+ s, 1 late, 2 attempts\n", done.stderr
    )


def test_a_script_without_jobs_is_interrupted_as_usual(tmp_path: Path) -> None:
    source = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)\n"
    with subprocess.Popen(command(tmp_path, source), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert "interrupted" in errors
    assert process.returncode == 130


def test_on_a_terminal_a_table_is_drawn(tmp_path: Path) -> None:
    source = ENDLESS.replace("itertools.count()", "range(20_000_000)").replace("bounded=False", "bounded=True")
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(command(tmp_path, source), stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        drawn = b""
        while select.select([ours], [], [], 20)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says EIO when the other end has closed
                break
            drawn += part
            if not part:
                break
        assert process.stdout is not None
        out = process.stdout.read().decode()
        assert process.wait(20) == 0
    os.close(ours)
    text = drawn.decode()
    assert "held back" in text
    assert "endless: running" in text
    assert "endless: finished after" in text
    assert out.splitlines() == [str(n) for n in range(0, 20_000_000, 50_000)], "not a word of ours in the script's output"
