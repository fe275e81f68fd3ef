"""FileSink: records to text, CSV and JSON-lines files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Unpack, cast

from sage_actor import ports
from sage_actor.connectors.compression import EXTENSIONS, ByteWriter, compression_of, open_writer
from sage_actor.connectors.encoding import Encoder, Unfit, make_encoder
from sage_actor.connectors.open_file import OpenFile
from sage_actor.connectors.options import FileSinkKeywords, FileSinkOptions, FileSourceOptions
from sage_actor.connectors.paths import refused
from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.sink import Sink
from sage_actor.errors import ConnectorError

__all__ = ["FileSink"]


class FileSink(Sink[object]):
    """Writes records to a file, a line each, in the order they come.

    Options come as one mapping or as keywords; an unknown or ill-typed one raises `ConfigError` at once.

    Args:
        path: the file. Missing folders are created. At parallelism n, task i writes beside it: ``out.jsonl.gz`` becomes
            ``out-0.jsonl.gz``, ``out-1.jsonl.gz`` and so on, and together they hold every record once.
        format: "text": ``str(record)``; a newline inside of it makes two lines. "jsonl": JSON; tuples, dataclasses, dates,
            numpy values and the like are written as their nearest JSON form. "csv": mappings or sequences.
        compression: "auto" (by the end of the name: .gz .lz4 .zst), "none", "gzip", "lz4" or "zstd".
        encoding: any that contains ASCII; default UTF-8.
        append: go on at the end of an existing file (False: begin anew).
        sync: flushing also waits until the operating system has it on disk (False).
        delimiter: of CSV (",").
        header: of CSV: first the names of the columns, where they are known (True). Not repeated when appending.
        columns: of CSV: the columns and their order; else the first record, if it is a mapping, names them.
        block_size: bytes that may wait to be written before `write` waits (256 KiB).

    The file is written in place, so it can be watched while it grows; what a failing job wrote stays there. Writing and
    compressing happen off the event loop, as soon as records come. Compressed files become readable up to the last flush.
    There is no fence: a job that is restarted from a checkpoint writes the records after it a second time.
    """

    def __init__(self, options: Mapping[str, object] | None = None, /, **keywords: Unpack[FileSinkKeywords]) -> None:
        self._begin_with(FileSinkOptions.parse(options, keywords))

    def _begin_with(self, options: FileSinkOptions) -> None:
        self._options = options
        self._path = self._options.path
        self._file: ByteWriter | None = None
        self._encoder: Encoder | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiting = 0  # bytes not yet handed to the operating system
        self._task: asyncio.Task[None] | None = None
        self._failure: ConnectorError | None = None

    @classmethod
    def of(cls, options: FileSinkOptions) -> FileSink:
        """From options that were checked before."""
        sink = cls.__new__(cls)
        sink._begin_with(options)
        return sink

    @property
    def path(self) -> str:
        """The file this task writes, once it is open."""
        return self._path

    @property
    def size(self) -> int:
        """Bytes taken over since it was opened, before any compression."""
        return self._size

    async def open(self, context: FunctionContext) -> None:
        """Create or continue the file. Raises `ConnectorError` if that is refused."""
        if context.parallelism > 1:
            self._path = _numbered(self._options.path, context.subtask_index)
        # What was written before the checkpoint that the job goes on from is not written again.
        self._append = self._options.append or context.restored
        # Not abandoned half-way: a file that was opened must be closed, so the result is kept whatever comes.
        self._begin(self._open)
        await self._settle()

    def _open(self) -> None:
        options, path = self._options, self._path
        try:
            folder = os.path.dirname(path)
            if folder:
                os.makedirs(folder, exist_ok=True)
            compression = compression_of(path, options.compression)
            old = os.path.getsize(path) if self._append and os.path.isfile(path) else 0
            header = self._old_header() if old and options.format == "csv" and options.header else None
            self._encoder = make_encoder(options, header)
            self._file = open_writer(path, compression, append=self._append, sync=options.sync)
            if old and compression == "none" and not _ends_with_newline(path):
                self._file.write(b"\n")
        except OSError as error:
            raise refused(path, error) from error

    def _old_header(self) -> list[str] | None:
        options = self._options
        reading = {
            "path": self._path,
            "format": "csv",
            "compression": options.compression,
            "encoding": options.encoding,
            "delimiter": options.delimiter,
            "header": False,
        }
        file = OpenFile(self._path, FileSourceOptions.parse(reading, {}))
        try:
            block = None
            while block is None and not file.ended and file.failure is None:
                block = file.next_block(0)
        finally:
            file.close()
        if file.failure is not None:
            raise file.failure
        first = block.records[0] if block is not None else None
        header = [str(name) for name in cast("list[object]", first)] if isinstance(first, list) else None
        if header is not None and options.columns is not None and tuple(header) != options.columns:
            reason = f"the file has the columns {', '.join(header)}, columns= says {', '.join(options.columns)}"
            raise ConnectorError(f"{self._path}:1", reason, "leave columns= out, or write another file")
        return header

    async def write(self, batch: Sequence[object]) -> None:
        """Take over the records; waits while more than ``block_size`` bytes wait for the disk.

        A write that is cancelled while it waits has taken nothing.

        Raises:
            ConnectorError: a record does not fit the format; those before it are written. Or an earlier write failed.
        """
        while self._task is not None and (self._task.done() or self._encoder is None or self._waiting >= self._options.block_size):
            await self._settle()
        if self._failure is not None:
            raise self._failure
        if self._encoder is None:
            raise ConnectorError(self._path, "the file sink is not open", "await open(context) first")
        if not batch:
            return
        try:
            data = self._encoder.encode(batch)
        except Unfit as unfit:
            self._put(unfit.encoded)
            shown = repr(batch[unfit.index])
            shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
            hint = f"records must fit the format {self._options.format!r} and the encoding; change them in a map before the sink"
            raise ConnectorError(self._path, f"cannot write {shown}: {unfit.reason}", hint) from unfit.__cause__
        self._put(data)

    def _put(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._size += len(data)
            self._waiting += len(data)
            if self._task is None:
                self._task = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        # What arrives while a portion is being written makes up the next one: the busier, the fewer calls.
        while self._pieces and self._file is not None:
            data = b"".join(self._pieces)
            self._pieces.clear()
            await self._run(partial(self._file.write, data))
            self._waiting -= len(data)

    async def _run(self, function: Callable[[], None]) -> None:
        try:
            await ports.offload(function)
        except OSError as error:
            raise refused(self._path, error) from error

    def _begin(self, function: Callable[[], None]) -> None:
        self._task = asyncio.ensure_future(self._run(function))

    async def _settle(self) -> None:
        """Wait for what is under way, which goes on if this wait is cancelled."""
        task = self._task
        if task is not None:
            await asyncio.wait((task,))
            self._task = None
            try:
                task.result()
            except ConnectorError as error:
                self._failure = error
                raise

    async def flush(self) -> None:
        """Return when everything is written, readable by others and, with ``sync``, on disk. Raises `ConnectorError`."""
        await self._settle()
        if self._failure is not None:
            raise self._failure
        if self._file is not None:
            self._begin(self._file.flush)
            await self._settle()

    async def close(self) -> None:
        """Write what waits, and close the file. Raises `ConnectorError` unless an earlier call has told of it."""
        known = self._failure is not None
        try:
            await self._settle()
        except ConnectorError:
            if not known:
                await self._release()
                raise
        await self._release()

    async def _release(self) -> None:
        file, self._file, self._encoder = self._file, None, None
        if file is not None:
            known = self._failure is not None
            self._begin(file.close)
            try:
                await self._settle()
            except ConnectorError:
                if not known:
                    raise


def _numbered(path: str, index: int) -> str:
    stem, extension = os.path.splitext(path)
    if extension.lower() in EXTENSIONS:
        stem, inner = os.path.splitext(stem)
        extension = inner + extension
    return f"{stem}-{index}{extension}"


def _ends_with_newline(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
