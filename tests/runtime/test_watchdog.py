"""A job that stands still with work waiting is given up; one that merely has nothing to do, or is slow, is not."""

from __future__ import annotations

from typing import Any

import pytest

from sage_actor.runtime.watchdog import Watchdog
from sage_actor.testing import ManualClock


class Watched:
    """A watchdog over tasks that the test describes."""

    def __init__(self, timeout: float = 10.0) -> None:
        self.clock = ManualClock()
        self.tasks = [self.task("source"), self.task("sink")]
        self.errors: list[BaseException] = []
        self.dog = Watchdog("job", timeout, self.clock, lambda: self.tasks, self.errors.append)
        self.dog.start()

    def task(self, name: str) -> dict[str, Any]:
        return {"task": name, "name": name, "batches": 0, "operators": [{"records_out": 0}], "gate_depth": 0, "working": False}


@pytest.mark.asyncio
async def test_work_that_waits_without_progress_is_a_failure_that_names_where() -> None:
    watched = Watched()
    watched.tasks[1]["gate_depth"] = 5
    await watched.clock.advance(9)
    assert not watched.errors
    await watched.clock.advance(5)
    assert len(watched.errors) == 1
    text = str(watched.errors[0])
    assert "sink" in text
    assert "source" not in text
    assert "watchdog.timeout" in text
    await watched.clock.advance(100)
    assert len(watched.errors) == 1, "said once"
    assert not watched.clock.pending


@pytest.mark.asyncio
async def test_a_function_that_hangs_with_an_empty_gate_counts_as_work() -> None:
    watched = Watched()
    watched.tasks[0]["working"] = True
    await watched.clock.advance(15)
    assert len(watched.errors) == 1


@pytest.mark.asyncio
async def test_nothing_to_do_is_no_failure() -> None:
    watched = Watched()
    await watched.clock.advance(1000)
    watched.tasks[1]["gate_depth"] = 5
    await watched.clock.advance(9)
    assert not watched.errors, "the time before does not count"


@pytest.mark.asyncio
@pytest.mark.parametrize("sign", ["batches", "records_out"])
async def test_any_progress_anywhere_counts(sign: str) -> None:
    watched = Watched()
    watched.tasks[1]["gate_depth"] = 5
    for _ in range(20):
        await watched.clock.advance(6)
        if sign == "batches":
            watched.tasks[0]["batches"] += 1
        else:
            watched.tasks[0]["operators"][0]["records_out"] += 1
    assert not watched.errors
    await watched.clock.advance(15)
    assert len(watched.errors) == 1


@pytest.mark.asyncio
async def test_it_can_be_switched_off_and_closed() -> None:
    off = Watched(timeout=0)
    assert not off.clock.pending
    watched = Watched()
    watched.tasks[1]["working"] = True
    await watched.clock.advance(5)
    watched.dog.close()
    watched.dog.close()
    assert not watched.clock.pending
    await watched.clock.advance(100)
    assert not watched.errors
