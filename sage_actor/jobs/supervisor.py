"""The supervisor: owns jobs, gives each a process of its own, and says truthfully how each one stands."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

from sage_actor.actor.supervision import NoRestart, RestartStrategy, restart_strategy
from sage_actor.errors import ConnectorError, JobError, JobNotFound
from sage_actor.jobs.attendance import Attendance
from sage_actor.jobs.lifecycle import LIVE, is_final
from sage_actor.jobs.logs import LogPart, read_since, read_tail
from sage_actor.jobs.processes import kill_group, process_started
from sage_actor.jobs.record import JobRecord, JobSpec
from sage_actor.jobs.store import JobStore
from sage_actor.ports import Clock, offload, system_clock, system_random

__all__ = ["Supervisor", "TooManyJobs"]

log = logging.getLogger("sage_actor.jobs")


class TooManyJobs(JobError):
    """The supervisor runs as many jobs as it may."""

    def __init__(self, bound: int) -> None:
        super().__init__(bound)
        self.bound = bound

    def __str__(self) -> str:
        return f"{self.bound} jobs are live already, as many as this supervisor may run; stop one, or start it with a larger --max-jobs"


class Supervisor:
    """Runs jobs, each in a process of its own. Used from one event loop.

    A job whose process fails starts again only if it asked for a restart strategy. When the supervisor itself dies, its
    jobs end with it; the next one finds them in the store and marks them.
    """

    def __init__(
        self,
        store: JobStore,
        logs: Path,
        *,
        checkpoints: Path | None = None,
        max_jobs: int = 1000,
        clock: Clock = system_clock,
        random: Random = system_random,
    ) -> None:
        """Args:
        store, logs: where jobs and their output are kept.
        checkpoints: where dataflows that set no ``checkpoint.dir`` keep theirs, under their names; None: lost with each process.
        max_jobs: live jobs at the same time.
        """
        self._store = store
        self._logs = logs
        self._max_jobs = max_jobs
        self._clock = clock
        self._random = random
        self._jobs: dict[str, Attendance] = {}
        self._unsaved: dict[str, JobRecord] = {}
        self._checkpoints = "" if checkpoints is None else str(checkpoints)
        self._save = asyncio.Event()
        self._saver: asyncio.Task[None] | None = None
        self._closing = False
        self._last_write = False
        self.store_error = ""

    async def start(self) -> None:
        """Read the store and settle the jobs that an earlier supervisor left live: mark, or restart if they asked for it."""
        await offload(partial(self._logs.mkdir, mode=0o700, parents=True, exist_ok=True))
        self._saver = asyncio.create_task(self._save_changes(), name="job-store")
        for record in await offload(self._store.records):
            job = self._attendance(record)
            self._jobs[record.id] = job
            if record.status in LIVE:
                await self._settle(job)
            else:
                job.over.set()

    async def _settle(self, job: Attendance) -> None:
        record = job.record
        if record.pid is None:
            found = "its supervisor ended before it was started" if record.status == "created" else "its supervisor ended while it waited"
        elif record.pid_started is not None and process_started(record.pid) == record.pid_started:
            kill_group(record.pid)  # nobody reads its reports any more, and a second life must not run beside it
            found = f"its supervisor ended while it ran; its process {record.pid} was still alive and has been killed"
        else:
            found = f"its supervisor ended while it ran, and its process {record.pid} with it"
        log.warning("job %s (%s): %s", record.name, record.id, found)
        spec = await offload(partial(self._store.spec, record.id))
        if spec is None or record.request != "none" or isinstance(_strategy(spec), NoRestart):
            job.end("cancelled" if record.request == "cancel" else "failed", found)
        else:
            job.resume(spec, _strategy(spec), found)

    async def submit(self, spec: JobSpec) -> JobRecord:
        """Take a job, keep it, and start it; returns before it runs. What returns here survives the supervisor.

        Raises:
            TooManyJobs: `max_jobs` are live.
            ConfigError: its restart settings are wrong.
            ConnectorError: the store refused it.
        """
        strategy = _strategy(spec)
        if self._closing:
            raise JobError("the supervisor is shutting down and takes no more jobs")
        if sum(1 for job in self._jobs.values() if not is_final(job.record.status)) >= self._max_jobs:
            raise TooManyJobs(self._max_jobs)
        record = JobRecord(id=secrets.token_hex(6), name=spec.name, kind=spec.kind, created=self._clock.now_ms())
        job = self._attendance(record)
        self._jobs[record.id] = job
        try:
            await offload(partial(self._store.add, record, spec))
        except BaseException:
            del self._jobs[record.id]
            raise
        if self._closing:
            job.end("cancelled", "the supervisor was shutting down")
        else:
            job.begin(spec, strategy)
        return job.record

    def _attendance(self, record: JobRecord) -> Attendance:
        return Attendance(record, self._log_file(record.id), self._clock, self._random, self._changed, self._checkpoints)

    def records(self) -> list[JobRecord]:
        """All jobs, oldest first."""
        return sorted((job.record for job in self._jobs.values()), key=lambda record: record.created)

    def find(self, job: str) -> JobRecord:
        """A job by its id, or the newest of that name.

        Raises:
            JobNotFound: there is none.
        """
        return self._find(job).record

    def _find(self, job: str) -> Attendance:
        if job in self._jobs:
            return self._jobs[job]
        named = [other for other in self._jobs.values() if other.record.name == job]
        if not named:
            raise JobNotFound(job, [record.name for record in self.records()[-10:]])
        return max(named, key=lambda other: other.record.created)

    def stop(self, job: str) -> JobRecord:
        """Ask a job to drain: its sources stop, the rest flows out, it finishes. Without effect on one that has ended.

        Raises:
            JobNotFound: there is none.
            JobError: several live jobs have that name.
        """
        found = self._one_live(job)
        found.request("stop")
        return found.record

    def cancel(self, job: str) -> JobRecord:
        """End a job without draining; one that does not react within 5 seconds is killed.

        Raises:
            JobNotFound: there is none.
            JobError: several live jobs have that name.
        """
        found = self._one_live(job)
        found.request("cancel")
        return found.record

    async def savepoint(self, job: str, *, target: str | None = None, stop: bool = False, dataflow: str | None = None) -> str:
        """Take a savepoint of a running job; see `Job.savepoint`. Returns its place.

        Args:
            dataflow: which one, if the job runs several.

        Raises:
            JobNotFound: there is none.
            JobError: several live jobs have that name; or (`AskRefused`) it could not be taken.
        """
        answer = await self._one_live(job).ask({"ask": "savepoint", "target": target, "stop": stop, "dataflow": dataflow})
        return str(answer["place"])

    async def query(self, job: str, operator: str, state: str, key: object, *, dataflow: str | None = None) -> tuple[bool, object]:
        """Read the state of one key of a running job; see `Job.query`. Key and value as JSON has them.

        Returns:
            Whether there is something, and what.

        Raises:
            JobNotFound: there is none.
            JobError: several live jobs have that name; or (`AskRefused`) it has no such state, or cannot answer.
        """
        asked = {"ask": "query", "operator": operator, "state": state, "key": key, "dataflow": dataflow}
        answer = await self._one_live(job).ask(asked)
        return bool(answer["found"]), answer["value"]

    def _one_live(self, job: str) -> Attendance:
        live = [other for other in self._jobs.values() if other.record.name == job and not is_final(other.record.status)]
        if job not in self._jobs and len(live) > 1:
            raise JobError(f"{len(live)} live jobs are named {job!r}; use an id: {', '.join(other.record.id for other in live)}")
        return live[0] if job not in self._jobs and live else self._find(job)

    async def wait(self, job: str, seconds: float) -> JobRecord:
        """Return when the job has ended, or after so many seconds, whichever is first.

        Raises:
            JobNotFound: there is none.
        """
        found = self._find(job)
        try:
            async with asyncio.timeout(seconds):
                await found.over.wait()
        except TimeoutError:
            pass  # the record says that it has not ended
        return found.record

    async def read_log(self, job: str, *, tail: int = 100, since: int | None = None) -> LogPart:
        """What a job wrote: the last lines, or what came since a place.

        Raises:
            JobNotFound: there is none.
        """
        path = self._log_file(self._find(job).record.id)
        return await offload(partial(read_tail, path, tail) if since is None else partial(read_since, path, since))

    def metrics(self, job: str) -> Sequence[dict[str, object]]:
        """The last report of each dataflow of a job.

        Raises:
            JobNotFound: there is none.
        """
        report: list[dict[str, object]] = json.loads(self._find(job).record.metrics)
        return report

    def _log_file(self, job_id: str) -> Path:
        return self._logs / f"{job_id}.log"

    def _changed(self, record: JobRecord) -> None:
        self._unsaved[record.id] = record
        self._save.set()

    async def _save_changes(self) -> None:
        """The only writer of updates, so that an older state never overwrites a newer one."""
        while not self._last_write:
            await self._save.wait()
            self._save.clear()
            while self._unsaved:
                record = self._unsaved.pop(next(iter(self._unsaved)))
                try:
                    await offload(partial(self._store.update, record))
                    self.store_error = ""
                except ConnectorError as error:
                    # Jobs go on: what runs is worth more than its history. The next change tries again; info says it.
                    self.store_error = str(error)
                    log.error("%s", error)

    def cancel_all(self) -> None:
        """Cancel every live job, as `cancel` does."""
        for job in self._jobs.values():
            job.request("cancel", "the supervisor was stopped")

    async def aclose(self, grace: float = 4.0) -> None:
        """Stop all jobs: drain for `grace` seconds, then cancel, then kill. No process is left when it returns. Idempotent."""
        self._closing = True
        live = [job for job in self._jobs.values() if not is_final(job.record.status)]
        for job in live:
            job.request("stop", "the supervisor was stopped")
        if not await _all_over(live, grace):
            self.cancel_all()
            await _all_over(live, 2.0)
            for job in live:
                job.kill()
            await asyncio.gather(*(job.over.wait() for job in live))
        self._last_write = True
        self._save.set()
        if self._saver is not None:
            await self._saver
        await offload(self._store.close)


async def _all_over(jobs: Sequence[Attendance], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(job.over.wait() for job in jobs))
    except TimeoutError:
        return False
    return True


def _strategy(spec: JobSpec) -> RestartStrategy:
    return restart_strategy(spec.restart) if spec.restart else NoRestart()
