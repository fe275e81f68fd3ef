"""Frames over one TCP connection: who sends, who is to get it, how long it is, then the bytes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import cast

from sage_actor.actor.backend import Buffer

__all__ = ["HELLO", "READY", "Link"]

_HEADER = struct.Struct("<iiQ")
HELLO = -1
"""In the place of the receiver: the first frame of a worker, which carries the token."""
READY = -2
"""In the place of the receiver: the entry is imported."""


class Link(asyncio.Protocol):
    """`arrived(sender, receiver, frame)` is called for each frame, in order; `over` once, when the other side has closed."""

    def __init__(self, arrived: Callable[[Link, int, int, memoryview], None], over: Callable[[Link], None]) -> None:
        self._arrived = arrived
        self._over = over
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._room = asyncio.Event()
        self._room.set()
        self.closed = asyncio.Event()

    def send(self, sender: int, receiver: int, parts: Sequence[Buffer]) -> None:
        """Queue a frame; dropped when the connection is closed."""
        if self._transport is not None:
            content = b"".join(parts)  # a copy of what the caller may change
            self._transport.writelines([_HEADER.pack(sender, receiver, len(content)), content])

    async def flush(self) -> None:
        """Return when the kernel has taken everything, or the connection is closed."""
        await self._room.wait()

    def end(self) -> None:
        """Say that nothing more comes, and read on until the other side closes: what it has not read yet would be lost otherwise."""
        if self._transport is not None:
            self._transport.write_eof()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)  # so that a single waiting byte is told, and `flush` knows

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        begin = 0
        while len(received) - begin >= _HEADER.size:
            sender, receiver, size = _HEADER.unpack_from(received, begin)
            end = begin + _HEADER.size + size
            if end > len(received):
                break
            self._arrived(self, sender, receiver, memoryview(bytes(received[begin + _HEADER.size : end])))
            begin = end
        del received[:begin]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._room.set()
        self.closed.set()
        self._over(self)
