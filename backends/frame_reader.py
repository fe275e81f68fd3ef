"""From a stream of bytes back to frames: each frame is its length (8 bytes, little endian), then its content.

A link may set the highest bit of the length: then the content is not a frame, but says where one is found.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from sage_actor.backends.handler_errors import report_handler_error

__all__ = ["HEADER", "REFERRED", "FrameReader"]

HEADER: Final = struct.Struct("<Q")
REFERRED: Final = 1 << 63
"""Added to the length where the content is a reference."""
_KEPT: Final = 256 * 1024


class FrameReader:
    """Collects bytes and hands out each complete frame as a view into its own buffer, valid during the call only.

    Holds one buffer of 256 KiB, and a larger one only while a larger frame is on its way.
    """

    __slots__ = ("_buffer", "_end", "_needed", "_sender", "_start", "deliver", "refer")

    def __init__(self, sender: int, deliver: Callable[[memoryview], None], refer: Callable[[memoryview], None] | None = None) -> None:
        self._sender = sender
        self.deliver = deliver
        """Who gets the frames; may be replaced between two calls."""
        self.refer = refer
        """Who gets references, in their place among the frames; None on links that have none."""
        self._buffer = memoryview(bytearray(_KEPT))
        self._start = 0  # first byte not handed out yet
        self._end = 0  # first free byte
        self._needed = 0  # size, header included, of the frame that is on its way; 0 when not even its header is complete

    def room(self) -> memoryview:
        """The free part of the buffer, never empty; fill it from its beginning, then call `filled`."""
        buffer = self._buffer
        waiting = self._end - self._start
        if not waiting:
            self._start = self._end = 0
            if len(buffer) > _KEPT:
                self._buffer = buffer = memoryview(bytearray(_KEPT))
        elif self._start + self._needed > len(buffer) or self._end == len(buffer):
            size = max(_KEPT, self._needed)
            target = buffer if size <= len(buffer) else memoryview(bytearray(size))
            target[:waiting] = buffer[self._start : self._end]
            self._buffer = buffer = target
            self._start, self._end = 0, waiting
        return buffer[self._end :]

    def filled(self, size: int) -> None:
        """Take note of `size` new bytes in the room, and hand out every frame that they complete, in order."""
        self._end += size
        if self._needed > self._end - self._start:
            return
        self._hand_out(self._buffer, self._end)

    def feed(self, data: memoryview) -> None:
        """Take bytes from elsewhere. Frames that lie whole in `data` are handed out without being copied."""
        view = data
        if self._start == self._end:
            self._start = 0
            self._end = 0
            self._hand_out(view, len(view))
            view = view[self._start :]
            self._start = 0
        while view:
            room = self.room()
            size = min(len(room), len(view))
            room[:size] = view[:size]
            view = view[size:]
            self.filled(size)

    def _hand_out(self, buffer: memoryview, end: int) -> None:
        start = self._start
        while end - start >= 8:
            (size,) = HEADER.unpack_from(buffer, start)
            take = self.deliver  # read anew: a handler may have cut the link
            if size >= REFERRED and self.refer is not None:
                take = self.refer
                size -= REFERRED
            stop = start + 8 + size
            if stop > end:
                self._needed = 8 + size
                return
            try:
                take(buffer[start + 8 : stop])
            except Exception as error:  # noqa: BLE001  the handler belongs to the layer above; the link must survive it
                report_handler_error(self._sender, error)
            self._start = start = stop
        self._needed = 0
