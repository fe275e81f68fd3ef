"""Timers of actors: when they tick, how they end, and what becomes of a tick that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor.testing import ManualClock

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)


class Ticking(sage.Actor):
    """Notes its ticks with their instants, in a list that outlives it."""

    def __init__(self, ticks: list[tuple[str, float]]) -> None:
        self.ticks = ticks
        self.gate = asyncio.Event()

    def now(self) -> float:
        return self.context.system.clock.monotonic()

    def tick(self, name: str = "tick") -> None:
        self.ticks.append((name, self.now()))

    async def slow_tick(self, name: str) -> None:
        self.tick(name)
        await self.gate.wait()

    async def work(self) -> None:
        await self.gate.wait()

    def fail(self) -> None:
        raise ValueError("on purpose")

    async def fail_when_open(self) -> None:
        await self.gate.wait()
        raise ValueError("on purpose")

    def once(self, key: str, after: float | str, *arguments: Any, method: str = "tick") -> None:
        self.context.timers.once(key, after, getattr(self, method), *arguments)

    def every(self, key: str, period: float | str, *arguments: Any, method: str = "tick") -> None:
        self.context.timers.every(key, period, getattr(self, method), *arguments)

    def cancel(self, key: str) -> bool:
        return self.context.timers.cancel(key)

    def active(self) -> tuple[str, ...]:
        return self.context.timers.active


Ticks = list[tuple[str, float]]


def make_system(clock: ManualClock) -> sage.ActorSystem:
    return sage.ActorSystem(clock=clock, restart=AT_ONCE, stop_timeout=0)


@pytest.mark.asyncio
async def test_once_ticks_once_at_its_time() -> None:
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        await ref.ask(Ticking.once, "a", 2, "first")
        await ref.ask(Ticking.once, "b", "500ms", "second")
        assert await ref.ask(Ticking.active) == ("a", "b")
        await clock.advance(0.499)
        assert ticks == []
        await clock.advance(0.001)
        assert ticks == [("second", 0.5)]
        assert await ref.ask(Ticking.active) == ("a",)
        await clock.advance(100)
        assert ticks == [("second", 0.5), ("first", 2.0)]
        assert await ref.ask(Ticking.active) == ()
        assert await ref.ask(Ticking.cancel, "a") is False
        assert clock.pending == 0


@pytest.mark.asyncio
async def test_zero_ticks_after_the_handler_that_asked_for_it() -> None:
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        await ref.ask(Ticking.once, "a", 0)
        assert ticks == []
        await clock.advance(0)
        assert ticks == [("tick", 0.0)]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 50), st.lists(st.integers(0, 200), max_size=8))
def test_every_keeps_its_rhythm_however_time_passes(period: int, steps: list[int]) -> None:
    """The n-th tick comes at n periods, to the millisecond; none is lost and none comes early."""

    async def main() -> None:
        clock, ticks = ManualClock(), Ticks()
        async with make_system(clock) as system:
            ref = await system.spawn(Ticking, ticks)
            await ref.ask(Ticking.every, "a", period / 1000)
            passed = 0
            for step in steps:
                await clock.advance(step / 1000)
                passed += step
                assert [round(at * 1000) for _, at in ticks] == list(range(period, passed + 1, period))

    asyncio.run(main())


@pytest.mark.asyncio
async def test_a_slow_actor_skips_ticks_and_owes_none() -> None:
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        await ref.ask(Ticking.every, "a", 1, "slow", method="slow_tick")
        await clock.advance(3.5)  # the tick at 1 is being handled, that of 2 and 3 are skipped
        assert ticks == [("slow", 1.0)]
        ref.cell.actor.gate.set()
        await clock.advance(0)
        assert ticks == [("slow", 1.0)]
        await clock.advance(1.5)
        assert ticks == [("slow", 1.0), ("slow", 4.0), ("slow", 5.0)]


@pytest.mark.asyncio
async def test_only_one_tick_waits_behind_a_long_handler_and_the_rhythm_is_kept() -> None:
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        await ref.ask(Ticking.every, "a", 1)
        await ref.tell(Ticking.work)
        await clock.advance(4.25)
        assert ticks == []
        ref.cell.actor.gate.set()
        await clock.advance(0)
        assert ticks == [("tick", 4.25)]
        await clock.advance(1)
        assert ticks == [("tick", 4.25), ("tick", 5.0)]


@pytest.mark.parametrize("kind", ["once", "every"])
@pytest.mark.parametrize("end", ["cancelled", "replaced", "replaced by the other kind"])
@pytest.mark.asyncio
async def test_a_tick_that_waits_already_is_revoked(kind: str, end: str) -> None:
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        start: Callable[..., Any] = Ticking.once if kind == "once" else Ticking.every
        other: Callable[..., Any] = Ticking.every if kind == "once" else Ticking.once
        await ref.ask(start, "a", 1, "old")
        await ref.tell(Ticking.work)
        await clock.advance(1.5)
        timers = ref.cell.lifecycle.actor_context.timers  # the handler itself could do this, it is still running
        if end == "cancelled":
            assert timers.cancel("a") is True
            assert timers.cancel("a") is False
        else:
            again = start if end == "replaced" else other
            (timers.once if again is Ticking.once else timers.every)("a", 1, Ticking.tick, "new")
        ref.cell.actor.gate.set()
        await clock.advance(1)
        assert ticks == ([] if end == "cancelled" else [("new", 2.5)])


@pytest.mark.rule("A11")
@pytest.mark.parametrize("kind", ["once", "every"])
@pytest.mark.parametrize("after", [0.5, 1.5])
@pytest.mark.asyncio
async def test_a_restart_cancels_all_timers_and_the_ticks_that_wait(kind: str, after: float) -> None:
    """The failing handler ends before the first tick is due, or when it waits in the control lane already."""
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        await ref.ask(Ticking.once if kind == "once" else Ticking.every, "a", 1)
        await ref.tell(Ticking.fail_when_open)
        await clock.advance(after)
        ref.cell.actor.gate.set()
        await clock.advance(10)
        assert ticks == []
        assert system.statistics().actors[0].restarts == 1
        assert await ref.ask(Ticking.active) == ()
        assert clock.pending == 0


@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.asyncio
async def test_a_stop_cancels_all_timers(drain: bool) -> None:
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        await ref.ask(Ticking.every, "a", 1)
        await ref.ask(Ticking.once, "b", 2)
        await system.stop(ref, drain=drain)
        await clock.advance(10)
        assert ticks == []
        assert clock.pending == 0


@pytest.mark.asyncio
async def test_a_timer_started_in_on_start_lives_again_after_a_restart() -> None:
    class Steady(Ticking):
        async def on_start(self) -> None:
            self.context.timers.every("steady", 1, self.tick)

    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Steady, ticks)
        await clock.advance(1.5)
        await ref.tell(Ticking.fail)
        await clock.advance(2)
        assert ticks == [("tick", 1.0), ("tick", 2.5), ("tick", 3.5)]


@pytest.mark.asyncio
async def test_a_tick_that_fails_fails_the_actor_like_a_message() -> None:
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        await ref.ask(Ticking.once, "a", 1, method="fail")
        await clock.advance(2)
        assert system.failures == 1
        assert system.statistics().actors[0].restarts == 1
        found = system.statistics().actors[0]
        assert (found.accepted, found.handled, found.failed) == (1, 1, 1)  # a tick is no message


@pytest.mark.asyncio
async def test_a_tick_may_cancel_or_restart_its_own_timer() -> None:
    class Thrice(Ticking):
        def tick(self, name: str = "tick") -> None:
            super().tick(name)
            if len(self.ticks) == 3:
                assert self.context.timers.cancel("a") is True

        def again(self, name: str) -> None:
            super().tick(name)
            if len(self.ticks) < 6:
                self.context.timers.once("b", 1, self.again, name)

    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Thrice, ticks)
        await ref.ask(Ticking.every, "a", 1)
        await clock.advance(10)
        assert [at for _, at in ticks] == [1, 2, 3]
        await ref.ask(Ticking.once, "b", 1, "b", method="again")
        await clock.advance(10)
        assert [at for _, at in ticks[3:]] == [11, 12, 13]


@pytest.mark.asyncio
async def test_what_makes_no_sense_is_refused_and_leaves_the_old_timer_alone() -> None:
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        await ref.ask(Ticking.once, "a", 1)
        timers = ref.cell.lifecycle.actor_context.timers
        with pytest.raises(sage.ActorError, match="period above 0"):
            timers.every("a", 0, Ticking.tick)
        with pytest.raises(sage.ConfigError):
            timers.once("a", "soon", Ticking.tick)
        with pytest.raises(sage.ActorError, match="belongs to another object"):
            timers.once("a", 1, Ticking(ticks).tick)
        await clock.advance(1)
        assert ticks == [("tick", 1.0)]


@pytest.mark.asyncio
async def test_many_one_shot_timers_leave_nothing_behind() -> None:
    clock, ticks = ManualClock(), Ticks()
    async with make_system(clock) as system:
        ref = await system.spawn(Ticking, ticks)
        for number in range(500):
            await ref.ask(Ticking.once, f"key {number}", 0.001 * number, str(number))
        await clock.advance(1)
        assert [name for name, _ in ticks] == [str(number) for number in range(500)]
        timers = ref.cell.lifecycle.actor_context.timers
        assert len(timers._timers) + len(timers._rung) <= 1
