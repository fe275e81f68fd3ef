"""A link to one other worker over a connected stream socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import cast

from sage_actor.actor.backend import Buffer
from sage_actor.backends.frame_reader import HEADER, FrameReader
from sage_actor.backends.handler_errors import report_handler_error

__all__ = ["SocketLink", "open_link"]


class SocketLink(asyncio.BufferedProtocol):
    """Frames both ways, in order. Reads nothing until `start`; sends of one turn of the loop leave together."""

    def __init__(self, peer: int) -> None:
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(peer, self._keep)
        self._kept: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._pending: list[bytes] = []
        self._drained = asyncio.Event()
        self._drained.set()
        self._closed = asyncio.Event()
        self._ending = False
        self._when_closed: list[Callable[[], None]] = []

    def start(self, deliver: Callable[[memoryview], None]) -> None:
        """Begin reading. What the peer sent before lies in the kernel's buffer and the peer's, in order."""
        self._loop.call_soon(self._start, deliver)

    def _start(self, deliver: Callable[[memoryview], None]) -> None:
        if self._ending:
            return
        self._reader.deliver = deliver
        kept, self._kept = self._kept, []
        for frame in kept:
            try:
                deliver(memoryview(frame))
            except Exception as error:  # noqa: BLE001  the handler belongs to the layer above
                report_handler_error(self._peer, error)
        if self._transport is not None:
            self._transport.resume_reading()

    def _keep(self, frame: memoryview) -> None:
        self._kept.append(bytes(frame))

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one frame for the end of this turn; dropped once the link is closed."""
        if self._transport is None or self._ending:
            return
        pending = self._pending
        if not pending:
            self._loop.call_soon(self._write)
        content = b"".join(parts)  # a copy, unless it is one bytes object: callers may reuse what they passed
        pending.append(HEADER.pack(len(content)))
        pending.append(content)

    async def flush(self) -> None:
        """Return when the kernel has taken everything, or the link is closed."""
        self._write()
        await self._drained.wait()

    def end(self) -> None:
        """Say that nothing more comes, and read on only to throw away, until the peer closes too.

        Closing at once would break the peer's pending write, and with it the peer would lose what we sent but it has not
        read yet. Call `flush` first. Idempotent.
        """
        transport = self._transport
        if transport is None or self._ending:
            return
        self._ending = True
        self._reader.deliver = _throw_away
        transport.write_eof()
        transport.resume_reading()

    def abort(self) -> None:
        """Close without flushing. Idempotent."""
        transport, self._transport = self._transport, None
        self._pending.clear()
        if transport is not None:
            transport.abort()

    async def wait_closed(self) -> None:
        """Return when the socket is really closed."""
        await self._closed.wait()

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call back once the peer has closed and everything it sent has been delivered; now if that is so already."""
        if self._closed.is_set():
            callback()
        else:
            self._when_closed.append(callback)

    def _write(self) -> None:
        pending = self._pending
        if pending and self._transport is not None:
            self._pending = []
            self._transport.writelines(pending)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Any byte that the kernel has not taken pauses writing: this is how flush knows.
        self._transport.set_write_buffer_limits(high=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._reader.filled(nbytes)

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pending.clear()
        self._drained.set()
        self._closed.set()
        for callback in self._when_closed:
            callback()
        self._when_closed.clear()


def _throw_away(frame: memoryview) -> None:
    """What a peer sends to a link that is ending reaches nobody."""


async def open_link(peer: int, end: socket.socket) -> SocketLink:
    """A link over one end of a connected socket, which it owns from here on."""
    end.setblocking(False)
    transport, link = await asyncio.get_running_loop().create_unix_connection(lambda: SocketLink(peer), sock=end)
    # Not in connection_made: uvloop begins to read after it, whatever it did. What it read meanwhile, the link has kept.
    transport.pause_reading()
    return link
