"""How fast are sums over sessions of 1000 keys against the loop one would write by hand?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks import window_flows
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, compare, interleaved, on_loop
from benchmarks.window_flows import Event, bursts_of, plain_sessions, run_ours, value_of

__all__ = ["measure"]

GAP = 500


def run(loop: str, events: list[Event], results: int) -> float:
    """Ours on one loop; the number of results is checked each time."""
    spent, records = on_loop(loop, lambda: run_ours(events, lambda keyed: keyed.window(sage.Session(GAP)).sum(value_of)))
    assert records == results, f"{records} results instead of {results}"
    return spent


def measure(options: Options) -> Result:
    """Records a second; a session has about ten records."""
    count = 50_000 if options.short else 1_000_000
    events = bursts_of(count)
    reason = window_flows.missing()
    expected, _ = plain_sessions(events, GAP)
    runs: dict[str, Callable[[], float]] = {"floor": lambda: plain_sessions(events, GAP)[1]}
    runs |= {loop: partial(run, loop, events, expected) for loop in LOOPS}
    if not reason:
        runs["peer"] = partial(window_flows.run_sessions, events[: count // 10], GAP, 10)
    return compare(
        "session",
        options,
        count,
        interleaved(options.rounds, runs),
        at_least=0.8,
        of_peer=20.0,
        peer_missing=reason,
        target="at least 0.8x the hand-written loop, 20x Bytewax",
        note="the peer gets a tenth of the records, its time counts tenfold",
    )
