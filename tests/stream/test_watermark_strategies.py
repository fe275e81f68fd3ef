"""Watermark strategies in whole dataflows: silence, broken clocks, records that say how far time has come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

import sage_actor as sage
from sage_actor.ports import current_clock

Click = tuple[str, int]
NEVER = 2**62


class Falling(sage.Source[Click]):
    """Gives its records, then falls silent without an end."""

    bounded = False

    def __init__(self, rows: Sequence[Click]) -> None:
        self.rows = list(rows)

    async def read(self, limit: int) -> Sequence[Click] | None:
        if not self.rows:
            await asyncio.Event().wait()
        rows, self.rows = self.rows[:limit], self.rows[limit:]
        return rows


@pytest.mark.simulate(seeds=5)
@pytest.mark.rule("F19")
async def test_windows_close_without_a_next_record() -> None:
    """Silence for 5 s, then event time goes on with the clock: the window ends 9.5 s later."""
    begun = current_clock().monotonic()
    async with sage.Environment("silence") as env:
        strategy = sage.BoundedDisorder(0, idle_after="5s", advance_when_idle=True)
        timed = env.from_source(Falling([("a", 0), ("a", 500)])).assign_timestamps(lambda click: click[1], strategy)
        async for result in timed.key_by(lambda click: click[0]).window(sage.Tumbling("10s")).count():
            assert (result.start, result.value) == (0, 2)
            break
    assert 9 <= current_clock().monotonic() - begun <= 12


@pytest.mark.simulate(seeds=5)
async def test_a_record_from_the_future_makes_nothing_late() -> None:
    now = current_clock().now_ms()
    rows = [("a", now), ("broken", now + 7_200_000), ("a", now + 500), ("a", now + 2_000)]
    late: sage.OutputTag[Click] = sage.OutputTag("late")
    async with sage.Environment("future") as env:
        strategy = sage.BoundedDisorder("1s", max_ahead="1s")
        timed = env.from_collection(rows).assign_timestamps(lambda click: click[1], strategy)
        counts = timed.key_by(lambda click: click[0]).window(sage.Tumbling("1h", offset=now % 3_600_000)).late_output(late).count()
        results, lost = counts.collect(), counts.side_output(late).collect()
        await env.execute()
    assert sorted((r.key, r.start - now, r.value) for r in results) == [("a", 0, 3), ("broken", 7_200_000, 1)]
    assert list(lost) == []


@pytest.mark.asyncio
async def test_records_say_how_far_time_has_come() -> None:
    """Only a mark moves time; what comes behind it and is older is late."""
    rows = [("a", 3), ("a", 1), ("mark", 10), ("a", 9), ("a", 12)]
    late: sage.OutputTag[Click] = sage.OutputTag("late")
    async with sage.Environment("marks") as env:
        strategy = sage.Punctuated(lambda click, timestamp: timestamp if click[0] == "mark" else None)
        timed = env.from_collection(rows).assign_timestamps(lambda click: click[1], strategy)
        counts = timed.key_by(lambda click: click[0]).window(sage.Tumbling(10)).late_output(late).count()
        results, lost = counts.collect(), counts.side_output(late).collect()
        await env.execute()
    assert sorted((r.key, r.start, r.value) for r in results) == [("a", 0, 2), ("a", 10, 1), ("mark", 10, 1)]
    assert list(lost) == [("a", 9)]
