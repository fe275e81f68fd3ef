"""FileSource: records from text, CSV and JSON-lines files."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Unpack

from sage_actor import ports
from sage_actor.connectors.compression import compression_of
from sage_actor.connectors.file_position import FilePosition, checked_position
from sage_actor.connectors.file_splits import beginning, divided
from sage_actor.connectors.off_loop import OffLoop
from sage_actor.connectors.open_file import Block, BlockPlace
from sage_actor.connectors.options import FileSourceKeywords, FileSourceOptions
from sage_actor.connectors.paths import Share, share_of
from sage_actor.connectors.share_reader import Haul, ShareReader
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.source import NOT_READY, NotReady, Source
from sage_actor.errors import ConnectorError

__all__ = ["FileSource"]

_REMEMBERED: Final = 64  # blocks whose addresses are kept
_PARTS: Final = 8  # into so many what is left is divided, so that more tasks than before find something to read


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
    A cancelled read loses nothing. A file may grow while it is read; it must not change otherwise. Each task looks for the
    files once, when it opens; a job that is restored reads those that it found first, at any parallelism, and no others. A
    file that has shrunk since, or begins otherwise, is refused.
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
        self._split = 0  # number of the split it is of
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
        if not self._reader.splits and index == 0:
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
                self._place, self._split = block.place, block.split
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
        """The place after the last record returned, with what is read after it, as plain data."""
        first, *more = self._left() or [beginning(Share([]))]
        return {**first, "records": self._returned, "more": more}

    def splits(self) -> list[FilePosition]:
        """What is left to read, at the time of the last record returned, in up to eight parts that follow one another.

        Whole files stay together; a plain file of text or JSON lines is divided where it is the last one left.
        """
        if self._ended and not self._blocks and self._failure is None:
            return []
        left = self._left()
        if not left:
            return []
        options, place = self._options, self._place
        split_size, reached = None, 0
        if place is not None:
            reached = place.offset + place.length
            if options.format != "csv" and compression_of(place.file, options.compression) == "none":
                split_size = options.split_size
        return [*divided(left[0], ways=_PARTS - len(left) + 1, split_size=split_size, reached=reached), *left[1:]]

    def _left(self) -> list[FilePosition]:
        splits, place = self._opened().splits, self._place
        if place is None:
            return list(splits)
        share = splits[self._split]
        here: FilePosition = {
            **share,
            "file": place.file,
            "offset": place.offset,
            "skip": self._taken,
            "line": place.line,
            "origin": place.origin,
            "header": place.header,
            "records": 0,
            "bad_lines": place.bad_before,
            "end": place.end if share["piece"] is not None else None,
            "mark": [place.mark.size, place.mark.head, place.mark.checksum],
        }
        # The count of bad lines goes on from that of all splits that were assigned; it must not be counted again with them.
        more: list[FilePosition] = [{**later, "bad_lines": 0} for later in splits[self._split + 1 :]]
        return [here, *more]

    async def seek(self, position: object) -> None:
        """Go on at a position: plain files by its byte offset, compressed ones by decompressing what precedes it.

        The share of files is taken from the position, so files that have come since are not read.

        Raises:
            ConnectorError: it is not a position of this source, or a file is gone, shorter or otherwise not what it was.
        """
        place = checked_position(position)
        splits: list[FilePosition] = [{**place, "more": []}, *place["more"]]
        await self._assign([split for split in splits if split["files"]])
        self._returned = place["records"]

    async def assign(self, splits: Sequence[object]) -> None:
        """Read exactly these, in their order; those of several former tasks one after the other.

        Raises:
            ConnectorError: one is not a split of this source, or a file is gone, shorter or otherwise not what it was.
        """
        await self._assign([checked_position(split) for split in splits])

    async def _assign(self, splits: list[FilePosition]) -> None:
        self._call.start(partial(self._opened().assign, splits))
        await self._call.wait()
        self._take_haul()

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
