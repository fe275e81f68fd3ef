"""Delivery: in the order of the sender's calls, at most once, whatever the message; and nothing is held on to afterwards."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef
from sage_actor.testing import ManualClock

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Log(sage.Actor):
    """Notes what it handles, by every kind of handler, in a list that outlives its restarts."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def receive(self, message: Any) -> Any:
        self.seen.append(message)
        return message

    def plain(self, message: Any) -> Any:
        self.seen.append(message)
        return message

    async def later(self, message: Any) -> Any:
        await asyncio.sleep(0)
        self.seen.append(message)
        await asyncio.sleep(0)
        return message

    async def when_open(self, gate: asyncio.Event, message: Any) -> Any:
        await gate.wait()
        self.seen.append(message)
        return message

    def fail(self, message: Any) -> None:
        self.seen.append(message)
        raise ValueError(message)

    async def fail_later(self, message: Any) -> None:
        await asyncio.sleep(0)
        self.seen.append(message)
        raise ValueError(message)


class LazyLog(Log):
    """The same with an async receive."""

    async def receive(self, message: Any) -> Any:  # type: ignore[override]
        return await self.later(message)


# -- order ------------------------------------------------------------------------------------------------------------

HOW = [
    "tell",
    "tell plain",
    "tell later",
    "nowait",
    "ask",
    "ask plain",
    "ask later",
    "ask fail",
    "tell fail",
    "ask fail later",
    "turn",
    "idle",
]


async def send(ref: ActorRef[Log], how: str, number: int, replies: list[sage.Reply[Any]]) -> None:
    method = {"plain": Log.plain, "later": Log.later, "fail": Log.fail, "fail later": Log.fail_later}.get(how.partition(" ")[2])
    if how.startswith("tell"):
        assert await (ref.tell(number) if method is None else ref.tell(method, number))
    elif how == "nowait":
        try:
            assert ref.tell_nowait(number)
        except sage.MailboxFull:
            assert await ref.tell(number)
    else:
        replies.append(ref.ask(number) if method is None else ref.ask(method, number))


def check_order(script: list[str], capacity: int, lazy: bool, inline: bool) -> None:
    async def main() -> None:
        seen: list[int] = []
        replies: list[sage.Reply[Any]] = []
        async with sage.ActorSystem(inline_asks=inline, restart=AT_ONCE) as system:
            ref = await system.spawn(LazyLog if lazy else Log, seen, mailbox=sage.MailboxSettings(capacity=capacity))
            sent: list[int] = []
            for number, how in enumerate(script):
                if how == "turn":
                    await asyncio.sleep(0)
                elif how == "idle":
                    await turns(8)
                else:
                    await send(ref, how, number, replies)
                    sent.append(number)
            await asyncio.gather(*replies, return_exceptions=True)
        assert seen == sent
        assert ref.cell.handled == len(sent)
        assert system.dead_letters.total == 0

    asyncio.run(main())


@pytest.mark.rule("A23")
@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(HOW), max_size=20), st.integers(1, 3), st.booleans(), st.booleans())
def test_one_sender_s_messages_come_in_the_order_of_its_calls(script: list[str], capacity: int, lazy: bool, inline: bool) -> None:
    """Tells and asks mixed, asks answered inline or not, full mailboxes waited for, the actor failing and restarting on the way."""
    check_order(script, capacity, lazy, inline)


@pytest.mark.rule("A23")
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("between", range(6))
def test_an_ask_that_could_be_inline_does_not_overtake_an_earlier_tell(lazy: bool, between: int) -> None:
    async def main() -> None:
        seen: list[str] = []
        async with sage.ActorSystem() as system:
            ref = await system.spawn(LazyLog if lazy else Log, seen)
            await turns(between)
            await ref.tell("first")
            await turns(between)
            assert await ref.ask(Log.plain, "second") == "second"
            await ref.tell("third")
            reply = ref.ask(Log.plain, "fourth")
            await ref.tell("fifth")
            assert await reply == "fourth"
        assert seen == ["first", "second", "third", "fourth", "fifth"]

    asyncio.run(main())


@pytest.mark.rule("A23")
@pytest.mark.simulate(seeds=100)
async def test_asks_and_tells_that_wait_for_room_keep_their_order_in_every_schedule() -> None:
    seen: list[int] = []
    async with sage.ActorSystem() as system:
        ref = await system.spawn(LazyLog, seen, mailbox=sage.MailboxSettings(capacity=1))
        replies = [ref.ask(0), ref.ask(1), ref.ask(2)]
        await ref.tell(3)
        replies += [ref.ask(Log.plain, 4), ref.ask(5)]
        await ref.tell(6)
        await asyncio.gather(*replies)
    assert seen == list(range(7))


@pytest.mark.rule("A23")
@pytest.mark.simulate(seeds=100)
async def test_many_senders_each_keep_their_own_order_in_every_schedule() -> None:
    async def send_all(name: str) -> None:
        for number in range(6):
            if number % 3 == 2:
                assert await ref.ask((name, number)) == (name, number)
            else:
                assert await ref.tell((name, number))

    seen: list[tuple[str, int]] = []
    async with sage.ActorSystem() as system:
        ref = await system.spawn(LazyLog, seen, mailbox=sage.MailboxSettings(capacity=2))
        await asyncio.gather(*(send_all(name) for name in "abc"))
    for name in "abc":
        assert [number for who, number in seen if who == name] == list(range(6))
    assert len(seen) == 18


@pytest.mark.rule("A13")
@pytest.mark.rule("A23")
@pytest.mark.asyncio
async def test_mail_sent_while_the_actor_restarts_is_kept_and_the_failing_message_is_not_tried_again() -> None:
    seen: list[Any] = []
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        ref = await system.spawn(Log, seen)
        await ref.tell(1)
        await ref.tell(Log.fail, 2)
        await ref.tell(3)
        reply = ref.ask(4)
        for number in range(5, 9):
            await asyncio.sleep(0)
            await ref.tell(number)
        assert await reply == 4
        await system.wait_idle()
        assert seen == list(range(1, 9))
        assert ref.cell.handled == 8


@pytest.mark.asyncio
async def test_what_an_actor_tells_itself_from_an_inline_handler_is_handled() -> None:
    class Chatty(Log):
        def plain(self, message: Any) -> Any:
            self.ref.tell_nowait("to itself")
            return super().plain(message)

    seen: list[Any] = []
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Chatty, seen)
        for lap in range(1, 4):
            await turns(3)
            assert await ref.ask(Chatty.plain, "asked") == "asked"
            await turns(3)
            assert seen == ["asked", "to itself"] * lap


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A23")
@pytest.mark.parametrize("capacity", [1, 1000])
def test_tells_of_other_threads_come_once_each_in_the_order_of_each_thread(capacity: int) -> None:
    async def main() -> None:
        seen: list[tuple[int, int]] = []
        async with sage.ActorSystem() as system:
            ref = await system.spawn(Log, seen, mailbox=sage.MailboxSettings(capacity=capacity))

            def send_all(thread: int) -> None:
                for number in range(200):
                    assert ref.tell_nowait((thread, number))

            threads = [threading.Thread(target=send_all, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for number in range(200):
                await ref.tell((9, number))
            while len(seen) < 1000:  # noqa: ASYNC110 - other threads send, there is no event
                await asyncio.sleep(0)
            for thread in threads:
                thread.join()
        for thread in (0, 1, 2, 3, 9):
            assert [number for who, number in seen if who == thread] == list(range(200))
        assert len(seen) == 1000

    asyncio.run(main())


@pytest.mark.asyncio
async def test_an_ask_of_another_thread_is_refused_and_the_right_way_is_named() -> None:
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Log, [])
        errors: list[Exception] = []

        def ask() -> None:
            try:
                ref.ask(1)
            except sage.ActorError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert "system.sync" in str(errors[0])


@pytest.mark.asyncio
async def test_a_tell_of_another_thread_to_an_ended_actor_is_a_dead_letter() -> None:
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Log, [])
        await system.stop(ref)
        told: list[bool] = []
        thread = threading.Thread(target=lambda: told.append(ref.tell_nowait("late")))
        thread.start()
        thread.join()
        assert told == [False]
        assert [letter.message for letter in system.dead_letters] == ["late"]


# -- at most once -----------------------------------------------------------------------------------------------------


@pytest.mark.rule("A24")
@pytest.mark.asyncio
async def test_an_ask_that_failed_may_have_been_carried_out() -> None:
    seen: list[Any] = []
    clock = ManualClock()
    async with sage.ActorSystem(stop_timeout=0, restart=AT_ONCE, clock=clock) as system:
        ref = await system.spawn(Log, seen)
        with pytest.raises(sage.ActorFailed):
            await ref.ask(Log.fail, "acted, then failed")
        gate = asyncio.Event()
        late = ref.ask(Log.when_open, gate, "acted after its caller had gone", timeout=1)
        await clock.advance(2)
        with pytest.raises(sage.AskTimeout, match="may still act"):
            await late
        gate.set()
        await system.wait_idle()
        assert seen == ["acted, then failed", "acted after its caller had gone"]
        assert ref.cell.handled == 2


# -- messages of every kind -------------------------------------------------------------------------------------------


def function_of_no_class(message: Any) -> Any:
    return message


async def stored() -> None: ...


MESSAGES: list[Callable[[], Any]] = [
    lambda: None,
    lambda: False,
    lambda: ...,
    lambda: NotImplemented,
    lambda: lambda: 1,
    lambda: function_of_no_class,
    lambda: sage.MailboxSettings,
    lambda: Log,
    lambda: [[], {}, set()],
    lambda: ValueError("as a message"),
    lambda: StopIteration(1),
    lambda: KeyboardInterrupt(),
    lambda: asyncio.CancelledError(),
    lambda: ("tuple", "of", "things"),
    lambda: stored,
    lambda: object(),
    lambda: asyncio.get_running_loop().create_future(),
    lambda: Log([]).receive,
    lambda: sage.Actor.on_start,
]


@pytest.mark.parametrize("make", MESSAGES)
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.asyncio
async def test_a_message_arrives_as_it_is(make: Callable[[], Any], lazy: bool) -> None:
    class Keeper(sage.Actor):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        async def receive(self, message: Any) -> None:  # type: ignore[override]
            if lazy:
                await asyncio.sleep(0)
            self.seen.append(message)

        def keep(self, message: Any) -> None:
            self.seen.append(message)

    message = make()
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Keeper)
        await ref.tell(message)
        assert ref.tell_nowait(message)
        await ref.ask(message)
        await ref.ask(Keeper.keep, message)
        await ref.tell(Keeper.keep, message)
        await system.wait_idle()
        assert len(ref.cell.actor.seen) == 5
        assert all(seen is message for seen in ref.cell.actor.seen)
        assert ref.cell.handled == 5


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.asyncio
async def test_a_reply_can_be_a_message_and_stays_what_it_is(settled: bool) -> None:
    """It is an ask to somebody else; the actor that is told it must not take it for one of its own."""
    seen: list[Any] = []
    async with sage.ActorSystem() as system:
        asked, told = await system.spawn(LazyLog, []), await system.spawn(Log, seen)
        reply = asked.ask("question")
        if settled:
            assert await reply == "question"
        await told.tell(reply)
        assert told.tell_nowait(reply)
        await told.tell(Log.plain, reply)
        await system.wait_idle()
        assert len(seen) == 3
        assert all(message is reply for message in seen)
        assert await reply == "question"
        await system.stop(told)
        await told.tell(reply)
        assert system.dead_letters[-1].message is reply
        assert not system.dead_letters[-1].asked


@pytest.mark.asyncio
async def test_accounts_hold_while_none_is_being_handled() -> None:
    gate = asyncio.Event()

    class Slow(sage.Actor):
        async def receive(self, message: object) -> None:
            await gate.wait()

    async with sage.ActorSystem() as system:
        ref = await system.spawn(Slow)
        await ref.tell(None)
        await turns(3)
        assert system.statistics().actors[0].in_hand == 1
        gate.set()


# -- turns of the loop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.asyncio
async def test_an_actor_that_always_has_mail_leaves_the_loop_to_others(lazy: bool) -> None:
    class Endless(sage.Actor):
        def receive(self, message: int) -> None:
            self.ref.tell_nowait(message + 1)

    class LazyEndless(sage.Actor):
        async def receive(self, message: int) -> None:  # type: ignore[override]
            self.ref.tell_nowait(message + 1)

    async with sage.ActorSystem() as system:
        ref = await system.spawn(LazyEndless if lazy else Endless)
        await ref.tell(0)
        handled = []
        for _ in range(10):
            await asyncio.sleep(0)
            handled.append(ref.cell.handled)
        assert handled[0] < handled[4] < handled[9]
        await system.kill(ref)
        assert ref.cell.statistics().accepted == ref.cell.handled + ref.cell.dead_lettered


# -- memory -----------------------------------------------------------------------------------------------------------


class Thing:
    """A message that can be weakly referenced."""


@pytest.mark.parametrize("how", ["tell", "ask", "ask plain", "ask later", "tell later", "tell plain", "nowait"])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.asyncio
async def test_no_message_is_kept_once_it_was_handled(how: str, lazy: bool, concurrency: int) -> None:
    class Forgetful(Log):
        def receive(self, message: Any) -> Any:
            return None

        plain = receive

        async def later(self, message: Any) -> Any:
            await asyncio.sleep(0)

    class LazyForgetful(Forgetful):
        async def receive(self, message: Any) -> Any:
            await asyncio.sleep(0)

    method = {"plain": Forgetful.plain, "later": Forgetful.later}.get(how.partition(" ")[2])
    async with sage.ActorSystem() as system:
        ref = await system.spawn(LazyForgetful if lazy else Forgetful, [], concurrency=concurrency)
        thing = Thing()
        kept = weakref.ref(thing)
        arguments = (thing,) if method is None else (method, thing)
        if how == "nowait":
            ref.tell_nowait(*arguments)
        else:
            await (ref.tell if how.startswith("tell") else ref.ask)(*arguments)
        del thing, arguments
        await system.wait_idle()
        await turns(2)
        assert kept() is None


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.asyncio
async def test_an_ended_actor_is_collected_and_so_is_its_ref(lazy: bool) -> None:
    async with sage.ActorSystem() as system:
        ref = await system.spawn(LazyLog if lazy else Log, [])
        await ref.ask(1)
        actor, cell, address = weakref.ref(ref.cell.actor), weakref.ref(ref.cell.lifecycle.cell.context), weakref.ref(ref)
        await system.stop(ref)
        del ref
        await turns(3)
        gc.collect()
        assert actor() is None
        assert address() is None
        assert cell() is None
        assert system.statistics().living == 0
