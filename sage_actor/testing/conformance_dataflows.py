"""Rules for what stands on a backend: dataflows give the results of a plain computation, hold their sources back, and survive losses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from sage_actor.dataflow.context import FunctionContext
from sage_actor.dataflow.functions import MapFunction
from sage_actor.dataflow.sink import Sink
from sage_actor.dataflow.source import Source
from sage_actor.errors import JobCancelled
from sage_actor.ports import offload, system_clock
from sage_actor.runtime.job import Job
from sage_actor.stream.environment import Environment
from sage_actor.testing.conformance_case import PATIENCE, BackendCase, address_of, assert_gone, lives, resident_bytes

__all__ = [
    "a_dataflow_equals_the_model",
    "a_dataflow_survives_a_killed_worker",
    "a_slow_worker_of_an_old_attempt_changes_nothing",
    "arrays_arrive_whole",
    "nothing_grows_when_a_receiver_stops",
]

K = TypeVar("K")
V = TypeVar("V")

_RECORD: Final = 10_000  # bytes of each record where memory is looked at
_MOST_READ: Final = 3_000  # such records that fit into the buffers of that dataflow, and the batches in hand
_GROWTH: Final = 24_000_000  # bytes that a process may grow by while nothing moves: garbage, not frames


async def a_dataflow_equals_the_model(case: BackendCase) -> None:
    """Words, split, counted by key over two tasks, with small batches and buffers: what `Counter` says; per key in order."""
    words = [f"w{number * number % 101}" for number in range(6_000)]
    config = {"batch.records": 16, "buffer.records": 40}
    with address_of(case) as address:
        async with asyncio.timeout(PATIENCE), Environment("conformance", backend=address, parallelism=2, config=config) as env:
            twice = env.from_collection(words).rebalance().flat_map(lambda word: [word, word.upper()])
            counts = twice.key_by(lambda word: word).count(emit="final").collect()
            running = twice.key_by(lambda word: word.lower()).count().collect()
            await env.execute()
    expected = Counter(word for given in words for word in (given, given.upper()))
    assert dict(counts) == expected, f"counts differ: {_differences(dict(counts), expected)}"
    seen: Counter[str] = Counter()
    for word, count in running:
        seen[word] += 1
        assert count == seen[word], f"the running counts of {word!r} are not in order: {count} came after {seen[word] - 1}"
    assert seen == Counter({word: 2 * count for word, count in Counter(words).items()}), "running counts are lost, or there twice"


async def arrays_arrive_whole(case: BackendCase) -> None:
    """Arrays of 2 MB out and back, through two exchanges: values, types and shapes, and they may be written to."""
    given = [np.arange(250_000, dtype=np.float64).reshape(500, 500) + number for number in range(12)]

    def doubled(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        array *= 2
        return array

    with address_of(case) as address:
        async with asyncio.timeout(PATIENCE), Environment("conformance", backend=address, parallelism=2) as env:
            came = env.from_collection(list(map(np.copy, given))).rebalance().map(doubled).rebalance().map(lambda array: array).collect()
            await env.execute()
    found = sorted(came, key=lambda array: float(array[0, 0]))
    assert len(found) == len(given), f"expected {len(given)} arrays, got {len(found)}"
    for array, expected in zip(found, given, strict=True):
        assert array.dtype == expected.dtype and array.shape == expected.shape, f"expected an array like the one sent, got {array.dtype}"
        assert np.array_equal(array, expected * 2), "an array came with other content"
        assert array.flags.writeable, "an array came that cannot be written to"


def _sign(folder: str, kind: str) -> None:
    """Leave the number of this process in a folder."""
    Path(folder, f"{kind}-{os.getpid()}").touch()


def _signed(folder: Path, kind: str) -> list[int]:
    """The processes that have signed."""
    return [int(file.name.partition("-")[2]) for file in folder.glob(f"{kind}-*")]


# -- bounds -----------------------------------------------------------------------------------------------------------


class Stuck(Sink[bytes]):
    """Takes one batch and never comes back; leaves the number of its process in a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    async def write(self, batch: Sequence[bytes]) -> None:
        _sign(self.folder, "stuck")
        await asyncio.Event().wait()


async def nothing_grows_when_a_receiver_stops(case: BackendCase) -> None:
    """With a sink that takes nothing, the source reads what the buffers on the way hold and no more; nobody's memory grows then."""
    taken = 0
    record = bytes(_RECORD)

    def records() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield record

    config = {"buffer.records": 100, "batch.records": 50}
    async with _described(case, "conformance", config) as (env, folder):
        passed = env.from_source(records()).rebalance().map(lambda value: value[:-1] + b"1").rebalance().map(bytes).disable_chaining()
        passed.sink(Stuck, folder=str(folder))
        job = await env.submit()
        await _until(job, lambda: bool(_signed(folder, "stuck")), "the sink has got something")
        before = -1
        while before != taken:  # until it stands still, with time for frames to travel
            before = taken
            await system_clock.sleep(0.3)
        assert taken <= _MOST_READ, f"the source has read {taken} records, although the sink takes none"
        processes = {os.getpid(), *_signed(folder, "stuck")}
        memory = {pid: resident_bytes(pid) for pid in processes}
        held = await case.held()
        await system_clock.sleep(1.0)
        grown = {pid: resident_bytes(pid) - earlier for pid, earlier in memory.items()}
        assert taken == before, f"the source went on to read: {taken - before} records"
        assert all(more <= _GROWTH for more in grown.values()), f"memory grows while nothing moves: {grown}"
        assert held <= _MOST_READ * _RECORD * 2, f"{held} bytes lie between the workers"
        assert await case.held() <= held + 1_000_000, f"what lies between the workers grows: {await case.held()} bytes, {held} before"
        job.cancel()
        with contextlib.suppress(JobCancelled):
            await job.wait()


# -- losses -----------------------------------------------------------------------------------------------------------


class Numbers(Source[int]):
    """This task's share of 0, 1, 2 ...; the second half comes when there is a certain file."""

    def __init__(self, length: int, go_on: str) -> None:
        self.length = length
        self.go_on = go_on
        self.next = 0
        self.step = 1

    async def open(self, context: FunctionContext) -> None:
        self.next, self.step = context.subtask_index, context.parallelism

    async def read(self, limit: int) -> Sequence[int] | None:
        while self.next >= self.length // 2 and not self.may_go_on():  # noqa: ASYNC110  another process decides
            await asyncio.sleep(0.005)
        end = min(self.next + self.step * min(limit, 50), self.length)
        batch = list(range(self.next, end, self.step))
        if batch:
            self.next = batch[-1] + self.step
        return batch or None

    def may_go_on(self) -> bool:
        """Whether the file is there."""
        return os.path.exists(self.go_on)

    def position(self) -> object:
        return self.next

    async def seek(self, position: object) -> None:
        assert isinstance(position, int)
        self.next = position


class Signing(MapFunction[int, int]):
    """Passes numbers on; leaves the number of its process in a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self, context: FunctionContext) -> None:
        _sign(self.folder, "worker")

    def map(self, value: int, /) -> int:
        return value


class FailingOnce(MapFunction[int, int]):
    """In the first life, the first task fails while the second one stands still in the middle of a batch, for two seconds."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.index = 0
        self.seen = 0

    def open(self, context: FunctionContext) -> None:
        self.index = context.subtask_index

    def map(self, value: int, /) -> int:
        self.seen += 1
        failed, asleep = Path(self.folder, "failed"), Path(self.folder, "asleep")
        if self.seen < 300 or failed.exists():
            return value
        pause = threading.Event()
        if self.index == 1 and not asleep.exists():
            asleep.write_text(str(os.getpid()))
            pause.wait(2.0)
        elif self.index == 0:
            while not asleep.exists():
                pause.wait(0.01)
            failed.touch()
            raise RuntimeError("this function fails on purpose")
        return value


async def a_dataflow_survives_a_killed_worker(case: BackendCase) -> None:
    """kill -9 of a worker behind a checkpoint: the job goes on from it by itself, and every record is counted once."""
    async with _described(case, "conformance") as (env, folder):
        numbers = env.from_source(Numbers, parallelism=2, length=4_000, go_on=str(folder / "go on"))
        results = numbers.rebalance().map(Signing, folder=str(folder)).key_by(lambda n: n % 17).fold(_empty, _added, emit="final").collect()
        job = await env.submit()
        await _until(job, lambda: len(job.checkpoints) >= 2, "two checkpoints")
        workers = _signed(folder, "worker")
        assert len(workers) == 2, f"expected a task in each of two workers, found {workers}"
        os.kill(workers[0], signal.SIGKILL)
        await _until(job, lambda: job.attempts >= 2 and job.status == "running", "another attempt")
        (folder / "go on").touch()
        await _ended(job)
        assert job.restored_from is not None, "the job began anew instead of from a checkpoint"
    _assert_sums(dict(results), 4_000)


async def a_slow_worker_of_an_old_attempt_changes_nothing(case: BackendCase) -> None:
    """A task fails while another worker stands still with records in hand: what that one may still send is of an old attempt."""
    async with _described(case, "conformance") as (env, folder):
        (folder / "go on").touch()
        numbers = env.from_source(Numbers, parallelism=2, length=4_000, go_on=str(folder / "go on"))
        failing = numbers.rebalance().map(FailingOnce, folder=str(folder))
        results = failing.key_by(lambda n: n % 17).fold(_empty, _added, emit="final").collect()
        job = await env.submit()
        await _ended(job)
        assert job.attempts == 2, f"expected one failure, so two attempts, not {job.attempts}"
        await assert_gone([int((folder / "asleep").read_text())], 0.0)
    _assert_sums(dict(results), 4_000)


def _empty() -> tuple[int, int]:
    return 0, 0


def _added(so_far: tuple[int, int], number: int) -> tuple[int, int]:
    return so_far[0] + 1, so_far[1] + number


def _assert_sums(found: Mapping[int, tuple[int, int]], length: int) -> None:
    expected = {key: (len(range(key, length, 17)), sum(range(key, length, 17))) for key in range(17)}
    assert found == expected, f"expected each number once; (count, sum) by remainder differ: {_differences(found, expected)}"


def _differences(found: Mapping[K, V], expected: Mapping[K, V]) -> dict[K, tuple[V | None, V | None]]:
    """Of each key that differs, what was found and what was expected."""
    return {key: (found.get(key), expected.get(key)) for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)}


@contextlib.asynccontextmanager
async def _described(
    case: BackendCase, name: str, config: Mapping[str, object] | None = None
) -> AsyncGenerator[tuple[Environment, Path], None]:
    """An environment with checkpoints in a folder, and that folder, which goes with the block; no worker outlives it."""
    with address_of(case) as address, tempfile.TemporaryDirectory(prefix="sage-conformance-") as made:
        folder = Path(made)
        settings = {"checkpoint.interval": "100ms", "checkpoint.dir": f"{made}/checkpoints", "restart.delay": "50ms", **(config or {})}
        async with asyncio.timeout(PATIENCE * 2), Environment(name, backend=address, parallelism=2, config=settings) as env:
            yield env, folder
        left = [pid for pid in _signed(folder, "worker") if pid != os.getpid() and lives(pid)]
        assert not left, f"workers outlive their job: {left}"


async def _ended(job: Job) -> None:
    """Wait for the end; a job that hangs is shown."""
    try:
        async with asyncio.timeout(PATIENCE):
            await job.wait()
    except TimeoutError:
        shown = ("name", "index", "worker", "working", "batches", "gate_depth")
        tasks = [{key: task[key] for key in shown} for task in job.metrics()["tasks"]]
        attempt = f"attempt {job.attempts} from checkpoint {job.restored_from}, last error {job.latest_error!r}"
        raise AssertionError(f"the job hangs: {job.status}, {attempt}; {tasks}") from None


async def _until(job: Job, condition: Callable[[], bool], what: str) -> None:
    """Look again and again, while the job runs."""
    async with asyncio.timeout(PATIENCE):
        while not await offload(condition):
            assert not job.done, f"the job has ended ({job.status}) before: {what}"
            await system_clock.sleep(0.01)
