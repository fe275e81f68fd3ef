"""How fast is a running count of words, an update for each word, against the loop one would write by hand?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import sage_actor as sage
from benchmarks import bytewax_flows
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, compare, interleaved, on_loop
from benchmarks.sinks import Dropping, Keeping
from benchmarks.words import DISTINCT, lines_of_words

__all__ = ["measure"]


def idiomatic(lines: list[str], words: int) -> float:
    """What one would write: nothing but a dict, and the updates into a list that a sink empties."""
    counts: dict[str, int] = {}
    out: list[tuple[str, int]] = []
    begun = time.perf_counter()
    for line in lines:
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
            out.append((word, counts[word]))
        if len(out) >= 1000:
            out.clear()
    spent = time.perf_counter() - begun
    assert (len(counts), sum(counts.values())) == (DISTINCT, words)
    return spent


def plain(lines: list[str], words: int) -> float:
    """The same user functions as ours, called from a hand-written loop that produces the same outputs."""
    split: Callable[[str], list[str]] = lambda line: line.split()
    key: Callable[[str], str] = lambda w: w
    add: Callable[[int, int], int] = lambda a, b: a + b
    state: dict[str, int] = {}
    out: list[tuple[str, int]] = []
    begun = time.perf_counter()
    for line in lines:
        for w in split(line):
            k = key(w)
            s = state.get(k)
            s = state[k] = 1 if s is None else add(s, 1)
            out.append((k, s))
        if len(out) >= 1000:
            out.clear()
    spent = time.perf_counter() - begun
    assert (len(state), sum(state.values())) == (DISTINCT, words)
    return spent


async def ours(lines: list[str], sink: Dropping | Keeping) -> float:
    """Describing, starting, running and leaving, all timed."""
    begun = time.perf_counter()
    async with sage.Environment("wordcount") as env:
        env.from_collection(lines).flat_map(lambda line: line.split()).key_by(lambda w: w).count().sink(sink)
        await env.execute()
    return time.perf_counter() - begun


def run(loop: str, lines: list[str], words: int) -> float:
    """Ours on one loop; an update for every word is checked each time."""
    sink = Dropping()
    spent = on_loop(loop, lambda: ours(lines, sink))
    assert sink.records == words, f"{sink.records} updates for {words} words"
    return spent


def check(lines: list[str]) -> None:
    """Every update, in order."""
    counts: Counter[str] = Counter()
    expected: list[object] = []
    for word in (word for line in lines for word in line.split()):
        counts[word] += 1
        expected.append((word, counts[word]))
    for loop in LOOPS:
        sink = Keeping()
        on_loop(loop, partial(ours, lines, sink))
        assert sink.all() == expected


def measure(options: Options) -> Result:
    """Words a second; checkpoints do not exist yet, so this is the row with checkpoints off."""
    words = 100_000 if options.short else 1_500_000
    lines = lines_of_words(words)
    check(lines[:5000])
    reason = bytewax_flows.missing()
    runs = {
        "floor": partial(idiomatic, lines, words),
        "plain_loop": partial(plain, lines, words),
        **{loop: partial(run, loop, lines, words) for loop in LOOPS},
    }
    if not reason:
        runs["peer"] = partial(bytewax_flows.run_wordcount, lines)
    return compare(
        "wordcount",
        options,
        words,
        interleaved(options.rounds, runs),
        at_least=1.2,
        of_peer=6.0,
        peer_missing=reason,
        target="at least 1.2x the idiomatic loop, 6x Bytewax",
        note="floor: the idiomatic loop; plain_loop: the one that calls the same user functions",
    )
