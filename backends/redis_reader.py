"""The reading line of an endpoint: waits for what comes on every stream, removes and acknowledges it, asks what others have taken."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final, cast

from sage_actor.actor.backend import FrameHandler
from sage_actor.backends.redis_inbound import Inbound
from sage_actor.backends.redis_keys import RedisKeys
from sage_actor.backends.redis_line import Command, RedisLine
from sage_actor.backends.redis_outage import Outage
from sage_actor.backends.redis_outbound import Outbound
from sage_actor.backends.redis_writer import RedisWriter
from sage_actor.ports import system_clock

__all__ = ["RedisReader"]

_ENTRIES: Final = 32  # taken from one stream at a time at most
_BLOCK_MS: Final = 250
_TELL: Final = 0.05  # seconds between two acknowledgements; each costs as much as the read itself
_LOOK: Final = 1.0  # seconds between two looks for streams that somebody has emptied


class RedisReader:
    """Receives what the others have for one worker."""

    def __init__(self, keys: RedisKeys, worker: int, writer: RedisWriter, receive: FrameHandler) -> None:
        links = {peer: Inbound(keys, peer, worker, functools.partial(receive, peer)) for peer in keys.peers(worker)}
        self._keys = {peer: link.key.encode() for peer, link in links.items()}
        self._inbound = {link.key.encode(): link for link in links.values()}
        self._writer = writer
        self._entries = _ENTRIES
        self._told = self._looked = system_clock.monotonic()
        self._round = 0
        self._after_round: list[tuple[int, bytes, Callable[[], None]]] = []

    def after_last_frame(self, worker: int, callback: Callable[[], None]) -> None:
        """Call back once everything from a worker that is in its stream now has been delivered.

        The read that is on its way may have begun before it was written; the one after it has not, but may not have taken all.
        """
        self._after_round.append((self._round + 2, self._keys[worker], callback))

    async def run(self, line: RedisLine, outage: Outage) -> None:
        """Receive over this line for as long as it holds.

        Raises:
            BackendUnavailable: it broke, or the server refuses.
            FrameError: somebody else writes to our keys, or has removed from them.
        """
        for inbound in self._inbound.values():
            inbound.reconnected()
        # After an outage one entry at a time, then more and more: a slow way must get something through in time.
        self._entries = 1 if outage.lasts else _ENTRIES
        while True:
            holding = await self._read(line)
            outage.over()
            self._entries = min(self._entries * 2, _ENTRIES)
            self._round += 1
            waiting, self._after_round = self._after_round, []
            for at, key, callback in waiting:
                if at <= self._round and key not in holding:
                    callback()
                else:
                    self._after_round.append((at, key, callback))

    async def _read(self, line: RedisLine) -> set[bytes]:
        """One read; the streams that may hold more than was taken."""
        inbound = self._inbound
        removals = [command for link in inbound.values() for command in link.removal()]
        now = system_clock.monotonic()
        said: list[Inbound] = []
        asked: list[Outbound] = []
        if now - self._told >= _TELL:
            self._told = now
            said = [link for link in inbound.values() if link.acknowledgement()]
            asked = [outbound for outbound in self._writer.outbound.values() if outbound.keeps]
        looked = [(outbound, outbound.sent) for outbound in asked] if now - self._looked >= _LOOK else []
        if looked:
            self._looked = now
        commands: list[Command] = [
            *removals,
            *(command for link in said for command in link.acknowledgement()),
            *([("MGET", *(outbound.acknowledgement for outbound in asked))] if asked else []),
            *(("XLEN", outbound.key) for outbound, _ in looked),
            ("XREAD", "COUNT", self._entries, "BLOCK", _BLOCK_MS, "STREAMS", *inbound, *["0-0"] * len(inbound)),
        ]
        replies = await line.exchange(commands)
        first, last = len(removals), len(removals) + len(said)
        self._check(line, [*commands[:first], *commands[last:]], [*replies[:first], *replies[last:]])
        self._note_acknowledged(line, said, replies[first:last])
        if asked:
            for outbound, acknowledgement in zip(asked, cast("list[bytes | None]", replies[last]), strict=True):
                outbound.heard(acknowledgement)
        for (outbound, sent), entries in zip(looked, replies[len(replies) - 1 - len(looked) : -1], strict=True):
            if outbound.found(cast("int", entries), sent):
                self._writer.wake()
        holding: set[bytes] = set()
        for key, entries in cast("list[tuple[bytes, list[list[object]]]]", replies[-1] or ()):
            inbound[key].take(entries)
            if len(entries) >= self._entries:
                holding.add(key)
        return holding

    @staticmethod
    def _check(line: RedisLine, commands: Sequence[Command], replies: Sequence[object]) -> None:
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception):
                raise line.refused(str(command[0]), reply) from reply

    @staticmethod
    def _note_acknowledged(line: RedisLine, said: Sequence[Inbound], replies: Sequence[object]) -> None:
        from redis.exceptions import OutOfMemoryError

        for link, reply in zip(said, replies, strict=True):
            if isinstance(reply, OutOfMemoryError):
                continue  # what we take makes room; once there is some, this is said
            if isinstance(reply, Exception):
                raise line.refused("SET", reply) from reply
            link.acknowledged()
