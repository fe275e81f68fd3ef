"""Answers in parts: Reactive Streams' rules between an async generator in an actor and whoever reads it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor._core.batch_queue import Overflow
from sage_actor.actor.statistics import statistics_of
from sage_actor.actor.streaming import AnswerStream
from sage_actor.testing import ManualClock, Simulation


class Log:
    """What a reader did, as its actor saw it."""

    def __init__(self) -> None:
        self.yielded = 0
        self.ended: list[str] = []
        self.cleaning_up = asyncio.Event()


class Expected(Exception):
    """An error that is an answer."""


class Reader(sage.Actor):
    expected_errors = (Expected,)

    def __init__(self, log: Log | None = None) -> None:
        self.log = Log() if log is None else log
        self.gate = asyncio.Event()

    async def rows(self, count: int, *, pauses: int = 0, error: Exception | None = None) -> AsyncIterator[int]:
        how = "interrupted"
        try:
            for row in range(count):
                for _ in range(pauses):
                    await asyncio.sleep(0)
                self.log.yielded += 1
                yield row
            if error is not None:
                raise error
            how = "completed"
        except GeneratorExit:
            how = "closed"
            raise
        except asyncio.CancelledError:
            how = "cancelled"
            raise
        except Exception:
            how = "failed"
            raise
        finally:
            self.log.ended.append(how)

    async def waiting(self, before: int) -> AsyncIterator[int]:
        try:
            for row in range(before):
                yield row
            await self.gate.wait()
        finally:
            self.log.cleaning_up.set()
            for _ in range(5):
                await asyncio.sleep(0)  # cleaning up may wait
            self.log.ended.append("cleaned up")

    async def relay(self, other: sage.ActorRef[Reader], count: int) -> int:
        total = 0
        async for row in other.stream(Reader.rows, count, demand=2):
            total += row
        return total

    async def read_one_and_wait(self, other: sage.ActorRef[Reader]) -> int:
        async for row in other.stream(Reader.waiting, 1):
            self.log.yielded += 1
            await self.gate.wait()
            return row
        return -1

    async def read_from_itself(self) -> int:
        return len([row async for row in self.ref.stream(Reader.rows, 3)])

    async def stubborn(self) -> AsyncIterator[int]:
        yield 0
        with contextlib.suppress(asyncio.CancelledError):
            await self.gate.wait()
        yield 1

    async def failing_cleanup(self) -> AsyncIterator[int]:
        try:
            yield 0
            await self.gate.wait()
        finally:
            raise RuntimeError("the cleanup fails")

    async def asks_when_closed(self, other: sage.ActorRef[Reader]) -> AsyncIterator[int]:
        try:
            yield 0
            await self.gate.wait()
        finally:
            self.log.ended.append(await other.ask(Reader.ping))

    def open(self) -> None:
        self.gate.set()

    def ping(self) -> str:
        return "pong"


Body = Callable[[sage.ActorSystem, sage.ActorRef[Reader], Log], Any]


def simulated(seeds: int = 40) -> Callable[[Body], Callable[[], None]]:
    """Run the test under many schedules, with a system and a reader; at the end everything that was accepted is accounted for."""

    def decorate(body: Body) -> Callable[[], None]:
        async def main() -> None:
            async with sage.ActorSystem("streams") as system:
                log = Log()
                ref = await system.spawn(Reader, log, name="reader")
                await body(system, ref, log)
                await system.wait_idle()
                assert_accounted(ref)

        @functools.wraps(body)
        def test() -> None:
            for seed in range(seeds):
                Simulation(seed).run(main)

        del test.__wrapped__  # pytest would look for fixtures there
        return test

    return decorate


def assert_accounted(ref: sage.ActorRef[Any]) -> None:
    counts = statistics_of(ref.cell.lifecycle)
    assert counts.accepted == counts.handled + counts.dead_lettered + counts.queued + counts.stashed + counts.in_hand
    assert counts.in_hand == 0, "the generator has ended"


def rows(ref: sage.ActorRef[Reader], count: int, *, demand: int = 16, pauses: int = 0, error: Exception | None = None) -> AnswerStream[int]:
    stream = ref.stream(Reader.rows, count, demand=demand, pauses=pauses, error=error)
    assert isinstance(stream, AnswerStream)
    return stream


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come about")


# -- the whole answer -------------------------------------------------------------------------------------------------


@pytest.mark.rule("A28")
@pytest.mark.parametrize("demand", [1, 2, 16])
@pytest.mark.parametrize("pauses", [0, 1])
def test_all_parts_in_order_then_the_end(demand: int, pauses: int) -> None:
    @simulated(10)
    async def run(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
        assert [row async for row in rows(ref, 50, demand=demand, pauses=pauses)] == list(range(50))
        await until(lambda: log.ended == ["completed"])
        assert await ref.ask(Reader.ping) == "pong"

    run()


@simulated()
async def test_a_stream_is_one_message_and_the_actor_is_busy_until_it_ends(
    system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log
) -> None:
    stream = rows(ref, 3, demand=1)
    assert await anext(stream) == 0
    ping = ref.ask(Reader.ping)
    assert await anext(stream) == 1
    assert not ping.done()
    assert [row async for row in stream] == [2]
    assert await ping == "pong"
    assert statistics_of(ref.cell.lifecycle).accepted == 2


@simulated()
async def test_with_concurrency_streams_run_beside_each_other(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    both = await system.spawn(Reader, concurrency=2)
    first, second = rows(both, 10, demand=1), rows(both, 10, demand=1)
    assert [(await anext(first), await anext(second)) for _ in range(5)] == [(n, n) for n in range(5)]
    await first.aclose()
    assert [row async for row in second] == [5, 6, 7, 8, 9]
    await system.wait_idle()
    assert_accounted(both)


@simulated()
async def test_an_actor_may_read_from_another_but_not_from_itself(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    other = await system.spawn(Reader)
    assert await other.ask(Reader.relay, ref, 10) == 45
    with pytest.raises(sage.ActorFailed) as caught:
        await ref.ask(Reader.read_from_itself)
    assert isinstance(caught.value.__cause__, sage.AskCycle)


@pytest.mark.asyncio
async def test_nothing_is_sent_before_the_first_part_is_asked_for() -> None:
    async with sage.ActorSystem("streams") as system:
        ref = await system.spawn(Reader)
        stream = rows(ref, 3)
        assert ref.cell.statistics().accepted == 0
        await stream.aclose()
        assert [row async for row in stream] == []
        assert ref.cell.statistics().accepted == 0


@pytest.mark.asyncio
async def test_calls_that_make_no_sense_harm_nobody() -> None:
    async with sage.ActorSystem("streams") as system:
        ref = await system.spawn(Reader)
        with pytest.raises(sage.BadCall, match="no async generator"):
            ref.stream(Reader.ping)  # type: ignore[arg-type]
        with pytest.raises(sage.BadCall, match="at least 1"):
            rows(ref, 3, demand=0)
        with pytest.raises(sage.BadCall, match="missing 1 required positional argument"):
            await anext(ref.stream(Reader.rows))  # type: ignore[arg-type]
        assert await ref.ask(Reader.ping) == "pong"
        assert ref.cell.lifecycle.restarts == 0
        assert_accounted(ref)


# -- demand -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A28")
@pytest.mark.rule("A33")
@pytest.mark.asyncio
@given(count=st.integers(0, 30), demand=st.integers(1, 12), take=st.integers(0, 30), pauses=st.integers(0, 2))
async def test_never_more_arrives_than_was_asked_for(count: int, demand: int, take: int, pauses: int) -> None:
    async with sage.ActorSystem("streams") as system:
        log = Log()
        ref = await system.spawn(Reader, log)
        stream = rows(ref, count, demand=demand, pauses=pauses)
        taken = 0
        async with contextlib.aclosing(stream):
            while taken < take:
                try:
                    row = await anext(stream)
                except StopAsyncIteration:
                    break
                assert row == taken
                taken += 1
                for _ in range(3):
                    assert stream.buffered + stream.outstanding <= demand
                    assert log.yielded <= taken + demand + 1, "one part may be made ahead, to learn of the end"
                    await asyncio.sleep(0)
        assert taken == min(count, take)
        await system.wait_idle()
        assert len(log.ended) == (take > 0)
        assert_accounted(ref)


@pytest.mark.rule("A28")
@simulated()
async def test_a_reader_that_does_not_read_holds_the_generator(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    stream = rows(ref, 1000, demand=4)
    assert await anext(stream) == 0
    for _ in range(200):
        await asyncio.sleep(0)
    assert (stream.buffered, stream.outstanding) == (3, 0)
    assert log.yielded == 5
    await stream.aclose()


@pytest.mark.rule("A30")
@pytest.mark.asyncio
async def test_requests_do_not_nest_however_long_the_answer() -> None:
    async with sage.ActorSystem("streams") as system:
        ref = await system.spawn(Reader)
        for demand in (1, 3):
            count = 0
            async for _ in rows(ref, 5000, demand=demand):
                count += 1
            assert count == 5000


@pytest.mark.rule("A32")
@simulated()
async def test_the_end_needs_no_demand(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    completing = rows(ref, 4, demand=4)
    first = await anext(completing)
    await until(lambda: log.ended == ["completed"])
    assert completing.outstanding == 0
    assert await ref.ask(Reader.ping) == "pong", "the actor is free although three parts have not been read"
    assert [first, *[row async for row in completing]] == [0, 1, 2, 3]
    failing = rows(ref, 4, demand=4, error=Expected("over"))
    assert await anext(failing) == 0
    await until(lambda: log.ended == ["completed", "failed"])
    assert [await anext(failing) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(Expected, match="over"):
        await anext(failing)


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A28")
@simulated()
async def test_nothing_comes_after_the_end(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    completed, failed = rows(ref, 1), rows(ref, 1, error=Expected("over"))
    assert [row async for row in completed] == [0]
    assert await anext(failed) == 0
    with pytest.raises(Expected):
        await anext(failed)
    for stream in (completed, failed):
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        await stream.aclose()


@simulated()
async def test_an_error_comes_after_the_parts_and_fails_the_actor(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    ref = await system.spawn(Reader, log, restart=sage.FixedDelay(attempts=1, delay=0))
    stream = rows(ref, 2, error=ZeroDivisionError("no"))
    assert (await anext(stream), await anext(stream)) == (0, 1)
    with pytest.raises(sage.ActorFailed) as caught:
        await anext(stream)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert (caught.value.actor, caught.value.doing) == (ref.path, "rows")
    assert [row async for row in rows(ref, 2)] == [0, 1], "a fresh instance answers"
    assert ref.cell.lifecycle.restarts == 1


@simulated()
async def test_an_expected_error_leaves_the_actor_alone(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    stream = rows(ref, 0, error=Expected("nothing there"))
    with pytest.raises(Expected, match="nothing there"):
        await anext(stream)
    assert ref.cell.lifecycle.restarts == ref.cell.failed == 0
    assert ref.cell.expected_errors == 1


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("kill", [False, True])
def test_the_end_of_the_actor_ends_the_stream(kill: bool, awaits: bool) -> None:
    async def main() -> None:
        async with sage.ActorSystem("streams") as system:
            log = Log()
            ref = await system.spawn(Reader, log)
            stream = ref.stream(Reader.waiting, 2 if awaits else 9, demand=2)
            assert await anext(stream) == 0
            arrived = 1 if awaits else 2
            await until(lambda: stream.buffered == arrived)  # type: ignore[attr-defined]
            await system.stop(ref, drain=False, timeout=0.001 if kill else 1.0)
            assert log.ended == ["cleaned up"]
            assert [await anext(stream) for _ in range(arrived)] == [1, 2][:arrived], "what had arrived comes first"
            with pytest.raises(sage.ActorStopped):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            assert system.dead_letters.total == 1
            late = rows(ref, 1)
            with pytest.raises(sage.ActorStopped):
                await anext(late)

    for seed in range(30):
        Simulation(seed).run(main)


@pytest.mark.parametrize("turns", range(5))
def test_closing_while_the_generator_cleans_up_disturbs_it_no_more(turns: int) -> None:
    @simulated(8)
    async def run(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
        ref = await system.spawn(Reader, log)
        stream = ref.stream(Reader.waiting, 1)
        assert await anext(stream) == 0
        stopping = asyncio.ensure_future(system.stop(ref, drain=False, timeout=0.01))
        await log.cleaning_up.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        await stream.aclose()
        await stopping
        assert log.ended == ["cleaned up"]
        assert ref.cell.failed == 0

    run()


def test_the_end_of_the_event_loop_while_a_stream_is_being_closed() -> None:
    refs: list[sage.ActorRef[Reader]] = []

    async def main() -> None:
        system = sage.ActorSystem("streams")
        await system.__aenter__()
        refs.append(await system.spawn(Reader))
        stream = refs[0].stream(Reader.waiting, 1)
        assert await anext(stream) == 0
        for _ in range(5):
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(stream.aclose())
        await asyncio.sleep(0)
        assert not closing.done()

    asyncio.run(main())
    assert not refs[0].alive


@simulated()
async def test_a_restart_ends_the_streams_of_the_old_instance(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    ref = await system.spawn(Reader, log, concurrency=2, restart=sage.FixedDelay(attempts=1, delay=0))
    stream = ref.stream(Reader.waiting, 1)
    assert await anext(stream) == 0
    with pytest.raises(sage.ActorFailed):
        await anext(rows(ref, 0, error=ZeroDivisionError("no")))
    with pytest.raises(sage.ActorStopped):
        await anext(stream)
    assert log.ended == ["failed", "cleaned up"]
    assert await ref.ask(Reader.ping) == "pong"


@simulated()
async def test_stopping_in_peace_lets_the_reader_finish(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    stream = rows(ref, 10, demand=2)
    assert await anext(stream) == 0
    stopping = asyncio.ensure_future(system.stop(ref))
    assert [row async for row in stream] == list(range(1, 10))
    await stopping
    assert system.dead_letters.total == 0


# -- giving it up -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("A31")
@simulated()
async def test_closing_ends_a_generator_that_has_yielded(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    stream = rows(ref, 100, demand=2)
    assert await anext(stream) == 0
    await until(lambda: log.yielded == 4)
    await stream.aclose()
    assert log.ended == ["closed"]
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert stream.buffered == stream.outstanding == 0
    assert await ref.ask(Reader.ping) == "pong"
    assert (ref.cell.failed, system.dead_letters.total) == (0, 0)


@pytest.mark.rule("A31")
@simulated()
async def test_closing_cancels_a_generator_that_awaits(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    stream = ref.stream(Reader.waiting, 1)
    assert await anext(stream) == 0
    await stream.aclose()
    assert log.ended == ["cleaned up"]
    assert await ref.ask(Reader.ping) == "pong"
    assert (ref.cell.failed, ref.cell.lifecycle.restarts, system.dead_letters.total) == (0, 0, 0)


@pytest.mark.rule("A31")
@pytest.mark.rule("A41")
@pytest.mark.parametrize("point", range(12))
@pytest.mark.parametrize("pauses", [0, 1])
@pytest.mark.parametrize("how", ["cancel", "timeout", "close", "drop"])
def test_a_reader_that_goes_at_any_point_leaves_a_healthy_actor(how: str, pauses: int, point: int) -> None:
    """`point` counts turns of the loop: before the ask is begun, while the generator awaits, while it has yielded, ..."""

    @simulated(4)
    async def run(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
        got: list[int] = []

        async def read() -> None:
            stream = rows(ref, 5, demand=2, pauses=pauses)
            async for row in stream:
                got.append(row)
                if how == "close" and len(got) > point / 3:
                    await stream.aclose()
                elif how == "drop" and len(got) > point / 3:
                    return

        async def read_for_a_while() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None) as scope:
                    asyncio.get_running_loop().call_soon(expire, scope, point)
                    await read()

        def expire(scope: asyncio.Timeout, turns: int) -> None:
            if turns:
                asyncio.get_running_loop().call_soon(expire, scope, turns - 1)
            elif not scope.expired():
                with contextlib.suppress(RuntimeError):  # it has been left
                    scope.reschedule(asyncio.get_running_loop().time())

        reading = asyncio.ensure_future(read_for_a_while() if how == "timeout" else read())
        if how == "cancel":
            for _ in range(point):
                await asyncio.sleep(0)
            reading.cancel()
        await asyncio.wait([reading])
        await system.wait_idle()
        assert got == list(range(len(got)))
        assert len(log.ended) <= 1
        if log.ended == ["completed"]:
            assert log.yielded == 5
        assert ref.cell.failed == ref.cell.lifecycle.restarts == 0
        assert await ref.ask(Reader.ping) == "pong"
        assert_accounted(ref)

    run()


@pytest.mark.rule("A31")
@pytest.mark.rule("A41")
@simulated()
async def test_giving_up_before_it_begins_is_a_dead_letter(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    first = ref.stream(Reader.waiting, 1)
    assert await anext(first) == 0
    second = rows(ref, 3)
    waiting = asyncio.ensure_future(anext(second))
    await until(lambda: ref.cell.queued == 1)
    waiting.cancel()
    await asyncio.wait([waiting])
    await first.aclose()
    await system.wait_idle()
    assert [letter.method for letter in system.dead_letters] == ["rows"]
    assert system.dead_letters[0].message == (3,)
    assert log.yielded == 0


@pytest.mark.rule("A31")
@simulated()
async def test_dropping_the_stream_ends_the_generator(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    async for _ in rows(ref, 100, demand=2):
        break
    await until(lambda: log.ended == ["closed"])
    assert ref.cell.failed == 0


@simulated()
async def test_the_end_of_the_reading_actor_ends_the_generator(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    of_reader = Log()
    reading = await system.spawn(Reader, of_reader)
    asked = reading.ask(Reader.read_one_and_wait, ref)
    await until(lambda: of_reader.yielded == 1)
    await system.kill(reading)
    with pytest.raises(sage.ActorStopped):
        await asked
    await until(lambda: log.ended == ["cleaned up"])
    assert await ref.ask(Reader.ping) == "pong"


@simulated()
async def test_a_generator_may_catch_its_cancellation(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    stream = ref.stream(Reader.stubborn)
    assert await anext(stream) == 0
    await stream.aclose()
    assert [row async for row in rows(ref, 2)] == [0, 1]
    assert ref.cell.failed == 0


@simulated()
async def test_cleaning_up_may_ask_others(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    other = await system.spawn(Reader)
    stream = ref.stream(Reader.asks_when_closed, other)
    assert await anext(stream) == 0
    await stream.aclose()
    assert log.ended == ["pong"]


@simulated()
async def test_a_cleanup_that_fails_is_the_actors_failure(system: sage.ActorSystem, ref: sage.ActorRef[Reader], log: Log) -> None:
    ref = await system.spawn(Reader, restart=sage.FixedDelay(attempts=1, delay=0))
    stream = ref.stream(Reader.failing_cleanup)
    assert await anext(stream) == 0
    await stream.aclose()
    assert await ref.ask(Reader.ping) == "pong"
    assert ref.cell.lifecycle.restarts == 1


@pytest.mark.asyncio
async def test_a_stream_has_one_reader() -> None:
    async with sage.ActorSystem("streams") as system:
        ref = await system.spawn(Reader)
        stream = ref.stream(Reader.waiting, 0)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(sage.ActorError, match="one reader"):
            await anext(stream)
        assert not first.done(), "who was there first goes on"
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await first


@pytest.mark.asyncio
async def test_deadlines_travel_into_streams() -> None:
    clock = ManualClock()
    async with sage.ActorSystem("streams", clock=clock) as system:
        log = Log()
        ref, reading = await system.spawn(Reader, log), await system.spawn(Reader)
        asked = reading.ask(Reader.read_one_and_wait, ref, timeout=5)
        await clock.advance(4)
        assert not asked.done()
        await clock.advance(1.1)
        with pytest.raises(sage.AskTimeout):
            await asked
        assert log.ended == ["cleaned up"], "nobody waits for its parts any more"
        assert await ref.ask(Reader.ping) == "pong"
        await reading.tell(Reader.open)
        await system.kill(reading)


@pytest.mark.asyncio
async def test_a_full_mailbox_is_waited_for_or_refuses() -> None:
    async with sage.ActorSystem("streams") as system:
        policies: tuple[Overflow, ...] = ("wait", "fail")
        for overflow in policies:
            ref = await system.spawn(Reader, mailbox=sage.MailboxSettings(capacity=1, overflow=overflow))
            first = ref.stream(Reader.waiting, 1)
            assert await anext(first) == 0
            second, third = rows(ref, 1), rows(ref, 1)
            queued = asyncio.ensure_future(anext(second))
            await until(lambda ref=ref: ref.cell.queued == 1)  # type: ignore[misc]
            if overflow == "fail":
                with pytest.raises(sage.MailboxFull):
                    await anext(third)
            else:
                waiting = asyncio.ensure_future(anext(third))
                await until(lambda ref=ref: ref.cell.statistics().waiting_putters == 1)  # type: ignore[misc]
                await first.aclose()
                assert await waiting == 0
            await first.aclose()
            assert await queued == 0
            await system.wait_idle()


def test_dropped_in_another_thread_or_after_the_loop_it_does_no_harm() -> None:
    kept: list[AsyncGenerator[int, None] | AnswerStream[int]] = []

    async def main() -> None:
        async with sage.ActorSystem("streams") as system:
            log = Log()
            ref = await system.spawn(Reader, log)
            held = [rows(ref, 100, demand=2)]
            assert await anext(held[0]) == 0
            await asyncio.get_running_loop().run_in_executor(None, held.clear)
            await until(lambda: log.ended == ["closed"])
            kept.append(rows(ref, 1))
            assert await anext(kept[0]) == 0

    asyncio.run(main())
    kept.clear()
