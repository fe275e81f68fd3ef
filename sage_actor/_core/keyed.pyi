"""Keyed folds over a batch: one table look-up per record, in C."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from sage_actor._core.frozen_fold import FrozenFold

FoldKind = Literal["count", "sum", "min", "max", "reduce", "fold"]

class KeyedFold:
    """The state of one keyed aggregation of one task, and the loop over a batch.

    Running output per record: count, sum, min, max, fold -> (key, accumulator); reduce -> the accumulator itself
    (the first value of a key is its own accumulator). ``sum/min/max`` fold `values` as given (selectors are applied
    before); a sum is Python's own ``accumulator + value`` (the first value is its own accumulator; bools count as ints).
    min/max keep the earlier value on ties. ``fold`` starts each key with ``initial()`` and calls
    ``fn(accumulator, value)``; ``reduce`` calls ``fn(accumulator, value)``. The first time a key is seen it is checked with
    `stable_hash` (raises UnstableKey; None as a key raises UnstableKey too). Equal keys, of whatever types, share
    an accumulator, and results show the first of them.
    """

    index: int
    """While run() is in progress, or after it raised: index of the record being folded. Its effect is not applied. Read only."""
    def __init__(self, kind: FoldKind, fn: Callable[[Any, Any], Any] | None = None, initial: Callable[[], Any] | None = None) -> None: ...
    def run(self, keys: Sequence[Any], values: Sequence[Any] | None, start: int, out: list[Any] | None) -> None:
        """Fold records start.. of the batch; append one result per record to `out`, or none if out is None.

        Exceptions of fn pass through with `index` at the failing record and earlier results in `out`; call again with
        start=index+1 to skip it. values may be None for count. Arrays are read as plain Python numbers. While run() is in
        progress, run, load and clear raise SageError.
        """
    def results(self) -> list[Any]:
        """Final results in order of first appearance of the key; the same shape as running output."""
    def items(self) -> list[tuple[Any, Any]]:
        """(key, accumulator) pairs in order of first appearance."""
    def load(self, entries: Iterable[tuple[Any, Any]]) -> None:
        """Set the accumulators of these keys, in this order; other keys keep theirs (clear() first to replace everything)."""
    def __len__(self) -> int: ...
    def clear(self) -> None:
        """Forget all keys."""
    def get(self, key: Any, default: Any = None) -> Any:
        """The accumulator of a key, or default."""
    def absent(self, keys: Iterable[Any]) -> list[Any]:
        """Those keys that have no accumulator yet, in the order given, repetitions included."""
    def freeze(self, full: bool) -> FrozenFold:
        """The content as of now: all of it if full, or else what changed since the last freeze. The first one is always full.
        Costs what changed. Freezing again, or `FrozenFold.close`, ends the one before."""
    def thaw(self) -> None:
        """Used by `FrozenFold`."""
