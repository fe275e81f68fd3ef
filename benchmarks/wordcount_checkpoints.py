"""How fast is a running count of words with a checkpoint every second, against the loop one would write by hand, which has none?"""

from __future__ import annotations

import tempfile
import time
from functools import partial

import sage_actor as sage
from benchmarks.result import Result
from benchmarks.rounds import LOOPS, Options, compare, interleaved, on_loop
from benchmarks.sinks import Dropping
from benchmarks.wordcount import idiomatic, plain
from benchmarks.words import lines_of_words

__all__ = ["measure"]

TIMES = 10
"""So often the same lines: a run must last several checkpoints."""


async def ours(lines: list[str], sink: Dropping, interval: float | None) -> float:
    """Describing, starting, running and leaving, all timed; that its checkpoints were taken is checked."""
    with tempfile.TemporaryDirectory(prefix="sage-wordcount-") as folder:
        config: dict[str, object] = {} if interval is None else {"checkpoint.interval": interval, "checkpoint.dir": folder}
        begun = time.perf_counter()
        async with sage.Environment("wordcount", config=config) as env:
            env.from_collection(lines).flat_map(lambda line: line.split()).key_by(lambda w: w).count().sink(sink)
            job = await env.execute()
        spent = time.perf_counter() - begun
    if interval is not None:
        assert len(job.checkpoints) >= min(2, spent / interval / 2), f"{len(job.checkpoints)} checkpoints in {spent:.1f} s"
    return spent


def run(loop: str, lines: list[str], words: int, interval: float | None) -> float:
    """Ours on one loop; an update for every word is checked each time."""
    sink = Dropping()
    spent = on_loop(loop, lambda: ours(lines, sink, interval))
    assert sink.records == words, f"{sink.records} updates for {words} words"
    return spent


def measure(options: Options) -> Result:
    """Words a second with checkpoints every second; beside it the same without."""
    words, interval = (100_000, 0.05) if options.short else (1_500_000, 1.0)
    lines = lines_of_words(words) * TIMES
    words *= TIMES
    runs = {
        "floor": partial(idiomatic, lines, words),
        "plain_loop": partial(plain, lines, words),
        **{loop: partial(run, loop, lines, words, interval) for loop in LOOPS},
        **{f"{loop} without": partial(run, loop, lines, words, None) for loop in LOOPS},
    }
    return compare(
        "wordcount_checkp",
        options,
        words,
        interleaved(min(options.rounds, 3), runs),
        at_least=1.15,
        of_peer=None,
        target="at least 1.15x the idiomatic loop",
        peer_missing="Bytewax is measured without checkpoints, in `wordcount`",
        note="floor: the idiomatic loop; `without`: ours without checkpoints",
    )
