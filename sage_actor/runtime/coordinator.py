"""The owner's side of a job: start workers, deploy, watch, end. One coordinator per job, on the loop that submitted it."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import pickle
from collections.abc import Iterable
from typing import Any

from sage_actor._core.frame import CONTROL, decode
from sage_actor._core.stable_hash import stable_hash
from sage_actor.actor.backend import PATIENCE, Backend, Endpoint, WorkerGroup
from sage_actor.actor.open_backend import open_backend
from sage_actor.dataflow.graph import Graph
from sage_actor.dataflow.plan import Plan, make_plan
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import BackendError, FrameError, SageError, WorkerLost
from sage_actor.runtime.job import Job
from sage_actor.runtime.portable import unpack_error
from sage_actor.runtime.shipping import pack_tasks
from sage_actor.runtime.worker import JobIdentity, TaskHost, control_frame, explain_frame, read_control

__all__ = ["Coordinator", "new_job_id"]

LOGGER = logging.getLogger("sage_actor")
EVENTS = logging.getLogger("sage_actor.jobs")
EVENTS.addHandler(logging.NullHandler())  # errors are raised and shown by status; without a configured log they need no echo
ENTRY = "sage_actor.runtime.worker:main"
DEPLOY_TIMEOUT = 60.0
IMPATIENCE = 0.5
"""Seconds a worker of a cancelled or failed job has to end: long enough for close(), short for a function that blocks."""


class Coordinator:
    """Runs one attempt of one job from plan to end.

    Whatever happens - a failing task, a lost worker, a cancel - the workers are ended and the job's status says it.
    """

    def __init__(self, job: Job, graph: Graph, wanted: Iterable[int], settings: JobSettings, attempt: int = 1) -> None:
        self.job = job
        self.graph = graph
        self.settings = settings
        self.backend: Backend = open_backend(settings.backend)
        self.plan: Plan = make_plan(graph, wanted, settings, hosts_in_owner=self.backend.hosts_in_owner)
        if self.backend.hosts_in_owner and any(chain.parallelism > 1 for chain in self.plan.chains):
            say_one_core()
        self.identity = JobIdentity(job.name, stable_hash(job.id), attempt)
        self.group: WorkerGroup | None = None
        self.host: TaskHost | None = None
        self.remaining = {task.id for task in self.plan.tasks}
        self.reported: dict[int, dict[str, Any]] = {}
        self.waiting_for: set[int] = set()
        self.ready = asyncio.Event()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopping = False
        self.cancelled = False
        self.main: asyncio.Task[None] | None = None

    def launch(self) -> None:
        """Start the job in the background; the task is held strongly and is nobody's child."""
        EVENTS.info("job started", extra={"job": self.job.id, "backend": self.settings.backend, "tasks": len(self.plan.tasks)})
        self.job._begin(self)
        self.main = asyncio.get_running_loop().create_task(self._run(), name=f"job {self.job.id}")

    def stop(self) -> None:
        """Drain: sources stop, the rest flows out."""
        if self.stopping or self.over.done():
            return
        self.stopping = True
        self.job._set("stopping")
        self._stop_sources()

    def _stop_sources(self) -> None:
        if self.host is not None:
            self.host.stop()
        if self.group is not None and not self.waiting_for:
            for worker in self.group.workers:
                self.group.endpoint.send(worker.worker, control_frame(self.identity, "stop"))

    def cancel(self) -> None:
        """End now."""
        self.cancelled = True
        if not self.over.done():
            self.over.set_result(None)

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            await self._start()
            await self.over
        except asyncio.CancelledError:
            self.cancelled = True
        except Exception as failure:  # noqa: BLE001 - the supervisor of the job: any failure becomes its status
            error = failure
        await self._end(error)

    async def _start(self) -> None:
        plan = self.plan
        endpoint: Endpoint | None = None
        if plan.workers:
            self.group = await self.backend.start(plan.workers, group=f"{self.job.id}-{self.identity.attempt}", entry=ENTRY)
            endpoint = self.group.endpoint
        if self.cancelled:
            return
        self.host = TaskHost(0, self.identity, self.settings, endpoint, self._report)
        self.host.deploy(task for task in plan.tasks if task.worker == 0)
        if self.group is not None and endpoint is not None:
            await self._deploy(self.group, endpoint)
        if not self.over.done():
            self.host.start()
            if self.stopping:
                self._stop_sources()

    async def _deploy(self, group: WorkerGroup, endpoint: Endpoint) -> None:
        self.waiting_for = {worker.worker for worker in group.workers}
        endpoint.start(self._receive, self._lost)
        for worker in group.workers:
            tasks = [task for task in self.plan.tasks if task.worker == worker.worker]
            endpoint.send(worker.worker, control_frame(self.identity, "deploy", pack_tasks(self.identity, self.settings, tasks)))
        ready = asyncio.ensure_future(self.ready.wait())
        try:
            async with asyncio.timeout(DEPLOY_TIMEOUT):
                await asyncio.wait((ready, self.over), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise BackendError(
                f"job {self.job.name!r}: workers {sorted(self.waiting_for)} did not answer within {DEPLOY_TIMEOUT:g} s of being deployed to"
            ) from None
        finally:
            ready.cancel()
        if self.over.done():
            return
        for worker in group.workers:
            endpoint.send(worker.worker, control_frame(self.identity, "start"))

    # -- reports ---------------------------------------------------------------------------------------------------

    def _report(self, kind: str, payload: Any) -> None:
        if kind == "failed":
            self._fail(payload[1])
            return
        task, snapshot = payload
        self.reported[task] = snapshot
        self.remaining.discard(task)
        if not self.remaining and not self.over.done():
            self.over.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self.over.done():
            self.over.set_exception(error)

    def _lost(self, loss: WorkerLost | BackendError) -> None:
        self._fail(loss)

    def _receive(self, sender: int, frame: memoryview) -> None:
        try:
            header, parts = decode(frame)
            if header.kind != CONTROL:
                if self.host is not None:
                    self.host.on_frame(sender, header, parts, frame.nbytes)
                return
            if header.job not in (0, self.identity.number) or (header.job and header.attempt != self.identity.attempt):
                return
            kind, payload = read_control(parts)
            if kind == "failed":
                self._fail(unpack_error(payload))
            elif kind == "ready":
                self.waiting_for.discard(sender)
                if not self.waiting_for:
                    self.ready.set()
            elif kind == "metrics":
                for snapshot in pickle.loads(payload):
                    self.reported[snapshot["task"]] = snapshot
            else:
                self._report(kind, pickle.loads(payload))
        except (FrameError, SageError, pickle.UnpicklingError, AttributeError, ImportError, TypeError, ValueError) as error:
            self._fail(explain_frame(error, self.job.name, sender))

    def snapshots(self) -> list[dict[str, Any]]:
        """Counters of every task: own ones now, remote ones as last reported."""
        current = dict(self.reported)
        if self.host is not None:
            for snapshot in self.host.snapshots():
                current[snapshot["task"]] = snapshot
        return [current[task] for task in sorted(current)]

    # -- end -------------------------------------------------------------------------------------------------------

    async def _end(self, error: BaseException | None) -> None:
        if self.host is not None:
            await self.host.cancel()
            for snapshot in self.host.snapshots():
                self.reported[snapshot["task"]] = snapshot
        group = self.group
        if group is not None:
            for worker in group.workers:
                group.endpoint.send(worker.worker, control_frame(self.identity, "end"))
            try:
                await group.aclose(PATIENCE if error is None and not self.cancelled else IMPATIENCE)
            except BackendError as failure:
                error = error or failure
        extra: dict[str, object] = {"job": self.job.id, "operator": getattr(error, "operator", "")}
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


def new_job_id(name: str) -> str:
    """``name-xxxxxxxx``: readable and unique."""
    return f"{name}-{os.urandom(4).hex()}"
