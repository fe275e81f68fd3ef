"""map_async: many calls in flight, results in input order or as they complete (rules F31 to F34)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.policies import Retry
from sage_actor.dataflow.watermarks import MIN_WATERMARK
from sage_actor.errors import OperatorError
from sage_actor.operators.call_state import CALL, AsyncContext, CallAccess, CallWrites
from sage_actor.operators.stages import Emit, Stage, as_list, cancelled_from_outside
from sage_actor.state.store import DELETED, SLICE, Entries

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting
    from sage_actor.state.operator_state import OperatorState

__all__ = ["AsyncStage"]


class Call:
    """One record's call: in flight, or complete and not yet emitted."""

    __slots__ = ("error", "key", "position", "released", "result", "segment", "tag", "task", "timestamp", "value", "watermark", "writes")

    def __init__(self, value: Any, key: Any, tag: Any, timestamp: Any, watermark: Any, position: int) -> None:
        self.value = value
        self.key = key
        self.tag = tag
        self.timestamp = timestamp
        self.watermark = watermark
        self.position = position
        self.result: Any = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
        self.segment: Segment
        self.writes: CallWrites | None = None  # of a function with state: what becomes real when the result is handed on
        self.released: asyncio.Event | None = None  # ... which the next call of the key waits for


class Segment:
    """The calls between two watermarks. Their results stay between the two, whatever their order (F32)."""

    __slots__ = ("calls", "done", "watermark")

    def __init__(self) -> None:
        self.calls: OrderedDict[Call, None] = OrderedDict()  # not emitted yet, in input order
        self.done: deque[Call] = deque()  # of these, where order is free: complete, in order of completion
        self.watermark: int | None = None  # what follows, once it has come


class AsyncStage(Stage):
    """Always the first stage of its chain: its calls complete while the task waits for input.

    Capacity counts calls in flight and completed but unemitted ones together. Only the task itself emits; a completed
    call just wakes it. Plain functions run on threads.
    """

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        options = operators[0].options
        self.capacity: int = options["concurrency"]
        self.ordered: bool = options["ordered"]
        self.timeout: float | None = options["timeout"]
        self.segments: deque[Segment] = deque((Segment(),))
        self.pending = 0
        self.passed = MIN_WATERMARK
        self.keyed = any(edge.partition.kind == "hash" for edge in operators[0].inputs)
        self.state: OperatorState | None = None
        self.access: CallAccess | None = None
        self.stateful = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.last_of_key: dict[Any, Call] = {}
        self.room = asyncio.Event()
        self.has_columns = (False, False)

    async def open(self) -> None:
        self.replica = self.create_replica(self.operators[0])
        if self.replica.is_async:
            self.invoke: Callable[[Any], Awaitable[Any]] = self.replica.call
        else:
            self.invoke = OnThreads(self.replica.call, self.capacity)
        if self.keyed and self.replica.is_async:
            self.state = await self.setting.open_state(self.operators[0])
            self.access = CallAccess(self.state)
        await self.open_replica(0, self.replica)
        self.stateful = self.access is not None and self.access.is_used
        if self.setting.checkpointing:
            await self._restore()

    def context(self, operator: Operator) -> FunctionContext:
        context = super().context(operator)
        return context if self.access is None else AsyncContext(context, self.access)

    async def _restore(self) -> None:
        """Calls that were in flight at the checkpoint are made again, first, in their order (F33)."""
        self.state = await self.setting.open_state(self.operators[0])
        self.saved = SavedCalls()
        if self.keyed:
            self.state.attach("calls", self.saved, key=lambda entry: entry[0])
            stored = self.saved.in_order()
        else:
            stored = list(self.state.list("calls", mode="split").items)
        for value, key, timestamp, watermark, position in stored:
            self.has_columns = (False, timestamp is not None)
            if watermark is not None:
                watermark = MIN_WATERMARK  # what was certain then, over other channels, is not certain again (F19)
            self._invoke(Call(value, key, None, timestamp, watermark, position))

    async def prepare(self, checkpoint: int) -> None:
        calls = [call for segment in self.segments for call in segment.calls]
        stored = [(call.value, call.key, call.timestamp, call.watermark, call.position) for call in calls]
        assert self.state is not None
        if self.keyed:
            self.saved.replace(stored)
        else:
            self.state.list("calls", mode="split").items = stored

    async def process(self, batch: Batch, emit: Emit) -> None:
        values = as_list(batch.values)
        keys, tags, stamps, watermarks = batch.keys, batch.tags, batch.timestamps, batch.watermarks
        self.has_columns = (tags is not None, stamps is not None)
        self.counters[0].records_in += len(values)
        for i, value in enumerate(values):
            while self.pending >= self.capacity:
                await self.ready(emit)
                if self.pending >= self.capacity:
                    self.room.clear()  # before the flush: a call may complete during it
                    await self.setting.flush()  # results must not wait here for the calls behind them
                    await self.room.wait()
            call = Call(
                value,
                None if keys is None else keys[i],
                None if tags is None else tags[i],
                None if stamps is None else stamps[i],
                None if watermarks is None else watermarks[i],
                -1 if batch.position < 0 else batch.position + i,
            )
            self._invoke(call)
        await self.ready(emit)

    def _invoke(self, call: Call) -> None:
        """Begin a call; those of one key one after the other."""
        self.pending += 1
        call.segment = self.segments[-1]
        call.segment.calls[call] = None
        before = None
        if call.key is not None:
            before = self.last_of_key.get(call.key)
            self.last_of_key[call.key] = call
        if self.stateful:
            call.writes = CallWrites(call.key)
            call.released = asyncio.Event()
        call.task = asyncio.get_running_loop().create_task(self._run(call, before))
        self.tasks.add(call.task)
        call.task.add_done_callback(self.tasks.discard)

    async def advance(self, watermark: int, emit: Emit) -> int:
        """A watermark waits for the calls before it."""
        last = self.segments[-1]
        if not self.pending:
            self.passed = watermark
        elif last.calls:
            last.watermark = watermark
            self.segments.append(Segment())
        else:
            self.segments[-2].watermark = watermark
        return self.passed

    async def _run(self, call: Call, before: Call | None) -> None:
        if before is not None:
            if before.released is not None:
                await before.released.wait()
            elif before.task is not None:
                await asyncio.wait((before.task,))
        if call.writes is not None:
            CALL.set(call.writes)
        tries = 0
        while True:
            try:
                if self.timeout is None:
                    call.result = await self.invoke(call.value)
                else:
                    async with asyncio.timeout(self.timeout):
                        call.result = await self.invoke(call.value)
                call.error = None
                break
            except asyncio.CancelledError as error:
                if cancelled_from_outside(error):
                    raise
                call.error = error
            except Exception as error:  # noqa: BLE001 - the user's function; its policy decides when the result is emitted
                call.error = error
                if isinstance(error, TimeoutError) and not str(error) and self.timeout is not None:
                    call.error = TimeoutError(f"no result within {self.timeout:g} s")
            tries += 1
            policy = self.operators[0].on_error
            pause = policy.pause(tries, self.setting.random) if isinstance(policy, Retry) else None
            if pause is None:
                break
            self.counters[0].errors += 1
            self.counters[0].retried += 1
            await self.setting.clock.sleep(pause)
        if not self.stateful:
            self._forget(call)
        call.task = None
        if not self.ordered:
            call.segment.done.append(call)
        if call.segment is self.segments[0] and (not self.ordered or next(iter(call.segment.calls)) is call):
            self._notify()

    def _forget(self, call: Call) -> None:
        if self.last_of_key.get(call.key) is call:
            del self.last_of_key[call.key]

    def _hand_on(self, call: Call, *, applies: bool) -> None:
        """The call leaves the operator: what it has written becomes real, and the next one of its key may begin (F33a)."""
        if call.writes is None or call.released is None:
            return
        if applies:
            call.writes.apply()
        self._forget(call)
        call.released.set()

    def _notify(self) -> None:
        self.room.set()
        self.setting.wake()

    async def ready(self, emit: Emit) -> None:
        """Emit what is complete, as far as the order allows."""
        while True:
            segment = self.segments[0]
            finished = self._finished(segment)
            if not finished:
                if segment.calls or segment.watermark is None:
                    return
                self.segments.popleft()
                self.passed = segment.watermark
                await self.setting.advance_behind(self, segment.watermark)
                continue
            self.pending -= len(finished)
            self.room.set()
            good: list[Call] = []
            failure: OperatorError | None = None
            for call in finished:
                try:
                    applies = call.error is None or not self._refuse(call)
                    if applies:
                        good.append(call)
                    self._hand_on(call, applies=applies)
                except OperatorError as error:
                    failure = error  # what came before it goes on first
                    break
            if good:
                batch = Batch([call.result for call in good])
                if self.has_columns[0]:
                    batch.tags = [call.tag for call in good]
                if self.has_columns[1]:
                    batch.timestamps = [call.timestamp for call in good]
                    batch.watermarks = [call.watermark if self.ordered else self.passed for call in good]
                if self.ordered and len(good) == len(finished):
                    batch.position = good[0].position
                self.counters[0].records_out += len(good)
                await emit(batch)
            if failure is not None:
                raise failure
            self.faults.dropped.clear()
            await self.faults.flush()

    def _finished(self, segment: Segment) -> list[Call]:
        """Calls of a segment that may be emitted now; they leave it."""
        most = self.setting.settings.batch_records
        finished: list[Call] = []
        if self.ordered:
            for call in segment.calls:
                if call.task is not None or len(finished) >= most:
                    break
                finished.append(call)
        else:
            while segment.done and len(finished) < most:
                finished.append(segment.done.popleft())
        for call in finished:
            del segment.calls[call]
        return finished

    def _refuse(self, call: Call) -> bool:
        assert call.error is not None
        faults = self.faults
        faults.base = call.position
        faults.keys = None if call.key is None else [call.key]
        faults.tags = [call.tag] if self.has_columns[0] else None
        policy = self.operators[0].on_error
        tries = policy.attempts if isinstance(policy, Retry) else 1
        faults.settle(0, call.error, 0, call.value, tries)
        return True

    async def end(self, emit: Emit) -> None:
        while self.pending or len(self.segments) > 1:
            await self.ready(emit)
            if self.pending:
                self.room.clear()
                await self.setting.flush()
                await self.room.wait()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        await super().close()


class SavedCalls:
    """The calls in flight of a keyed operator, saved by key so that they follow it to another task."""

    def __init__(self) -> None:
        self.entries: dict[tuple[Any, int], Any] = {}
        self.known: set[tuple[Any, int]] = set()

    def replace(self, calls: list[Any]) -> None:
        """These are in flight now."""
        self.entries = {(call[1], number): call for number, call in enumerate(calls)}

    def in_order(self) -> list[Any]:
        """What was loaded; calls of one key in their order."""
        return [call for _, call in sorted(self.entries.items(), key=lambda entry: entry[0][1])]

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        gone = () if full else self.known - self.entries.keys()
        content: Entries = [(key, DELETED) for key in gone] + list(self.entries.items())
        self.known = set(self.entries)
        return iter([content[start : start + SLICE] for start in range(0, len(content), SLICE)])

    def load(self, entries: Entries) -> None:
        for key, call in entries:
            if call is DELETED:
                self.entries.pop(key, None)
            else:
                self.entries[key] = call


class OnThreads:
    """Runs a plain function on up to `limit` threads."""

    def __init__(self, function: Callable[[Any], Any], limit: int) -> None:
        self.function = function
        self.limit = limit
        self.limiter: Any = None

    async def __call__(self, value: Any) -> Any:
        import anyio
        import anyio.to_thread

        if self.limiter is None:
            self.limiter = anyio.CapacityLimiter(self.limit)
        return await anyio.to_thread.run_sync(self.function, value, limiter=self.limiter, abandon_on_cancel=True)
