"""The blocking face for scripts, notebooks and tests: the same graph, run in the calling thread or in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from sage_actor.errors import GraphError
from sage_actor.runtime.job import Job
from sage_actor.stream.environment import EnvironmentBase, Pipeline, find_job, settled

__all__ = ["LocalEnvironment"]

R = TypeVar("R")


class LocalEnvironment(EnvironmentBase):
    """Describes and runs a dataflow without async code.

    `execute` runs the job in the calling thread, so that ``breakpoint()`` works. `submit` runs it in a background thread
    and returns at once; the script's exit then waits for it, prints a failure nobody waited for, and exits with status 1.
    Inside a running event loop only Jupyter may use it; elsewhere `Environment` is the one to use.
    """

    def submit(self, pipeline: Pipeline | None = None) -> Job:
        """Start the ends that have not been started (or just the given one); returns at once.

        Raises:
            GraphError: nothing to start, impossible graph, or called inside a running event loop.
        """
        self._check_loop("submit")
        wanted = self._wanted(pipeline)
        if not wanted:
            return self.jobs[-1]
        thread = background()
        exit_watch.jobs.append(job := thread.call(lambda: self._launch(wanted)))
        return job

    def execute(self, pipeline: Pipeline | None = None) -> Job:
        """Run what has not been started and wait for its end; jobs submitted earlier are waited for too.

        Raises:
            OperatorError, WorkerLost, ...: what made a job fail.
        """
        in_notebook = self._check_loop("execute")
        earlier = [job for job in self.jobs if not job.done]
        if pipeline is None and earlier and not self._unstarted():
            for job in earlier:
                self.wait_for_completion(job)
            return earlier[-1]
        if in_notebook:
            job = self.submit(pipeline)
            self.wait_for_completion(job)
            return job
        return run_here(self._execute(self._wanted(pipeline), drain=False))

    def run_streaming(self) -> Job:
        """Start what has not been started; return at the end of bounded input, at `stop`, or after Ctrl-C has drained."""
        if self._check_loop("run_streaming") or (self.jobs and not self._unstarted()):
            job = self.submit()
            try:
                self.wait_for_completion(job)
            except KeyboardInterrupt:
                job.stop()
                self.wait_for_completion(job)
            return job
        return run_here(self._execute(self._wanted(None), drain=True))

    async def _execute(self, wanted: list[int], *, drain: bool) -> Job:
        if not wanted:
            return self.jobs[-1]
        job = self._launch(wanted)
        try:
            await job.wait()
        except asyncio.CancelledError:
            # Ctrl-C: asyncio.Runner cancels the main task once; a second Ctrl-C interrupts at once.
            if not drain:
                job.cancel()
                await settled(job)
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            job.stop()
            await job.wait()
        return job

    def wait_for_completion(self, job: Job | str) -> str:
        """Block until a job, given as object or id, has ended; answers "finished" or raises its error.

        Raises:
            JobNotFound: no job of this environment has that id.
        """
        found = find_job(self.jobs, job)
        while not found.wait_in_thread(0.2):
            pass
        found.raise_error()
        return found.status

    def stop(self) -> None:
        """Drain all jobs of this environment; returns at once. May be called from any thread."""
        for job in self.jobs:
            job.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for job in self.jobs:
            if error is not None:
                job.cancel()
            elif not job.done and not job.bounded:
                job.stop()
        if error is None:
            for job in self.jobs:
                self.wait_for_completion(job)

    def _check_loop(self, what: str) -> bool:
        """Whether we are in a notebook's loop; any other running loop is refused."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        if "ipykernel" in sys.modules:
            return True
        raise GraphError(
            f"LocalEnvironment.{what}() would block the running event loop; inside async code use "
            f"`async with sage_actor.Environment({self.name!r}) as env` and `await env.{what}()`"
        )


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_here(main: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end in the calling thread."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


class Background:
    """One daemon thread with an event loop, for all jobs submitted by blocking environments of this process."""

    def __init__(self) -> None:
        self.loop = new_loop()
        self.thread = threading.Thread(target=self._run, name="sage_actor jobs", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, function: Callable[[], R]) -> R:
        """Run a function on the loop and return its result or raise its exception."""

        async def on_loop() -> R:
            return function()

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result()


_backgrounds: list[Background] = []
_lock = threading.Lock()
os.register_at_fork(after_in_child=_backgrounds.clear)


def background() -> Background:
    """The process's background loop; started at the first submit. A forked child gets one of its own."""
    with _lock:
        if not _backgrounds:
            _backgrounds.append(Background())
            # Our exit hook must run first: before the interpreter joins its threads and closes their pools, jobs need both.
            importlib.import_module("concurrent.futures.thread")
            threading._register_atexit(exit_watch.wait)  # type: ignore[attr-defined]
        return _backgrounds[0]


class ExitWatch:
    """At the script's end: wait for submitted jobs, report failures nobody has seen, and say so in the exit status."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def wait(self) -> None:
        """Runs once, when the main thread has ended."""
        try:
            for job in self.jobs:
                while not job.wait_in_thread(0.2):
                    pass
        except KeyboardInterrupt:
            self._drain()
        failed = [job for job in self.jobs if job.status == "failed" and not job.waited]
        for job in failed:
            assert job.error is not None
            sys.stderr.write(f"job {job.id} failed:\n")
            sys.stderr.write("".join(traceback.format_exception(job.error)))
        if failed:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    def _drain(self) -> None:
        for job in self.jobs:
            job.stop()
        try:
            for job in self.jobs:
                if not job.wait_in_thread(10):
                    job.cancel()
                    job.wait_in_thread(5)
        except KeyboardInterrupt:
            for job in self.jobs:
                job.cancel()


exit_watch = ExitWatch()
