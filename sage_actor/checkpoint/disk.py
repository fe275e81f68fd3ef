"""Where checkpoints are kept, as far as they care: whole files that appear at once, are never replaced, and survive a crash.

Paths are texts with ``/``; what they start from is the disk's own business. Refusals are `OSError`, as the system gives them:
`CheckpointStorage` puts them into words.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Final, Protocol

__all__ = ["BLOCK", "Disk", "blocks_of", "current_disk", "parent_of"]

BLOCK: Final = 1 << 20
"""Bytes that are read or written in one go."""


class Disk(Protocol):
    """A place for immutable files.

    Every implementation passes the suite of `sage_actor.testing.disk_conformance`.

    Attributes:
        name: what it is called in messages.
        fence: in words, how sure it is that of two writers of one new file only one succeeds.
    """

    @property
    def name(self) -> str: ...

    @property
    def fence(self) -> str: ...

    async def create_new(self, path: str, blocks: AsyncIterable[bytes], *, fsync: bool = True) -> None:
        """Write a file that does not exist yet, in a folder that is made if need be.

        Nobody sees a part of it: it is there as a whole or not at all, unless `fence` says otherwise. Of several writers of
        one path exactly one succeeds. With `fsync`, file and name survive a crash of the machine from the return on; without,
        they may be lost or torn by one. Failed or cancelled, nothing is there (a cancelled call may still have succeeded
        if it was at its last step; then the whole file is there).

        Raises:
            FileExistsError: something has that name; it is untouched.
            OSError: the place refuses.
        """
        ...

    def read(self, path: str) -> AsyncIterator[bytes]:
        """The content, block by block.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the place refuses.
        """
        ...

    async def list(self, folder: str) -> list[str]:
        """The names in a folder, sorted, unfinished files too (their names begin with a dot); none if there is no such folder.

        Raises:
            NotADirectoryError: it is a file.
            OSError: the place refuses.
        """
        ...

    async def size(self, path: str) -> int | None:
        """The size of a file, None if there is none (or it is a folder)."""
        ...

    async def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no error. What happens to it in a crash is not promised."""
        ...

    async def link_or_copy(self, source: str, target: str) -> None:
        """Give a file that exists a second name, by hard link where that can be, else by copying it; durable as by `create_new`.

        Raises:
            FileNotFoundError: there is no such source.
            FileExistsError: something has the target's name; it is untouched.
            OSError: the place refuses.
        """
        ...

    async def take_in(self, local: str, target: str) -> None:
        """Put an immutable file of this machine's own file system here, by hard link where that can be; otherwise `link_or_copy`."""
        ...

    async def bring_out(self, source: str, local: str) -> None:
        """The reverse: a file from here under a new path of this machine's file system, whose folder exists. Not to be written to."""
        ...

    async def make_folder(self, path: str) -> None:
        """See to it that a folder exists, durably, with those above it.

        Raises:
            FileExistsError, NotADirectoryError: a file is in the way.
            OSError: the place refuses.
        """
        ...

    async def remove_folder(self, path: str) -> None:
        """Remove a folder if it is there and empty; otherwise do nothing."""
        ...


def current_disk() -> Disk:
    """The disk of the running loop if it brings its own (a simulation does, as its attribute ``sage_disk``), else the machine's."""
    try:
        loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    disk: Disk | None = getattr(loop, "sage_disk", None)
    if disk is not None:
        return disk
    from sage_actor.checkpoint.local_disk import LocalDisk

    return LocalDisk()


async def blocks_of(content: bytes | Iterable[bytes]) -> AsyncIterator[bytes]:
    """Content that is at hand, as `Disk.create_new` takes it."""
    for block in (content,) if isinstance(content, bytes) else content:
        yield block


def parent_of(path: str) -> str:
    """The folder that a path is in; "" at the top."""
    return path.rpartition("/")[0]
