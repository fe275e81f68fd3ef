"""The watch over the tests itself: a test that blocks its loop or leaves something behind does fail."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run_test(folder: Path, body: str) -> str:
    """Run one test module under this suite's conftest in a process of its own; return what pytest wrote."""
    watched = (Path(__file__).parent / "conftest.py").read_text()
    (folder / "conftest.py").write_text(watched.replace("\nGRACE = 2.0\n", "\nGRACE = 0.4\n"))
    (folder / "pytest.ini").write_text(
        "[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\nasyncio_mode = strict\n"
        "asyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
        "markers =\n    blocks_loop\n    leaves_behind\n"
    )
    head = "import asyncio, os, subprocess, sys, threading, time, pytest\n"
    (folder / "test_it.py").write_text(head + textwrap.dedent(body))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-q", "test_it.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False)
    return f"{done.stdout}{done.stderr}\nexit status {done.returncode}"


def test_sleeping_on_the_loop_fails_and_names_the_place(tmp_path: Path) -> None:
    output = run_test(
        tmp_path,
        """
        @pytest.mark.asyncio
        async def test_sleeps():
            time.sleep(0.001)
        """,
    )
    assert "1 failed" in output
    assert "time.sleep(0.001) at" in output
    assert "test_it.py:5" in output


def test_waiting_and_computing_on_the_loop_fail(tmp_path: Path) -> None:
    output = run_test(
        tmp_path,
        """
        @pytest.mark.asyncio
        async def test_waits():
            threading.Event().wait(0.8)

        @pytest.mark.asyncio
        async def test_computes():
            begun = time.thread_time()
            while time.thread_time() - begun < 1.6:
                pass
        """,
    )
    assert "2 failed" in output
    assert "on the loop's own thread" in output
    assert "without yielding" in output


def test_waiting_off_the_loop_and_exempt_tests_pass(tmp_path: Path) -> None:
    output = run_test(
        tmp_path,
        """
        @pytest.mark.asyncio
        async def test_waits_off_the_loop():
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.7)

        @pytest.mark.blocks_loop("on purpose")
        @pytest.mark.asyncio
        async def test_exempt():
            time.sleep(0.6)

        def test_without_a_loop():
            time.sleep(0.6)
        """,
    )
    assert "3 passed" in output


def test_leftover_task_thread_and_process_fail(tmp_path: Path) -> None:
    output = run_test(
        tmp_path,
        """
        tasks = []

        @pytest.mark.asyncio
        async def test_leaves_a_task():
            tasks.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))

        def test_leaves_a_thread():
            threading.Thread(target=threading.Event().wait, args=(1.5,), name="lingering").start()

        processes = []

        def test_leaves_a_process():
            processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"]))

        @pytest.mark.leaves_behind("on purpose")
        def test_exempt():
            processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"]))
        """,
    )
    assert "name='forgotten'" in output
    assert "thread 'lingering'" in output
    assert "time.sleep(1.5)" in output
    assert "2 passed" not in output
    assert "exit status 1" in output


def test_what_ends_within_a_moment_is_no_leftover(tmp_path: Path) -> None:
    output = run_test(
        tmp_path,
        """
        @pytest.mark.asyncio
        async def test_task_under_cancellation():
            task = asyncio.create_task(asyncio.Event().wait())
            await asyncio.sleep(0)
            task.cancel()

        def test_short_thread():
            threading.Thread(target=threading.Event().wait, args=(0.05,)).start()

        def test_session_tag_reaches_children():
            code = "import os; print(os.environ['SAGE_ACTOR_TEST_SESSION'])"
            assert subprocess.check_output([sys.executable, "-c", code])
        """,
    )
    assert "3 passed" in output


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_detached_process_fails_the_session(tmp_path: Path) -> None:
    output = run_test(
        tmp_path,
        """
        def test_detaches():
            orphan = "import time; time.sleep(2)"
            code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}], start_new_session=True)"
            subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        """,
    )
    assert "1 passed" in output
    assert "processes left behind by the test session" in output
    assert "exit status 1" in output
