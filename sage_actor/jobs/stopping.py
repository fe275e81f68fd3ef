"""Turning requests to stop into what they mean for the dataflows of this process: first drain, then cancel."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

from sage_actor.jobs.lifecycle import Request
from sage_actor.jobs.watch import JobWatch
from sage_actor.runtime.job import Job

__all__ = ["StopRequests"]


class StopRequests:
    """Remembers how urgently this process was asked to stop, and tells every job of it, also those that start later.

    The first request drains (sources stop, the rest flows out), the second cancels. Without any live job a request
    interrupts the main thread with KeyboardInterrupt, as Ctrl-C does.
    """

    def __init__(self, watch: JobWatch, noticed: Callable[[Request], None] | None = None) -> None:
        """`noticed` is called in the main thread with each request that was new."""
        self.level: Request = "none"
        self._wanted: Request = "none"
        self._watch = watch
        self._noticed = noticed

    def install(self, *signals: signal.Signals) -> None:
        """Answer to these signals from now on. Main thread only."""
        for number in signals:
            signal.signal(number, self._on_signal)

    def job_started(self, job: Job) -> None:
        """Apply what was asked so far to a job that is starting. On the job's loop, as observers are called."""
        # Not at once: a job takes requests only after its observers have seen it.
        asyncio.get_running_loop().call_soon(lambda: _apply(job, self.level))

    def request(self, what: Request) -> None:
        """Ask from another thread. Needs `install(SIGTERM)`: Python acts on signals in the main thread only."""
        self._wanted = what
        main = threading.main_thread().ident
        assert main is not None, "the main thread has started: it installed the handler"
        signal.pthread_kill(main, signal.SIGTERM)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        before, wanted = self.level, self._wanted
        self._wanted = "none"
        if before == "cancel" or wanted == "cancel":
            self.level = "cancel"
        else:
            self.level = "stop" if before == "none" or wanted == "stop" else "cancel"
        if self._noticed is not None and self.level != before:
            self._noticed(self.level)
        live = self._watch.live
        for job in live:
            _apply(job, self.level)
        if not live:
            raise KeyboardInterrupt


def _apply(job: Job, level: Request) -> None:
    if level == "stop":
        job.stop()
    elif level == "cancel":
        job.cancel()
