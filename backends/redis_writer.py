"""The writing line of an endpoint: one entry a worker and call, as many calls as it takes, and again after every failure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, cast

from sage_actor.actor.backend import Buffer
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_line import Command, RedisLine
from sage_actor.backends.redis_outage import Outage
from sage_actor.backends.redis_outbound import Outbound

__all__ = ["RedisWriter"]

_CALL: Final = 1024 * 1024  # bytes of entries in one call, about


class RedisWriter:
    """Sends what one worker has for the others.

    While a call is on its way what is sent meanwhile gathers, and shares the next entry: so a slow server gets few, large calls.
    """

    def __init__(self, keys: RedisKeys, worker: int) -> None:
        self.outbound = {peer: Outbound(keys, worker, peer) for peer in keys.peers(worker)}
        self._turns = deque(self.outbound.values())
        self._wanted = asyncio.Event()
        self._progress = asyncio.Event()
        self._ended = False

    def send(self, to: int, pieces: Sequence[Buffer]) -> None:
        """Queue pieces of a frame."""
        self.outbound[to].add(pieces)
        self._wanted.set()

    def wake(self) -> None:
        """Something was rewound."""
        self._wanted.set()

    async def flush(self) -> None:
        """Return when a server has taken everything sent so far, or the links have ended."""
        goals = [(outbound, outbound.queued) for outbound in self.outbound.values()]
        while not self._ended and any(outbound.left < goal for outbound, goal in goals):
            await self._progress.wait()

    def end(self) -> None:
        """Forget everything, let `flush` return. Idempotent."""
        self._ended = True
        for outbound in self.outbound.values():
            outbound.clear()
        self._progress.set()

    async def run(self, line: RedisLine, outage: Outage) -> None:
        """Send over this line for as long as it holds.

        Raises:
            BackendUnavailable: it broke, or the server refuses.
            FrameError: somebody else writes to our keys.
        """
        for outbound in self.outbound.values():
            outbound.rewind()
        await self._ask(line)
        while True:
            due = self._due(1 if outage.lasts else _CALL)
            if not due:
                outage.over()
                self._wanted.clear()
                await self._wanted.wait()
                continue
            commands = [command for _, _, of_entry in due for command in of_entry]
            replies = await line.call(commands)
            outage.over()
            at = 0
            for outbound, number, of_entry in due:
                at += len(of_entry)
                reply = replies[at - 1]
                if isinstance(reply, list):  # of the transaction that created the stream
                    reply = cast("list[object]", reply)[0]
                    if isinstance(reply, Exception):
                        raise line.refused("XADD", reply)
                outbound.written(number, reply)
            progress, self._progress = self._progress, asyncio.Event()
            progress.set()

    async def _ask(self, line: RedisLine) -> None:
        """What of all that would be sent again the readers have taken already."""
        waiting = [outbound for outbound in self.outbound.values() if outbound.waits]
        if not waiting:
            return
        [known] = await line.call([("MGET", *(outbound.acknowledgement for outbound in waiting))])
        for outbound, acknowledgement in zip(waiting, cast("list[bytes | None]", known), strict=True):
            outbound.heard(acknowledgement)

    def _due(self, most: int) -> list[tuple[Outbound, int, list[Command]]]:
        """Entries for one call: one for each worker, in turns, until they are `most` bytes."""
        due: list[tuple[Outbound, int, list[Command]]] = []
        size = 0
        for _ in range(len(self._turns)):
            if size >= most:
                break
            outbound = self._turns[0]
            self._turns.rotate(-1)
            if outbound.waits:
                number, commands, bytes_of_entry = outbound.next_entry()
                due.append((outbound, number, commands))
                size += bytes_of_entry
        return due
