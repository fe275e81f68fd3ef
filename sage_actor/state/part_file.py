"""The file of entry slices: a header, blocks with checksums, and an end that tells whether all of them are there.

    magic, format version, length of the header | header (JSON) | crc32 of the header
    then blocks: kind, place in the directory, length, crc32 | pickle
    the last one of kind END, whose place is the number of blocks before it

Lists stand before tables, so that a reader who needs only lists can stop early.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from sage_actor.errors import CheckpointDamaged, StateError
from sage_actor.state.parts import FileRef, PartStorage, TableInfo
from sage_actor.state.pickling import load

__all__ = ["ENTRIES", "LIST", "FileHeader", "PartBlock", "encode_block", "encode_end", "encode_header", "read_part_file"]

MAGIC: Final = b"sageform"
FORMAT: Final = 1
LIST: Final = 1
"""Kind of a block that holds all items of a list."""
ENTRIES: Final = 2
"""Kind of a block that holds a slice of a table."""
END: Final = 3

_START: Final = struct.Struct(">8sHI")
_CHECK: Final = struct.Struct(">I")
_BLOCK: Final = struct.Struct(">BIII")
_PLACE: Final = struct.Struct(">BI")


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What a file says of itself.

    Attributes:
        uid, checkpoint, index: whose state it is, of when, and of which task.
        full: whether it holds everything, or what changed since the file before it.
        tables: the directory: lists and tables in it, by name.
    """

    uid: str
    checkpoint: int
    index: int
    full: bool
    tables: dict[str, TableInfo]


class PartBlock(NamedTuple):
    """One block: all items of a list, or a slice of the entries of a table."""

    kind: int
    name: str
    content: list[Any]


def encode_header(header: FileHeader) -> bytes:
    """The first bytes of a file."""
    body = msgspec.json.encode(header)
    return _START.pack(MAGIC, FORMAT, len(body)) + body + _CHECK.pack(crc32(body))


def encode_block(kind: int, place: int, body: bytes) -> bytes:
    """One block.

    Args:
        kind: `LIST` or `ENTRIES`.
        place: of the table or list in the header's directory.
        body: its pickled content.
    """
    return _BLOCK.pack(kind, place, len(body), _check(kind, place, body)) + body


def _check(kind: int, place: int, body: bytes) -> int:
    return crc32(body, crc32(_PLACE.pack(kind, place)))


def encode_end(blocks: int) -> bytes:
    """The last bytes of a file with that many blocks."""
    return encode_block(END, blocks, b"")


async def read_part_file(job: str, operator: str, ref: FileRef, storage: PartStorage) -> AsyncGenerator[PartBlock]:
    """The blocks of a file, in order.

    Raises:
        CheckpointDamaged: it is missing, torn, changed, or of another format.
        StateError: what it holds cannot be unpickled here.
    """
    source = _Reader(job, ref, storage)
    try:
        names: list[str] = list((await source.header()).tables)
        blocks = 0
        while True:
            block: tuple[int, int, int, int] = _BLOCK.unpack(await source.take(_BLOCK.size))
            kind, place, length, check = block
            body = await source.take(length)
            if check != _check(kind, place, body):
                raise source.damaged(f"block {blocks} is not what was written")
            if kind == END:
                if place != blocks or not await source.is_at_end():
                    raise source.damaged("its end is not where it should be")
                return
            blocks += 1
            yield PartBlock(kind, names[place], _unpickle(operator, names[place], body))
    finally:
        await source.close()


def _unpickle(operator: str, name: str, body: bytes) -> list[Any]:
    try:
        content: list[Any] = load(body)
        return content
    except Exception as error:
        raise StateError(
            operator,
            name,
            f"what was saved cannot be read here: {type(error).__name__}: {error}; "
            "its classes must be importable under the names they had, so keep them in a module",
        ) from error


class _Reader:
    """Takes exact numbers of bytes out of blocks of any size."""

    def __init__(self, job: str, ref: FileRef, storage: PartStorage) -> None:
        self.job = job
        self.ref = ref
        self.blocks = storage.read(ref)
        self.pending = bytearray()
        self.at = 0

    def damaged(self, problem: str) -> CheckpointDamaged:
        return CheckpointDamaged(self.job, self.ref.name, problem)

    async def header(self) -> FileHeader:
        magic, version, length = _START.unpack(await self.take(_START.size))
        if magic != MAGIC:
            raise self.damaged("it is no file of saved state")
        if version != FORMAT:
            raise self.damaged(f"it has format {version}, and this version of sage_actor reads format {FORMAT}")
        body = await self.take(length)
        (check,) = _CHECK.unpack(await self.take(_CHECK.size))
        if crc32(body) != check:
            raise self.damaged("its header is not what was written")
        return msgspec.json.decode(body, type=FileHeader)

    async def take(self, size: int) -> bytes:
        while len(self.pending) - self.at < size:
            if not await self._more():
                raise self.damaged("it ends too early")
        taken = bytes(memoryview(self.pending)[self.at : self.at + size])
        self.at += size
        if self.at > 1 << 20 or self.at == len(self.pending):
            del self.pending[: self.at]
            self.at = 0
        return taken

    async def is_at_end(self) -> bool:
        while len(self.pending) == self.at:
            if not await self._more():
                return True
        return False

    async def _more(self) -> bool:
        try:
            self.pending += await anext(self.blocks)
        except StopAsyncIteration:
            return False
        return True

    async def close(self) -> None:
        close = getattr(self.blocks, "aclose", None)
        if close is not None:
            await close()
