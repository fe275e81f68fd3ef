"""``async for`` over a stream: a job whose end is the caller's loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from sage_actor._core.batch import Batch
from sage_actor._core.batch_queue import BatchQueue
from sage_actor.errors import MailboxClosed
from sage_actor.operators.stages import as_list
from sage_actor.runtime.job import Job
from sage_actor.stream.datastream import DataStream

if TYPE_CHECKING:
    from sage_actor.stream.environment import Environment

__all__ = ["StreamIterator"]

T = TypeVar("T")

AHEAD = 4
"""Batches that may wait for the caller before the flow is held back."""


class Feed:
    """The job's side of an iteration: what graph and job refer to, so that they keep no reference to the iterator itself."""

    def __init__(self, name: str) -> None:
        self.queue = BatchQueue(AHEAD, name=f"iteration over {name}")

    async def deliver(self, batch: Batch) -> None:
        """Hand a batch to the loop, waiting while it is behind; dropped once the loop has been left."""
        try:
            await self.queue.put(batch)
        except MailboxClosed:
            return

    def ended(self, job: Job) -> None:
        """The job has ended: what is queued can still be read."""
        self.queue.close()


class StreamIterator(Generic[T]):
    """Starts its job at the first ``__anext__``; cancels it when dropped or closed before the end.

    Records come as soon as they arrive (after a restart, those behind the last checkpoint again), or, if `committed`, with the
    checkpoint that makes them final, each exactly once. When the job fails or is cancelled, its error is raised after the records
    before it.
    """

    def __init__(self, env: Environment, stream: DataStream[T], *, committed: bool = False) -> None:
        self._env = env
        self._stream = stream
        self._feed = Feed(env.name)
        self._ready: deque[T] = deque()
        self._job: Job | None = None
        self._committed = committed

    def __aiter__(self) -> StreamIterator[T]:
        return self

    def _start(self) -> Job:
        form = "committed" if self._committed else "deliver"
        end = self._stream._end(None, "iterate-out", None, None, None, form=form, deliver=self._feed.deliver, in_owner=True, handed_on=[0])
        job = self._env._launch([end.operator.id])
        job.on_end(self._feed.ended)
        return job

    async def __anext__(self) -> T:
        if self._ready:
            return self._ready.popleft()
        if self._job is None:
            self._job = self._start()
        batches = await self._feed.queue.get_batch(1)
        if not batches:
            self._job.raise_error()
            raise StopAsyncIteration
        self._ready.extend(as_list(batches[0].values))
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Cancel the job, if it still runs. Idempotent."""
        self._cancel()

    def _cancel(self) -> None:
        if self._job is not None and not self._job.done:
            self._job.cancel()

    def __del__(self) -> None:
        self._cancel()
