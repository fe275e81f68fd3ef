"""An endpoint whose links are Redis Streams, one for each direction between two workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from sage_actor.actor.backend import Buffer, FrameHandler, LostHandler
from sage_actor.backends.frame_reader import HEADER
from sage_actor.backends.loopback import Loopback
from sage_actor.backends.losses import Losses
from sage_actor.backends.redis_address import RedisAddress, shown
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_line import RedisLine
from sage_actor.backends.redis_outage import Outage
from sage_actor.backends.redis_proof import prove
from sage_actor.backends.redis_pulse import RedisPulse
from sage_actor.backends.redis_reader import RedisReader
from sage_actor.backends.redis_writer import RedisWriter
from sage_actor.errors import BackendError, BackendUnavailable
from sage_actor.ports import system_clock

__all__ = ["OPENER", "RedisEndpoint", "open_in_worker"]

_Work = Callable[[RedisLine, Outage], Awaitable[None]]


class RedisEndpoint:
    """One worker's end of a full mesh of streams.

    Two connections of its own (one writes, one waits for what comes) and the thread of its heartbeat, each of which comes back
    by itself after a failure. What was sent and is not known to be taken is kept here, so a server that was away, was replaced by
    one that lacks the last writes, or came back empty loses nothing. What ends the endpoint: a server that is away for longer
    than the patience in its address, one that refuses, and entries that are not ours.
    """

    def __init__(
        self, worker: int, keys: RedisKeys, *, silent: Callable[[int], None], failed: Callable[[BackendError], None] | None = None
    ) -> None:
        """Nothing is connected before `open`.

        Args:
            silent: called when a watched worker's heartbeat stands still: each worker's in the owner, the owner's elsewhere.
            failed: called beside the ``lost`` handler when the links broke.

        Raises:
            BackendUnavailable: the address is none.
        """
        self.worker = worker
        self.losses = Losses()
        self._keys = keys
        self._patience = RedisAddress.of(keys.address).patience
        self._loop = asyncio.get_running_loop()
        self._failed = failed
        self._loopback = Loopback(worker)
        watched = range(1, keys.count + 1) if worker == 0 else (0,)
        self._pulse = RedisPulse(keys, worker, watched, silent=silent, gone=self._fail)
        self._writer = RedisWriter(keys, worker)
        self._reader: RedisReader | None = None
        self._first: RedisLine | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._early: list[tuple[int, Callable[[], None]]] = []
        self._ended = False

    async def open(self) -> None:
        """Connect, and begin to send and to beat.

        The owner is told at once if the server is not there, and tries all that a group will ask of it; a worker, whose owner has
        seen the server, waits for one that is away.

        Raises:
            BackendUnavailable: the server is not there, too old, full, a replica, or refuses our user.
        """
        outage = Outage(self._patience)
        if self.worker == 0:
            line = RedisLine(self._keys.address)
            try:
                await line.connect()
                await prove(line, self._keys)
            except BaseException:
                await line.aclose()
                raise
        else:
            line = await self._connected(outage)
        self._first = line
        self._pulse.start()
        self._start_task("write", self._writer.run, line, outage)

    def expect_beats(self) -> None:
        """Every watched worker is up; see `RedisPulse.expect`."""
        self._pulse.expect()

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering; see `Endpoint.start`."""
        self._loopback.start(receive)
        self.losses.start(lost)
        if self._keys.count and not self._ended:
            self._reader = reader = RedisReader(self._keys, self.worker, self._writer, receive)
            for waiting in self._early:
                reader.after_last_frame(*waiting)
            self._start_task("read", reader.run, None, Outage(self._patience))

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send one frame; frames that wait for the same call share an entry; see `Endpoint.send`."""
        if self._ended:
            return
        if to == self.worker:
            self._loopback.send(parts)
        elif to in self._writer.outbound:
            pieces = [part if isinstance(part, bytes) else bytes(part) for part in parts]
            self._writer.send(to, [HEADER.pack(sum(map(len, pieces))), *pieces])

    async def flush(self) -> None:
        """Return when a server has taken everything sent so far, or the links have ended; waits for one that is away."""
        await self._writer.flush()

    async def aclose(self) -> None:
        """Flush, then close the connections. Idempotent."""
        self.losses.close()
        await self.flush()
        await self.abort()

    async def abort(self) -> None:
        """Close the connections without flushing. Idempotent."""
        self._end()
        self.losses.close()
        self._loopback.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._first is not None:
            await self._first.aclose()  # a task that was cancelled before its first step has closed nothing
        await self._pulse.aclose()

    def after_last_frame(self, worker: int, callback: Callable[[], None]) -> None:
        """Call back once everything that an ended worker managed to send has been delivered."""
        if self._reader is None:
            self._early.append((worker, callback))
        else:
            self._reader.after_last_frame(worker, callback)

    def _start_task(self, name: str, work: _Work, line: RedisLine | None, outage: Outage) -> None:
        task = self._loop.create_task(self._keep_up(work, line, outage), name=f"redis-{name}-{self.worker}")
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        # Only a fault of ours, or a reply of a form that no Redis gives: without this everybody would wait for ever.
        if not task.cancelled() and (error := task.exception()) is not None:
            reason = f"{task.get_name()} failed with {type(error).__name__}: {error}"
            self._fail(BackendUnavailable(shown(self._keys.address), reason, "is this a Redis server?"))

    async def _keep_up(self, work: _Work, line: RedisLine | None, outage: Outage) -> None:
        """Do this work over one line after the other, until the endpoint ends."""
        try:
            while True:
                if line is None:
                    line = await self._connected(outage)
                try:
                    await work(line, outage)
                except BackendUnavailable as error:
                    pause = outage.pause(error)
                    await line.aclose()
                    line = None
                    await system_clock.sleep(pause)
        except BackendError as error:
            self._fail(error)
        finally:
            if line is not None:
                await line.aclose()

    async def _connected(self, outage: Outage) -> RedisLine:
        while True:
            line = RedisLine(self._keys.address)
            try:
                await line.connect()
            except BackendUnavailable as error:
                await system_clock.sleep(outage.pause(error))
            else:
                return line

    def _end(self) -> None:
        self._ended = True
        self._writer.end()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()

    def _fail(self, error: BackendError) -> None:
        if not self._ended:
            self._end()
            self.losses.report(error)
            if self._failed is not None:
                self._failed(error)


async def open_in_worker(worker: int, arguments: Mapping[str, str], failed: Callable[[BackendError], None]) -> RedisEndpoint:
    """The endpoint of a worker process; `arguments` are those of `RedisKeys`."""
    keys = RedisKeys.of(arguments)

    def silent(owner: int) -> None:
        failed(BackendUnavailable("redis", f"worker {worker} heard no heartbeat of its owner for 5 s", "was the owner stopped?"))

    endpoint = RedisEndpoint(worker, keys, silent=silent, failed=failed)
    await endpoint.open()
    endpoint.expect_beats()
    return endpoint


OPENER: Final = f"{open_in_worker.__module__}:{open_in_worker.__name__}"
"""What a worker is told to open its endpoint with."""
