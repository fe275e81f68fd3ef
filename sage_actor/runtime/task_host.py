"""Hosts the tasks of one job in one process: in every worker, and in the owner."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from sage_actor._core.batch_queue import Gate
from sage_actor._core.frame import CONTROL, CREDIT, DATA, FrameHeader, encode
from sage_actor.actor.backend import Endpoint, PoolingEndpoint
from sage_actor.actor.portable import dump
from sage_actor.dataflow.plan import ChannelSpec, TaskSpec
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import FrameError, OperatorError, SageError
from sage_actor.ports import offload
from sage_actor.runtime.batch_codec import decode_batch
from sage_actor.runtime.channels import Channel, LocalChannel, RemoteChannel, credit_frame, decode_marker
from sage_actor.runtime.queries import answer
from sage_actor.runtime.scratch import make_scratch, remove_scratch
from sage_actor.runtime.task import Task
from sage_actor.runtime.task_snapshots import SnapshotSetting

__all__ = ["JobIdentity", "TaskHost", "control_frame", "explain_frame", "read_control"]

Report = Callable[[str, Any], None]


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """What frames are checked against: the job (name, 64-bit number) and the attempt."""

    name: str
    number: int
    attempt: int


@dataclass(slots=True)
class Inbound:
    """The receiving end of a channel from another worker."""

    gate: Gate
    slot: int
    source: int
    expected: int = 0


class TaskHost:
    """Builds, connects, starts and ends the tasks of one worker. One event loop; nothing here is thread-safe.

    `report(kind, payload)` is called with ("finished", (task, snapshot)) and ("failed", (task, error)).
    """

    def __init__(
        self,
        worker: int,
        job: JobIdentity,
        settings: JobSettings,
        endpoint: Endpoint | None,
        report: Report,
        snapshots: SnapshotSetting | None = None,
    ) -> None:
        self.worker = worker
        self.job = job
        self.settings = settings
        self.endpoint = endpoint
        self.report = report
        self.snapshot_setting = snapshots or SnapshotSetting()
        self.scratch: str | None = None
        self.tasks: dict[int, Task] = {}
        self.inbound: dict[int, Inbound] = {}
        self.outbound: dict[int, RemoteChannel] = {}
        self.running: dict[int, asyncio.Task[None]] = {}
        self.ending = False
        if isinstance(endpoint, PoolingEndpoint):
            endpoint.keep_for_reuse(settings.memory_pool_size if settings.memory_object_pooling else 0)
        self.refused = 0
        self.duplicates = 0

    def deploy(self, specs: Iterable[TaskSpec]) -> None:
        """Create the tasks and their channels; nothing runs yet.

        Raises:
            SageError: a task cannot be built.
        """
        snapshots = self.snapshot_setting
        if self.settings.state_backend != "memory":
            self.scratch = make_scratch("state")
            snapshots = replace(snapshots, folder=self.scratch)
        for spec in specs:
            self.tasks[spec.id] = Task(spec, job=self.job.name, settings=self.settings, snapshots=snapshots, report=self.report)
        for task in self.tasks.values():
            for channel in task.spec.inputs:
                if channel.source_worker != self.worker:
                    self._listen(channel, task.gate)
            task.connect(self._open)

    def _listen(self, channel: ChannelSpec, gate: Gate) -> None:
        assert self.endpoint is not None
        self.inbound[channel.id] = Inbound(gate, channel.slot, channel.source_worker)
        endpoint, job = self.endpoint, self.job

        def give_back(records: int, nbytes: int) -> None:
            endpoint.send(channel.source_worker, credit_frame(job.number, job.attempt, channel.id, records, nbytes))

        gate.on_release(channel.slot, give_back)

    def _open(self, channel: ChannelSpec) -> Channel:
        if channel.target_worker == self.worker:
            return LocalChannel(self.tasks[channel.target_task].gate, channel.slot)
        assert self.endpoint is not None
        remote = self.outbound[channel.id] = RemoteChannel(
            self.endpoint,
            channel.target_worker,
            channel.id,
            job=self.job.number,
            attempt=self.job.attempt,
            limit=self.settings.buffer_records,
            bytes_limit=self.settings.buffer_bytes,
            zero_copy=self.settings.memory_zero_copy,
        )
        return remote

    def start(self) -> None:
        """Run all tasks."""
        loop = asyncio.get_running_loop()
        for number, task in self.tasks.items():
            running = loop.create_task(task.run(), name=f"{self.job.name}: {task.spec.name}")
            self.running[number] = running
            running.add_done_callback(self._ended(number))

    def _ended(self, number: int) -> Callable[[asyncio.Task[None]], None]:
        def ended(running: asyncio.Task[None]) -> None:
            task = self.tasks[number]
            error: BaseException | None
            if running.cancelled():
                if self.ending:
                    return
                error = asyncio.CancelledError("a function of this chain raised it")
            else:
                error = running.exception()
            if error is None:
                self.report("finished", (number, task.snapshot(os.getpid())))
                return
            if not isinstance(error, SageError):
                wrapped = OperatorError(
                    self.job.name, task.spec.operators[0].name, f"{type(error).__name__}: {error}", task=task.spec.index
                )
                wrapped.__cause__ = error
                error = wrapped
            self.report("failed", (number, error))

        return ended

    def stop(self) -> None:
        """Sources stop reading; what is under way flows out."""
        for task in self.tasks.values():
            if task.source_operator is not None:
                task.stop()

    def order(self, kind: str, payload: Any, tasks: set[int] | None) -> None:
        """Hand an order of the coordinator to the tasks meant: checkpoint, complete, abort, or query, which is answered at once."""
        for number, task in self.tasks.items():
            if tasks is not None and number not in tasks:
                continue
            if kind == "checkpoint":
                checkpoint, suspend = payload
                task.checkpoint(checkpoint, suspend=suspend)
            elif kind == "complete":
                task.complete(payload)
            elif kind == "query":
                self.report("answer", answer(task, payload))
            else:
                task.abort(payload)

    async def cancel(self) -> None:
        """End all tasks now; their functions are closed. Idempotent."""
        self.ending = True
        running = [handle for handle in self.running.values() if not handle.done()]
        for handle in running:
            handle.cancel()
        if running:
            await asyncio.wait(running)
        for task in self.tasks.values():
            if not task.gate.closed:
                task.gate.close()
        if self.scratch is not None:
            scratch, self.scratch = self.scratch, None
            await offload(lambda: remove_scratch(scratch))

    def snapshots(self) -> list[dict[str, Any]]:
        """Counters of all tasks."""
        pid = os.getpid()
        return [task.snapshot(pid) for task in self.tasks.values()]

    def on_frame(self, sender: int, header: FrameHeader, parts: list[memoryview], nbytes: int) -> None:
        """Take in a data, marker or credit frame.

        Frames of another job or attempt are refused and counted, duplicates dropped and counted (F41).

        Raises:
            FrameError: a frame is missing between this one and the last, or the channel is unknown.
        """
        if header.job != self.job.number or header.attempt != self.job.attempt:
            self.refused += 1
            return
        if header.kind == CREDIT:
            channel = self.outbound.get(header.channel)
            if channel is not None:
                channel.credit(header.records, int.from_bytes(parts[0], "little"))
            return
        inbound = self.inbound.get(header.channel)
        if inbound is None:
            raise FrameError(
                f"job {self.job.name!r}: worker {self.worker} got a frame from worker {sender} for unknown channel {header.channel}"
            )
        if header.sequence < inbound.expected:
            self.duplicates += 1
            return
        if header.sequence > inbound.expected:
            raise FrameError(
                f"job {self.job.name!r}: channel {header.channel} from worker {sender} to {self.worker} lost "
                f"{header.sequence - inbound.expected} frame(s) before number {header.sequence}; the attempt cannot go on"
            )
        inbound.expected += 1
        if inbound.gate.closed:
            return
        if header.kind == DATA:
            inbound.gate.receive(inbound.slot, decode_batch(parts), header.records, nbytes)
        else:
            inbound.gate.put_marker(inbound.slot, decode_marker(parts[0]))


def control_frame(job: JobIdentity, kind: str, payload: Any = None) -> list[Any]:
    """A control message as a frame."""
    body = kind.encode() + b"\0" + (payload if isinstance(payload, bytes) else dump(payload))
    return encode(CONTROL, job.number, job.attempt, 0, 0, 0, [body])


def read_control(parts: list[memoryview]) -> tuple[str, bytes]:
    """Kind and pickled payload of a control frame."""
    kind, _, payload = bytes(parts[0]).partition(b"\0")
    return kind.decode(), payload


def explain_frame(error: BaseException, job: str, sender: int) -> BaseException:
    """A frame that cannot be taken in, named."""
    if isinstance(error, SageError):
        return error
    wrapped = FrameError(
        f"job {job!r}: a batch from worker {sender} cannot be unpickled ({type(error).__name__}: {error}); "
        "record classes must be importable by every worker or defined in the main script"
    )
    wrapped.__cause__ = error
    return wrapped
