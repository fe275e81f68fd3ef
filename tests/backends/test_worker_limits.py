"""Workers of the process backend get the cores and the memory that are asked for, and are refused what there is not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from sage_actor.actor.backend import WorkerResources
from sage_actor.backends import process
from sage_actor.backends.worker_limits import OUT_OF_MEMORY, limits_of
from sage_actor.errors import BackendError, BackendUnavailable, WorkerLost

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cores and memory of a process are a thing of Linux")

ENTRIES = """
import asyncio, json, os

async def tell(endpoint):
    endpoint.send(0, [json.dumps(sorted(os.sched_getaffinity(0))).encode()])
    await asyncio.Event().wait()

async def swell(endpoint):
    held = b"x" * 250_000_000
    await asyncio.Event().wait()

async def stay(endpoint):
    endpoint.send(0, [b"here"])
    await asyncio.Event().wait()
"""

CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that only this test's import path has."""
    (tmp_path / "limited_entries.py").write_text(ENTRIES)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "limited_entries"


async def refused(*resources: WorkerResources) -> str:
    with pytest.raises(BackendUnavailable) as refusal:
        await process.create("process").start(len(resources), group="g", entry="os:getcwd", resources=resources)
    return str(refusal.value)


@pytest.mark.asyncio
async def test_a_worker_is_bound_to_its_cores(entries: str) -> None:
    group = await process.create("process").start(
        2, group="g", entry=f"{entries}:tell", resources=[WorkerResources(num_cpus=0.5), WorkerResources()]
    )
    try:
        told: asyncio.Queue[tuple[int, list[int]]] = asyncio.Queue()
        group.endpoint.start(lambda sender, frame: told.put_nowait((sender, json.loads(bytes(frame)))), lambda loss: None)
        async with asyncio.timeout(10):
            assert dict([await told.get(), await told.get()]) == {1: CORES[:1], 2: CORES}
    finally:
        await group.aclose()


def test_cores_are_dealt_one_worker_after_the_other() -> None:
    if len(CORES) < 2:
        pytest.skip("one core only")
    quarters = limits_of([WorkerResources(num_cpus=len(CORES) / 4)] * 4, 4, "process")
    own = [set(limits.cores or ()) for limits in quarters]
    assert {core for cores in own for core in cores} == set(CORES)
    assert all(len(cores) == -(-len(CORES) // 4) for cores in own)
    first, second = limits_of([WorkerResources(num_cpus=1)] * 2, 2, "process")
    assert (first.cores, second.cores) == ((CORES[0],), (CORES[1],))


@pytest.mark.asyncio
async def test_what_is_not_there_is_refused_by_name() -> None:
    assert "num_cpus=" in (text := await refused(WorkerResources(num_cpus=len(CORES) + 1))) and f"has {len(CORES)} cores" in text
    assert "num_gpus=1" in await refused(WorkerResources(num_gpus=1))
    assert "'licence'" in await refused(WorkerResources(custom={"licence": 1}))
    assert "memory=4611686018427387904" in await refused(WorkerResources(memory=1 << 62))
    assert "worker 2 asks for num_gpus" in await refused(WorkerResources(), WorkerResources(num_gpus=0.5))
    with pytest.raises(BackendUnavailable, match="resources of 1 workers were given for 2"):
        await process.create("process").start(2, group="g", entry="os:getcwd", resources=[WorkerResources()])


@pytest.mark.asyncio
async def test_a_worker_that_exceeds_its_memory_is_lost_and_says_so(entries: str) -> None:
    limit = 150_000_000
    group = await process.create("process").start(1, group="g", entry=f"{entries}:swell", resources=[WorkerResources(memory=limit)])
    try:
        losses: asyncio.Queue[BackendError] = asyncio.Queue()
        group.endpoint.start(lambda sender, frame: None, losses.put_nowait)
        async with asyncio.timeout(30):
            error = await losses.get()
        assert isinstance(error, WorkerLost)
        assert error.exit_code == OUT_OF_MEMORY
        assert f"its resources allow memory={limit}" in str(error)
    finally:
        await group.kill()


@pytest.mark.asyncio
async def test_a_worker_within_its_memory_lives(entries: str) -> None:
    group = await process.create("process").start(1, group="g", entry=f"{entries}:stay", resources=[WorkerResources(memory=500_000_000)])
    came = asyncio.Event()
    group.endpoint.start(lambda sender, frame: came.set(), lambda loss: None)
    async with asyncio.timeout(10):
        await came.wait()
    await group.aclose()
