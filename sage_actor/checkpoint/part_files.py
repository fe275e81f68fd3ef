"""The files that checkpoints are made of: written once, verified whenever they are read."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator

from sage_actor.checkpoint.disk import Disk
from sage_actor.checkpoint.refusals import in_words
from sage_actor.errors import CheckpointDamaged
from sage_actor.state.parts import FileRef

__all__ = ["PartFiles"]


class PartFiles:
    """A `sage_actor.state.parts.PartStorage` in a folder of a disk. Any process of the job may have one.

    Args:
        disk: where.
        folder: what names are relative to.
        job: whose, for messages.
    """

    def __init__(self, disk: Disk, folder: str, job: str) -> None:
        self.disk = disk
        self.folder = folder
        self.job = job

    def path_of(self, name: str) -> str:
        """Where a file is on its disk."""
        return f"{self.folder}/{name}"

    async def write(self, name: str, blocks: AsyncIterable[bytes]) -> FileRef:
        """Store a new file; it is durable when this returns. Failed, it leaves nothing under that name.

        Cancelled, it may leave the whole file; nothing refers to it, and `CheckpointStorage.collect` removes it.

        Raises:
            CheckpointError: a file of that name exists (it is never replaced), or the disk refused.
            CheckpointDamaged: the disk took less than it was given.
        """
        size = checksum = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size, checksum
            async for block in blocks:
                size += len(block)
                checksum = zlib.crc32(block, checksum)
                yield block

        path = self.path_of(name)
        with in_words(self.job, "write a part of a checkpoint", path):
            await self.disk.create_new(path, counted())
            found = await self.disk.size(path)
            if found != size:
                await self.disk.remove(path)
        if found != size:
            raise CheckpointDamaged(self.job, name, f"the disk took {found} of {size} bytes and called it done")
        return FileRef(name, size, checksum)

    async def read(self, ref: FileRef) -> AsyncIterator[bytes]:
        """The content, in blocks; verified as they pass, so the last word comes at the end.

        Raises:
            CheckpointDamaged: it is missing, or its size or checksum differ.
            CheckpointError: the disk refused.
        """
        path = self.path_of(ref.name)
        size = checksum = 0
        with in_words(self.job, "read a part of a checkpoint", path):
            try:
                async for block in self.disk.read(path):
                    size += len(block)
                    checksum = zlib.crc32(block, checksum)
                    if size > ref.size:
                        break
                    yield block
            except FileNotFoundError as error:
                raise CheckpointDamaged(self.job, ref.name, "the file is missing") from error
        if size != ref.size:
            raise CheckpointDamaged(
                self.job, ref.name, f"the file has {'more than ' if size > ref.size else ''}{size} bytes, not {ref.size}"
            )
        if checksum != ref.checksum:
            raise CheckpointDamaged(self.job, ref.name, "its content is not what was written: the checksum differs")

    async def adopt(self, path: str, name: str) -> FileRef:
        """Take over an immutable file of this machine under a new name, by hard link where that can be, else by copying.

        Raises:
            CheckpointError: as `write`.
        """
        target = self.path_of(name)
        with in_words(self.job, f"take over {path!r} into a checkpoint", target):
            await self.disk.take_in(path, target)
            size = checksum = 0
            async for block in self.disk.read(target):
                size += len(block)
                checksum = zlib.crc32(block, checksum)
        return FileRef(name, size, checksum)

    async def fetch(self, ref: FileRef, path: str) -> None:
        """Put a file at a path of this machine that must not exist; what is there then must not be written to.

        Raises:
            CheckpointDamaged: as `read`; nothing is at that path then.
            CheckpointError: the disk refused, or something is at that path.
        """
        await self.verify(ref)
        with in_words(self.job, f"bring {ref.name!r} out of a checkpoint", path):
            await self.disk.bring_out(self.path_of(ref.name), path)

    async def verify(self, ref: FileRef) -> None:
        """Read a file to its end.

        Raises:
            CheckpointDamaged: as `read`.
        """
        async for _ in self.read(ref):
            pass

    async def copy_from(self, other: PartFiles, ref: FileRef, name: str) -> FileRef:
        """Take a file over from another folder, verified: by hard link on the same disk where that can be.

        Raises:
            CheckpointDamaged: it is damaged there, or did not arrive whole.
            CheckpointError: as `write`.
        """
        if self.disk != other.disk:
            return await self.write(name, other.read(ref))
        with in_words(self.job, "copy a part of a checkpoint", self.path_of(name)):
            try:
                await self.disk.link_or_copy(other.path_of(ref.name), self.path_of(name))
            except FileNotFoundError as error:
                raise CheckpointDamaged(self.job, ref.name, "the file is missing") from error
        copy = FileRef(name, ref.size, ref.checksum)
        await self.verify(copy)
        return copy
