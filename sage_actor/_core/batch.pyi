"""Batch: the unit that moves between tasks. Marker: what travels between batches."""

from collections.abc import Sequence
from typing import Any, Final

END: Final = 1
WATERMARK: Final = 2
BARRIER: Final = 3

class Batch:
    """Records as parallel columns. Absent columns are None.

    ``values`` is a list (or a numpy array after a vectorised step); ``keys``, ``timestamps`` (ms since the epoch) and
    ``tags`` (correlation of served requests) are lists of the same length. ``position`` is the source position of the
    first record when the records are contiguous in one source, else -1. A batch belongs to whoever received it.
    """

    values: Sequence[Any]
    keys: list[Any] | None
    timestamps: list[int] | None
    tags: list[Any] | None
    position: int
    def __init__(
        self,
        values: Sequence[Any],
        keys: list[Any] | None = None,
        timestamps: list[int] | None = None,
        tags: list[Any] | None = None,
        position: int = -1,
    ) -> None: ...
    def __len__(self) -> int: ...
    def extend(self, other: Batch) -> bool:
        """Append other's records in place when both have the same columns and list values; says whether it did."""

class Marker:
    """END of input, WATERMARK(value) or BARRIER(value); travels inside a channel, in order, and needs no credit."""

    kind: int
    value: int
    def __init__(self, kind: int, value: int = 0) -> None: ...
