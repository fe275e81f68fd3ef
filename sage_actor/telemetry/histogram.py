"""A latency histogram of plain integers in logarithmic buckets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

__all__ = ["HistogramCounts", "LogHistogram"]

SUB_BITS = 5
"""Each power of two is cut into 32 buckets; values below 64 have a bucket each."""


class HistogramCounts(TypedDict):
    """A histogram as plain values. JSON turns the bucket numbers into text; `LogHistogram.from_dict` takes both."""

    counts: dict[int, int]
    sum: int


class LogHistogram:
    """Counts nanoseconds in buckets of 1/32 relative width; a percentile is off by at most 1.6 %.

    One writer; other threads may read at any time (they see a value late, never a broken state).

    Attributes:
        total: how many values were counted.
        sum: their exact sum.
    """

    __slots__ = ("_counts", "sum", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0
        self.sum = 0

    def record(self, value: int, times: int = 1) -> None:
        """Count a value; negative ones (a clock that was set back) count as 0."""
        if value < 0:
            value = 0
        shift = value.bit_length() - SUB_BITS - 1
        bucket = value if shift <= 0 else (shift << SUB_BITS) + (value >> shift)
        counts = self._counts
        counts[bucket] = counts.get(bucket, 0) + times
        self.total += times
        self.sum += value * times

    def percentile(self, q: float) -> int:
        """The value that a share q (0..1) of all do not exceed (nearest rank), as the middle of its bucket; 0 when empty.

        Raises:
            ValueError: q is not a share.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a percentile is asked for as a share from 0 to 1 (0.99, not 99), not {q!r}")
        counts = dict(self._counts)
        # A hair less, so that 0.07 * 100 = 7.000000000000001 is the 7th.
        wanted = max(1, math.ceil(q * sum(counts.values()) - 1e-9))
        seen = 0
        for bucket in sorted(counts):
            seen += counts[bucket]
            if seen >= wanted:
                low, high = edges(bucket)
                return (low + high) // 2
        return 0

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Largest value and count of each bucket in use, ascending."""
        counts = dict(self._counts)
        for bucket in sorted(counts):
            yield edges(bucket)[1], counts[bucket]

    def merge(self, other: LogHistogram) -> None:
        """Add another histogram's counts."""
        for bucket, times in dict(other._counts).items():
            self._counts[bucket] = self._counts.get(bucket, 0) + times
        self.total += other.total
        self.sum += other.sum

    def to_dict(self) -> HistogramCounts:
        """Plain values that any serializer takes."""
        return {"counts": dict(self._counts), "sum": self.sum}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LogHistogram:
        """The inverse of `to_dict`, also after a journey through JSON.

        Raises:
            ValueError: these are not a histogram's values.
        """
        histogram = cls()
        try:
            histogram._counts = {int(bucket): int(times) for bucket, times in values["counts"].items()}
            histogram.sum = int(values["sum"])
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"not a histogram, which has the keys 'counts' and 'sum' of LogHistogram.to_dict(): {values!r:.200}"
            ) from error
        histogram.total = sum(histogram._counts.values())
        return histogram

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogHistogram) and self._counts == other._counts and self.sum == other.sum

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"<LogHistogram of {self.total} values, p50 {self.percentile(0.5)} ns, p99 {self.percentile(0.99)} ns>"


def edges(bucket: int) -> tuple[int, int]:
    """Smallest and largest value of a bucket."""
    if bucket < 2 << SUB_BITS:
        return bucket, bucket
    shift = (bucket >> SUB_BITS) - 1
    low = (bucket - (shift << SUB_BITS)) << shift
    return low, low + (1 << shift) - 1
