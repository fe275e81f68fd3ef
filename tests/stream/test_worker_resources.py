"""What steps and settings ask for reaches the worker processes, and holds there."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import pytest

import sage_actor as sage

linux = pytest.mark.skipif(sys.platform != "linux", reason="cores and memory of a process are limited on Linux only")


@linux
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "asking",
    [
        {"config": {"taskmanager.cpu.cores": "1"}},
        {"config": {"resources": {"taskmanager.cpu.cores": 1}}},
        {"places": {"heavy": {"backend": "process", "resources": {"num_cpus": 1}}}},
        {"resources": {"num_cpus": 0.5}},
    ],
    ids=["setting", "nested setting", "place", "step"],
)
async def test_a_worker_has_so_many_cores(asking: dict[str, Any], remote_backend: str) -> None:
    resources = asking.get("resources")
    places = asking.get("places")
    backend = "local" if places else remote_backend
    async with asyncio.timeout(50), sage.Environment("cores", backend=backend, config=asking.get("config"), places=places) as env:
        cores = env.from_collection(range(3)).map(lambda _: len(os.sched_getaffinity(0)), resources=resources)
        out = (cores if places is None else cores.place("heavy")).collect()
        await env.execute()
    assert list(out) == [1, 1, 1]


@linux
@pytest.mark.asyncio
async def test_a_worker_that_takes_more_memory_than_it_has_is_ended_and_the_limit_is_named(remote_backend: str) -> None:
    def hoard(value: int) -> int:
        held = [b"x" * 10_000_000 for _ in range(40)]
        threading.Event().wait()  # until it is ended
        return len(held)

    config = {"taskmanager.memory.process.size": "200mb", "restart.strategy": "none"}
    async with asyncio.timeout(50), sage.Environment("hoard", backend=remote_backend, config=config) as env:
        env.from_collection(range(3)).map(hoard, parallelism=1).collect()
        with pytest.raises(sage.WorkerLost, match=r"(?i)memory.*200") as caught:
            await env.execute()
    assert caught.value.worker == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("resources", [{"num_gpus": 1}, {"unobtainium": 1}], ids=["gpu", "custom"])
async def test_what_the_backend_cannot_give_is_refused_by_name(resources: dict[str, float]) -> None:
    for backend, places in (("process", None), ("local", {"heavy": "process"})):
        async with asyncio.timeout(50), sage.Environment("cannot", backend=backend, places=places) as env:
            asking = env.from_collection(range(3)).map(lambda n: n, resources=resources)
            (asking if places is None else asking.place("heavy")).collect()
            with pytest.raises(sage.BackendUnavailable, match="process") as caught:
                await env.execute()
        assert next(iter(resources)) in str(caught.value)
        assert places is None or "place 'heavy'" in str(caught.value)


@pytest.mark.asyncio
async def test_the_seeds_configuration_runs_where_nothing_can_be_limited() -> None:
    config = {"resources": {"taskmanager.memory.process.size": "4gb", "taskmanager.cpu.cores": "4"}}
    async with asyncio.timeout(50), sage.Environment("here", config=config) as env:
        out = env.from_collection(range(3)).collect()
        await env.execute()
    assert list(out) == [0, 1, 2]
