"""How fast is a sliding sum of ten panes over 1000 keys against the loop one would write by hand?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks import window_flows
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, compare, interleaved, on_loop
from benchmarks.window_flows import Event, events_of, plain_sliding, run_ours, value_of

__all__ = ["measure"]

SIZE, EVERY = 10_000, 1000


def run(loop: str, events: list[Event], results: int) -> float:
    """Ours on one loop; the number of results is checked each time."""
    window = sage.Sliding(SIZE, every=EVERY)
    spent, records = on_loop(loop, lambda: run_ours(events, lambda keyed: keyed.window(window).sum(value_of)))
    assert records == results, f"{records} results instead of {results}"
    return spent


def measure(options: Options) -> Result:
    """Records a second; the floor shares panes, too."""
    count = 50_000 if options.short else 1_000_000
    events = events_of(count)
    reason = window_flows.missing()
    expected, _ = plain_sliding(events, SIZE, EVERY)
    runs: dict[str, Callable[[], float]] = {"floor": lambda: plain_sliding(events, SIZE, EVERY)[1]}
    runs |= {loop: partial(run, loop, events, expected) for loop in LOOPS}
    if not reason:
        runs["peer"] = partial(window_flows.run_sliding, events[: count // 20], SIZE, EVERY, 20)
    return compare(
        "sliding",
        options,
        count,
        interleaved(options.rounds, runs),
        at_least=0.8,
        of_peer=20.0,
        peer_missing=reason,
        target="at least 0.8x the hand-written loop, 20x Bytewax",
        note="the peer gets a twentieth of the records, its time counts twentyfold",
    )
