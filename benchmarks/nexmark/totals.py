"""Queries whose answer is a running total by key, an update for each bid: q15 to q19. q4 ends in one, too."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from typing import Any

import sage_actor as sage
from benchmarks.nexmark.events import Bid, Event
from benchmarks.nexmark.rows import bids_of, day_of, minute_of

__all__ = ["q15", "q16", "q17", "q18", "q19"]

Stream = sage.DataStream[Any]


def band_of(price: int) -> int:
    """Which of the three price bands, from one."""
    return 1 if price < 10_000 else 2 if price < 1_000_000 else 3


class Traffic:
    """Bids, bidders and auctions: of all bids, and of each price band. The latest minute, too."""

    __slots__ = ("auctions", "bands", "bidders", "bids", "minute")

    def __init__(self) -> None:
        self.bids = 0
        self.bidders: set[int] = set()
        self.auctions: set[int] = set()
        self.bands: list[list[Any]] = [[0, set(), set()], [0, set(), set()], [0, set(), set()]]
        self.minute = ""

    def add(self, bid: Bid) -> None:
        """Count one bid."""
        price, bidder, auction = bid.price, bid.bidder, bid.auction
        self.bids += 1
        self.bidders.add(bidder)
        self.auctions.add(auction)
        band = self.bands[band_of(price) - 1]
        band[0] += 1
        band[1].add(bidder)
        band[2].add(auction)

    def row(self) -> tuple[int, ...]:
        """The twelve figures."""
        (a, b, c), (d, e, f), (g, h, i) = self.bands
        return (self.bids, a, d, g, len(self.bidders), len(b), len(e), len(h), len(self.auctions), len(c), len(f), len(i))


class TrafficTotals(sage.AggregateFunction[Bid, Traffic, Any]):
    """Traffic of a key."""

    def create(self) -> Traffic:
        """Nothing yet."""
        return Traffic()

    def add(self, accumulator: Traffic, value: Bid) -> Traffic:
        """One bid more."""
        accumulator.add(value)
        return accumulator

    def result(self, accumulator: Traffic) -> Any:
        """The twelve figures."""
        return accumulator.row()


class ChannelTotals(TrafficTotals):
    """Traffic of a key, and the latest minute in it."""

    def add(self, accumulator: Traffic, value: Bid) -> Traffic:
        """One bid more."""
        accumulator.add(value)
        accumulator.minute = max(accumulator.minute, minute_of(value.date_time))
        return accumulator

    def result(self, accumulator: Traffic) -> Any:
        """The minute and the twelve figures."""
        return (accumulator.minute, *accumulator.row())


class PriceTotals(sage.AggregateFunction[Bid, list[int], Any]):
    """Bids by price band; the lowest, highest and mean price, and their sum."""

    def create(self) -> list[int]:
        """Count, three bands, least, greatest, sum."""
        return [0, 0, 0, 0, 1 << 62, 0, 0]

    def add(self, accumulator: list[int], value: Bid) -> list[int]:
        """One bid more."""
        price = value.price
        accumulator[0] += 1
        accumulator[band_of(price)] += 1
        if price < accumulator[4]:
            accumulator[4] = price
        if price > accumulator[5]:
            accumulator[5] = price
        accumulator[6] += price
        return accumulator

    def result(self, accumulator: list[int]) -> Any:
        """The row without its key."""
        count, low, middle, high, least, most, total = accumulator
        return (count, low, middle, high, least, most, total / count, total)


def q15(events: sage.DataStream[Event]) -> Stream:
    """Traffic by day."""
    day: Callable[[Bid], str] = lambda bid: day_of(bid.date_time)
    return bids_of(events).key_by(day).aggregate(TrafficTotals).map(lambda pair: (pair[0], *pair[1]))


def q16(events: sage.DataStream[Event]) -> Stream:
    """Traffic by channel and day, with the latest minute."""
    key: Callable[[Bid], tuple[str, str]] = lambda bid: (bid.channel, day_of(bid.date_time))
    return bids_of(events).key_by(key).aggregate(ChannelTotals).map(lambda pair: (*pair[0], *pair[1]))


def q17(events: sage.DataStream[Event]) -> Stream:
    """Prices by auction and day."""
    key: Callable[[Bid], tuple[int, str]] = lambda bid: (bid.auction, day_of(bid.date_time))
    return bids_of(events).key_by(key).aggregate(PriceTotals).map(lambda pair: (*pair[0], *pair[1]))


def q18(events: sage.DataStream[Event]) -> Stream:
    """The latest bid of each bidder for each auction; of two at the same time the one that came later."""
    key: Callable[[Bid], tuple[int, int]] = lambda bid: (bid.bidder, bid.auction)
    later: Callable[[Bid, Bid], Bid] = lambda so_far, bid: bid if bid.date_time >= so_far.date_time else so_far
    return bids_of(events).key_by(key).reduce(later)


class TopTen(sage.KeyedProcessFunction[Any, Any]):
    """The ten dearest bids of each auction; of the same price the earlier one first. Emits the ranks that changed."""

    def open(self, context: sage.FunctionContext) -> None:
        """The ten, sorted, lie in one value."""
        self.top = context.state.value("top", default=())

    def process(self, value: Bid, context: sage.KeyedContext) -> Iterator[Any]:
        """Where it comes in, everything below moves down."""
        top = self.top.get()
        price = value.price
        if len(top) == 10 and top[9][0] >= price:
            return
        rows = list(top)
        entry = (price, value.bidder, value.date_time)
        insort(rows, entry, key=lambda row: -row[0])
        del rows[10:]
        self.top.set(tuple(rows))
        for rank in range(rows.index(entry), len(rows)):
            row = rows[rank]
            yield (value.auction, rank + 1, row[1], row[0], row[2])


def q19(events: sage.DataStream[Event]) -> Stream:
    """The ten dearest bids of each auction, ranked."""
    auction: Callable[[Bid], int] = lambda bid: bid.auction
    return bids_of(events).key_by(auction).process(TopTen)
