"""Any file system that fsspec knows: object stores, network shares, memory. How good the fence is depends on the protocol."""

from __future__ import annotations

import errno
import importlib
import logging
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import partial
from typing import IO, Any, Final, Protocol, cast

from sage_actor.checkpoint.disk import BLOCK, parent_of
from sage_actor.checkpoint.off_loop import to_end
from sage_actor.errors import CheckpointError

__all__ = ["FsspecDisk", "fence_of"]

_LOGGER: Final = logging.getLogger("sage_actor.checkpoints")
_CONDITIONAL: Final = "what the mode 'create' of its package promises (a conditional put by the store); not verified by our tests"
_FENCES: Final = {
    "memory": "an exclusive create within this process; other processes have a memory of their own",
    "file": "O_EXCL; a crash in the middle leaves a torn file, which is recognised",
    "local": "O_EXCL; a crash in the middle leaves a torn file, which is recognised",
    "s3": _CONDITIONAL,
    "s3a": _CONDITIONAL,
    "gs": _CONDITIONAL,
    "gcs": _CONDITIONAL,
}
_LOCAL: Final = frozenset({"file", "local"})
_MEMORY: Final = threading.Lock()  # that file system looks and writes in two steps; there is one of it in a process
_NO_FENCE: Final = "none: looks, then writes; see to it that a job has one owner at a time"
_WHOLE: Final = 64 << 20  # bytes; up to here a file is put in one call, which the store makes visible as a whole


class _FileSystem(Protocol):
    """What we use of `fsspec.AbstractFileSystem`, which is not typed."""

    def pipe_file(self, path: str, value: bytes, mode: str = ...) -> object: ...
    def open(self, path: str, mode: str = ...) -> IO[bytes]: ...
    def ls(self, path: str, *, detail: bool) -> list[Any]: ...
    def info(self, path: str) -> dict[str, Any]: ...
    def rm_file(self, path: str) -> object: ...
    def makedirs(self, path: str, *, exist_ok: bool) -> object: ...
    def rmdir(self, path: str) -> object: ...
    def put_file(self, local: str, path: str) -> object: ...
    def get_file(self, path: str, local: str) -> object: ...
    def invalidate_cache(self, path: str | None = None) -> object: ...


def fence_of(protocol: str) -> str:
    """How sure a protocol is that of two writers of one new file only one succeeds, in words."""
    return _FENCES.get(protocol, _NO_FENCE)


class FsspecDisk:
    """`Disk` over an fsspec file system. Every call is made off the loop.

    Small files, and so all of the log, are put in one call in the mode "create"; see `fence_of` for what that is worth. Bigger
    ones are streamed; nothing but their unique names keeps them apart.

    Args:
        filesystem: an `fsspec.AbstractFileSystem`.
        protocol: its name.
    """

    def __init__(self, filesystem: object, protocol: str) -> None:
        self._files = cast("_FileSystem", filesystem)
        self.name = f"fsspec {protocol}"
        self.fence = fence_of(protocol)
        self._protocol = protocol

    @classmethod
    def open(cls, url: str, job: str = "") -> tuple[FsspecDisk, str]:
        """The disk for a url, and the path on it.

        Raises:
            CheckpointError: fsspec does not know the protocol, or something it needs is not installed.
        """
        try:
            fsspec = importlib.import_module("fsspec.core")
        except ImportError as error:
            raise CheckpointError(job, "checkpoints at a url need the package fsspec; install it", url) from error
        find = cast("Callable[[str], tuple[object, str]]", fsspec.url_to_fs)
        try:
            filesystem, path = find(url)
        except (ImportError, ValueError) as error:
            raise CheckpointError(job, f"this url cannot be used for checkpoints: {error}", url) from error
        protocol = url.partition("://")[0]
        if fence_of(protocol) == _NO_FENCE:
            _LOGGER.warning("job %r: checkpoints at %r have no fence: two owners at the same time would harm each other", job, url)
        return cls(filesystem, protocol), path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FsspecDisk) and other._files == self._files

    def __hash__(self) -> int:
        return hash((FsspecDisk, self.name))

    async def create_new(self, path: str, blocks: AsyncIterable[bytes], *, fsync: bool = True) -> None:
        await self.make_folder(parent_of(path))
        waiting: list[bytes] = []
        size = 0
        stream: _Stream | None = None
        try:
            async for block in blocks:
                waiting.append(block)
                size += len(block)
                if size >= _WHOLE:
                    if stream is None:
                        await self._refuse_existing(path)
                        stream = _Stream(self._files, path)
                        await to_end(stream.open)
                    content, waiting, size = b"".join(waiting), [], 0
                    await to_end(partial(stream.write, content))
            rest = b"".join(waiting)
            if stream is None:
                await self._refuse_existing(path)
                await to_end(lambda: self._put(path, rest))
            else:
                await to_end(partial(stream.close, rest))
                stream = None
        finally:
            if stream is not None:
                await to_end(stream.give_up)

    def _put(self, path: str, content: bytes) -> None:
        try:
            if self._protocol in _LOCAL:
                with self._files.open(path, "xb") as file:  # its pipe_file looks, then writes
                    file.write(content)
            elif self._protocol == "memory":
                with _MEMORY:
                    self._files.pipe_file(path, content, mode="create")
            else:
                self._files.pipe_file(path, content, mode="create")
        except FileExistsError as error:
            raise FileExistsError(errno.EEXIST, "it exists already", path) from error

    async def _refuse_existing(self, path: str) -> None:
        def look() -> None:
            try:
                self._files.info(path)
            except FileNotFoundError:
                return
            raise FileExistsError(errno.EEXIST, "it exists already", path)

        await to_end(look)

    async def read(self, path: str) -> AsyncIterator[bytes]:
        opened: list[IO[bytes]] = []

        def begin() -> None:
            if self._files.info(path)["type"] == "directory":
                raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
            opened.append(self._files.open(path, "rb"))

        try:
            await to_end(begin)
            position = 0
            while True:
                block = await to_end(partial(_block, opened[0], position))
                if not block:
                    return
                position += len(block)
                yield block
        finally:
            for file in opened:
                if not _shared(file):
                    await to_end(file.close)

    async def list(self, folder: str) -> list[str]:
        def names() -> list[str]:
            self._files.invalidate_cache()
            try:
                if self._files.info(folder)["type"] != "directory":
                    raise NotADirectoryError(errno.ENOTDIR, "it is a file", folder)
                found = cast("list[str]", self._files.ls(folder, detail=False))
            except FileNotFoundError:
                return []
            own = folder.strip("/")
            return sorted({name.rstrip("/").rpartition("/")[2] for name in found if name.strip("/") != own})

        return await to_end(names)

    async def size(self, path: str) -> int | None:
        def measured() -> int | None:
            self._files.invalidate_cache()
            try:
                found = self._files.info(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return None if found["type"] == "directory" else int(found["size"])

        return await to_end(measured)

    async def remove(self, path: str) -> None:
        def removed() -> None:
            try:
                self._files.rm_file(path)
            except (FileNotFoundError, KeyError):
                pass

        await to_end(removed)

    async def link_or_copy(self, source: str, target: str) -> None:
        await self.create_new(target, self.read(source))

    async def take_in(self, local: str, target: str) -> None:
        await self._refuse_existing(target)
        await self.make_folder(parent_of(target))
        await to_end(lambda: self._files.put_file(local, target))

    async def bring_out(self, source: str, local: str) -> None:
        def brought() -> None:
            with open(local, "xb"):
                pass  # the path is ours now; what is written over it is our own empty file
            self._files.get_file(source, local)

        await to_end(brought)

    async def make_folder(self, path: str) -> None:
        def made() -> None:
            self._files.makedirs(path, exist_ok=True)
            try:
                found = self._files.info(path)
            except FileNotFoundError:
                return  # an object store has no folders, only names
            if found["type"] != "directory":
                raise FileExistsError(errno.EEXIST, "a file is in the way", path)

        await to_end(made)

    async def remove_folder(self, path: str) -> None:
        def removed() -> None:
            try:
                if not [name for name in self._files.ls(path, detail=False) if name.strip("/") != path.strip("/")]:
                    self._files.rmdir(path)
            except (FileNotFoundError, NotADirectoryError):
                pass

        await to_end(removed)


class _Stream:
    """A big file on its way; open, write, close and give_up run off the loop."""

    def __init__(self, files: _FileSystem, path: str) -> None:
        self._files = files
        self._path = path
        self._file: IO[bytes] | None = None

    def open(self) -> None:
        try:
            self._file = self._files.open(self._path, "xb")
        except (ValueError, NotImplementedError):
            self._file = self._files.open(self._path, "wb")  # a protocol without exclusive creation

    def write(self, content: bytes) -> None:
        if self._file is not None:
            self._file.write(content)

    def close(self, rest: bytes) -> None:
        if self._file is not None:
            self._file.write(rest)
            self._file.close()
            self._file = None

    def give_up(self) -> None:
        if self._file is None:
            return
        discard = getattr(self._file, "discard", None)
        if callable(discard):
            discard()  # an upload in parts that is never completed
        else:
            self._file.close()
        try:
            self._files.rm_file(self._path)
        except (OSError, KeyError):
            pass


def _block(file: IO[bytes], position: int) -> bytes:
    file.seek(position)  # readers of a memory file system share one file, and its position
    return file.read(BLOCK)


def _shared(file: IO[bytes]) -> bool:
    """Whether other readers have the same object: closing it would close theirs."""
    return type(file).__name__ == "MemoryFile"
