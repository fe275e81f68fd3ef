"""The peer: the same questions asked of Bytewax, where it is installed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["missing", "run_chain", "run_wordcount"]

BATCH = 1000


def missing() -> str:
    """Why there is no peer; empty if there is one."""
    try:
        import bytewax.testing
    except ImportError as error:
        return f"bytewax 0.21 is not installed ({error}); pip install '.[bench]'"
    return "" if hasattr(bytewax.testing, "run_main") else "this bytewax has no testing.run_main"


def timed(build: Callable[[Any, Any], Any], records: Sequence[object]) -> float:
    """Seconds that a dataflow over the records takes, into a sink that drops batches."""
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.outputs import DynamicSink, StatelessSinkPartition
    from bytewax.testing import TestingSource, run_main

    class Null(StatelessSinkPartition):  # type: ignore[misc, type-arg, unused-ignore]
        def write_batch(self, items: list[Any]) -> None:
            pass

    class NullSink(DynamicSink):  # type: ignore[misc, type-arg, unused-ignore]
        def build(self, step_id: str, worker_index: int, worker_count: int) -> Null:
            return Null()

    flow = Dataflow("peer")
    stream = op.input("in", flow, TestingSource(records, batch_size=BATCH))
    op.output("out", build(op, stream), NullSink())
    begun = time.perf_counter()
    run: Callable[[Dataflow], None] = run_main
    run(flow)
    return time.perf_counter() - begun


def run_chain(records: Sequence[int]) -> float:
    """map, filter, map over integers. Bytewax's filter insists on a bool."""

    def build(op: Any, stream: Any) -> Any:
        stream = op.map("inc", stream, lambda x: x + 1)
        stream = op.filter("odd", stream, lambda x: bool(x & 1))
        return op.map("double", stream, lambda x: x * 2)

    return timed(build, records)


def run_wordcount(lines: Sequence[str]) -> float:
    """Running count per word: an update for each word."""

    def build(op: Any, stream: Any) -> Any:
        stream = op.flat_map("split", stream, lambda line: line.split())
        stream = op.key_on("key", stream, lambda word: word)
        return op.stateful_map("count", stream, lambda state, _: ((state or 0) + 1, (state or 0) + 1))

    return timed(build, lines)


def run_wordcount_final(lines: Sequence[str]) -> float:
    """One count per word at the end of the input."""

    def build(op: Any, stream: Any) -> Any:
        stream = op.flat_map("split", stream, lambda line: line.split())
        return op.count_final("count", stream, lambda word: word)

    return timed(build, lines)
