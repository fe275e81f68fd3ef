"""Asks: what their errors mean, what a bad call does, errors that are answers, and giving up, which travels down nested asks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import pytest

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef
from sage_actor.testing import ManualClock

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)


class Wrong(Exception):
    """An answer of the kind that says no."""


class Worse(Wrong):
    """A special case of it."""


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Desk(sage.Actor):
    """Serves, and counts in itself, so that a restart shows."""

    expected_errors = (Wrong, KeyError)

    def __init__(self) -> None:
        self.served = 0

    def serve(self, by: int = 1) -> int:
        self.served += by
        return self.served

    async def serve_later(self, by: int = 1) -> int:
        await asyncio.sleep(0)
        return self.serve(by)

    def raise_it(self, error: BaseException) -> None:
        raise error

    async def raise_it_later(self, error: BaseException) -> None:
        await asyncio.sleep(0)
        raise error

    @sage.blocking
    def raise_it_elsewhere(self, error: BaseException) -> None:
        raise error

    @sage.blocking
    def serve_elsewhere(self, by: int) -> int:
        return self.serve(by)

    async def wrong_inside(self) -> None:
        self.serve(1, 2)  # type: ignore[call-arg]

    def wrong_inside_at_once(self) -> None:
        self.serve(1, 2)  # type: ignore[call-arg]


# -- errors -----------------------------------------------------------------------------------------------------------

RAISING: list[Callable[..., Any]] = [Desk.raise_it, Desk.raise_it_later, Desk.raise_it_elsewhere]


@pytest.mark.parametrize("method", RAISING)
@pytest.mark.asyncio
async def test_what_a_handler_raises_is_the_cause_of_the_caller_s_error(method: Callable[..., Any]) -> None:
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        desk = await system.spawn(Desk)
        error = ValueError("on purpose")
        with pytest.raises(sage.ActorFailed, match="ValueError: on purpose") as caught:
            await desk.ask(method, error)
        assert caught.value.__cause__ is error
        assert caught.value.actor == desk.path
        assert caught.value.doing == method.__name__
        assert await desk.ask(Desk.serve) == 1  # a fresh instance


@pytest.mark.parametrize("method", RAISING)
@pytest.mark.parametrize("error", [Wrong("no"), Worse("never"), KeyError("none")])
@pytest.mark.asyncio
async def test_an_expected_error_is_an_answer(method: Callable[..., Any], error: Exception) -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        desk = await system.spawn(Desk)
        assert await desk.ask(Desk.serve) == 1
        with pytest.raises(type(error)) as caught:
            await desk.ask(method, error)
        assert caught.value is error
        assert await desk.ask(Desk.serve) == 2  # the same instance
        found = system.statistics().actors[0]
        assert (found.failed, found.expected_errors, found.handled) == (0, 1, 3)


@pytest.mark.parametrize("method", RAISING)
@pytest.mark.asyncio
async def test_an_expected_error_after_a_tell_fails_the_actor(method: Callable[..., Any]) -> None:
    """Nobody is there to be told, so it must not vanish."""
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        desk = await system.spawn(Desk)
        await desk.ask(Desk.serve)
        await desk.tell(method, Wrong("no"))
        assert await desk.ask(Desk.serve) == 1
        assert system.failures == 1


@pytest.mark.asyncio
async def test_a_cancellation_of_the_handler_s_own_is_a_failure_like_any_other() -> None:
    class Careless(sage.Actor):
        async def receive(self, message: object) -> None:
            other = asyncio.get_running_loop().create_future()
            other.cancel()
            await other

        def plain(self) -> None:
            raise asyncio.CancelledError

    async with sage.ActorSystem(restart=AT_ONCE) as system:
        ref = await system.spawn(Careless)
        for reply in (ref.ask("hello"), ref.ask(Careless.plain), ref.ask("again")):
            with pytest.raises(sage.ActorFailed) as caught:
                await reply
            assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert ref.alive


# -- bad calls --------------------------------------------------------------------------------------------------------


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(self: Any, first: int) -> Any:
        return function(self, first)

    return wrapper


class Picky(Desk):
    @decorated
    def exactly_one(self, first: int) -> int:
        return first

    def keyword_only(self, *, by: int) -> int:
        return self.serve(by)


BAD: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (Desk.serve, (1, 2), {}),
    (Desk.serve, (), {"of": 1}),
    (Desk.serve_later, (1, 2, 3), {}),
    (Desk.serve_elsewhere, (), {}),
    (Picky.exactly_one, (), {}),
    (Picky.keyword_only, (1,), {}),
]


@pytest.mark.parametrize(("method", "arguments", "options"), BAD)
@pytest.mark.asyncio
async def test_wrong_arguments_are_the_caller_s_fault_and_leave_the_actor_as_it_is(
    method: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        desk = await system.spawn(Picky)
        assert await desk.ask(Desk.serve) == 1
        with pytest.raises(sage.BadCall) as caught:
            await desk.ask(method, *arguments, **options)
        assert caught.value.actor == desk.path
        await desk.tell(method, *arguments, **options)
        await system.wait_idle()
        assert await desk.ask(Desk.serve) == 2
        found = system.statistics().actors[0]
        assert (found.failed, found.restarts, found.dead_lettered, found.handled) == (0, 0, 2, 2)
        assert [letter.asked for letter in system.dead_letters] == [True, False]
        assert all(letter.message == arguments for letter in system.dead_letters)


@pytest.mark.parametrize("method", [Desk.wrong_inside, Desk.wrong_inside_at_once])
@pytest.mark.asyncio
async def test_the_same_mistake_inside_a_handler_is_the_actor_s(method: Callable[..., Any]) -> None:
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        desk = await system.spawn(Desk)
        with pytest.raises(sage.ActorFailed) as caught:
            await desk.ask(method)
        assert isinstance(caught.value.__cause__, TypeError)
        assert system.failures == 1


@pytest.mark.asyncio
async def test_a_message_without_a_receive_and_a_method_of_another_class() -> None:
    class Other(sage.Actor):
        def method(self, first: int) -> int:
            return first

    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        desk: ActorRef[Any] = await system.spawn(Desk)
        with pytest.raises(sage.BadCall, match="receive"):
            await desk.ask("hello")
        await desk.tell("hello")
        for call in (desk.ask, desk.tell, desk.tell_nowait):
            with pytest.raises(sage.BadCall, match="no method"):
                call(Other.method, 1)
            with pytest.raises(sage.BadCall, match="no method"):
                call("hello", 1)
            with pytest.raises(sage.BadCall, match="no method"):
                call(sage.Actor.on_stop, 1)  # a hook is for the runtime alone
        with pytest.raises(TypeError, match="needs a message"):
            desk.ask()  # type: ignore[call-overload]
        await system.wait_idle()
        assert await desk.ask(Desk.serve) == 1
        assert [letter.message for letter in system.dead_letters] == ["hello", "hello"]


@pytest.mark.asyncio
async def test_a_method_of_a_base_class_names_the_override() -> None:
    class Generous(Desk):
        def serve(self, by: int = 1) -> int:
            return super().serve(by * 10)

    async with sage.ActorSystem() as system:
        desk = await system.spawn(Generous)
        assert await desk.ask(Desk.serve, 2) == 20
        assert await desk.ask(Generous.serve, by=1) == 30


# -- giving up --------------------------------------------------------------------------------------------------------


class Chain(sage.Actor):
    """Each asks the next; the last waits at its gate."""

    def __init__(self, further: ActorRef[Any] | None, seen: list[str]) -> None:
        self.further = further
        self.seen = seen
        self.gate = asyncio.Event()

    async def firmly(self) -> str:
        return await self.work(Chain.firmly)

    @sage.interruptible
    async def softly(self) -> str:
        try:
            return await self.work(Chain.softly)
        except asyncio.CancelledError:
            self.seen.append(f"{self.ref.name} interrupted")
            raise

    async def work(self, method: Callable[..., Any]) -> str:
        self.seen.append(self.ref.name)
        if self.further is None:
            await self.gate.wait()
            return "done"
        answer: str = await self.further.ask(method)
        return answer

    async def ask_twice(self) -> None:
        """Goes on although its caller has given up, which the second ask finds out."""
        assert self.further is not None
        assert not self.context.abandoned
        with contextlib.suppress(asyncio.CancelledError):
            await self.further.ask(Chain.pause)
        self.seen.append("abandoned" if self.context.abandoned else "still wanted")
        await self.further.ask(Chain.firmly)

    async def pause(self) -> None:
        await self.gate.wait()

    def open_gate(self) -> None:
        self.gate.set()


async def spawn_chain(system: sage.ActorSystem, seen: list[str]) -> list[ActorRef[Chain]]:
    refs: list[ActorRef[Chain]] = []
    for name in "cba":
        refs.append(await system.spawn(Chain, refs[-1] if refs else None, seen, name=name))
    return refs[::-1]


@pytest.mark.asyncio
async def test_giving_up_interrupts_interruptible_handlers_all_the_way_down_and_nobody_fails() -> None:
    seen: list[str] = []
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        first, middle, last = await spawn_chain(system, seen)
        reply = first.ask(Chain.softly)
        await turns(12)
        assert seen == ["a", "b", "c"]
        reply.cancel()
        await system.wait_idle()
        assert sorted(seen[3:]) == ["a interrupted", "b interrupted", "c interrupted"]
        for ref in (first, middle, last):
            assert ref.alive
            assert (ref.cell.handled, ref.cell.dead_lettered, ref.cell.failed) == (0, 1, 0)
        assert [letter.reason for letter in system.dead_letters] == ["its caller gave up"] * 3
        last.cell.actor.gate.set()
        assert await first.ask(Chain.softly) == "done"


@pytest.mark.asyncio
async def test_a_handler_that_is_not_interruptible_runs_on_and_its_answer_goes_nowhere() -> None:
    seen: list[str] = []
    async with sage.ActorSystem(restart=sage.NoRestart()) as system:
        first, middle, last = await spawn_chain(system, seen)
        reply = first.ask(Chain.firmly)
        await turns(12)
        reply.cancel()
        await turns(5)
        assert seen == ["a", "b", "c"]
        last.cell.actor.gate.set()
        await system.wait_idle()
        assert [ref.cell.handled for ref in (first, middle, last)] == [1, 1, 1]
        assert reply.cancelled()
        assert system.dead_letters.total == 0


@pytest.mark.asyncio
async def test_a_nested_ask_on_behalf_of_nobody_is_refused_and_says_so() -> None:
    seen: list[str] = []
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        _, middle, last = await spawn_chain(system, seen)
        reply = middle.ask(Chain.ask_twice)
        await turns(5)
        reply.cancel()
        last.cell.actor.gate.set()
        await system.wait_idle()
        assert seen == ["abandoned"]  # and "c" did not hear of it
        failure = middle.cell.lifecycle.last_error
        assert isinstance(failure, sage.AskAbandoned)
        assert failure.actor == last.path


@pytest.mark.asyncio
async def test_a_nested_ask_that_waits_in_a_mailbox_is_skipped_when_its_request_is_abandoned() -> None:
    seen: list[str] = []
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        _, middle, last = await spawn_chain(system, seen)
        blocker = last.ask(Chain.pause)
        await turns(3)
        reply = middle.ask(Chain.firmly)
        await turns(4)
        assert last.cell.queued == 1
        reply.cancel()
        last.cell.actor.gate.set()
        assert await blocker is None
        await system.wait_idle()
        assert seen == ["b"]
        assert isinstance(middle.cell.lifecycle.last_error, sage.AskAbandoned)
        assert [letter.ref for letter in system.dead_letters] == [last]


@pytest.mark.rule("A25")
@pytest.mark.asyncio
async def test_an_answer_that_comes_too_late_enters_no_mailbox_and_is_no_dead_letter() -> None:
    clock = ManualClock()
    seen: list[str] = []
    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        first, _, last = await spawn_chain(system, seen)
        before = first.cell.statistics().accepted
        late = last.ask(Chain.firmly, timeout=1)
        await clock.advance(2)
        with pytest.raises(sage.AskTimeout):
            await late
        last.cell.actor.gate.set()
        await system.wait_idle()
        assert last.cell.handled == 1
        assert first.cell.statistics().accepted == before
        assert system.dead_letters.total == 0
        assert isinstance(late.exception(), sage.AskTimeout)


@pytest.mark.parametrize("swallows", ["answers", "raises"])
@pytest.mark.asyncio
async def test_a_handler_that_catches_its_interruption_leaves_no_trace_in_the_next_one(swallows: str) -> None:
    class Stubborn(sage.Actor):
        @sage.interruptible
        async def work(self) -> str:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if swallows == "raises":
                    raise ValueError("instead") from None
            return "all the same"

        async def next_one(self) -> int:
            task = asyncio.current_task()
            assert task is not None
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.get_running_loop().create_future()
            return task.cancelling()

    async with sage.ActorSystem(restart=AT_ONCE) as system:
        ref = await system.spawn(Stubborn)
        reply = ref.ask(Stubborn.work)
        await turns(4)
        reply.cancel()
        assert await ref.ask(Stubborn.next_one) == 0
        assert ref.alive
        assert ref.cell.handled == 2
