"""The events of the window benchmarks, the loops one would write by hand, ours, and the peer."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import sage_actor as sage
from benchmarks.bytewax_flows import missing, timed
from benchmarks.sinks import Dropping

__all__ = [
    "Event",
    "bursts_of",
    "events_of",
    "missing",
    "plain_sessions",
    "plain_sliding",
    "plain_tumbling",
    "run_ours",
    "run_sessions",
    "run_sliding",
    "run_tumbling",
    "value_of",
]

Event = tuple[str, int, int]
"""key, time in milliseconds, value"""
KEYS = 1000
BASE = datetime(2026, 1, 1, tzinfo=UTC)

key_of: Callable[[Event], str] = lambda e: e[0]
time_of: Callable[[Event], int] = lambda e: e[1]
value_of: Callable[[Event], int] = lambda e: e[2]


def events_of(count: int) -> list[Event]:
    """Ten a millisecond, in order but for one in a hundred, which is late by more than any window is long."""
    return [(f"key{i % KEYS}", i // 10 - (20_000 if i % 100 == 99 else 0), i) for i in range(count)]


def bursts_of(count: int) -> list[Event]:
    """In order; each key has ten records in a row, a hundred milliseconds apart, then a second of silence."""
    return [(f"key{i % KEYS}", i // KEYS * 100 + i // KEYS // 10 * 1000, i) for i in range(count)]


def plain_tumbling(events: list[Event], size: int) -> tuple[int, float]:
    """A dict by key and window; late records are left out; results when the watermark passes."""
    state: dict[tuple[str, int], int] = {}
    out: list[tuple[str, int, int, int]] = []
    watermark, due, results = -(2**63), -(2**63), 0
    begun = time.perf_counter()
    for e in events:
        if watermark >= due:
            ready = [q for q in state if q[1] + size - 1 <= watermark]
            for k, start in ready:
                out.append((k, start, start + size, state.pop((k, start))))
            due = watermark - watermark % size + size - 1 if watermark > -(2**63) else -(2**63)
            if len(out) >= 1000:
                results += len(out)
                out.clear()
        t = time_of(e)
        start = t - t % size
        if start + size - 1 > watermark:
            place = (key_of(e), start)
            state[place] = state.get(place, 0) + value_of(e)
            if t - 1 > watermark:
                watermark = t - 1
    results += len(out) + len(state)
    return results, time.perf_counter() - begun


def plain_sliding(events: list[Event], size: int, every: int) -> tuple[int, float]:
    """Panes of length `every`; a window adds up its panes when the watermark passes its end."""
    panes: dict[int, dict[str, int]] = {}
    out: list[tuple[str, int, int, int]] = []
    watermark, due, results = -(2**63), 2**63, 0
    begun = time.perf_counter()

    def fire(end: int) -> None:
        totals: dict[str, int] = {}
        for start in range(end - size, end, every):
            for k, value in panes.get(start, {}).items():
                totals[k] = totals.get(k, 0) + value
        out.extend((k, end - size, end, total) for k, total in totals.items())
        panes.pop(end - size, None)

    for e in events:
        while watermark >= due:
            fire(due + 1)
            due += every
            if len(out) >= 1000:
                results += len(out)
                out.clear()
        t = time_of(e)
        start = t - t % every
        if start + size - 1 > watermark:
            pane = panes.get(start)
            if pane is None:
                pane = panes[start] = {}
                if due == 2**63:
                    due = start + every - 1
            k = key_of(e)
            pane[k] = pane.get(k, 0) + value_of(e)
            if t - 1 > watermark:
                watermark = t - 1
    while panes:
        fire(due + 1)
        due += every
    return results + len(out), time.perf_counter() - begun


def plain_sessions(events: list[Event], gap: int) -> tuple[int, float]:
    """One open session a key, as the events are in order; a heap says whose is due."""
    state: dict[str, list[int]] = {}
    heap: list[tuple[int, str]] = []
    out: list[tuple[str, int, int, int]] = []
    results = 0
    begun = time.perf_counter()
    for e in events:
        t = time_of(e)
        while heap and heap[0][0] <= t - 1:
            due, k = heapq.heappop(heap)
            session = state[k]
            if session[1] - 1 > due:
                heapq.heappush(heap, (session[1] - 1, k))
            else:
                out.append((k, session[0], session[1], session[2]))
                del state[k]
        if len(out) >= 1000:
            results += len(out)
            out.clear()
        k = key_of(e)
        found = state.get(k)
        if found is None:
            state[k] = [t, t + gap, value_of(e)]
            heapq.heappush(heap, (t + gap - 1, k))
        else:
            found[1] = t + gap
            found[2] += value_of(e)
    return results + len(out) + len(state), time.perf_counter() - begun


async def run_ours(events: list[Event], describe: Callable[[Any], Any]) -> tuple[float, int]:
    """Seconds and results of ours: describing, starting, running and leaving, all timed."""
    sink = Dropping()
    begun = time.perf_counter()
    async with sage.Environment("windows") as env:
        stamped = env.from_collection(events).assign_timestamps(lambda e: e[1], sage.Monotonic())
        describe(stamped.key_by(lambda e: e[0])).sink(sink)
        await env.execute()
    return time.perf_counter() - begun, sink.records


def run_peer(events: list[Event], windower: Any, times: int) -> float:
    """Bytewax over fewer events; the answer is for `times` as many."""
    stamped = [(k, BASE + timedelta(milliseconds=t), value) for k, t, value in events]

    def build(op: Any, stream: Any) -> Any:
        import bytewax.operators.windowing as windowing

        name_of: Callable[[Any], str] = lambda e: e[0]
        keyed = op.key_on("key", stream, name_of)
        time_of_event: Callable[[Any], datetime] = lambda e: e[1]
        add: Callable[[int, Any], int] = lambda total, e: total + e[2]
        clock = windowing.EventClock(ts_getter=time_of_event, wait_for_system_duration=timedelta(0))
        folded = windowing.fold_window("fold", keyed, clock, windower, lambda: 0, add, lambda a, b: a + b)
        return folded.down

    return timed(build, stamped) * times


def run_tumbling(events: list[Event], size: int, times: int) -> float:
    """The peer's tumbling sum."""
    import bytewax.operators.windowing as windowing

    return run_peer(events, windowing.TumblingWindower(length=timedelta(milliseconds=size), align_to=BASE), times)


def run_sliding(events: list[Event], size: int, every: int, times: int) -> float:
    """The peer's sliding sum."""
    import bytewax.operators.windowing as windowing

    length, offset = timedelta(milliseconds=size), timedelta(milliseconds=every)
    return run_peer(events, windowing.SlidingWindower(length=length, offset=offset, align_to=BASE), times)


def run_sessions(events: list[Event], gap: int, times: int) -> float:
    """The peer's session sum."""
    import bytewax.operators.windowing as windowing

    return run_peer(events, windowing.SessionWindower(gap=timedelta(milliseconds=gap)), times)
