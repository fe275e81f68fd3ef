"""One open file as blocks of records. Blocks the thread; runs off the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sage_actor.connectors.compression import compression_of, open_reader
from sage_actor.connectors.decoding import Decoder, JsonLinesDecoder, TextDecoder
from sage_actor.connectors.file_mark import FileMark
from sage_actor.connectors.file_position import changed, place_of
from sage_actor.connectors.lines import LineBlocks, LineTooLong
from sage_actor.connectors.options import FileSourceOptions
from sage_actor.errors import ConnectorError

__all__ = ["Block", "BlockPlace", "OpenFile"]


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where a block begins, and where in it each record does. ``line_numbers``: see `Decoded`; the rest: see `FilePosition`."""

    file: str
    offset: int
    line: int
    origin: int
    header: list[str] | None
    bad_before: int
    line_numbers: Sequence[int] | None
    mark: FileMark
    end: int | None
    length: int  # bytes of the block

    def address(self, index: int) -> str:
        """File and line of the record at ``index``."""
        line = index if self.line_numbers is None else self.line_numbers[index]
        return place_of(self.file, self.line + line, self.origin)


@dataclass(slots=True)
class Block:
    """Records of one file that were decoded together. ``taken`` says how many of them were returned already."""

    records: list[object]
    place: BlockPlace
    taken: int = 0
    split: int = 0  # number of the split it is of, among those of its reader


class OpenFile:
    """A file, opened at its beginning; `go_to` and `begin_piece` say where to read instead, before the first `next_block`.

    Attributes:
        ended: nothing is left to read.
        size: bytes used by the last block.
        bad: bad lines passed over in the last block.
        failure: what ended the reading before its time; the last block holds the records before.
    """

    def __init__(self, path: str, options: FileSourceOptions) -> None:
        """Raises `OSError`."""
        self.ended = False
        self.size = 0
        self.bad = 0
        self.failure: ConnectorError | None = None
        self._path = path
        self._options = options
        self._compression = compression_of(path, options.compression)
        self._mark = FileMark.of(path)
        self._reader = open_reader(path, self._compression)
        self._lines = self._make_lines(0, None)
        self._decoder = self._make_decoder(None)
        self._line = 0
        self._origin = 0
        self._at_least = 0
        self._fresh = options.encoding == "utf-8"  # a byte order mark may come

    def _make_lines(self, offset: int, end: int | None) -> LineBlocks:
        options = self._options
        return LineBlocks(self._reader, block_size=options.block_size, limit=options.max_record_size, offset=offset, end=end)

    def _make_decoder(self, header: Sequence[str] | None) -> Decoder:
        options = self._options
        if options.format == "text":
            return TextDecoder(options.encoding, skip_bad=options.skip_bad_lines)
        if options.format == "jsonl":
            return JsonLinesDecoder(options.encoding, skip_bad=options.skip_bad_lines)
        from sage_actor.connectors.csv_decoding import CsvDecoder

        return CsvDecoder(
            self._path,
            options.encoding,
            skip_bad=options.skip_bad_lines,
            delimiter=options.delimiter,
            header=options.header,
            columns=options.columns,
            max_record_size=options.max_record_size,
            resumed=header,
        )

    def begin_piece(self, begin: int, end: int) -> bool:
        """Read the lines that begin at ``begin`` or later, before ``end``; False if the file ends before ``begin``."""
        self.ended = False
        if begin == 0:
            self._lines.end = end
            return True
        # The byte before the piece tells whether a line begins with it.
        if not self._reader.seek(begin - 1):
            return False
        self._fresh = False
        self._lines = self._make_lines(begin - 1, end)
        self._lines.skip_line()
        self._line, self._origin = 0, self._lines.offset
        return True

    def check(self, mark: FileMark) -> None:
        """Raises `ConnectorError` if the file is not the one that was marked, grown at most."""
        problem = self._mark.difference(self._path, mark)
        if problem:
            raise changed(self._path, problem)

    def go_to(self, offset: int, *, line: int, origin: int, header: Sequence[str] | None, end: int | None) -> None:
        """Read from ``offset`` on, where a block began before. Raises `ConnectorError` if none can begin there now."""
        if offset:
            plain = self._compression == "none"
            if not self._reader.seek(offset - 1 if plain else offset):
                raise changed(self._path, f"it ends before byte {offset}, where reading is to go on")
            # The byte before must end a line still: cheap, and it tells most files that were written anew.
            if plain and self._reader.read(1) != b"\n" and offset != len(b"\xef\xbb\xbf"):
                raise changed(self._path, f"no line begins at byte {offset}, where reading is to go on")
            self._fresh = False
        self._lines = self._make_lines(offset, end)
        self._line, self._origin = line, origin
        self._decoder = self._make_decoder(header)

    def next_block(self, bad_before: int) -> Block | None:
        """The next records; None if this stretch of the file holds none. Look at `ended` and `failure` after each call.

        Raises:
            OSError, ConnectorError: the file cannot be read or understood here; no records precede that.
        """
        lines, decoder = self._lines, self._decoder
        if self._fresh:
            lines.skip_byte_order_mark()
            self._fresh = False
        offset, line, header = lines.offset, self._line, decoder.header
        self.bad = self.size = 0
        try:
            data = lines.next_block(self._at_least)
        except LineTooLong:
            where = place_of(self._path, line, self._origin)
            reason = f"a line is longer than {self._options.max_record_size} bytes"
            raise ConnectorError(where, reason, "is this a file of lines? Otherwise raise max_record_size") from None
        if not data:
            self.ended = True
            return None
        decoded = decoder.decode(data, last=lines.ended)
        if decoded.used < len(data):
            lines.put_back(data[decoded.used :])
        # A row that fills the whole block: look at twice as much, so that the work stays linear in its length.
        self._at_least = 0 if decoded.used else 2 * len(data)
        self._line += decoded.lines
        self.size, self.bad = decoded.used, decoded.bad
        if decoded.failure:
            where = place_of(self._path, line + decoded.failed_line, self._origin)
            hint = "mend the line, or pass over such lines with on_bad_line='skip'"
            self.failure = ConnectorError(where, f"the line {decoded.failure}", hint)
        if not decoded.records:
            return None
        place = BlockPlace(
            self._path, offset, line, self._origin, header, bad_before, decoded.line_numbers, self._mark, lines.end, decoded.used
        )
        return Block(decoded.records, place)

    def close(self) -> None:
        """Release the file."""
        self._reader.close()
