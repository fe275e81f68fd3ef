"""Reads a task's share of files. Blocks the thread: everything here runs off the loop, one call at a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from sage_actor.connectors.file_mark import FileMark
from sage_actor.connectors.file_position import FilePosition, changed
from sage_actor.connectors.file_splits import beginning
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
    """Goes through splits, one after the other, and in each through its files (or the pieces of its one file), block by block.

    Attributes:
        splits: what is read, as positions; at first the beginning of the share. Do not change it.
    """

    def __init__(self, options: FileSourceOptions, share: Share) -> None:
        self.splits: list[FilePosition] = [beginning(share)] if share.files else []
        self._options = options
        self._file: OpenFile | None = None
        self._path = ""
        self._number = -1
        self._files: list[str] = []
        self._piece: tuple[int, int, int] | None = None
        self._stop: int | None = None
        self._next_file = 0
        self._next_piece = 0
        self._bad_lines = 0
        self._failure: ConnectorError | None = None

    def haul(self) -> Haul:
        """The next blocks, about ``block_size`` bytes of them together, so that many small files need few calls."""
        blocks = deque[Block]()
        size, ended = 0, False
        while size < self._options.block_size and self._failure is None and not ended:
            try:
                if self._file is None or self._file.ended:
                    ended = not self._open_next(blocks)
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
            block.split = self._number
            blocks.append(block)
        return file.size

    def _open_next(self, blocks: deque[Block]) -> bool:
        """Go to the next file or piece, or to where the next split goes on; False after the last one."""
        if self._open_next_of_split():
            return True
        self.close()
        if self._number + 1 >= len(self.splits):
            return False
        self._number += 1
        self._enter(self.splits[self._number], blocks)
        return True

    def _open_next_of_split(self) -> bool:
        if self._piece is not None:
            _, count, size = self._piece
            if self._stop is not None and self._next_piece >= self._stop:
                return False
            if self._file is None:
                self._path = self._files[0]
                self._file = OpenFile(self._path, self._options)
            begin = self._next_piece * size
            self._next_piece += count
            if self._file.begin_piece(begin, begin + size):
                return True
            self._piece, self._files = None, []  # the file ends before it: nothing of this split is left
            return False
        self.close()
        if self._next_file == len(self._files):
            return False
        self._path = self._files[self._next_file]
        self._file = OpenFile(self._path, self._options)
        self._next_file += 1
        return True

    def assign(self, splits: list[FilePosition]) -> Haul:
        """Read these instead, before the first `haul`; goes to the first of them and returns what was read beyond it on the way.

        Raises:
            ConnectorError: the files are not what they were.
        """
        self.splits = splits
        self._bad_lines = sum(place["bad_lines"] for place in splits)
        present = set(list_files(self._options.paths, recursive=self._options.recursive)) if splits else set[str]()
        for place in splits:
            for lost in place["files"][place["files"].index(place["file"]) if place["file"] else 0 :]:
                if lost not in present:
                    raise changed(lost, "it is gone, or `path` no longer leads to it, and reading is to go on there")
        blocks = deque[Block]()
        if splits:
            self._number = 0
            try:
                self._enter(splits[0], blocks)
            except OSError as error:
                raise refused(self._path, error) from error
        return Haul(blocks, not splits, self._failure, self._bad_lines)

    def _enter(self, place: FilePosition, blocks: deque[Block]) -> None:
        piece = place["piece"]
        self._files, self._stop = place["files"], place["stop"]
        self._piece = (piece[0], piece[1], piece[2]) if piece is not None else None
        self._next_file, self._next_piece = 0, piece[0] if piece is not None else 0
        if place["file"]:
            self._resume_file(place, blocks)

    def _resume_file(self, place: FilePosition, blocks: deque[Block]) -> None:
        self._path, end, mark = place["file"], place["end"], place["mark"]
        file = self._file = OpenFile(self._path, self._options)
        if mark is not None:
            file.check(FileMark(*mark))
        self._next_file = self._files.index(self._path) + 1
        if self._piece is not None:
            _, count, size = self._piece
            end = (place["offset"] // size + 1) * size if end is None else end
            self._next_piece = end // size - 1 + count
        file.go_to(place["offset"], line=place["line"], origin=place["origin"], header=place["header"], end=end)
        left, own = place["skip"], deque[Block]()
        while left and not file.ended and self._failure is None:
            try:
                self._read_block(file, own)
            except ConnectorError as error:
                self._failure = error
            if own:
                own[0].taken = min(left, len(own[0].records))
                left -= own[0].taken
                if own[0].taken == len(own[0].records):
                    own.clear()
        if left:
            raise self._failure or changed(self._path, "it holds fewer records than were read from it")
        blocks.extend(own)

    def close(self) -> None:
        """Release the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None
