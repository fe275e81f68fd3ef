"""What one worker gets from one other: entries checked, in order, each once; frames handed out; what was taken, removed and said."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from sage_actor.backends.frame_reader import FrameReader
from sage_actor.backends.redis_keys import EXPIRY, RedisKeys
from sage_actor.backends.redis_line import Command
from sage_actor.backends.redis_outbound import MESSAGE, SIGNATURE
from sage_actor.backends.redis_seal import Unsealer
from sage_actor.errors import FrameError

__all__ = ["Inbound"]

_NAMES = (MESSAGE.encode(), SIGNATURE.encode())


class Inbound:
    """The way from one worker. Decides only; the reader hands it what it read and asks it what to say.

    Whatever lies in the stream is read from its beginning, since what was taken is removed: so nothing depends on the ids that
    the server gives, which go backwards when another one takes its place.
    """

    __slots__ = ("_acknowledged", "_frames", "_taken", "_trim", "_unsealer", "key")

    def __init__(self, keys: RedisKeys, sender: int, receiver: int, deliver: Callable[[memoryview], None]) -> None:
        self.key = keys.stream(sender, receiver)
        self._taken = keys.taken(sender, receiver)
        self._unsealer = Unsealer(keys.secret, sender, receiver)
        self._frames = FrameReader(sender, deliver)
        self._trim: str | None = None
        self._acknowledged = 0

    def take(self, entries: list[list[object]]) -> None:
        """Hand out the frames of what was read.

        Raises:
            FrameError: an entry is damaged, forged or out of order.
        """
        for identity, fields in cast("list[tuple[bytes, list[bytes]]]", entries):
            if len(fields) != 4 or (fields[0], fields[2]) != _NAMES:
                raise FrameError(f"stream {self.key!r} holds an entry that is not ours; does somebody else write to this server?")
            content = self._unsealer.unseal(fields[1], fields[3])
            if content is None:
                self._acknowledged = 0  # the writer does not know; say it again
            else:
                self._frames.feed(content)
            at, _, number = identity.decode().partition("-")
            self._trim = f"{at}-{int(number) + 1}"

    def removal(self) -> list[Command]:
        """Removes what was taken, before the next read: only we take from this stream."""
        if self._trim is None:
            return []
        trim, self._trim = self._trim, None
        return [("XTRIM", self.key, "MINID", trim)]

    def acknowledgement(self) -> list[Command]:
        """Tells the writer what was taken, if it may not know. May be refused by a server without memory: then the next one says it."""
        if self._acknowledged == self._unsealer.next:
            return []
        return [("SET", self._taken, self._unsealer.next, "EX", EXPIRY)]

    def acknowledged(self) -> None:
        """The last `acknowledgement` was heard; nothing was taken since."""
        self._acknowledged = self._unsealer.next

    def reconnected(self) -> None:
        """It may be another server: nothing is trimmed there that was not read there, and what was said must be said again."""
        self._trim = None
        self._acknowledged = 0
