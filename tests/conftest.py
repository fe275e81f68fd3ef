"""What every test is held to, whatever it is about: it must not block its event loop, and must leave nothing behind.

* A callback that sleeps or waits on the loop's thread for `ASLEEP` seconds, or computes there for `BUSY` seconds, fails its
  test. `time.sleep` on a loop's thread fails it at once, with the place. Exempt: ``@pytest.mark.blocks_loop("why")``.
* A child process, thread or asyncio task that was not there before the test and is still there after it (its function-scoped
  fixtures torn down, a moment granted) fails it. Exempt: ``@pytest.mark.leaves_behind("why")``. At the end of the session no
  process that descends from it may be alive, however detached.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ASLEEP = 0.5
BUSY = 1.5
GRACE = 2.0
TAG = "SAGE_ACTOR_TEST_SESSION"

# Threads and processes that belong to the interpreter or a library and live as long as it does, by the start of their name.
LASTING_THREADS = ("pytest_timeout", "ThreadPoolExecutor-hypothesis", "heartbeat of the tests")
LASTING_PROCESSES = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


# -- blocking the loop ------------------------------------------------------------------------------------------------


class Heartbeat:
    """A thread that counts every 20 ms: whether the machine gave this process its turns during some stretch of time.

    A callback that took long may have been waiting for a processor on a crowded machine, which is nobody's fault. Then this
    thread fell behind as well; when the callback slept, it did not.
    """

    period = 0.02

    def __init__(self) -> None:
        self.beats = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat of the tests", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.period):
            self.beats += 1


class LoopWatch:
    """Times every callback of every asyncio loop; remembers those that blocked it.

    Only the loops of asyncio itself are timed (uvloop runs its callbacks in C); `time.sleep` is watched on both.
    """

    def __init__(self) -> None:
        self.heartbeat = Heartbeat()
        self.blocked: list[str] = []
        self.watching = False
        self._run_handle = asyncio.events.Handle._run  # the unpatched method
        self._plain_sleep = time.sleep

    def install(self) -> None:
        run_handle, heartbeat, wall, cpu = self._run_handle, self.heartbeat, time.perf_counter, time.thread_time

        def timed(handle: asyncio.Handle) -> None:
            wall_begun, cpu_begun, beats = wall(), cpu(), heartbeat.beats
            run_handle(handle)
            took = wall() - wall_begun
            if took >= ASLEEP and self.watching:
                self._judge(handle, took, cpu() - cpu_begun, heartbeat.beats - beats)

        asyncio.events.Handle._run = timed  # type: ignore[method-assign]
        self.heartbeat.start()
        time.sleep = self._sleep  # its audit event exists only from 3.13 on

    def uninstall(self) -> None:
        self.watching = False
        time.sleep = self._plain_sleep
        asyncio.events.Handle._run = self._run_handle  # type: ignore[method-assign]
        self.heartbeat.stop()

    def _judge(self, handle: asyncio.Handle, took: float, computed: float, beats: int) -> None:
        asleep = took - computed
        expected = took / self.heartbeat.period
        if computed >= BUSY:
            self.blocked.append(f"computed {computed:.2f} s without yielding: {handle!r}")
        elif asleep >= ASLEEP and beats >= expected / 2:
            self.blocked.append(f"waited {asleep:.2f} s on the loop's own thread: {handle!r}")

    def _sleep(self, seconds: float) -> None:
        if self.watching and seconds and asyncio._get_running_loop() is not None:
            frame = sys._getframe(1)
            self.blocked.append(f"time.sleep({seconds}) at {frame.f_code.co_filename}:{frame.f_lineno}")
        self._plain_sleep(seconds)


watch = LoopWatch()


# -- leftovers --------------------------------------------------------------------------------------------------------


class Alive(NamedTuple):
    """What is running at some moment. Tasks are held by identity only: this must not keep them alive."""

    threads: frozenset[threading.Thread]
    children: frozenset[int]


def command_of(pid: int) -> str:
    """The command line of a process; "" when it has ended or waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def children_of_this_process() -> frozenset[int]:
    """Process ids of living children (Linux; elsewhere none are seen)."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread ended meanwhile
            found.update(int(pid) for pid in path.read_text().split())
    return frozenset(found)


def lasting(text: str, names: tuple[str, ...]) -> bool:
    return any(name in text for name in names)


def alive_now() -> Alive:
    return Alive(frozenset(threading.enumerate()), children_of_this_process())


def leftovers(before: Alive) -> list[str]:
    """What runs now and did not run before, in words."""
    now = alive_now()
    threads = [t for t in now.threads - before.threads if t.is_alive() and not lasting(t.name, LASTING_THREADS)]
    found = [f"thread {thread.name!r}" for thread in threads]
    for pid in now.children - before.children:
        command = command_of(pid)
        if command and not lasting(command, LASTING_PROCESSES):
            found.append(f"process {pid}: {command[:200]}")
    return found


def wait_until_none(list_leftovers: Callable[[], list[str]]) -> list[str]:
    """Give leftovers a moment to end by themselves, and return those that did not."""
    deadline = time.monotonic() + GRACE
    pause = threading.Event()
    while (found := list_leftovers()) and time.monotonic() < deadline:
        pause.wait(0.01)
    return found


def unfinished_tasks() -> list[asyncio.Task[Any]]:
    """Every asyncio task that is not done, on a loop that is not closed, in any thread.

    There is no public list over all loops. Where these names are missing (they moved in later Pythons), none are seen.
    """
    known = [getattr(asyncio.tasks, name, ()) for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks")]
    for attempt in range(10):
        try:
            tasks = {id(task): task for tasks in known for task in list(tasks)}
            break
        except RuntimeError:  # the set changed under iteration: another thread's loop
            if attempt == 9:
                raise
    return [task for task in tasks.values() if not task.done() and not task.get_loop().is_closed()]


def task_leftovers(before: set[int]) -> list[str]:
    """Tasks begun during a test and still unfinished after it, each given a moment on its own loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Task[Any]]] = {}
    for task in unfinished_tasks():
        if id(task) not in before:
            by_loop.setdefault(task.get_loop(), []).append(task)
    for loop, tasks in by_loop.items():
        if not loop.is_running() and not loop.is_closed():
            loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE))
    running_elsewhere = [task for loop, tasks in by_loop.items() if loop.is_running() for task in tasks]
    wait_until_none(lambda: [repr(task) for task in running_elsewhere if not task.done()])
    return [f"task {task!r}" for tasks in by_loop.values() for task in tasks if not task.done()]


# -- hooks ------------------------------------------------------------------------------------------------------------


# Tests of these files start a Ray cluster or join the one that they find on the machine: two processes of tests would meet in one.
WITH_RAY = ("test_ray.py", "test_ray_connection.py", "test_same_results.py", "test_programs.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests (``-n 2 --dist loadgroup``), a file stays in one, and so does Ray."""
    for item in items:
        group = "ray" if item.path.name in WITH_RAY else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_sessionstart() -> None:
    os.environ[TAG] = uuid.uuid4().hex  # inherited by every process that a test starts, at any depth
    # Imported where the first job is described, which on a crowded machine would count against whichever test comes first.
    importlib.import_module("sage_actor.stream.environment")
    watch.install()


def pytest_sessionfinish(session: pytest.Session) -> None:
    watch.uninstall()
    tag = f"{TAG}={os.environ[TAG]}".encode()
    found = wait_until_none(lambda: tagged_processes(tag))
    if found:
        sys.stderr.write("\nprocesses left behind by the test session:\n  " + "\n  ".join(found) + "\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def tagged_processes(tag: bytes) -> list[str]:
    """Processes of this session other than this one, detached ones too (Linux; elsewhere none are seen)."""
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            environment = (folder / "environ").read_bytes() if pid != os.getpid() else b""
        except OSError:  # ended, or somebody else's
            continue
        command = command_of(pid)
        if tag in environment.split(b"\0") and command and not lasting(command, LASTING_PROCESSES):
            found.append(f"process {pid}: {command[:200]}")
    return found


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Around the test function itself, its fixtures still standing: blocked loops and unfinished tasks."""
    before = {id(task) for task in unfinished_tasks()}
    watch.blocked.clear()
    watch.watching = pyfuncitem.get_closest_marker("blocks_loop") is None
    try:
        result = yield
        tasks = [] if pyfuncitem.get_closest_marker("leaves_behind") else task_leftovers(before)
    finally:
        watch.watching = False
    if watch.blocked:
        pytest.fail("this test blocked its event loop:\n  " + "\n  ".join(watch.blocked), pytrace=False)
    if tasks:
        pytest.fail("this test left tasks behind:\n  " + "\n  ".join(tasks), pytrace=False)
    return result


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up before and torn down after every other function-scoped fixture; wider fixtures stand before it."""
    before = alive_now()
    yield
    if request.node.get_closest_marker("leaves_behind"):
        return
    found = wait_until_none(lambda: leftovers(before))
    if found:
        pytest.fail("this test left behind:\n  " + "\n  ".join(found), pytrace=False)


# -- fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
