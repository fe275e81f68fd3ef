"""The same programs over local, process and redis: same results, same errors, nothing left behind, bounded memory."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import types
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.ports import system_clock

TEXT = ("the quick brown fox jumps over the lazy dog " * 40).split()


@pytest.mark.asyncio
@pytest.mark.parametrize("parallelism", [1, 3])
async def test_the_same_program_gives_the_same_result(backend: str, parallelism: int) -> None:
    factor = 3  # travels in a closure
    config = {"batch.records": 16, "buffer.records": 8}
    async with asyncio.timeout(50), sage.Environment("same", backend=backend, parallelism=parallelism, config=config) as env:
        words = (
            env.from_collection(TEXT).rebalance().flat_map(lambda w: [w, w.upper()]).map(lambda w: w * factor).filter(lambda w: len(w) > 9)
        )
        counts = words.key_by(lambda w: w).count(emit="final").collect()
        running = words.key_by(lambda w: w[0]).fold(lambda: (0, ""), lambda a, w: (a[0] + 1, max(a[1], w))).collect()
        lengths = words.map_batch(lambda ws: [len(w) for w in ws]).map_async(doubled, concurrency=4).collect()
        job = await env.execute()
    expected = [w * factor for x in TEXT for w in (x, x.upper()) if len(w * factor) > 9]
    assert dict(counts) == Counter(expected)
    assert Counter(lengths) == Counter(2 * len(w) for w in expected)
    assert len(running) == len(expected)
    last: dict[str, tuple[int, str]] = {}
    for key, value in running:
        assert value[0] == last.get(key, (0, ""))[0] + 1  # per key, in order
        last[key] = value
    assert {key: value[0] for key, value in last.items()} == Counter(w[0] for w in expected)
    rows = job.metrics()["operators"]
    assert (rows["flat_map"]["records_in"], rows["flat_map"]["records_out"]) == (len(TEXT), 2 * len(TEXT))
    assert rows["filter"]["records_out"] == len(expected)
    assert job.metrics()["records_in"] == len(TEXT)
    workers = {task["worker"] for task in job.metrics()["tasks"]}
    assert workers == ({0} if backend == "local" else set(range(parallelism + 1)))


async def doubled(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


@pytest.mark.asyncio
async def test_order_holds_across_processes(backend: str) -> None:
    async with asyncio.timeout(50), sage.Environment("order", backend=backend, config={"batch.records": 5, "buffer.records": 3}) as env:
        out = env.from_collection(range(500)).rebalance().map(lambda x: x).rebalance().map(lambda x: x).disable_chaining().collect()
        await env.execute()
    assert list(out) == list(range(500))


@pytest.mark.asyncio
async def test_arrays_and_big_records_travel(remote_backend: str) -> None:
    np = pytest.importorskip("numpy")
    async with asyncio.timeout(50), sage.Environment("arrays", backend=remote_backend, config={"buffer.bytes": "64KB"}) as env:
        out = env.from_collection([np.full(30_000, i) for i in range(6)]).rebalance().map(lambda a: a + 1).collect()
        rows = env.from_collection(np.arange(5000)).rebalance().map_batch(lambda a: a * 2, vectorized=True).collect()
        await env.execute()
    assert [(len(a), int(a[0]), a.flags.writeable) for a in out] == [(30_000, i + 1, True) for i in range(6)]
    assert [int(x) for x in rows] == [2 * i for i in range(5000)]


class Stubborn(Exception):
    """Cannot be pickled, nor rebuilt."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.lock = threading.Lock()


def stubborn(value: int) -> int:
    if value == 3:
        raise Stubborn(1, 2)
    return value


def divide(value: int) -> float:
    return 1 / (value - 3)


@pytest.mark.asyncio
@pytest.mark.parametrize(("function", "kind"), [(divide, "ZeroDivisionError"), (stubborn, "Stubborn")])
async def test_a_failure_carries_its_address_and_cause(backend: str, function: Any, kind: str) -> None:
    async with asyncio.timeout(50), sage.Environment("fails", backend=backend, parallelism=2) as env:
        env.from_collection(range(10)).key_by(lambda x: x % 2).map(function, name="step").collect()
        job = await env.submit()
        with pytest.raises(sage.OperatorError) as caught:
            await job.wait()
    error = caught.value
    assert (error.job, error.operator, error.value, error.key) == ("fails", "step", "3", 1)
    assert kind in error.message
    assert error.__cause__ is not None
    if kind == "ZeroDivisionError":
        assert isinstance(error.__cause__, ZeroDivisionError)
    else:
        assert "1 and 2" in str(error.__cause__)
    if backend != "local":
        assert "where it happened" in str(error)
        assert function.__name__ in error.traceback
    assert job.status == "failed"


@pytest.mark.asyncio
async def test_dead_letters_come_home_whatever_their_error(backend: str) -> None:
    async with asyncio.timeout(50), sage.Environment("letters", backend=backend, parallelism=2) as env:
        good = env.from_collection(range(6)).rebalance().map(stubborn, on_error="dead_letter", name="step")
        letters, out = good.dead_letters().collect(), good.collect()
        await env.execute()
    assert sorted(out) == [0, 1, 2, 4, 5]
    [letter] = letters
    assert (letter.value, letter.operator) == (3, "step")
    assert "1 and 2" in str(letter.error)


@pytest.mark.asyncio
async def test_a_killed_worker_ends_the_job_by_name(remote_backend: str) -> None:
    def suicidal(value: int) -> int:
        if value == 500:
            sys.stderr.write("goodbye from the worker\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    async with asyncio.timeout(50), sage.Environment("killed", backend=remote_backend, parallelism=2) as env:
        env.from_collection(range(1000)).rebalance().map(suicidal).collect()
        job = await env.submit()
        with pytest.raises(sage.WorkerLost) as caught:
            await job.wait()
    error = caught.value
    assert error.worker in (1, 2)
    assert error.exit_code == -9
    assert "goodbye from the worker" in error.last_words
    for part in (f"worker {error.worker}", "signal 9", "goodbye"):
        assert part in str(error)
    assert job.status == "failed"


@pytest.mark.asyncio
async def test_a_worker_killed_from_outside_is_noticed_in_time(remote_backend: str) -> None:
    loop = asyncio.get_running_loop()

    async def endless() -> Any:
        n = 0
        while True:
            yield n
            n += 1
            await asyncio.sleep(0)

    async with asyncio.timeout(50), sage.Environment("killed", backend=remote_backend, parallelism=2) as env:
        iterator = aiter(env.from_source(endless()).rebalance().map(lambda x: os.getpid()))
        victim = await anext(iterator)
        os.kill(victim, signal.SIGKILL)
        begun = loop.time()
        with pytest.raises(sage.WorkerLost) as caught:
            while True:
                await anext(iterator)
        assert loop.time() - begun < 3
        assert caught.value.pid == victim


@pytest.mark.asyncio
async def test_what_cannot_be_pickled_is_named_before_anything_runs(remote_backend: str) -> None:
    guard = threading.Lock()

    def locked(value: int) -> int:
        with guard:
            return value

    class Holding(sage.MapFunction[int, int]):
        def __init__(self) -> None:
            self.handle = threading.Lock()

        def map(self, value: int, /) -> int:
            return value

    for given, named in ((locked, "variable 'guard'"), (Holding(), "attribute 'handle'")):
        async with asyncio.timeout(50), sage.Environment("pickle", backend=remote_backend) as env:
            env.from_collection([1]).rebalance().map(given, name="step").collect()
            with pytest.raises(sage.SerializationError, match=rf"'step'.*{named}.*lock") as caught:
                await env.execute()
        assert "open(context)" in str(caught.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["out", "back"])
async def test_a_record_that_cannot_be_pickled_is_named(remote_backend: str, way: str) -> None:
    async with asyncio.timeout(50), sage.Environment("records", backend=remote_backend) as env:
        source: Any = env.from_collection([threading.Lock()] if way == "out" else [1])
        source.rebalance().map((lambda x: x) if way == "out" else (lambda x: __import__("threading").Lock())).collect()
        with pytest.raises(sage.SageError, match="lock"):
            await env.execute()


@pytest.mark.asyncio
async def test_a_module_that_workers_cannot_import_is_named(remote_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("only_here")
    exec("def function(value): return value", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    async with asyncio.timeout(50), sage.Environment("modules", backend=remote_backend) as env:
        env.from_collection([1]).rebalance().map(module.function).collect()
        with pytest.raises(sage.BackendError, match=r"only_here.*importable by every worker"):
            await env.execute()


@pytest.mark.asyncio
async def test_no_redis_there_is_said_with_the_next_step() -> None:
    async with asyncio.timeout(20), sage.Environment("nowhere", backend="redis://127.0.0.1:1/0") as env:
        env.from_collection([1]).rebalance().map(str).collect()
        with pytest.raises(sage.BackendUnavailable, match="redis"):
            await env.execute()


@pytest.mark.asyncio
async def test_an_unknown_backend_is_said_with_a_suggestion() -> None:
    async with asyncio.timeout(20), sage.Environment("nowhere", backend="proces") as env:
        env.from_collection([1]).collect()
        with pytest.raises(sage.UnknownBackend, match="did you mean 'process'"):
            await env.execute()
        env.graph.operators.clear()


@pytest.mark.asyncio
async def test_a_busy_job_is_stopped_and_cancelled_quickly(backend: str) -> None:
    loop = asyncio.get_running_loop()

    def numbers() -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    for how in ("stop", "cancel"):
        async with asyncio.timeout(50), sage.Environment("busy", backend=backend, parallelism=2) as env:
            flowing = asyncio.Event()
            stream = env.from_source(numbers()).rebalance().map(lambda x: x * x).key_by(lambda x: x % 100).count()
            end = stream._end(None, "out", None, None, None, form="deliver", deliver=Deliver(flowing), in_owner=True)
            job = await env.submit(end)
            await flowing.wait()
            begun = loop.time()
            getattr(job, how)()
            if how == "stop":
                await job.wait()
            else:
                with pytest.raises(sage.JobCancelled):
                    await job.wait()
            # a second is the promise; twice that allows for a crowded machine
            assert loop.time() - begun < 2
            assert job.status == ("finished" if how == "stop" else "cancelled")


class Deliver:
    """An end in this process that takes everything, and says when the first has come."""

    def __init__(self, flowing: asyncio.Event) -> None:
        self.flowing = flowing

    async def __call__(self, batch: Any) -> None:
        self.flowing.set()


@pytest.mark.asyncio
async def test_a_stopped_sink_holds_the_source_back(backend: str) -> None:
    """With an end that does not take, the source reads no more than the buffers on the way hold."""
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    held = asyncio.Event()

    async def never(batch: Any) -> None:
        held.set()
        await asyncio.Event().wait()

    config = {"buffer.records": 100, "batch.records": 50}
    async with asyncio.timeout(50), sage.Environment("held", backend=backend, parallelism=2, config=config) as env:
        stream = env.from_source(numbers()).rebalance().map(lambda x: x).rebalance().map(lambda x: x).disable_chaining()
        job = await env.submit(stream._end(None, "out", None, None, None, form="deliver", deliver=never, in_owner=True))
        await held.wait()
        before = -1
        while before != taken:  # until it stands still, with time for frames to travel
            before = taken
            await system_clock.sleep(0.15)
        assert taken < 4000  # 4 exchanges over 2 tasks each, some batches in hand
        job.cancel()
        with pytest.raises(sage.JobCancelled):
            await job.wait()


@pytest.mark.asyncio
@pytest.mark.parametrize("when", ["at once", "while starting"])
async def test_cancelling_a_job_that_is_still_starting_leaves_nothing(remote_backend: str, when: str) -> None:
    async with asyncio.timeout(50), sage.Environment("starting", backend=remote_backend, parallelism=2) as env:
        env.from_collection([1]).rebalance().map(str).collect()
        job = await env.submit()
        if when != "at once":
            for _ in range(200):
                await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(sage.JobCancelled):
            await job.wait()


@pytest.mark.asyncio
async def test_functions_are_opened_and_closed_in_the_workers(remote_backend: str) -> None:
    class Remote(sage.MapFunction[int, tuple[int, int, int]]):
        def open(self, context: sage.FunctionContext) -> None:
            self.place = (context.worker, context.subtask_index, os.getpid())

        def map(self, value: int, /) -> tuple[int, int, int]:
            return self.place

    class Failing(sage.MapFunction[int, int]):
        def open(self, context: sage.FunctionContext) -> None:
            raise OSError("no model here")

        def map(self, value: int, /) -> int:
            return value

    async with asyncio.timeout(50), sage.Environment("remote", backend=remote_backend, parallelism=2) as env:
        out = env.from_collection(range(40)).rebalance().map(Remote).collect()
        await env.execute()
    places = set(out)
    assert {(worker, index) for worker, index, _ in places} == {(1, 0), (2, 1)} or len(places) == 2
    assert os.getpid() not in {pid for _, _, pid in places}
    async with asyncio.timeout(50), sage.Environment("remote", backend=remote_backend) as env:
        env.from_collection(range(40)).rebalance().map(Failing, name="model").collect()
        with pytest.raises(sage.OperatorError, match="no model here") as caught:
            await env.execute()
    assert caught.value.operator == "model"


@pytest.mark.asyncio
async def test_sources_and_sinks_of_classes_run_in_workers(remote_backend: str, tmp_path: Any) -> None:
    target = str(tmp_path)

    class Mine(sage.Source[int]):
        async def open(self, context: sage.FunctionContext) -> None:
            self.left = list(range(context.subtask_index, 100, context.parallelism))

        async def read(self, limit: int) -> list[int] | None:
            part, self.left = self.left[:limit], self.left[limit:]
            return part or None

    class Write(sage.Sink[int]):
        def __init__(self, folder: str) -> None:
            self.folder = folder

        async def open(self, context: sage.FunctionContext) -> None:
            self.file = open(f"{self.folder}/{context.subtask_index}", "w")  # noqa: SIM115

        async def write(self, batch: Any) -> None:
            self.file.writelines(f"{os.getpid()} {x}\n" for x in batch)

        async def close(self) -> None:
            self.file.close()

    async with asyncio.timeout(50), sage.Environment("ends", backend=remote_backend, parallelism=2) as env:
        env.from_source(Mine, parallelism=2).rebalance().sink(Write, folder=target)
        await env.execute()
    lines = [line.split() for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert sorted(int(x) for _, x in lines) == list(range(100))
    assert str(os.getpid()) not in {pid for pid, _ in lines}
