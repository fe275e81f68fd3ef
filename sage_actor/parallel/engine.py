"""ParallelExecutionEngine: functions run in threads or processes, and no more of them wait than was allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self, TypeVar, cast

from sage_actor.actor.process_pool import ProcessPool
from sage_actor.errors import PoolError, PoolFull
from sage_actor.parallel.backpressure import BackpressureController
from sage_actor.parallel.thread_pool import ThreadPool
from sage_actor.ports import offload

__all__ = ["EngineStatistics", "ParallelExecutionEngine"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Counters of one moment. `under_way` is queued and running together; `stolen` is 0 for processes, which share one queue."""

    under_way: int
    waiting: int
    done: int
    failed: int
    cancelled: int
    refused: int
    stolen: int


class ParallelExecutionEngine:
    """Runs functions beside the event loop, with bounded admission: ``async with ParallelExecutionEngine(4) as engine: ...``.

    Leaving waits for what is under way; after an exception what has not begun is cancelled. What was cancelled before it began never
    runs; a thread that has begun goes on to its end, and its answer is dropped; a process is killed. Used on one event loop. In a
    simulation functions run on the loop, at some virtual instant.

    Args:
        workers: threads or processes; default: one for each processor.
        kind: ``"thread"`` (work stealing; for functions that wait or release the interpreter lock) or ``"process"`` (all cores; function,
            arguments and answer are pickled, functions of the main script by value).
        queue_limit: how many calls may be under way, running ones included, before `submit` waits.
        name: for messages, threads and processes.

    Raises:
        PoolError: a number below 1, or an unknown kind.
    """

    def __init__(
        self, workers: int | None = None, *, kind: Literal["thread", "process"] = "thread", queue_limit: int = 1024, name: str = "engine"
    ) -> None:
        if kind not in ("thread", "process"):
            raise PoolError(f"engine {name!r}: kind={kind!r} must be 'thread' or 'process'")
        if workers is not None and workers < 1:
            raise PoolError(f"engine {name!r}: workers={workers} must be at least 1")
        self.name = name
        self._workers = workers
        self._kind = kind
        self._room = BackpressureController(queue_limit)
        self._threads: ThreadPool | None = None
        self._processes: ProcessPool | None = None
        self._calls: set[asyncio.Future[Any]] = set()
        self._done = self._failed = self._cancelled = self._refused = self._stolen = 0
        self._open = False

    async def __aenter__(self) -> Self:
        if self._open or self._threads is not None or self._processes is not None:
            raise PoolError(f"engine {self.name!r} is open already, or has not been closed whole")
        if self._kind == "process":
            self._processes = ProcessPool(self.name, self._workers)
        elif not hasattr(asyncio.get_running_loop(), "sage_offload"):
            self._threads = ThreadPool(self._workers, name=self.name)
        self._open = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        await self.aclose(drain=kind is None)

    def set_backpressure_threshold(self, threshold: int, *, resume_at: int | None = None) -> None:
        """Change how many calls may be under way; see `BackpressureController.set_threshold`."""
        self._room.set_threshold(threshold, resume_at=resume_at)

    async def submit(self, function: Callable[..., R], /, *arguments: object, **options: object) -> asyncio.Future[R]:
        """Queue a call, waiting for room first; awaiting what it returns gives the answer, or raises what the function raised.

        Cancelling the wait for room queues nothing.

        Raises:
            PoolError: the engine is not open.
            SerializationError: processes: names what cannot be pickled.
        """
        self._check_open()
        await self._room.acquire()
        return self._queue(function, arguments, options)

    submit_task = submit

    def submit_nowait(self, function: Callable[..., R], /, *arguments: object, **options: object) -> asyncio.Future[R]:
        """Queue a call at once.

        Raises:
            PoolFull: there is no room.
            PoolError: the engine is not open.
            SerializationError: processes: names what cannot be pickled.
        """
        self._check_open()
        if not self._room.try_acquire():
            self._refused += 1
            raise PoolFull(
                f"engine {self.name!r} is full ({self._room.threshold}); await submit(), which waits for room, or raise queue_limit"
            )
        return self._queue(function, arguments, options)

    def _queue(self, function: Callable[..., R], arguments: tuple[object, ...], options: dict[str, object]) -> asyncio.Future[R]:
        try:
            self._check_open()  # it may have been closed during the wait for room
            future = self._start(function, arguments, options)
        except BaseException:
            self._room.release()
            raise
        self._calls.add(future)
        future.add_done_callback(self._ended)
        return future

    def _start(self, function: Callable[..., R], arguments: tuple[object, ...], options: dict[str, object]) -> asyncio.Future[R]:
        loop = asyncio.get_running_loop()
        if self._processes is not None:
            call = self._processes.pack(apply, (function, *arguments), options)
            work = cast("Callable[[], Awaitable[R]]", partial(self._processes.perform, call))
            return loop.create_task(self._counted(work), name=f"call of {self.name}")
        if self._threads is None:
            whole = partial(function, *arguments, **options)
            return loop.create_task(self._counted(lambda: offload(whole)), name=f"call of {self.name}")
        return asyncio.wrap_future(self._threads.submit(function, *arguments, **options), loop=loop)

    async def _counted(self, work: Callable[[], Awaitable[R]]) -> R:
        # Not by the future's exception(): having been looked at, an error that nobody awaits would not be reported any more.
        try:
            answer = await work()
        except Exception:
            self._failed += 1
            raise
        self._done += 1
        return answer

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._calls.discard(future)
        self._room.release()
        if future.cancelled():
            self._cancelled += 1

    def _check_open(self) -> None:
        if not self._open:
            raise PoolError(f"engine {self.name!r} is not open; use it inside `async with`")

    def statistics(self) -> EngineStatistics:
        """The counters as they stand now."""
        done, failed, stolen = self._done, self._failed, self._stolen
        if self._threads is not None:
            pool = self._threads.statistics()
            done, failed, stolen = done + pool.done, failed + pool.failed, stolen + pool.stolen
        return EngineStatistics(self._room.in_use, self._room.waiting, done, failed, self._cancelled, self._refused, stolen)

    async def aclose(self, *, drain: bool = True) -> None:
        """Take no further calls, and end; no thread and no process is left when it returns. Idempotent.

        Args:
            drain: wait for what is under way; otherwise what has not begun is cancelled. Cancelling the wait cancels it too.
        """
        self._open = False
        try:
            if drain and self._calls:
                await asyncio.wait(self._calls)
        finally:
            for call in list(self._calls):
                call.cancel()
            await self._end()
            if self._calls:
                await asyncio.wait(self._calls)

    async def _end(self) -> None:
        """End threads and processes. They stay ours until they have ended: the wait may be cancelled, and another call goes on with it."""
        threads, processes = self._threads, self._processes
        if threads is not None:
            threads.shut(drain=False)
            await offload(threads.close)
            if self._threads is threads:
                self._threads = None
                pool = threads.statistics()
                self._done, self._failed, self._stolen = self._done + pool.done, self._failed + pool.failed, self._stolen + pool.stolen
        if processes is not None:
            await processes.aclose()
            if self._processes is processes:
                self._processes = None


def apply(_: object, function: Callable[..., R], /, *arguments: object, **options: object) -> R:
    """What a process of the pool calls; the first argument stands for the actor that the pool serves elsewhere."""
    return function(*arguments, **options)
