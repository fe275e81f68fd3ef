"""What a store on RocksDB froze at a barrier: its database as files, and their way into the storage of checkpoints and back.

A part's first file is the index: format, tables, and the small files of the database themselves. The others are the database's
sorted files. Those never change, so one that was stored for an earlier checkpoint is referred to again.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sage_actor.errors import CheckpointDamaged, StateError
from sage_actor.ports import current_clock, offload
from sage_actor.state.parts import ENTRIES_SUFFIX, FileRef, OperatorPart, PartStorage
from sage_actor.state.pickling import dump, load
from sage_actor.state.rocksdb_database import OWN_FILES

__all__ = ["FORMAT", "FrozenRocks", "RocksIndex", "fetch_database", "files_of"]

FORMAT: Final = 1
_MAGIC: Final = b"sage rocksdb index\n"
_SORTED: Final = ".sst"
_SLICE: Final = 150
"""Frozen items that are encoded and written between two breaths of the loop: well under a millisecond."""
_TRIES: Final = 20
_PAUSE: Final = 0.02
"""Seconds between two attempts to make files while the database rearranges its own."""


@dataclass(frozen=True, slots=True)
class RocksIndex:
    """What a database holds beyond its sorted files.

    Attributes:
        tables: numbers of the tables by name.
        next_table, next_number: what a new table, and a new entry of a nested one, gets.
        small: content of the small files by name.
        files: names of the sorted files, in the order in which the part lists them.
    """

    tables: dict[str, int]
    next_table: int
    next_number: int
    small: dict[str, bytes]
    files: list[str]

    def to_bytes(self) -> bytes:
        """To be read by `of`, of this format."""
        return _MAGIC + dump((FORMAT, self.tables, self.next_table, self.next_number, self.small, self.files))

    @classmethod
    def of(cls, data: bytes) -> RocksIndex:
        """Raises ValueError if it is none, or of another format."""
        if not data.startswith(_MAGIC):
            raise ValueError("it is no index of a RocksDB state")
        version, *rest = load(data[len(_MAGIC) :])
        if version != FORMAT:
            raise ValueError(f"its format is {version}, this version of sage_actor reads {FORMAT}")
        return cls(*rest)


class _Host(Protocol):
    def drain(self, most: int) -> int: ...
    def make_files(self, frozen: FrozenRocks, *, patiently: bool = False) -> bool: ...
    def written(self, frozen: FrozenRocks) -> None: ...
    def reuse(self, storage: PartStorage) -> dict[str, FileRef]: ...
    def let_go(self, frozen: FrozenRocks) -> None: ...
    async def sweep(self) -> None: ...


class FrozenRocks:
    """A `FrozenStore`: the content at one barrier, in a folder of hard links once `write` or the store's need has made it."""

    def __init__(self, store: _Host, operator: str, folder: str, describe: Callable[[dict[str, bytes], list[str]], RocksIndex]) -> None:
        self._store = store
        self._operator = operator
        self._describe = describe
        self.folder = folder
        self.made = False
        self.abandoned = False

    async def write(self, storage: PartStorage, prefix: str) -> list[FileRef]:
        left = self._store.drain(_SLICE)
        while left:
            await asyncio.sleep(0)
            left = self._store.drain(_SLICE)
        await self._make_files()
        if not self.made:
            raise StateError(self._operator, "", "its state was closed while it was being saved; another checkpoint has to be taken")
        self._store.written(self)
        small, names = await offload(self._look)
        known = self._store.reuse(storage)
        place = prefix.partition("/")[0]
        refs: list[FileRef] = []
        for name in names:
            ref = known.get(name)
            # a file that lies elsewhere, in a savepoint, may be deleted by its owner at any time
            if ref is None or ref.name.partition("/")[0] != place:
                ref = await storage.adopt(str(Path(self.folder) / name), f"{prefix}.{name}")
            refs.append(ref)
        index = await storage.write(f"{prefix}.rocksdb", _one_block(self._describe(small, names).to_bytes()))
        known.clear()
        known.update(zip(names, refs, strict=True))
        await self._store.sweep()
        return [index, *refs]

    async def _make_files(self) -> None:
        for _ in range(_TRIES):
            if await offload(lambda: self._store.make_files(self, patiently=True)):
                return
            await current_clock().sleep(_PAUSE)
        await offload(lambda: self._store.make_files(self))

    def _look(self) -> tuple[dict[str, bytes], list[str]]:
        files = sorted(path for path in Path(self.folder).iterdir() if path.name not in OWN_FILES)
        small = {path.name: path.read_bytes() for path in files if path.suffix != _SORTED}
        return small, [path.name for path in files if path.suffix == _SORTED]

    def close(self) -> None:
        self.abandoned = True
        self._store.let_go(self)

    def remove(self) -> None:
        """Delete the folder. The stored files are links of their own."""
        shutil.rmtree(self.folder, ignore_errors=True)


async def _one_block(data: bytes) -> AsyncIterator[bytes]:
    yield data


def files_of(part: OperatorPart) -> list[FileRef]:
    """The store's own files of a part."""
    return [ref for ref in part.files if not ref.name.endswith(ENTRIES_SUFFIX)]


async def fetch_database(job: str, part: OperatorPart, storage: PartStorage, folder: str) -> tuple[RocksIndex, dict[str, FileRef]]:
    """Bring the database of a part into a folder, where it may be opened; its index, and the refs of its sorted files by name.

    Raises:
        CheckpointDamaged: a file is missing or damaged.
    """
    first, *others = files_of(part)
    data = b"".join([block async for block in storage.read(first)])
    try:
        index = RocksIndex.of(data)
    except Exception as error:
        # unpickling what is no pickle raises anything
        raise CheckpointDamaged(job, first.name, f"the index of the RocksDB state cannot be read: {error}") from error
    if len(index.files) != len(others):
        raise CheckpointDamaged(job, first.name, f"the index lists {len(index.files)} files, the checkpoint {len(others)}")

    def lay_out() -> None:
        Path(folder).mkdir(parents=True)
        for name, content in index.small.items():
            (Path(folder) / name).write_bytes(content)

    await offload(lay_out)
    refs = dict(zip(index.files, others, strict=True))
    for name, ref in refs.items():
        await storage.fetch(ref, str(Path(folder) / name))
    return index, refs
