"""Ask cycles: refused at once and by name, however they come about; and what looks like one but is none goes through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class Ring(sage.Actor):
    """Asks the next one, which is set afterwards, for so many steps, by one of several ways."""

    def __init__(self) -> None:
        self.next: ActorRef[Ring]
        self.tasks: list[asyncio.Task[Any]] = []
        self.errors: list[BaseException] = []

    def link(self, following: ActorRef[Ring]) -> None:
        self.next = following

    async def directly(self, steps: int) -> int:
        return 0 if steps == 0 else await self.next.ask(Ring.directly, steps - 1) + 1

    def without_async(self, steps: int) -> Any:
        return 0 if steps == 0 else self.next.ask(Ring.without_async, steps - 1)

    async def through_gather(self, steps: int) -> int:
        answers = await asyncio.gather(self.next.ask(Ring.through_gather, steps - 1), asyncio.sleep(0)) if steps else [0]
        return answers[0]

    async def through_a_task(self, steps: int) -> int:
        async def further() -> int:
            await asyncio.sleep(0)
            return await self.next.ask(Ring.through_a_task, steps - 1)

        return await asyncio.create_task(further()) if steps else 0

    async def with_a_timeout(self, steps: int) -> int:
        return await self.next.ask(Ring.with_a_timeout, steps - 1, timeout=30) if steps else 0

    async def noted(self, steps: int) -> None:
        try:
            await self.next.ask(Ring.directly, steps)
        except sage.ActorError as error:
            self.errors.append(innermost(error))

    async def receive(self, message: object) -> object:
        return await self.next.ask(message)


WAYS: list[Callable[..., Any]] = [Ring.directly, Ring.without_async, Ring.through_gather, Ring.through_a_task, Ring.with_a_timeout]


async def spawn_ring(system: sage.ActorSystem, length: int, **options: Any) -> list[ActorRef[Ring]]:
    refs = [await system.spawn(Ring, name="abcdef"[number], **options) for number in range(length)]
    for number, ref in enumerate(refs):
        await ref.ask(Ring.link, refs[(number + 1) % length])
    return refs


@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.asyncio
async def test_a_cycle_is_refused_at_once_and_named(length: int, way: Callable[..., Any]) -> None:
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        refs = await spawn_ring(system, length)
        async with asyncio.timeout(5):
            with pytest.raises(sage.ActorFailed) as caught:
                await refs[0].ask(way, 100)
        cycle = innermost(caught.value)
        assert isinstance(cycle, sage.AskCycle)
        assert cycle.actors == (*(ref.path for ref in refs), refs[0].path)
        assert " -> ".join(cycle.actors) in str(cycle)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.asyncio
async def test_a_message_for_receive_closes_a_cycle_too(length: int) -> None:
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        refs = await spawn_ring(system, length)
        with pytest.raises(sage.ActorFailed) as caught:
            await refs[0].ask("around")
        assert isinstance(innermost(caught.value), sage.AskCycle)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.asyncio
async def test_a_cycle_that_begins_with_a_tell(length: int) -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        refs = await spawn_ring(system, length)
        await refs[0].tell(Ring.noted, 100)
        await system.wait_idle()
        assert [type(error) for error in refs[0].cell.actor.errors] == [sage.AskCycle]


@pytest.mark.parametrize("told", ["plain message", "method"])
@pytest.mark.asyncio
async def test_a_cycle_out_of_a_plain_handler_that_was_told(told: str) -> None:
    """It hands back the reply of an ask to itself, which the cell then awaits."""

    class Plain(sage.Actor):
        def receive(self, message: object) -> Any:
            return self.ref.ask("again") if message == "first" else message

    async with sage.ActorSystem(restart=AT_ONCE) as system:
        ref = await system.spawn(Plain)
        await (ref.tell("first") if told == "plain message" else ref.tell(Plain.receive, "first"))
        await system.wait_idle()
        assert isinstance(ref.cell.lifecycle.last_error, sage.AskCycle)
        assert await ref.ask("second") == "second"


@pytest.mark.asyncio
async def test_a_cycle_through_on_start() -> None:
    class Child(sage.Actor):
        async def on_start(self) -> None:
            assert self.context.parent is not None
            await self.context.parent.ask("who are you?")

    class Parent(sage.Actor):
        async def receive(self, message: object) -> object:
            return self.context.parent if message == "who are you?" else await self.context.spawn(Child, name="child")

    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        parent = await system.spawn(Parent, name="parent")
        async with asyncio.timeout(5):
            with pytest.raises(sage.ActorFailed) as caught:
                await parent.ask("spawn")
        cycle = innermost(caught.value)
        assert isinstance(cycle, sage.AskCycle)
        assert cycle.actors == ("parent", "parent/child", "parent")


@pytest.mark.asyncio
async def test_a_cycle_by_an_ask_that_was_stashed_first() -> None:
    class Late(sage.Actor):
        ready = False

        async def receive(self, message: object) -> object:
            await asyncio.sleep(0)
            if message == "ready":
                self.ready = True
                self.context.unstash()
                return None
            if not self.ready:
                self.context.stash()
                return None
            return await self.ref.ask("self")

    async with sage.ActorSystem(restart=AT_ONCE) as system:
        ref = await system.spawn(Late)
        reply = ref.ask("wait")
        await ref.tell("ready")
        async with asyncio.timeout(5):
            with pytest.raises(sage.ActorFailed) as caught:
                await reply
        assert isinstance(innermost(caught.value), sage.AskCycle)


# -- circles of several requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("begin", ["asks", "tells"])
@pytest.mark.asyncio
async def test_requests_that_cross_are_a_cycle_too(length: int, begin: str) -> None:
    """No chain closes, but each handler waits for an answer that only the next one's end would bring."""
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        refs = await spawn_ring(system, length)
        async with asyncio.timeout(5):
            if begin == "asks":
                await asyncio.gather(*(ref.ask(Ring.noted, 0) for ref in refs))
            else:
                for ref in refs:
                    await ref.tell(Ring.noted, 0)
                await system.wait_idle()
        errors = [error for ref in refs for error in ref.cell.actor.errors]
        assert [type(error) for error in errors] == [sage.AskCycle]  # one gives way, the others get their answers
        assert set(errors[0].actors) == {ref.path for ref in refs}
        assert errors[0].actors[0] == errors[0].actors[-1]


@pytest.mark.simulate(seeds=100)
async def test_crossing_requests_never_stand_still_in_any_schedule() -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        refs = await spawn_ring(system, 3)
        for _ in range(3):
            await asyncio.gather(*(ref.ask(Ring.noted, 0) for ref in refs))
        assert all(isinstance(error, sage.AskCycle) for ref in refs for error in ref.cell.actor.errors)


@pytest.mark.asyncio
async def test_crossing_requests_of_an_actor_with_a_free_slot_are_none() -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        first, second = await system.spawn(Ring, concurrency=2), await system.spawn(Ring)
        await first.ask(Ring.link, second)
        await second.ask(Ring.link, first)
        async with asyncio.timeout(5):
            for _ in range(5):
                await asyncio.gather(first.ask(Ring.noted, 0), second.ask(Ring.noted, 0))
        assert first.cell.actor.errors == second.cell.actor.errors == []


@pytest.mark.asyncio
async def test_an_ask_that_nobody_awaits_closes_no_circle() -> None:
    class Careless(Ring):
        async def ask_and_leave(self) -> None:
            self.reply = self.next.ask(Careless.ask_and_leave_too)
            await turns(6)

        async def ask_and_leave_too(self) -> None:
            await turns(2)
            self.reply = self.next.ask(Careless.directly, 0)

    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        first, second = await system.spawn(Careless), await system.spawn(Careless)
        await first.ask(Ring.link, second)
        await second.ask(Ring.link, first)
        await asyncio.gather(first.ask(Careless.ask_and_leave), second.ask(Careless.ask_and_leave))
        await system.wait_idle()
        for ref in (first, second):
            assert ref.cell.failed == 0
            assert await ref.cell.actor.reply in (None, 0)


# -- no cycles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.asyncio
async def test_a_chain_that_ends_before_it_comes_around_is_none(way: Callable[..., Any]) -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        refs = await spawn_ring(system, 4)
        await refs[0].ask(way, 3)
        for ref in refs:
            await ref.ask(way, 1)
        assert system.failures == 0


class Background(sage.Actor):
    """Begins tasks that outlive their handlers and ask their own actor."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.gate = asyncio.Event()

    def begin(self) -> None:
        self.tasks.append(asyncio.create_task(self.ask_later()))

    async def begin_and_wait_a_little(self) -> None:
        self.begin()
        await asyncio.sleep(0)
        self.gate.set()

    async def ask_later(self) -> object:
        if self.gate.is_set():
            await asyncio.sleep(0)
        await self.gate.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return await self.ref.ask("from the background")

    async def receive(self, message: object) -> object:
        return ("got", message)


@pytest.mark.parametrize("how", ["inline", "turn", "async"])
@pytest.mark.asyncio
async def test_a_task_that_outlives_its_handler_may_ask_its_own_actor(how: str) -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        ref = await system.spawn(Background)
        await turns(3)
        if how == "inline":
            await ref.ask(Background.begin)
        elif how == "turn":
            await ref.tell(Background.begin)
        else:
            await ref.ask(Background.begin_and_wait_a_little)
        await turns(3)
        ref.cell.actor.gate.set()
        (task,) = ref.cell.actor.tasks
        async with asyncio.timeout(5):
            assert await task == ("got", "from the background")


@pytest.mark.asyncio
async def test_a_tell_back_and_an_ask_in_its_handler_are_no_cycle() -> None:
    """The teller does not wait: its own handler has ended by the time it is asked."""

    class Ping(sage.Actor):
        answers: list[object]

        async def receive(self, other: ActorRef[Any]) -> None:
            await other.tell(self.ref)

        def state(self) -> str:
            return "fine"

    class Pong(sage.Actor):
        async def receive(self, back: ActorRef[Ping]) -> None:
            answers.append(await back.ask(Ping.state))

    answers: list[object] = []
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        ping, pong = await system.spawn(Ping), await system.spawn(Pong)
        await ping.ask(pong)
        await ping.tell(pong)
        await system.wait_idle()
        assert answers == ["fine", "fine"]


# -- reentrant --------------------------------------------------------------------------------------------------------


class Reentrant(sage.Actor):
    """Waits for another one, which asks back."""

    def __init__(self) -> None:
        self.depth = 0
        self.deepest = 0
        self.deadlines: list[float | None] = []
        self.whose: list[object] = []

    async def receive(self, message: tuple[str, ActorRef[Any]]) -> object:  # type: ignore[override]
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        try:
            kind, other = message
            if kind == "outer":
                return await other.ask((self.ref, "inner later"))
            if kind == "outer plain":
                return await other.ask((self.ref, "inner plain"))
            await asyncio.sleep(0)
            return "inner"
        finally:
            self.depth -= 1

    def plain(self) -> str:
        self.deepest = max(self.deepest, self.depth + 1)
        self.deadlines.append(self.context.deadline)
        return "inner plain"


class AsksBack(sage.Actor):
    async def receive(self, message: tuple[ActorRef[Reentrant], str]) -> object:  # type: ignore[override]
        ref, kind = message
        answer = await (ref.ask(Reentrant.plain, timeout=7) if kind == "inner plain" else ref.ask(("inner", self.ref)))
        found = {each.path: each for each in self.context.system.statistics().actors}[ref.path]
        assert found.accepted == found.handled + found.dead_lettered + found.queued + found.stashed + found.in_hand
        assert found.in_hand == 1  # the outer one still is
        return answer


@pytest.mark.parametrize(("kind", "answer"), [("outer", "inner"), ("outer plain", "inner plain")])
@pytest.mark.asyncio
async def test_a_reentrant_actor_answers_between_the_lines(kind: str, answer: str) -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        ref, other = await system.spawn(Reentrant, reentrant=True), await system.spawn(AsksBack)
        async with asyncio.timeout(5):
            assert await ref.ask((kind, other)) == answer
            assert ref.cell.actor.deepest == 2
            assert await ref.ask((kind, other)) == answer
        assert all(6.9 < left <= 7 for left in ref.cell.actor.deadlines)  # its own, not the outer one's
        assert (ref.cell.handled, ref.cell.in_hand) == (4, 0)


@pytest.mark.asyncio
async def test_a_reentrant_actor_still_handles_what_does_not_come_around_one_at_a_time() -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        ref, other = await system.spawn(Reentrant, reentrant=True), await system.spawn(AsksBack)
        answers = await asyncio.gather(*(ref.ask(("outer", other)) for _ in range(5)), *(ref.ask(("inner", other)) for _ in range(5)))
        assert answers == ["inner"] * 10
        assert ref.cell.actor.deepest == 2


@pytest.mark.parametrize("concurrency", [2, 3])
@pytest.mark.asyncio
async def test_a_concurrent_actor_takes_as_many_rounds_as_it_has_slots(concurrency: int) -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        (ref,) = await spawn_ring(system, 1, concurrency=concurrency)
        assert await ref.ask(Ring.directly, concurrency - 1) == concurrency - 1
        await ref.ask(Ring.noted, concurrency - 2)
        async with asyncio.timeout(5):
            await ref.ask(Ring.noted, concurrency)
        assert [type(error) for error in ref.cell.actor.errors] == [sage.AskCycle]
