"""Attending one job through all its lives: start, watch, restart, end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal

from sage_actor.actor.supervision import RestartStrategy
from sage_actor.jobs.asking import Asked, AskRefused
from sage_actor.jobs.lifecycle import Outcome, Report, Request, Status, can_follow, is_final, judge
from sage_actor.jobs.logs import read_tail
from sage_actor.jobs.processes import JobProcess
from sage_actor.jobs.record import JobRecord, JobSpec
from sage_actor.jobs.reports import ReportLine, Task
from sage_actor.ports import Clock, offload

__all__ = ["Attendance"]

CANCEL_GRACE = 5.0
LAST_LINES = 20
NO_METRICS = "[]"
log = logging.getLogger("sage_actor.jobs")


class Attendance:
    """One job and the task that attends it. `changed` is told every state worth keeping."""

    def __init__(
        self, record: JobRecord, log_file: Path, clock: Clock, random: Random, changed: Callable[[JobRecord], None], checkpoints: str = ""
    ) -> None:
        self.record = record
        self.over = asyncio.Event()
        self._log_file = log_file
        self._clock = clock
        self._random = random
        self._changed = changed
        self._checkpoints = checkpoints
        self._process: JobProcess | None = None
        self._report: Report | None = None
        self._asked = asyncio.Event()
        self._why = ""
        self._task: asyncio.Task[None] | None = None
        self._escalation: asyncio.Task[None] | None = None

    def begin(self, spec: JobSpec, strategy: RestartStrategy) -> None:
        """Start the first life."""
        self._task = asyncio.create_task(self._attend(spec, strategy, []), name=f"job {self.record.id}")

    def resume(self, spec: JobSpec, strategy: RestartStrategy, error: str) -> None:
        """Go on after a life that an earlier supervisor lost."""
        self._move("restarting", error=error, pid=None, pid_started=None)
        self._task = asyncio.create_task(self._attend(spec, strategy, [self._clock.monotonic()]), name=f"job {self.record.id}")

    def end(self, status: Literal["finished", "failed", "cancelled"], error: str) -> None:
        """Settle the job without another life."""
        self._move(status, error=error, pid=None, pid_started=None, restart_at=None, ended=self._clock.now_ms())
        self.over.set()

    def request(self, what: Request, why: str = "") -> None:
        """Pass on that somebody wants the job to end. A later, weaker request changes nothing."""
        if is_final(self.record.status) or self.record.request in ("cancel", what):
            return
        self._why = why
        if self.record.status == "stopping":
            self._set(request=what)
        else:
            self._move("stopping", request=what)
        self._asked.set()
        if self._process is not None:
            self._process.send(what)
        if what == "cancel":
            self._escalation = asyncio.create_task(self._kill_later(), name=f"job {self.record.id}: cancel")

    async def _kill_later(self) -> None:
        await self._clock.sleep(CANCEL_GRACE)
        self.kill()

    async def ask(self, asked: Asked) -> ReportLine:
        """Ask the job's process for something; see `JobProcess.ask`.

        Raises:
            AskRefused: it refused, or no process runs.
        """
        if self._process is None:
            raise AskRefused("JobError", f"job {self.record.name!r} is {self.record.status}: there is no process that could answer")
        return await self._process.ask(asked)

    def kill(self) -> None:
        """End the job's process now, if one runs."""
        if self._process is not None:
            self._process.kill()

    async def _attend(self, spec: JobSpec, strategy: RestartStrategy, failures: list[float]) -> None:
        outcome = Outcome("failed", self.record.error)
        while True:
            if failures:
                delay = strategy.next_delay(failures, self._clock.monotonic(), self._random)
                if delay is None or not await self._pause(delay):
                    break
            if self.record.request != "none":
                outcome = Outcome("cancelled", "it was stopped before it started")
                break
            outcome = await self._live(spec)
            if outcome.status != "failed" or self.record.request != "none":
                break
            failures.append(self._clock.monotonic())
            log.error("job %s (%s) failed: %s", self.record.name, self.record.id, outcome.error)
        if self._escalation is not None:
            self._escalation.cancel()
        self.end(outcome.status, outcome.error or (self._why if outcome.status == "cancelled" else ""))

    async def _pause(self, delay: float) -> bool:
        """Wait for the next life; False if the job was asked to end meanwhile."""
        self._move("restarting", restart_at=self._clock.now_ms() + round(delay * 1000))
        sleep = asyncio.ensure_future(self._clock.sleep(delay))
        asked = asyncio.ensure_future(self._asked.wait())
        await asyncio.wait((sleep, asked), return_when=asyncio.FIRST_COMPLETED)
        sleep.cancel()
        asked.cancel()
        return self.record.request == "none"

    async def _live(self, spec: JobSpec) -> Outcome:
        """One life: from the start of a process to its end."""
        self._report = None
        attempt = self.record.attempts + 1
        try:
            if attempt > 1:
                await offload(partial(self._note_attempt, attempt))
            process = await JobProcess.start(self._log_file, spec.directory or str(self._log_file.parent))
        except OSError as error:
            return Outcome("failed", f"its process could not be started: {error}")
        self._process = process
        now = self._clock.now_ms()
        started = self.record.started or now
        self._set(attempts=attempt, pid=process.pid, pid_started=process.started, started=started, restart_at=None, exit_code=None)
        try:
            # One that never began has nothing of its own to go on from, only what another job of that name may have left.
            begun = attempt > 1 and self.record.metrics != NO_METRICS
            code = await process.run(Task(self.record.id, spec, self._checkpoints, begun), self._heard)
        finally:
            self._process = None
        last = await offload(partial(read_tail, self._log_file, LAST_LINES))
        outcome = judge(code, self._report, self.record.request, last.text)
        self._set(exit_code=code, error=outcome.error, pid=None, pid_started=None)
        return outcome

    def _note_attempt(self, attempt: int) -> None:
        with self._log_file.open("a", encoding="utf-8") as file:
            at = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).isoformat(timespec="seconds")
            file.write(f"--- attempt {attempt}, {at}\n")

    def _heard(self, said: ReportLine) -> None:
        match said["event"]:
            case "running":
                if self.record.request != "none" and self._process is not None:
                    self._process.send(self.record.request)  # asked while the process was coming up
                elif can_follow(self.record.status, "running"):
                    self._move("running")
            case "metrics":
                metrics = json.dumps(said.get("jobs", []))
                if self.record.metrics == NO_METRICS != metrics:
                    self._set(metrics=metrics)  # it has begun: the next life is to know
                else:
                    # Not worth a write each second; the next change of status saves it too.
                    self.record = replace(self.record, metrics=metrics)
            case "finished":
                self._report = Report("finished")
            case "failed":
                self._report = Report("failed", str(said.get("error", "")))
            case "cancelled":
                self._report = Report("cancelled", str(said.get("error", "")))
            case _:
                log.warning("job %s: its process said something unknown: %.200r", self.record.id, said)

    def _move(self, status: Status, **changes: object) -> None:
        assert can_follow(self.record.status, status) or status == self.record.status, f"{self.record.status} -> {status}"
        self._set(status=status, **changes)

    def _set(self, **changes: object) -> None:
        self.record = replace(self.record, **changes)  # type: ignore[arg-type]
        self._changed(self.record)
