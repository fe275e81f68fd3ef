"""The owner's side at its edges: before workers run, at the first start, when a task or a job is ended in the middle of something."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

import sage_actor as sage
from sage_actor._core.frame import decode
from sage_actor.actor.backend import WorkerInfo
from sage_actor.dataflow.plan import make_plan
from sage_actor.dataflow.settings import JobSettings
from sage_actor.ports import current_clock
from sage_actor.runtime.attempt import Attempt
from sage_actor.runtime.task_host import JobIdentity, control_frame, read_control
from sage_actor.runtime.task_snapshots import SnapshotSetting
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
    restore, resume = more.pop("restore", None), more.pop("resume", None)
    config = {"checkpoint.dir": "checkpoints", "checkpoint.interval": 1.0, "restart.jitter": 0, "batch.records": 16, **more}
    return sage.Environment(name, config=config, restore=restore, resume=resume)


class Slow:
    """A backend whose worker starts when the test says so; what is sent to it is written down."""

    name = "slow"
    hosts_in_owner = False

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.sent: list[str] = []
        self.workers = (WorkerInfo(1, 1001),)
        self.endpoint = self
        self.receive: Callable[[int, memoryview], None] | None = None

    async def start_group(self) -> Slow:
        await self.started.wait()
        return self

    def send(self, to: int, parts: Sequence[Any]) -> None:
        _, body = decode(memoryview(b"".join(parts)))
        kind = read_control(body)[0]
        self.sent.append(kind)
        if kind == "deploy" and self.receive is not None:
            ready = b"".join(control_frame(JobIdentity("job", 1, 1), "ready", b""))
            asyncio.get_running_loop().call_soon(self.receive, 1, memoryview(ready))

    async def aclose(self, patience: float = 0) -> None:
        return None


class SlowBackend:
    name = "slow"
    hosts_in_owner = False

    def __init__(self) -> None:
        self.group = Slow()

    async def start(self, count: int, *, group: str, entry: str, resources: Sequence[object] = ()) -> Any:
        slow = await self.group.start_group()
        slow.start = self._listen  # type: ignore[attr-defined]
        return slow

    def _listen(self, receive: Callable[[int, memoryview], None], lost: object) -> None:
        self.group.receive = receive


def test_orders_given_before_the_workers_run_reach_them_in_order() -> None:
    async def main() -> list[str]:
        env = sage.Environment("early")
        end = env.from_source(Numbers, count=10).sink(lambda _: None)
        settings = JobSettings()
        plan = make_plan(env.graph, [end.operator.id], settings, hosts_in_owner=False)
        backend = SlowBackend()
        attempt = Attempt(JobIdentity("job", 1, 1), "early-1", plan, settings, backend, SnapshotSetting(), lambda kind, payload: None)  # type: ignore[arg-type]
        running = asyncio.get_running_loop().create_task(attempt.run())
        await asyncio.sleep(1)
        attempt.order("checkpoint", (1, False))
        attempt.order("abort", 1)
        attempt.order("checkpoint", (2, False))
        backend.group.started.set()
        await asyncio.sleep(1)
        attempt.order("complete", 2)
        attempt.end()
        await running
        await attempt.close(patient=False)
        return backend.group.sent

    assert Simulation(0).run(main) == ["deploy", "start", "checkpoint", "abort", "checkpoint", "complete", "end"]


def test_what_cannot_begin_is_said_at_once() -> None:
    """Nothing has run yet that trying again could save: a wrong place is not tried for five minutes."""

    async def main() -> float:
        put_disk()
        begun = current_clock().monotonic()
        with pytest.raises(sage.SavepointNotFound):
            async with environment("wrong", restore="nowhere") as env:
                env.from_source(Numbers, count=10).collect()
                await env.execute()
        return current_clock().monotonic() - begun

    assert Simulation(0).run(main) < 0.5


def test_a_source_that_the_checkpoint_does_not_know_begins_at_its_beginning() -> None:
    async def main() -> tuple[list[int], list[int]]:
        put_disk()
        with pytest.raises(sage.OperatorError):
            async with environment("grown", **{"restart.strategy": "none", "checkpoint.interval": 0.1}) as env:
                env.from_source(Numbers, count=1000, name="old").map(lambda n: 1 // (555 - n) * 0 + n, name="m").collect(name="a")
                await env.execute()
        async with environment("grown", resume=True) as env:
            old = env.from_source(Numbers, count=1000, name="old").map(lambda n: n, name="m").collect(name="a")
            new = env.from_source(Numbers, count=100, name="new").collect(name="b")
            job = await env.submit()
            await job.wait()
            assert job.restored_from is not None
        return list(old), list(new)

    old, new = Simulation(0).run(main)
    assert old == list(range(1000))
    assert new == list(range(100))


@pytest.mark.parametrize("seed", range(40))
def test_a_job_cancelled_at_any_point_leaves_nothing_behind(seed: int) -> None:
    """The simulation fails on a task that is left; what was opened is closed, once."""
    opened: Counter[str] = Counter()

    class Kept(sage.Sink[int]):
        async def open(self, context: sage.FunctionContext) -> None:
            await asyncio.sleep(0.01)
            opened["sink"] += 1

        async def write(self, batch: Sequence[int]) -> None:
            await asyncio.sleep(0.001)

        async def close(self) -> None:
            await asyncio.sleep(0.01)
            opened["sink"] -= 1

    class Opened(sage.MapFunction[int, int]):
        def open(self, context: sage.FunctionContext) -> None:
            opened["map"] += 1

        def map(self, value: int) -> int:
            return value

        async def close(self) -> None:
            await asyncio.sleep(0.01)
            opened["map"] -= 1

    chance = Random(seed)

    async def main() -> None:
        put_disk(DiskFaults(slow=0.5, slow_seconds=0.05), seed)

        async def slow(n: int) -> int:
            await asyncio.sleep(0.02)
            return n

        async with environment("cancelled", **{"checkpoint.interval": 0.1, "restart.delay": 0.1}) as env:
            fails = chance.randrange(300)
            stream = env.from_source(Numbers, count=100).map(lambda n: n // (n - fails) * 0 + n).map_async(slow, concurrency=5)
            stream.map(Opened).rebalance().sink(Kept())
            stream.key_by(lambda n: n % 3).count().collect()
            job = await env.submit()
            await asyncio.sleep(chance.random() * 0.8)
            job.cancel()
            with pytest.raises((sage.JobCancelled, sage.OperatorError)) if not job.done else pytest.raises(BaseException):  # noqa: PT011
                await job.wait()
                raise sage.JobCancelled("cancelled")

    Simulation(seed).run(main)
    assert opened == Counter(sink=0, map=0)


def test_every_close_runs_though_the_task_is_cancelled_during_one() -> None:
    closed: list[str] = []

    async def main() -> None:
        put_disk()
        closing = asyncio.Event()

        class Lingering(sage.MapFunction[int, int]):
            def map(self, value: int) -> int:
                return value

            async def close(self) -> None:
                closing.set()
                await asyncio.sleep(10)
                closed.append("map")

        class Closing(sage.Sink[int]):
            async def write(self, batch: Sequence[int]) -> None:
                pass

            async def close(self) -> None:
                await asyncio.sleep(0.1)
                closed.append("sink")

        async with sage.Environment("closing") as env:
            env.from_source(Numbers, count=10).map(Lingering).sink(Closing())
            job = await env.submit()
            await closing.wait()
            job.cancel()
            with pytest.raises(sage.JobCancelled):
                await job.wait()

    Simulation(0).run(main)
    assert "sink" in closed


def test_timers_do_not_ring_behind_the_end_of_input() -> None:
    """A task that has told its readers of the end waits for the last checkpoint only."""
    rang: list[int] = []

    class Ringing(sage.KeyedProcessFunction[int, Any]):
        def process(self, value: int, context: sage.KeyedContext) -> Any:
            context.timers.processing_time(context.timers.now() + 3000)
            yield value

        def on_timer(self, timestamp: int, context: sage.KeyedContext) -> Any:
            rang.append(timestamp)
            yield -1

    async def main(mode: bool) -> list[int]:
        put_disk()
        config = {"checkpoint.dir": "c", "checkpoint.interval": 60.0} if mode else {}
        async with sage.Environment("ringing", config=config) as env:
            short = env.from_source(Numbers, count=10).key_by(lambda n: n).process(Ringing()).disable_chaining()
            long = env.from_source(Numbers, count=100, pause=1.0)
            out = short.union(long).collect()
            await env.execute()
        return list(out)

    assert Counter(Simulation(0).run(lambda: main(True))) == Counter(Simulation(0).run(lambda: main(False)))
    assert not rang


class Unanswering:
    """A backend of which no worker ever answers."""

    name = "unanswering"
    hosts_in_owner = False

    def __init__(self) -> None:
        self.starting = asyncio.Event()
        self.called_off = False

    async def start(self, count: int, **options: object) -> object:
        self.starting.set()
        try:
            return await asyncio.Event().wait()
        finally:
            self.called_off = True


def unstarted(backend: object) -> Attempt:
    env = sage.LocalEnvironment("job", backend="process")
    env.from_collection([1]).rebalance().map(lambda n: n).print()
    plan = make_plan(env.graph, [op.id for op in env.graph.sinks()], env.settings, hosts_in_owner=False)
    return Attempt(JobIdentity("job", 1, 1), "job-1", plan, env.settings, backend, SnapshotSetting(), lambda kind, payload: None)  # type: ignore[arg-type]


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["end", "fail", "cancel"])
async def test_workers_that_do_not_come_up_hold_up_no_end(how: str) -> None:
    backend = Unanswering()
    attempt = unstarted(backend)
    async with asyncio.timeout(10):
        running = asyncio.ensure_future(attempt.run())
        await backend.starting.wait()
        if how == "end":
            attempt.end()
            await running
        elif how == "fail":
            attempt.fail(sage.BackendError("it makes no progress"))
            with pytest.raises(sage.BackendError, match="no progress"):
                await running
        else:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert backend.called_off
        await attempt.close(patient=False)
