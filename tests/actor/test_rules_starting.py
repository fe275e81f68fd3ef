"""Starts that fail, the first and later ones, held to the rules of supervision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import sage_actor as sage

MakeSystem = Callable[..., sage.ActorSystem]

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)


class Boom(Exception):
    """What the actors here fail with."""


class Child(sage.Actor):
    """Writes down its life."""

    def __init__(self, log: list[str], tag: str) -> None:
        self.log, self.tag, self.n = log, tag, 0

    async def on_start(self) -> None:
        self.log.append(f"start {self.tag}")

    async def on_restart(self, error: BaseException) -> None:
        self.log.append(f"let go {self.tag}")

    async def on_stop(self) -> None:
        await asyncio.sleep(0)
        self.log.append(f"stop {self.tag}")

    def count(self) -> int:
        self.n += 1
        return self.n

    def fail(self) -> None:
        raise Boom(self.tag)

    async def wait_for(self, event: asyncio.Event) -> None:
        await event.wait()
        raise Boom(self.tag)


class Parent(sage.Actor):
    """Starts its children, first to last."""

    def __init__(self, log: list[str], tags: str, strategies: dict[str, Any] | None = None) -> None:
        self.log, self.tags, self.strategies, self.n = log, tags, strategies or {}, 0

    async def on_start(self) -> None:
        for tag in self.tags:
            await self.context.spawn(Child, self.log, tag, name=tag, restart=self.strategies.get(tag, AT_ONCE))

    async def on_restart(self, error: BaseException) -> None:
        self.log.append(f"let go parent for {error}")

    def count(self) -> int:
        self.n += 1
        return self.n


async def fail(system: sage.ActorSystem, path: str) -> None:
    """Has an actor fail; its restart is under way then."""
    with pytest.raises(sage.ActorFailed) as caught:
        await find(system, path).ask(Child.fail)
    assert isinstance(caught.value.__cause__, Boom)


def find(system: sage.ActorSystem, path: str) -> sage.ActorRef[Child]:
    found = system.lookup(path)
    assert found is not None, path
    return found


class Stubborn(Child):
    """Its second life and those after it do not start, up to a number."""

    def __init__(self, log: list[str], tag: str, starts: list[float], until: int, in_class: bool) -> None:
        super().__init__(log, tag)
        self.starts, self.until, self.in_class = starts, until, in_class
        if in_class:
            self.begin()

    async def on_start(self) -> None:
        if not self.in_class:
            self.begin()

    def begin(self) -> None:
        self.starts.append(self.context.system.clock.monotonic())
        if 1 < len(self.starts) < self.until:
            raise Boom(f"start {len(self.starts)}")


@pytest.mark.rule("A6")
@pytest.mark.parametrize("in_class", [True, False])
async def test_a_start_that_fails_in_a_restart_spends_the_budget_again(make_system: MakeSystem, in_class: bool) -> None:
    starts: list[float] = []
    async with make_system() as system:
        strategy = sage.ExponentialDelay(attempts=3, delay=1, max_delay=60, jitter=0)
        child = await system.spawn(Stubborn, [], "a", starts, 4, in_class, name="a", restart=strategy)
        begun = system.clock.monotonic()
        await fail(system, "a")
        assert await child.ask(Child.count) == 1
        assert [round(at - begun, 6) for at in starts] == [0, 1, 3, 7], "delays of 1, 2 and 4 seconds: three failures in a row"
        ended = system.watch(child)
        await fail(system, "a")
        assert isinstance((await ended).reason, Boom)


@pytest.mark.rule("A6")
async def test_a_stop_gets_in_between_starts_that_keep_failing(make_system: MakeSystem) -> None:
    enough = asyncio.Event()

    class Starts(list[float]):
        def append(self, at: float) -> None:
            super().append(at)
            if len(self) == 5:
                enough.set()

    starts = Starts()
    async with make_system() as system:
        child = await system.spawn(Stubborn, [], "a", starts, 10**9, True, name="a", restart=AT_ONCE)
        await fail(system, "a")
        await enough.wait()
        waiting = child.ask(Child.count)
        await system.stop(child, drain=False)
        with pytest.raises(sage.ActorStopped):
            await waiting
        made = len(starts)
        await system.clock.sleep(60)
        assert len(starts) == made


@pytest.mark.rule("A6")
@pytest.mark.rule("A3")
async def test_a_start_that_fails_for_good_does_not_keep_the_later_siblings_from_starting(make_system: MakeSystem) -> None:
    log: list[str] = []
    starts: list[float] = []

    class Group(sage.Actor):
        async def on_start(self) -> None:
            await self.context.spawn(Child, log, "a", name="a", restart=AT_ONCE)
            await self.context.spawn(Stubborn, log, "b", starts, 10**9, True, name="b", restart=sage.FixedDelay(attempts=0, delay=0))
            await self.context.spawn(Child, log, "c", name="c", restart=AT_ONCE)

    async with make_system() as system:
        await system.spawn(Group, name="p", supervision=sage.Supervision(scope="all_for_one"))
        ended = system.watch(find(system, "p/b"))
        await fail(system, "p/a")
        assert await find(system, "p/c").ask(Child.count) == 1
        assert await find(system, "p/a").ask(Child.count) == 1
        assert isinstance((await ended).reason, Boom)
        assert len(starts) == 2


@pytest.mark.rule("A10")
async def test_a_first_start_is_tried_again_where_that_was_asked_for(make_system: MakeSystem) -> None:
    tries: list[float] = []

    class Late(sage.Actor):
        async def on_start(self) -> None:
            tries.append(self.context.system.clock.monotonic())
            await self.context.spawn(Child, [], "a", name="a")
            self.context.timers.every("beat", 0.1, self.ready)
            if len(tries) < 3:
                raise Boom("not yet")

        def ready(self) -> int:
            return len(tries)

    strategy = sage.ExponentialDelay(attempts=2, delay=1, max_delay=60, jitter=0)
    async with make_system() as system:
        begun = system.clock.monotonic()
        late = await system.spawn(Late, name="late", restart=strategy, retry_start=True)
        assert [round(at - begun, 6) for at in tries] == [0, 1, 3]
        assert await late.ask(Late.ready) == 3
        tries.clear()
        with pytest.raises(sage.ActorFailed, match="not yet"):  # without asking, at once
            await system.spawn(Late, name="other", restart=strategy)
        assert len(tries) == 1
        assert system.statistics().living == 2, "the failed one's child is gone too"
        assert system.lookup("other") is None


@pytest.mark.rule("A10")
async def test_a_first_start_gives_up_when_the_strategy_does(make_system: MakeSystem) -> None:
    tries: list[int] = []

    class Never(sage.Actor):
        def __init__(self) -> None:
            tries.append(1)
            raise Boom("never")

    async with make_system() as system:
        with pytest.raises(sage.ActorFailed, match="never"):
            await system.spawn(Never, name="n", restart=sage.FixedDelay(attempts=2, delay=1), retry_start=True)
        assert len(tries) == 3
        assert system.lookup("n") is None
        assert system.statistics().living == 0
