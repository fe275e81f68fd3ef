"""Single flight of the LRU cache: over threads, and over the tasks of a loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop

from sage_actor._core.lru_cache import LRUCache


def until(condition: Callable[[], bool]) -> None:
    """Let other threads run until the condition holds; ten seconds are the safety net."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the awaited state never came"
        threading.Event().wait(0.0005)


# ---------------------------------------------------------------------- single flight over threads


def test_one_thread_loads_and_the_others_share() -> None:
    cache = LRUCache[str, object]()
    calls: list[object] = []

    def load() -> object:
        until(lambda: cache.statistics().shared_loads == 4)
        calls.append(object())
        return calls[-1]

    with ThreadPoolExecutor(5) as pool:
        values = {id(outcome.result(30)) for outcome in [pool.submit(cache.get_or_load, "key", load) for _ in range(5)]}
    assert len(calls) == len(values) == 1
    assert cache.statistics().loads == 1
    assert cache.get("key") is calls[0]


def test_a_failing_load_fails_all_who_wait_and_is_not_cached() -> None:
    cache = LRUCache[str, int]()

    def load() -> int:
        until(lambda: cache.statistics().shared_loads == 2)
        raise LookupError("no such row")

    with ThreadPoolExecutor(3) as pool:
        for outcome in [pool.submit(cache.get_or_load, "key", load) for _ in range(3)]:
            with pytest.raises(LookupError, match="no such row"):
                outcome.result(30)
    assert "key" not in cache
    assert cache.get_or_load("key", lambda: 7) == 7


def test_an_interrupted_load_is_taken_over() -> None:
    cache = LRUCache[str, int]()

    def interrupted() -> int:
        until(lambda: cache.statistics().shared_loads == 1)
        raise KeyboardInterrupt

    leading = threading.Event()

    def lead() -> str:
        def load() -> int:
            leading.set()
            return interrupted()

        try:
            cache.get_or_load("key", load)
        except KeyboardInterrupt:
            return "interrupted"
        return "loaded"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lead)
        assert leading.wait(10)
        second = pool.submit(cache.get_or_load, "key", lambda: 2)
        assert first.result(30) == "interrupted"
        assert second.result(30) == 2


def test_load_may_ask_for_another_key_but_not_for_its_own() -> None:
    cache = LRUCache[str, int]()
    assert cache.get_or_load("a", lambda: cache.get_or_load("b", lambda: 2) + 1) == 3
    assert cache.get("b") == 2

    with pytest.raises(RuntimeError, match="'c'"):
        cache.get_or_load("c", lambda: cache.get_or_load("c", lambda: 1))
    with pytest.raises(RuntimeError, match="'d'"):
        cache.get_or_load("d", lambda: cache.get_or_load("e", lambda: cache.get_or_load("d", lambda: 1)))
    assert cache.get_or_load("c", lambda: 1) == 1


def test_two_threads_whose_loads_need_each_other_are_refused() -> None:
    left, right = LRUCache[str, int](), LRUCache[str, int]()
    both = threading.Barrier(2)

    def ask(mine: LRUCache[str, int], other: LRUCache[str, int]) -> int:
        def load() -> int:
            both.wait(10)
            return other.get_or_load("key", lambda: 0)

        return mine.get_or_load("key", load)

    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(ask, left, right), pool.submit(ask, right, left)]
        failures = [outcome.exception(30) for outcome in outcomes]
    assert any(isinstance(failure, RuntimeError) for failure in failures)


def test_waiters_get_a_value_that_is_not_kept() -> None:
    cache = LRUCache[str, int](capacity_bytes=10, sizeof=int)

    def load() -> int:
        until(lambda: cache.statistics().shared_loads == 1)
        return 99

    with ThreadPoolExecutor(2) as pool:
        assert [outcome.result(30) for outcome in [pool.submit(cache.get_or_load, "key", load) for _ in range(2)]] == [99, 99]
    assert len(cache) == 0


# ---------------------------------------------------------------------- single flight over tasks

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end on one of the two loops, in debug mode, and refuses whatever the loop complains about."""

    def run_on_loop(main: Coroutine[Any, Any, Any]) -> Any:
        complaints: list[dict[str, Any]] = []
        factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory, debug=True) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))

            async def bounded() -> Any:
                async with asyncio.timeout(20):
                    return await main

            result = runner.run(bounded())
        gc.collect()
        assert not complaints
        return result

    return run_on_loop


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def test_one_task_loads_and_the_others_share(run: Run) -> None:
    async def main() -> None:
        cache = LRUCache[str, object]()
        gate = asyncio.Event()

        async def load() -> object:
            await gate.wait()
            return object()

        tasks = [asyncio.create_task(cache.aget_or_load("key", load)) for _ in range(5)]
        await settle()
        gate.set()
        values = await asyncio.gather(*tasks)
        assert len({id(value) for value in values}) == 1
        assert await cache.aget_or_load("key", load) is values[0]
        found = cache.statistics()
        assert (found.loads, found.shared_loads) == (1, 4)

    run(main())


def test_a_failing_async_load_fails_all_and_is_not_cached(run: Run) -> None:
    async def main() -> None:
        cache = LRUCache[str, int]()

        async def load() -> int:
            await settle()
            raise LookupError("no such row")

        outcomes = await asyncio.gather(*[cache.aget_or_load("key", load) for _ in range(3)], return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LookupError] * 3
        assert "key" not in cache

        async def better() -> int:
            return 7

        assert await cache.aget_or_load("key", better) == 7

    run(main())


def test_cancelling_one_waiter_disturbs_nobody(run: Run) -> None:
    async def main() -> None:
        for victim in range(3):
            cache = LRUCache[str, int]()
            gate = asyncio.Event()

            async def load(gate: asyncio.Event = gate) -> int:
                await gate.wait()
                return 5

            tasks = [asyncio.create_task(cache.aget_or_load("key", load)) for _ in range(3)]
            await settle()
            tasks[victim].cancel()
            await settle()
            assert tasks[victim].cancelled()
            gate.set()
            others = [task for number, task in enumerate(tasks) if number != victim]
            assert await asyncio.gather(*others) == [5, 5]
            assert cache.get("key") == 5

    run(main())


def test_cancelling_all_waiters_cancels_the_load_and_the_next_caller_starts_anew(run: Run) -> None:
    async def main() -> None:
        cache = LRUCache[str, int]()
        cancelled = asyncio.Event()
        dying = asyncio.Event()

        async def load() -> int:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                await dying.wait()
                raise LookupError("failed while ending") from None
            return 1

        tasks = [asyncio.create_task(cache.aget_or_load("key", load)) for _ in range(3)]
        await settle()
        for task in tasks:
            task.cancel()
        await cancelled.wait()

        async def anew() -> int:
            return 2

        assert await cache.aget_or_load("key", anew) == 2
        dying.set()
        await settle()
        assert all(task.cancelled() for task in tasks)
        assert cache.get("key") == 2

    run(main())


@pytest.mark.parametrize("steps", range(7))
def test_a_call_may_be_cancelled_at_any_step(run: Run, steps: int) -> None:
    async def main() -> None:
        cache = LRUCache[str, int]()
        ended: list[str] = []

        async def load() -> int:
            try:
                await asyncio.sleep(0)
                return 1
            finally:
                ended.append("load")

        task = asyncio.create_task(cache.aget_or_load("key", load))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert outcome == 1 or isinstance(outcome, asyncio.CancelledError)
        await settle()
        assert len(ended) == cache.statistics().loads
        assert await cache.aget_or_load("key", load) == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_async_loads_that_wait_for_themselves_are_refused(run: Run) -> None:
    async def main() -> None:
        cache = LRUCache[str, int]()

        async def one() -> int:
            return 1

        async def own() -> int:
            return await cache.aget_or_load("a", one)

        async def through_b() -> int:
            return await cache.aget_or_load("b", own)

        async def other() -> int:
            return await cache.aget_or_load("c", one) + 1

        with pytest.raises(RuntimeError, match="'a'"):
            await cache.aget_or_load("a", own)
        with pytest.raises(RuntimeError, match="'a'"):
            await cache.aget_or_load("a", through_b)
        assert await cache.aget_or_load("d", other) == 2

    run(main())


def test_loops_in_two_threads_do_not_share_flights() -> None:
    cache = LRUCache[str, int]()
    both = threading.Barrier(2)

    async def load() -> int:
        await asyncio.to_thread(both.wait, 10)
        return 3

    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(lambda: asyncio.run(cache.aget_or_load("key", load))) for _ in range(2)]
        assert [outcome.result(30) for outcome in outcomes] == [3, 3]
    assert cache.statistics().loads == 2
