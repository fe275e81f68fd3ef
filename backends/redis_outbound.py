"""What one worker sends to one other: cut into entries, kept until they are known to be taken, sent again where that is in doubt."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from sage_actor.actor.backend import Buffer
from sage_actor.backends.redis_keys import EXPIRY, RedisKeys
from sage_actor.backends.redis_line import Command
from sage_actor.backends.redis_seal import Sealer
from sage_actor.errors import FrameError

__all__ = ["MESSAGE", "SIGNATURE", "Outbound"]

MESSAGE: Final = "f"
SIGNATURE: Final = "s"

_ENTRY: Final = 512 * 1024  # bytes of frames in one entry at most; a larger frame is cut up
_DOUBTS: Final = 2


class Outbound:
    """The way to one worker. Decides only; the writer asks it for commands and tells it what became of them.

    Entries carry the numbers 0, 1, 2, …; those from `taken` on are kept here. The credit of the layer above bounds how many.
    What a failed command did is unknown, so after any failure everything kept is sent again, in order, and the reader drops what
    it has seen. No entry ever overtakes one before it.
    """

    __slots__ = (
        "_creating",
        "_doubts",
        "_kept",
        "_left",
        "_pieces",
        "_popped",
        "_queued",
        "_sealer",
        "_sent",
        "_taken",
        "acknowledgement",
        "key",
    )

    def __init__(self, keys: RedisKeys, sender: int, receiver: int) -> None:
        self.key = keys.stream(sender, receiver)
        self.acknowledgement = keys.taken(sender, receiver)
        self._sealer = Sealer(keys.secret, sender, receiver)
        self._pieces: deque[Buffer] = deque()  # not cut into entries yet
        self._queued = 0  # pieces, ever
        self._popped = 0  # pieces that are in entries
        self._left = 0  # pieces that a server has taken once
        self._kept: deque[tuple[bytes, bytes, int]] = deque()  # message, signature, pieces popped by its end
        self._taken = 0  # number of the first entry kept
        self._sent = 0  # number of the entry to be sent next
        self._creating = True
        self._doubts = 0

    @property
    def queued(self) -> int:
        """How much was put here, ever; to be compared with `left`."""
        return self._queued

    @property
    def left(self) -> int:
        """How much of that a server has taken, be it for a moment."""
        return self._left

    @property
    def waits(self) -> bool:
        """There is something to send."""
        return self._sent < self._sealer.next or bool(self._pieces)

    @property
    def keeps(self) -> bool:
        """Something was sent that is not known to be taken by the other worker."""
        return self._sent > self._taken

    def add(self, pieces: Sequence[Buffer]) -> None:
        """Queue pieces of a frame; they must not change any more."""
        self._pieces.extend(pieces)
        self._queued += len(pieces)

    def next_entry(self) -> tuple[int, list[Command], int]:
        """What sends the entry that is due: its number, the commands, and its bytes. Only where something `waits`."""
        if self._sent == self._sealer.next:
            self._seal()
        number = self._sent
        message, signature, _ = self._kept[number - self._taken]
        content = ("*", MESSAGE, message, SIGNATURE, signature)
        if not self._creating:
            # If the stream is gone, so is what it held: told by an empty reply, and nothing out of order is written.
            return number, [("XADD", self.key, "NOMKSTREAM", *content)], len(message)
        # Never without an end, not even if this is the last that the server hears of us.
        created: list[Command] = [("MULTI",), ("XADD", self.key, *content), ("EXPIRE", self.key, EXPIRY), ("EXEC",)]
        return number, created, len(message)

    def written(self, number: int, reply: object) -> None:
        """The last of an entry's commands was answered."""
        if reply is None:
            self.rewind()
        elif number == self._sent:  # else it was rewound meanwhile
            self._creating = False
            self._sent += 1
            self._left = max(self._left, self._kept[number - self._taken][2])

    def rewind(self) -> None:
        """Nothing is known any more about what lies in Redis: send again all that is kept."""
        self._sent = self._taken
        self._creating = True
        self._doubts = 0

    def heard(self, acknowledgement: bytes | None) -> None:
        """What the key `acknowledgement` holds: the other worker has taken all entries before that number.

        Older news than known, and none at all, change nothing: they may be another server's.

        Raises:
            FrameError: it is no number, or so many were never sent.
        """
        if acknowledgement is None:
            return
        number = int(acknowledgement) if acknowledgement.isdigit() else -1
        if not 0 <= number <= self._sealer.next:
            raise FrameError(
                f"{self.acknowledgement!r} says {acknowledgement[:20]!r}, and {self._sealer.next} entries were sent; does somebody else "
                "write to this server?"
            )
        while self._taken < number:
            self._left = max(self._left, self._kept.popleft()[2])
            self._taken += 1
            self._doubts = 0
        self._sent = max(self._sent, self._taken)

    @property
    def sent(self) -> int:
        """How many entries were sent, ever."""
        return self._sent

    def found(self, entries: int, sent: int) -> bool:
        """Take note of how many entries the stream held when `sent` was so much; answers whether everything was rewound.

        Fewer than were sent and not taken, seen twice in a row while none are taken, means that somebody (an eviction, a
        FLUSHALL) has removed them.
        """
        self._doubts = self._doubts + 1 if entries < sent - self._taken else 0
        if self._doubts < _DOUBTS:
            return False
        self.rewind()
        return True

    def clear(self) -> None:
        """Forget everything: the links have ended."""
        self._pieces.clear()
        self._kept.clear()
        self._taken = self._sent = self._sealer.next

    def _seal(self) -> None:
        pieces: list[Buffer] = []
        size = 0
        while self._pieces and size < _ENTRY:
            piece = self._pieces.popleft()
            self._popped += 1
            if len(piece) > _ENTRY - size:
                view = memoryview(piece)
                piece = view[: _ENTRY - size]
                self._pieces.appendleft(view[_ENTRY - size :])
                self._popped -= 1
            pieces.append(piece)
            size += len(piece)
        message, signature = self._sealer.seal(pieces)
        self._kept.append((message, signature, self._popped))
