"""The life of a task that reads from outside: read, run the chain, take snapshots between two reads."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.source import NOT_READY, NotReady, Source
from sage_actor.dataflow.watermarks import MAX_WATERMARK
from sage_actor.errors import OperatorError
from sage_actor.operators.row_stage import RowStage
from sage_actor.operators.stages import cancelled_from_outside
from sage_actor.runtime.io import AsyncIterableSource, IterableSource, SequenceSource, make_source
from sage_actor.state.operator_state import OperatorState
from sage_actor.telemetry.counters import OperatorCounters

if TYPE_CHECKING:
    from sage_actor.dataflow.graph import Operator
    from sage_actor.runtime.task import Task

__all__ = ["SourceLoop"]


class SourceLoop:
    """Reads until the source ends or the job stops.

    A barrier is handled between two reads and never touches a read that is under way (F2, F2a): the position saved is the one
    behind the last batch that went through the chain.
    """

    def __init__(self, task: Task, operator: Operator) -> None:
        self.task = task
        self.operator = operator
        self.counters = OperatorCounters(operator.name)
        self.source: Source[Any] | None = None
        self.state: OperatorState | None = None
        self.taken = 0
        self.read: asyncio.Future[Any] | None = None
        self.draining = False
        self.unreported = 0

    async def open(self) -> None:
        """Make the source and bring it to where it goes on.

        Raises:
            OperatorError: it cannot be opened, or cannot go on from there.
        """
        task = self.task
        try:
            self.source = make_source(self.operator.options)
            await self.source.open(task.setting.context(self.operator.name))
            if task.mode:
                self.state = await task.setting.open_state(self.operator)
                if task.snapshots.knows(self.operator):
                    taken = self.state.list("taken", mode="union").items
                    self.taken = max(taken, default=0)
                    await self.source.assign(list(self.state.list("splits", mode="split").items))
        except OperatorError:
            raise
        except Exception as error:
            raise self.error(error) from error

    @property
    def has_read(self) -> bool:
        """Whether records have been read that the chain has not seen yet."""
        return self.read is not None and self.read.done()

    def prepare(self) -> None:
        """Put where the source stands into its state."""
        if self.state is not None and self.source is not None:
            try:
                self.state.list("splits", mode="split").items = list(self.source.splits())
            except Exception as error:
                raise self.error(error) from error
            self.state.list("taken", mode="union").items = [self.taken]

    async def run(self) -> bool:
        """Read until the input is complete or the job stops; then True."""
        task, source = self.task, self.source
        assert source is not None
        counters = task.counters
        clock = time.perf_counter_ns
        limit, most = min(64, task.settings.batch_records), task.settings.batch_records
        fresh = isinstance(source, SequenceSource | IterableSource | AsyncIterableSource)
        takes_ranges = bool(task.stages) and isinstance(task.stages[0], RowStage)
        flushed = clock()
        while True:
            if task.attention:
                await task.attend()
            while task.suspended:  # a savepoint that ends the job was taken: nothing behind it may be read
                await task.wait_quietly()
                task.gate.drain()
                await task.attend()
            if task.stopping and not self.draining:
                self.draining = source.drain()
                if not self.draining and not await self._has_read_at_last():
                    return True
            begun = clock()
            try:
                got = source.read_nowait(limit) if self.read is None else NOT_READY
                if isinstance(got, NotReady):
                    await task.flush()
                    got = await self._wait_for_read(source, limit)
                    begun = flushed = clock()
                    task.turns.begun = begun / 1e9
                    if isinstance(got, NotReady):
                        continue
            except OperatorError:
                raise
            except (Exception, asyncio.CancelledError) as error:
                if cancelled_from_outside(error):
                    raise
                self.counters.errors += 1
                raise self.error(error) from error
            if got is None:
                return True
            batch = self._batch(got, fresh, takes_ranges)
            number = len(batch)
            self._count(number)
            blocked = task.blocked()
            task.silent = False
            await task.chain.first(batch)
            now = clock()
            waited = task.blocked() - blocked
            spent = now - begun - waited
            counters.busy_ns += spent
            counters.backpressured_ns += waited
            if number >= limit and spent < 500_000:
                limit = min(limit * 4, most)
            elif spent > 4_000_000 and limit > 1:
                limit = max(1, limit // 2)
            if now - flushed > 2_000_000:
                await task.flush()
                flushed = now
                counters.latency.record(spent)
            await task.turns.breathe()

    def _batch(self, got: Any, fresh: bool, takes_ranges: bool) -> Batch:
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
        self.counters.records_in += number
        self.counters.records_out += number
        self.task.counters.batches += 1
        return batch

    def _count(self, number: int) -> None:
        """For checkpoints by count: the coordinator adds up what all sources have read."""
        every = self.task.settings.checkpoint_every
        if every and self.task.mode:
            self.unreported += number
            if self.unreported >= max(1, every // (4 * self.task.spec.parallelism)):
                self.unreported = 0
                self.task.report("read", (self.task.spec.id, self.taken))

    async def _wait_for_read(self, source: Source[Any], limit: int) -> Any:
        """One read is kept across turns: a control message never cancels it, only the end of the task does (F2a)."""
        task = self.task
        read = self.read
        if read is None:
            read = self.read = asyncio.ensure_future(source.read(limit))
            read.add_done_callback(lambda _: task.wake())
        begun = time.perf_counter_ns()
        while not read.done() and not task.suspended and (self.draining or not task.stopping):
            await task.wait_quietly()
            task.gate.drain()
            await task.attend()
            if task.routers:
                await task.flush()
        task.counters.idle_ns += time.perf_counter_ns() - begun
        if not read.done() or task.suspended:
            return NotReady()
        self.read = None
        return read.result()

    async def _has_read_at_last(self) -> bool:
        """Nothing more is wanted: call off the read under way. It may have brought records all the same, and these count."""
        read = self.read
        if read is not None:
            read.cancel()
            await asyncio.wait((read,))
            if not read.cancelled() and read.exception() is None:
                return True
            self.read = None
        return False

    async def finish(self) -> None:
        """Input has ended: time has no bound any more (F19)."""
        await self.task.chain.advance(MAX_WATERMARK)

    async def close(self) -> None:
        """End the read that is under way, and the source."""
        if self.read is not None:
            self.read.cancel()
            await asyncio.wait((self.read,))
            if not self.read.cancelled():
                self.read.exception()  # what it may have failed with meanwhile is of no interest any more
            self.read = None
        if self.source is not None:
            await self.source.close()

    def error(self, error: BaseException) -> BaseException:
        """An exception of the source with its address."""
        if isinstance(error, OperatorError):
            return error
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        address = self.source.address(self.taken) if self.source is not None else ""
        if address and address not in text:
            text = f"{text} ({address})"
        wrapped = OperatorError(self.task.job, self.operator.name, text, position=self.taken, task=self.task.spec.index)
        wrapped.__cause__ = error
        return wrapped
