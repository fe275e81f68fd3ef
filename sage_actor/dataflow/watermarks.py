"""Watermark strategies: how far event time has come, judged from the timestamps seen (rules F16 to F19)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sage_actor.durations import parse_duration
from sage_actor.errors import GraphError

__all__ = ["MAX_WATERMARK", "MIN_WATERMARK", "BoundedDisorder", "Monotonic", "Punctuated", "WatermarkStrategy", "milliseconds"]

MIN_WATERMARK: Final = -(2**63)
"""Before any record: nothing is certain."""
MAX_WATERMARK: Final = 2**63 - 1
"""All input has ended: nothing can come any more."""

Duration = str | float | int


def milliseconds(value: Duration, place: str) -> int:
    """A duration of event time in whole milliseconds; a bare whole number means milliseconds."""
    if isinstance(value, str):
        negative = value.startswith("-")
        amount = round(parse_duration(value.removeprefix("-")) * 1000)
        return -amount if negative else amount
    if isinstance(value, bool) or not isinstance(value, int):
        raise GraphError(f'{place}: a time is a text such as "5s" or a whole number of milliseconds, not {value!r}')
    return value


class WatermarkStrategy(Protocol):
    """How watermarks follow from records. One instance describes; `start` gives each task (each split) its own state."""

    @property
    def idle_after(self) -> float | None:
        """Seconds without a record after which the stream counts as idle and holds nobody up; None for never."""
        ...

    @property
    def advance_when_idle(self) -> bool:
        """Whether event time goes on with the clock once the stream is idle, so that windows close without a next record."""
        ...

    @property
    def max_ahead(self) -> int | None:
        """Milliseconds a record may be ahead of the machine's clock and still move event time; None for any."""
        ...

    def start(self) -> Callable[[Any, int], int] | None:
        """A function of (record, timestamp) that answers the watermark to hold after that record; it may go back, which is ignored.

        None means `delay` below the highest timestamp.
        """
        ...

    @property
    def delay(self) -> int:
        """Milliseconds that event time stays behind the highest timestamp, where `start` answers None."""
        ...


@dataclass(frozen=True, init=False)
class BoundedDisorder:
    """Records come at most `disorder` later than newer ones: the watermark is the highest timestamp - disorder - 1 ms (F19).

    Args:
        disorder: "2s", or milliseconds.
        idle_after: silence after which this stream holds nobody up; None for never.
        advance_when_idle: once idle, let event time go on with the machine's clock.
        max_ahead: how far a timestamp may be ahead of the machine's clock and still move event time; a record from a broken clock
            then makes nothing late.
    """

    delay: int = 0
    idle_after: float | None = None
    advance_when_idle: bool = False
    max_ahead: int | None = None

    def __init__(
        self,
        disorder: Duration = 0,
        *,
        idle_after: str | float | None = None,
        advance_when_idle: bool = False,
        max_ahead: Duration | None = None,
    ) -> None:
        delay = milliseconds(disorder, "BoundedDisorder")
        if delay < 0:
            raise GraphError(f"BoundedDisorder: the disorder must not be negative, not {disorder!r}")
        if advance_when_idle and idle_after is None:
            raise GraphError("BoundedDisorder: advance_when_idle needs idle_after: how long to wait for a record first")
        silence, ahead = silence_and_lead(idle_after, max_ahead)
        object.__setattr__(self, "delay", delay)
        object.__setattr__(self, "idle_after", silence)
        object.__setattr__(self, "advance_when_idle", advance_when_idle)
        object.__setattr__(self, "max_ahead", ahead)

    def start(self) -> Callable[[Any, int], int] | None:
        return None


class Monotonic(BoundedDisorder):
    """Timestamps never go back: the watermark is the highest timestamp - 1 ms. The same as ``BoundedDisorder(0)``."""

    def __init__(
        self, *, idle_after: str | float | None = None, advance_when_idle: bool = False, max_ahead: Duration | None = None
    ) -> None:
        super().__init__(0, idle_after=idle_after, advance_when_idle=advance_when_idle, max_ahead=max_ahead)


@dataclass(frozen=True, init=False)
class Punctuated:
    """Records say themselves how far event time has come.

    Args:
        watermark: a function of (record, timestamp): the watermark to hold after it, or None to leave it where it is.
        idle_after: as in `BoundedDisorder`.
    """

    watermark: Callable[[Any, int], int | None]
    idle_after: float | None = None
    advance_when_idle: bool = False
    max_ahead: int | None = None
    delay: int = 0

    def __init__(self, watermark: Callable[[Any, int], int | None], *, idle_after: str | float | None = None) -> None:
        object.__setattr__(self, "watermark", watermark)
        object.__setattr__(self, "idle_after", silence_and_lead(idle_after, None)[0])

    def start(self) -> Callable[[Any, int], int] | None:
        """The user's function, with None read as "not yet"."""
        return Judge(self.watermark)


class Judge:
    """A user's function of record and timestamp that need not know."""

    def __init__(self, watermark: Callable[[Any, int], int | None]) -> None:
        self.watermark = watermark

    def __call__(self, record: Any, timestamp: int) -> int:
        answer = self.watermark(record, timestamp)
        return MIN_WATERMARK if answer is None else answer


def silence_and_lead(idle_after: str | float | None, max_ahead: Duration | None) -> tuple[float | None, int | None]:
    """Both in their units: seconds of silence, milliseconds ahead of the clock."""
    silence = None if idle_after is None else parse_duration(idle_after)
    return silence, None if max_ahead is None else milliseconds(max_ahead, "max_ahead")
