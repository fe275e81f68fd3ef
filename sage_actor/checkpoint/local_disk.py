"""Files of this machine, or of a network file system mounted on it: create by hard link, fsync of file and folder."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import AsyncIterable, AsyncIterator
from functools import partial
from typing import Final

from sage_actor.checkpoint.disk import BLOCK, parent_of
from sage_actor.checkpoint.off_loop import to_end

__all__ = ["LocalDisk"]

_NO_LINKS: Final = frozenset({errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_numbers = itertools.count(1)


class LocalDisk:
    """`Disk` over the file system. Every call into the system is made off the loop, and waited for even if its caller is cancelled."""

    name = "local disk"
    fence = "a hard link (or O_EXCL where there are none): of several writers exactly one succeeds, on NFS too"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalDisk)

    def __hash__(self) -> int:
        return hash(LocalDisk)

    async def create_new(self, path: str, blocks: AsyncIterable[bytes], *, fsync: bool = True) -> None:
        new = _NewFile(path, fsync=fsync)
        try:
            await to_end(new.open)
            waiting: list[bytes] = []
            size = 0
            async for block in blocks:
                waiting.append(block)
                size += len(block)
                if size >= BLOCK:
                    content, waiting, size = waiting, [], 0
                    await to_end(partial(new.write, content))
            await to_end(partial(new.finish, waiting))
        finally:
            await to_end(new.drop)

    async def read(self, path: str) -> AsyncIterator[bytes]:
        opened: list[int] = []
        try:
            await to_end(lambda: opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
            while block := await to_end(lambda: os.read(opened[0], BLOCK)):
                yield block
        finally:
            for file in opened:
                os.close(file)

    async def list(self, folder: str) -> list[str]:
        def names() -> list[str]:
            try:
                return sorted(os.listdir(folder))
            except FileNotFoundError:
                return []

        return await to_end(names)

    async def size(self, path: str) -> int | None:
        def measured() -> int | None:
            try:
                found = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return found.st_size if os.path.isfile(path) else None

        return await to_end(measured)

    async def remove(self, path: str) -> None:
        def removed() -> None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

        await to_end(removed)

    async def link_or_copy(self, source: str, target: str) -> None:
        await to_end(lambda: _link(source, target, durable=True))

    async def take_in(self, local: str, target: str) -> None:
        await to_end(lambda: _link(local, target, durable=True))

    async def bring_out(self, source: str, local: str) -> None:
        await to_end(lambda: _link(source, local, durable=False))

    async def make_folder(self, path: str) -> None:
        await to_end(lambda: _make_folder(path, fsync=True))

    async def remove_folder(self, path: str) -> None:
        def removed() -> None:
            try:
                os.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise

        await to_end(removed)


class _NewFile:
    """A file that is being written beside its place, under a name that tells whose it was if it is left behind."""

    def __init__(self, path: str, *, fsync: bool) -> None:
        self._path = path
        self._fsync = fsync
        self._temporary = ""
        self._file = -1

    def open(self) -> None:
        _make_folder(parent_of(self._path), fsync=self._fsync)
        folder, _, name = self._path.rpartition("/")
        while True:
            temporary = f"{folder}/.{name}.{os.getpid():x}-{next(_numbers):x}.tmp"
            try:
                self._file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                continue
            self._temporary = temporary
            return

    def write(self, content: list[bytes]) -> None:
        for block in content:
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def finish(self, content: list[bytes]) -> None:
        """Write the rest and give it its name, if nobody has that."""
        self.write(content)
        if self._fsync:
            os.fsync(self._file)
        _name(self._temporary, self._path)
        if self._fsync:
            _sync_folder(parent_of(self._path))

    def drop(self) -> None:
        """Let go of it, complete or not."""
        if self._file >= 0:
            os.close(self._file)
            try:
                os.unlink(self._temporary)
            except OSError:
                pass  # renamed, or as hard to remove as it was to write: its name tells that it is unfinished
        self._file = -1


def _name(temporary: str, path: str) -> None:
    """Give a complete file its name, if nobody has it."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # No hard links there. An exclusive empty file is the fence, and is replaced by the complete one: a crash between the two
        # leaves an empty file, which every reader takes for torn.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        os.replace(temporary, path)


def _link(source: str, target: str, *, durable: bool) -> None:
    if durable:
        _make_folder(parent_of(target), fsync=True)
        _sync_file(source)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy(source, target, durable=durable)
    if durable:
        _sync_folder(parent_of(target))


def _copy(source: str, target: str, *, durable: bool) -> None:
    new = _NewFile(target, fsync=durable)
    try:
        new.open()
        with open(source, "rb") as content:
            while block := content.read(BLOCK):
                new.write([block])
        new.finish([])
    finally:
        new.drop()


def _make_folder(path: str, *, fsync: bool) -> None:
    missing: list[str] = []
    folder = path
    while folder and not os.path.isdir(folder):
        missing.append(folder)
        folder = parent_of(folder)
    for folder in reversed(missing):
        try:
            os.mkdir(folder)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise
        if fsync:
            _sync_folder(parent_of(folder) or "/")


def _sync_file(path: str) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


_sync_folder = _sync_file  # a folder is synced by the same calls; its content is the names in it
