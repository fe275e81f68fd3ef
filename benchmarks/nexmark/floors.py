"""What one would write by hand: one loop a query over the events in memory, its results handed on a thousand at a time.

The loops judge time as we do: a result is final when the highest timestamp is 4 s past the window's end. Those of `FLOORS` have
everything written out; those of `CALLING` call the same functions for each record as our programs do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.nexmark.events import Auction, Bid, Event, Person, is_bid
from benchmarks.nexmark.rows import channel_of, day_of, folders, middling, priced
from benchmarks.nexmark.totals import ChannelTotals, PriceTotals, TrafficTotals

__all__ = ["CALLING", "FLOORS", "Floor", "Write"]

Write = Callable[[list[Any]], None]
Floor = Callable[[Sequence[Event], Write], None]

DELAY = 4001
FULL = 1000


def q0(events: Sequence[Event], write: Write) -> None:
    """Bids unchanged."""
    out: list[Any] = []
    for event in events:
        if event.__class__ is Bid:
            out.append(event)
            if len(out) == FULL:
                write(out)
                out = []
    write(out)


def q1(events: Sequence[Event], write: Write) -> None:
    """Bids with their price in another currency."""
    out: list[Any] = []
    for event in events:
        if event.__class__ is Bid:
            out.append((event.auction, event.bidder, 0.908 * event.price, event.date_time, event.extra))
            if len(out) == FULL:
                write(out)
                out = []
    write(out)


def q2(events: Sequence[Event], write: Write) -> None:
    """Bids for some auctions."""
    out: list[Any] = []
    for event in events:
        if event.__class__ is Bid and event.auction % 123 == 0:
            out.append((event.auction, event.price))
            if len(out) == FULL:
                write(out)
                out = []
    write(out)


def q5(events: Sequence[Event], write: Write) -> None:
    """The auctions with most bids in each ten seconds, every two: counts in panes of 2 s, five of them added up."""
    panes: dict[int, dict[int, int]] = {}
    highest = 0
    due: int | None = None
    for event in events:
        time = event.date_time
        if due is not None and highest - DELAY >= due - 1:
            due = hops_until(highest - DELAY, due, panes, write)
        if time > highest:
            highest = time
        if event.__class__ is Bid:
            start = time // 2000
            pane = panes.get(start)
            if pane is None:
                pane = panes[start] = {}
                due = start * 2000 + 2000 if due is None else min(due, start * 2000 + 2000)
            pane[event.auction] = pane.get(event.auction, 0) + 1
    if due is not None:
        hops_until(1 << 62, due, panes, write)


def hops_until(watermark: int, due: int, panes: dict[int, dict[int, int]], write: Write) -> int | None:
    """Close every hop whose end has passed; answers the end of the next one."""
    end: int | None = due
    while end is not None and watermark >= end - 1:
        first = end // 2000 - 5
        total: dict[int, int] = {}
        for start in range(first, first + 5):
            for auction, count in panes.get(start, {}).items():
                total[auction] = total.get(auction, 0) + count
        if total:
            most = max(total.values())
            write([(end - 10_000, auction, count) for auction, count in total.items() if count == most])
        panes.pop(first, None)
        end = min(max(end + 2000, min(panes) * 2000 + 2000), (max(panes) + 5) * 2000) if panes else None
    return end


def q7(events: Sequence[Event], write: Write) -> None:
    """The dearest bids of each ten seconds."""
    windows: dict[int, tuple[int, list[Bid]]] = {}
    highest = 0
    due = 1 << 62
    for event in events:
        time = event.date_time
        if highest - DELAY >= due - 1:
            due = dearest_until(highest - DELAY, windows, write)
        if time > highest:
            highest = time
        if event.__class__ is Bid:
            start = time // 10_000
            best = windows.get(start)
            price = event.price
            if best is None:
                windows[start] = (price, [event])
                due = min(due, (start + 1) * 10_000)
            elif price > best[0]:
                windows[start] = (price, [event])
            elif price == best[0]:
                best[1].append(event)
    dearest_until(1 << 62, windows, write)


def dearest_until(watermark: int, windows: dict[int, tuple[int, list[Bid]]], write: Write) -> int:
    """Close every window whose end has passed; answers the end of the next one."""
    for start in sorted(windows):
        if watermark < (start + 1) * 10_000 - 1:
            return (start + 1) * 10_000
        write([(b.auction, b.price, b.bidder, b.date_time, b.extra) for b in windows.pop(start)[1]])
    return 1 << 62


def q8(events: Sequence[Event], write: Write) -> None:
    """Who opens an auction in the ten seconds of their registration."""
    windows: dict[int, tuple[dict[int, str], set[int]]] = {}
    highest = 0
    due = 1 << 62
    for event in events:
        time = event.date_time
        if highest - DELAY >= due - 1:
            due = openings_until(highest - DELAY, windows, write)
        if time > highest:
            highest = time
        if event.__class__ is Bid:
            continue
        start = time // 10_000
        window = windows.get(start)
        if window is None:
            window = windows[start] = ({}, set())
            due = min(due, (start + 1) * 10_000)
        if event.__class__ is Person:
            window[0][event.id] = event.name
        elif event.__class__ is Auction:
            window[1].add(event.seller)
    openings_until(1 << 62, windows, write)


def openings_until(watermark: int, windows: dict[int, tuple[dict[int, str], set[int]]], write: Write) -> int:
    """Close every window whose end has passed; answers the end of the next one."""
    for start in sorted(windows):
        if watermark < (start + 1) * 10_000 - 1:
            return (start + 1) * 10_000
        persons, sellers = windows.pop(start)
        write([(number, name, start * 10_000) for number, name in persons.items() if number in sellers])
    return 1 << 62


def q11(events: Sequence[Event], write: Write) -> None:
    """Bids of each bidder without a pause of ten seconds."""
    sessions: dict[int, list[list[int]]] = {}
    line: deque[tuple[int, list[int]]] = deque()
    out: list[Any] = []
    highest = 0
    for event in events:
        time = event.date_time
        while line and line[0][0] <= highest - DELAY + 1:
            end, session = line.popleft()
            if session[3] > end:
                line.append((session[3], session))
            elif session[1]:
                out.append(tuple(session))
                of_bidder = sessions[session[0]]
                of_bidder.remove(session)
                if not of_bidder:
                    del sessions[session[0]]
        if time > highest:
            highest = time
        if event.__class__ is Bid:
            of_bidder = sessions.get(event.bidder)  # type: ignore[assignment]
            if of_bidder is None:
                of_bidder = sessions[event.bidder] = []
            elif len(of_bidder) == 1:
                session = of_bidder[0]
                if session[2] <= time < session[3]:
                    session[1] += 1
                    if time + 10_000 > session[3]:
                        session[3] = time + 10_000
                    continue
            session = merged(of_bidder, event.bidder, time)
            line.append((session[3], session))
        if len(out) >= FULL:
            write(out)
            out = []
    write(out + [tuple(session) for of_bidder in sessions.values() for session in of_bidder])


def merged(of_bidder: list[list[int]], bidder: int, time: int) -> list[int]:
    """A session of this one bid and of all that it touches; those are gone."""
    fresh = [bidder, 1, time, time + 10_000]
    for session in [s for s in of_bidder if s[2] < time + 10_000 and time < s[3]]:
        fresh[1:] = [fresh[1] + session[1], min(fresh[2], session[2]), max(fresh[3], session[3])]
        session[1] = 0
        of_bidder.remove(session)
    of_bidder.append(fresh)
    return fresh


def stepping(chosen: Callable[[Any], object], convert: Callable[[Any], Any] | None = None, *, many: bool = False) -> Floor:
    """A loop that filters, then converts each record into one or, if `many`, into a list of any number."""

    def loop(events: Sequence[Event], write: Write) -> None:
        out: list[Any] = []
        for event in events:
            if chosen(event):
                if many:
                    out.extend(convert(event))  # type: ignore[misc]
                else:
                    out.append(event if convert is None else convert(event))
                if len(out) >= FULL:
                    write(out)
                    out = []
        write(out)

    return loop


def totalling(key: Callable[[Any], Any], function: Any, convert: Callable[[Any], Any]) -> Floor:
    """A loop that keeps an accumulator for each key and emits a row for each bid."""

    def loop(events: Sequence[Event], write: Write) -> None:
        out: list[Any] = []
        totals: dict[Any, Any] = {}
        for event in events:
            if is_bid(event):
                k = key(event)
                total = totals.get(k)
                total = totals[k] = function.add(function.create() if total is None else total, event)
                out.append(convert((k, function.result(total))))
                if len(out) >= FULL:
                    write(out)
                    out = []
        write(out)

    return loop


FLOORS: dict[str, Floor] = {"q0": q0, "q1": q1, "q2": q2, "q5": q5, "q7": q7, "q8": q8, "q11": q11}
CALLING: dict[str, Floor] = {
    "q0": stepping(is_bid),
    "q1": stepping(is_bid, lambda bid: (bid.auction, bid.bidder, 0.908 * bid.price, bid.date_time, bid.extra)),
    "q2": stepping(lambda event: event.__class__ is Bid and event.auction % 123 == 0, lambda bid: (bid.auction, bid.price)),
    "q14": stepping(middling, priced),
    "q15": totalling(lambda bid: day_of(bid.date_time), TrafficTotals(), lambda pair: (pair[0], *pair[1])),
    "q16": totalling(lambda bid: (bid.channel, day_of(bid.date_time)), ChannelTotals(), lambda pair: (*pair[0], *pair[1])),
    "q17": totalling(lambda bid: (bid.auction, day_of(bid.date_time)), PriceTotals(), lambda pair: (*pair[0], *pair[1])),
    "q21": stepping(is_bid, channel_of, many=True),
    "q22": stepping(is_bid, folders),
}
"""Nothing but the user's functions, called one by one: what is left for an engine to lose."""
