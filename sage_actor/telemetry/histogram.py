"""A latency histogram of plain integers in logarithmic buckets."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LogHistogram"]

SUB_BITS = 5


class LogHistogram:
    """Counts nanoseconds in buckets of at most 1/32 relative width (error of a percentile below 3.2 %)."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0

    def record(self, value: int, times: int = 1) -> None:
        """Count a value (negative ones count as 0)."""
        shift = value.bit_length() - SUB_BITS - 1
        bucket = value if shift <= 0 else (shift << SUB_BITS) + (value >> shift)
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + times
        self.total += times

    def percentile(self, q: float) -> int:
        """The value at or below which a share q (0..1) of all lie; 0 when empty. The upper edge of its bucket."""
        wanted = max(1, round(q * self.total))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return upper_edge(bucket)
        return 0

    def merge(self, other: LogHistogram) -> None:
        """Add another histogram's counts."""
        for bucket, times in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + times
        self.total += other.total

    def to_dict(self) -> dict[int, int]:
        """Bucket -> count."""
        return dict(self.counts)

    @classmethod
    def from_dict(cls, counts: Mapping[int, int]) -> LogHistogram:
        """The inverse of `to_dict`."""
        histogram = cls()
        histogram.counts = dict(counts)
        histogram.total = sum(counts.values())
        return histogram


def upper_edge(bucket: int) -> int:
    """Largest value of a bucket."""
    if bucket < 2 << SUB_BITS:
        return bucket
    shift = (bucket >> SUB_BITS) - 1
    return ((bucket - (shift << SUB_BITS) + 1) << shift) - 1
