"""Living supervisors held to the rules: whom a failure concerns, in which order, within which budget, and what escalates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
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


# -- scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A2")
@pytest.mark.rule("A3")
@pytest.mark.parametrize(("scope", "concerned"), [("one_for_one", "b"), ("all_for_one", "abcd"), ("rest_for_one", "bcd")])
async def test_a_failure_restarts_whom_the_scope_says_in_order(make_system: MakeSystem, scope: Any, concerned: str) -> None:
    log: list[str] = []
    async with make_system() as system:
        await system.spawn(Parent, log, "abcd", name="p", supervision=sage.Supervision(scope=scope))
        assert log == [f"start {tag}" for tag in "abcd"]
        for tag in "abcd":
            assert await find(system, f"p/{tag}").ask(Child.count) == 1
        log.clear()
        await fail(system, "p/b")
        counts = {tag: await find(system, f"p/{tag}").ask(Child.count) for tag in "abcd"}
        assert log == [f"let go {tag}" for tag in concerned[::-1]] + [f"start {tag}" for tag in concerned]
        assert counts == {tag: 1 if tag in concerned else 2 for tag in "abcd"}, "the others keep their instance"
        log.clear()
    assert log == [f"stop {tag}" for tag in "dcba"]


@pytest.mark.rule("A4")
@pytest.mark.rule("A3")
async def test_a_sibling_that_never_restarts_is_stopped_for_good(make_system: MakeSystem) -> None:
    log: list[str] = []
    async with make_system() as system:
        supervision = sage.Supervision(scope="all_for_one")
        await system.spawn(Parent, log, "abc", {"b": sage.NoRestart()}, name="p", supervision=supervision)
        ended = system.watch(find(system, "p/b"))
        log.clear()
        await fail(system, "p/c")
        assert await find(system, "p/c").ask(Child.count) == 1
        assert log == ["let go c", "stop b", "let go a", "start a", "start c"]
        assert isinstance((await ended).reason, Boom)
        assert system.lookup("p/b") is None


@pytest.mark.rule("A4")
async def test_no_restart_is_one_life(make_system: MakeSystem) -> None:
    log: list[str] = []
    async with make_system() as system:
        child = await system.spawn(Child, log, "a", restart=sage.NoRestart())
        ended = system.watch(child)
        await child.tell(Child.fail)
        assert isinstance((await ended).reason, Boom)
        assert log == ["start a", "stop a"]
        with pytest.raises(sage.ActorStopped, match="Boom"):
            await child.ask(Child.count)


@pytest.mark.rule("A3")
async def test_the_handler_of_a_sibling_is_interrupted(make_system: MakeSystem) -> None:
    log: list[str] = []
    async with make_system() as system:
        await system.spawn(Parent, log, "ab", name="p", supervision=sage.Supervision(scope="all_for_one"))
        b = find(system, "p/b")
        waiting = b.ask(Child.wait_for, asyncio.Event())
        queued = b.ask(Child.count)
        await system.clock.sleep(1)
        await fail(system, "p/a")
        with pytest.raises(sage.ActorStopped, match="interrupted"):
            await waiting
        assert await queued == 1, "what waited goes to the new instance"
        assert [letter.method for letter in system.dead_letters] == ["wait_for"]
        assert await b.ask(Child.count) == 2


@pytest.mark.rule("A3")
@pytest.mark.parametrize("scope", ["one_for_one", "all_for_one", "rest_for_one"])
async def test_siblings_that_fail_together_restart_without_overlap(make_system: MakeSystem, scope: Any) -> None:
    log: list[str] = []
    event = asyncio.Event()
    async with make_system() as system:
        await system.spawn(Parent, log, "abc", name="p", supervision=sage.Supervision(scope=scope))
        asks = [find(system, f"p/{tag}").ask(Child.wait_for, event) for tag in "abc"]
        await system.clock.sleep(1)
        log.clear()
        event.set()
        outcomes = await asyncio.gather(*asks, return_exceptions=True)
        assert all(isinstance(outcome, sage.ActorFailed | sage.ActorStopped) for outcome in outcomes)
        assert {tag: await find(system, f"p/{tag}").ask(Child.count) for tag in "abc"} == {"a": 1, "b": 1, "c": 1}
        await system.wait_idle()
        for tag in "abc":
            lives = [entry for entry in log if entry.endswith(tag)]
            assert lives == ["let go " + tag, "start " + tag] * (len(lives) // 2), "instances never overlap"


@pytest.mark.rule("A3")
async def test_a_restart_of_more_takes_over_a_restart_of_less(make_system: MakeSystem) -> None:
    """c waits out its delay when a fails: both begin with a, and c does not begin a second time when its own delay is over."""
    log: list[str] = []
    strategies = {"c": sage.FixedDelay(delay=10), "a": sage.FixedDelay(delay=20)}
    async with make_system() as system:
        await system.spawn(Parent, log, "abc", strategies, name="p", supervision=sage.Supervision(scope="rest_for_one"))
        log.clear()
        begun = system.clock.monotonic()
        await fail(system, "p/c")
        await system.clock.sleep(5)
        await fail(system, "p/a")
        assert await find(system, "p/c").ask(Child.count) == 1
        assert system.clock.monotonic() == pytest.approx(begun + 25)
        await system.clock.sleep(60)
        assert log == ["let go c", "let go b", "let go a", "start a", "start b", "start c"]


class SlowStart(Child):
    """Its later lives take an hour to begin."""

    lives = 0

    def __init__(self, log: list[str], tag: str, lives: list[str]) -> None:
        super().__init__(log, tag)
        lives.append(tag)
        self.first = lives.count(tag) == 1

    async def on_start(self) -> None:
        await super().on_start()
        if not self.first:
            await self.context.system.clock.sleep(3600)
            self.log.append(f"started {self.tag}")


class Starter(sage.Actor):
    """Spawns what it is given."""

    def __init__(self, *makers: Callable[[], sage.Actor]) -> None:
        self.makers = makers

    async def on_start(self) -> None:
        for at, maker in enumerate(self.makers):
            await self.context.spawn(maker, name="abc"[at], restart=AT_ONCE)

    async def start(self, maker: Callable[[], sage.Actor], name: str) -> sage.ActorRef[Any]:
        return await self.context.spawn(maker, name=name, restart=AT_ONCE)


@pytest.mark.rule("A3")
async def test_a_start_under_way_is_broken_off_by_the_next_failure(make_system: MakeSystem) -> None:
    log: list[str] = []
    lives: list[str] = []
    async with make_system() as system:
        makers = partial(Child, log, "a"), partial(SlowStart, log, "b", lives)
        await system.spawn(Starter, *makers, name="p", supervision=sage.Supervision(scope="all_for_one"))
        log.clear()
        await fail(system, "p/a")
        assert await find(system, "p/a").ask(Child.count) == 1, "the first serves while the second starts"
        await system.clock.sleep(1)
        await fail(system, "p/a")
        assert await find(system, "p/b").ask(Child.count) == 1
        assert log == ["let go b", "let go a", "start a", "start b", "let go a", "start a", "start b", "started b"]


async def test_a_sibling_that_still_starts_is_not_concerned(make_system: MakeSystem) -> None:
    log: list[str] = []

    class Slow(Child):
        async def on_start(self) -> None:
            await self.context.system.clock.sleep(10)
            await super().on_start()

    async with make_system() as system:
        parent = await system.spawn(Starter, partial(Child, log, "a"), name="p", supervision=sage.Supervision(scope="all_for_one"))
        starting = parent.ask(Starter.start, partial(Slow, log, "b"), "b")
        await system.clock.sleep(1)
        await fail(system, "p/a")
        assert await (await starting).ask(Child.count) == 1
        assert log == ["start a", "let go a", "start a", "start b"]


# -- budgets and escalation -------------------------------------------------------------------------------------------


@pytest.mark.rule("A1")
@pytest.mark.rule("A2")
async def test_the_common_budget_slides_and_one_restart_more_fails_the_supervisor(make_system: MakeSystem) -> None:
    log: list[str] = []
    async with make_system() as system:
        supervision = sage.Supervision(intensity=1, period=5)
        parent = await system.spawn(Parent, log, "abc", name="p", restart=AT_ONCE, supervision=supervision)
        await parent.ask(Parent.count)
        await fail(system, "p/a")
        await system.clock.sleep(5.1)
        await fail(system, "p/b")  # the first one counts no more
        assert await find(system, "p/b").ask(Child.count) == 1
        assert await parent.ask(Parent.count) == 2
        await system.clock.sleep(5)
        log.clear()
        await fail(system, "p/c")  # exactly a period ago counts
        assert await parent.ask(Parent.count) == 1, "the supervisor itself has been restarted"
        assert log == ["stop c", "stop b", "stop a", "let go parent for c", "start a", "start b", "start c"]


@pytest.mark.rule("A1")
async def test_failures_escalate_level_by_level(make_system: MakeSystem) -> None:
    log: list[str] = []
    none = sage.Supervision(intensity=0)

    class Top(sage.Actor):
        async def on_start(self) -> None:
            log.append("start top")
            await self.context.spawn(Parent, log, "ab", name="p", supervision=none)

        async def on_restart(self, error: BaseException) -> None:
            log.append(f"let go top for {type(error).__name__} {error}")

        def ready(self) -> bool:
            return True

    async with make_system() as system:
        top = await system.spawn(Top, name="top", restart=AT_ONCE, supervision=none)
        log.clear()
        await fail(system, "top/p/b")
        await system.wait_idle()
        assert await top.ask(Top.ready)
        assert log == ["stop b", "stop a", "let go top for Boom b", "start top", "start a", "start b"]
        assert system.statistics().living == 4


@pytest.mark.rule("A1")
async def test_what_escalates_to_the_system_stops_its_actors_and_it_goes_on(make_system: MakeSystem) -> None:
    log: list[str] = []
    async with make_system(supervision=sage.Supervision(intensity=0), restart=AT_ONCE) as system:
        a, b = await system.spawn(Child, log, "a"), await system.spawn(Child, log, "b")
        ends = asyncio.gather(system.watch(a), system.watch(b))
        log.clear()
        await a.tell(Child.fail)
        assert [type(ended.reason) for ended in await ends] == [Boom, Boom]
        assert log == ["stop b", "stop a"]
        assert await (await system.spawn(Child, log, "c")).ask(Child.count) == 1


@pytest.mark.rule("A1")
async def test_an_exhausted_strategy_may_escalate(make_system: MakeSystem) -> None:
    log: list[str] = []
    strategies = {"b": sage.FixedDelay(attempts=1, delay=0)}
    async with make_system() as system:
        supervision = sage.Supervision(when_exhausted="escalate")
        parent = await system.spawn(Parent, log, "abc", strategies, name="p", restart=AT_ONCE, supervision=supervision)
        await fail(system, "p/b")
        assert await find(system, "p/b").ask(Child.count) == 1
        log.clear()
        await fail(system, "p/b")
        assert await parent.ask(Parent.count) == 1
        assert log == ["stop c", "stop b", "stop a", "let go parent for b", "start a", "start b", "start c"]


async def test_a_supervisor_serves_nothing_while_its_children_end_for_an_escalation(make_system: MakeSystem) -> None:
    class LongEnd(Child):
        async def on_stop(self) -> None:
            await self.context.system.clock.sleep(2)

    log: list[str] = []
    async with make_system() as system:
        supervision = sage.Supervision(decide=lambda error: "escalate")
        parent = await system.spawn(Starter, partial(LongEnd, log, "a"), name="p", restart=AT_ONCE, supervision=supervision)
        await fail(system, "p/a")
        await system.clock.sleep(1)
        ref = await parent.ask(Starter.start, partial(Child, log, "x"), "x")  # waits for the fresh instance, and goes to it
        await system.wait_idle()
        assert ref.alive
        assert system.statistics().restarts == 1
        assert sorted(child.path for child in system.statistics().actors[0].children) == ["p/a", "p/x"]


async def test_a_failure_that_escalates_into_a_start_fails_it(make_system: MakeSystem) -> None:
    class Waiting(sage.Actor):
        async def on_start(self) -> None:
            child = await self.context.spawn(Child, [], "a", name="a")
            await child.tell(Child.fail)
            await self.context.system.clock.sleep(3600)

    async with make_system() as system:
        with pytest.raises(sage.ActorFailed, match="Boom: a") as caught:
            await system.spawn(Waiting, name="p", supervision=sage.Supervision(intensity=0))
        assert isinstance(caught.value.__cause__, Boom)
        assert system.clock.monotonic() < 3600
        assert system.lookup("p") is None
        assert system.statistics().living == 0


# -- decide -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directive", ["restart", "resume", "stop", "escalate"])
async def test_what_decide_says_is_done(make_system: MakeSystem, directive: Any) -> None:
    log: list[str] = []
    asked: list[BaseException] = []

    def decide(error: BaseException) -> Any:
        asked.append(error)
        return directive

    async with make_system() as system:
        parent = await system.spawn(Parent, log, "ab", name="p", restart=AT_ONCE, supervision=sage.Supervision(decide=decide))
        a = find(system, "p/a")
        ended = system.watch(a)
        assert await a.ask(Child.count) == await parent.ask(Parent.count) == 1
        await fail(system, "p/a")
        if directive in ("stop", "escalate"):
            assert isinstance((await ended).reason, Boom)
        assert await parent.ask(Parent.count) == (1 if directive == "escalate" else 2)
        if directive == "stop":
            assert system.lookup("p/a") is None
            assert await find(system, "p/b").ask(Child.count) == 1
        else:
            assert await find(system, "p/a").ask(Child.count) == (2 if directive == "resume" else 1)
        assert [type(error) for error in asked] == [Boom]
        assert ended.done() == (directive in ("stop", "escalate"))
        ended.cancel()


async def test_a_start_that_fails_cannot_be_resumed(make_system: MakeSystem) -> None:
    """There is no instance to go on with: it counts as a failure to be restarted from."""
    lives: list[int] = []

    class Reluctant(Child):
        async def on_start(self) -> None:
            lives.append(len(lives))
            if len(lives) in (2, 3):
                raise Boom("not yet")

    async with make_system() as system:
        supervision = sage.Supervision(decide=lambda error: "resume" if str(error) == "not yet" else "restart")
        await system.spawn(Starter, partial(Reluctant, [], "a"), name="p", supervision=supervision)
        await fail(system, "p/a")
        assert await find(system, "p/a").ask(Child.count) == 1
        assert lives == [0, 1, 2, 3]
