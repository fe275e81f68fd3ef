"""Memory that two processes share: mapped files without a descriptor each, regions lent by one and given back by the other."""

from collections.abc import Sequence

Buffer = bytes | bytearray | memoryview

class Mapping:
    """Part of an open file, mapped shared and writable for as long as this object, or a buffer of it, lives.

    Keeps no descriptor, so the file may be closed. A buffer of bytes. Nothing guards the content: whoever writes agrees with
    the readers through flags, 32-bit words in a mapping of their own.
    """

    size: int
    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        """Map it; all of its pages are there when this returns. `offset` must be a multiple of the page size.

        Raises OSError where the system refuses, ValueError for a size below 1. The file must be as long: touching what lies
        behind its end kills the process.
        """

    def write(self, at: int, parts: Sequence[Buffer]) -> int:
        """Copy C-contiguous buffers one behind the other, beginning at byte `at`; the first byte behind them.

        Raises ValueError where they do not fit; nothing is promised about the content then.
        """

    def give_up_pages(self) -> None:
        """Give the memory back to the system, for all who map this part of the file; it reads as zeros from then on.

        Raises OSError where the file cannot do that.
        """

    def lend(self, flag: int) -> None:
        """Set a flag: what it stands for is lent. Everything written before is visible to whoever sees that."""

    def give_back(self, flag: int) -> None:
        """Clear a flag: whoever sees that may write again."""

    def is_lent(self, flag: int) -> bool:
        """Whether the flag is still set. Raises IndexError for a flag behind the end, as `lend` and `give_back` do."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

class Lease:
    """A region lent by another process: a writable buffer, whose flag is cleared when nothing refers to it any more.

    After a fork of this process it is never cleared (nobody knows what the child still reads), so the lender loses the region.
    """

    outlives_call: bool
    """True: what a backend promises about frames in such memory."""
    def __init__(self, memory: Mapping, start: int, size: int, flags: Mapping, flag: int) -> None:
        """Bytes start to start + size of `memory`, returned through a flag. Raises ValueError where it has no such bytes,
        IndexError where it has no such flag."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

def is_aligned(buffer: Buffer, boundary: int) -> bool:
    """Whether a contiguous buffer begins at a multiple of `boundary` in memory; an empty one does."""
