"""The owner's side of a job: attempts, one after the other, until it has finished or nothing more is to be tried."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from sage_actor._core.stable_hash import stable_hash
from sage_actor.checkpoint.manifest import Manifest
from sage_actor.checkpoint.storage import CheckpointStorage
from sage_actor.checkpoint.validation import validate
from sage_actor.dataflow.graph import Graph
from sage_actor.dataflow.key_table import KeyTable
from sage_actor.dataflow.parallelism import ParallelismController
from sage_actor.dataflow.plan import Plan, make_plan
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import BackendError, CheckpointError, Fenced, GraphError, StateError
from sage_actor.ports import current_clock, current_random
from sage_actor.runtime.attempt import Attempt
from sage_actor.runtime.checkpoints import Checkpoints
from sage_actor.runtime.io import keep_pristine
from sage_actor.runtime.job import Job, Restoring
from sage_actor.runtime.job_backends import JobBackends
from sage_actor.runtime.job_storage import JobStorage, snapshot_setting
from sage_actor.runtime.load_watch import LoadWatch
from sage_actor.runtime.rescaling import Division, Move, check_plan, choose, refuse_unrepeatable, same_division
from sage_actor.runtime.restarts import Restarts, causes
from sage_actor.runtime.task_host import JobIdentity
from sage_actor.runtime.task_snapshots import SnapshotSetting
from sage_actor.runtime.watchdog import Watchdog

__all__ = ["Coordinator", "new_job_id"]

LOGGER = logging.getLogger("sage_actor")
EVENTS = logging.getLogger("sage_actor.jobs")
EVENTS.addHandler(logging.NullHandler())  # errors are raised and shown by status; without a configured log they need no echo
COMMIT_PATIENCE = 5.0
"""Seconds that sinks have to commit before their attempt ends for a move; what they have not, the next one commits."""


class Coordinator:
    """Runs one job from plan to end: an attempt, and after a failure another one from the last complete checkpoint.

    Whatever happens - a failing task, a lost worker, a cancel - the workers are ended and the job's status says it.

    Args:
        resume: go on from the newest complete checkpoint that an earlier process left.
        restore: go on from this savepoint or checkpoint.
        controller: changes the parallelism with the load.
    """

    def __init__(
        self,
        job: Job,
        graph: Graph,
        wanted: Iterable[int],
        settings: JobSettings,
        *,
        resume: bool = False,
        restore: str | None = None,
        controller: ParallelismController | None = None,
    ) -> None:
        self.job = job
        self.graph = graph
        self.wanted = list(wanted)
        self.division = Division(settings)
        self.backends = JobBackends(settings, [graph.operators[number] for number in graph.upstream(self.wanted)])
        self.plan: Plan = self._make_plan(self.division, None)
        if any(chain.in_owner and chain.parallelism > 1 for chain in self.plan.chains):
            say_one_core()
        if settings.worker_resources is not None and not self.plan.workers:
            say_no_limits()
        self.clock = current_clock()
        self.restarts = Restarts(settings, current_random())
        self.unrepeatable = self._unrepeatable_sources()
        self.attempt: Attempt | None = None
        self.checkpoints: Checkpoints | None = None
        self.kept = JobStorage(job.name, resume=resume, restore=restore)
        self.number = 0
        self.begun = asyncio.Event()
        self.stopping = False
        self.suspended = False
        self.cancelled = False
        self.over = asyncio.Event()
        self.move: Move | None = None
        self.changing = asyncio.Lock()
        self.load_watch = LoadWatch(self, controller)
        self.main: asyncio.Task[None] | None = None

    @property
    def settings(self) -> JobSettings:
        """Of the job, as they are now."""
        return self.division.settings

    @property
    def storage(self) -> CheckpointStorage | None:
        """Where its checkpoints are kept; None without."""
        return self.kept.storage

    def _make_plan(self, division: Division, manifest: Manifest | None) -> Plan:
        saved = {} if manifest is None else manifest.operators
        tables = {uid: operator.table for uid, operator in saved.items() if operator.table is not None}
        return make_plan(
            self.graph,
            self.wanted,
            division.settings,
            hosts_in_owner=self.backends.hosts_in_owner,
            places_in_owner=self.backends.places_in_owner,
            groups={uid: operator.groups for uid, operator in saved.items()},
            tables={**tables, **division.tables},
            chosen=division.chosen,
        )

    def _unrepeatable_sources(self) -> list[str]:
        """Names of sources that no second attempt could read again; nobody asks where there is no second attempt."""
        checkpoints = bool(self.settings.snapshot_mode)
        if not self.restarts.possible and not checkpoints:
            return []
        operators = {operator.id: operator for chain in self.plan.chains for operator in chain.operators if operator.kind == "source"}
        return [operator.name for operator in operators.values() if not keep_pristine(operator.options, checkpoints=checkpoints)]

    def launch(self) -> None:
        """Start the job in the background; the task is held strongly and is nobody's child."""
        EVENTS.info("job started", extra={"job": self.job.id, "backend": self.settings.backend, "tasks": len(self.plan.tasks)})
        self.job._begin(self)
        self.main = asyncio.get_running_loop().create_task(self._run(), name=f"job {self.job.id}")
        self.load_watch.start()

    def stop(self) -> None:
        """Drain: sources stop, the rest flows out."""
        if self.stopping or self.job.done:
            return
        self.stopping = True
        self.job._set("stopping")
        if self.attempt is not None:
            self.attempt.stop()

    def cancel(self) -> None:
        """End now."""
        self.cancelled = True
        self.over.set()
        if self.attempt is not None:
            self.attempt.end()

    async def savepoint(self, target: str | None, *, stop: bool) -> str:
        """Take a savepoint; with `stop` the job then ends, everything that belongs to it committed.

        Raises:
            CheckpointError: the job takes no checkpoints, or this one failed.
        """
        async with self.changing:
            await self._moved()
            if stop:
                return await self._savepoint(target, stop=True)
        return await self._savepoint(target, stop=False)

    async def _savepoint(self, target: str | None, *, stop: bool) -> str:
        await self.begun.wait()
        checkpoints, storage = self.checkpoints, self.storage
        if checkpoints is None or storage is None or self.job.done:
            problem = (
                "it takes no checkpoints, so there is no savepoint of it; set checkpoint.interval" if not self.job.done else "it has ended"
            )
            raise CheckpointError(self.job.name, problem)
        if target is None and self.kept.temporary is not None:
            raise CheckpointError(
                self.job.name, "its checkpoints end with it, and so would a savepoint; set checkpoint.dir, or give a target"
            )
        taken = checkpoints.request(suspend=stop)
        try:
            manifest = await taken
            place = await storage.savepoint(manifest, target)
            if stop:
                self.suspended = True
                if not await checkpoints.commits(manifest.checkpoint):
                    raise CheckpointError(
                        self.job.name, f"it failed before it could end behind its savepoint, which is at {place}; it goes on"
                    )
                if self.attempt is not None:
                    self.attempt.end()
            return place
        except BaseException:
            self.suspended = False
            if stop and taken.done() and not taken.cancelled() and taken.exception() is None:
                checkpoints.resume(taken.result().checkpoint)
            raise

    async def rescale(
        self,
        parallelism: int | Mapping[str, int] | None = None,
        *,
        workers: int | None = None,
        tables: Mapping[str, KeyTable] | None = None,
    ) -> None:
        """Divide the running job into other tasks; see `Job.rescale`. One change at a time.

        Args:
            tables: owners of key groups, by uid of the operator.
        """
        async with self.changing:
            await self._moved()
            await self.begun.wait()
            move = await self._prepare_move(parallelism, workers, tables)
            if move is not None:
                await asyncio.shield(move.done)  # whoever waits may give up; the job moves on all the same

    async def _moved(self) -> None:
        """Whoever waited for the last change may have given up before it was done."""
        if self.move is not None:
            await asyncio.wait((self.move.done,))

    async def _prepare_move(
        self, parallelism: int | Mapping[str, int] | None, workers: int | None, tables: Mapping[str, KeyTable] | None
    ) -> Move | None:
        """Up to the end of the attempt; None if everything is as it is asked for already."""
        checkpoints, attempt = self.checkpoints, self.attempt
        operators = [operator for chain in self.plan.chains for operator in chain.operators]
        if self.storage is None or self.job.done:
            served = any(operator.served for operator in operators)
            problem = (
                "it has ended"
                if self.job.done
                else "it answers requests, which are never replayed, so it cannot be rescaled while it runs"
                if served
                else "it cannot be rescaled without checkpoints; set 'checkpointing': 'on_demand', or an interval"
            )
            raise CheckpointError(self.job.name, problem)
        refuse_unrepeatable(self.job.name, self.unrepeatable)
        if workers is not None and all(group.place is not None for group in self.plan.groups):
            raise GraphError(
                f"rescale: no operator of job {self.job.name!r} runs in a worker of its own backend, so there is no number of workers "
                "to change"
            )
        division = choose(self.division, operators, parallelism, workers, tables)
        check_plan(self._make_plan(division, None), self.plan)
        if checkpoints is None or attempt is None:
            raise CheckpointError(self.job.name, "it does not run, so there is nothing to divide; try again when it does")
        taken = checkpoints.request(suspend=True)
        try:
            manifest = await taken
            plan = self._make_plan(division, manifest)
            validate(manifest, plan, division.settings)
            if not checkpoints.all_ended and not same_division(plan, self.plan):
                await checkpoints.commits_within(manifest.checkpoint, COMMIT_PATIENCE)
                if not attempt.is_over and not checkpoints.all_ended:
                    return self._move(division, attempt)
                raise CheckpointError(self.job.name, "its attempt ended before it could be divided anew; it is as it was")
        except BaseException:
            if taken.done() and not taken.cancelled() and taken.exception() is None:
                checkpoints.resume(taken.result().checkpoint)
            raise
        if not checkpoints.all_ended:
            self.division = division  # the same plan; but what was said of an operator counts for later changes too
        checkpoints.resume(manifest.checkpoint)
        return None

    def _move(self, division: Division, attempt: Attempt) -> Move:
        move = self.move = Move(self.division, asyncio.get_running_loop().create_future())
        self.division = division
        self.job._rescaling()
        EVENTS.info("job is divided anew", extra={"job": self.job.id})
        attempt.end()
        return move

    def _goes_on(self, error: BaseException | None) -> bool:
        """Whether an attempt has ended for the sake of a move, or could not begin because of it. Neither counts as a failure."""
        move = self.move
        if move is None or self.cancelled:
            return False
        if not move.has_ended:
            move.has_ended = True
            if error is not None:
                EVENTS.warning("workers ended badly while the job was divided anew: %s", error, extra={"job": self.job.id})
            return True
        if error is None or any(isinstance(cause, Fenced) for cause in causes(error)):
            return False
        EVENTS.warning("job goes back to its former division after: %s", error, extra={"job": self.job.id})
        self.move, self.division = None, move.before
        move.settle(error)
        return True

    async def query(self, operator: str, state: str, key: Any, default: Any) -> Any:
        """Read the state of one key; see `Job.query`.

        Raises:
            StateError: there is no such operator or state, or nothing runs that could answer.
        """
        await self.begun.wait()
        if self.attempt is None:
            raise StateError(operator, state, f"job {self.job.name!r} has ended, and its state with it")
        return await self.attempt.queries.ask(operator, state, key, default)

    # -- attempts ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            await self.kept.open(self.settings)
            while not self.cancelled:
                error = await self._attempt()
                if self._goes_on(error):
                    error = None
                    continue
                if error is None or self.cancelled or self.stopping:
                    break
                begun = self.storage is None or self.kept.start is not None
                pause = self.restarts.judge(error, self.clock.monotonic()) if begun else None  # a wrong place stays wrong
                if pause is None:
                    break
                if self.unrepeatable:
                    error.add_note(
                        f"the job was not restarted: what {', '.join(self.unrepeatable)} reads cannot be read again from "
                        "where the checkpoint was; give from_source a collection, or a Source class with position and seek"
                    )
                    break
                EVENTS.warning("job restarts in %.3g s after: %s", pause, error, extra={"job": self.job.id})
                self.job._restarting(error)
                await self._pause(pause)
                error = None
        except asyncio.CancelledError:
            self.cancelled = True
        except Exception as failure:  # noqa: BLE001 - the supervisor of the job: any failure becomes its status
            error = failure
        await self._end(error)

    async def _attempt(self) -> BaseException | None:
        """One attempt from restore to end; what it failed with, or None."""
        attempt: Attempt | None = None
        watchdog: Watchdog | None = None
        error: BaseException | None = None
        try:
            snapshots = await self._begin()
            identity = JobIdentity(self.job.name, stable_hash(self.job.id), self.number)
            attempt = self.attempt = Attempt(
                identity,
                f"{self.job.id}-{self.number}",
                self.plan,
                self.settings,
                self.backends.for_plan(self.plan),
                snapshots,
                self._listen,
            )
            self.begun.set()
            self._begin_checkpoints(attempt)
            watchdog = Watchdog(self.job.name, self.settings.watchdog_timeout, self.clock, attempt.task_snapshots, attempt.fail)
            watchdog.start()
            if self.cancelled:
                attempt.end()
            elif self.stopping:
                attempt.stop()
            self.job._running()
            await attempt.run()
        except asyncio.CancelledError:
            self.cancelled = True  # the loop is shutting down: what runs is ended all the same
        except Exception as failure:  # noqa: BLE001 - the supervisor of the job: whether to go on is decided by the caller
            error = failure
        if watchdog is not None:
            watchdog.close()
        if self.checkpoints is not None:
            await self.checkpoints.close()
        if attempt is not None:
            try:
                await attempt.close(patient=error is None and not self.cancelled)
            except BackendError as failure:
                error = error or failure
        return error

    async def _begin(self) -> SnapshotSetting:
        """Take over from whatever ran before, and see what there is to go on from."""
        self.number += 1
        storage = self.storage
        if storage is None:
            return SnapshotSetting(attempt=self.number)
        start = await self.kept.begin(storage)
        self.number = start.attempt
        manifest = start.manifest
        self.plan = self._make_plan(self.division, manifest)
        if manifest is not None:
            validate(manifest, self.plan, self.settings)
            EVENTS.info("job goes on from a checkpoint", extra={"job": self.job.id, "checkpoint": manifest.checkpoint})
            self.job._restored(manifest.checkpoint)
        return snapshot_setting(storage, start, self.settings.snapshot_mode)

    def _begin_checkpoints(self, attempt: Attempt) -> None:
        self.checkpoints = None
        storage, start = self.storage, self.kept.start
        if storage is None or start is None:
            return
        self.checkpoints = Checkpoints(
            self.plan,
            self.settings,
            storage,
            job=self.job.name,
            attempt=start.attempt,
            first=start.next_checkpoint,
            clock=self.clock,
            order=attempt.order,
            fail=attempt.fail,
            counters=self.job.checkpoint_counters,
        )
        self.checkpoints.start()

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, unless the job is cancelled meanwhile."""
        timer = self.clock.call_later(seconds, self.over.set)
        try:
            await self.over.wait()
        finally:
            timer.cancel()
        if not self.cancelled:
            self.over.clear()

    def _listen(self, kind: str, payload: Any) -> None:
        if kind == "open" and self.move is not None:
            move, self.move = self.move, None
            self.job._rescaled()
            move.settle()
        if self.checkpoints is not None:
            self.checkpoints.hear(kind, payload)

    def snapshots(self) -> list[dict[str, Any]]:
        """Counters of every task: own ones now, remote ones as last reported."""
        return [] if self.attempt is None else self.attempt.task_snapshots()

    def restoring(self) -> Restoring | None:
        """How far the present attempt is with opening its tasks; None once all are open."""
        attempt = self.attempt
        if attempt is None or attempt.over.done() or len(attempt.opened) >= len(attempt.plan.tasks):
            return None
        return Restoring(len(attempt.opened), len(attempt.plan.tasks), sum(attempt.opened.values()), attempt.snapshots.checkpoint)

    # -- end ---------------------------------------------------------------------------------------------------------

    async def _end(self, error: BaseException | None) -> None:
        self.begun.set()
        await self.load_watch.close()
        if self.move is not None:
            self.move.settle(CheckpointError(self.job.name, "it ended before it was divided anew"))
        extra: dict[str, object] = {"job": self.job.id, "operator": getattr(error, "operator", "")}
        finished = error is None and not self.cancelled
        await self.kept.close(discard=finished and not self.suspended)
        if error is not None:
            EVENTS.error("job failed: %s", error, extra=extra)
            self.job._set("failed", error)
        elif self.cancelled:
            EVENTS.info("job cancelled", extra=extra)
            self.job._set("cancelled")
        else:
            EVENTS.info("job finished", extra=extra)
            self.job._set("finished")


@functools.cache
def say_one_core() -> None:
    """Once per process: parallelism on the local backend shares one core."""
    LOGGER.warning("parallelism on backend 'local' shares one event loop and one core; backend='process' uses all cores of this machine")


@functools.cache
def say_no_limits() -> None:
    """Once per process: what limits worker processes limits nothing where there are none."""
    LOGGER.warning("taskmanager.memory.process.size and taskmanager.cpu.cores limit worker processes, and this job has none")


def new_job_id(name: str) -> str:
    """``name-xxxxxxxx``: readable and unique."""
    return f"{name}-{os.urandom(4).hex()}"
