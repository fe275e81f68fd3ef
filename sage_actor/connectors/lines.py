"""Cuts a file into blocks of whole lines. Blocks the thread; runs off the loop."""

from __future__ import annotations

from sage_actor.connectors.compression import ByteReader
from sage_actor.errors import ConnectorError

__all__ = ["LineBlocks", "LineTooLong"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TAIL = 4096  # portion read beyond the end of a piece, to complete its last line


class LineTooLong(Exception):
    """Internal: no newline within the bound. Whoever knows the line's number makes a `ConnectorError` of it."""


class LineBlocks:
    """Blocks of whole lines of one file, from ``offset`` on, up to and with the line that contains byte ``end`` - 1.

    Attributes:
        offset: where the next block starts, in the decompressed content. Always the beginning of a line.
        end: None for the end of the file.
        ended: whether the end of the file was met, so that no block follows the last one.
    """

    __slots__ = ("_block_size", "_carry", "_limit", "_reader", "end", "ended", "offset")

    def __init__(self, reader: ByteReader, *, block_size: int, limit: int, offset: int = 0, end: int | None = None) -> None:
        self._reader = reader
        self._block_size = block_size
        self._limit = limit
        self._carry = b""
        self.offset = offset
        self.end = end
        self.ended = False

    def skip_byte_order_mark(self) -> None:
        """Drop the UTF-8 mark at the beginning of a file."""
        while len(self._carry) < len(_BYTE_ORDER_MARK) and (data := self._reader.read(self._block_size)):
            self._carry += data
        if self._carry.startswith(_BYTE_ORDER_MARK):
            self._carry = self._carry[len(_BYTE_ORDER_MARK) :]
            self.offset += len(_BYTE_ORDER_MARK)

    def skip_line(self) -> None:
        """Drop everything through the first newline, or through ``end`` if there is none before it."""
        while self.end is None or self.offset < self.end:
            data = self._reader.read(self._block_size)
            cut = data.find(b"\n") + 1
            self.offset += cut or len(data)
            self._carry = data[cut:] if cut else b""
            if cut or not data:
                return

    def next_block(self, at_least: int = 0) -> bytes:
        """The next whole lines, if possible of ``at_least`` bytes together; b"" at the end.

        Only the last line of the file may lack its newline.

        Raises:
            LineTooLong: a line exceeds the limit.
            ConnectorError: the file is damaged; everything before was returned.
        """
        if self.end is not None and self.offset >= self.end:
            return b""
        pieces, size = [self._carry], len(self._carry)
        whole = self._carry.rfind(b"\n") + 1  # so many of the bytes are whole lines
        complete = False
        while not complete:
            try:
                data = self._reader.read(self._portion(size))
            except (ConnectorError, OSError):
                if whole <= at_least:
                    raise
                break  # the whole lines before the damage come first; the next call meets it again
            if not data:
                whole, self.ended = size, True
                break
            pieces.append(data)
            if cut := data.rfind(b"\n") + 1:
                whole = size + cut
            size += len(data)
            complete = whole > 0 and size >= at_least
            if not complete and size - whole > self._limit:
                if whole <= at_least:
                    raise LineTooLong
                break
        joined = b"".join(pieces)
        block, self._carry = joined[:whole], joined[whole:]
        if self.end is not None and self.offset + len(block) > self.end:
            # A block ends with a newline or with the file, so that the line across `end` is complete in it.
            cut = block.find(b"\n", self.end - 1 - self.offset) + 1
            block = block[: cut or len(block)]
        self.offset += len(block)
        return block

    def put_back(self, tail: bytes) -> None:
        """Give back the end of the last block: whole lines whose record continues in the next one."""
        self._carry = tail + self._carry
        self.offset -= len(tail)

    def _portion(self, size: int) -> int:
        if self.end is None:
            return self._block_size
        left = self.end - self.offset - size
        return min(left, self._block_size) if left > 0 else _TAIL
