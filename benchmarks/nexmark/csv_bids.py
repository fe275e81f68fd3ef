"""Bids in a CSV file, as the JVM engines read them: what a core does with parsing included. Columns: auction, bidder, price, channel, ms.

A query converts the columns that it needs, as an engine with projection does. No field is quoted, so lines are split at commas, here
and in the loops by hand; ``format="csv"`` understands quotes, and takes longer.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import sage_actor as sage
from benchmarks.nexmark.events import Bid, Event
from benchmarks.nexmark.windows import DISORDER, Most, NotOutnumbered, value_of
from benchmarks.sinks import Dropping, Keeping

__all__ = ["CSV_FLOORS", "CSV_QUERIES", "FLINK", "run_csv", "run_csv_floor", "write_bids"]

Stream = sage.DataStream[Any]
Texts = list[str]

FLINK = {"q1": 1.01e6, "q2": 1.02e6, "q5": 0.35e6, "q7": 0.53e6, "q11": 0.15e6}
"""Events a second of Flink's own JVM engine on one core, measured earlier on a machine of this kind, not in the same run."""

auction_of: Callable[[Texts], int] = lambda row: int(row[0])
bidder_of: Callable[[Texts], int] = lambda row: int(row[1])
price_of: Callable[[Texts], int] = lambda row: int(row[2])
time_of: Callable[[Texts], int] = lambda row: int(row[4])


def write_bids(path: Path, events: Sequence[Event]) -> int:
    """The bids as a file; answers how many there are."""
    rows = [(e.auction, e.bidder, e.price, e.channel, e.date_time) for e in events if e.__class__ is Bid]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return len(rows)


split: Callable[[str], Texts] = lambda line: line.split(",")


def q0(bids: Stream) -> Stream:
    """Bids, every column converted."""
    return bids.map(typed)


def typed(line: str) -> Any:
    """The row of q0."""
    auction, bidder, price, channel, ms = line.split(",")
    return (int(auction), int(bidder), int(price), channel, int(ms))


def q1(bids: Stream) -> Stream:
    """Prices in another currency."""
    return bids.map(converted)


def converted(line: str) -> Any:
    """The row of q1."""
    auction, bidder, price, _, ms = line.split(",")
    return (int(auction), int(bidder), 0.908 * int(price), int(ms))


def q2(bids: Stream) -> Stream:
    """Prices in some auctions."""
    chosen: Callable[[Texts], bool] = lambda row: int(row[0]) % 123 == 0
    convert: Callable[[Texts], Any] = lambda row: (int(row[0]), int(row[2]))
    return bids.map(split).filter(chosen).map(convert)


def timed(bids: Stream) -> Stream:
    """Rows of texts with their event time."""
    return bids.map(split).assign_timestamps(time_of, DISORDER)


def q5(bids: Stream) -> Stream:
    """The auctions with most bids in each ten seconds, every two."""
    counts = timed(bids).key_by(auction_of).window(sage.Sliding("10s", every="2s")).count()
    return counts.filter(NotOutnumbered).window_all(sage.Tumbling("2s")).aggregate(Most).flat_map(value_of)


def q7(bids: Stream) -> Stream:
    """The highest price of each ten seconds: the part of q7 that the JVM figure is for."""
    return timed(bids).window_all(sage.Tumbling("10s")).max(price_of)


def q11(bids: Stream) -> Stream:
    """Bids of each bidder without a pause of ten seconds."""
    return timed(bids).key_by(bidder_of).window(sage.Session(gap="10s")).count()


CSV_QUERIES: dict[str, Callable[[Stream], Stream]] = {"q0": q0, "q1": q1, "q2": q2, "q5": q5, "q7": q7, "q11": q11}


async def run_csv(name: str, path: Path, sink: Dropping | Keeping) -> float:
    """Seconds for one query over the file, everything included."""
    begun = time.perf_counter()
    async with sage.Environment(f"nexmark csv {name}") as env:
        CSV_QUERIES[name](env.from_source(sage.FileSource, path=str(path), format="text")).sink(sink)
        await env.execute()
    return time.perf_counter() - begun


def floor_q0(lines: Iterable[str], out: list[Any]) -> None:
    """q0 by hand."""
    for line in lines:
        auction, bidder, price, channel, ms = line.split(",")
        out.append((int(auction), int(bidder), int(price), channel, int(ms)))
        if len(out) == 1000:
            out.clear()


def floor_q1(lines: Iterable[str], out: list[Any]) -> None:
    """q1 by hand."""
    for line in lines:
        auction, bidder, price, _, ms = line.split(",")
        out.append((int(auction), int(bidder), 0.908 * int(price), int(ms)))
        if len(out) == 1000:
            out.clear()


def floor_q2(lines: Iterable[str], out: list[Any]) -> None:
    """q2 by hand."""
    for line in lines:
        row = line.split(",")
        auction = int(row[0])
        if auction % 123 == 0:
            out.append((auction, int(row[2])))
            if len(out) == 1000:
                out.clear()


CSV_FLOORS: dict[str, Callable[[Iterable[str], list[Any]], None]] = {"q0": floor_q0, "q1": floor_q1, "q2": floor_q2}


def run_csv_floor(name: str, path: Path) -> float:
    """Seconds for the hand-written loop over the file."""
    begun = time.perf_counter()
    with path.open(encoding="utf-8") as file:
        CSV_FLOORS[name](file, [])
    return time.perf_counter() - begun
