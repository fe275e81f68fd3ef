"""Streaming answers: each request runs its steps by itself and hands parts to its reader, at the reader's pace."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from sage_actor._core.batch import Batch
from sage_actor.dataflow.functions import Replica
from sage_actor.dataflow.graph import Operator
from sage_actor.errors import MailboxClosed, OperatorError
from sage_actor.operators.stages import Emit, Stage, cancelled_from_outside, short
from sage_actor.telemetry.counters import OperatorCounters

if TYPE_CHECKING:
    from sage_actor.operators.setting import TaskSetting

__all__ = ["PartsStage"]


class PartsStage(Stage):
    """Holds the steps of a streaming service. A request's failure or cancellation touches no other request."""

    def __init__(self, operators: list[Operator], setting: TaskSetting) -> None:
        super().__init__(operators, setting)
        self.steps: list[Operator] = operators[0].options["steps"]
        self.pending: dict[int, Any] = operators[0].options["pending"]
        self.step_counters = [OperatorCounters(step.name) for step in self.steps]
        self.counters = [*self.step_counters, *self.counters]
        self.operators = [*self.steps, *operators]
        self.tasks: set[asyncio.Task[None]] = set()
        self.contexts: list[Any] = []

    async def open(self) -> None:
        for index, step in enumerate(self.steps):
            await self.open_replica(index, self.create_replica(step))
            self.contexts.append(self.context(step))

    async def process(self, batch: Batch, emit: Emit) -> None:
        tags = batch.tags
        assert tags is not None
        for number, value in zip(tags, batch.values, strict=True):
            request = self.pending.get(number)
            if request is not None:
                self.counters[-1].records_in += 1
                request.task = asyncio.get_running_loop().create_task(self._answer(request, value))
                self.tasks.add(request.task)
                request.task.add_done_callback(self.tasks.discard)

    async def _answer(self, request: Any, value: Any) -> None:
        try:
            await self._feed(request, 0, value)
            request.complete = True
        except MailboxClosed:
            return
        except OperatorError as error:
            request.error = error
        # When this task is cancelled, the reader has gone, or the job ends: then the service tells the reader why.
        request.parts.close()

    async def _feed(self, request: Any, index: int, value: Any) -> None:
        """One record through the steps from `index` on."""
        if index == len(self.steps):
            self.counters[-1].records_out += 1
            await request.parts.put(value)
            return
        step, replica, counters = self.steps[index], self.replicas[index], self.step_counters[index]
        counters.records_in += 1
        try:
            result = self._call(index, replica, value)
            if inspect.isawaitable(result):
                result = await result
        except (Exception, asyncio.CancelledError) as error:
            if cancelled_from_outside(error):
                raise
            raise self._wrap(step, counters, error, value) from error
        if step.kind in ("map", "map_async"):
            counters.records_out += 1
            await self._feed(request, index + 1, result)
        elif step.kind == "filter":
            if result:
                counters.records_out += 1
                await self._feed(request, index + 1, value)
        elif result is not None:
            await self._feed_all(request, index, result, value)

    def _call(self, index: int, replica: Replica, value: Any) -> Any:
        return replica.call(value, self.contexts[index]) if replica.takes_context else replica.call(value)

    async def _feed_all(self, request: Any, index: int, results: Any, value: Any) -> None:
        step, counters = self.steps[index], self.step_counters[index]
        many: Any = results
        iterator: Any = aiter(many) if isinstance(results, AsyncIterable) else iter(many)
        try:
            while True:
                try:
                    part = next(iterator) if not isinstance(results, AsyncIterable) else await anext(iterator)
                except (StopIteration, StopAsyncIteration):
                    return
                except (Exception, asyncio.CancelledError) as error:
                    if cancelled_from_outside(error):
                        raise
                    raise self._wrap(step, counters, error, value) from error
                counters.records_out += 1
                await self._feed(request, index + 1, part)
                await asyncio.sleep(0)
        finally:
            close = getattr(iterator, "aclose", None) or getattr(iterator, "close", None)
            if close is not None:
                closed = close()
                if inspect.isawaitable(closed):
                    await closed

    def _wrap(self, step: Operator, counters: OperatorCounters, error: BaseException, value: Any) -> OperatorError:
        if isinstance(error, OperatorError):
            return error
        counters.errors += 1
        return OperatorError(self.setting.job, step.name, f"{type(error).__name__}: {error}", value=short(value))

    async def end(self, emit: Emit) -> None:
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        await super().close()
