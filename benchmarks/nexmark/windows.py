"""Queries over windows: q5, q7, q8, q11 in event time, q12 in processing time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sage_actor as sage
from benchmarks.nexmark.events import Bid, Event, Person, time_of
from benchmarks.nexmark.rows import bids_of

__all__ = ["DISORDER", "q5", "q7", "q8", "q11", "q12"]

Stream = sage.DataStream[Any]

DISORDER = sage.BoundedDisorder("4s")
auction_of: Callable[[Bid], int] = lambda bid: bid.auction
bidder_of: Callable[[Bid], int] = lambda bid: bid.bidder


class Most(sage.AggregateFunction[Any, list[Any], list[Any]]):
    """All counts that are the highest of their window."""

    def create(self) -> list[Any]:
        """None yet."""
        return []

    def add(self, accumulator: list[Any], value: Any) -> list[Any]:
        """Ties stay."""
        if not accumulator or value.value > accumulator[0].value:
            return [value]
        if value.value == accumulator[0].value:
            accumulator.append(value)
        return accumulator

    def result(self, accumulator: list[Any]) -> list[Any]:
        """Rows of (start, auction, bids)."""
        return [(count.start, count.key, count.value) for count in accumulator]


class Dearest(sage.AggregateFunction[Bid, list[Bid], list[Any]]):
    """All bids at the highest price of their window."""

    def create(self) -> list[Bid]:
        """None yet."""
        return []

    def add(self, accumulator: list[Bid], value: Bid) -> list[Bid]:
        """Ties stay."""
        if not accumulator or value.price > accumulator[0].price:
            return [value]
        if value.price == accumulator[0].price:
            accumulator.append(value)
        return accumulator

    def result(self, accumulator: list[Bid]) -> list[Any]:
        """Rows of the bids."""
        return [(bid.auction, bid.price, bid.bidder, bid.date_time, bid.extra) for bid in accumulator]


value_of: Callable[[Any], Any] = lambda result: result.value


class NotBeaten(sage.FilterFunction[Any]):
    """Drops most of what cannot be the highest of its ten seconds, so that little is left for the window behind it.

    It only saves work: what it remembers need not survive a crash, and each of several tasks may have its own.
    """

    def open(self, context: sage.FunctionContext) -> None:
        """Nothing seen yet."""
        self.best: dict[int, int] = {}

    def beats(self, window: int, value: int) -> bool:
        """Remember the highest of a window; forget the windows of long ago."""
        self.best[window] = value
        if len(self.best) > 16:
            self.best = dict(sorted(self.best.items())[-8:])
        return True


class NotOutbid(NotBeaten):
    """Bids that may be the dearest."""

    def filter(self, value: Event) -> bool:
        """By window of ten seconds."""
        if value.__class__ is not Bid:
            return False
        window = value.date_time // 10_000
        return value.price >= self.best.get(window, 0) and self.beats(window, value.price)


class NotOutnumbered(NotBeaten):
    """Counts that may be the highest."""

    def filter(self, value: Any) -> bool:
        """By start of the window."""
        _, start, _, count = value
        return count >= self.best.get(start, 0) and self.beats(start, count)


def q5(events: sage.DataStream[Event]) -> Stream:
    """The auctions with most bids in each ten seconds, every two: counts by auction, then the highest of each end."""
    counts = bids_of(events).assign_timestamps(time_of, DISORDER).key_by(auction_of).window(sage.Sliding("10s", every="2s")).count()
    return counts.filter(NotOutnumbered).window_all(sage.Tumbling("2s")).aggregate(Most).flat_map(value_of)


def q7(events: sage.DataStream[Event]) -> Stream:
    """The dearest bids of each ten seconds."""
    return (
        events.filter(NotOutbid).assign_timestamps(time_of, DISORDER).window_all(sage.Tumbling("10s")).aggregate(Dearest).flat_map(value_of)
    )


class Registration:
    """What is known of a person in a window: the name, once registered, and whether they have opened an auction. Adds up."""

    __slots__ = ("name", "opened")

    def __init__(self, name: str, opened: bool) -> None:
        self.name = name
        self.opened = opened

    def __add__(self, other: Registration) -> Registration:
        return Registration(self.name or other.name, self.opened or other.opened)


def q8(events: sage.DataStream[Event]) -> Stream:
    """Who opens an auction in the ten seconds of their registration: one sum over both kinds of event, by person."""
    person_of: Callable[[Any], int] = lambda event: event.id if event.__class__ is Person else event.seller
    known: Callable[[Any], Registration] = lambda event: (
        Registration(event.name, False) if event.__class__ is Person else Registration("", True)
    )
    both: Callable[[Any], bool] = lambda result: result.value.opened and result.value.name != ""
    others = events.filter(lambda event: event.__class__ is not Bid).assign_timestamps(time_of, DISORDER)
    sums = others.key_by(person_of).window(sage.Tumbling("10s")).sum(known)
    return sums.filter(both).map(lambda result: (result.key, result.value.name, result.start))


def q11(events: sage.DataStream[Event]) -> Stream:
    """Bids of each bidder without a pause of ten seconds."""
    return bids_of(events).assign_timestamps(time_of, DISORDER).key_by(bidder_of).window(sage.Session(gap="10s")).count()


def q12(events: sage.DataStream[Event]) -> Stream:
    """Bids of each bidder in every ten seconds of the machine's clock."""
    return bids_of(events).key_by(bidder_of).window(sage.Tumbling("10s", time="processing")).count()
