"""map_async: many calls in flight, results in input order or as they complete (rules F31 to F34)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.policies import Retry
from sage_actor.errors import OperatorError
from sage_actor.runtime.stages import Emit, Stage, as_list, cancelled_from_outside

if TYPE_CHECKING:
    from sage_actor.runtime.setting import TaskSetting

__all__ = ["AsyncStage"]


class Call:
    """One record's call: in flight, or complete and not yet emitted."""

    __slots__ = ("error", "key", "position", "result", "tag", "task", "timestamp", "value")

    def __init__(self, value: Any, key: Any, tag: Any, timestamp: Any, position: int) -> None:
        self.value = value
        self.key = key
        self.tag = tag
        self.timestamp = timestamp
        self.position = position
        self.result: Any = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None


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
        self.calls: deque[Call] = deque()
        self.done: deque[Call] = deque()
        self.pending = 0
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
        await self.open_replica(0, self.replica)

    async def process(self, batch: Batch, emit: Emit) -> None:
        values = as_list(batch.values)
        keys, tags, stamps = batch.keys, batch.tags, batch.timestamps
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
                -1 if batch.position < 0 else batch.position + i,
            )
            self.pending += 1
            if self.ordered:
                self.calls.append(call)
            before = None
            if keys is not None:
                before = self.last_of_key.get(call.key)
                self.last_of_key[call.key] = call
            call.task = asyncio.get_running_loop().create_task(self._run(call, None if before is None else before.task))
            self.tasks.add(call.task)
            call.task.add_done_callback(self.tasks.discard)
        await self.ready(emit)

    async def _run(self, call: Call, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait((before,))
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
        if self.last_of_key.get(call.key) is call:
            del self.last_of_key[call.key]
        call.task = None
        if not self.ordered:
            self.done.append(call)
            self._notify()
        elif self.calls and self.calls[0] is call:
            self._notify()

    def _notify(self) -> None:
        self.room.set()
        self.setting.wake()

    async def ready(self, emit: Emit) -> None:
        """Emit what is complete, as far as the order allows."""
        queue = self.calls if self.ordered else self.done
        while queue:
            finished: list[Call] = []
            while queue and len(finished) < self.setting.settings.batch_records:
                if self.ordered and queue[0].task is not None:
                    break
                finished.append(queue.popleft())
            if not finished:
                break
            self.pending -= len(finished)
            self.room.set()
            good: list[Call] = []
            failure: OperatorError | None = None
            for call in finished:
                try:
                    if call.error is None or not self._refuse(call):
                        good.append(call)
                except OperatorError as error:
                    failure = error  # what came before it goes on first
                    break
            if good:
                batch = Batch([call.result for call in good])
                if self.has_columns[0]:
                    batch.tags = [call.tag for call in good]
                if self.has_columns[1]:
                    batch.timestamps = [call.timestamp for call in good]
                if self.ordered and len(good) == len(finished):
                    batch.position = good[0].position
                self.counters[0].records_out += len(good)
                await emit(batch)
            if failure is not None:
                raise failure
            self.faults.dropped.clear()
            await self.faults.flush()

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
        while self.pending:
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
