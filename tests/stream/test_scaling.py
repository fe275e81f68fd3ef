"""What an environment lets be said about load: spellings, refusals, what travels, and the blocking face."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

import sage_actor as sage
from sage_actor.stream.shipping import pack, unpack


class Open(sage.Source[int]):
    """Gives 0 .. 99, and the rest once somebody lets it."""

    released: ClassVar[asyncio.Event]
    count = 300

    def __init__(self) -> None:
        self.next = 0

    async def read(self, limit: int) -> Sequence[int] | None:
        if self.next >= 100:
            await Open.released.wait()
        begin, self.next = self.next, min(self.count, self.next + min(limit, 50))
        return list(range(begin, self.next)) or None

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


@pytest.mark.asyncio
async def test_the_parallelism_changes_from_another_thread() -> None:
    Open.released = asyncio.Event()
    async with sage.Environment("blocking", config={"checkpointing": "on_demand"}) as env:
        out = env.from_source(Open).key_by(lambda n: n % 3).count(name="count").collect()
        job = await env.submit()
        with pytest.raises(sage.JobError, match="its own event loop"):
            job.rescale_in_thread(3)
        await asyncio.to_thread(job.rescale_in_thread, 3, timeout=50)
        assert job.metrics().operators["count"]["parallelism"] == 3
        with pytest.raises(sage.GraphError, match="no operator"):
            await asyncio.to_thread(job.rescale_in_thread, {"nobody": 2}, timeout=50)
        Open.released.set()
        await job.wait()
    assert sorted(out) == [(key, number) for key in range(3) for number in range(1, 101)]
    assert (job.rescales, job.attempts) == (1, 2)


@pytest.mark.parametrize("seeds", [{"strategy": "work_stealing"}, {"work_stealing": True}])
def test_the_seeds_spellings_are_understood(seeds: dict[str, Any]) -> None:
    env = sage.LocalEnvironment("seeds")
    config = {**seeds, "partition_key": lambda msg: msg.get_hash(), "rebalance_interval": 30000}
    assert env.set_parallelism(4) is env
    assert env.set_load_balancer(sage.LoadBalancer, config) is env
    out = (
        env.from_collection([{"user": n % 7} for n in range(100)]).map(lambda row: row["user"]).partition(4).map(lambda n: n + 1).collect()
    )
    job = env.execute()
    assert sorted(out) == sorted(n % 7 + 1 for n in range(100))
    assert job.metrics()["tasks"]
    assert env.settings.rebalance_interval == 30.0


REFUSED: list[Callable[[sage.LocalEnvironment], object]] = [
    lambda env: env.set_parallelism(0),
    lambda env: env.set_parallelism(4, {"min": 1}),
    lambda env: env.set_parallelism(int),  # type: ignore[arg-type]
    lambda env: env.set_parallelism(sage.ParallelismController, {"minimum": 1}),
    lambda env: env.set_parallelism(sage.ParallelismController(), {"min": 1}),
    lambda env: env.set_load_balancer(dict),  # type: ignore[arg-type]
    lambda env: env.set_load_balancer(sage.LoadBalancer(), {"strategy": "key_group"}),
    lambda env: env.set_load_balancer(sage.LoadBalancer, {"strategy": "fair"}),
]


@pytest.mark.parametrize("say", REFUSED)
def test_what_makes_no_sense_is_refused_at_once(say: Callable[[sage.LocalEnvironment], object]) -> None:
    with pytest.raises((sage.ConfigError, sage.GraphError)):
        say(sage.LocalEnvironment("refused"))


@pytest.mark.asyncio
async def test_what_was_said_about_load_travels_with_the_dataflow() -> None:
    env = sage.LocalEnvironment("shipped")
    env.set_load_balancer(sage.LoadBalancer, {"partition_key": "user"})
    env.set_parallelism(sage.ParallelismController, {"max": 3})
    env.from_collection([{"user": n % 5} for n in range(50)]).rebalance().map(lambda row: row["user"]).sink(lambda n: None)
    async with unpack(pack(env)) as again:
        assert again.load_balancer == env.load_balancer
        assert again.parallelism_controller == sage.ParallelismController(max=3)
        assert again.settings.balancing == "key_group"
        job = await again.execute()
    assert job.status == "finished"


@pytest.mark.asyncio
async def test_jobs_without_checkpoints_move_on_demand_and_others_as_they_are() -> None:
    for config, expected in (({}, "exactly_once"), ({"checkpointing": "at_least_once"}, "at_least_once")):
        env = sage.LocalEnvironment("moves", config=config)
        env.set_load_balancer(sage.LoadBalancer, {"strategy": "key_group"})
        assert env.scaled(env.settings).snapshot_mode == expected
    assert not sage.LocalEnvironment("still").set_load_balancer(sage.LoadBalancer, {"work_stealing": True}).settings.snapshot_mode


@pytest.mark.asyncio
async def test_a_partition_key_counts_for_jobs_that_are_started_later() -> None:
    async with sage.Environment("two") as env:
        first, second = (env.from_collection(range(3)).rebalance().map(lambda n: n).sink(lambda n: None) for _ in range(2))
        await env.submit(first)
        env.set_load_balancer(sage.LoadBalancer, {"partition_key": lambda message: message.value})
        await env.submit(second)
        kinds = [edge.partition.kind for operator in env.graph.operators for edge in operator.inputs if operator.kind == "map"]
    assert kinds == ["rebalance", "hash"]


@pytest.mark.asyncio
async def test_a_service_says_that_its_parallelism_stays(caplog: pytest.LogCaptureFixture) -> None:
    async with sage.Environment("served") as env:
        env.set_parallelism(sage.ParallelismController, {"max": 3})
        service = await env.from_requests().map(lambda n: n + 1).serve()
        assert await service(1) == 2
    assert any("keeps its division" in record.message and "requests" in record.message for record in caplog.records)
