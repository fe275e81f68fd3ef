"""Windows: which stretches of time, or of records, a record belongs to.

All windows are half-open, ``start <= time < end``, and aligned at the epoch (plus `offset`). A record exactly `gap` after the last
one of a session starts a new session; Flink would merge the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Generic, Literal, NamedTuple, TypeVar

from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK, milliseconds
from sage_actor.errors import GraphError

__all__ = [
    "LARGEST_SPAN",
    "LARGEST_TIMESTAMP",
    "Count",
    "Global",
    "Session",
    "Sliding",
    "TimeDomain",
    "TimeSpan",
    "Tumbling",
    "WindowAssigner",
    "WindowResult",
]

K = TypeVar("K")
V = TypeVar("V")

TimeDomain = Literal["event", "processing"]
LARGEST_TIMESTAMP: Final = 2**62
"""Timestamps of windowed records lie between this and its negative, so that no end of a window leaves 64 bits."""
LARGEST_SPAN: Final = 2**60
"""The longest size, gap or lateness, in milliseconds."""


class WindowResult(NamedTuple, Generic[K, V]):
    """What one window of one key came to. `start` and `end` are milliseconds (`Count`: numbers of records); key None: whole stream."""

    key: K
    start: int
    end: int
    value: V


class TimeSpan(NamedTuple):
    """One window: ``start <= time < end``, in milliseconds."""

    start: int
    end: int

    @property
    def last(self) -> int:
        """The last millisecond that belongs to it: the time of its results (F20)."""
        return self.end - 1


def positive(value: str | int, place: str) -> int:
    """A duration in milliseconds that is at least one and not absurdly long."""
    amount = milliseconds(value, place)
    if not 1 <= amount <= LARGEST_SPAN:
        raise GraphError(f"{place}: a duration of at least 1 ms and at most 2**60 ms, not {value!r}")
    return amount


def check_domain(time: object, place: str) -> None:
    """Refuse what is neither kind of time."""
    if time not in ("event", "processing"):
        raise GraphError(f'{place}: time is "event" (the records\' own) or "processing" (the clock\'s), not {time!r}')


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows of one size, one after the other.

    Args:
        size: "10s", or milliseconds.
        offset: where one window begins, counted from the epoch; may be negative.
        time: "event", or "processing" for the clock of the machine.
    """

    size: str | int
    offset: str | int = 0
    time: TimeDomain = "event"

    def __post_init__(self) -> None:
        size = positive(self.size, "Tumbling: size")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "offset", milliseconds(self.offset, "Tumbling: offset") % size)
        check_domain(self.time, "Tumbling")

    @property
    def span(self) -> int:
        """The size in milliseconds."""
        return int(self.size)

    @property
    def step(self) -> int:
        """Milliseconds from one window's start to the next one's."""
        return self.span

    @property
    def shift(self) -> int:
        """The offset in milliseconds, from 0 to less than a step."""
        return int(self.offset)

    def windows_of(self, timestamp: int) -> list[TimeSpan]:
        """The one window that holds this time."""
        start = timestamp - (timestamp - self.shift) % self.span
        return [TimeSpan(start, start + self.span)]


@dataclass(frozen=True, slots=True)
class Sliding:
    """Windows of one size that begin every so often, so that they overlap.

    Args:
        size: "10s", or milliseconds.
        every: distance from one window's start to the next; at most `size`.
        offset: where one window begins, counted from the epoch; may be negative.
        time: "event", or "processing" for the clock of the machine.
    """

    size: str | int
    every: str | int
    offset: str | int = 0
    time: TimeDomain = "event"

    def __post_init__(self) -> None:
        size, every = positive(self.size, "Sliding: size"), positive(self.every, "Sliding: every")
        if every > size:
            raise GraphError(
                f"Sliding: every ({every} ms) is longer than size ({size} ms), so records between windows would vanish; filter them out"
            )
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "every", every)
        object.__setattr__(self, "offset", milliseconds(self.offset, "Sliding: offset") % every)
        check_domain(self.time, "Sliding")

    @property
    def span(self) -> int:
        """The size in milliseconds."""
        return int(self.size)

    @property
    def step(self) -> int:
        """Milliseconds from one window's start to the next one's."""
        return int(self.every)

    @property
    def shift(self) -> int:
        """The offset in milliseconds, from 0 to less than a step."""
        return int(self.offset)

    @property
    def pane(self) -> int:
        """The longest stretch that no window's border divides: what is added up once and shared by all windows over it."""
        return math.gcd(self.span, self.step)

    def windows_of(self, timestamp: int) -> list[TimeSpan]:
        """The windows that hold this time, the earliest first."""
        last = timestamp - (timestamp - self.shift) % self.step
        first = last - (self.span - 1 - (timestamp - last)) // self.step * self.step
        return [TimeSpan(start, start + self.span) for start in range(first, last + 1, self.step)]


@dataclass(frozen=True, slots=True)
class Session:
    """Windows that last as long as records follow each other by less than `gap`; they end `gap` after the last one.

    Args:
        gap: "5s", or milliseconds. A record exactly that much later starts a new session.
        time: "event", or "processing" for the clock of the machine.
    """

    gap: str | int
    time: TimeDomain = "event"

    def __post_init__(self) -> None:
        object.__setattr__(self, "gap", positive(self.gap, "Session: gap"))
        check_domain(self.time, "Session")

    @property
    def span(self) -> int:
        """The gap in milliseconds."""
        return int(self.gap)

    def windows_of(self, timestamp: int) -> list[TimeSpan]:
        """What one record alone would make; overlapping ones are one session."""
        return [TimeSpan(timestamp, timestamp + self.span)]


@dataclass(frozen=True, slots=True)
class Count:
    """Windows of so many records of a key, in order of arrival. `start` and `end` of results are numbers of records, from 0.

    Args:
        size: records per window.
        every: records from one window's start to the next one's; `size` unless given.
        partial: when the input ends, emit incomplete windows too; otherwise they are dropped.
    """

    size: int
    every: int | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("every", self.step)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise GraphError(f"Count: {name} must be a whole number of at least 1, not {value!r}")
        if self.step > self.size:
            raise GraphError(f"Count: every ({self.every}) is more than size ({self.size}), so records between windows would vanish")

    @property
    def step(self) -> int:
        """Records from one window's start to the next one's."""
        return self.size if self.every is None else self.every


@dataclass(frozen=True, slots=True)
class Global:
    """One window for all time. Without a trigger it gives its result when the input ends; results carry the highest timestamp."""

    @property
    def time(self) -> TimeDomain:
        """Event time, which only triggers look at: the records need none."""
        return "event"

    def windows_of(self, timestamp: int) -> list[TimeSpan]:
        """The one window."""
        return [TimeSpan(MIN_WATERMARK, MAX_WATERMARK)]


WindowAssigner = Tumbling | Sliding | Session | Count | Global
"""Everything that ``window(...)`` takes."""
