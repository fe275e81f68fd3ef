"""What one task's operator saved at one checkpoint, as plain data, and where its files are kept."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

__all__ = ["ENTRIES_SUFFIX", "FileRef", "OperatorPart", "PartStorage", "TableInfo"]

ENTRIES_SUFFIX: Final = ".entries"
"""Ends the name of a file of entry slices (`part_file`); files of a part with other names are its keyed store's own."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """An immutable file of a checkpoint.

    Attributes:
        name: relative to the folder of the job's checkpoints.
        size: in bytes.
        checksum: crc32 of the content.
    """

    name: str
    size: int
    checksum: int


@dataclass(frozen=True, slots=True)
class TableInfo:
    """One named piece of an operator's state.

    Attributes:
        kind: "keyed" for tables; for lists how they are dealt out when restored (`OperatorState.list`).
        version: of what its values look like, as the handle declared it.
        form: what reads it: "table", "nested", "attached", "list", or a user's handle ("value state", "map state", ...).
        timed: whether every value carries the time at which it was written.
    """

    kind: Literal["keyed", "split", "union", "own"]
    version: int = 1
    form: str = "table"
    timed: bool = False

    @property
    def is_nested(self) -> bool:
        """Whether entries are ``((key, sub), value)``."""
        return self.form in ("nested", "map state")


@dataclass(frozen=True, slots=True)
class OperatorPart:
    """What one task's operator saved at one checkpoint. Plain data, fit for JSON by msgspec.

    Attributes:
        uid: stable id of the operator.
        index, parallelism: the task, 0 <= index < parallelism.
        groups: number of key groups of the operator, fixed for its life.
        first, last: the key groups of this task, inclusive.
        backend: "memory" or "rocksdb".
        tables: what is in the files, by name.
        files: in the order in which they are to be read: a base first, then what changed.
    """

    uid: str
    index: int
    parallelism: int
    groups: int
    first: int
    last: int
    backend: str
    tables: dict[str, TableInfo] = field(default_factory=dict[str, TableInfo])
    files: list[FileRef] = field(default_factory=list[FileRef])


class PartStorage(Protocol):
    """Where the files of checkpoints are kept."""

    async def write(self, name: str, blocks: AsyncIterable[bytes]) -> FileRef:
        """Store a new file; it is durable when this returns. Cancelled or failed, it leaves nothing under that name.

        Raises:
            CheckpointError: a file of that name exists (it is never replaced), or the place refused.
        """
        ...

    def read(self, ref: FileRef) -> AsyncIterator[bytes]:
        """The content, in blocks of any size.

        Raises:
            CheckpointDamaged: it is missing, or its size or checksum differ; the latter may show only at the end.
        """
        ...

    async def adopt(self, path: str, name: str) -> FileRef:
        """Take over an immutable local file under a new name, by hard link where that can be, else by copying.

        Raises:
            CheckpointError: as `write`.
        """
        ...

    async def fetch(self, ref: FileRef, path: str) -> None:
        """The reverse: put a stored file at a local path, which must not exist. What is there then must not be written to.

        Raises:
            CheckpointDamaged: as `read`.
        """
        ...
