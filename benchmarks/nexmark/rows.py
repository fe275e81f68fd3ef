"""Queries that look at one event at a time: q0 to q2, q14, q21, q22, and the rows of q10."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sage_actor as sage
from benchmarks.nexmark.events import Bid, Event, is_bid

__all__ = ["bids_of", "channel_of", "day_of", "folders", "middling", "minute_of", "priced", "q0", "q1", "q2", "q10", "q14", "q21", "q22"]

Stream = sage.DataStream[Any]

NUMBERED = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}
DAY_MS, HOUR_MS, MINUTE_MS = 86_400_000, 3_600_000, 60_000

days: dict[int, str] = {}


def day_of(time: int) -> str:
    """The day as 2015-07-15; each is worked out once."""
    number = time // DAY_MS
    day = days.get(number)
    if day is None:
        day = days[number] = datetime.fromtimestamp(number * 86_400, UTC).strftime("%Y-%m-%d")
    return day


minutes = [f"{hour:02d}:{minute:02d}" for hour in range(24) for minute in range(60)]


def minute_of(time: int) -> str:
    """The minute of the day as 23:59."""
    return minutes[time // MINUTE_MS % 1440]


def bids_of(events: sage.DataStream[Event]) -> Stream:
    """The bids alone."""
    return events.filter(is_bid)


def q0(events: sage.DataStream[Event]) -> Stream:
    """Bids unchanged."""
    return bids_of(events)


def q1(events: sage.DataStream[Event]) -> Stream:
    """Prices in another currency."""
    convert: Callable[[Bid], Any] = lambda bid: (bid.auction, bid.bidder, 0.908 * bid.price, bid.date_time, bid.extra)
    return bids_of(events).map(convert)


def q2(events: sage.DataStream[Event]) -> Stream:
    """Prices in some auctions."""
    chosen: Callable[[Any], bool] = lambda event: event.__class__ is Bid and event.auction % 123 == 0
    convert: Callable[[Any], Any] = lambda bid: (bid.auction, bid.price)
    return events.filter(chosen).map(convert)


def q10(events: sage.DataStream[Event]) -> Stream:
    """Bids with the day and minute that say into which file they go."""
    stamped: Callable[[Bid], Any] = lambda bid: (
        bid.auction, bid.bidder, bid.price, bid.date_time, bid.extra, day_of(bid.date_time), minute_of(bid.date_time),
    )  # fmt: skip
    return bids_of(events).map(stamped)


def part_of_day(time: int) -> str:
    """Day from eight to six, night from eight to six, other in between."""
    hour = time // HOUR_MS % 24
    if 8 <= hour <= 18:
        return "dayTime"
    return "nightTime" if hour <= 6 or hour >= 20 else "otherTime"


def middling(event: Event) -> bool:
    """A bid that is neither cheap nor dear."""
    return event.__class__ is Bid and 1_000_000 < 0.908 * event.price < 50_000_000


def priced(bid: Bid) -> Any:
    """The row of q14."""
    return (
        bid.auction, bid.bidder, 0.908 * bid.price, part_of_day(bid.date_time), bid.date_time, bid.extra, bid.extra.count("c"),
    )  # fmt: skip


def q14(events: sage.DataStream[Event]) -> Stream:
    """Bids of a middling price, with the part of the day and how often "c" stands in the extra text."""
    return events.filter(middling).map(priced)


def channel_of(bid: Bid) -> list[Any]:
    """The bid with its channel's number, if it has one."""
    number = NUMBERED.get(bid.channel.lower())
    if number is None:
        _, found, rest = bid.url.partition("&channel_id=")
        if not found:
            return []
        number = rest.partition("&")[0]
    return [(bid.auction, bid.bidder, bid.price, bid.channel, number)]


def q21(events: sage.DataStream[Event]) -> Stream:
    """Bids with their channel's number, from its name or from the address."""
    return bids_of(events).flat_map(channel_of)


def folders(bid: Bid) -> Any:
    """The bid with the first three folders of its address."""
    parts = bid.url.split("/", 6)
    return (bid.auction, bid.bidder, bid.price, bid.channel, parts[3], parts[4], parts[5])


def q22(events: sage.DataStream[Event]) -> Stream:
    """Bids with the folders of their address."""
    return bids_of(events).map(folders)
