"""An endpoint whose links are Redis Streams, one for each direction between two workers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Final, cast

from sage_actor.actor.backend import Buffer, FrameHandler, LostHandler
from sage_actor.backends.frame_reader import HEADER, FrameReader
from sage_actor.backends.loopback import Loopback
from sage_actor.backends.losses import Losses
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_line import Command, RedisLine
from sage_actor.backends.redis_pulse import RedisPulse
from sage_actor.backends.redis_seal import Sealer, Unsealer
from sage_actor.errors import BackendError, BackendUnavailable, FrameError

__all__ = ["RedisEndpoint", "open_in_worker"]

_ENTRY: Final = 512 * 1024  # bytes of frames in one entry at most; a larger frame is cut up
_ENTRIES: Final = 32  # taken from one stream at a time at most
_BLOCK_MS: Final = 250
_FIELD: Final = "f"


class _Inbound:
    """One stream that comes in: where we are in it, and the frame that is on its way."""

    __slots__ = ("key", "last", "reader", "unsealer")

    def __init__(self, keys: RedisKeys, sender: int, receiver: int, deliver: Callable[[memoryview], None]) -> None:
        self.key = keys.stream(sender, receiver)
        self.last = "0-0"
        self.unsealer = Unsealer(keys.secret, sender, receiver)
        self.reader = FrameReader(sender, deliver)

    def take(self, entries: list[list[object]]) -> Command:
        """Hand out the frames of new entries; returns the command that deletes these entries.

        Raises:
            FrameError: one of them is damaged, forged or out of order.
        """
        for identity, fields in cast("list[tuple[bytes, list[bytes]]]", entries):
            if len(fields) != 2:
                raise FrameError(f"stream {self.key!r} holds an entry that is not ours; does somebody else write to this server?")
            content = self.unsealer.unseal(fields[1])
            self.last = identity.decode()
            self.reader.feed(content)
        # Everything up to here and nothing after it: only we take from this stream.
        at, _, number = self.last.partition("-")
        return ("XTRIM", self.key, "MINID", f"{at}-{int(number) + 1}")


class RedisEndpoint:
    """One worker's end of a full mesh of streams.

    Two connections of its own (one writes, one waits for what comes) and the thread of its heartbeat. Any error of the server
    ends it: what a failed command did is unknown, and a guess could lose or repeat frames.
    """

    def __init__(
        self, worker: int, keys: RedisKeys, *, silent: Callable[[int], None], failed: Callable[[BackendError], None] | None = None
    ) -> None:
        """Nothing is connected before `open`.

        Args:
            silent: called when a watched worker's heartbeat stands still: each worker's in the owner, the owner's elsewhere.
            failed: called beside the ``lost`` handler when the links broke.
        """
        self.worker = worker
        self.losses = Losses()
        self._keys = keys
        self._loop = asyncio.get_running_loop()
        self._failed = failed
        self._loopback = Loopback(worker)
        self._sealers = {peer: Sealer(keys.secret, worker, peer) for peer in keys.peers(worker)}
        watched = range(1, keys.count + 1) if worker == 0 else (0,)
        self._pulse = RedisPulse(keys, worker, watched, silent=silent, gone=self._fail)
        self._writing = RedisLine(keys.address)
        self._reading = RedisLine(keys.address)
        self._tasks: list[asyncio.Task[None]] = []
        self._pending: dict[int, list[bytes]] = {}
        self._wanted = asyncio.Event()
        self._queued = 0
        self._written = 0
        self._progress = asyncio.Event()
        self._ended = False
        self._round = 0
        self._after_round: list[tuple[int, Callable[[], None]]] = []

    async def open(self) -> None:
        """Connect, and begin to send and to beat.

        Raises:
            BackendUnavailable: the server is not there.
        """
        try:
            await self._writing.connect()
            await self._reading.connect()
        except BaseException:
            await self._close_lines()
            raise
        self._pulse.start()
        self._tasks.append(self._loop.create_task(self._guarded(self._write()), name=f"redis-write-{self.worker}"))

    def expect_beats(self) -> None:
        """Every watched worker is up; see `RedisPulse.expect`."""
        self._pulse.expect()

    def start(self, receive: FrameHandler, lost: LostHandler) -> None:
        """Begin delivering; see `Endpoint.start`."""
        self._loopback.start(receive)
        self.losses.start(lost)
        if self._sealers and not self._ended:
            self._tasks.append(self._loop.create_task(self._guarded(self._read(receive)), name=f"redis-read-{self.worker}"))

    def send(self, to: int, parts: Sequence[Buffer]) -> None:
        """Send one frame; frames of one turn of the loop share an entry; see `Endpoint.send`."""
        if self._ended:
            return
        if to == self.worker:
            self._loopback.send(parts)
        elif to in self._sealers:
            content = b"".join(parts)
            self._pending.setdefault(to, []).extend((HEADER.pack(len(content)), content))
            self._queued += 1
            self._wanted.set()

    async def flush(self) -> None:
        """Return when the server has taken everything sent so far, or is gone."""
        queued = self._queued
        while self._written < queued and not self._ended:
            await self._progress.wait()

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
        await self._pulse.aclose()
        await self._close_lines()

    def after_last_frame(self, worker: int, callback: Callable[[], None]) -> None:
        """Call back once everything that an ended worker managed to send has been delivered.

        The read that is on its way may have begun before the worker's last words were written; the one after it has not.
        """
        self._after_round.append((self._round + 2, callback))

    async def _close_lines(self) -> None:
        await self._writing.aclose()
        await self._reading.aclose()

    def _end(self) -> None:
        self._ended = True
        self._pending.clear()
        self._progress.set()
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

    async def _guarded(self, work: Coroutine[object, object, None]) -> None:
        try:
            await work
        except BackendError as error:
            self._fail(error)

    async def _write(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            pending, self._pending = self._pending, {}
            queued = self._queued
            commands: list[Command] = []
            for to, pieces in pending.items():
                key, sealer = self._keys.stream(self.worker, to), self._sealers[to]
                commands.extend(("XADD", key, "*", _FIELD, sealer.seal(content)) for content in _entries(pieces))
            if commands:
                await self._writing.call(commands)
            self._written = queued
            progress, self._progress = self._progress, asyncio.Event()
            progress.set()

    async def _read(self, receive: FrameHandler) -> None:
        inbound = {
            link.key.encode(): link
            for link in (_Inbound(self._keys, peer, self.worker, functools.partial(receive, peer)) for peer in self._sealers)
        }
        deletions: list[Command] = []
        while True:
            read: Command = ("XREAD", "COUNT", _ENTRIES, "BLOCK", _BLOCK_MS, "STREAMS", *inbound, *(link.last for link in inbound.values()))
            replies = await self._reading.call([*deletions, read])
            deletions = []
            for key, entries in cast("list[tuple[bytes, list[list[object]]]]", replies[-1] or ()):
                deletions.append(inbound[key].take(entries))
            self._round += 1
            if self._after_round:
                due = [callback for at, callback in self._after_round if at <= self._round]
                self._after_round = [waiting for waiting in self._after_round if waiting[0] > self._round]
                for callback in due:
                    callback()


def _entries(pieces: list[bytes]) -> Iterator[bytes | memoryview]:
    content = b"".join(pieces)
    if len(content) <= _ENTRY:
        yield content
        return
    view = memoryview(content)
    for at in range(0, len(view), _ENTRY):
        yield view[at : at + _ENTRY]


async def open_in_worker(worker: int, arguments: Mapping[str, str], failed: Callable[[BackendError], None]) -> RedisEndpoint:
    """The endpoint of a worker process; `arguments` are those of `RedisKeys`."""
    keys = RedisKeys.of(arguments)

    def silent(owner: int) -> None:
        failed(BackendUnavailable("redis", f"worker {worker} heard no heartbeat of its owner for 5 s", "was the owner stopped?"))

    endpoint = RedisEndpoint(worker, keys, silent=silent, failed=failed)
    await endpoint.open()
    endpoint.expect_beats()
    return endpoint
