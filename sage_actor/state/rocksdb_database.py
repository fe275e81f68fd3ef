"""One RocksDB: bytes to bytes, in order, with the library's errors made ours."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sage_actor.errors import ConfigError, StateError

__all__ = ["OWN_FILES", "Change", "Database", "RocksSettings", "rocksdict"]

Change = tuple[bytes, bytes | None]
"""A key and its new value, or None if it is to go."""

OWN_FILES: Final = frozenset({"LOCK", "LOG", "IDENTITY", "rocksdict-config.json"})
"""What a folder of RocksDB needs no copy of."""
_CURRENT: Final = "CURRENT"


def rocksdict() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import rocksdict as library
    except ImportError:
        raise ConfigError(
            "state.backend", "'rocksdb' needs the package rocksdict", suggestion='pip install "sage-actor[rocksdb]"'
        ) from None
    return library


class RocksSettings:
    """Sizes, in bytes, of one store: of one operator in one task.

    Attributes:
        cache: decoded entries kept in front of the database, estimated.
        blocks: blocks, indexes and filters of the database's files, decompressed.
        writes: changes gathered in memory before they become a file; up to twice that is held.
    """

    __slots__ = ("blocks", "cache", "writes")

    def __init__(self, *, cache: int = 32 << 20, blocks: int = 16 << 20, writes: int = 8 << 20) -> None:
        for name, value in (("cache", cache), ("blocks", blocks), ("writes", writes)):
            if value.__class__ is not int or value < 1:
                raise ConfigError(f"state.rocksdb.{name}", f"a size in bytes of at least 1 is wanted, not {value!r}")
        self.cache = cache
        self.blocks = blocks
        self.writes = writes


class Database:
    """A database in a folder, opened or made. Nothing is durable but what `checkpoint` has made: there is no log of writes.

    Point reads and writes block for microseconds as a rule. Threads may read and write at once; `close` must not overlap anything.
    """

    def __init__(self, folder: str, operator: str, settings: RocksSettings) -> None:
        """Raises:
        StateError: the folder cannot be used, or what is in it is damaged.
        """
        self.folder = folder
        self.operator = operator
        self._rocksdict = library = rocksdict()
        self._unlogged = library.WriteOptions()
        self._unlogged.disable_wal = True
        with self._own_errors("open"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._rocks = library.Rdict(folder, _options(library, settings))

    @contextlib.contextmanager
    def _own_errors(self, doing: str) -> Generator[None]:
        try:
            yield
        except Exception as error:
            # the library has no classes of its own: everything that the database reports is a bare Exception with a text
            raise self._error(doing, error) from error

    def _error(self, doing: str, error: Exception) -> StateError:
        return StateError(self.operator, "", f"RocksDB could not {doing} in {self.folder}: {error}; restart from a checkpoint")

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        try:
            found: bytes | None = self._rocks.get(key)
        except Exception as error:
            raise self._error("read", error) from error
        return found

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of many keys, in one call of the library."""
        with self._own_errors("read"):
            found: list[bytes | None] = self._rocks.get(list(keys))
        return found

    def write(self, changes: Sequence[Change]) -> None:
        """Apply all of the changes at once, or none."""
        if not changes:
            return
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes:
            if value is None:
                delete(key)
            else:
                put(key, value)
        with self._own_errors("write"):
            self._rocks.write(batch, self._unlogged)

    def delete_range(self, first: bytes, end: bytes) -> None:
        """Remove all keys from first up to, not including, end."""
        if first >= end:
            return
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        batch.delete_range(first, end)
        with self._own_errors("write"):
            self._rocks.write(batch, self._unlogged)

    def scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from first up to, not including, end, ascending, as of the first step."""
        with self._own_errors("read"):
            bounds = self._rocksdict.ReadOptions()
            bounds.set_iterate_upper_bound(end)
            steps = self._rocks.iter(bounds)
            steps.seek(first)
        while steps.valid():
            yield steps.key(), steps.value()
            steps.next()
        with self._own_errors("read"):
            steps.status()  # an iterator that meets damage just ends

    def checkpoint(self, folder: str) -> None:
        """Put everything into files in a new folder, by hard links. Blocks for milliseconds, and other threads with it."""
        with self._own_errors("make a checkpoint"):
            Path(folder).parent.mkdir(parents=True, exist_ok=True)
            self._rocks.flush(True)
            self._rocksdict.Checkpoint(self._rocks).create_checkpoint(folder)

    def link_checkpoint(self, folder: str) -> bool:
        """The same while other threads go on; False, and nothing done, while the database rearranges its files.

        The library's own way syncs what need not be durable yet, and lets no other thread run until it has. Nothing may be written
        meanwhile.
        """
        with self._own_errors("make a checkpoint"):
            Path(folder).parent.mkdir(parents=True, exist_ok=True)
            self._rocks.flush(True)
            # Between the change of the manifest and the end of a rearrangement the two do not tell the same.
            return not self._rocks.property_int_value("rocksdb.num-running-compactions") and self._link_into(Path(folder))

    def _link_into(self, folder: Path) -> bool:
        source = Path(self.folder)
        name, size = before = _manifest(source)
        folder.mkdir()
        try:
            for file in self._rocks.live_files():
                table = file["name"].removeprefix("/")
                os.link(source / table, folder / table)
            with (source / name).open("rb") as manifest:
                (folder / name).write_bytes(manifest.read(size))
            (folder / _CURRENT).write_text(f"{name}\n")
        except FileNotFoundError:
            pass
        else:
            # What a rearrangement does is in the manifest before any file goes, so nothing has happened if that has not grown.
            if _manifest(source) == before:
                return True
        shutil.rmtree(folder)
        return False

    def close(self) -> None:
        """Let go of the files and remove them. Blocks; does not raise: what is being thrown away may be damaged."""
        with contextlib.suppress(Exception):
            self._rocks.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _manifest(folder: Path) -> tuple[str, int]:
    """Name and size of the file that says what a database consists of."""
    name = (folder / _CURRENT).read_text().strip()
    return name, (folder / name).stat().st_size


def _options(library: Any, settings: RocksSettings) -> Any:
    blocks = library.BlockBasedOptions()
    blocks.set_block_cache(library.Cache(settings.blocks))
    blocks.set_bloom_filter(10, False)
    # else indexes and filters lie beside the cache and grow with the state
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options = library.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(settings.writes)
    options.set_max_write_buffer_number(2)
    # Levels would be rewritten whole every few checkpoints where the changed keys lie everywhere; runs of similar size are not.
    options.set_compaction_style(library.DBCompactionStyle.universal())
    options.set_level_zero_file_num_compaction_trigger(8)
    options.set_compression_type(library.DBCompressionType.lz4())
    options.set_max_open_files(256)
    options.set_keep_log_file_num(1)
    options.set_stats_dump_period_sec(0)
    options.set_skip_stats_update_on_db_open(True)
    return options
