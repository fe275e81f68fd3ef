"""Ends of a flow that take whole batches, or live in the submitting process."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.policies import Retry
from sage_actor.dataflow.sink import Sink, SinkRecovery
from sage_actor.errors import CommitFailed, Fenced, GraphError
from sage_actor.operators.stages import Emit, Stage, as_list, cancelled_from_outside
from sage_actor.state.store import SLICE, Entries

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting
    from sage_actor.state.operator_state import OperatorState

__all__ = ["CollectStage", "DeliverStage", "EachStage", "PrintSink", "SinkStage", "make_sink"]


class SinkStage(Stage):
    """Hands batches to a `Sink`. A failed write is tried again as a whole under ``Retry``, else it fails the job."""

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        self.opened = False
        self.policy = operators[0].on_error
        self.pending: deque[tuple[int, Any]] = deque()
        self.state: OperatorState | None = None

    async def open(self) -> None:
        setting, operator = self.setting, self.operators[0]
        try:
            self.sink = make_sink(operator, self)
            self.opened = True
            context = self.context(operator)
            await self.sink.open(context)
            if setting.checkpointing:
                self.state = await setting.open_state(operator)
                # Every task sees what all of them had prepared, and commits its share of it (F25).
                stored = sorted(self.state.list("prepared", mode="union").items, key=lambda entry: entry[0])
                # A former task's go to one task, in their order.
                own = [(number, prepared) for number, task, prepared in stored if task % setting.parallelism == setting.index]
                others = [(number, prepared) for number, task, prepared in stored if task % setting.parallelism != setting.index]
                await self.sink.recover(own, SinkRecovery(context, setting.attempt, setting.restored_from, others))
                self.state.list("prepared", mode="union").items = []
        except (GraphError, CommitFailed, Fenced):
            raise
        except (Exception, asyncio.CancelledError) as error:
            if cancelled_from_outside(error):
                raise
            raise self.faults.error(0, error, -1, None, known=False) from error

    async def process(self, batch: Batch, emit: Emit) -> None:
        values = batch.values
        counters = self.counters[0]
        counters.records_in += len(values)
        tries = 0
        while True:
            try:
                await self.sink.write(values)
                break
            except Fenced:
                raise
            except (Exception, asyncio.CancelledError) as error:
                if cancelled_from_outside(error):
                    raise
                counters.errors += 1
                tries += 1
                pause = self.policy.pause(tries, self.setting.random) if isinstance(self.policy, Retry) else None
                if pause is None:
                    self.faults.begin(batch, 0, len(values))
                    known = len(values) == 1
                    raise self.faults.error(0, error, 0 if known else -1, values[0] if known else None, known=known) from error
                counters.retried += 1
                await self.pause(pause)
        counters.records_out += len(values)

    async def prepare(self, checkpoint: int) -> None:
        """Pre-commit, and save what the commit will need (F23)."""
        try:
            prepared = await self.sink.prepare(checkpoint)
        except (CommitFailed, Fenced):
            raise
        except Exception as error:
            raise self.faults.error(0, error, -1, None, known=False) from error
        if prepared is not None:
            self.pending.append((checkpoint, prepared))
        assert self.state is not None
        self.state.list("prepared", mode="union").items = [(number, self.setting.index, kept) for number, kept in self.pending]

    async def completed(self, checkpoint: int) -> None:
        """Commit everything up to the checkpoint, in order, and nothing behind it (F24)."""
        while self.pending and self.pending[0][0] <= checkpoint:
            number, prepared = self.pending[0]
            try:
                await self.sink.commit(number, prepared)
            except (CommitFailed, Fenced):
                raise
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                raise CommitFailed(self.operators[0].name, f"checkpoint {number}", text) from error
            self.pending.popleft()

    async def end(self, emit: Emit) -> None:
        if self.setting.checkpointing:
            return  # the task's last snapshot prepares, and the last checkpoint commits
        try:
            await self.sink.flush()
        except Exception as error:
            raise self.faults.error(0, error, -1, None, known=False) from error

    async def close(self) -> None:
        if self.opened:
            self.opened = False
            try:
                await self.sink.close()
            except Exception as error:
                raise self.faults.error(0, error, -1, None, known=False) from error
        await super().close()


class CollectStage(Stage):
    """Appends to the results of ``collect()``, which are part of the snapshot: after a restart they go on from there (F44)."""

    async def open(self) -> None:
        self.results: list[Any] = self.operators[0].options["results"].begin()
        if self.setting.checkpointing:
            state = await self.setting.open_state(self.operators[0])
            state.attach("results", ResultsTable(self.results), key=lambda _: 0)

    async def process(self, batch: Batch, emit: Emit) -> None:
        self.counters[0].records_in += len(batch)
        self.counters[0].records_out += len(batch)
        self.results.extend(as_list(batch.values))


class ResultsTable:
    """A list that only grows, as entries (index, record). Records already saved are not saved again."""

    def __init__(self, records: list[Any]) -> None:
        self.records = records
        self.saved = 0

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        begin, end = 0 if full else self.saved, len(self.records)
        self.saved = end
        return self._slices(begin, end)

    def _slices(self, begin: int, end: int) -> Iterator[Entries]:
        for start in range(begin, end, SLICE):
            stop = min(end, start + SLICE)
            yield list(zip(range(start, stop), self.records[start:stop], strict=True))

    def load(self, entries: Entries) -> None:
        for index, record in entries:
            if index == len(self.records):
                self.records.append(record)


class DeliverStage(Stage):
    """Hands whole batches, columns included, to a callable of the submitting process (async iteration, served requests)."""

    async def process(self, batch: Batch, emit: Emit) -> None:
        self.counters[0].records_in += len(batch)
        self.counters[0].records_out += len(batch)
        await self.operators[0].options["deliver"](batch)

    async def end(self, emit: Emit) -> None:
        ended = self.operators[0].options.get("ended")
        if ended is not None:
            await ended()


class PrintSink(Sink[Any]):
    """One line per record on standard output, one write per batch."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    async def write(self, batch: Any) -> None:
        prefix = self.prefix
        sys.stdout.write("".join([f"{prefix}{value}\n" for value in batch]))
        sys.stdout.flush()


class EachStage(Stage):
    """Calls an async function for each record, one after the other; a failing record goes by the operator's policy."""

    async def open(self) -> None:
        await self.open_replica(0, self.create_replica(self.operators[0]))

    async def process(self, batch: Batch, emit: Emit) -> None:
        call, counters = self.replicas[0].call, self.counters[0]
        values = as_list(batch.values)
        self.faults.begin(batch, 0, len(values))
        for offset, value in enumerate(values):
            counters.records_in += 1
            tries = 0
            while True:
                try:
                    await call(value)
                    counters.records_out += 1
                    break
                except (Exception, asyncio.CancelledError) as error:
                    if cancelled_from_outside(error):
                        raise
                    tries += 1
                    pause = self.faults.settle(0, error, offset, value, tries)
                if pause is None:
                    break
                await self.pause(pause)
        self.faults.dropped.clear()
        await self.faults.flush()


def make_sink(operator: Operator, stage: Stage) -> Sink[Any]:
    """This task's own sink: constructed from a class, copied from an instance at parallelism above 1."""
    options = operator.options
    if options["form"] == "print":
        return PrintSink(options.get("prefix", ""))
    given: Any = options["sink"]
    made: Sink[Any]
    if isinstance(given, type):
        made = given(options["config"], **options["keywords"]) if options["config"] is not None else given(**options["keywords"])
        return made
    made = given
    if stage.setting.parallelism == 1:
        return made
    try:
        return copy.deepcopy(made)
    except (TypeError, ValueError, RecursionError, AttributeError) as error:
        raise GraphError(
            f"operator {operator.name!r}: the sink instance cannot be copied for {stage.setting.parallelism} tasks ({error}); "
            "pass its class with its configuration instead"
        ) from error
