"""ThreadPool: threads that take work from one line, and from each other."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from sage_actor.errors import PoolError
from sage_actor.parallel.work_stealing_queue import WorkStealingQueue

__all__ = ["ThreadPool", "ThreadPoolStatistics"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class ThreadPoolStatistics:
    """Counters of one moment. `done` calls gave an answer, `failed` ones raised; `stolen` ones were made by another thread than the
    one they were queued with."""

    threads: int
    queued: int
    running: int
    done: int
    failed: int
    stolen: int


class _Call:
    """One call and where its answer goes."""

    __slots__ = ("arguments", "failed", "function", "future", "options")

    def __init__(self, function: Callable[..., Any], arguments: tuple[object, ...], options: dict[str, object]) -> None:
        self.function = function
        self.arguments = arguments
        self.options = options
        self.failed = False
        self.future: Future[Any] = Future()

    def make(self) -> Callable[[], None] | None:
        """Make it; answers what is to be called to tell whoever waits, or None if it was cancelled before."""
        future = self.future
        if not future.set_running_or_notify_cancel():
            return None
        try:
            answer = self.function(*self.arguments, **self.options)
        except BaseException as error:  # noqa: BLE001 - the user's function; its caller gets the error, as from any executor
            self.failed = True
            return functools.partial(future.set_exception, error)
        else:
            return functools.partial(future.set_result, answer)
        finally:
            del self, future  # an error's traceback refers to this frame: what lies in it would live until a full collection


class ThreadPool:
    """`size` threads. Calls from outside wait in one line, first come, first served; calls that a call submits go to the queue of
    its own thread, which does the newest first, and idle threads steal the oldest of them. Nothing is bounded here; see
    `ParallelExecutionEngine`.

    The threads start with the pool and end with it. In CPython they share one interpreter lock: they help where functions wait or
    release it (files, sockets, numpy, compression), not where they compute in Python.

    Args:
        size: how many threads; default: one for each processor.
        name: begins their names.

    Raises:
        PoolError: `size` is below 1.
    """

    def __init__(self, size: int | None = None, *, name: str = "sage-pool") -> None:
        self.size = (os.cpu_count() or 1) if size is None else size
        if self.size < 1:
            raise PoolError(f"thread pool {name!r}: size={self.size} must be at least 1")
        self.name = name
        self._line: deque[_Call] = deque()
        self._own = [WorkStealingQueue[_Call]() for _ in range(self.size)]
        self._tokens = threading.Semaphore(0)
        self._here = threading.local()
        self._done = [0] * self.size
        self._failed = [0] * self.size
        self._stolen = [0] * self.size
        self._running = [False] * self.size
        self._lock = threading.Lock()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, args=(i,), name=f"{name}-{i}", daemon=True) for i in range(self.size)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(drain=exception[0] is None)

    def submit(self, function: Callable[..., R], /, *arguments: object, **options: object) -> Future[R]:
        """Queue a call; its future gives the answer or raises what the function raised. Cancelling it takes it out of the queue; a call
        that has begun runs to its end.

        Raises:
            PoolError: the pool is closed.
        """
        call = _Call(function, arguments, options)
        place: int | None = getattr(self._here, "place", None)
        with self._lock:  # so that no call comes in behind the last one that the closing looks at
            if self._closed:
                raise PoolError(f"thread pool {self.name!r} is closed, so nothing is called in it any more")
            if place is None:
                self._line.append(call)
            else:
                self._own[place].push(call)
        self._tokens.release()
        return call.future

    def statistics(self) -> ThreadPoolStatistics:
        """The counters as they stand now."""
        queued = len(self._line) + sum(map(len, self._own))
        return ThreadPoolStatistics(self.size, queued, sum(self._running), sum(self._done), sum(self._failed), sum(self._stolen))

    def close(self, *, drain: bool = True) -> None:
        """End the threads; blocks until they have ended, with whatever call each has begun. Idempotent.

        Args:
            drain: make the queued calls first. Otherwise their futures are cancelled.

        Raises:
            PoolError: a call of this very pool would wait for its own end.
        """
        if getattr(self._here, "place", None) is not None:
            raise PoolError(f"thread pool {self.name!r}: a call in it cannot close it, since closing waits for that call")
        self.shut(drain=drain)
        for thread in self._threads:
            thread.join()

    def shut(self, *, drain: bool = True) -> None:
        """Take no further calls, and let the threads end by themselves; returns at once. Idempotent."""
        with self._lock:
            first, self._closed = not self._closed, True
        if not drain:
            for call in self._queued():
                call.future.cancel()
        if first:
            for _ in range(self.size):
                self._tokens.release()

    def _queued(self) -> list[_Call]:
        """What waits now; it stays queued, and whoever comes upon a cancelled call passes over it."""
        return [*list(self._line), *itertools.chain.from_iterable(queue.snapshot() for queue in self._own)]

    def _work(self, place: int) -> None:
        self._here.place = place
        while True:
            self._tokens.acquire()
            call = self._next(place)
            if call is None:
                return
            self._running[place] = True
            tell = call.make()
            self._running[place] = False
            if tell is not None:
                (self._failed if call.failed else self._done)[place] += 1
                tell()  # counted first: whoever has the answer finds it counted
            del call, tell  # an idle thread keeps neither arguments nor answer alive

    def _next(self, place: int) -> _Call | None:
        """The next call for a thread that holds a token. None at the end.

        There are at least as many calls as tokens given out for them, so a look round that finds none was overtaken by others, or the
        token was one of the closing's.
        """
        while True:
            call = self._own[place].pop()
            if call is not None:
                return call
            try:
                return self._line.popleft()
            except IndexError:
                pass
            for step in range(1, self.size):
                call = self._own[(place + step) % self.size].steal()
                if call is not None:
                    self._stolen[place] += 1
                    return call
            with self._lock:
                if self._closed and not self._line and not any(map(len, self._own)):
                    return None
