"""Entries of a stream as they lie in Redis: numbered per pair of workers, and signed with the key of the group.

Frames may hold pickles, and a Redis server may be open to others: what was not written by this group must not be read.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from sage_actor.errors import FrameError

__all__ = ["Sealer", "Unsealer"]

_NUMBER: Final = struct.Struct("<Q")
_PLACE: Final = struct.Struct("<QQQ")
_SIGNATURE: Final = 16
_HEAD: Final = _NUMBER.size + _SIGNATURE


def _signature(key: bytes, sender: int, receiver: int, number: int, content: bytes | memoryview) -> bytes:
    # Who to whom, and where in the order, are signed too: an entry cannot be repeated or moved to another stream.
    digest = blake2b(_PLACE.pack(sender, receiver, number), digest_size=_SIGNATURE, key=key)
    digest.update(content)
    return digest.digest()


class Sealer:
    """Numbers and signs what one worker sends to another."""

    __slots__ = ("_key", "_next", "_receiver", "_sender")

    def __init__(self, key: bytes, sender: int, receiver: int) -> None:
        self._key = key
        self._sender = sender
        self._receiver = receiver
        self._next = 0

    def seal(self, content: bytes | memoryview) -> bytes:
        """The entry that carries this content."""
        number = self._next
        self._next += 1
        return b"".join((_NUMBER.pack(number), _signature(self._key, self._sender, self._receiver, number, content), content))


class Unsealer:
    """Checks what arrives from one worker at another."""

    __slots__ = ("_key", "_next", "_receiver", "_sender")

    def __init__(self, key: bytes, sender: int, receiver: int) -> None:
        self._key = key
        self._sender = sender
        self._receiver = receiver
        self._next = 0

    def unseal(self, entry: bytes) -> memoryview:
        """The content of the next entry.

        Raises:
            FrameError: it was not written by this group, is damaged, or one before it is missing.
        """
        way = f"from worker {self._sender} to worker {self._receiver}"
        if len(entry) < _HEAD:
            raise FrameError(f"an entry {way} has only {len(entry)} bytes: it is damaged, or not ours")
        (number,) = _NUMBER.unpack_from(entry)
        content = memoryview(entry)[_HEAD:]
        signature = _signature(self._key, self._sender, self._receiver, number, content)
        if not compare_digest(signature, entry[_NUMBER.size : _HEAD]):
            raise FrameError(f"an entry {way} has a wrong signature: it is damaged, or not ours; does somebody else write to this server?")
        if number != self._next:
            raise FrameError(f"entry {self._next} {way} is missing: number {number} came instead; did somebody else delete or trim it?")
        self._next += 1
        return content
