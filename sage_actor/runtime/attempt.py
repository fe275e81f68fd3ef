"""One life of a job between failures: start workers, deploy, watch, end."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

from sage_actor._core.frame import CONTROL, decode
from sage_actor.actor.backend import PATIENCE, Backend, Endpoint, WorkerGroup
from sage_actor.dataflow.plan import Plan
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import BackendError, FrameError, SageError, WorkerLost
from sage_actor.runtime.portable import unpack_error
from sage_actor.runtime.queries import Queries
from sage_actor.runtime.shipping import pack_tasks
from sage_actor.runtime.task_host import JobIdentity, TaskHost, control_frame, explain_frame, read_control
from sage_actor.runtime.task_snapshots import SnapshotSetting
from sage_actor.runtime.worker import to_its_end

__all__ = ["Attempt"]

ENTRY = "sage_actor.runtime.worker:main"
DEPLOY_TIMEOUT = 60.0
IMPATIENCE = 0.5
"""Seconds a worker of a cancelled or failed attempt has to end: long enough for close(), short for a function that blocks."""


class Attempt:
    """Runs a plan once. Whatever happens - a failing task, a lost worker, a cancel - its workers are ended afterwards.

    `listen(kind, payload)` hears what tasks report of snapshots (see `Task`), ("read", (task, records)), and ("open", None) once all
    tasks are.
    """

    def __init__(
        self,
        identity: JobIdentity,
        group_name: str,
        plan: Plan,
        settings: JobSettings,
        backend: Backend,
        snapshots: SnapshotSetting,
        listen: Callable[[str, Any], None],
    ) -> None:
        self.identity = identity
        self.group_name = group_name
        self.plan = plan
        self.settings = settings
        self.backend = backend
        self.snapshots = snapshots
        self.listen = listen
        self.worker_of = {task.id: task.worker for task in plan.tasks}
        self.group: WorkerGroup | None = None
        self.host: TaskHost | None = None
        self.remaining = {task.id for task in plan.tasks}
        self.reported: dict[int, dict[str, Any]] = {}
        self.opened: dict[int, int] = {}
        self.queries = Queries(identity.name, plan, self.order)
        self.waiting_for: set[int] = set()
        self.ready = asyncio.Event()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun = False
        self.early: list[tuple[str, Any, set[int] | None]] = []
        self.stopping = False
        self.ended = False

    async def run(self) -> None:
        """Start, and return when every task has finished or `end` was called.

        Raises:
            SageError: a task failed, a worker was lost, or the plan could not be deployed.
        """
        await self._start()
        await self.over

    def stop(self) -> None:
        """Drain: sources stop, the rest flows out."""
        self.stopping = True
        if self.host is not None:
            self.host.stop()
        if not self.waiting_for:
            self._send_all("stop")

    @property
    def is_over(self) -> bool:
        """Whether `run` returns, or raises, as it is."""
        return self.over.done()

    def end(self) -> None:
        """`run` returns now."""
        self.ended = True
        if not self.over.done():
            self.over.set_result(None)

    # -- orders to tasks ---------------------------------------------------------------------------------------------

    def order(self, kind: str, payload: Any, tasks: set[int] | None = None) -> None:
        """Tell tasks: ("checkpoint", (number, suspend)), ("complete", number), ("abort", number), ("query", question). All of them if
        none are named. What comes before they run is kept until then.
        """
        if not self.begun:
            self.early.append((kind, payload, tasks))
            return
        workers = {self.worker_of[task] for task in (self.worker_of if tasks is None else tasks)}
        body = (payload, tasks)
        if 0 in workers and self.host is not None:
            self.host.order(kind, *body)
        if self.group is not None:
            for worker in self.group.workers:
                if worker.worker in workers:
                    self.group.endpoint.send(worker.worker, control_frame(self.identity, kind, body))

    def _send_all(self, kind: str) -> None:
        if self.group is not None:
            for worker in self.group.workers:
                self.group.endpoint.send(worker.worker, control_frame(self.identity, kind))

    # -- start -------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        plan = self.plan
        endpoint: Endpoint | None = None
        if plan.workers:
            await self._start_workers()
        if self.over.done():
            return
        if self.group is not None:
            endpoint = self.group.endpoint
        self.host = TaskHost(0, self.identity, self.settings, endpoint, self._report, self.snapshots)
        self.host.deploy(task for task in plan.tasks if task.worker == 0)
        if self.group is not None and endpoint is not None:
            await self._deploy(self.group, endpoint)
        if not self.over.done():
            self.host.start()
            self.begun = True
            for early in self.early:
                self.order(*early)
            self.early.clear()
            if self.stopping:
                self.stop()

    async def _start_workers(self) -> None:
        """Called off where this is over before: a place may let us wait for long, and then nobody waits for it any more."""
        plan = self.plan
        starting = asyncio.ensure_future(self.backend.start(plan.workers, group=self.group_name, entry=ENTRY, resources=plan.resources))
        try:
            await asyncio.wait((starting, self.over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not starting.done():
                await to_its_end(call_off(starting))
            if not starting.cancelled() and starting.exception() is None:
                self.group = starting.result()
        if not self.over.done():
            starting.result()

    async def _deploy(self, group: WorkerGroup, endpoint: Endpoint) -> None:
        self.waiting_for = {worker.worker for worker in group.workers}
        endpoint.start(self._receive, self._lost)
        for worker in group.workers:
            tasks = [task for task in self.plan.tasks if task.worker == worker.worker]
            body = pack_tasks(self.identity, self.settings, self.snapshots.shipped(), tasks)
            endpoint.send(worker.worker, control_frame(self.identity, "deploy", body))
        ready = asyncio.ensure_future(self.ready.wait())
        try:
            async with asyncio.timeout(DEPLOY_TIMEOUT):
                await asyncio.wait((ready, self.over), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise BackendError(
                f"job {self.identity.name!r}: workers {sorted(self.waiting_for)} did not answer within {DEPLOY_TIMEOUT:g} s of being "
                "deployed to"
            ) from None
        finally:
            ready.cancel()
        if self.over.done():
            return
        self._send_all("start")

    # -- reports -----------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Something is wrong: `run` raises it."""
        if not self.over.done():
            self.over.set_exception(error)

    def _report(self, kind: str, payload: Any) -> None:
        if kind == "failed":
            self.fail(payload[1])
        elif kind == "finished":
            task, snapshot = payload
            self.reported[task] = snapshot
            self.remaining.discard(task)
            if not self.remaining and not self.over.done():
                self.over.set_result(None)
        elif kind == "opened":
            task, nbytes = payload
            self.opened[task] = nbytes
            self.queries.opened(task)
            if len(self.opened) == len(self.plan.tasks):
                self.listen("open", None)
        elif kind == "answer":
            self.queries.hear(*payload)
        else:
            self.listen(kind, payload)

    def _lost(self, loss: WorkerLost | BackendError) -> None:
        self.fail(loss)

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
                self.fail(unpack_error(payload))
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
            self.fail(explain_frame(error, self.identity.name, sender))

    def task_snapshots(self) -> list[dict[str, Any]]:
        """Counters of every task: own ones now, remote ones as last reported."""
        current = dict(self.reported)
        if self.host is not None:
            for snapshot in self.host.snapshots():
                current[snapshot["task"]] = snapshot
        return [current[task] for task in sorted(current)]

    # -- end ---------------------------------------------------------------------------------------------------------

    async def close(self, *, patient: bool) -> None:
        """End tasks and workers.

        Raises:
            BackendError: a worker ended badly although it was asked to.
        """
        self.ended = True
        self.queries.close()
        if self.host is not None:
            await self.host.cancel()
            for snapshot in self.host.snapshots():
                self.reported[snapshot["task"]] = snapshot
        group = self.group
        if group is not None:
            self._send_all("end")
            await group.aclose(PATIENCE if patient else IMPATIENCE)


async def call_off(start: asyncio.Future[WorkerGroup]) -> None:
    """Cancel a start and wait until it has ended."""
    start.cancel()
    await asyncio.wait((start,))
