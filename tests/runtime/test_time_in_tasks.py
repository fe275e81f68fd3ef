"""Event time through whole tasks: idle inputs, calls in flight, restarts, errors (rules F16 to F20)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.ports import current_clock
from sage_actor.testing import Simulation
from sage_actor.testing.simulated_disk import SimulatedDisk


class Paced(sage.Source[Any]):
    """(seconds to wait, records) one after the other; position is the number of batches read."""

    def __init__(self, batches: list[tuple[float, list[Any]]]) -> None:
        self.batches = batches
        self.next = 0

    async def read(self, limit: int) -> Sequence[Any] | None:
        if self.next >= len(self.batches):
            return None
        pause, records = self.batches[self.next]
        await asyncio.sleep(pause)
        self.next += 1
        return records

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


def windows(stream: sage.DataStream[Any]) -> Any:
    return stream.key_by(lambda n: 0).window(sage.Tumbling(100)).count().collect()


def put_disk(seed: int = 0) -> None:
    asyncio.get_running_loop().sage_disk = SimulatedDisk(Random(seed), current_clock())  # type: ignore[attr-defined]


@pytest.mark.rule("F17")
@pytest.mark.parametrize("seed", range(5))
def test_an_untimed_input_that_ends_does_not_make_the_stream_behind_it_idle(seed: int) -> None:
    """Two sources without event time flow together and get it there; beside another stream that is ahead."""

    async def main() -> list[Any]:
        async with sage.Environment("untimed") as env:
            short = env.from_source(Paced, batches=[(0.01, [0])])
            long = env.from_source(Paced, batches=[(0.1, [n]) for n in range(0, 3000, 50)])
            slow = short.union(long).map(lambda n: n).assign_timestamps(lambda n: n)
            fast = env.from_source(Paced, batches=[(0.05, [100_000])] + [(1.0, [100_000])] * 10).assign_timestamps(lambda n: n)
            out = windows(slow.union(fast))
            await env.execute()
        return list(out)

    out = Simulation(seed).run(main)
    assert sum(result.value for result in out) == 1 + 60 + 11, "nothing was late"


@pytest.mark.rule("F17")
@pytest.mark.rule("F32")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_a_stream_is_not_idle_while_calls_are_in_flight(seed: int, ordered: bool) -> None:
    async def main() -> list[Any]:
        async def slow(n: int) -> int:
            await asyncio.sleep(5)
            return n

        idle = sage.BoundedDisorder(0, idle_after=1.0)
        async with sage.Environment("in flight") as env:
            one = env.from_source(Paced, batches=[(0.01, [1, 2, 3]), (60.0, [4, 5])]).assign_timestamps(lambda n: n, idle)
            other = env.from_source(Paced, batches=[(0.1, [n]) for n in range(0, 20_000, 50)]).assign_timestamps(lambda n: n)
            out = windows(one.map_async(slow, concurrency=10, ordered=ordered).union(other))
            await env.execute()
        return list(out)

    out = Simulation(seed).run(main)
    assert out[0].value == 5, "1, 2, 3 were on time, with 0 and 50"


@pytest.mark.rule("F17")
def test_an_idle_stream_is_idle_again_after_late_results() -> None:
    """What calls in flight bring wakes the readers; nobody then waits for a stream that is still silent."""
    times: list[float] = []

    async def main() -> None:
        async def slow(n: int) -> int:
            await asyncio.sleep(5)
            return n

        idle = sage.BoundedDisorder(0, idle_after=1.0)
        async with sage.Environment("again") as env:
            one = env.from_source(Paced, batches=[(0.01, [1, 2, 3]), (600.0, [4, 5])]).assign_timestamps(lambda n: n, idle)
            other = env.from_source(Paced, batches=[(0.1, [n]) for n in range(0, 20_000, 50)]).assign_timestamps(lambda n: n)
            stream = one.map_async(slow, concurrency=10).union(other).key_by(lambda n: 0).window(sage.Tumbling(100)).count()
            stream.sink(lambda _: times.append(asyncio.get_running_loop().time()))
            await env.execute()

    Simulation(0).run(main)
    assert len(times) == 200
    assert times[150] < 60, "windows close while the other stream is silent"


@pytest.mark.rule("F18")
@pytest.mark.rule("F19")
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("ordered", [True, False])
def test_calls_made_again_do_not_bring_back_the_time_of_before(seed: int, ordered: bool) -> None:
    """Watermarks are not restored: what one task had reached before a failure says nothing about the others after it."""
    failed: list[int] = []

    async def main() -> list[Any]:
        put_disk(seed)
        release = asyncio.Event()

        async def slow(n: int) -> int:
            if n == 5000:
                await (asyncio.sleep(5) if failed else release.wait())
            return n

        def fail(n: int) -> int:
            if n == 150 and not failed:
                failed.append(n)
                release.set()
                raise RuntimeError("on purpose")
            return n

        config = {"checkpoint.interval": 1.0, "checkpoint.dir": "c", "restart.delay": 0, "restart.jitter": 0}
        async with sage.Environment("again", config=config) as env:
            ahead = env.from_source(Paced, batches=[(0.01, [4000]), (0.01, [5000]), (3.0, [5001])]).assign_timestamps(lambda n: n)
            behind = env.from_source(Paced, batches=[(0.1, [n]) for n in range(0, 5000, 10)]).map(fail).assign_timestamps(lambda n: n)
            out = windows(ahead.map_async(slow, concurrency=5, ordered=ordered).union(behind))
            job = await env.submit()
            await job.wait()
            assert job.restored_from is not None
        return list(out)

    out = Simulation(seed).run(main)
    assert sum(result.value for result in out) == 503, "nothing was late"


@pytest.mark.parametrize("keyed", [False, True])
def test_an_error_in_front_of_a_window_is_the_one_that_is_reported(keyed: bool) -> None:
    async def main() -> None:
        def fail(n: int) -> int:
            if n == 7:
                raise ValueError("seven")
            return n

        async with sage.Environment("masked") as env:
            stream = env.from_collection(range(10)).assign_timestamps(lambda n: n)
            if keyed:
                counted = stream.key_by(lambda n: 0).reduce(lambda a, b: fail(b)).map(lambda n: n)
            else:
                counted = stream.map(fail)
            windows(counted)
            with pytest.raises(sage.OperatorError, match="seven"):
                await env.execute()

    Simulation(0).run(main)


def test_a_fold_that_skips_records_keeps_their_time() -> None:
    async def main() -> list[Any]:
        def fail(a: int, b: int) -> int:
            if b == 7:
                raise ValueError("seven")
            return b

        async with sage.Environment("skipping") as env:
            stream = env.from_collection(range(10)).assign_timestamps(lambda n: n * 50)
            out = windows(stream.key_by(lambda n: 0).reduce(fail, on_error="skip"))
            await env.execute()
        return [(result.start, result.value) for result in out]

    assert Simulation(0).run(main) == [(0, 2), (100, 2), (200, 2), (300, 1), (400, 2)]


@pytest.mark.rule("F17")
@pytest.mark.rule("F18")
@pytest.mark.parametrize("seed", range(5))
def test_an_input_that_has_ended_does_not_end_the_time_of_one_that_is_silent(seed: int) -> None:
    async def main() -> list[Any]:
        idle = sage.BoundedDisorder(0, idle_after=1.0)
        async with sage.Environment("ended") as env:
            short = env.from_source(Paced, batches=[(0.01, [1, 2, 3])]).assign_timestamps(lambda n: n)
            long = env.from_source(Paced, batches=[(5.0, [n]) for n in range(0, 1000, 50)]).assign_timestamps(lambda n: n, idle)
            out = windows(short.union(long))
            await env.execute()
        return list(out)

    out = Simulation(seed).run(main)
    assert sum(result.value for result in out) == 23, "nothing was late"
