"""Request and reply: every request gets exactly one answer or one error, and disturbs no other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import sage_actor as sage


def inverse(value: Any) -> float:
    return 100 / int(value)


async def inverse_async(value: Any) -> float:
    for _ in range(random.Random(str(value)).randrange(4)):
        await asyncio.sleep(0)
    return inverse(value)


def inverse_all(values: list[Any]) -> list[float]:
    return [inverse(value) for value in values]


def halve(value: int) -> int:
    if value < 0:
        raise ValueError("negative")
    return value // 2


FLOWS: dict[str, Any] = {
    "map": lambda s: s.map(inverse, name="step"),
    "two tasks": lambda s: s.map(lambda x: x).disable_chaining().map(inverse, name="step"),
    "map_batch": lambda s: s.map_batch(inverse_all, max_batch=5, name="step"),
    "map_async": lambda s: s.map_async(inverse_async, concurrency=4, name="step"),
    "unordered": lambda s: s.map_async(inverse_async, concurrency=4, ordered=False, name="step"),
    "rebalanced": lambda s: s.rebalance().map(inverse, name="step", parallelism=3),
    "keyed": lambda s: s.key_by(str).map(inverse, name="step", parallelism=2),
    "iterate": lambda s: s.map(inverse, name="step").iterate(lambda x: x, until=lambda x: True),
    "skip": lambda s: s.map(inverse, name="step", on_error="skip"),
    "retry": lambda s: s.map(inverse, name="step", on_error=sage.Retry(attempts=2, delay=0)),
}


async def ask(service: Any, value: Any) -> Any:
    try:
        return await service(value)
    except sage.OperatorError as error:
        return error


@pytest.mark.parametrize("flow", list(FLOWS))
@pytest.mark.parametrize("capacity", [1, 1000])
@pytest.mark.asyncio
async def test_each_request_gets_its_own_answer(flow: str, capacity: int) -> None:
    values: list[Any] = [*range(1, 60), 0, "x", None, *range(60, 100)] * 2
    random.Random(3).shuffle(values)
    config = {"batch.records": 7, "buffer.records": 3}
    async with asyncio.timeout(30), sage.Environment("served", config=config) as env:
        service = await FLOWS[flow](env.from_requests(capacity=capacity)).serve()
        answers = await asyncio.gather(*(ask(service, value) for value in values))
        assert await service(4, timeout=10) == 25
    for value, answer in zip(values, answers, strict=True):
        if isinstance(value, int) and value:
            assert answer == 100 / value
        else:
            assert isinstance(answer, sage.OperatorError), (value, answer)
            assert answer.operator == "step"
            assert answer.value == repr(value)
            assert isinstance(answer.__cause__, ZeroDivisionError | ValueError | TypeError)
    assert service.job.status == "finished"


@pytest.mark.asyncio
async def test_an_explicit_fail_ends_the_job_and_every_request_in_flight() -> None:
    begun = asyncio.Event()

    async def step(value: int) -> int:
        if value == 0:
            await begun.wait()
            raise ValueError("zero")
        begun.set()
        await asyncio.Event().wait()
        return value

    with pytest.raises(sage.OperatorError, match="zero"):
        async with asyncio.timeout(20), sage.Environment("served") as env:
            service = await env.from_requests().map_async(step, on_error="fail", name="step").serve(name="answers")
            results = await asyncio.gather(*(service(v) for v in (0, 1, 2)), return_exceptions=True)
            assert all(isinstance(r, sage.RequestError) for r in results), results
            assert all(isinstance(r.__cause__, sage.OperatorError) for r in results if isinstance(r, BaseException))
            assert service.job.status == "failed"
            with pytest.raises(sage.RequestError, match="failed"):
                await service(3)
            await service.job.wait()


@pytest.mark.asyncio
async def test_after_the_end_requests_are_refused() -> None:
    async with asyncio.timeout(20), sage.Environment("served") as env:
        service = await env.from_requests().map(inverse).serve()
        assert await service(2) == 50
        service.job.stop()
        await service.job.wait()
        with pytest.raises(sage.RequestError, match="finished"):
            await service(2)
    with pytest.raises(sage.RequestError):
        await service(2)


@pytest.mark.asyncio
async def test_leaving_answers_what_is_under_way() -> None:
    let_go = asyncio.Event()

    async def step(value: int) -> int:
        await let_go.wait()
        return value

    async with asyncio.timeout(20), sage.Environment("served") as env:
        service = await env.from_requests().map_async(step).serve()
        asked = [asyncio.ensure_future(service(i)) for i in range(5)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(let_go.set)
    assert await asyncio.gather(*asked) == list(range(5))


@pytest.mark.asyncio
async def test_a_timeout_and_a_cancelled_request_disturb_nobody() -> None:
    gate = asyncio.Event()

    async def step(value: int) -> int:
        if value < 0:
            await gate.wait()
        return value

    async with asyncio.timeout(20), sage.Environment("served") as env:
        service = await env.from_requests(capacity=2).map_async(step, ordered=False).serve()
        with pytest.raises(TimeoutError):
            await service(-1, timeout=0.01)
        waiting = asyncio.ensure_future(service(-2))
        others = [asyncio.ensure_future(service(i)) for i in range(10)]
        await asyncio.sleep(0)
        waiting.cancel()
        assert await asyncio.gather(*others) == list(range(10))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        assert await service(5) == 5


@pytest.mark.asyncio
async def test_requests_cancelled_at_any_point_leave_the_rest_whole() -> None:
    rng = random.Random(11)

    async def step(value: int) -> int:
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        return value * 2

    async with asyncio.timeout(30), sage.Environment("served", config={"buffer.records": 1, "batch.records": 2}) as env:
        service = await env.from_requests(capacity=1).map(lambda x: x).map_async(step, concurrency=2).serve()
        for _ in range(20):
            tasks = [asyncio.ensure_future(service(i)) for i in range(12)]
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            victims = rng.sample(tasks, 4)
            for victim in victims:
                victim.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for i, (task, result) in enumerate(zip(tasks, done, strict=True)):
                assert result == 2 * i or (task in victims and isinstance(result, asyncio.CancelledError))


@pytest.mark.parametrize(
    ("describe", "named"),
    [
        (lambda s: s.filter(bool, name="odd"), "'odd' .filter."),
        (lambda s: s.flat_map(lambda x: [x], name="many"), "'many'"),
        (lambda s: s.process(lambda x: [x], name="proc"), "'proc'"),
        (lambda s: s.key_by(str).count(name="tally"), "'tally'"),
        (lambda s: s.union(s), "union"),
        (lambda s: s.broadcast().map(str), "broadcast"),
        (lambda s: s._env.from_collection([1], name="list").map(str), "'list'.*from_requests"),
        (lambda s: s.map(str, on_error="dead_letter").dead_letters(), "path"),
    ],
)
@pytest.mark.asyncio
async def test_flows_that_are_not_one_to_one_are_refused(describe: Any, named: str) -> None:
    env = sage.Environment("served")
    with pytest.raises(sage.GraphError, match=named):
        await describe(env.from_requests()).serve()


@pytest.mark.asyncio
async def test_a_served_flow_is_served_once_and_never_by_submit() -> None:
    async with asyncio.timeout(20), sage.Environment("served") as env:
        requests = env.from_requests()
        stream = requests.map(inverse)
        service = await stream.serve()
        with pytest.raises(sage.GraphError, match="already"):
            await stream.serve()
        out = env.from_collection([1]).map(str).collect()
        job = await env.execute()
        assert list(out) == ["1"]
        assert job is not service.job
        assert await service(4) == 25


# -- answers in parts --------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    return text.split()


async def letters(word: str) -> AsyncIterator[str]:
    for letter in word:
        await asyncio.sleep(0)
        if letter == "!":
            raise ValueError("no shouting")
        yield letter


async def parts_of(service: Any, value: Any) -> list[Any]:
    return [part async for part in service(value)]


@pytest.mark.asyncio
async def test_parts_come_in_order_for_each_request() -> None:
    async with asyncio.timeout(20), sage.Environment("parts") as env:
        stream = env.from_requests(capacity=1).flat_map(words).filter(lambda w: w != "skip").flat_map(letters).map(str.upper)
        service = await stream.serve(stream=True)
        texts = [f"a{i} skip b{i}c" for i in range(30)]
        answers = await asyncio.gather(*(parts_of(service, text) for text in texts))
        assert ["".join(parts) for parts in answers] == [f"A{i}B{i}C" for i in range(30)]
        assert await parts_of(service, "") == []


@pytest.mark.asyncio
async def test_parts_before_an_error_and_then_the_error() -> None:
    async with asyncio.timeout(20), sage.Environment("parts") as env:
        service = await env.from_requests().flat_map(words).flat_map(letters, name="spell").serve(stream=True)
        got: list[str] = []
        with pytest.raises(sage.OperatorError, match="no shouting") as caught:
            async for part in service("ab c!d e"):
                got.append(part)  # noqa: PERF401
        assert got == ["a", "b", "c"]
        assert caught.value.operator == "spell"
        assert isinstance(caught.value.__cause__, ValueError)
        assert await parts_of(service, "ok") == ["o", "k"]


@pytest.mark.asyncio
async def test_leaving_one_answer_cancels_it_alone() -> None:
    closed: list[int] = []

    async def endless(start: int) -> AsyncIterator[int]:
        try:
            while True:
                yield start
                start += 1
                await asyncio.sleep(0)
        finally:
            closed.append(start)

    async with asyncio.timeout(20), sage.Environment("parts") as env:
        service = await env.from_requests().flat_map(endless).serve(stream=True)
        first, second = aiter(service(0)), aiter(service(1000))
        assert [await anext(first) for _ in range(5)] == [0, 1, 2, 3, 4]
        await first.aclose()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(closed) == 1
        got = [await anext(second) for _ in range(300)]
        assert got == list(range(1000, 1300))
        await second.aclose()
    assert len(closed) == 2


@pytest.mark.asyncio
async def test_a_slow_reader_holds_its_own_answer_back() -> None:
    made = 0

    def numbers(_: int) -> Iterator[int]:
        nonlocal made
        while True:
            made += 1
            yield made

    async with asyncio.timeout(20), sage.Environment("parts") as env:
        service = await env.from_requests().flat_map(numbers).serve(stream=True)
        answer = aiter(service(0))
        assert await anext(answer) == 1
        for _ in range(2000):
            await asyncio.sleep(0)
        assert made < 200
        await answer.aclose()


@pytest.mark.asyncio
async def test_the_end_of_the_flow_ends_answers_with_an_error() -> None:
    async def hold(value: int) -> AsyncIterator[int]:
        yield value
        await asyncio.Event().wait()

    async with asyncio.timeout(20), sage.Environment("parts") as env:
        service = await env.from_requests().flat_map(hold).serve(stream=True)
        answer = aiter(service(7))
        assert await anext(answer) == 7
        service.job.cancel()
        with pytest.raises(sage.RequestError, match="cancelled"):
            await anext(answer)
        with pytest.raises(sage.RequestError):
            await parts_of(service, 8)


@pytest.mark.asyncio
async def test_submit_beside_a_streaming_service_starts_only_the_rest() -> None:
    async with asyncio.timeout(20), sage.Environment("parts") as env:
        service = await env.from_requests().flat_map(words).serve(stream=True)
        out = env.from_collection([1]).collect()
        await env.execute()
        assert list(out) == [1]
        assert await parts_of(service, "a b") == ["a", "b"]
        assert len(env.jobs) == 2


# -- over worker processes ---------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_serving_over_processes(remote_backend: str) -> None:
    async with asyncio.timeout(50), sage.Environment("remote", backend=remote_backend, parallelism=2) as env:
        service = await env.from_requests(capacity=4).rebalance().map(inverse, name="step").serve()
        values: list[Any] = [*range(1, 40), 0, "x"]
        answers = await asyncio.gather(*(ask(service, value) for value in values))
        assert answers[:39] == [100 / v for v in range(1, 40)]
        for answer, kind in zip(answers[39:], (ZeroDivisionError, ValueError), strict=True):
            assert isinstance(answer, sage.OperatorError)
            assert answer.operator == "step"
            assert isinstance(answer.__cause__, kind)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.asyncio
async def test_a_step_that_raises_a_cancelled_error_answers_with_it(parts: bool) -> None:
    async def step(value: int) -> int:
        raise asyncio.CancelledError("from the user")

    async with asyncio.timeout(20), sage.Environment("cancelled") as env:
        stream = env.from_requests().map(step, name="step")
        asked = parts_of(await stream.serve(stream=True), 1) if parts else (await stream.serve())(1)
        with pytest.raises(sage.OperatorError, match="CancelledError"):
            await asked
