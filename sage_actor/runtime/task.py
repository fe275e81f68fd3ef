"""One task: an actor whose mailbox is a gate. It drains what waits, runs its chain, and hands results on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sage_actor._core.batch import BARRIER, END, IDLE, WATERMARK, Batch, Marker
from sage_actor._core.batch_queue import Gate
from sage_actor.dataflow.graph import Port
from sage_actor.dataflow.plan import TaskSpec
from sage_actor.dataflow.settings import JobSettings
from sage_actor.dataflow.watermarks import MIN_WATERMARK
from sage_actor.errors import OperatorError
from sage_actor.operators.async_stage import AsyncStage
from sage_actor.operators.setting import TaskSetting
from sage_actor.operators.stage_of import build_stages
from sage_actor.operators.stages import Stage, Turns
from sage_actor.operators.timestamp_stage import TimestampStage
from sage_actor.ports import Cancellable, Clock, current_clock, current_random
from sage_actor.runtime.balancing import make_router
from sage_actor.runtime.chain import Chain
from sage_actor.runtime.channels import Channel, RemoteChannel
from sage_actor.runtime.gate_loop import GateLoop
from sage_actor.runtime.portable import portable_letters
from sage_actor.runtime.routing import Router, batch_copy
from sage_actor.runtime.source_loop import SourceLoop
from sage_actor.runtime.task_snapshots import Report, SnapshotSetting, TaskSnapshots
from sage_actor.telemetry.counters import TaskCounters

__all__ = ["Task"]

STOP = "stop"
WAKE = "wake"


def silent(kind: str, payload: object) -> None:
    """For tasks that nobody listens to."""


class Task:
    """Built on its worker from a `TaskSpec`; `run` is its whole life. Everything happens on one event loop.

    `report` hears of snapshots: ("saved", (checkpoint, task, parts)), ("unsaved", (checkpoint, task, error)),
    ("final", (checkpoint, task, parts)) when its input has ended, and ("committed", (checkpoint, task)); before all these comes
    ("opened", (task, bytes of state read)).
    """

    def __init__(
        self,
        spec: TaskSpec,
        *,
        job: str,
        settings: JobSettings,
        clock: Clock | None = None,
        snapshots: SnapshotSetting | None = None,
        report: Report = silent,
    ) -> None:
        self.spec = spec
        self.job = job
        self.settings = settings
        self.report = report
        clock = current_clock() if clock is None else clock
        snapshot_setting = snapshots or SnapshotSetting()
        self.mode = snapshot_setting.mode
        self.snapshots = TaskSnapshots(job, spec, settings, snapshot_setting, clock, report)
        self.gate = Gate(len(spec.inputs), capacity=settings.buffer_records, capacity_bytes=settings.buffer_bytes, name=spec.name)
        self.stopping = False
        self.suspended = False
        self.woken = False
        self.working = False
        self.attention = False
        self.alarms: list[Stage] = []
        self.requests: list[tuple[int, bool]] = []
        self.notified = self.confirmed = 0
        self.cancelled: list[int] = []
        self.pending_watermark = self.sent_watermark = MIN_WATERMARK
        self.silent = self.told_silence = False
        self.setting = TaskSetting(
            job,
            spec.index,
            spec.parallelism,
            spec.worker,
            settings,
            settings.flat(),
            clock,
            current_random(),
            self._aside,
            self.flush,
            self.wake,
            self.snapshots.open_state,
            self._advance_behind,
            lambda stage: self.fall_idle(),
            self._alarm,
            self.mode,
            snapshot_setting.attempt,
            snapshot_setting.checkpoint,
        )
        operators = spec.operators
        self.source_operator = operators[0] if operators[0].kind == "source" else None
        self.stages = build_stages(operators[1:] if self.source_operator else operators, self.setting)
        self.has_own_time = any(isinstance(stage, TimestampStage) for stage in self.stages)
        self.asynchronous = self.stages[0] if self.stages and isinstance(self.stages[0], AsyncStage) else None
        counters = [counter for stage in self.stages for counter in stage.counters]
        self.loop: GateLoop | SourceLoop
        if self.source_operator is not None:
            self.loop = SourceLoop(self, self.source_operator)
            counters.insert(0, self.loop.counters)
        else:
            self.loop = GateLoop(self)
        self.counters = TaskCounters(counters)
        self.routers: list[Router] = []
        self.main: list[Router] = []
        self.sides: dict[tuple[int, Port], list[Router]] = {}
        self.turns = Turns(settings.batch_records)
        self.chain = Chain(self.stages, self._out, self._passed)

    def connect(self, open_channel: Callable[[Any], Channel]) -> None:
        """Create the routers; `open_channel` makes the sending end of a `ChannelSpec`."""
        last = self.spec.operators[-1].id
        for output in self.spec.outputs:
            router = make_router(output, [open_channel(c) for c in output.channels], self.setting)
            self.routers.append(router)
            if output.port == "out" and output.operator == last:
                self.main.append(router)
            else:
                self.sides.setdefault((output.operator, output.port), []).append(router)

    # -- what others ask for: never blocks, looked at between two batches ---------------------------------------------

    def stop(self) -> None:
        """A source stops reading, and what is under way flows out; others just wait for their input to end."""
        if not self.stopping:
            self.stopping = True
            if not self.gate.closed:
                self.gate.put_control(STOP)

    def checkpoint(self, number: int, *, suspend: bool = False) -> None:
        """A source takes its part of a checkpoint after the batch in hand; with `suspend` it reads nothing more afterwards."""
        self.requests.append((number, suspend))
        self._call_attention()

    def complete(self, number: int) -> None:
        """A checkpoint is complete, and with it all before it."""
        self.notified = max(self.notified, number)
        self._call_attention()

    def abort(self, number: int) -> None:
        """A checkpoint has been given up."""
        self.cancelled.append(number)
        self._call_attention()

    def wake(self) -> None:
        """Look at the stages again."""
        if not self.woken and not self.gate.closed:
            self.woken = True
            self.gate.put_control(WAKE)

    async def wait_quietly(self) -> bool:
        """Wait for something to do; nobody is to think that this task hangs."""
        self.working = False
        try:
            return bool(await self.gate.wait())
        finally:
            self.working = True

    def _call_attention(self) -> None:
        self.attention = True
        self.wake()

    def _alarm(self, stage: Stage, seconds: float) -> Cancellable:
        def ring() -> None:
            self.alarms.append(stage)
            self._call_attention()

        return self.setting.clock.call_later(max(0.0, seconds), ring)

    async def attend(self) -> None:
        """Do what was asked for meanwhile."""
        self.attention = self.woken = False
        if self.source_operator is not None:
            self.gate.drain()
        if self.asynchronous is not None:
            await self.asynchronous.ready(self.chain.emits[0])
        if self.alarms:
            alarms, self.alarms = self.alarms, []
            for stage in dict.fromkeys(alarms):
                await self.chain.alarm(stage)
        if self.cancelled:
            newest, self.cancelled = max(self.cancelled), []
            self.requests = [request for request in self.requests if request[0] > newest]
            self.suspended = False  # the savepoint that was to end the job has failed: it goes on
            if isinstance(self.loop, GateLoop):
                self.loop.cancel(newest)
        if self.notified > self.confirmed:
            self.confirmed = self.notified
            for stage in self.stages:
                await stage.completed(self.confirmed)
            self.report("committed", (self.confirmed, self.spec.id))
        while self.requests:
            if isinstance(self.loop, SourceLoop) and self.loop.has_read:
                self.attention = True  # the source counts these records as read: they go before the barrier (F2)
                return
            number, suspend = self.requests.pop(0)
            await self.snapshot_at(number)
            self.suspended = self.suspended or suspend

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open, work until the input ends, finish, close.

        Raises:
            OperatorError: a user function, source or sink failed; everything is closed before.
        """
        try:
            if isinstance(self.loop, SourceLoop):
                await self.loop.open()
            for stage in self.stages:
                await stage.open()
            self.snapshots.check_claimed()
            self.report("opened", (self.spec.id, self.snapshots.restored_bytes))
            self.turns.begun = time.perf_counter()
            self.working = True
            if await self.loop.run():
                await self.loop.finish()
                if not self.snapshots.finished_before:
                    await self.chain.end()
            await self.flush()
            if self.mode:
                # Readers learn of the end at once; this task stays until what its sinks have prepared is committed (F7).
                await self._mark(Marker(END))
                await self._finish_snapshots()
        except BaseException:
            await self._close(quietly=True)
            raise
        await self._close(quietly=False)
        if not self.mode:
            await self._mark(Marker(END))
        self.gate.close()

    async def snapshot_at(self, checkpoint: int) -> None:
        """Freeze what all records so far have left behind, and send the barrier behind their results (F2, F4)."""
        if checkpoint <= self.snapshots.latest:
            return
        begun = time.perf_counter_ns()
        frozen = await self._freeze(checkpoint)
        self.counters.snapshot_pause.record(time.perf_counter_ns() - begun)
        await self.flush()
        await self._mark(Marker(BARRIER, checkpoint))
        self.snapshots.save(checkpoint, frozen)

    async def _freeze(self, checkpoint: int) -> Any:
        if isinstance(self.loop, SourceLoop):
            self.loop.prepare()
        for stage in self.stages:
            await stage.prepare(checkpoint)
        return self.snapshots.freeze(checkpoint)

    async def _finish_snapshots(self) -> None:
        """Hand in the last state, and wait until a checkpoint with it is complete."""
        await self.snapshots.settle()  # a barrier has gone out behind what is being saved, so nothing later can stand in for it
        number = self.snapshots.latest + 1
        self.snapshots.save(number, await self._freeze(number), "final")
        while self.confirmed < number:
            self.requests.clear()
            if not await self.wait_quietly():
                return
            self.gate.drain()
            self.requests.clear()
            self.alarms.clear()  # nothing may come behind the end
            await self.attend()

    # -- ways out --------------------------------------------------------------------------------------------------

    async def _out(self, batch: Batch) -> None:
        self.told_silence = False
        main = self.main
        if len(main) == 1:
            await main[0].add(batch)
            return
        for router in main[1:]:
            try:
                copied = batch_copy(batch, reuse=self.settings.object_reuse, place=router.consumer)
            except TypeError as error:
                raise OperatorError(self.job, self.spec.operators[-1].name, str(error), task=self.spec.index) from error
            await router.add(copied)
        if main:
            await main[0].add(batch)

    async def _aside(self, operator: int, port: Port, batch: Batch) -> None:
        for router in self.sides.get((operator, port), ()):
            # Each reader has a batch of its own: routers merge batches in place.
            remote = port in ("dead", "failed") and any(isinstance(channel, RemoteChannel) for channel in router.channels)
            copied = batch_copy(batch, reuse=True, place=router.consumer)
            if remote:
                copied.values = portable_letters(batch.values)
            await router.add(copied)

    async def flush(self) -> None:
        """Send what was gathered for the next tasks, and the event time that stands behind it."""
        for router in self.routers:
            await router.flush()
        if self.pending_watermark > self.sent_watermark:
            self.sent_watermark = self.pending_watermark
            await self._mark(Marker(WATERMARK, self.sent_watermark))
        if self.silent and not self.told_silence and not (self.asynchronous is not None and self.asynchronous.pending):
            self.told_silence = True
            await self._mark(Marker(IDLE))

    async def _mark(self, marker: Marker) -> None:
        for router in self.routers:
            await router.mark(marker)

    def _passed(self, watermark: int) -> None:
        self.pending_watermark = watermark
        self.told_silence = False

    async def _advance_behind(self, stage: Stage, watermark: int) -> None:
        await self.chain.advance_behind(stage, watermark)

    def fall_idle(self) -> None:
        """Nothing comes for a while: readers are told at the end of the turn, and again after what timers and calls still bring."""
        self.silent, self.told_silence = True, False
        self.wake()

    def blocked(self) -> int:
        """Nanoseconds spent waiting for credit, so far."""
        total = 0
        for router in self.routers:
            total += router.blocked_ns
        return total

    async def _close(self, *, quietly: bool) -> None:
        first: BaseException | None = None
        self.working = False
        cancelled: asyncio.CancelledError | None = None
        closers: list[Callable[[], Awaitable[None]]] = [stage.close for stage in self.stages]
        if isinstance(self.loop, SourceLoop):
            closers.insert(0, self.loop.close)
        closers.append(self.snapshots.close)
        for close in closers:
            try:
                await close()
            except Exception as error:  # noqa: BLE001 - every part is closed; the first error is raised below
                first = first or (error if isinstance(error, OperatorError) else self._close_error(error))
            except asyncio.CancelledError as error:
                cancelled = error  # hurry, but leave nothing open
        if quietly:
            self.gate.close()
        if cancelled is not None:
            raise cancelled
        if first is not None and not quietly:
            raise first

    def _close_error(self, error: BaseException) -> BaseException:
        name = self.spec.operators[0].name
        wrapped = OperatorError(self.job, name, f"close() raised {type(error).__name__}: {error}", task=self.spec.index)
        wrapped.__cause__ = error
        return wrapped

    def snapshot(self, pid: int) -> dict[str, Any]:
        """Counters of this task, for exporters."""
        self.counters.gate_depth = self.gate.depth
        self.counters.gate_depth_bytes = self.gate.depth_bytes
        return {
            "task": self.spec.id,
            "name": self.spec.name,
            "operator": self.spec.operators[0].name,
            "index": self.spec.index,
            "worker": self.spec.worker,
            "pid": pid,
            "source": self.source_operator is not None,
            "end": self.spec.operators[-1].kind == "sink",
            "working": self.working,
            **self._key_groups(),
            **self.counters.snapshot(),
        }

    def _key_groups(self) -> dict[str, Any]:
        """Records sent so far, by receiving operator and key group; nothing where nobody counts."""
        counted: dict[str, list[int]] = {}
        for router in self.routers:
            if router.counts is not None:  # an operator may have two inputs from here
                before = counted.get(router.consumer, [0] * len(router.counts))
                counted[router.consumer] = [a + b for a, b in zip(before, router.counts, strict=True)]
        return {"key_groups": counted} if counted else {}
