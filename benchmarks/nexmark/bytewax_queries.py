"""The peer: those queries that Bytewax has operators for, over the same events in memory, into a sink that drops or keeps.

Its keys must be texts, which costs it a conversion a record. Its clock is given the same 4 s of disorder as ours.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.nexmark.events import Auction, Bid, Event, Person, is_bid
from benchmarks.nexmark.joins import CATEGORY, SIDE, STATES
from benchmarks.nexmark.rows import channel_of, day_of, folders, middling, priced
from benchmarks.nexmark.totals import ChannelTotals, PriceTotals, TrafficTotals
from benchmarks.nexmark.windows import NotOutbid

__all__ = ["FLOWS", "missing", "run_flow"]

BATCH = 1000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def missing() -> str:
    """Why there is no peer; empty if there is one."""
    from benchmarks import bytewax_flows

    return bytewax_flows.missing()


def moment(event: Event) -> datetime:
    """Event time as Bytewax wants it."""
    return datetime.fromtimestamp(event.date_time / 1000, UTC)


def clock() -> Any:
    """Event time with 4 s of disorder."""
    import bytewax.operators.windowing as w

    return w.EventClock(ts_getter=moment, wait_for_system_duration=timedelta(seconds=4))


def run_flow(name: str, events: Sequence[Event], write: Callable[[list[Any]], object]) -> float:
    """Seconds that a query takes; `write` gets the results batch by batch."""
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.outputs import DynamicSink, StatelessSinkPartition
    from bytewax.testing import TestingSource, run_main

    class Handing(StatelessSinkPartition):  # type: ignore[misc, type-arg, unused-ignore]
        def write_batch(self, items: list[Any]) -> None:
            write(items)

    class HandingSink(DynamicSink):  # type: ignore[misc, type-arg, unused-ignore]
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Handing:
            return Handing()

    flow = Dataflow("peer")
    stream = op.input("in", flow, TestingSource(events, batch_size=BATCH))
    op.output("out", FLOWS[name](op, stream), HandingSink())
    begun = time.perf_counter()
    run: Callable[[Dataflow], None] = run_main
    run(flow)
    return time.perf_counter() - begun


def bids(op: Any, stream: Any) -> Any:
    """The bids alone."""
    return op.filter("bids", stream, is_bid)


def q0(op: Any, stream: Any) -> Any:
    """Bids unchanged."""
    return bids(op, stream)


def q1(op: Any, stream: Any) -> Any:
    """Prices in another currency."""
    return op.map("convert", bids(op, stream), lambda b: (b.auction, b.bidder, 0.908 * b.price, b.date_time, b.extra))


def q2(op: Any, stream: Any) -> Any:
    """Prices in some auctions."""
    chosen = op.filter("chosen", stream, lambda event: event.__class__ is Bid and event.auction % 123 == 0)
    return op.map("convert", chosen, lambda b: (b.auction, b.price))


def q5(op: Any, stream: Any) -> Any:
    """The auctions with most bids in each ten seconds, every two. Counts by window; the maximum of each window at the end of input,
    since Bytewax gives results of a window neither time nor end."""
    import bytewax.operators.windowing as w

    hops = w.SlidingWindower(length=timedelta(seconds=10), offset=timedelta(seconds=2), align_to=EPOCH)
    counts = w.count_window("count", bids(op, stream), clock(), hops, lambda b: str(b.auction)).down
    by_window = op.key_on("window", op.map("turn", counts, lambda r: (r[1][0], int(r[0]), r[1][1])), lambda r: str(r[0]))

    def keep(best: list[Any], new: list[Any]) -> list[Any]:
        return new if new[0][2] > best[0][2] else best if new[0][2] < best[0][2] else best + new

    most = op.reduce_final("most", op.map_value("wrap", by_window, lambda r: [r]), keep)
    return op.flat_map("rows", most, lambda pair: [(2000 * start, auction, n) for start, auction, n in pair[1]])


def q7(op: Any, stream: Any) -> Any:
    """The dearest bids of each ten seconds."""
    import bytewax.operators.windowing as w

    def add(best: list[Bid], bid: Bid) -> list[Bid]:
        if not best or bid.price > best[0].price:
            return [bid]
        if bid.price == best[0].price:
            best.append(bid)
        return best

    likely = NotOutbid()  # the same saving as in our program
    likely.best = {}
    keyed = op.key_on("all", op.filter("likely", stream, likely.filter), lambda _: "all")
    tumbling = w.TumblingWindower(length=timedelta(seconds=10), align_to=EPOCH)
    best = w.fold_window("best", keyed, clock(), tumbling, list, add, lambda a, b: a + b).down
    return op.flat_map("rows", best, lambda r: [(b.auction, b.price, b.bidder, b.date_time, b.extra) for b in r[1][1]])


def q8(op: Any, stream: Any) -> Any:
    """Who opens an auction in the ten seconds of their registration: one fold over both kinds."""
    import bytewax.operators.windowing as w

    others = op.filter("others", stream, lambda event: event.__class__ is not Bid)
    keyed = op.key_on("person", others, lambda e: str(e.id if e.__class__ is Person else e.seller))
    tumbling = w.TumblingWindower(length=timedelta(seconds=10), align_to=EPOCH)

    def add(seen: tuple[Any, bool], event: Event) -> tuple[Any, bool]:
        return (event, seen[1]) if event.__class__ is Person else (seen[0], True)

    both = w.fold_window("both", keyed, clock(), tumbling, lambda: (None, False), add, lambda a, b: (a[0] or b[0], a[1] or b[1])).down
    return op.flat_map("rows", both, lambda r: [(r[1][1][0].id, r[1][1][0].name, 10_000 * r[1][0])] if all(r[1][1]) else [])


def q11(op: Any, stream: Any) -> Any:
    """Bids of each bidder without a pause of ten seconds; the session's bounds come from Bytewax's own bookkeeping."""
    import bytewax.operators.windowing as w

    sessions = w.SessionWindower(gap=timedelta(seconds=10))
    return w.count_window("count", bids(op, stream), clock(), sessions, lambda b: str(b.bidder)).down


def q18(op: Any, stream: Any) -> Any:
    """The latest bid of each bidder for each auction, an update for each bid."""
    keyed = op.key_on("pair", bids(op, stream), lambda b: f"{b.bidder} {b.auction}")

    def later(state: Bid | None, bid: Bid) -> tuple[Bid, Bid]:
        latest = bid if state is None or bid.date_time >= state.date_time else state
        return (latest, latest)

    return op.map("rows", op.stateful_map("latest", keyed, later), lambda pair: pair[1])


def meeting(op: Any, keyed: Any, wanted: Callable[[Any], Any], pair: Callable[[Any, Any], Any]) -> Any:
    """Records that wait for the one record of their key: `wanted` says what is remembered of that, () if nothing, None for the others."""

    def meet(state: Any, value: Any) -> tuple[Any, list[Any]]:
        one, waiting = (None, []) if state is None else state
        of_the_one = wanted(value)
        if of_the_one is not None:
            return ((of_the_one, ()), [pair(of_the_one, other) for other in waiting] if of_the_one else [])
        if one is None:
            waiting.append(value)
            return ((None, waiting), [])
        return (state, [pair(one, value)] if one else [])

    return op.map("rows", op.stateful_flat_map("meet", keyed, meet), lambda pair: pair[1])


def q3(op: Any, stream: Any) -> Any:
    """Sellers in three states and their auctions in category 10."""

    def concerned(event: Event) -> bool:
        return event.__class__ is Person or (event.__class__ is Auction and event.category == CATEGORY)

    def wanted(event: Any) -> Any:
        if event.__class__ is Auction:
            return None
        return (event.name, event.city, event.state) if event.state in STATES else ()

    keyed = op.key_on("person", op.filter("concerned", stream, concerned), lambda e: str(e.id if e.__class__ is Person else e.seller))
    return meeting(op, keyed, wanted, lambda person, auction: (*person, auction.id))


def q13(op: Any, stream: Any) -> Any:
    """Bids with a row of a side table, which is a second input as in our program."""
    from bytewax.testing import TestingSource

    both = op.merge("both", bids(op, stream), op.input("side", stream.flow(), TestingSource(SIDE, batch_size=BATCH)))
    keyed = op.key_on("key", both, lambda r: str(r.auction % 10_000 if r.__class__ is Bid else r[0]))
    wanted: Callable[[Any], Any] = lambda r: None if r.__class__ is Bid else r
    return meeting(op, keyed, wanted, lambda row, bid: (bid.auction, bid.bidder, bid.price, bid.date_time, row[1]))


def q20(op: Any, stream: Any) -> Any:
    """Bids for auctions in category 10, with their auction."""
    others = op.filter("others", stream, lambda event: event.__class__ is not Person)
    keyed = op.key_on("auction", others, lambda e: str(e.auction if e.__class__ is Bid else e.id))
    wanted: Callable[[Any], Any] = lambda e: None if e.__class__ is Bid else e if e.category == CATEGORY else ()
    return meeting(op, keyed, wanted, lambda auction, bid: (bid, auction))


def q19(op: Any, stream: Any) -> Any:
    """The ten dearest bids of each auction, ranked; emits the ranks that changed."""

    def enter(state: Any, bid: Bid) -> tuple[Any, list[Any]]:
        top = [] if state is None else state
        if len(top) == 10 and top[9][0] >= bid.price:
            return (top, [])
        entry = (bid.price, bid.bidder, bid.date_time)
        insort(top, entry, key=lambda row: -row[0])
        del top[10:]
        first = top.index(entry)
        return (top, [(bid.auction, rank, row[1], row[0], row[2]) for rank, row in enumerate(top[first:], first + 1)])

    keyed = op.key_on("auction", bids(op, stream), lambda b: str(b.auction))
    return op.map("rows", op.stateful_flat_map("top", keyed, enter), lambda pair: pair[1])


def q14(op: Any, stream: Any) -> Any:
    """Bids of a middling price."""
    chosen = op.filter("chosen", stream, middling)
    return op.map("rows", chosen, priced)


def q21(op: Any, stream: Any) -> Any:
    """Bids with their channel's number."""
    return op.flat_map("rows", bids(op, stream), channel_of)


def q22(op: Any, stream: Any) -> Any:
    """Bids with the folders of their address."""
    return op.map("rows", bids(op, stream), folders)


def totals(op: Any, stream: Any, key: Callable[[Any], str], function: Any) -> Any:
    """A running total by key, an update for each bid."""

    def add(state: Any, bid: Bid) -> tuple[Any, Any]:
        after = function.add(function.create() if state is None else state, bid)
        return (after, function.result(after))

    return op.stateful_map("totals", op.key_on("key", bids(op, stream), key), add)


def q15(op: Any, stream: Any) -> Any:
    """Traffic by day."""
    return op.map("rows", totals(op, stream, lambda b: day_of(b.date_time), TrafficTotals()), lambda pair: (pair[0], *pair[1]))


def q16(op: Any, stream: Any) -> Any:
    """Traffic by channel and day."""
    both = totals(op, stream, lambda b: f"{b.channel} {day_of(b.date_time)}", ChannelTotals())
    return op.map("rows", both, lambda pair: (*pair[0].split(" "), *pair[1]))


def q17(op: Any, stream: Any) -> Any:
    """Prices by auction and day."""
    both = totals(op, stream, lambda b: f"{b.auction} {day_of(b.date_time)}", PriceTotals())
    return op.map("rows", both, lambda pair: (int(pair[0][:-11]), pair[0][-10:], *pair[1]))


FLOWS: dict[str, Callable[[Any, Any], Any]] = {
    "q0": q0, "q1": q1, "q2": q2, "q3": q3, "q5": q5, "q7": q7, "q8": q8, "q11": q11, "q13": q13, "q14": q14,
    "q15": q15, "q16": q16, "q17": q17, "q18": q18, "q19": q19, "q20": q20, "q21": q21, "q22": q22,
}  # fmt: skip
"""Those that it can express without an operator written for the purpose."""
