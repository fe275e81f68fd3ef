"""One task: an actor whose mailbox is a gate. It drains what waits, runs its chain, and hands results on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sage_actor._core.batch import END, Batch, Marker
from sage_actor._core.batch_queue import Gate
from sage_actor.dataflow.graph import Port
from sage_actor.dataflow.plan import TaskSpec
from sage_actor.dataflow.settings import JobSettings
from sage_actor.dataflow.source import NotReady, Source
from sage_actor.errors import OperatorError
from sage_actor.ports import Clock, system_clock, system_random
from sage_actor.runtime.async_stage import AsyncStage
from sage_actor.runtime.channels import Channel, RemoteChannel
from sage_actor.runtime.io import AsyncIterableSource, IterableSource, SequenceSource, make_source
from sage_actor.runtime.portable import portable_letters
from sage_actor.runtime.routing import Router, batch_copy
from sage_actor.runtime.row_stage import RowStage
from sage_actor.runtime.setting import TaskSetting
from sage_actor.runtime.stage_of import build_stages
from sage_actor.runtime.stages import Emit, Turns, cancelled_from_outside
from sage_actor.telemetry.counters import OperatorCounters, TaskCounters

__all__ = ["Task"]

STOP = "stop"
WAKE = "wake"
MERGE_BELOW = 512
"""Waiting batches smaller than this are merged before they enter the chain."""


class Task:
    """Built on its worker from a `TaskSpec`; `run` is its whole life. Everything happens on one event loop."""

    def __init__(self, spec: TaskSpec, *, job: str, settings: JobSettings, clock: Clock = system_clock) -> None:
        self.spec = spec
        self.job = job
        self.settings = settings
        self.gate = Gate(len(spec.inputs), capacity=settings.buffer_records, capacity_bytes=settings.buffer_bytes, name=spec.name)
        self.stopping = False
        self.draining = False
        self.woken = False
        self.setting = TaskSetting(
            job,
            spec.index,
            spec.parallelism,
            spec.worker,
            settings,
            settings.flat(),
            clock,
            system_random,
            self._aside,
            self._flush,
            self._wake,
        )
        operators = spec.operators
        self.source_operator = operators[0] if operators[0].kind == "source" else None
        self.source_counters = OperatorCounters(operators[0].name) if self.source_operator else None
        self.stages = build_stages(operators[1:] if self.source_operator else operators, self.setting)
        counters = [counter for stage in self.stages for counter in stage.counters]
        if self.source_counters is not None:
            counters.insert(0, self.source_counters)
        self.counters = TaskCounters(counters)
        self.routers: list[Router] = []
        self.main: list[Router] = []
        self.sides: dict[tuple[int, Port], list[Router]] = {}
        self.turns = Turns(settings.batch_records)
        self.emits: list[Emit] = []
        self.first: Emit = self._out
        self.source: Source[Any] | None = None
        self.taken = 0
        self.read: asyncio.Future[Any] | None = None

    def connect(self, open_channel: Callable[[Any], Channel]) -> None:
        """Create the routers; `open_channel` makes the sending end of a `ChannelSpec`."""
        last = self.spec.operators[-1].id
        for output in self.spec.outputs:
            router = Router(output.partition, [open_channel(c) for c in output.channels], output.groups, output.consumer, self.setting)
            self.routers.append(router)
            if output.port == "out" and output.operator == last:
                self.main.append(router)
            else:
                self.sides.setdefault((output.operator, output.port), []).append(router)
        emits: list[Emit] = [self._out]
        for stage in reversed(self.stages[1:]):
            emits.insert(0, feed_of(stage.process, emits[0]))
        self.emits = emits
        if self.stages:
            self.first = feed_of(self.stages[0].process, emits[0])

    def stop(self) -> None:
        """A source stops reading, and what is under way flows out; others just wait for their input to end."""
        if not self.stopping:
            self.stopping = True
            if not self.gate.closed:
                self.gate.put_control(STOP)

    async def run(self) -> None:
        """Open, work until the input ends, finish, close.

        Raises:
            OperatorError: a user function, source or sink failed; everything is closed before.
        """
        try:
            if self.source_operator is not None:
                await self._open_source()
            for stage in self.stages:
                await stage.open()
            self.turns.begun = time.perf_counter()
            if self.source_operator is not None:
                await self._run_source()
            else:
                await self._run_gate()
            for stage, emit in zip(self.stages, self.emits, strict=False):
                await stage.end(emit)
            for router in self.routers:
                await router.flush()
        except BaseException:
            await self._close(quietly=True)
            raise
        await self._close(quietly=False)
        for router in self.routers:
            await router.mark(Marker(END))
        self.gate.close()

    # -- the two loops ---------------------------------------------------------------------------------------------

    async def _run_gate(self) -> None:
        gate = self.gate
        counters = self.counters
        limit = self.settings.batch_records
        clock = time.perf_counter_ns
        open_channels = len(self.spec.inputs)
        asynchronous = self.stages[0] if isinstance(self.stages[0], AsyncStage) else None
        flushed = clock()
        while open_channels:
            items = gate.drain(limit)
            if not items:
                if self.routers:
                    await self._flush()
                begun = clock()
                if not await gate.wait():
                    return
                flushed = clock()
                counters.idle_ns += flushed - begun
                self.turns.begun = flushed / 1e9
                continue
            begun = clock()
            blocked = self._blocked()
            pending: Batch | None = None
            for channel, item in items:
                if channel < 0:
                    self.woken = False
                    if pending is not None:
                        await self.first(pending)
                        pending = None
                    if asynchronous is not None:
                        await asynchronous.ready(self.emits[0])
                elif item.__class__ is Batch:
                    counters.batches += 1
                    if pending is None:
                        pending = item
                    elif len(pending) >= MERGE_BELOW or not pending.extend(item):
                        await self.first(pending)
                        pending = item
                elif item.kind == END:
                    open_channels -= 1
            if pending is not None:
                await self.first(pending)
            now = clock()
            waited = self._blocked() - blocked
            counters.busy_ns += now - begun - waited
            counters.backpressured_ns += waited
            counters.latency.record(now - begun)
            if now - flushed > 2_000_000:
                await self._flush()
                flushed = now
                await self.turns.breathe()

    async def _open_source(self) -> None:
        assert self.source_operator is not None
        try:
            self.source = make_source(self.source_operator.options)
            await self.source.open(self.setting.context(self.source_operator.name))
        except Exception as error:
            raise self._source_error(error) from error

    async def _run_source(self) -> None:
        source = self.source
        assert source is not None
        assert self.source_counters is not None
        counters, own = self.counters, self.source_counters
        clock = time.perf_counter_ns
        limit, most = min(64, self.settings.batch_records), self.settings.batch_records
        fresh = isinstance(source, SequenceSource | IterableSource | AsyncIterableSource)
        flushed = clock()
        takes_ranges = bool(self.stages) and isinstance(self.stages[0], RowStage)
        while True:
            if self.stopping and not self.draining:
                self.draining = source.drain()
                if not self.draining:
                    break
            begun = clock()
            try:
                got = source.read_nowait(limit)
                if isinstance(got, NotReady):
                    await self._flush()
                    got = await self._wait_for_read(source, limit)
                    begun = clock()
                    flushed = begun
                    self.turns.begun = begun / 1e9
                    if isinstance(got, NotReady):
                        continue
            except OperatorError:
                raise
            except (Exception, asyncio.CancelledError) as error:
                if cancelled_from_outside(error):
                    raise
                own.errors += 1
                raise self._source_error(error) from error
            if got is None:
                break
            if isinstance(got, Batch):
                batch = got
            else:
                # Batches are merged in place further on; a list that a user's source keeps must stay as it is.
                # A generated loop takes a range as it is; nobody else needs to know of ranges.
                if got.__class__ is range:
                    got = got if takes_ranges else list(got)
                elif got.__class__ is list and not fresh:
                    got = list(got)
                batch = Batch(got, position=self.taken)
            number = len(batch)
            self.taken += number
            own.records_in += number
            own.records_out += number
            counters.batches += 1
            blocked = self._blocked()
            await self.first(batch)
            now = clock()
            waited = self._blocked() - blocked
            spent = now - begun - waited
            counters.busy_ns += spent
            counters.backpressured_ns += waited
            if number >= limit and spent < 500_000:
                limit = min(limit * 4, most)
            elif spent > 4_000_000 and limit > 1:
                limit = max(1, limit // 2)
            if now - flushed > 2_000_000:
                await self._flush()
                flushed = now
                counters.latency.record(spent)
            await self.turns.breathe()

    async def _wait_for_read(self, source: Source[Any], limit: int) -> Any:
        """One read is kept across turns: a control message never cancels it, only the end of the task does (F2a)."""
        read = self.read
        if read is None:
            read = self.read = asyncio.ensure_future(source.read(limit))
            read.add_done_callback(lambda _: self._wake())
        begun = time.perf_counter_ns()
        while not read.done() and (self.draining or not self.stopping):
            await self.gate.wait()
            self.woken = False
            self.gate.drain()
        self.counters.idle_ns += time.perf_counter_ns() - begun
        if not read.done():
            return NotReady()
        self.read = None
        return read.result()

    # -- ways out --------------------------------------------------------------------------------------------------

    async def _out(self, batch: Batch) -> None:
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
            remote = any(isinstance(channel, RemoteChannel) for channel in router.channels)
            values = portable_letters(batch.values) if remote else list(batch.values)
            await router.add(Batch(values, tags=None if batch.tags is None else list(batch.tags)))

    async def _flush(self) -> None:
        for router in self.routers:
            await router.flush()

    def _blocked(self) -> int:
        total = 0
        for router in self.routers:
            total += router.blocked_ns
        return total

    def _wake(self) -> None:
        if not self.woken and not self.gate.closed:
            self.woken = True
            self.gate.put_control(WAKE)

    def _source_error(self, error: BaseException) -> BaseException:
        assert self.source_operator is not None
        if isinstance(error, OperatorError):
            return error
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        address = self.source.address(self.taken) if self.source is not None else ""
        if address and address not in text:
            text = f"{text} ({address})"
        wrapped = OperatorError(self.job, self.source_operator.name, text, position=self.taken, task=self.spec.index)
        wrapped.__cause__ = error
        return wrapped

    async def _close(self, *, quietly: bool) -> None:
        first: BaseException | None = None
        if self.read is not None:
            self.read.cancel()
            await asyncio.wait((self.read,))
            self.read = None
        closers: list[Callable[[], Awaitable[None]]] = [stage.close for stage in self.stages]
        if self.source is not None:
            closers.insert(0, self.source.close)
        for close in closers:
            try:
                await close()
            except Exception as error:  # noqa: BLE001 - every part is closed; the first error is raised below
                first = first or (error if isinstance(error, OperatorError) else self._close_error(error))
        if quietly:
            self.gate.close()
        elif first is not None:
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
            **self.counters.snapshot(),
        }


def feed_of(process: Callable[[Batch, Emit], Awaitable[None]], emit: Emit) -> Emit:
    """The next stage's `process` with its own way out bound: no coroutine in between."""

    def feed(batch: Batch) -> Awaitable[None]:
        return process(batch, emit)

    return feed
