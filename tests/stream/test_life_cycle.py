"""Starting, waiting, leaving, stopping: who starts what, who waits for whom, who is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

import sage_actor as sage


async def endless() -> AsyncIterator[int]:
    n = 0
    while True:
        yield n
        n += 1
        await asyncio.sleep(0)


class Held(sage.Source[int]):
    """Gives one record and then waits until it is let go."""

    def __init__(self) -> None:
        self.given = False
        self.go = asyncio.Event()
        self.reading = asyncio.Event()

    async def read(self, limit: int) -> list[int] | None:
        if not self.given:
            self.given = True
            return [1]
        self.reading.set()
        await self.go.wait()
        return None


@pytest.mark.asyncio
async def test_submit_never_waits_and_wait_may_be_called_twice() -> None:
    source = Held()
    async with asyncio.timeout(20), sage.Environment("held") as env:
        out = env.from_source(source).collect()
        job = await env.submit()
        assert job.status == "running"
        assert not job.done
        assert str(job) == job.id
        assert job.id.startswith("held-")
        with pytest.raises(sage.NotFinished, match=r"'collect'.*running"):
            list(out)
        for read in (len, repr):
            if read is repr:
                assert "running" in repr(out)
            else:
                with pytest.raises(sage.NotFinished):
                    read(out)
        source.go.set()
        await asyncio.gather(job.wait(), job.wait())
        await job.wait()
        assert job.status == "finished"
        assert await env.wait_for_completion(job) == "finished"
        assert await env.wait_for_completion(job.id) == "finished"
        assert await env.wait_for_completion(str(job)) == "finished"
        with pytest.raises(sage.JobNotFound, match="nobody"):
            await env.wait_for_completion("nobody")
    assert list(out) == [1]
    assert out == [1]
    assert out[0] == 1
    assert repr(out) == "[1]"


@pytest.mark.asyncio
async def test_a_second_submit_starts_only_what_is_new() -> None:
    runs: list[str] = []
    async with asyncio.timeout(20), sage.Environment("twice") as env:
        first = env.from_collection([1]).map(lambda x: runs.append("first") or x).collect()
        one = await env.execute()
        second = env.from_collection([2]).map(lambda x: runs.append("second") or x).collect()
        two = await env.execute()
        again = await env.submit()
        assert again is two
        assert await env.execute() is two
        assert one is not two
    assert runs == ["first", "second"]
    assert (list(first), list(second)) == ([1], [2])


@pytest.mark.asyncio
async def test_a_pipeline_can_be_started_alone() -> None:
    runs: list[str] = []
    async with asyncio.timeout(20), sage.Environment("alone") as env:
        source = env.from_collection([1, 2])
        end = source.map(lambda x: runs.append("one") or x).sink(lambda x: None, name="one")
        source.map(lambda x: runs.append("two") or x).sink(lambda x: None, name="two")
        job = await env.submit(end)
        await job.wait()
        assert runs == ["one", "one"]
        assert set(job.metrics()["operators"]) == {"collection", "map", "one"}
        with pytest.raises(sage.GraphError, match=r"'one' was started already"):
            await env.submit(end)
        other = sage.Environment("other")
        with pytest.raises(sage.GraphError, match="another environment"):
            await other.submit(end)
        stream = env.from_collection([3]).map(lambda x: runs.append("three") or x)
        await env.execute(stream)  # a stream without an end runs too
        assert runs == ["one", "one", "three"]
        await env.execute()
        assert runs == ["one", "one", "three", "two", "two"]


@pytest.mark.asyncio
async def test_what_was_never_started_is_said_on_leaving() -> None:
    with pytest.raises(sage.NeverStarted, match=r"never.*'?collect.*await env\.execute") as caught:
        async with sage.Environment("never") as env:
            out = env.from_collection([1]).collect()
    assert caught.value.operators == ("collect",)
    with pytest.raises(sage.NotFinished, match="not started"):
        list(out)
    with pytest.raises(sage.NeverStarted):
        async with sage.Environment("loose") as env:
            env.from_collection([1]).map(str)
    async with sage.Environment("empty") as env:
        pass
    with pytest.raises(ValueError, match="mine"):  # the body's own error goes first
        async with sage.Environment("never") as env:
            env.from_collection([1]).collect()
            raise ValueError("mine")


@pytest.mark.asyncio
async def test_nothing_to_run_is_said() -> None:
    async with sage.Environment("empty") as env:
        with pytest.raises(sage.GraphError, match="nothing to run"):
            await env.submit()


@pytest.mark.asyncio
async def test_leaving_waits_for_bounded_jobs() -> None:
    source = Held()
    async with asyncio.timeout(20), sage.Environment("bounded") as env:
        out = env.from_source(source).collect()
        job = await env.submit()
        await source.reading.wait()
        asyncio.get_running_loop().call_soon(source.go.set)
    assert job.status == "finished"
    assert list(out) == [1]


@pytest.mark.asyncio
async def test_leaving_drains_endless_jobs() -> None:
    seen: list[int] = []
    async with asyncio.timeout(20), sage.Environment("endless") as env:
        env.from_source(endless()).map(lambda x: x).disable_chaining().sink(seen.append)
        job = await env.submit()
        while len(seen) < 10:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert job.status == "finished"
    assert seen == list(range(len(seen)))


@pytest.mark.asyncio
async def test_leaving_cancels_what_does_not_drain_in_time() -> None:
    stuck = asyncio.Event()

    async def write(value: int) -> None:
        stuck.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(20), sage.Environment("stuck", config={"stop_timeout": "50ms"}) as env:
        env.from_source(endless()).sink(write)
        job = await env.submit()
        await stuck.wait()
    assert job.status == "cancelled"


@pytest.mark.asyncio
async def test_leaving_on_an_exception_cancels() -> None:
    source = Held()
    with pytest.raises(ValueError, match="mine"):
        async with asyncio.timeout(20), sage.Environment("cancels") as env:
            env.from_source(source).collect()
            job = await env.submit()
            raise ValueError("mine")
    assert job.status == "cancelled"


@pytest.mark.asyncio
async def test_a_failure_nobody_awaited_is_raised_on_leaving_and_cancels_no_body() -> None:
    went_on = False
    with pytest.raises(sage.OperatorError, match="by zero") as caught:
        async with asyncio.timeout(20), sage.Environment("fails") as env:
            env.from_collection([0]).map(lambda x: 1 / x).collect()
            job = await env.submit()
            while not job.done:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            went_on = True
    assert went_on
    assert caught.value is job.error
    with pytest.raises(sage.OperatorError):
        await job.wait()


@pytest.mark.asyncio
async def test_a_failure_that_was_awaited_is_not_raised_again() -> None:
    async with asyncio.timeout(20), sage.Environment("fails") as env:
        out = env.from_collection([0]).map(lambda x: 1 / x).collect()
        with pytest.raises(sage.OperatorError):
            await env.execute()
        with pytest.raises(sage.NotFinished, match="failed"):
            list(out)


@pytest.mark.asyncio
async def test_cancel_and_stop_are_idempotent_and_harmless_after_the_end() -> None:
    async with asyncio.timeout(20), sage.Environment("ends") as env:
        env.from_source(endless()).sink(lambda x: None)
        job = await env.submit()
        job.stop()
        job.stop()
        assert job.status == "stopping"
        await job.wait()
        job.cancel()
        job.stop()
        assert job.status == "finished"
        source = Held()
        env.from_source(source).collect()
        job = await env.submit()
        job.cancel()
        job.cancel()
        with pytest.raises(sage.JobCancelled, match="ends"):
            await job.wait()
        env.stop()
        assert job.status == "cancelled"


@pytest.mark.asyncio
async def test_a_stopped_job_has_delivered_all_that_was_read() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(10**9):
            read.append(i)
            yield i

    async with asyncio.timeout(20), sage.Environment("drain", config={"buffer.records": 4, "batch.records": 3}) as env:
        stream = env.from_source(numbers()).rebalance().map(lambda x: x, parallelism=3)
        out = stream.key_by(lambda x: x % 5).count(emit="final").collect()
        seen = stream.map(lambda x: x).collect()
        job = await env.submit()
        while len(read) < 100:  # noqa: ASYNC110
            await asyncio.sleep(0)
        job.stop()
        await job.wait()
    assert sorted(seen) == read
    assert sum(n for _, n in out) == len(read)
    metrics = job.metrics()
    assert metrics["records_in"] == len(read)


@pytest.mark.asyncio
async def test_cancelling_execute_cancels_the_job_and_cancelling_wait_does_not() -> None:
    source = Held()
    async with asyncio.timeout(20), sage.Environment("awaited") as env:
        env.from_source(source).collect()
        running = asyncio.ensure_future(env.execute())
        await source.reading.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert env.jobs[0].status == "cancelled"
        source = Held()
        env.from_source(source).collect()
        job = await env.submit()
        waiting = asyncio.ensure_future(job.wait())
        await source.reading.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert job.status == "running"
        source.go.set()
        await job.wait()


@pytest.mark.asyncio
async def test_run_streaming_ends_with_bounded_input_or_stop() -> None:
    async with asyncio.timeout(20), sage.Environment("streaming") as env:
        out = env.from_collection([1]).collect()
        assert (await env.run_streaming()).status == "finished"
        seen: list[int] = []
        env.from_source(endless()).sink(seen.append)
        running = asyncio.ensure_future(env.run_streaming())
        while len(seen) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
        env.stop()
        assert (await running).status == "finished"
    assert list(out) == [1]


@pytest.mark.asyncio
async def test_two_environments_side_by_side_do_not_mix() -> None:
    async with asyncio.timeout(20), sage.Environment("one") as one, sage.Environment("two") as two:
        first, second = one.from_collection(range(100)).collect(), two.from_collection(range(100, 200)).collect()
        await asyncio.gather(one.execute(), two.execute())
        with pytest.raises(sage.GraphError, match="two environments"):
            one.from_collection([1]).union(two.from_collection([1]))
        with pytest.raises(sage.NeverStarted):
            await one.__aexit__(None, None, None)
        await one.execute()
        await two.execute()
    assert (list(first), list(second)) == (list(range(100)), list(range(100, 200)))


@pytest.mark.asyncio
async def test_on_end_is_called_once_also_when_it_comes_late() -> None:
    ended: list[str] = []
    async with sage.Environment("ended") as env:
        env.from_collection([1]).collect()
        job = await env.submit()
        job.on_end(lambda j: ended.append(j.status))
        await job.wait()
        job.on_end(lambda j: ended.append("late"))
    assert ended == ["finished", "late"]


@pytest_asyncio.fixture
async def env() -> AsyncIterator[sage.Environment]:
    async with sage.Environment("fixture") as made:
        yield made


@pytest.mark.asyncio
async def test_an_environment_as_a_fixture(env: sage.Environment) -> None:
    out = env.from_collection([1, 2]).map(lambda x: x + 1).collect()
    await env.execute()
    assert list(out) == [2, 3]


# -- async for ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_iterating_gives_every_record_once_in_order() -> None:
    async with asyncio.timeout(20), sage.Environment("live", config={"batch.records": 3, "buffer.records": 2}) as env:
        stream = env.from_collection(range(50)).map(lambda x: x * 2)
        assert [x async for x in stream] == [x * 2 for x in range(50)]
        assert [x async for x in stream] == [x * 2 for x in range(50)]  # a job of its own each time
        assert [job.status for job in env.jobs] == ["finished", "finished"]


@pytest.mark.asyncio
async def test_leaving_the_loop_cancels_the_job_at_once() -> None:
    async with asyncio.timeout(20), sage.Environment("live") as env:
        async for value in env.from_source(endless()):
            if value == 5:
                break
        job = env.jobs[0]
        with pytest.raises(sage.JobCancelled):
            await job.wait()
        iterator = aiter(env.from_source(endless()))
        assert await anext(iterator) == 0
        await iterator.aclose()  # type: ignore[attr-defined]
        with pytest.raises(sage.JobCancelled):
            await env.jobs[1].wait()


@pytest.mark.asyncio
async def test_an_exception_in_the_loop_cancels_the_job() -> None:
    async with asyncio.timeout(20), sage.Environment("live") as env:
        with pytest.raises(ValueError, match="mine"):
            async for _ in env.from_source(endless()):
                raise ValueError("mine")
        with pytest.raises(sage.JobCancelled):
            await env.jobs[0].wait()


@pytest.mark.asyncio
async def test_a_failing_stream_raises_behind_its_records() -> None:
    seen: list[float] = []
    async with asyncio.timeout(20), sage.Environment("live") as env:
        with pytest.raises(sage.OperatorError, match="by zero") as caught:
            async for value in env.from_collection([1, 2, 0, 4]).map(lambda x: 10 / x):
                seen.append(value)  # noqa: PERF401
        assert caught.value.position == 2
    assert seen == [10, 5]


@pytest.mark.asyncio
async def test_a_job_cancelled_by_another_ends_the_loop_with_an_error() -> None:
    async with asyncio.timeout(20), sage.Environment("live") as env:
        with pytest.raises(sage.JobCancelled):
            async for value in env.from_source(endless()):
                if value == 3:
                    env.jobs[0].cancel()


@pytest.mark.asyncio
async def test_a_loop_that_does_not_take_holds_the_source_back() -> None:
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async with asyncio.timeout(20), sage.Environment("live", config={"batch.records": 10, "buffer.records": 10}) as env:
        async for _ in env.from_source(numbers()):
            for _ in range(500):
                await asyncio.sleep(0)
            break
    assert taken < 200


# -- the blocking face -------------------------------------------------------------------------------------------------


def test_execute_runs_in_the_calling_thread() -> None:
    threads: set[int] = set()
    env = sage.LocalEnvironment("here")
    out = env.from_collection([1, 2]).map(lambda x: threads.add(threading.get_ident()) or x).collect()
    job = env.execute()
    assert threads == {threading.get_ident()}
    assert job.status == "finished"
    assert list(out) == [1, 2]
    assert env.execute() is job
    env.from_collection([0]).map(lambda x: 1 / x).print()
    with pytest.raises(sage.OperatorError):
        env.execute()


def test_run_streaming_returns_at_the_end_of_bounded_input() -> None:
    env = sage.LocalEnvironment("bounded")
    out = env.from_collection([1]).collect()
    assert env.run_streaming().status == "finished"
    assert list(out) == [1]


@pytest.mark.leaves_behind("the thread of background jobs lives as long as the process")
def test_submit_runs_behind_and_everything_can_be_called_from_here() -> None:
    env = sage.LocalEnvironment("behind")
    out = env.from_collection(range(5)).collect()
    job = env.submit()
    assert env.wait_for_completion(job) == "finished"
    assert env.wait_for_completion(job.id) == "finished"
    assert list(out) == list(range(5))
    with sage.LocalEnvironment("scope") as env:
        seen: list[int] = []
        env.from_source(endless()).sink(seen.append)
        job = env.submit()
        while not seen:
            threading.Event().wait(0.001)
    assert job.status == "finished"
    with pytest.raises(sage.OperatorError), sage.LocalEnvironment("fails") as env:
        env.from_collection([0]).map(lambda x: 1 / x).print()
        env.submit()


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ["submit", "execute", "run_streaming"])
async def test_inside_a_running_loop_it_names_the_other_face(what: str) -> None:
    env = sage.LocalEnvironment("inside")
    env.from_collection([1]).print()
    with pytest.raises(sage.GraphError, match=rf"{what}.*sage_actor\.Environment"):
        getattr(env, what)()


@pytest.mark.asyncio
async def test_iterating_or_serving_the_blocking_face_names_the_other() -> None:
    env = sage.LocalEnvironment("inside")
    with pytest.raises(sage.GraphError, match=r"sage_actor\.Environment"):
        aiter(env.from_collection([1]))
    with pytest.raises(sage.GraphError, match=r"sage_actor\.Environment"):
        await env.from_requests().map(str).serve()
