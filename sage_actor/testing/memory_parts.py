"""A storage for the parts of checkpoints, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from zlib import crc32

from sage_actor.errors import CheckpointDamaged, CheckpointError
from sage_actor.ports import offload
from sage_actor.state.parts import FileRef

__all__ = ["MemoryParts"]


class MemoryParts:
    """A `PartStorage` in memory.

    Attributes:
        files: content by name.
        damaged: names that read as damaged.
        full: when set, nothing more can be written.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.damaged: set[str] = set()
        self.full = False

    async def write(self, name: str, blocks: AsyncIterable[bytes]) -> FileRef:
        content = b"".join([block async for block in blocks])
        return self._add(name, content)

    async def read(self, ref: FileRef) -> AsyncIterator[bytes]:
        content = self._content(ref)
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    async def adopt(self, path: str, name: str) -> FileRef:
        return self._add(name, await offload(Path(path).read_bytes))

    async def fetch(self, ref: FileRef, path: str) -> None:
        content = self._content(ref)
        await offload(lambda: Path(path).write_bytes(content))

    def _add(self, name: str, content: bytes) -> FileRef:
        if self.full:
            raise CheckpointError("conformance", "no space left", name)
        if name in self.files:
            raise CheckpointError("conformance", "the file exists", name)
        self.files[name] = content
        return FileRef(name, len(content), crc32(content))

    def _content(self, ref: FileRef) -> bytes:
        if ref.name not in self.files or ref.name in self.damaged:
            raise CheckpointDamaged("conformance", ref.name, "missing")
        return self.files[ref.name]
