"""ManualClock: time passes only in `advance`, in order, and everything that can run has run when it returns."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.errors import ConfigError
from sage_actor.ports import Clock, system_clock
from sage_actor.testing import ManualClock

T = TypeVar("T")
Run = Callable[[Callable[[], Coroutine[Any, Any, T]]], T]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run[Any]:
    """Runs a coroutine function on a loop of each kind."""

    def on_loop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main())

    return on_loop


def test_time_stands_still_until_it_is_moved(run: Run[None]) -> None:
    async def main() -> None:
        clock: Clock = ManualClock(start=5.0)
        waiting = asyncio.ensure_future(clock.sleep(1.0))
        for _ in range(50):
            await asyncio.sleep(0)
        assert (clock.monotonic(), clock.now_ms()) == (5.0, 5000)
        assert not waiting.done()
        waiting.cancel()

    run(main)


def test_a_delay_ends_at_its_instant_and_not_before(run: Run[None]) -> None:
    async def main() -> None:
        clock = ManualClock()
        waiting = asyncio.ensure_future(clock.sleep(1.0))
        await clock.advance(0.9)
        assert not waiting.done()
        await clock.advance(0.2)
        assert waiting.done()
        assert (clock.monotonic(), clock.now_ms()) == (1.1, 1100)

    run(main)


def test_many_small_steps_make_a_whole_second(run: Run[None]) -> None:
    async def main() -> None:
        clock = ManualClock()
        waiting = asyncio.ensure_future(clock.sleep(1.0))
        for _ in range(10):
            assert not waiting.done()
            await clock.advance("100ms")
        assert waiting.done()
        assert clock.monotonic() == 1.0

    run(main)


def test_each_step_is_worked_off_before_time_goes_on(run: Run[None]) -> None:
    """A chain of work begun by one instant runs to its end at that instant, and what it schedules falls into the same span."""

    async def main() -> None:
        clock = ManualClock()
        seen: list[tuple[str, float]] = []
        handed: asyncio.Queue[str] = asyncio.Queue()

        async def consumer() -> None:
            while True:
                name = await handed.get()
                for _ in range(5):
                    await asyncio.sleep(0)
                seen.append((name, clock.monotonic()))

        async def periodic(name: str, period: float) -> None:
            while True:
                await clock.sleep(period)
                await handed.put(name)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(c) for c in (consumer(), periodic("a", 0.4), periodic("b", 0.5))]
            await clock.advance("1s")
            assert seen == [("a", 0.4), ("b", 0.5), ("a", 0.8), ("b", 1.0)]
            assert clock.pending == 2
            for task in tasks:
                task.cancel()

    run(main)


def test_ties_are_kept_in_order_of_scheduling(run: Run[None]) -> None:
    async def main() -> None:
        clock = ManualClock()
        seen: list[int] = []
        for number in range(20):
            clock.call_later(1.0, lambda number=number: seen.append(number))
        await clock.advance(1)
        assert seen == list(range(20))

    run(main)


def test_no_delay_needs_no_advance_and_never_calls_back_at_once(run: Run[None]) -> None:
    async def main() -> None:
        clock = ManualClock()
        seen: list[str] = []
        clock.call_later(0.0, lambda: seen.append("called"))
        called_off = clock.call_later(-1.0, lambda: seen.append("cancelled"))
        called_off.cancel()
        assert seen == []
        await clock.sleep(0)
        assert seen == ["called"]

    run(main)


def test_what_is_called_off_never_happens_even_by_a_tie(run: Run[None]) -> None:
    async def main() -> None:
        clock = ManualClock()
        seen: list[str] = []
        first = clock.call_later(1.0, lambda: second.cancel())
        second = clock.call_later(1.0, lambda: seen.append("second"))
        third = clock.call_later(0.5, lambda: seen.append("third"))
        third.cancel()
        third.cancel()
        assert clock.pending == 2
        await clock.advance(2)
        first.cancel()
        assert seen == []
        assert clock.pending == 0

    run(main)


def test_a_cancelled_sleeper_leaves_no_timer(run: Run[None]) -> None:
    async def main() -> None:
        clock = ManualClock()
        sleepers = [asyncio.ensure_future(clock.sleep(60.0)) for _ in range(200)]
        await clock.advance(0)
        assert clock.pending == 200
        for sleeper in sleepers[1:]:
            sleeper.cancel()
        await clock.advance(0)
        assert clock.pending == 1
        await clock.advance("1m")
        assert sleepers[0].done()
        assert not sleepers[0].cancelled()

    run(main)


def test_cancelling_advance_leaves_time_where_it_got_to(run: Run[None]) -> None:
    async def main() -> None:
        clock = ManualClock()
        clock.call_later(1.0, lambda: advancing.cancel())
        advancing = asyncio.ensure_future(clock.advance(5))
        with pytest.raises(asyncio.CancelledError):
            await advancing
        assert clock.monotonic() == 1.0
        await clock.advance(1)
        assert clock.monotonic() == 2.0

    run(main)


def test_calls_from_several_tasks_take_turns(run: Run[None]) -> None:
    async def main() -> None:
        clock = ManualClock()
        seen: list[float] = []
        for second in range(1, 7):
            clock.call_later(second, lambda: seen.append(clock.monotonic()))
        await asyncio.gather(clock.advance(3), clock.advance(3))
        assert seen == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]

    run(main)


def test_a_task_that_yields_for_ever_does_not_stop_time(run: Run[None]) -> None:
    async def main() -> None:
        clock = ManualClock()

        async def poll() -> None:
            while clock.monotonic() < 1.0:  # noqa: ASYNC110 - this is what is tested
                await asyncio.sleep(0)

        polling = asyncio.ensure_future(poll())
        await clock.advance(1)
        await polling

    run(main)


@pytest.mark.asyncio
async def test_a_long_chain_is_waited_for() -> None:
    clock = ManualClock()

    async def long() -> None:
        await clock.sleep(1)
        for _ in range(5_000):
            await asyncio.sleep(0)

    working = asyncio.ensure_future(long())
    await clock.advance(1)
    assert working.done()


@pytest.mark.asyncio
async def test_a_callback_runs_in_the_context_of_who_scheduled_it() -> None:
    clock, variable, seen = ManualClock(), contextvars.ContextVar[str]("variable"), list[str]()
    token = variable.set("inner")
    clock.call_later(1, lambda: seen.append(variable.get()))
    variable.reset(token)
    await clock.advance(1)
    assert seen == ["inner"]


@pytest.mark.asyncio
async def test_what_a_callback_raises_goes_to_the_handler_of_the_loop_and_disturbs_nobody() -> None:
    clock, seen, told = ManualClock(), list[int](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    clock.call_later(1, lambda: 1 // 0)
    clock.call_later(1, lambda: seen.append(1))
    await clock.advance(1)
    assert seen == [1]
    assert [type(error) for error in told] == [ZeroDivisionError]


@pytest.mark.asyncio
@pytest.mark.parametrize("wrong", [-1, math.inf, math.nan, "soon"])
async def test_advance_refuses_what_is_no_duration(wrong: float | str) -> None:
    with pytest.raises(ConfigError):
        await ManualClock().advance(wrong)


@pytest.mark.asyncio
async def test_what_never_comes_due_waits_for_ever() -> None:
    clock = ManualClock()
    waiting = asyncio.ensure_future(clock.sleep(math.inf))
    await clock.advance("1000d")
    assert not waiting.done()
    assert clock.pending == 1
    waiting.cancel()


def test_without_a_loop_a_clock_says_so() -> None:
    for clock in (ManualClock(), system_clock):
        with pytest.raises(RuntimeError):
            clock.call_later(1, lambda: None)


@pytest.mark.asyncio
async def test_the_system_clock_calls_back_and_can_be_called_off() -> None:
    done = asyncio.Event()
    called_off = system_clock.call_later(0, lambda: pytest.fail("called off"))
    called_off.cancel()
    system_clock.call_later(0.001, done.set)
    await done.wait()


# Milliseconds, so that the model can count in whole numbers.
steps = st.one_of(
    st.tuples(st.just("call"), st.integers(1, 30)),
    st.tuples(st.just("cancel"), st.integers(0, 40)),
    st.tuples(st.just("advance"), st.integers(0, 25)),
)


@given(st.lists(steps, max_size=40))
def test_against_the_model(program: list[tuple[str, int]]) -> None:
    """A sorted list of (due, number) is the model: what comes due, when, and in which order."""
    expected: list[tuple[int, int]] = []
    waiting: list[tuple[int, int]] = []
    now = number = 0
    for step, argument in program:
        if step == "call":
            waiting.append((now + argument, number))
            number += 1
        elif step == "cancel":
            waiting = [timer for timer in waiting if timer[1] != argument]
        else:
            now += argument
            expected += sorted(timer for timer in waiting if timer[0] <= now)
            waiting = [timer for timer in waiting if timer[0] > now]

    async def main() -> None:
        clock, seen, timers = ManualClock(), list[tuple[int, int]](), []
        for step, argument in program:
            if step == "call":
                this = len(timers)
                timers.append(clock.call_later(argument / 1000, lambda this=this: seen.append((clock.now_ms(), this))))
            elif step == "cancel" and argument < len(timers):
                timers[argument].cancel()
            elif step == "advance":
                await clock.advance(f"{argument}ms")
        assert seen == expected
        assert clock.pending == len(waiting)
        assert clock.now_ms() == now

    asyncio.run(main())
