"""The process of one job: ``python -m sage_actor.jobs.runner FD``, started by the supervisor and by nothing else.

It reads its job from the inherited socket, runs it, and reports there. SIGTERM drains, a second one cancels. It ends
with 0 when the job finished, 1 when it failed, 143 when it was cancelled. When the supervisor vanishes, even by kill
-9, the socket closes: the job is cancelled and the process is gone a few seconds later, with everything it started.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from sage_actor.errors import JobCancelled, JobError
from sage_actor.jobs.asking import carry_out
from sage_actor.jobs.lifecycle import CANCELLED_EXIT, FAILED_EXIT
from sage_actor.jobs.record import JobSpec
from sage_actor.jobs.reports import Reporter, read_task
from sage_actor.jobs.script import run_script
from sage_actor.jobs.stopping import StopRequests
from sage_actor.jobs.watch import JobWatch
from sage_actor.runtime.job import Job
from sage_actor.stream.environment import defaults
from sage_actor.stream.shipping import unpack

__all__ = ["main"]

FIRST_METRICS = 0.2
METRICS_EVERY = 1.0
ORPHAN_GRACE = 2.0
LAST_ANSWERS = 5.0
"""Seconds that what was asked of a job which has ended may take to be answered."""


class Runner:
    """One job in this process."""

    def __init__(self, connection: socket.socket) -> None:
        self._reporter = Reporter(connection)
        self._connection = connection
        self._watch = JobWatch()
        self._stopping = StopRequests(self._watch)
        self._ended = threading.Event()
        self._asked: list[threading.Thread] = []

    def run(self) -> int:
        """Run the job to its end; returns the exit status."""
        task = read_task(self._connection)
        self._stopping.install(signal.SIGTERM, signal.SIGINT)
        defaults.observers.extend((self._watch.add, self._stopping.job_started, self._job_started))
        if task.checkpoints:
            defaults.settings.setdefault("checkpoint.dir", task.checkpoints)
        defaults.resume, defaults.restore, defaults.restarted = task.spec.resume, task.spec.restore, task.restarted
        listen = threading.Thread(target=self._reporter.listen, args=(self._heard, self._orphaned), name="supervisor-link", daemon=True)
        listen.start()
        threading.Thread(target=self._report_metrics, name="job-metrics", daemon=True).start()
        self._reporter.say("running")
        try:
            error = self._run_graph(task.spec, task.checkpoints) if task.spec.kind == "graph" else self._run_script(task.spec)
            status = "failed" if error else "finished"
        except (KeyboardInterrupt, JobCancelled):
            status, error = "cancelled", ""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # nothing is left to stop
        self._ended.set()
        for thread in self._asked:
            thread.join(LAST_ANSWERS)  # a savepoint that ends the job has ended it, and is told now
        self._reporter.say("metrics", jobs=self._watch.snapshot())
        self._reporter.say(status, error=error)
        return {"finished": 0, "failed": FAILED_EXIT, "cancelled": CANCELLED_EXIT}[status]

    def _run_graph(self, spec: JobSpec, checkpoints: str) -> str:
        async def execute() -> None:
            env = unpack(spec.payload)
            if env.settings.checkpoint_dir is None and checkpoints:
                env.settings = replace(env.settings, checkpoint_dir=checkpoints)
            job = await env.submit()
            await job.wait()

        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(execute())
        except JobCancelled:
            raise
        except Exception as error:  # noqa: BLE001 - the supervisor's edge: whatever ended the job is what it is told
            traceback.print_exception(error)
            return _describe(error)
        return ""

    def _run_script(self, spec: JobSpec) -> str:
        if spec.backend is not None:
            defaults.backend = spec.backend
        if spec.parallelism is not None:
            defaults.parallelism = spec.parallelism
        end = run_script(spec.payload, spec.filename or f"{spec.name}.py", spec.args)
        failures = self._watch.join()
        if isinstance(end.error, JobCancelled) or self._stopping.level == "cancel":
            raise JobCancelled(spec.name)
        if end.status:
            return _describe(end.error) if end.error is not None else end.text
        for job in failures:
            if job.error is not None:
                traceback.print_exception(job.error)
        return "\n".join(_describe(job.error) for job in failures if job.error is not None)

    def _heard(self, command: str) -> None:
        if command == "stop":
            self._stopping.request("stop")
        elif command == "cancel":
            self._stopping.request("cancel")
        elif command.startswith("{"):
            thread = threading.Thread(target=self._answer, args=(command,), name="answer", daemon=True)
            self._asked = [each for each in self._asked if each.is_alive()] + [thread]
            thread.start()

    def _answer(self, command: str) -> None:
        asked = cast("dict[str, object]", json.loads(command))
        self._reporter.say("answer", id=asked["id"], **carry_out(self._watch, asked))

    def _job_started(self, job: Job) -> None:
        self._reporter.say("metrics", jobs=self._watch.snapshot())

    def _orphaned(self) -> None:
        sys.stderr.write("the supervisor is gone; this job is cancelled\n")
        self._stopping.request("cancel")
        self._ended.wait(ORPHAN_GRACE)
        # Whatever still runs (a function that never returns, processes the job started) ends here, with its group.
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(128 + signal.SIGKILL)

    def _report_metrics(self) -> None:
        pause = FIRST_METRICS
        while not self._ended.wait(pause):
            pause = METRICS_EVERY
            self._reporter.say("metrics", jobs=self._watch.snapshot())


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


def _describe(error: BaseException) -> str:
    """The error as the supervisor keeps it: our own errors speak for themselves, others get their type's name."""
    if isinstance(error, JobError):
        return str(error)
    return "".join(traceback.format_exception_only(error)).strip()


def main(arguments: Sequence[str]) -> int:
    """Run the job whose socket is the file descriptor named by the first argument; returns the exit status."""
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        cast("io.TextIOWrapper", stream).reconfigure(line_buffering=True)  # the log is read while the job runs
    connection = socket.socket(fileno=int(arguments[0]))
    connection.set_inheritable(False)
    return Runner(connection).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
