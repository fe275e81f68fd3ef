"""Reads a task's share of files. Blocks the thread: everything here runs off the loop, one call at a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from sage_actor.connectors.file_position import FilePosition, changed
from sage_actor.connectors.open_file import Block, OpenFile
from sage_actor.connectors.options import FileSourceOptions
from sage_actor.connectors.paths import Share, list_files, refused
from sage_actor.errors import ConnectorError

__all__ = ["Haul", "ShareReader"]


@dataclass(slots=True)
class Haul:
    """What one call off the loop brings home: blocks, then perhaps the end or an error.

    Attributes:
        bad_lines: how many lines the reader has passed over so far, in all.
    """

    blocks: deque[Block] = field(default_factory=lambda: deque[Block]())
    ended: bool = False
    failure: ConnectorError | None = None
    bad_lines: int = 0


class ShareReader:
    """Goes through the files (or the pieces of the one file) of a share, block by block."""

    def __init__(self, options: FileSourceOptions, share: Share) -> None:
        self.share = share
        self._options = options
        self._file: OpenFile | None = None
        self._path = ""
        self._next_file = 0
        self._next_piece = share.piece[0] if share.piece is not None else 0
        self._bad_lines = 0
        self._failure: ConnectorError | None = None

    def haul(self) -> Haul:
        """The next blocks, about ``block_size`` bytes of them together, so that many small files need few calls."""
        blocks = deque[Block]()
        size, ended = 0, False
        while size < self._options.block_size and self._failure is None and not ended:
            try:
                if self._file is None or self._file.ended:
                    ended = not self._open_next()
                else:
                    size += self._read_block(self._file, blocks)
            except ConnectorError as error:
                self._failure = error
            except OSError as error:
                self._failure = refused(self._path, error)
        return Haul(blocks, ended, self._failure, self._bad_lines)

    def _read_block(self, file: OpenFile, blocks: deque[Block]) -> int:
        block = file.next_block(self._bad_lines)
        self._bad_lines += file.bad
        self._failure = file.failure
        if block is not None:
            blocks.append(block)
        return file.size

    def _open_next(self) -> bool:
        """Go to the next file or piece; False at the end of the share."""
        if self.share.piece is not None:
            _, count, size = self.share.piece
            if self._file is None:
                self._path = self.share.files[0]
                self._file = OpenFile(self._path, self._options)
            begin = self._next_piece * size
            self._next_piece += count
            return self._file.begin_piece(begin, begin + size)
        self.close()
        if self._next_file == len(self.share.files):
            return False
        self._path = self.share.files[self._next_file]
        self._file = OpenFile(self._path, self._options)
        self._next_file += 1
        return True

    def resume(self, place: FilePosition) -> Haul:
        """Go to a place, before the first `haul`; returns what was read beyond it on the way.

        Raises:
            ConnectorError: the files are not what they were.
        """
        files, piece, path = place["files"], place["piece"], place["file"]
        self.share = Share(files, (piece[0], piece[1], piece[2]) if piece is not None else None)
        self._next_file = files.index(path) if path else 0
        self._next_piece = piece[0] if piece is not None else 0
        self._bad_lines = place["bad_lines"]
        present = set(list_files(self._options.paths, recursive=self._options.recursive))
        for lost in files[self._next_file :]:
            if lost not in present:
                raise changed(lost, "it is gone, or `path` no longer leads to it, and reading is to go on there")
        blocks = deque[Block]()
        if path:
            try:
                self._resume_file(place, blocks)
            except OSError as error:
                raise refused(path, error) from error
        return Haul(blocks, failure=self._failure, bad_lines=self._bad_lines)

    def _resume_file(self, place: FilePosition, blocks: deque[Block]) -> None:
        self._path, offset, piece = place["file"], place["offset"], self.share.piece
        file = self._file = OpenFile(self._path, self._options)
        self._next_file += 1
        end = None
        if piece is not None:
            self._next_piece = offset // piece[2] + piece[1]
            end = (offset // piece[2] + 1) * piece[2]
        file.go_to(offset, line=place["line"], origin=place["origin"], header=place["header"], end=end)
        left = place["skip"]
        while left and not file.ended and self._failure is None:
            try:
                self._read_block(file, blocks)
            except ConnectorError as error:
                self._failure = error
            if blocks:
                block = blocks[0]
                block.taken = min(left, len(block.records))
                left -= block.taken
                if block.taken == len(block.records):
                    blocks.clear()
        if left:
            raise self._failure or changed(self._path, "it holds fewer records than were read from it")

    def close(self) -> None:
        """Release the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None
