"""Request and reply through a dataflow: every request gets exactly one answer or one error."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sage_actor._core.batch import Batch
from sage_actor._core.batch_queue import BatchQueue
from sage_actor.dataflow.graph import Edge, Operator, Partition
from sage_actor.dataflow.source import NOT_READY, Source
from sage_actor.errors import GraphError, MailboxClosed, RequestError
from sage_actor.runtime.job import Job

if TYPE_CHECKING:
    from sage_actor.stream.datastream import DataStream
    from sage_actor.stream.environment import Environment

__all__ = ["RequestSource", "Service", "StreamingService", "start_service"]

Q = TypeVar("Q")
R = TypeVar("R")

ONE_TO_ONE = ("source", "map", "map_batch", "map_async", "iterate")
IN_PARTS = ("source", "map", "filter", "flat_map", "process", "map_async")


class RequestSource(Source[Any]):
    """Requests as a source: values with their tags. Never replayed, never in a snapshot."""

    bounded = False

    def __init__(self, capacity: int) -> None:
        self.queue = BatchQueue(capacity, name="requests")
        self.pending: dict[int, Any] = {}

    def read_nowait(self, limit: int) -> Any:
        return self._batch(self.queue.drain(limit)) or NOT_READY

    async def read(self, limit: int) -> Any:
        while True:
            taken = await self.queue.get_batch(limit)
            if not taken:
                return None
            batch = self._batch(taken)
            if batch is not None:
                return batch

    def _batch(self, taken: list[tuple[int, Any]]) -> Batch | None:
        """Requests that were cancelled while they waited are left out."""
        live = [request for request in taken if request[0] in self.pending]
        if not live:
            return None
        return Batch([value for _, value in live], tags=[tag for tag, _ in live])

    def drain(self) -> bool:
        self.queue.close()
        return True


class Service(Generic[Q, R]):
    """Call it with a request: ``await service(value)``. Safe to call concurrently on the environment's loop.

    Cancelling a call (or its timeout) disturbs no other; its record may still be processed, its answer is dropped.
    """

    def __init__(self, name: str, source: RequestSource) -> None:
        self.name = name
        self._source = source
        self._pending: dict[int, asyncio.Future[R]] = source.pending
        self._numbers = itertools.count()
        self._job: Job | None = None

    @property
    def job(self) -> Job:
        """The job that serves."""
        assert self._job is not None
        return self._job

    async def __call__(self, value: Q, *, timeout: float | None = None) -> R:
        """Send one request and wait for its answer.

        Raises:
            OperatorError: a step failed on this request; the user's exception is its cause.
            TimeoutError: no answer within `timeout` seconds.
            RequestError: the flow has ended, or ended before the answer.
        """
        number = next(self._numbers)
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            async with asyncio.timeout(timeout):
                if not self._source.queue.put_nowait((number, value)):
                    await self._source.queue.put((number, value))
                return await answer
        except MailboxClosed:
            raise self._ended() from self.job.error
        finally:
            self._pending.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also when the caller was cancelled at the moment it came

    def _ended(self) -> RequestError:
        return RequestError(self.name, f"the flow is {self.job.status}")

    async def _answer(self, batch: Batch) -> None:
        tags = batch.tags
        assert tags is not None
        for number, value in zip(tags, batch.values, strict=True):
            answer = self._pending.pop(number, None)
            if answer is not None and not answer.done():
                answer.set_result(value)

    async def _refuse(self, batch: Batch) -> None:
        tags = batch.tags
        assert tags is not None
        for number, error in zip(tags, batch.values, strict=True):
            answer = self._pending.pop(number, None)
            if answer is not None and not answer.done():
                answer.set_exception(error)

    def _end(self, job: Job) -> None:
        self._source.queue.close()
        pending = list(self._pending.values())
        self._pending.clear()
        for answer in pending:
            if not answer.done():
                error = self._ended()
                error.__cause__ = job.error
                answer.set_exception(error)


class StreamingService(Generic[Q, R]):
    """Call it with a request: ``async for part in service(value)``. Each request runs by itself, at the reader's pace."""

    def __init__(self, name: str, source: RequestSource) -> None:
        self.name = name
        self._source = source
        self._numbers = itertools.count()
        self._job: Job | None = None

    @property
    def job(self) -> Job:
        """The job that serves."""
        assert self._job is not None
        return self._job

    async def __call__(self, value: Q) -> AsyncIterator[R]:
        """Send one request and give the parts of its answer in order. Leaving the loop cancels this request only.

        Raises:
            OperatorError: a step failed on this request, after the parts before it.
            RequestError: the flow has ended.
        """
        number = next(self._numbers)
        request = PartsRequest(number)
        self._source.pending[number] = request
        try:
            try:
                await self._source.queue.put((number, value))
            except MailboxClosed:
                raise RequestError(self.name, f"the flow is {self.job.status}") from self.job.error
            while True:
                parts: Sequence[R] = await request.parts.get_batch(64)
                if not parts:
                    break
                for part in parts:
                    yield part
            if request.error is not None:
                raise request.error
        finally:
            self._source.pending.pop(number, None)
            request.cancel()

    def _end(self, job: Job) -> None:
        self._source.queue.close()
        for request in list(self._source.pending.values()):
            if request.error is None and not request.complete:
                request.error = RequestError(self.name, f"the flow is {job.status}")
                request.error.__cause__ = job.error
            request.parts.close()


class PartsRequest:
    """One streaming request: its parts on the way to the reader, and the task that makes them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.parts = BatchQueue(64, name=f"request {number}")
        self.task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self.complete = False

    def cancel(self) -> None:
        """The reader has gone, or has everything."""
        self.parts.close()
        if self.task is not None and not self.task.done():
            self.task.cancel()


async def start_service(
    env: Environment, stream: DataStream[Any], *, parts: bool, name: str | None
) -> Service[Any, Any] | StreamingService[Any, Any]:
    """Check the flow, add its ends, start it."""
    operators = served_path(env, stream, IN_PARTS if parts else ONE_TO_ONE)
    source = operators[0].options["source"]
    if operators[0].id in env.started:
        raise GraphError(f"serve: the requests of {operators[0].name!r} are served already, by job {env.started[operators[0].id].id}")
    graph = env.graph
    if parts:
        streaming: StreamingService[Any, Any] = StreamingService(name or env.name, source)
        end = graph.add("sink", name, default_name="serve-parts", inputs=[Edge(operators[0].id)])
        end.options = {"form": "parts", "steps": operators[1:], "pending": source.pending}
        ends = [end]
        service: Service[Any, Any] | StreamingService[Any, Any] = streaming
    else:
        plain: Service[Any, Any] = Service(name or env.name, source)
        answers = graph.add("sink", name, default_name="answers", inputs=[Edge(operators[-1].id, "out", Partition("gather"))])
        answers.options = {"form": "deliver", "deliver": plain._answer}
        refusals = graph.add(
            "sink", None, default_name="refusals", inputs=[Edge(op.id, "failed", Partition("gather")) for op in operators[1:]]
        )
        refusals.options = {"form": "deliver", "deliver": plain._refuse}
        ends = [answers, refusals] if len(operators) > 1 else [answers]
        service = plain
    for end in ends:
        end.in_owner = True
        end.served = True
    job = env._launch([end.id for end in ends])
    env.started[operators[0].id] = job
    service._job = job
    job.on_end(service._end)
    return service


def served_path(env: Environment, stream: DataStream[Any], allowed: tuple[str, ...]) -> list[Operator]:
    """The operators from the requests to the stream's end.

    Raises:
        GraphError: not one path, no requests at its head, or a step that breaks the correlation.
    """
    taps: tuple[Edge, ...] = stream._taps
    path: list[Operator] = []
    while True:
        if len(taps) != 1 or taps[0].port != "out":
            raise GraphError("serve: a served flow is one path from from_requests(); a union or a side output has no single answer")
        if taps[0].partition.kind == "broadcast":
            raise GraphError("serve: broadcast gives a request several answers; leave it out")
        operator = env.graph.operators[taps[0].source]
        if operator.kind not in allowed:
            raise GraphError(
                f"serve: operator {operator.name!r} ({operator.kind}) does not give exactly one result per request; "
                f"a served flow may use {', '.join(kind for kind in allowed if kind != 'source')}"
            )
        path.insert(0, operator)
        if operator.kind == "source":
            break
        taps = tuple(operator.inputs)
    if not isinstance(path[0].options["source"], RequestSource):
        raise GraphError(f"serve: the flow begins with {path[0].name!r}, not with env.from_requests()")
    return path
