"""The entry of every worker process: deploy, start, report, until the owner says end."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import sys
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from sage_actor._core.frame import CONTROL, decode
from sage_actor.actor.backend import Endpoint
from sage_actor.checkpoint.storage import open_storage
from sage_actor.errors import BackendError, FrameError, SageError
from sage_actor.ports import current_clock, system_clock
from sage_actor.runtime.portable import pack_error
from sage_actor.runtime.task_host import JobIdentity, TaskHost, control_frame, explain_frame, read_control

__all__ = ["WorkerSide", "main", "to_its_end"]

ORDERS = ("checkpoint", "complete", "abort", "query")


async def main(endpoint: Endpoint) -> None:
    """A worker's life: deploy, start, report, until the owner says end."""
    worker = WorkerSide(endpoint)
    endpoint.start(worker.receive, worker.lost)
    await worker.run()


class WorkerSide:
    """Answers the owner's control messages in a worker process."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.host: TaskHost | None = None
        self.job = JobIdentity("", 0, 0)
        self.commands: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.early: list[tuple[int, bytes]] = []
        self.opening = 0

    def receive(self, sender: int, frame: memoryview) -> None:
        """Every frame comes in here."""
        header, parts = decode(frame)
        if header.kind == CONTROL:
            self.commands.put_nowait(read_control(parts))
            return
        host = self.host
        if host is None:
            self.early.append((sender, bytes(frame)))
            return
        try:
            host.on_frame(sender, header, parts, frame.nbytes)
        except (FrameError, SageError, pickle.UnpicklingError, AttributeError, ImportError, TypeError, ValueError) as error:
            self._say("failed", pack_error(explain_frame(error, self.job.name, sender)))

    def lost(self, loss: BackendError) -> None:
        """Another worker is gone; the owner knows too and decides."""

    def _say(self, kind: str, payload: Any) -> None:
        self.endpoint.send(0, control_frame(self.job, kind, payload))

    def _report(self, kind: str, payload: Any) -> None:
        if kind == "failed":
            self._say("failed", pack_error(payload[1]))
        else:
            self._say(kind, payload)
        if kind == "opened":
            self.opening -= 1
            if not self.opening and self.host is not None and self.host.settings.memory_gc_optimization:
                set_restored_apart()

    async def run(self) -> None:
        """Serve commands until "end"."""
        beat = asyncio.get_running_loop().create_task(self._beat())
        try:
            while True:
                kind, payload = await self.commands.get()
                if kind == "deploy":
                    self._deploy(payload)
                elif kind == "start" and self.host is not None:
                    self.host.start()
                elif kind == "stop" and self.host is not None:
                    self.host.stop()
                elif kind in ORDERS and self.host is not None:
                    self.host.order(kind, *pickle.loads(payload))
                elif kind == "end":
                    return
        finally:
            beat.cancel()
            if self.host is not None:
                await to_its_end(self.host.cancel())
            await self.endpoint.flush()

    def _deploy(self, payload: bytes) -> None:
        try:
            job, settings, classes, snapshots, specs = pickle.loads(payload)
            main_module = sys.modules["__main__"]
            for name, cls in classes.items():
                setattr(main_module, name, cls)
            self.job = job
            if snapshots.url is not None:
                snapshots = replace(snapshots, storage=open_storage(snapshots.url, job.name))
            # Known before it is complete: what it has put on disk goes with it, also if a task cannot be built.
            self.host = TaskHost(self.endpoint.worker, job, settings, self.endpoint, self._report, snapshots)
            self.host.deploy(specs)
            self.opening = len(self.host.tasks)
        except Exception as error:  # noqa: BLE001 - whatever the user's pickles raise is the owner's to report
            self._say("failed", pack_error(explain_deploy(error, self.endpoint.worker)))
            return
        early, self.early = self.early, []
        self._say("ready", os.getpid())
        for sender, frame in early:
            self.receive(sender, memoryview(frame))

    async def _beat(self) -> None:
        """Send counters to the owner twice a second."""
        while True:
            await asyncio.sleep(0.5)
            if self.host is not None and self.host.running:
                self._say("metrics", self.host.snapshots())


def set_restored_apart() -> None:
    """From here on the garbage collector passes over what is there by now: state, functions, models live as long as the worker.

    Only where the process is ours alone, so not in a simulation.
    """
    if current_clock() is system_clock:
        gc.collect()
        gc.freeze()


async def to_its_end(ending: Coroutine[Any, Any, None]) -> None:
    """Await it whole, also where the owner, who waits for our end, has us cancelled meanwhile."""
    task = asyncio.ensure_future(ending)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def explain_deploy(error: BaseException, worker: int) -> BaseException:
    """A dataflow that a worker cannot load, named."""
    if isinstance(error, SageError):
        return error
    wrapped = BackendError(
        f"worker {worker} cannot load the dataflow ({type(error).__name__}: {error}); the modules of its functions must be importable "
        "by every worker (sys.path, PYTHONPATH), or the functions defined in the main script"
    )
    wrapped.__cause__ = error
    return wrapped
