"""ProcessPool: where methods declared ``blocking(pool="process")`` run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

from sage_actor.actor.backend import WorkerGroup
from sage_actor.actor.open_backend import open_backend
from sage_actor.actor.pool_worker import ENTRY, PackedCall, answer_of, result_of
from sage_actor.actor.portable import dump
from sage_actor.errors import ActorError, BackendError, SerializationError, WorkerLost
from sage_actor.ports import offload

__all__ = ["ProcessPool"]

PATIENCE: Final = 1.0
"""Seconds that an idle worker has to end by itself when the pool does."""


class PoolWorker:
    """One worker process, seen from its pool. It makes one call at a time."""

    __slots__ = ("_answer", "group", "known", "loss", "number")

    def __init__(self, number: int, group: WorkerGroup) -> None:
        self.number = number
        self.group = group
        self.known: set[int] = set()
        self.loss: Exception | None = None
        self._answer: asyncio.Future[bytes] | None = None
        group.endpoint.start(self._receive, self._lost)

    async def call(self, call: PackedCall) -> bytes:
        """Send a call and wait for its answer.

        Raises:
            WorkerLost: the process ended before.
            BackendError: the link to it broke.
        """
        if self.loss is not None:
            raise self.loss
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self.group.endpoint.send(1, call.parts(known=call.number in self.known))
        self.known.add(call.number)
        try:
            return await answer
        finally:
            self._answer = None

    def fail(self, error: Exception) -> None:
        """The call under way, and any later one, raises this."""
        if self.loss is None:
            self.loss = error
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(error)

    def _receive(self, sender: int, frame: memoryview) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(bytes(frame))

    def _lost(self, error: BackendError) -> None:
        if isinstance(error, WorkerLost):  # its number in a group of one says nothing
            error = WorkerLost(self.number, error.pid, error.exit_code, error.last_words)
        self.fail(error)


class ProcessPool:
    """Up to `size` worker processes, each making one call at a time. They start when there are calls for them, and stay.

    A worker never imports the user's ``__main__``: functions travel by cloudpickle, those of a script by value, with the globals
    they refer to as these are at the pool's first call of the function. A worker that died is replaced by the next call. When
    this process dies, its workers end too. In a simulation calls are made on the loop, through `ports.offload`, after the same
    pickling. For use on one event loop.

    Args:
        name: begins the names of the worker processes.
        size: how many there may be; default: one for each processor.

    Raises:
        ActorError: `size` is below 1.
    """

    def __init__(self, name: str, size: int | None = None) -> None:
        self.name = name
        self.size = (os.cpu_count() or 1) if size is None else size
        if self.size < 1:
            raise ActorError(f"process pool {name!r}: size={size} must be at least 1")
        self._permits = asyncio.Semaphore(self.size)
        self._packed: WeakKeyDictionary[Callable[..., object], tuple[int, bytes]] = WeakKeyDictionary()
        self._functions = 0
        self._started = 0
        self._idle: list[PoolWorker] = []
        self._busy: set[PoolWorker] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ProcessPool {self.name!r}, {len(self._idle) + len(self._busy)} of {self.size} workers, {len(self._busy)} busy>"

    async def run(self, function: Callable[..., object], arguments: tuple[object, ...], options: dict[str, object]) -> object:
        """Call a function in a worker, with a placeholder for its first argument: `pack`, then `perform`."""
        return await self.perform(self.pack(function, arguments, options))

    def pack(self, function: Callable[..., object], arguments: tuple[object, ...], options: dict[str, object]) -> PackedCall:
        """Pickle a call; the function only at its first.

        Raises:
            SerializationError: names what cannot be pickled.
        """
        name = getattr(function, "__name__", repr(function))
        packed = self._packed.get(function)
        if packed is None:
            try:
                content = dump((function, name))
            except Exception as error:
                raise SerializationError(f"method {name!r}", str(error)) from error
            self._functions += 1
            packed = self._packed[function] = self._functions, content
        try:
            return PackedCall(packed[0], name, packed[1], dump((arguments, options)))
        except Exception as error:
            raise SerializationError(_culprit(name, arguments, options), str(error)) from error

    async def perform(self, call: PackedCall) -> object:
        """Make a call in a worker process and give what it returns; waits for a free worker first, in the order of the calls.

        Cancelling the wait kills the worker that makes the call: when `CancelledError` is raised, it is not running any more.

        Raises:
            Exception: what the function raised, if it can be pickled; a note holds the worker's traceback.
            ActorError: the same as text if not, or the result cannot be pickled, or the pool is closed.
            WorkerLost: the worker died: exit code and the end of its stderr. The call may have had its effects.
            BackendUnavailable: no worker process is to be had.
        """
        self._check_open()
        if hasattr(asyncio.get_running_loop(), "sage_offload"):
            answer = await offload(partial(answer_of, b"".join(call.parts(known=False)), {}))
        else:
            async with self._permits:
                answer = await self._make(call)
        return result_of(answer, call.name)

    async def _make(self, call: PackedCall) -> bytes:
        worker = await self._take_worker()
        self._busy.add(worker)
        try:
            answer = await worker.call(call)
        except BaseException:  # lost, or cancelled with the function still running: nothing to keep
            self._busy.discard(worker)
            await self._kill(worker)
            raise
        self._busy.discard(worker)
        self._idle.append(worker)
        return answer

    async def _take_worker(self) -> PoolWorker:
        self._check_open()
        while self._idle:
            worker = self._idle.pop()
            if worker.loss is None:
                return worker
            self._end_soon(worker, 0.0)
        self._started += 1
        number = self._started
        worker = PoolWorker(number, await open_backend("process").start(1, group=f"{self.name}-{number}", entry=ENTRY))
        if self._closing is not None:
            await self._kill(worker)
        self._check_open()
        return worker

    def _check_open(self) -> None:
        if self._closing is not None:
            raise ActorError(f"process pool {self.name!r} is closed, so nothing is called in it any more")

    def _end_soon(self, worker: PoolWorker, patience: float) -> None:
        """End a worker in a task of its own, which `aclose` waits for."""
        ending = asyncio.get_running_loop().create_task(worker.group.aclose(patience), name=f"end of worker {worker.number} of {self.name}")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _kill(self, worker: PoolWorker) -> None:
        """Return when the process is gone. Cancelling the wait does not spare it."""
        self._end_soon(worker, 0.0)
        await worker.group.aclose(0.0)

    async def aclose(self) -> None:
        """End all workers; calls under way are broken off and fail with `ActorError`. When it returns no process is left.

        Idempotent. Cancelling the wait does not end the closing.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name=f"end of {self.name}")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for worker in self._busy:
            worker.fail(ActorError(f"process pool {self.name!r} was closed while this call was under way"))
        while self._idle:
            worker = self._idle.pop()
            self._end_soon(worker, PATIENCE if worker.loss is None else 0.0)
        for _ in range(self.size):  # whoever still starts a worker or gives one up holds a permit until that is done
            await self._permits.acquire()
        while self._endings:
            await asyncio.wait(self._endings)


def _culprit(name: str, arguments: tuple[object, ...], options: dict[str, object]) -> str:
    """Which argument of a method cannot be pickled, in words."""
    named = [(f"argument {number}", value) for number, value in enumerate(arguments, 1)]
    for place, value in named + [(f"argument {key!r}", value) for key, value in options.items()]:
        try:
            dump(value)
        except Exception:  # noqa: BLE001 - a user's class may raise anything while it is pickled; the first that does is named
            return f"{place} of {name!r} ({type(value).__name__})"
    return f"the arguments of {name!r}"
