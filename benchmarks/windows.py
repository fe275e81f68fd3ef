"""How fast is an event-time tumbling sum over 1000 keys, one per cent late, against the loop one would write by hand?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks import window_flows
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, compare, interleaved, on_loop
from benchmarks.window_flows import Event, events_of, plain_tumbling, run_ours, value_of

__all__ = ["measure"]

SIZE = 1000


def run(loop: str, events: list[Event], results: int) -> float:
    """Ours on one loop; the number of results is checked each time."""
    spent, records = on_loop(loop, lambda: run_ours(events, lambda keyed: keyed.window(sage.Tumbling(SIZE)).sum(value_of)))
    assert records == results, f"{records} results instead of {results}"
    return spent


def measure(options: Options) -> Result:
    """Records a second, timestamps and watermarks included."""
    count = 50_000 if options.short else 1_000_000
    events = events_of(count)
    reason = window_flows.missing()
    expected, _ = plain_tumbling(events, SIZE)
    runs: dict[str, Callable[[], float]] = {"floor": lambda: plain_tumbling(events, SIZE)[1]}
    runs |= {loop: partial(run, loop, events, expected) for loop in LOOPS}
    if not reason:
        runs["peer"] = partial(window_flows.run_tumbling, events[: count // 10], SIZE, 10)
    return compare(
        "windows",
        options,
        count,
        interleaved(options.rounds, runs),
        at_least=1.2,
        of_peer=40.0,
        peer_missing=reason,
        target="at least 1.2x the hand-written loop, 40x Bytewax",
        note="the peer gets a tenth of the records, its time counts tenfold",
    )
