"""TransactionalFileSink: records to files that appear when their checkpoint is complete, each record in one of them, once."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar, Unpack

from sage_actor import ports
from sage_actor.connectors.file_sink import FileSink
from sage_actor.connectors.options import TransactionalFileSinkKeywords, TransactionalFileSinkOptions
from sage_actor.connectors.paths import refused
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.two_phase_commit import TwoPhaseCommitSink
from sage_actor.errors import ConnectorError

__all__ = ["FileTransaction", "TransactionalFileSink"]

R = TypeVar("R")

_EXTENSIONS: Final = {"text": ".txt", "csv": ".csv", "jsonl": ".jsonl"}
_COMPRESSED: Final = {"none": "", "gzip": ".gz", "lz4": ".lz4", "zstd": ".zst"}


@dataclass(slots=True)
class FileTransaction:
    """Files that become visible together.

    Attributes:
        folder: where they are.
        names: what they are called once they are visible, in the order in which they were written; a dot before until then.
    """

    folder: str
    names: list[str] = field(default_factory=lambda: list[str]())


class TransactionalFileSink(TwoPhaseCommitSink[object, FileTransaction]):
    """Writes records to files in a folder; a file is complete, durable and final from the moment it can be seen.

    Options come as one mapping or as keywords; an unknown or ill-typed one raises `ConfigError` at once.

    Args:
        path: the folder; created if missing. Other files in it, and those of other jobs, are left alone.
        format, encoding, delimiter, header, columns: as of `FileSink`.
        compression: "none" (default), "gzip", "lz4" or "zstd".
        block_size: as of `FileSink`.
        roll_size: bytes, before compression, after which a file is full and the next one begins ("64MB"; None: no bound).
        roll_age: likewise, after this time since it was begun ("10m"; None: no bound). Looked at when records come.

    Guarantee: exactly once. A checkpoint ends the file of each task: until it is complete the files are hidden (the name begins
    with a dot), then they are renamed. So there is a file per task and checkpoint in which there were records, and more by size
    and age. Sorted by name the files of a task stand in the order in which they were written; the name holds job, task, attempt
    and a running number. Without checkpoints all files appear together when the input ends.

    Who reads the folder passes over names that begin with a dot, and may move or delete other files at any time. Hidden files
    must be left alone: they hold what a job that was killed will commit when it goes on. A job that goes on removes hidden
    files that it does not need; its name and that of the operator say which are its own, so do not run two jobs of the same name
    into one folder.
    """

    def __init__(self, options: Mapping[str, object] | None = None, /, **keywords: Unpack[TransactionalFileSinkKeywords]) -> None:
        self._options = TransactionalFileSinkOptions.parse(options, keywords)
        self._folder = os.path.abspath(self._options.folder)
        self._file: FileSink | None = None
        self._begun = 0.0
        self._number = 0

    @property
    def path(self) -> str:
        """The folder."""
        return self._folder

    async def open(self, context: FunctionContext) -> None:
        """Create the folder. Raises `ConnectorError` if that is refused."""
        await super().open(context)
        await self._run(partial(_make_folder, self._folder))

    def _tag(self) -> str:
        """What the names of all files of this sink begin with: readable, and distinct for distinct jobs and operators."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", self.context.job).strip("-")[:40] or "job"
        whole = f"{self.context.job}\0{self.context.operator_name}"
        return f"{readable}-{zlib.crc32(whole.encode('utf-8', 'surrogatepass')):08x}"

    def _next_name(self) -> str:
        self._number += 1
        # Chance, because numbers of attempts begin anew when somebody removes the checkpoints.
        chance = ports.current_random().getrandbits(32)
        file = self._options.file
        name = f"{self._tag()}-{self.context.subtask_index:05d}-{self.attempt:06d}-{self._number:08d}-{chance:08x}"
        return name + _EXTENSIONS[file.format] + _COMPRESSED[file.compression]

    # -- transactions

    async def begin(self) -> FileTransaction:
        """A transaction without files yet."""
        return FileTransaction(self._folder)

    async def write_to(self, transaction: FileTransaction, batch: Sequence[object]) -> None:
        """Append to the file that is open, or to a new one if that is full. Raises `ConnectorError`."""
        if self._file is not None and self._is_full(self._file):
            await self._finish_file()
        if self._file is None:
            transaction.names.append(self._next_name())
            path = os.path.join(transaction.folder, f".{transaction.names[-1]}")
            self._file = FileSink.of(replace(self._options.file, path=path))
            self._begun = ports.current_clock().monotonic()
            await self._file.open(replace(self.context, parallelism=1, subtask_index=0))
        await self._file.write(batch)

    def _is_full(self, file: FileSink) -> bool:
        options = self._options
        if options.roll_size is not None and file.size >= options.roll_size:
            return True
        return options.roll_age is not None and ports.current_clock().monotonic() - self._begun >= options.roll_age

    async def _finish_file(self) -> None:
        """Close the file; then it is on disk."""
        if self._file is not None:
            await self._file.close()
            self._file = None

    async def pre_commit(self, transaction: FileTransaction) -> None:
        """Return when the files, and their hidden names, are on disk."""
        await self._finish_file()
        await self._run(partial(_sync_folder, transaction.folder))

    async def commit_transaction(self, transaction: FileTransaction) -> None:
        """Give the files their names."""
        missing = await self._run(partial(_reveal, transaction))
        for name in missing:
            # It was renamed by an earlier try, and since then somebody took it away, as readers may.
            self.context.logger.warning("%s: was committed before, and is no longer in %s", name, transaction.folder)

    async def abort(self, transaction: FileTransaction) -> None:
        """Remove the files."""
        try:
            await self._finish_file()
        except ConnectorError as error:
            self.context.logger.debug("a file that is given up anyway could not be written: %s", error)
        finally:
            self._file = None
            await self._run(partial(_remove, transaction.folder, [f".{name}" for name in transaction.names]))

    async def abort_orphans(self, keep: Sequence[FileTransaction]) -> None:
        """Remove hidden files of earlier attempts."""
        kept = {name for transaction in keep for name in transaction.names}
        ours = re.compile(rf"\.({re.escape(self._tag())}-\d+-(\d+)-\d+-[0-9a-f]+\..+)")

        def remove() -> None:
            found = (ours.fullmatch(name) for name in os.listdir(self._folder))
            # Not those of attempt 0: they belong to a job without checkpoints, which may be running.
            lost = [match[0] for match in found if match and match[1] not in kept and 0 < int(match[2]) < self.attempt]
            _remove(self._folder, lost)

        await self._run(remove)

    async def _run(self, function: Callable[[], R]) -> R:
        try:
            return await ports.offload(function)
        except OSError as error:
            raise refused(self._folder, error) from error


def _reveal(transaction: FileTransaction) -> list[str]:
    """Rename what is hidden still; returns the names that are neither hidden nor there."""
    missing: list[str] = []
    for name in transaction.names:
        final = os.path.join(transaction.folder, name)
        try:
            os.rename(os.path.join(transaction.folder, f".{name}"), final)
        except FileNotFoundError:
            if not os.path.exists(final):
                missing.append(name)
    _sync_folder(transaction.folder)
    return missing


def _make_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        os.makedirs(folder, exist_ok=True)
        _sync_folder(os.path.dirname(folder))


def _sync_folder(folder: str) -> None:
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _remove(folder: str, names: Iterable[str]) -> None:
    for name in names:
        with suppress(FileNotFoundError):  # another task does the same
            os.unlink(os.path.join(folder, name))
