"""How fast is a count of words that speaks once, at the end, against the idiomatic loop over a dict?"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial

import sage_actor as sage
from benchmarks import bytewax_flows
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, compare, interleaved, on_loop
from benchmarks.sinks import Dropping, Keeping
from benchmarks.words import DISTINCT, lines_of_words

__all__ = ["measure"]


def idiomatic(lines: list[str], words: int) -> float:
    """No update per word on this side either: the dict, then its items."""
    counts: dict[str, int] = {}
    begun = time.perf_counter()
    for line in lines:
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
    out = list(counts.items())
    spent = time.perf_counter() - begun
    assert (len(out), sum(counts.values())) == (DISTINCT, words)
    return spent


async def ours(lines: list[str], sink: Dropping | Keeping) -> float:
    """Describing, starting, running and leaving, all timed."""
    begun = time.perf_counter()
    async with sage.Environment("wordcount") as env:
        env.from_collection(lines).flat_map(lambda line: line.split()).key_by(lambda w: w).count(emit="final").sink(sink)
        await env.execute()
    return time.perf_counter() - begun


def run(loop: str, lines: list[str]) -> float:
    """Ours on one loop; a result for every distinct word is checked each time."""
    sink = Dropping()
    spent = on_loop(loop, lambda: ours(lines, sink))
    assert sink.records == DISTINCT, f"{sink.records} results for {DISTINCT} words"
    return spent


def check(lines: list[str]) -> None:
    """Every count, in order of first appearance."""
    expected = list(Counter(word for line in lines for word in line.split()).items())
    for loop in LOOPS:
        sink = Keeping()
        on_loop(loop, partial(ours, lines, sink))
        assert sink.all() == expected


def measure(options: Options) -> Result:
    """Words a second."""
    words = 100_000 if options.short else 1_500_000
    lines = lines_of_words(words)
    check(lines)
    reason = bytewax_flows.missing()
    runs = {"floor": partial(idiomatic, lines, words), **{loop: partial(run, loop, lines) for loop in LOOPS}}
    if not reason:
        runs["peer"] = partial(bytewax_flows.run_wordcount_final, lines)
    return compare(
        "wordcount_final",
        options,
        words,
        interleaved(options.rounds, runs),
        at_least=2.0,
        of_peer=None,
        peer_missing=reason,
        target="at least 2x the idiomatic loop",
    )
