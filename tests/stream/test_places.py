"""Steps at named places: the same results wherever they run, exactly once over the loss of a worker, errors that name the place."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sage_actor as sage

HERE = os.getpid()


class Numbers(sage.Source[int]):
    """0 .. 399, a few at a time; goes on from a position. Half way it waits until a checkpoint is complete in `folder`."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.count = 400
        self.next = 0

    async def read(self, limit: int) -> Sequence[int] | None:
        await asyncio.sleep(0)
        # The first entry of the log says who began, the second is a checkpoint. There is no event for it in this process.
        while self.next >= 200 and len(list(self.folder.glob("*/log/*.json"))) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        begin, self.next = self.next, min(self.count, self.next + min(limit, 10))
        return list(range(begin, self.next)) or None

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


@pytest.mark.asyncio
async def test_each_step_runs_at_its_place(remote_backend: str) -> None:
    async with asyncio.timeout(50), sage.Environment("mixed", places={"edge": "local", "heavy": remote_backend}) as env:
        edge = env.from_collection(range(10)).map(lambda x: (x, os.getpid())).place("edge")
        heavy = edge.map(lambda r: (*r, os.getpid())).place("heavy")
        inherited = heavy.map(lambda r: (*r, os.getpid()))
        out = inherited.rebalance().map(lambda r: (*r, os.getpid()), parallelism=1).disable_chaining().collect()
        await env.execute()
    assert sorted(r[0] for r in out) == list(range(10))
    for _, at_edge, at_heavy, behind, elsewhere in out:
        assert at_edge == elsewhere == HERE != at_heavy == behind


@pytest.mark.asyncio
async def test_sources_and_sinks_have_places_too(tmp_path: Path) -> None:
    class Pids(sage.Source[int]):
        done = False

        async def read(self, limit: int) -> list[int] | None:
            done, self.done = self.done, True
            return None if done else [os.getpid()]

    def write(read_by: int) -> None:
        tmp_path.joinpath("out").write_text(f"{read_by} {os.getpid()}")

    async with asyncio.timeout(50), sage.Environment("ends", places={"a": "process", "b": "process"}) as env:
        env.from_source(Pids).place("a").sink(write).place("b")
        await env.execute()
    assert len({HERE, *map(int, tmp_path.joinpath("out").read_text().split())}) == 3


@pytest.mark.asyncio
async def test_results_are_those_of_one_place(redis_address: str) -> None:
    results: list[Counter[Any]] = []
    choices: list[dict[str, str | dict[str, Any]]] = [
        {"a": "local", "b": "local"},
        {"a": "process", "b": "process"},
        {"a": {"backend": "process", "workers": 2}, "b": redis_address},
        {"a": redis_address, "b": "local"},
    ]
    for places in choices:
        async with asyncio.timeout(50), sage.Environment("same", backend="process", places=places, config={"batch.records": 16}) as env:
            numbers = env.from_collection(range(2000)).rebalance().map(lambda n: n * 3, parallelism=3).place("a")
            counts = numbers.key_by(lambda n: n % 11).count(emit="final", parallelism=2).place("b").collect()
            both = numbers.filter(lambda n: n % 5 == 0).union(numbers.filter(lambda n: n % 7 == 0).place("b")).collect()
            job = await env.execute()
        results.append(Counter(counts) + Counter(both))
        workers = {task["worker"] for task in job.metrics()["tasks"]}
        assert min(workers) == 0
    assert results[0] == results[1] == results[2] == results[3]


@pytest.mark.asyncio
async def test_big_arrays_cross_places() -> None:
    np = pytest.importorskip("numpy")
    config = {"buffer.bytes": "64KB"}
    async with asyncio.timeout(50), sage.Environment("arrays", places={"a": "process", "b": "process"}, config=config) as env:
        arrays = env.from_collection([np.full(30_000, i) for i in range(6)]).map(lambda a: a + 1).place("a")
        out = arrays.map(lambda a: a * 2).place("b").collect()
        await env.execute()
    assert [(len(a), int(a[0]), a.flags.writeable) for a in out] == [(30_000, 2 * (i + 1), True) for i in range(6)]


@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform != "linux", reason="files in memory are a thing of Linux")
async def test_arrays_from_another_place_are_used_where_they_lie() -> None:
    np = pytest.importorskip("numpy")

    def owner_of_memory(array: Any) -> tuple[str, bool]:
        memory = array
        while (below := getattr(memory, "base", None)) is not None:
            memory = below
        return type(memoryview(memory).obj).__name__, array.flags.aligned

    async with asyncio.timeout(50), sage.Environment("in place", places={"a": "process", "b": "process"}) as env:
        arrays = env.from_collection(range(20)).map(lambda n: np.full(30_000, n)).place("a")
        out = arrays.map(owner_of_memory).place("b").collect()
        await env.execute()
    assert set(out) == {("Lease", True)}


@pytest.mark.asyncio
async def test_a_lost_worker_names_its_place(remote_backend: str) -> None:
    def suicidal(value: int) -> int:
        if value == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    async with asyncio.timeout(50), sage.Environment("lost", places={"near": "process", "far": remote_backend}) as env:
        env.from_collection(range(100)).map(lambda n: n).place("near").map(suicidal).place("far").collect()
        job = await env.submit()
        with pytest.raises(sage.WorkerLost, match=r"worker 2 of place 'far' \(process \d+\) was killed by signal 9") as caught:
            await job.wait()
    assert (caught.value.place, caught.value.exit_code) == ("far", -9)


@pytest.mark.asyncio
@pytest.mark.rule("F41")
async def test_the_loss_of_a_placed_worker_costs_no_record(remote_backend: str, tmp_path: Path) -> None:
    once = tmp_path / "killed"

    def suicidal(value: int) -> int:
        if value == 250 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    folder = tmp_path / "checkpoints"
    config = {"checkpoint.every": 50, "checkpoint.dir": str(folder), "restart.delay": 0, "restart.jitter": 0}
    places: dict[str, str | dict[str, Any]] = {"near": {"backend": "process", "workers": 2}, "far": remote_backend}
    async with asyncio.timeout(50), sage.Environment("once", places=places, config=config) as env:
        numbers = env.from_source(Numbers, folder=str(folder)).place("near").rebalance().map(suicidal, parallelism=2).place("far")
        counts = numbers.key_by(lambda n: n % 5).count(emit="final", parallelism=2).place("near").collect()
        seen = numbers.collect()
        job = await env.execute()
    assert job.attempts == 2
    assert job.restored_from is not None
    assert isinstance(job.latest_error, sage.WorkerLost)
    assert job.latest_error.place == "far"
    assert sorted(seen) == list(range(400))
    assert dict(counts) == dict.fromkeys(range(5), 80)


@pytest.mark.asyncio
@pytest.mark.rule("F15")
async def test_what_was_saved_goes_on_at_other_places_with_other_parallelism(tmp_path: Path) -> None:
    once = tmp_path / "killed"

    def suicidal(value: int) -> int:
        if value == 250 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    def describe(env: sage.Environment, source: str, counting: str, parallelism: int) -> Any:
        numbers = env.from_source(Numbers, name="numbers", folder=str(tmp_path)).place(source).map(suicidal, name="map")
        counts = numbers.key_by(lambda n: n % 5).count(name="count", parallelism=parallelism, emit="final").place(counting)
        return counts.collect(name="out")

    config = {"checkpoint.every": 50, "checkpoint.dir": str(tmp_path), "max_parallelism": 16, "restart.strategy": "none"}
    places: dict[str, str | dict[str, Any]] = {"a": "process", "b": {"backend": "process", "workers": 3}}
    async with asyncio.timeout(50), sage.Environment("moved", places=places, config=config) as env:
        describe(env, "a", "a", 2)
        with pytest.raises(sage.WorkerLost, match="of place 'a'"):
            await env.execute()
    async with asyncio.timeout(50), sage.Environment("moved", places=places, config=config, resume=True) as env:
        counts = describe(env, "b", "b", 3)
        job = await env.execute()
    assert job.restored_from is not None
    assert dict(counts) == dict.fromkeys(range(5), 80)
    assert {task["worker"] for task in job.metrics()["tasks"]} == {0, 1, 2, 3}


@pytest.mark.asyncio
async def test_a_placed_operator_is_divided_while_the_job_runs(tmp_path: Path) -> None:
    config = {"checkpoint.interval": "1h", "checkpoint.dir": str(tmp_path), "max_parallelism": 16}
    places = {"near": "process", "far": "process"}
    async with asyncio.timeout(50), sage.Environment("divided", places=places, config=config) as env:
        numbers = env.from_source(Numbers, name="numbers", folder=str(tmp_path)).place("near").key_by(lambda n: n % 5)
        counts = numbers.count(name="count", parallelism=2, emit="final").place("far").collect(name="out")
        job = await env.submit()
        with pytest.raises(sage.GraphError, match="its own backend"):
            await job.rescale(workers=2)
        await job.rescale({"count": 3})  # its checkpoint is what the source waits for
        await job.wait()
    assert dict(counts) == dict.fromkeys(range(5), 80)
    assert {task["worker"] for task in job.metrics()["tasks"]} == {0, 1, 2, 3, 4}


@pytest.mark.asyncio
async def test_what_is_not_there_names_place_and_backend() -> None:
    places = {"near": "process", "far": "redis://127.0.0.1:1/0"}
    async with asyncio.timeout(50), sage.Environment("absent", places=places) as env:
        env.from_collection(range(3)).map(lambda n: n).place("near").map(lambda n: n).place("far").collect()
        with pytest.raises(sage.BackendUnavailable, match=r"redis://127\.0\.0\.1:1.*place 'far'"):
            await env.execute()
    async with asyncio.timeout(50), sage.Environment("unknown", places={"far": "proces", "unused": "proces"}) as env:
        env.from_collection(range(3)).map(lambda n: n).place("far").collect()
        with pytest.raises(sage.BackendError, match=r"place 'far': no backend 'proces'; did you mean 'process'"):
            await env.execute()
        env.graph.operators.clear()


@pytest.mark.asyncio
async def test_a_served_flow_answers_from_its_places() -> None:
    async with asyncio.timeout(50), sage.Environment("served", places={"near": "process", "far": "process"}) as env:
        requests: Any = env.from_requests()
        doubled = requests.map(lambda n: (2 * n, os.getpid())).place("near")
        service = await doubled.map(lambda r: (*r, os.getpid())).place("far").serve()
        answers = await asyncio.gather(*(service(n) for n in range(20)))
        service.job.stop()
    assert [answer[0] for answer in answers] == [2 * n for n in range(20)]
    assert len({HERE, answers[0][1], answers[0][2]}) == 3


def test_the_hybrid_environment_blocks_and_has_places() -> None:
    env = sage.HybridEnvironment("hybrid")
    assert set(env.settings.places) == {"local", "process"}
    out = (
        env.from_collection(range(3))
        .map(lambda n: (n, os.getpid()))
        .place("process")
        .map(lambda r: (*r, os.getpid()))
        .place("local")
        .collect()
    )
    env.execute()
    assert [(n, away != HERE, here == HERE) for n, away, here in out] == [(n, True, True) for n in range(3)]
    assert set(sage.HybridEnvironment("given", config={"places": {"a": "local"}}).settings.places) == {"a"}


def test_keyword_and_configuration_must_not_contradict() -> None:
    env = sage.LocalEnvironment("both", places={"a": "process", "b": "local"}, config={"places": {"a": "process", "c": "local"}})
    assert {name: place.backend for name, place in env.settings.places.items()} == {"a": "process", "b": "local", "c": "local"}
    with pytest.raises(sage.ConfigError, match=r"'places\.a'.*contradicts the keyword"):
        sage.LocalEnvironment("contrary", places={"a": "process"}, config={"places": {"a": "local"}})
    with pytest.raises(sage.ConfigError, match="a mapping"):
        sage.LocalEnvironment("ill", places=["process"])  # type: ignore[arg-type]
