"""A link to one other worker over a connected stream socket; large frames lie in shared memory, and only say so on the socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final, cast

from sage_actor.actor.backend import Buffer
from sage_actor.backends.frame_reader import HEADER, REFERRED, FrameReader
from sage_actor.backends.handler_errors import report_handler_error
from sage_actor.backends.segment_borrower import SegmentBorrower
from sage_actor.backends.segment_lender import SegmentLender
from sage_actor.errors import FrameError

__all__ = ["SocketLink", "open_link"]

_LARGE: Final = 32 * 1024
"""From this size on a segment is faster than the socket (docs/architecture.md has the figures)."""


class SocketLink(asyncio.BufferedProtocol):
    """Frames both ways, in order. Reads nothing until `start`; sends of one turn of the loop leave together."""

    def __init__(
        self, peer: int, lender: SegmentLender | None, borrower: SegmentBorrower | None, broken: Callable[[FrameError], None]
    ) -> None:
        """Get ready for `open_link`.

        Args:
            lender, borrower: our segments and the peer's; None where there are none.
            broken: called at most once, when a frame is lost though the peer lives; the link is cut then.
        """
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._lender = lender
        self._borrower = borrower
        self._on_broken = broken
        self._reader = FrameReader(peer, self._keep, self._refer)
        self._kept: list[memoryview] = []
        self._transport: asyncio.Transport | None = None
        self._pending: list[bytes] = []
        self._drained = asyncio.Event()
        self._drained.set()
        self._closed = asyncio.Event()
        self._torn: memoryview | None = None
        """Where bytes are thrown away once a frame did not fit into memory."""
        self._started = False
        self._ending = False
        self._when_closed: list[Callable[[], None]] = []

    def start(self, deliver: Callable[[memoryview], None]) -> None:
        """Begin reading. What the peer sent before lies in the kernel's buffer and the peer's, in order."""
        self._loop.call_soon(self._start, deliver)

    def _start(self, deliver: Callable[[memoryview], None]) -> None:
        if self._ending:
            return
        self._started = True
        self._reader.deliver = deliver
        kept, self._kept = self._kept, []
        for frame in kept:
            try:
                deliver(frame)
            except Exception as error:  # noqa: BLE001  the handler belongs to the layer above
                report_handler_error(self._peer, error)
        if self._transport is not None:
            self._transport.resume_reading()

    def _keep(self, frame: memoryview) -> None:
        self._kept.append(memoryview(bytes(frame)))

    def _refer(self, reference: memoryview) -> None:
        """A frame in shared memory, at its place among the others."""
        if self._borrower is None:
            self._break(FrameError(f"worker {self._peer} refers to shared memory, but there is none between us"))
            return
        try:
            frame = self._borrower.borrow(reference)
        except FrameError as error:
            self._break(error)
            return
        if self._started or self._ending:
            self._reader.deliver(frame)
        else:
            self._kept.append(frame)  # it is ours: no copy is needed

    def send(self, parts: Sequence[Buffer]) -> None:
        """Queue one frame for the end of this turn; dropped once the link is closed."""
        if self._transport is None or self._ending:
            return
        pending = self._pending
        if not pending:
            self._loop.call_soon(self._write)
        if self._lender is not None:
            sizes = [part.nbytes if isinstance(part, memoryview) else len(part) for part in parts]
            if sum(sizes) >= _LARGE:
                reference = self._lender.lend(parts, sizes)
                if reference is not None:
                    pending.append(HEADER.pack(REFERRED | len(reference)))
                    pending.append(reference)
                    return
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
        self._kept.clear()
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
            try:
                self._transport.writelines(pending)
            except MemoryError:
                self._break(FrameError(f"no memory to send {sum(map(len, pending))} bytes to worker {self._peer}"))

    def _break(self, error: FrameError) -> None:
        """A frame cannot go on or come in: nothing behind it may either, since a gap must not pass for an order."""
        if self._transport is None or self._ending:
            return
        self._reader.deliver = _throw_away
        self._reader.refer = _throw_away
        self.abort()
        self._on_broken(error)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Any byte that the kernel has not taken pauses writing: this is how flush knows.
        self._transport.set_write_buffer_limits(high=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._torn is not None:
            return self._torn
        try:
            return self._reader.room()
        except MemoryError:
            error = FrameError(f"no memory to receive a frame from worker {self._peer}; smaller batches may help")
            self._loop.call_soon(self._break, error)  # not now: uvloop is about to read
            self._torn = memoryview(bytearray(4096))
            return self._torn

    def buffer_updated(self, nbytes: int) -> None:
        if self._torn is None:
            self._reader.filled(nbytes)

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not isinstance(exc, ConnectionError):
            self._break(FrameError(f"the link to worker {self._peer} broke: {exc}"))
        self._transport = None
        self._pending.clear()
        self._drained.set()
        self._closed.set()
        for callback in self._when_closed:
            callback()
        self._when_closed.clear()


def _throw_away(frame: memoryview) -> None:
    """What a peer sends to a link that is ending reaches nobody."""


async def open_link(
    peer: int, end: socket.socket, lender: SegmentLender | None, borrower: SegmentBorrower | None, broken: Callable[[FrameError], None]
) -> SocketLink:
    """A link over one end of a connected socket, which it owns from here on."""
    end.setblocking(False)
    transport, link = await asyncio.get_running_loop().create_unix_connection(lambda: SocketLink(peer, lender, borrower, broken), sock=end)
    # Not in connection_made: uvloop begins to read after it, whatever it did. What it read meanwhile, the link has kept.
    transport.pause_reading()
    return link
