"""Functions in threads and processes: bounded, cancellable, with their errors."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings

import pytest

from sage_actor import ParallelExecutionEngine, PoolError, PoolFull, SerializationError
from sage_actor.testing import Simulation


def square(number: int) -> int:
    return number * number


def hold() -> None:
    threading.Event().wait(30)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_answers_and_errors_travel(kind: str) -> None:
    async with ParallelExecutionEngine(2, kind=kind) as engine:  # type: ignore[arg-type]
        answers = [await engine.submit(square, i) for i in range(50)]
        assert await asyncio.gather(*answers) == [i * i for i in range(50)]
        with pytest.raises(ValueError, match="invalid literal"):
            await (await engine.submit_task(int, "x"))
        statistics = engine.statistics()
        assert (statistics.done, statistics.failed, statistics.under_way) == (50, 1, 0)


@pytest.mark.asyncio
async def test_processes_are_other_processes_and_keywords_travel() -> None:
    async with ParallelExecutionEngine(2, kind="process", name="far") as engine:
        assert await engine.submit_nowait(lambda *, function: function + os.getpid() * 0, function=3) == 3
        assert await engine.submit_nowait(os.getpid) != os.getpid()
        with pytest.raises(SerializationError, match=r"\(lock\)"):
            engine.submit_nowait(square, threading.Lock())
        assert engine.statistics().under_way == 0


@pytest.mark.asyncio
async def test_submit_waits_for_room_and_submit_nowait_refuses() -> None:
    gate = threading.Event()
    async with ParallelExecutionEngine(1, queue_limit=2) as engine:
        held = [await engine.submit(gate.wait, 10) for _ in range(2)]
        third = asyncio.ensure_future(engine.submit(square, 3))
        await asyncio.sleep(0)
        assert not third.done()
        with pytest.raises(PoolFull, match=r"engine 'engine' is full \(2\)"):
            engine.submit_nowait(square, 4)
        assert (engine.statistics().under_way, engine.statistics().waiting, engine.statistics().refused) == (2, 1, 1)
        gate.set()
        assert await (await third) == 9
        assert all(await asyncio.gather(*held))


@pytest.mark.asyncio
async def test_a_raised_threshold_lets_the_next_one_in() -> None:
    gate = threading.Event()
    async with ParallelExecutionEngine(1, queue_limit=1) as engine:
        engine.submit_nowait(gate.wait, 10)
        second = asyncio.ensure_future(engine.submit(square, 2))
        await asyncio.sleep(0)
        engine.set_backpressure_threshold(2)
        future = await second
        gate.set()
        assert await future == 4


@pytest.mark.asyncio
async def test_a_cancelled_call_that_waits_never_runs_and_makes_room() -> None:
    gate, made = threading.Event(), []
    async with ParallelExecutionEngine(1, queue_limit=2) as engine:
        engine.submit_nowait(gate.wait, 10)
        queued = engine.submit_nowait(made.append, 1)
        queued.cancel()
        await asyncio.sleep(0)
        assert engine.statistics().under_way == 1
        gate.set()
    assert made == []
    assert engine.statistics().cancelled == 1


@pytest.mark.asyncio
async def test_leaving_drains_and_an_exception_cancels_what_has_not_begun() -> None:
    made: list[int] = []
    async with ParallelExecutionEngine(1) as engine:
        for i in range(10):
            engine.submit_nowait(made.append, i)
    assert made == list(range(10))
    gate, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        gate.wait(10)

    with pytest.raises(RuntimeError, match="body"):
        async with ParallelExecutionEngine(1) as engine:
            engine.submit_nowait(hold)
            later = engine.submit_nowait(made.append, 99)
            begun.wait(10)
            later.add_done_callback(lambda _: gate.set())
            raise RuntimeError("body")
    assert later.cancelled()
    assert 99 not in made


@pytest.mark.asyncio
async def test_a_process_call_cancelled_at_once_leaves_nothing_unawaited() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        async with ParallelExecutionEngine(1, kind="process") as engine:
            engine.submit_nowait(square, 1).cancel()
        gc.collect()
    assert [str(warning.message) for warning in seen] == []
    assert engine.statistics().cancelled == 1


@pytest.mark.asyncio
async def test_after_an_exception_no_call_is_under_way_when_the_block_is_left() -> None:
    with pytest.raises(RuntimeError, match="body"):
        async with ParallelExecutionEngine(1, kind="process") as engine:
            running = engine.submit_nowait(hold)
            await asyncio.sleep(0)
            raise RuntimeError("body")
    assert running.done()
    assert (engine.statistics().under_way, engine.statistics().cancelled) == (0, 1)


@pytest.mark.asyncio
async def test_an_engine_can_be_opened_again_and_goes_on_counting() -> None:
    engine = ParallelExecutionEngine(1)
    for _ in range(2):
        async with engine:
            assert await engine.submit_nowait(square, 3) == 9
    assert engine.statistics().done == 2


@pytest.mark.asyncio
async def test_after_a_cancelled_closing_another_waits_for_the_threads() -> None:
    gate, begun = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        gate.wait(10)

    engine = ParallelExecutionEngine(1, name="held up")
    async with engine:
        engine.submit_nowait(wait)
        begun.wait(10)
        closing = asyncio.ensure_future(engine.aclose(drain=False))
        for _ in range(5):
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        again = asyncio.ensure_future(engine.aclose())
        for _ in range(5):
            await asyncio.sleep(0)
        ended_early = again.done()
        gate.set()
        await again
    assert not ended_early
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("held up")]


@pytest.mark.asyncio
async def test_outside_of_its_block_and_with_senseless_numbers_it_refuses() -> None:
    engine = ParallelExecutionEngine(1)
    with pytest.raises(PoolError, match="is not open"):
        await engine.submit(square, 1)
    with pytest.raises(PoolError, match="workers=0"):
        ParallelExecutionEngine(0)
    with pytest.raises(PoolError, match="kind='fibre'"):
        ParallelExecutionEngine(kind="fibre")  # type: ignore[arg-type]
    async with engine:
        pass
    with pytest.raises(PoolError, match="is not open"):
        engine.submit_nowait(square, 1)


def test_in_a_simulation_functions_run_on_the_loop() -> None:
    threads: set[str] = set()

    async def main() -> list[int]:
        async with ParallelExecutionEngine(4) as engine:

            def call(number: int) -> int:
                threads.add(threading.current_thread().name)
                return number * 2

            return list(await asyncio.gather(*[await engine.submit(call, i) for i in range(20)]))

    assert Simulation(seed=1).run(main) == [i * 2 for i in range(20)]
    assert threads == {threading.current_thread().name}
