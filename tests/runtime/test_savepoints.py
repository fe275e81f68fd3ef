"""Savepoints while a job ends, fails, restarts or is not sure: nobody waits for ever, nothing is read behind one (rule F10, F2a)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
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


def put_disk(faults: DiskFaults | None = None, seed: int = 0) -> SimulatedDisk:
    """A disk of this simulation's own."""
    disk = SimulatedDisk(Random(seed), current_clock(), faults)
    asyncio.get_running_loop().sage_disk = disk  # type: ignore[attr-defined]
    return disk


def environment(name: str, **more: Any) -> sage.Environment:
    restore = more.pop("restore", None)
    config = {
        "checkpoint.dir": "checkpoints",
        "checkpoint.interval": 1.0,
        "restart.delay": 1.0,
        "restart.jitter": 0,
        "batch.records": 16,
        **more,
    }
    return sage.Environment(name, config=config, restore=restore)


@pytest.mark.rule("F2a")
@pytest.mark.rule("F10")
@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_read_behind_a_savepoint_that_ends_the_job(seed: int) -> None:
    async def main() -> tuple[list[int], list[int]]:
        put_disk(DiskFaults(slow=0.5, slow_seconds=0.2), seed)
        written: list[int] = []
        async with environment("stop") as env:
            env.from_source(Numbers, count=3000, pause=0.05).sink(written.append)
            job = await env.submit()
            await asyncio.sleep(2 + seed * 0.013)
            place = await job.savepoint("kept", stop=True)
            await job.wait()
        before = list(written)
        async with environment("go on", restore=place) as env:
            env.from_source(Numbers, count=3000, pause=0.001).sink(written.append)
            await env.execute()
        return before, written

    before, written = Simulation(seed).run(main)
    assert 0 < len(before) < 3000
    assert written == list(range(3000))


def test_a_savepoint_ends_a_job_of_which_a_part_has_ended_before() -> None:
    async def main() -> list[int]:
        put_disk()
        async with environment("half") as env:
            env.from_source(Numbers, count=100).collect(name="short")
            out = env.from_source(Numbers, count=100_000).collect(name="long")
            job = await env.submit()
            await asyncio.sleep(5.5)
            async with asyncio.timeout(20):
                await job.savepoint("kept", stop=True)
                await job.wait()
            assert job.status == "finished"
        return list(out)

    assert 0 < len(Simulation(0).run(main)) < 100_000


@pytest.mark.parametrize("tolerated", [0, 1])
def test_a_savepoint_that_cannot_be_written_lets_the_job_go_on(tolerated: int) -> None:
    async def main() -> list[int]:
        disk = put_disk()
        full = [False]

        def refuse(step: str, path: str) -> None:
            if full[0] and "kept" in path:
                raise OSError(28, "no space left on device")

        disk.before_step = refuse
        async with environment("refused", **{"checkpoint.tolerated": tolerated}) as env:
            out = env.from_source(Numbers, count=1000).collect()
            job = await env.submit()
            await asyncio.sleep(0.5)
            full[0] = True
            with pytest.raises(sage.CheckpointError):
                await job.savepoint("kept", stop=True)
            async with asyncio.timeout(30):
                await job.wait()
        return list(out)

    assert Simulation(0).run(main) == list(range(1000))


def test_a_savepoint_whose_checkpoint_is_given_up_lets_the_job_go_on() -> None:
    async def main() -> tuple[list[int], int]:
        put_disk()

        async def slow(n: int) -> int:
            if n == 500:
                await asyncio.sleep(10)
            return n

        config = {"checkpoint.timeout": 5, "checkpoint.tolerated": 1, "checkpoint.interval": 1000}
        async with environment("given up", **config) as env:
            out = env.from_source(Numbers, count=1000).map_async(slow, concurrency=1).collect()
            job = await env.submit()
            await asyncio.sleep(0.6)
            with pytest.raises(sage.CheckpointError):
                await job.savepoint("kept", stop=True)
            async with asyncio.timeout(60):
                await job.wait()
        return list(out), job.attempts

    assert Simulation(0).run(main) == (list(range(1000)), 1)


@pytest.mark.parametrize("seed", range(30))
def test_giving_up_on_a_savepoint_lets_the_job_go_on(seed: int) -> None:
    """Cancelled at any point of it."""

    async def main() -> list[int]:
        put_disk(DiskFaults(slow=1.0, slow_seconds=0.1), seed)
        async with environment("impatient", **{"checkpoint.interval": 0.5}) as env:
            out = env.from_source(Numbers, count=1000).collect()
            job = await env.submit()
            await asyncio.sleep(Random(seed).random() * 0.6)
            try:
                async with asyncio.timeout(Random(seed).random() * 0.5):
                    await job.savepoint("kept", stop=True)
            except TimeoutError:
                async with asyncio.timeout(60):
                    await job.wait()
                assert list(out) == list(range(1000))
        return list(out)

    assert len(Simulation(seed).run(main)) > 0


def test_a_savepoint_is_refused_between_two_attempts() -> None:
    async def main() -> list[int]:
        put_disk()
        failed = [False]

        def fail(n: int) -> int:
            if n == 300 and not failed[0]:
                failed[0] = True
                raise RuntimeError("on purpose")
            return n

        async with environment("between", **{"restart.delay": 10}) as env:
            out = env.from_source(Numbers, count=1000).map(fail).collect()
            job = await env.submit()
            await asyncio.sleep(1.0)
            assert job.status == "restarting"
            with pytest.raises(sage.CheckpointError):
                async with asyncio.timeout(5):
                    await job.savepoint("kept")
            await job.wait()
        return list(out)

    assert Simulation(0).run(main) == list(range(1000))


def test_a_job_that_fails_between_its_savepoint_and_its_end_says_so_and_goes_on() -> None:
    class Once(sage.Sink[int]):
        failed = False

        async def write(self, batch: Sequence[int]) -> None:
            written.extend(batch)

        async def prepare(self, checkpoint: int) -> object:
            return checkpoint

        async def commit(self, checkpoint: int, prepared: object) -> None:
            if written and written[-1] > 100 and not Once.failed:
                Once.failed = True
                raise OSError("the target is away")

    written: list[int] = []

    async def main() -> tuple[str, str]:
        put_disk()
        async with environment("uncommitted", **{"checkpoint.interval": 1000}) as env:
            env.from_source(Numbers, count=1000).sink(Once())
            job = await env.submit()
            await asyncio.sleep(0.5)
            with pytest.raises(sage.CheckpointError) as caught:
                await job.savepoint("kept", stop=True)
            await job.wait()
            assert job.attempts == 2
            return job.status, str(caught.value)

    status, text = Simulation(0).run(main)
    assert status == "finished"
    assert "kept" in text, "the savepoint is there all the same"
    assert written[-1] == 999


def test_without_a_folder_of_its_own_a_savepoint_needs_a_target(tmp_path: Path) -> None:
    async def main() -> None:
        async with sage.Environment("homeless", config={"checkpoint.interval": 1.0}) as env:
            env.from_source(Numbers, count=300).collect()
            job = await env.submit()
            await asyncio.sleep(0.1)
            with pytest.raises(sage.CheckpointError, match=r"checkpoint\.dir"):
                await job.savepoint()
            place = await job.savepoint(str(tmp_path / "kept"))
            await job.wait()
        assert Path(place.removeprefix("file://")).is_dir()

    Simulation(0).run(main)
