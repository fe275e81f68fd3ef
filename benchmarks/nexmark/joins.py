"""Queries that bring events of two kinds together: q3, q4, q6, q9, q13, q20."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sage_actor as sage
from benchmarks.nexmark.events import Auction, Bid, Event, Person, is_auction, is_person, time_of
from benchmarks.nexmark.rows import bids_of
from benchmarks.nexmark.windows import DISORDER

__all__ = ["SIDE", "q3", "q4", "q6", "q9", "q13", "q20"]

Stream = sage.DataStream[Any]

CATEGORY = 10
STATES = frozenset(("OR", "ID", "CA"))
SIDE: list[tuple[int, str]] = [(key, f"side {key}") for key in range(10_000)]
"""q13's side table."""


class SellersOf(sage.KeyedCoProcessFunction[Any, Any, Any]):
    """A person and the auctions they sell; auctions wait until it is known whether the person lives in one of the states."""

    def open(self, context: sage.FunctionContext) -> None:
        """What is emitted of the person (nothing: lives elsewhere); auctions only until that is known."""
        self.person = context.state.value("person", default=None)
        self.waiting = context.state.list("waiting")

    def process(self, value: Auction, context: sage.KeyedContext) -> Iterator[Any]:
        """An auction."""
        person = self.person.get()
        if person is None:
            self.waiting.append(value.id)
        elif person:
            yield (*person, value.id)

    def process_second(self, value: Person, context: sage.KeyedContext) -> Iterator[Any]:
        """The person, once."""
        person = (value.name, value.city, value.state) if value.state in STATES else ()
        self.person.set(person)
        if person:
            for auction in list(self.waiting):
                yield (*person, auction)
        self.waiting.clear()


def q3(events: sage.DataStream[Event]) -> Stream:
    """Sellers in three states and their auctions in category 10."""
    auctions = events.filter(lambda event: event.__class__ is Auction and event.category == CATEGORY)
    persons = events.filter(is_person)
    return auctions.key_by(lambda a: a.seller).connect(persons.key_by(lambda p: p.id)).process(SellersOf)


class Winning(sage.KeyedProcessFunction[Any, Any]):
    """The highest bid of each auction within its lifetime, of equal ones the earliest; emitted once the auction has expired.

    A bid may come before its auction as far as the disorder goes: those wait until event time has passed them.
    """

    def open(self, context: sage.FunctionContext) -> None:
        """An auction and its best bid so far, or the bids that came before it."""
        self.auction = context.state.value("auction", default=None)
        self.best = context.state.value("best", default=None)
        self.early = context.state.list("early")

    def process(self, value: Bid | Auction, context: sage.KeyedContext) -> Iterator[Any] | None:
        """An auction, or a bid for it."""
        if value.__class__ is Auction:
            self.auction.set(value)
            context.timers.event_time(value.expires)
            for bid in list(self.early):
                self.judge(value, bid)
            self.early.clear()
            return None
        auction = self.auction.get()
        if auction is not None:
            self.judge(auction, value)
        elif value.date_time > context.watermark:
            self.early.append(value)
            context.timers.event_time(value.date_time)
        return None

    def judge(self, auction: Any, bid: Any) -> None:
        """Keep the better one."""
        if auction.date_time <= bid.date_time <= auction.expires:
            best = self.best.get()
            if best is None or bid.price > best.price or (bid.price == best.price and bid.date_time < best.date_time):
                self.best.set(bid)

    def on_timer(self, timestamp: int, context: sage.KeyedContext) -> Iterator[Any]:
        """The auction has expired, or no auction can come any more for the bids that wait."""
        auction = self.auction.get()
        if auction is None:
            kept = [bid for bid in self.early if bid.date_time > timestamp]
            self.early.set(kept)
        elif timestamp == auction.expires:
            best = self.best.get()
            if best is not None:
                yield (auction, best)
            self.auction.clear()
            self.best.clear()


def winning(events: sage.DataStream[Event]) -> Stream:
    """Pairs of an expired auction and its winning bid."""
    key: Callable[[Any], int] = lambda event: event.auction if event.__class__ is Bid else event.id
    return events.filter(lambda event: event.__class__ is not Person).assign_timestamps(time_of, DISORDER).key_by(key).process(Winning)


def q4(events: sage.DataStream[Event]) -> Stream:
    """The mean winning price of each category, an update for each auction that closes."""
    category: Callable[[Any], int] = lambda pair: pair[0].category
    add: Callable[[Any, Any], Any] = lambda so_far, pair: (so_far[0] + pair[1].price, so_far[1] + 1)
    return winning(events).key_by(category).fold((0, 0), add).map(lambda pair: (pair[0], pair[1][0] / pair[1][1]))


class LastTen(sage.KeyedProcessFunction[Any, Any]):
    """The mean price of the last ten auctions of each seller, in order of their closing; of two at once the lower number first."""

    def open(self, context: sage.FunctionContext) -> None:
        """The prices so far, and what closed at the moment that is still open."""
        self.prices = context.state.value("prices", default=())
        self.closing = context.state.list("closing")

    def process(self, value: Any, context: sage.KeyedContext) -> None:
        """Wait until nothing else can close at the same moment."""
        auction, bid = value
        self.closing.append((auction.expires, auction.id, bid.price))
        context.timers.event_time(auction.expires)

    def on_timer(self, timestamp: int, context: sage.KeyedContext) -> Iterator[Any]:
        """Everything that closed until now, in order."""
        closed = sorted(row for row in self.closing if row[0] <= timestamp)
        self.closing.set([row for row in self.closing if row[0] > timestamp])
        prices = self.prices.get()
        for _, auction, price in closed:
            prices = (*prices[-9:], price)
            yield (context.key, auction, sum(prices) / len(prices))
        self.prices.set(prices)


def q6(events: sage.DataStream[Event]) -> Stream:
    """The mean winning price of the last ten closed auctions of each seller."""
    seller: Callable[[Any], int] = lambda pair: pair[0].seller
    return winning(events).key_by(seller).process(LastTen)


def q9(events: sage.DataStream[Event]) -> Stream:
    """The winning bid of each auction."""
    convert: Callable[[Any], Any] = lambda pair: (
        pair[0].id, pair[0].item_name, pair[0].seller, pair[1].bidder, pair[1].price, pair[1].date_time,
    )  # fmt: skip
    return winning(events).map(convert)


class LookedUp(sage.KeyedCoProcessFunction[Any, Any, Any]):
    """Bids and their row of a table; bids wait until the row is there."""

    def open(self, context: sage.FunctionContext) -> None:
        """One row a key; bids only until it is known."""
        self.row = context.state.value("row", default=None)
        self.waiting = context.state.list("waiting")

    def process(self, value: Bid, context: sage.KeyedContext) -> Sequence[Any] | None:
        """A bid."""
        row = self.row.get()
        if row is None:
            self.waiting.append(value)
            return None
        return ((value.auction, value.bidder, value.price, value.date_time, row),)

    def process_second(self, value: tuple[int, str], context: sage.KeyedContext) -> Sequence[Any]:
        """The row of this key, once."""
        self.row.set(value[1])
        bids = [(bid.auction, bid.bidder, bid.price, bid.date_time, value[1]) for bid in self.waiting]
        self.waiting.clear()
        return bids


def q13(events: sage.DataStream[Event], side: sage.DataStream[tuple[int, str]]) -> Stream:
    """Bids with a row of a bounded side table."""
    return bids_of(events).key_by(lambda bid: bid.auction % 10_000).connect(side.key_by(lambda row: row[0])).process(LookedUp)


class Offered(sage.KeyedCoProcessFunction[Any, Any, Any]):
    """Bids and the auction they are for; bids wait until it is known whether that is in the category."""

    def open(self, context: sage.FunctionContext) -> None:
        """The auction (False: another category); bids only until it is known."""
        self.auction = context.state.value("auction", default=None)
        self.waiting = context.state.list("waiting")

    def process(self, value: Bid, context: sage.KeyedContext) -> Sequence[Any] | None:
        """A bid."""
        auction = self.auction.get()
        if auction is None:
            self.waiting.append(value)
        return ((value, auction),) if auction else None

    def process_second(self, value: Auction, context: sage.KeyedContext) -> Sequence[Any] | None:
        """The auction, once."""
        if value.category == CATEGORY:
            self.auction.set(value)
            bids = [(bid, value) for bid in self.waiting]
        else:
            self.auction.set(False)
            bids = []
        self.waiting.clear()
        return bids


def q20(events: sage.DataStream[Event]) -> Stream:
    """Bids for auctions in category 10, with their auction."""
    auctions = events.filter(is_auction)
    return bids_of(events).key_by(lambda bid: bid.auction).connect(auctions.key_by(lambda a: a.id)).process(Offered)
