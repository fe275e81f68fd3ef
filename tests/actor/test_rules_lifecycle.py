"""Living actors held to the rules of a life: which hooks run and when, first starts, instances that are let go and made again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import sage_actor as sage

MakeSystem = Callable[..., sage.ActorSystem]

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)
AFTER_A_SECOND = sage.FixedDelay(attempts=None, delay=1)


class Boom(Exception):
    """What the actors here fail with."""


class Worker(sage.Actor):
    """Writes down what it is told."""

    def __init__(self, log: list[Any] | None = None, births: list[float] | None = None) -> None:
        self.log: list[Any] = [] if log is None else log
        self.mine: list[Any] = []
        if births is not None:
            births.append(self.context.system.clock.monotonic())

    def receive(self, message: object) -> object:
        self.log.append(message)
        self.mine.append(message)
        if message == "boom":
            raise Boom("on purpose")
        return message

    def seen(self) -> list[Any]:
        return self.mine

    async def fail_later(self, gate: asyncio.Event) -> None:
        await gate.wait()
        raise Boom("later")


async def fail(worker: sage.ActorRef[Any]) -> None:
    with pytest.raises(sage.ActorFailed) as caught:
        await worker.ask("boom")
    assert isinstance(caught.value.__cause__, Boom)


# -- what happens on the way ------------------------------------------------------------------------------------------


class Household(sage.Actor):
    """Has children and timers, and tells its instances apart."""

    def __init__(self, log: list[str], lives: list[int]) -> None:
        lives.append(len(lives) + 1)
        self.log, self.life = log, len(lives)

    async def on_start(self) -> None:
        for name in ("a", "b"):
            await self.context.spawn(Minor, self.log, name, name=name)
        self.context.timers.every("beat", 10, self.beat)
        self.context.timers.once("late", 25, self.late)
        self.log.append(f"start {self.life}")

    async def on_restart(self, error: BaseException) -> None:
        assert self.context.children == ()
        assert self.context.timers.active == ()
        self.log.append(f"restart {self.life}")

    async def on_stop(self) -> None:
        assert self.context.children == ()
        self.log.append(f"stop {self.life}")

    def receive(self, message: object) -> object:
        if message == "boom":
            raise Boom("on purpose")
        return self.life

    def beat(self) -> None:
        self.log.append(f"beat {self.life}")

    def late(self) -> None:
        self.log.append(f"late {self.life}")

    async def busy(self, gate: asyncio.Event) -> None:
        await gate.wait()
        raise Boom("after a while")


class Minor(sage.Actor):
    """A child that takes its time to end."""

    def __init__(self, log: list[str], tag: str) -> None:
        self.log, self.tag = log, tag

    async def on_stop(self) -> None:
        await self.context.system.clock.sleep(1)
        self.log.append(f"stop {self.tag}")


@pytest.mark.rule("A11")
async def test_timers_and_children_end_before_on_restart_and_the_fresh_instance_has_its_own(make_system: MakeSystem) -> None:
    log: list[str] = []
    async with make_system() as system:
        house = await system.spawn(Household, log, [], name="h", restart=AFTER_A_SECOND)
        await system.clock.sleep(15)
        await fail(house)
        assert await house.ask("hello") == 2
        assert log == ["start 1", "beat 1", "stop b", "stop a", "restart 1", "start 2"]
        log.clear()
        await system.clock.sleep(28)
        assert log == ["beat 2", "beat 2", "late 2"], "by the clock of the second life; nothing of the first"
        assert system.lookup("h/a") is not None
        log.clear()
    assert log == ["stop b", "stop a", "stop 2"]


@pytest.mark.rule("A11")
async def test_a_tick_that_waits_already_is_not_for_the_fresh_instance(make_system: MakeSystem) -> None:
    log: list[str] = []
    gate = asyncio.Event()
    async with make_system() as system:
        house = await system.spawn(Household, log, [], name="h", restart=AT_ONCE)
        await house.tell(Household.busy, gate)
        await system.clock.sleep(26)  # ticks of both timers wait behind the handler
        gate.set()
        assert await house.ask("hello") == 2
        assert log == ["start 1", "stop b", "stop a", "restart 1", "start 2"]


@pytest.mark.rule("A11")
async def test_on_restart_is_told_the_error_and_may_fail(make_system: MakeSystem) -> None:
    told: list[BaseException] = []

    class Failing(Worker):
        async def on_restart(self, error: BaseException) -> None:
            told.append(error)
            raise ValueError("in the hook")

    async with make_system() as system:
        worker = await system.spawn(Failing, restart=AT_ONCE)
        await fail(worker)
        assert await worker.ask("x") == "x"
        assert [type(error) for error in told] == [Boom]


async def test_an_on_restart_that_hangs_is_cut_off(make_system: MakeSystem) -> None:
    class Hanging(Worker):
        async def on_restart(self, error: BaseException) -> None:
            await asyncio.Event().wait()

    async with make_system(stop_timeout=7) as system:
        worker = await system.spawn(Hanging, restart=AT_ONCE)
        begun = system.clock.monotonic()
        await fail(worker)
        assert await worker.ask("x") == "x"
        assert system.clock.monotonic() == pytest.approx(begun + 7)


async def test_a_cancellation_inside_on_start_is_a_failed_start(make_system: MakeSystem) -> None:
    """As in a handler: nobody cancelled the actor, so it must not stay behind half started."""
    lives: list[int] = []

    class Cancelled(Worker):
        async def on_start(self) -> None:
            lives.append(1)
            if len(lives) in (1, 3):
                raise asyncio.CancelledError

    async with make_system() as system:
        with pytest.raises(sage.ActorFailed, match="on_start was cancelled"):
            await system.spawn(Cancelled, name="c", restart=AT_ONCE)
        worker = await system.spawn(Cancelled, name="c", restart=AT_ONCE)
        await fail(worker)
        assert await worker.ask("x") == "x"
        assert len(lives) == 4


class Guarded(sage.Actor):
    """Notes when it is alive, so that lives can be seen not to overlap, and each to be let go once."""

    def __init__(self, open_now: list[int], let_go: list[int]) -> None:
        self.open_now, self.let_go = open_now, let_go

    async def on_start(self) -> None:
        assert self.open_now == []
        await self.context.system.clock.sleep(1)
        self.open_now.append(id(self))

    async def close(self) -> None:
        await self.context.system.clock.sleep(1)
        self.open_now.remove(id(self))
        self.let_go.append(id(self))

    async def on_restart(self, error: BaseException) -> None:
        await self.close()

    async def on_stop(self) -> None:
        await self.close()

    def receive(self, message: object) -> None:
        if message == "boom":
            raise Boom("on purpose")


@pytest.mark.rule("A11")
@pytest.mark.parametrize("after", [0.0, 0.5, 1.5, 2.9, 3.1, 3.9, 4.1, 5.0])
async def test_each_instance_is_let_go_once_whenever_the_stop_comes(make_system: MakeSystem, after: float) -> None:
    """A failure at 0; until 1 on_restart, until 3 the delay, until 4 on_start of the second life."""
    open_now: list[int] = []
    let_go: list[int] = []
    async with make_system() as system:
        actor = await system.spawn(Guarded, open_now, let_go, restart=sage.FixedDelay(delay=2))
        await actor.tell("boom")
        await system.clock.sleep(after)
        await system.stop(actor, drain=False)
        assert open_now == []
        assert len(let_go) == (1 if after < 3 else 2)


# -- first starts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["class", "on_start"])
async def test_a_failed_spawn_leaves_nothing(make_system: MakeSystem, where: str) -> None:
    class Bad(sage.Actor):
        def __init__(self, heard: list[object]) -> None:
            self.context.timers.every("beat", 1, self.beat)
            if where == "class":
                raise Boom("no")

        async def on_start(self) -> None:
            await self.context.spawn(Worker, name="child")
            await self.ref.tell("a message to itself")
            raise Boom("no")

        def beat(self) -> None:
            raise AssertionError("a timer of an actor that never was")

    async with make_system() as system:
        for _ in range(2):
            with pytest.raises(sage.ActorFailed, match=r"actor 'bad', start: Boom: no") as caught:
                await system.spawn(Bad, [], name="bad")
            assert isinstance(caught.value.__cause__, Boom)
            assert system.lookup("bad") is None
            assert system.lookup("bad/child") is None
            assert system.statistics().living == 0
        await system.clock.sleep(10)
        assert len(system.dead_letters) == (0 if where == "class" else 2)


async def test_cancelling_a_spawn_leaves_nothing(make_system: MakeSystem) -> None:
    unwound: list[str] = []

    class Slow(sage.Actor):
        async def on_start(self) -> None:
            await self.context.spawn(Worker, name="child")
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                unwound.append("on_start")

    async with make_system() as system:
        spawning = asyncio.ensure_future(system.spawn(Slow, name="slow"))
        await system.clock.sleep(1)
        found = system.lookup("slow")
        assert found is not None
        asked = found.ask("hello")
        spawning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spawning
        assert unwound == ["on_start"]
        assert system.lookup("slow") is None
        assert system.statistics().living == 0
        with pytest.raises(sage.ActorStopped):
            await asked


async def test_cancelling_a_spawn_that_waits_to_try_again_leaves_nothing(make_system: MakeSystem) -> None:
    class Bad(sage.Actor):
        def __init__(self) -> None:
            raise Boom("no")

    async with make_system() as system:
        spawning = asyncio.ensure_future(system.spawn(Bad, name="bad", retry_start=True, restart=sage.FixedDelay(delay=60)))
        await system.clock.sleep(1)
        assert system.lookup("bad") is not None, "the name is taken"
        spawning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spawning
        assert system.lookup("bad") is None
        assert system.statistics().living == 0


async def test_mail_for_an_actor_that_starts_waits(make_system: MakeSystem) -> None:
    log: list[Any] = []

    class Slow(Worker):
        async def on_start(self) -> None:
            await self.context.system.clock.sleep(5)
            self.log.append("started")

    async with make_system() as system:
        spawning = asyncio.ensure_future(system.spawn(Slow, log, name="slow"))
        await system.clock.sleep(1)
        found = system.lookup("slow")
        assert found is not None
        asked = found.ask("hello")
        with pytest.raises(sage.NameTaken):
            await system.spawn(Worker, name="slow")
        assert await asked == "hello"
        assert log == ["started", "hello"]
        assert await spawning == found


@pytest.mark.parametrize("where", ["class", "on_start"])
async def test_an_actor_may_end_itself_while_it_starts(make_system: MakeSystem, where: str) -> None:
    log: list[str] = []

    class Brief(sage.Actor):
        def __init__(self) -> None:
            if where == "class":
                self.context.stop()

        async def on_start(self) -> None:
            if where == "on_start":
                self.context.stop()
            await self.context.system.clock.sleep(1)
            log.append("started")

        async def on_stop(self) -> None:
            log.append("stopped")

    async with make_system() as system:
        brief = await system.spawn(Brief, name="b")
        ended = await system.watch(brief)
        assert ended.reason is None
        assert log == ["started", "stopped"]
        assert system.lookup("b") is None


# -- passivation ------------------------------------------------------------------------------------------------------


async def test_the_end_of_a_passive_actor_does_not_wake_it(make_system: MakeSystem) -> None:
    births: list[float] = []
    async with make_system() as system:
        worker = await system.spawn(Worker, None, births, passivate_after=10)
        for drain in (True, False):
            await system.clock.sleep(100)
            assert system.statistics().actors[0].state == "passive"
            if drain:
                assert await worker.ask("x") == "x"
                assert len(births) == 2
                await system.clock.sleep(100)
            await system.stop(worker, drain=drain)
            assert len(births) == 2
            worker = await system.spawn(Worker, None, None, passivate_after=10)


async def test_a_passive_sibling_sleeps_on(make_system: MakeSystem) -> None:
    births: list[float] = []

    class House(sage.Actor):
        async def on_start(self) -> None:
            await self.context.spawn(Worker, name="a", restart=AT_ONCE)
            await self.context.spawn(partial(Worker, None, births), name="b", restart=AT_ONCE, passivate_after=10)

    async with make_system() as system:
        await system.spawn(House, name="h", supervision=sage.Supervision(scope="all_for_one"))
        await system.clock.sleep(100)
        a, b = system.lookup("h/a"), system.lookup("h/b")
        assert a is not None
        assert b is not None
        await fail(a)
        assert await a.ask("x") == "x"
        assert len(births) == 1
        assert await b.ask("x") == "x"
        assert len(births) == 2
