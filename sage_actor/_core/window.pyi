"""Windows over a batch for the built-in aggregates, in C."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

WindowKind = Literal["count", "sum", "min", "max"]

class FrozenWindows(Iterator[list[tuple[Any, Any]]]):
    """The content of a table as of its freeze, in slices of at most 1000 entries: removed ones first, then the others."""

    def __next__(self) -> list[tuple[Any, Any]]: ...

class WindowTable:
    """All open windows of one operator in one task.

    ``kind``: what is computed; sums are Python's own ``+`` over values as given (pane by pane in order of time; sessions that merge
    add up in no promised order), min and max are by ``<`` and ``>``. ``lateness``: milliseconds a window is kept, and fires again for each late record,
    after its result. ``whole``: there are no keys; results then have key None, entries the key "". ``result_type``: a named tuple of
    key, start, end, value. ``deleted``: stands for a removed entry. Timestamps must lie between -2**62 and 2**62.
    """

    index: int
    """While run() is in progress, or after it raised: the record in work. Its effect is not applied. Read only."""
    firing: bool
    """After run() or advance() raised: whether windows were firing, which leaves the table unusable."""
    watermark: int
    """The highest watermark seen."""
    next_due: int
    """The watermark from which on something is due: a result, or the removal of what is over."""
    def run(
        self,
        keys: list[Any] | None,
        values: list[Any] | None,
        timestamps: list[int],
        watermarks: list[int],
        start: int,
        results: list[Any],
        times: list[int],
        befores: list[int],
        late: list[int],
    ) -> None:
        """Add records start.. of a batch, each after what is due at its watermark has fired.

        Appends each result to `results`, its time to `times`, and to `befores` the watermark in force before the one that made it
        fire; the numbers of late records, which are not added, to `late`. An exception of a record (no key, no timestamp, its
        ``+``) leaves it out; go on with start=index+1. `keys` may be None if whole, `values` for counts.
        """
    def advance(self, watermark: int, results: list[Any], times: list[int], befores: list[int]) -> None:
        """Fire, in ascending order of time, and remove what is due. A watermark that is not higher than before does nothing."""
    def freeze(self, *, full: bool) -> FrozenWindows:
        """See `Freezable.freeze`. Entries: ((key, pane), value), or ((key, id), (start, end, fired, value)) of sessions. The first
        freeze is full in any case, and so is the first one after a long time without."""
    def load(self, entries: Iterable[tuple[Any, Any]]) -> None:
        """See `Freezable.load`."""
    def restore_watermark(self, watermark: int) -> None:
        """Windows up to here have fired before the snapshot: do not fire them again, and judge late records accordingly."""
    def keys_known(self) -> int:
        """Keys in memory; those without an open window are forgotten once they are the majority."""
    def __len__(self) -> int:
        """Open sessions, or keys' parts of panes."""
