"""FileSource: records from text, CSV and JSON-lines files."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Unpack

from sage_actor import ports
from sage_actor.connectors.file_position import FilePosition, checked_position
from sage_actor.connectors.off_loop import OffLoop
from sage_actor.connectors.open_file import Block, BlockPlace
from sage_actor.connectors.options import FileSourceKeywords, FileSourceOptions
from sage_actor.connectors.paths import share_of
from sage_actor.connectors.share_reader import Haul, ShareReader
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.source import NOT_READY, NotReady, Source
from sage_actor.errors import ConnectorError

__all__ = ["FileSource"]

_REMEMBERED: Final = 64  # blocks whose addresses are kept


class FileSource(Source[Any]):
    """Reads files, line by line or row by row, and can go on at any record after a failure.

    Options come as one mapping or as keywords; an unknown or ill-typed one raises `ConfigError` at once.

    Args:
        path: a file, a glob (``**`` for folders of any depth), a folder (its regular, not hidden files, sorted), or a list
            of these. A file that is named twice is read once.
        format: "text": a record is a line (str) without its newline, ``\\n`` or ``\\r\\n``, also the last one without any,
            also an empty one. "csv": a row; blank lines are passed over. "jsonl": a JSON value per line; likewise.
        compression: "auto" (by the end of the name: .gz .lz4 .zst), "none", "gzip", "lz4" or "zstd".
        encoding: any that contains ASCII; default UTF-8, whose byte order mark is dropped.
        batch_size: records returned by one read at most (1000).
        prefetch: read and decode the next block while the present one is processed (False).
        recursive: also the folders inside of a folder, except hidden ones (False).
        on_bad_line: "fail" (default): a line that cannot be understood raises `ConnectorError` with file and line, after
            the records before it were returned; "skip": it is passed over, counted in `bad_lines` and logged at the end.
        delimiter: of CSV (",").
        header: of CSV. True (default): the first row names the columns and rows become dicts. False: rows become lists.
        columns: of CSV: names for a file without header. With an explicit ``header=True`` they replace its names.
        block_size: bytes read at a time (256 KiB); max_record_size: longest line or row (64 MiB); split_size: piece of a
            file that several tasks share (64 KiB).

    At parallelism n the files are dealt by turns, in order. A single uncompressed file of text or JSON lines is shared
    piece by piece; any other single file is read by task 0. Every record is read by exactly one task.

    Reading, decompressing and decoding happen off the event loop. Reads return records in the order of the files.
    A cancelled read loses nothing. A file may grow while it is read; it must not change otherwise.
    """

    bounded = True

    def __init__(self, options: Mapping[str, object] | None = None, /, **keywords: Unpack[FileSourceKeywords]) -> None:
        self._options = FileSourceOptions.parse(options, keywords)
        self._reader: ShareReader | None = None
        self._call: OffLoop[Haul] = OffLoop()
        self._blocks: deque[Block] = deque()
        self._recent: deque[tuple[int, BlockPlace]] = deque(maxlen=_REMEMBERED)
        self._place: BlockPlace | None = None
        self._taken = 0  # records of the block at `_place` that were returned
        self._start: FilePosition | None = None
        self._ended = False
        self._failure: ConnectorError | None = None
        self._returned = 0
        self._bad_lines = 0
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def bad_lines(self) -> int:
        """How many lines were passed over so far (``on_bad_line="skip"``), those in blocks read ahead included."""
        return self._bad_lines

    async def open(self, context: FunctionContext) -> None:
        """Find the files. Raises `ConnectorError` if a path leads nowhere."""
        options, index, count = self._options, context.subtask_index, context.parallelism
        self._reader = ShareReader(options, await ports.offload(lambda: share_of(options, index, count)))
        self._logger = context.logger
        if not self._reader.share.files and index == 0:
            context.logger.warning("%s: no files here, so there is nothing to read", ", ".join(options.paths))

    async def read(self, limit: int) -> Sequence[Any] | None:
        """Return up to ``limit`` (and ``batch_size``) records; None at the end. A cancelled read loses nothing."""
        while True:
            records = self.read_nowait(limit)
            if not isinstance(records, NotReady):
                return records
            if not self._call.started:
                self._call.start(self._opened().haul)
            await self._call.wait()

    def read_nowait(self, limit: int) -> Sequence[Any] | NotReady | None:
        """Like `read`, from blocks that are at hand."""
        if not self._blocks and self._call.ready:
            self._take_haul()
        if self._blocks:
            return self._take_records(min(limit, self._options.batch_size))
        if self._failure is not None:
            raise self._failure
        return None if self._ended else NOT_READY

    def _take_haul(self) -> None:
        haul = self._call.take()
        self._blocks = haul.blocks
        self._ended, self._failure, self._bad_lines = haul.ended, haul.failure, haul.bad_lines
        if self._options.prefetch and not haul.ended and haul.failure is None:
            self._call.start(self._opened().haul)
        if haul.ended and haul.bad_lines and self._logger is not None:
            self._logger.warning("%s: passed over %d bad lines", ", ".join(self._options.paths), haul.bad_lines)

    def _take_records(self, limit: int) -> Sequence[Any]:
        records: list[object] = []
        while self._blocks and len(records) < limit:
            block = self._blocks[0]
            if block.place is not self._place:
                self._place = block.place
                self._recent.append((self._returned + len(records) - block.taken, block.place))
            begin, room = block.taken, limit - len(records)
            whole = begin == 0 and len(block.records) <= room
            portion = block.records if whole else block.records[begin : begin + room]
            self._taken = block.taken = begin + len(portion)
            if block.taken == len(block.records):
                self._blocks.popleft()
            records = [*records, *portion] if records else portion
        self._returned += len(records)
        return records

    def position(self) -> FilePosition:
        """The place after the last record returned, as plain data."""
        place = self._place
        if place is None:
            return self._start if self._start is not None else self._beginning()
        share = self._opened().share
        return {
            "file": place.file,
            "offset": place.offset,
            "skip": self._taken,
            "line": place.line,
            "origin": place.origin,
            "header": place.header,
            "records": self._returned,
            "bad_lines": place.bad_before,
            "files": share.files,
            "piece": list(share.piece) if share.piece is not None else None,
        }

    def _beginning(self) -> FilePosition:
        share = self._opened().share
        piece = list(share.piece) if share.piece is not None else None
        return {
            "file": "",
            "offset": 0,
            "skip": 0,
            "line": 0,
            "origin": 0,
            "header": None,
            "records": 0,
            "bad_lines": 0,
            "files": share.files,
            "piece": piece,
        }

    async def seek(self, position: object) -> None:
        """Go on at a position: plain files by its byte offset, compressed ones by decompressing what precedes it.

        The share of files is taken from the position, so files that have come since are not read.

        Raises:
            ConnectorError: it is not a position of this source, or a file is gone, shorter or otherwise not what it was.
        """
        place = checked_position(position)
        self._call.start(partial(self._opened().resume, place))
        await self._call.wait()
        self._take_haul()
        self._start = place
        self._returned = place["records"]

    def address(self, index: int) -> str:
        """ "path:line" of this task's record number ``index`` (from 0), or "" if it is not among the last 64 blocks.

        Within a shared file only the first piece knows line numbers; in others they count from a byte that is named.
        """
        for first, block in reversed(self._recent):
            if index >= first:
                return block.address(index - first) if index < self._returned else ""
        return ""

    def _opened(self) -> ShareReader:
        if self._reader is None:
            raise ConnectorError(", ".join(self._options.paths), "the file source is not open", "await open(context) first")
        return self._reader

    async def close(self) -> None:
        """Close the file; waits for a read that is under way."""
        reader, self._reader = self._reader, None
        self._blocks.clear()
        if reader is not None:
            await self._call.finish(reader.close)
