"""How many records a receiver that pulls should get at once: learned from how long it takes over them. Pure."""

from __future__ import annotations

from statistics import median_low

__all__ = ["AIM_NS", "PieceSize"]

AIM_NS = 8_000_000
"""How long a piece should take: short against what anybody waits for, long against what handing it over costs."""
SAMPLES = 5
"""Pieces of one size before anything is concluded."""
REST = 8
"""Conclusions that are passed over after a larger and a smaller size were tried in vain."""
FLAT = 1.5
"""A piece of twice the records that takes less than so many times as long: it is not the records that take the time."""


class PieceSize:
    """The size doubles or halves until pieces take about `AIM_NS`, unless their time does not depend on their size.

    It takes as long as the records cost, or as it takes to hand a piece over, whichever is longer: the next one is on its way while one is
    worked at. Where handing over takes longer (a slow link, a machine with too much to do) smaller pieces would only mean fewer records in
    the same time. So each change is a trial, and what was measured before and after it decides.

    Attributes:
        size: for the next piece.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.size = 1
        self.samples: list[int] = []
        self.before: tuple[int, int] | None = None
        self.upwards = True
        self.in_vain = 0
        self.rest = 0

    def took(self, records: int, nanoseconds: int) -> None:
        """A receiver that always had work has taken so long over a piece. Pieces of another size than the present one say nothing."""
        if records != self.size:
            return
        self.samples.append(nanoseconds)
        if len(self.samples) >= SAMPLES:
            took = median_low(self.samples)
            self.samples = []
            self._conclude(took)

    def _conclude(self, took: int) -> None:
        before, self.before = self.before, None
        if before is not None:
            self._compare(before, (self.size, took))
        elif self.rest:
            self.rest -= 1
        elif took < AIM_NS // 2:
            self._try(self.size * 2, took)
        elif took > 2 * AIM_NS:
            self._try(self.size * 2 if self.upwards or self.size == 1 else self.size // 2, took)

    def _try(self, size: int, took: int) -> None:
        size = min(self.largest, size)
        if size != self.size:
            self.before = (self.size, took)
            self.size = size

    def _compare(self, before: tuple[int, int], now: tuple[int, int]) -> None:
        """Keep the better of two sizes, one of which has twice as many records."""
        (small, short), (large, long) = sorted((before, now))
        better = large if long < FLAT * short or long <= 2 * AIM_NS else small
        if better == self.size:
            self.in_vain = 0
        else:
            self.in_vain += 1
            self.upwards = better > self.size
            if self.in_vain > 1:  # neither larger nor smaller ones are better
                self.rest = REST
        self.size = better
