"""Batch: the unit that moves between tasks. Marker: what travels between batches."""

from collections.abc import Sequence
from typing import Any, Final

END: Final = 1
WATERMARK: Final = 2
BARRIER: Final = 3
IDLE: Final = 4

class Batch:
    """Records as parallel columns. Absent columns are None.

    ``values`` is a list (or a numpy array after a vectorised step); ``keys``, ``timestamps`` (ms since the epoch) and
    ``tags`` (correlation of served requests) are lists of the same length. ``position`` is the source position of the
    first record when the records are contiguous in one source, else -1. ``watermarks`` stands beside ``timestamps``: the event
    time that was certain right *before* each record (it never falls within a batch), so that lateness and timers do not depend on
    where batches begin. A batch belongs to whoever received it.
    """

    values: Sequence[Any]
    keys: list[Any] | None
    timestamps: list[int] | None
    tags: list[Any] | None
    position: int
    watermarks: list[int] | None
    def __init__(
        self,
        values: Sequence[Any],
        keys: list[Any] | None = None,
        timestamps: list[int] | None = None,
        tags: list[Any] | None = None,
        position: int = -1,
        watermarks: list[int] | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...
    def extend(self, other: Batch) -> bool:
        """Append other's records in place when both have the same columns and list values; says whether it did."""

class Marker:
    """END of input, WATERMARK(value), BARRIER(value) or IDLE; travels inside a channel, in order, and needs no credit."""

    kind: int
    value: int
    def __init__(self, kind: int, value: int = 0) -> None: ...
