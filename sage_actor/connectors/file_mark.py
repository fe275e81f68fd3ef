"""What tells a file that was read in part from another one of the same name."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import Final

__all__ = ["FileMark"]

_HEAD: Final = 4096


@dataclass(frozen=True, slots=True)
class FileMark:
    """Size of a file and a checksum over its first bytes. Blocks the thread.

    Not its time of change: that moves when a file grows, which is allowed, and when it is copied back from a backup.

    Attributes:
        size: bytes on disk.
        head: how many bytes, from the first, the checksum is over.
        checksum: CRC-32 of these.
    """

    size: int
    head: int
    checksum: int

    @classmethod
    def of(cls, path: str, head: int = _HEAD) -> FileMark:
        """Raises `OSError`."""
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(head)
        return cls(size, len(data), zlib.crc32(data))

    def difference(self, path: str, earlier: FileMark) -> str:
        """What has happened to the file at ``path`` since it was marked, or "" if it has grown at most. Raises `OSError`."""
        if self.size < earlier.size:
            return f"it has shrunk from {earlier.size} to {self.size} bytes since it was read in part"
        now = self if self.head == earlier.head else FileMark.of(path, earlier.head)
        if now.checksum != earlier.checksum or now.head != earlier.head:
            return f"its first {earlier.head} bytes are not those that were read"
        return ""
