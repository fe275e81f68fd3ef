"""Windows over a batch, in C."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

WindowKind = Literal["count", "sum", "min", "max", "custom", "records"]

class WindowFunctions(Protocol):
    """The user's functions, for the kinds "custom" (windows hold an accumulator) and "records" (they hold a list of their records)."""

    @property
    def create(self) -> Callable[[], Any] | None:
        """An accumulator without records; None: a first record is one."""
    @property
    def add(self) -> Callable[[Any, Any], Any] | None:
        """An accumulator and a record become an accumulator, maybe the same one. Not needed for records."""
    @property
    def merge(self) -> Callable[[Any, Any], Any] | None:
        """Two accumulators become one, the earlier first; it may change them. Needed by sessions, and by windows that share panes."""
    @property
    def finish(self) -> Callable[[Any, Any, int, int], Any]:
        """What to emit for an accumulator (or list of records), a key, a start and an end."""
    @property
    def copy(self) -> Callable[[Any], Any]:
        """A copy of an accumulator that no change of the original reaches."""

class FrozenWindows(Iterator[list[tuple[Any, Any]]]):
    """The content of a table as of its freeze, in slices of at most 1000 entries: removed ones first, then the others.

    The objects in a slice are those of the table, as they were at the freeze; the table's next change may be a change to them.
    """

    def __next__(self) -> list[tuple[Any, Any]]:
        """The next slice. Raises `SageError` once the table has been frozen again."""
    def close(self) -> None:
        """Let go of what was not read."""

class WindowTable:
    """All open windows of one operator in one task.

    ``kind``: what is computed, by ``functions`` if it is "custom" or "records"; sums are Python's own ``+`` over values as given
    (pane by pane in order of time; sessions that merge add up in no promised order), min and max are by ``<`` and ``>``.
    ``lateness``: milliseconds a window is kept, and fires again for each late record,
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
    ) -> int:
        """Add records start.. of a batch, each after what is due at its watermark has fired.

        Appends each result to `results`, its time to `times`, and to `befores` the watermark in force before the one that made it
        fire; the numbers of late records, which are not added, to `late`. An exception of a record (no key, no timestamp, its
        ``+``, the user's function) leaves it out; go on with start=index+1. Returns where to go on: the length of the batch, or less
        if so much is due at once that firing takes more than this turn. Before that has gone on nothing else may be called.
        `keys` may be None if whole, `values` for counts.
        """
    def advance(self, watermark: int, results: list[Any], times: list[int], befores: list[int]) -> bool:
        """Fire, in ascending order of time, and remove what is due. A watermark that is not higher than before does nothing.

        Returns whether that is done; if not, so much is due that it takes more than this turn, and the same call must come again,
        before any other."""
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
