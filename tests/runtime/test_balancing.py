"""Load balancers: who gets a batch, whether anybody is idle meanwhile, and key groups that move with their keys."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor._core.batch import BARRIER, Batch, Marker
from sage_actor._core.batch_queue import Gate
from sage_actor._core.stable_hash import key_group, operator_of_group
from sage_actor.dataflow.graph import Partition
from sage_actor.dataflow.plan import OutputSpec
from sage_actor.dataflow.settings import JobSettings
from sage_actor.ports import current_clock
from sage_actor.runtime.balancing import make_router
from sage_actor.runtime.channels import LocalChannel
from sage_actor.runtime.routing import Router
from sage_actor.testing import Simulation
from sage_actor.testing.simulated_disk import DiskFaults, SimulatedDisk

STRATEGIES = ("round_robin", "least_loaded", "work_stealing", "key_group")


class Numbers(sage.Source[int]):
    """0 .. count-1."""

    def __init__(self, count: int, step: int = 500, pause: float = 0.0) -> None:
        self.count, self.step, self.pause, self.next = count, step, pause, 0

    async def read(self, limit: int) -> Sequence[int] | None:
        await asyncio.sleep(self.pause)
        begin, self.next = self.next, min(self.count, self.next + min(limit, self.step))
        return list(range(begin, self.next)) or None

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


def environment(name: str = "balanced", *, restore: str | None = None, **config: Any) -> sage.Environment:
    loop = asyncio.get_running_loop()
    if not hasattr(loop, "sage_disk"):
        loop.sage_disk = SimulatedDisk(Random(0), current_clock(), DiskFaults())  # type: ignore[attr-defined]
    return sage.Environment(name, restore=restore, config={"checkpoint.dir": "checkpoints", **config})


# -- the routers alone --------------------------------------------------------------------------------------------------


class Receivers:
    """Gates that are drained by hand, behind one router."""

    def __init__(self, strategy: str, number: int, records: int = 64) -> None:
        self.gates = [Gate(1, capacity=records) for _ in range(number)]
        job_settings = JobSettings(balancing=strategy, buffer_records=records)
        output = OutputSpec(0, "out", Partition("rebalance"), [], "receiver", 128)
        setting = SimpleNamespace(settings=job_settings, index=0)
        self.router: Router = make_router(output, [LocalChannel(gate, 0) for gate in self.gates], cast("Any", setting))
        self.taken: list[list[Any]] = [[] for _ in range(number)]

    def waiting(self, receiver: int) -> int:
        """Records that wait there."""
        return self.gates[receiver].depth

    def take(self, receiver: int) -> None:
        """It has finished what it had, and takes what waits."""
        for _, item in self.gates[receiver].drain():
            self.taken[receiver].extend(item.values if isinstance(item, Batch) else [item])


@given(st.integers(2, 5), st.lists(st.integers(1, 40), max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_nobody_is_idle_while_another_has_more_than_one_piece(number: int, sizes: list[int], chance: Random) -> None:
    async def main() -> None:
        receivers = Receivers("work_stealing", number)
        numbers = iter(range(sum(sizes)))

        async def send() -> None:
            for size in sizes:
                await receivers.router.add(Batch([next(numbers) for _ in range(size)]))
            await receivers.router.mark(Marker(BARRIER, 1))

        sending = asyncio.ensure_future(send())
        while not sending.done():
            await asyncio.sleep(0)
            for receiver in range(number):
                depth = receivers.waiting(receiver)
                assert depth <= 64 // 2, "more than one piece waits"
            if not sending.done():
                receivers.take(chance.randrange(number))
        await sending
        for receiver in range(number):
            receivers.take(receiver)
            markers = [item for item in receivers.taken[receiver] if isinstance(item, Marker)]
            assert len(markers) == 1
            assert receivers.taken[receiver][-1] is markers[0], "the barrier stands behind everything given out before it"
            receivers.taken[receiver].pop()
            assert receivers.taken[receiver] == sorted(receivers.taken[receiver]), "in order"
        assert sorted(chain.from_iterable(receivers.taken)) == list(range(sum(sizes)))

    asyncio.run(main())


@pytest.mark.asyncio
async def test_the_next_piece_goes_to_whoever_asks() -> None:
    receivers = Receivers("work_stealing", 3)
    sending = asyncio.ensure_future(receivers.router.add(Batch(list(range(2000)))))
    for _ in range(20):  # the first one never takes anything, the second one works twice as fast as the third
        await asyncio.sleep(0)
        for receiver in (1, 2, 1):
            receivers.take(receiver)
            await asyncio.sleep(0)
    while not sending.done():
        await asyncio.sleep(0)
        receivers.take(1)
        receivers.take(2)
    assert 0 < receivers.waiting(0) <= 32
    assert len(receivers.taken[1]) > len(receivers.taken[2]) > 0


@pytest.mark.asyncio
async def test_the_least_loaded_gets_the_batch() -> None:
    receivers = Receivers("least_loaded", 3, records=64)
    await receivers.router.add(Batch(list(range(32 * 3))))
    assert [receivers.waiting(receiver) for receiver in range(3)] == [32, 32, 32], "in turns while all are equal"
    receivers.take(1)
    await receivers.router.add(Batch(list(range(32))))
    assert receivers.waiting(1) == 32
    await receivers.router.add(Batch(list(range(32))))
    await receivers.router.add(Batch(list(range(32))))
    receivers.take(2)
    await receivers.router.add(Batch(list(range(32))))
    assert receivers.waiting(2) == 32
    assert sum(receivers.waiting(receiver) for receiver in range(3)) <= 3 * 64


# -- whole jobs ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("F1")
@pytest.mark.rule("F43")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_with_any_strategy(strategy: str, seed: int) -> None:
    """Several senders, small buffers, checkpoints all the time, and failures."""
    chance = Random(seed)
    failing = {chance.randrange(100, 900) for _ in range(2)}

    def fail(n: int) -> int:
        if n in failing:
            failing.discard(n)
            raise RuntimeError("on purpose")
        return n

    async def main() -> list[int]:
        config = {
            "checkpoint.interval": 0.2,
            "restart.delay": 0.01,
            "restart.attempts": 0,
            "buffer.records": chance.choice((1, 2, 16, 256)),
            "batch.records": chance.choice((1, 5, 64)),
            "load_balancer.strategy": strategy,
            "load_balancer.rebalance_interval": 100,
            "parallelism": chance.choice((2, 3)),
        }
        async with environment(**config) as env:
            first = env.from_source(Numbers, count=500, step=7, pause=0.01)
            second = env.from_source(Numbers, count=500, step=7, pause=0.01).map(lambda n: n + 500)
            dealt = first.union(second).rebalance().map(fail).rebalance().map(lambda n: n, parallelism=4)
            out = dealt.key_by(lambda n: n % 7).reduce(lambda a, b: b).collect()
            job = await env.submit()
            async with asyncio.timeout(300):
                await job.wait()
        return sorted(out)

    assert Simulation(seed).run(main) == list(range(1000))


def test_stealing_beats_turns_where_records_differ_in_cost() -> None:
    """Every hundred records begin with five that take twenty times as long; four tasks."""
    cost = [0.02 if n % 100 < 5 else 0.001 for n in range(4000)]

    async def main(strategy: str) -> tuple[float, int]:
        done = Counter[int]()

        class Work(sage.Sink[int]):
            async def open(self, context: sage.FunctionContext) -> None:
                self.index = context.subtask_index

            async def write(self, batch: Sequence[int]) -> None:
                for n in batch:
                    await asyncio.sleep(cost[n])
                    done[n] += 1

        begun = asyncio.get_running_loop().time()
        async with environment(parallelism=4, **{"load_balancer.strategy": strategy, "buffer.records": 256}) as env:
            env.from_source(Numbers, count=len(cost), step=100).rebalance().sink(Work, parallelism=4)
            await env.execute()
        assert done == Counter(range(len(cost)))
        return asyncio.get_running_loop().time() - begun, len(done)

    seconds = {strategy: Simulation(3).run(lambda strategy=strategy: main(strategy))[0] for strategy in STRATEGIES[:3]}  # type: ignore[misc]
    ideal = sum(cost) / 4
    assert seconds["work_stealing"] < 1.05 * ideal
    assert seconds["work_stealing"] < 0.8 * seconds["round_robin"], seconds


HOT = [key for key in range(4000) if operator_of_group(key_group(key, 128), 128, 4) == 0][:40]
"""Keys that the default ranges give to one task of four."""


class Skewed(sage.MapFunction[int, int]):
    """Nine of ten records have a hot key."""

    def map(self, value: int) -> int:
        return HOT[value % len(HOT)] if value % 10 else value % 4000


class Placed(sage.MapFunction[Any, Any]):
    """Says which task has seen a row."""

    def open(self, context: sage.FunctionContext) -> None:
        self.index = context.subtask_index

    def map(self, value: Any) -> Any:
        return (*value, self.index)


def shares(rows: Sequence[tuple[int, int, int]]) -> list[int]:
    """How many rows each of four tasks has seen, most first."""
    seen = Counter(task for _, _, task in rows)
    return sorted((seen[task] for task in range(4)), reverse=True)


@pytest.mark.rule("F15")
@pytest.mark.parametrize("seed", range(5))
def test_key_groups_move_with_their_state_and_keep_the_order_of_each_key(seed: int) -> None:
    async def main() -> tuple[list[Any], list[Any], sage.Job]:
        async with environment("skewed", parallelism=4) as env:
            env.set_load_balancer(sage.LoadBalancer, {"strategy": "key_group", "rebalance_interval": 300})
            source = env.from_source(Numbers, count=20_000, step=50, pause=0.002)
            out = source.map(Skewed).key_by(lambda n: n).count(name="counts").map(Placed).collect()
            job = await env.submit()
            while job.rescales == 0 and not job.done:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.1)
            place = await job.savepoint("kept", stop=True)
            await job.wait()
        async with environment("skewed", restore=place, parallelism=4, checkpointing="on_demand") as env:
            source = env.from_source(Numbers, count=20_000, step=50, pause=0.002)
            again = source.map(Skewed).key_by(lambda n: n).count(name="counts").map(Placed).collect()
            await env.execute()
        return list(out), list(again), job

    out, again, job = Simulation(seed).run(main)
    assert again[: len(out)] == out, "what was collected is part of the savepoint"
    expected: Counter[int] = Counter()
    for key, number, _ in again:
        expected[key] += 1
        assert number == expected[key], "in order, none lost, none twice"
    assert sum(expected.values()) == 20_000
    assert shares(out[:1000])[0] > 900, "all of it fell to one task"
    assert shares(again[-5000:])[0] < 2000, "the table is in the manifest: a restore keeps it"
    assert job.rescales == 1, "once it is even, it stays"


@pytest.mark.asyncio
@pytest.mark.parametrize("backend", ["memory", "rocksdb"])
async def test_key_groups_move_in_every_state_backend(backend: str) -> None:
    if backend == "rocksdb":
        pytest.importorskip("rocksdict")
    async with sage.Environment("stores", parallelism=4, config={"state.backend": backend}) as env:
        env.set_load_balancer(sage.LoadBalancer, {"strategy": "key_group", "rebalance_interval": 20})
        source = env.from_source(Numbers, count=20_000, step=100, pause=0.001)
        out = source.map(Skewed).key_by(lambda n: n).count(name="counts").map(Placed).collect()
        job = await env.execute()
    expected: Counter[int] = Counter()
    for key, number, _ in out:
        expected[key] += 1
        assert number == expected[key]
    assert sum(expected.values()) == 20_000
    assert job.rescales >= 1
    assert shares(list(out)[-5000:])[0] < 2000


def test_even_keys_stay_where_they_are() -> None:
    async def main() -> int:
        async with environment(parallelism=4) as env:
            env.set_load_balancer(sage.LoadBalancer, {"strategy": "key_group", "rebalance_interval": 200})
            env.from_source(Numbers, count=20_000, step=50, pause=0.002).key_by(lambda n: n % 997).count().collect()
            job = await env.execute()
        return job.rescales

    assert Simulation(0).run(main) == 0


@pytest.mark.parametrize("key", ["user_id", lambda message: message.value["user_id"]], ids=["field", "function"])
def test_a_partition_key_keeps_records_of_one_key_together(key: Any) -> None:
    async def main() -> list[Any]:
        async with environment() as env:
            env.set_load_balancer(sage.LoadBalancer, {"work_stealing": True, "partition_key": key, "rebalance_interval": 30000})
            records = [{"user_id": n % 13, "n": n} for n in range(2000)]
            dealt = env.from_collection(records).partition(4).map(lambda row: (row["user_id"], row["n"])).map(Placed)
            out = dealt.collect()
            await env.execute()
        return list(out)

    out = Simulation(1).run(main)
    tasks: dict[int, set[int]] = {}
    order: dict[int, list[int]] = {}
    for user, n, task in out:
        tasks.setdefault(user, set()).add(task)
        order.setdefault(user, []).append(n)
    assert all(len(seen) == 1 for seen in tasks.values())
    assert len(set.union(*tasks.values())) == 4
    assert order == {user: list(range(user, 2000, 13)) for user in range(13)}


def test_a_source_that_cannot_be_read_again_keeps_the_job_as_it_is() -> None:
    async def main() -> tuple[int, int]:
        async with environment(parallelism=4) as env:
            env.set_load_balancer(sage.LoadBalancer, {"strategy": "key_group", "rebalance_interval": 1})
            source = env.from_source((HOT[n % len(HOT)] for n in range(20_000)), name="generator")
            out = source.key_by(lambda n: n).count().collect()
            job = await env.execute()
        return job.rescales, len(out)

    assert Simulation(0).run(main) == (0, 20_000)


@pytest.mark.parametrize("spelling", ["parallelism", "controller"])
def test_the_parallelism_follows_the_load(spelling: str) -> None:
    """A burst, then little: four tasks are needed for the first part, one is enough for the second."""

    class Bursts(Numbers):
        async def read(self, limit: int) -> Sequence[int] | None:
            if self.next >= 4000:
                await asyncio.sleep(0.3)
            return await super().read(1 if self.next >= 4000 else limit)

    async def main() -> tuple[list[int], list[int]]:
        seen: list[int] = []
        config = {"min": 1, "max": 4, "interval": 0.5, "cool_down": 1, "looks": 2}

        async def work(n: int) -> int:
            await asyncio.sleep(0.01)
            return n

        class Work(sage.Sink[int]):
            async def write(self, batch: Sequence[int]) -> None:
                done.extend([await work(n) for n in batch])

        done: list[int] = []
        async with environment(**{"buffer.records": 16}) as env:
            set_controller = env.set_parallelism if spelling == "parallelism" else env.set_parallelism_controller
            set_controller(sage.ParallelismController, config)
            env.from_source(Bursts, count=4100, step=10).rebalance().map(lambda n: n, name="work").sink(Work)
            job = await env.submit()
            while not job.done:
                row = job.metrics().operators.get("work")
                if row is not None and (not seen or seen[-1] != row["parallelism"]):
                    seen.append(row["parallelism"])
                await asyncio.sleep(0.1)
            await job.wait()
        return seen, sorted(done)

    seen, done = Simulation(0).run(main)
    assert done == list(range(4100))
    assert seen == [1, 2, 4, 1]


def test_records_of_both_inputs_of_an_operator_are_counted() -> None:
    async def main() -> int:
        async with environment(parallelism=2, **{"load_balancer.strategy": "key_group"}) as env:
            numbers = env.from_source(Numbers, count=500)
            pairs = numbers.connect(numbers).key_by(lambda n: n % 7, lambda n: n % 11)
            pairs.map(lambda n: n, lambda n: n).collect()
            job = await env.execute()
        return sum(sum(counts) for task in job.metrics()["tasks"] for counts in task.get("key_groups", {}).values())

    assert Simulation(0).run(main) == 1000


def test_a_change_that_fails_is_not_asked_for_again_before_the_load_was_seen_anew(caplog: pytest.LogCaptureFixture) -> None:
    """Records take longer than a checkpoint may, so nothing can move."""

    class Slow(sage.Sink[int]):
        async def write(self, batch: Sequence[int]) -> None:
            for _ in batch:
                await asyncio.sleep(0.9)

    async def main() -> None:
        config = {"checkpoint.timeout": 0.2, "checkpoint.tolerated": 1000, "buffer.records": 1}
        async with environment(**config) as env:
            env.set_parallelism(sage.ParallelismController, {"min": 2, "interval": 3, "cool_down": 20, "looks": 1})
            env.from_source(Numbers, count=1000, step=1).rebalance().map(lambda n: n, name="slow").sink(Slow)
            job = await env.submit()
            await asyncio.sleep(35)
            job.cancel()

    Simulation(0).run(main)
    assert len([record for record in caplog.records if "could not be divided anew" in record.message]) == 2
