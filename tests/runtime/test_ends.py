"""Input that ends while checkpoints are under way: what was saved belongs together, whatever was slow (rules F4, F7, F8)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.ports import current_clock
from sage_actor.testing import Simulation
from sage_actor.testing.simulated_disk import DiskFaults, SimulatedDisk


class Numbers(sage.Source[int]):
    """0 .. count-1, so many at a time and so often."""

    def __init__(self, count: int, step: int = 10, pause: float = 0.01) -> None:
        self.count = count
        self.step = step
        self.pause = pause
        self.next = 0

    async def read(self, limit: int) -> Sequence[int] | None:
        await asyncio.sleep(self.pause)
        begin, self.next = self.next, min(self.count, self.next + min(limit, self.step))
        return list(range(begin, self.next)) or None

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


class Failing:
    """Raises once for each of the given numbers of calls; it remembers over attempts."""

    def __init__(self, *at: int) -> None:
        self.at = sorted(at)
        self.seen = 0

    def __call__(self, value: int) -> int:
        self.seen += 1
        if self.at and self.seen >= self.at[0]:
            self.at.pop(0)
            raise RuntimeError(f"on purpose, at record {self.seen}")
        return value

    def __deepcopy__(self, memo: object) -> Failing:
        return self


def put_disk(faults: DiskFaults, seed: int = 0) -> SimulatedDisk:
    """A disk of this simulation's own."""
    disk = SimulatedDisk(Random(seed), current_clock(), faults)
    asyncio.get_running_loop().sage_disk = disk  # type: ignore[attr-defined]
    return disk


def environment(name: str, **more: Any) -> sage.Environment:
    config = {"checkpoint.dir": "checkpoints", "restart.delay": 0, "restart.jitter": 0, "batch.records": 16, **more}
    return sage.Environment(name, config=config)


@pytest.mark.rule("F4")
@pytest.mark.rule("F7")
@pytest.mark.parametrize("seed", range(30))
def test_an_end_during_a_slow_checkpoint_is_not_part_of_it(seed: int) -> None:
    """One source ends behind its barrier, before the checkpoint is complete: what it has done since is done again after a failure."""
    chance = Random(seed)
    short, fails = chance.randrange(50, 1500), chance.randrange(200, 3000)

    async def main() -> tuple[list[Any], list[int], list[int]]:
        put_disk(DiskFaults(slow=0.5, slow_seconds=0.3), seed)
        async with environment("ends", **{"checkpoint.interval": chance.choice((0.2, 0.5, 1.0)), "watchdog.timeout": 0}) as env:
            numbers = env.from_source(Numbers, count=short, step=10)
            totals = numbers.key_by(lambda n: n % 10).count(emit="final").collect()
            copied = numbers.map(lambda n: n).disable_chaining().key_by(lambda n: n % 10).count().map(lambda pair: pair).collect()
            other = env.from_source(Numbers, count=3000).map(Failing(fails)).collect()
            await env.execute()
        return list(totals), list(copied), list(other)

    totals, copied, other = Simulation(seed).run(main)
    assert other == list(range(3000))
    digits = Counter(n % 10 for n in range(short))
    assert sorted(totals) == sorted(digits.items())
    assert Counter(copied) == Counter((digit, n + 1) for digit, count in digits.items() for n in range(count))


@pytest.mark.rule("F7")
@pytest.mark.parametrize("disk", [DiskFaults(), DiskFaults(slow=1.0, slow_seconds=0.5)])
@pytest.mark.parametrize("seed", range(10))
def test_a_task_that_ends_behind_its_barrier_has_not_finished_in_that_checkpoint(seed: int, disk: DiskFaults) -> None:
    async def main() -> tuple[list[Any], list[int]]:
        put_disk(disk, seed)

        async def slow(n: int) -> int:
            if n == 60:
                await asyncio.sleep(5)  # the barrier waits behind it
            return n

        async with environment("behind", **{"checkpoint.interval": 1.0}) as env:
            totals = env.from_source(Numbers, count=1100, step=10).key_by(lambda n: n % 10).count(emit="final").collect()
            failing = Failing(80 + seed * 5)
            other = env.from_source(Numbers, count=300, pause=0.1).map_async(slow, concurrency=1).map(failing).collect()
            job = await env.submit()
            await job.wait()
        return list(totals), list(other)

    totals, other = Simulation(seed).run(main)
    assert other == list(range(300))
    assert sorted(totals) == [(digit, 110) for digit in range(10)]


@pytest.mark.rule("F44")
@pytest.mark.parametrize("seed", range(10))
def test_committed_records_of_an_attempt_that_ends_before_its_first_checkpoint(seed: int) -> None:
    async def main() -> list[int]:
        put_disk(DiskFaults(), seed)
        async with environment("late", **{"checkpoint.interval": 1.0}) as env:
            stream = env.from_source(Numbers, count=3000, step=10).map(Failing(2930 + seed * 5))
            return [n async for n in stream.committed()]

    assert Simulation(seed).run(main) == list(range(3000))


@pytest.mark.rule("F9")
def test_a_last_state_that_cannot_be_saved_fails_the_attempt() -> None:
    async def main() -> tuple[list[int], int]:
        disk = put_disk(DiskFaults())
        struck: list[str] = []

        def strike(step: str, path: str) -> None:
            if current_clock().monotonic() > 0.5 and "/parts/" in path and not struck:
                struck.append(path)
                raise OSError(28, "no space left on device")

        disk.before_step = strike
        async with environment("full", **{"checkpoint.interval": 1e6, "checkpoint.tolerated": 3}) as env:
            out = env.from_source(Numbers, count=1000).collect()
            job = await env.submit()
            await job.wait()
        assert struck
        return list(out), job.attempts

    simulation = Simulation(0)
    out, attempts = simulation.run(main)
    assert out == list(range(1000))
    assert attempts == 2
    assert simulation.virtual_seconds < 10, "nobody else would have noticed"


@pytest.mark.rule("F44")
@pytest.mark.parametrize("seed", range(10))
def test_committed_records_are_not_lost_when_their_reader_is_behind_at_a_failure(seed: int) -> None:
    async def main() -> list[int]:
        put_disk(DiskFaults(), seed)
        seen: list[int] = []
        async with environment("behind", **{"checkpoint.interval": 0.05}) as env:
            failing = Failing(*range(400 + seed * 37, 1500, 150))
            committed = env.from_source(Numbers, count=1500, step=10).map(failing).disable_chaining().map(lambda n: n).committed()
            async for n in committed:
                seen.append(n)
                await asyncio.sleep(0.05)
        return seen

    assert Simulation(seed).run(main) == list(range(1500))


@pytest.mark.rule("F2a")
@pytest.mark.parametrize("seed", range(20))
def test_a_job_that_is_stopped_hands_on_all_that_was_read(seed: int) -> None:
    """Also what a read brings in the very turn in which the source is told to stop; with a barrier to see to just then."""
    taken: list[int] = []

    class Mail(sage.Source[int]):
        bounded = False

        async def read(self, limit: int) -> Sequence[int] | None:
            await asyncio.sleep(0.01)
            taken.append(len(taken))
            return [taken[-1]]

        def position(self) -> object:
            return len(taken)

        async def seek(self, position: object) -> None:
            return None

    async def main() -> list[int]:
        put_disk(DiskFaults(slow=0.3, slow_seconds=0.01), seed)
        async with environment("mail", **{"checkpoint.interval": 0.05}) as env:
            out = env.from_source(Mail).map(lambda n: n).disable_chaining().collect()
            job = await env.submit()
            await asyncio.sleep(0.3 + seed * 0.0101)
            job.stop()
            await job.wait()
        return list(out)

    assert Simulation(seed).run(main) == taken


@pytest.mark.rule("F9")
@pytest.mark.parametrize("where", ["/parts/", "/log/"])
def test_an_error_that_no_disk_should_raise_is_a_failure_and_no_standstill(where: str) -> None:
    async def main() -> tuple[list[int], int]:
        disk = put_disk(DiskFaults())
        struck: list[str] = []

        def strike(step: str, path: str) -> None:
            if current_clock().monotonic() > 0.1 and where in path and not struck:
                struck.append(path)
                raise LookupError("the client of the object store is confused")

        disk.before_step = strike
        async with environment("confused", **{"checkpoint.interval": 0.2}) as env:
            out = env.from_source(Numbers, count=1000).collect()
            job = await env.submit()
            await job.wait()
        return list(out), job.attempts

    simulation = Simulation(0)
    assert simulation.run(main) == (list(range(1000)), 2)
    assert simulation.virtual_seconds < 10
