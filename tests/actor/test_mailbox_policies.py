"""Bounded mailboxes: what each overflow policy does with tells and asks, self-sends, priorities, and what the counts say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef
from sage_actor.testing import ManualClock


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Gated(sage.Actor):
    """Handles nothing until its gate opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.seen: list[Any] = []

    async def receive(self, message: Any) -> Any:
        await self.gate.wait()
        self.seen.append(message)
        return message

    def note(self, message: Any) -> Any:
        self.seen.append(message)
        return message


async def spawn_full(system: sage.ActorSystem, **mailbox: Any) -> ActorRef[Gated]:
    """With one message in hand and two in a mailbox of two."""
    ref = await system.spawn(Gated, mailbox=sage.MailboxSettings(capacity=2, **mailbox))
    assert ref.tell_nowait("in hand")
    await turns(3)
    assert ref.tell_nowait("older")
    assert await ref.tell("newer")
    assert ref.cell.queued == 2
    return ref


async def release(system: sage.ActorSystem, ref: ActorRef[Gated]) -> list[Any]:
    ref.cell.actor.gate.set()
    await system.wait_idle()
    found = system.statistics().actors[0]
    assert found.accepted == found.handled + found.dead_lettered
    assert found.dead_lettered == system.dead_letters.total
    return list(ref.cell.actor.seen)


# -- policies ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_wait_holds_senders_in_line() -> None:
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await spawn_full(system)
        with pytest.raises(sage.MailboxFull) as caught:
            ref.tell_nowait("no room")
        assert (caught.value.name, caught.value.capacity) == (ref.path, 2)

        async def tell(message: object) -> bool:
            return await ref.tell(message)

        tells = [asyncio.create_task(tell("first in line"))]
        await turns(1)
        reply = ref.ask("second in line")
        tells.append(asyncio.create_task(tell("third in line")))
        await turns(3)
        assert system.statistics().actors[0].waiting_senders == 3
        assert not any(task.done() for task in tells) and not reply.done()
        assert await release(system, ref) == ["in hand", "older", "newer", "first in line", "second in line", "third in line"]
        assert await asyncio.gather(*tells) == [True, True]
        assert await reply == "second in line"
        assert system.statistics().actors[0].waiting_senders == 0


@pytest.mark.asyncio
async def test_a_line_is_not_overtaken_by_a_sender_who_comes_when_there_is_room_again() -> None:
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await spawn_full(system)
        reply = ref.ask("in line")
        ref.cell.actor.gate.set()
        while ref.cell.queued == 2:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        await ref.tell("came later")
        await system.wait_idle()
        assert ref.cell.actor.seen[-2:] == ["in line", "came later"]
        assert await reply == "in line"


@pytest.mark.asyncio
async def test_fail_refuses_at_the_call_and_counts_nothing() -> None:
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await spawn_full(system, overflow="fail")
        for call in (ref.tell, ref.tell_nowait):
            with pytest.raises(sage.MailboxFull):
                call("no room")
        reply = ref.ask("no room")
        with pytest.raises(sage.MailboxFull):
            await reply
        assert system.statistics().actors[0].accepted == 3
        assert await release(system, ref) == ["in hand", "older", "newer"]
        assert system.dead_letters.total == 0


@pytest.mark.asyncio
async def test_drop_new_makes_the_message_a_dead_letter() -> None:
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await spawn_full(system, overflow="drop_new")
        assert ref.tell_nowait("told") is False
        assert await ref.tell(Gated.note, "called") is False
        reply = ref.ask("asked")
        with pytest.raises(sage.MailboxFull):
            await reply
        letters = list(system.dead_letters)
        assert [(letter.message, letter.method, letter.asked) for letter in letters] == [
            ("told", "", False), (("called",), "note", False), ("asked", "", True),
        ]  # fmt: skip
        assert {letter.reason for letter in letters} == {"the mailbox was full"}
        assert await release(system, ref) == ["in hand", "older", "newer"]


@pytest.mark.asyncio
async def test_drop_old_makes_the_oldest_one_that_waits_a_dead_letter() -> None:
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await spawn_full(system, overflow="drop_old")
        reply = ref.ask("asked")
        assert ref.tell_nowait("told")
        assert await ref.tell("told again")
        with pytest.raises(sage.MailboxFull):
            await reply
        assert [letter.message for letter in system.dead_letters] == ["older", "newer", "asked"]
        assert await release(system, ref) == ["in hand", "told", "told again"]


POLICIES: list[Any] = ["wait", "fail", "drop_new", "drop_old"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(POLICIES), st.integers(1, 4), st.lists(st.sampled_from(["nowait", "ask", "run"]), max_size=25))
def test_the_policies_against_a_list(overflow: Any, capacity: int, script: list[str]) -> None:
    """The model: a list that is handled as a whole now and then."""

    async def main() -> None:
        queue: list[int] = []
        handled: list[int] = []
        dropped: list[int] = []
        refused: list[int] = []
        asked: dict[int, sage.Reply[Any]] = {}
        async with sage.ActorSystem(stop_timeout=0, inline_asks=False) as system:
            ref = await system.spawn(Gated, mailbox=sage.MailboxSettings(capacity=capacity, overflow=overflow))
            await turns(3)
            for number, what in enumerate(script):
                if what == "run":
                    await system.wait_idle()
                    handled += queue
                    queue.clear()
                    continue
                if what == "ask":
                    if len(queue) == capacity and overflow == "wait":
                        continue
                    asked[number] = ref.ask(Gated.note, number)
                else:
                    try:
                        accepted = ref.tell_nowait(Gated.note, number)
                    except sage.MailboxFull:
                        assert len(queue) == capacity and overflow in ("wait", "fail")
                        continue
                    assert accepted == (len(queue) < capacity or overflow == "drop_old")
                if len(queue) < capacity:
                    queue.append(number)
                elif overflow == "drop_old":
                    dropped.append(queue.pop(0))
                    queue.append(number)
                elif overflow == "drop_new":
                    dropped.append(number)
                else:
                    refused.append(number)
                assert ref.cell.queued == len(queue)
            await system.wait_idle()
            assert ref.cell.actor.seen == handled + queue
        assert [letter.message for letter in system.dead_letters] == [(number,) for number in dropped]
        for number, reply in asked.items():
            assert isinstance(reply.exception(), sage.MailboxFull) == (number in dropped + refused)

    asyncio.run(main())


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.asyncio
async def test_from_another_thread_nothing_waits_and_every_policy_but_wait_keeps_its_bound(overflow: Any) -> None:
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await spawn_full(system, overflow=overflow)
        told = await asyncio.get_running_loop().run_in_executor(None, lambda: [ref.tell_nowait(number) for number in range(3)])
        assert told == [True] * 3  # handed over; what becomes of them is decided on the loop
        await turns(3)
        seen = await release(system, ref)
        expected = {"wait": ["older", "newer", 0, 1, 2], "fail": ["older", "newer"], "drop_new": ["older", "newer"], "drop_old": [1, 2]}
        assert seen[1:] == expected[overflow]
        assert len(system.dead_letters) == (0 if overflow == "wait" else 3)
        await asyncio.get_running_loop().shutdown_default_executor()


# -- sends that would wait for themselves (A27) -----------------------------------------------------------------------


@pytest.mark.rule("A27")
@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.asyncio
async def test_a_full_self_send_fails_at_once(concurrency: int) -> None:
    class Selfish(sage.Actor):
        async def receive(self, message: object) -> object:
            await asyncio.sleep(0)
            if message == "fill":
                sent = 0
                try:
                    while True:
                        await self.ref.tell("more")
                        sent += 1
                except sage.MailboxFull:
                    return sent
            return None

    async with sage.ActorSystem(stop_timeout=0, restart=sage.NoRestart()) as system:
        ref = await system.spawn(Selfish, mailbox=sage.MailboxSettings(capacity=3), concurrency=concurrency)
        async with asyncio.timeout(5):
            assert await ref.ask("fill") >= 3
            first, second = await asyncio.gather(ref.ask("fill"), ref.ask("fill"))
        assert first + second >= 2
        await system.wait_idle()
        assert system.failures == 0


@pytest.mark.rule("A27")
@pytest.mark.asyncio
async def test_a_tell_to_whoever_waits_for_this_handler_fails_at_once_when_there_is_no_room() -> None:
    class Asking(sage.Actor):
        def __init__(self, other: ActorRef[Any]) -> None:
            self.other = other

        async def receive(self, message: object) -> object:
            return await self.other.ask(self.ref) if message == "go" else message

    class Telling(sage.Actor):
        async def receive(self, back: ActorRef[Any]) -> str:  # type: ignore[override]
            await back.tell("one")
            try:
                await back.tell("two")
            except sage.MailboxFull:
                return "no room"
            return "told"

    async with sage.ActorSystem(stop_timeout=0, restart=sage.NoRestart()) as system:
        asking = await system.spawn(Asking, await system.spawn(Telling), mailbox=sage.MailboxSettings(capacity=1))
        async with asyncio.timeout(5):
            assert await asking.ask("go") == "no room"


@pytest.mark.rule("A27")
@pytest.mark.parametrize("hook", ["on_start", "on_restart", "on_stop"])
@pytest.mark.asyncio
async def test_a_small_mailbox_deadlocks_no_hook(hook: str) -> None:
    outcomes: list[object] = []

    class Starting(sage.Actor):
        async def fill(self) -> None:
            try:
                outcomes.append(await self.ref.tell("one"))
                outcomes.append(await self.ref.tell("two"))
            except sage.MailboxFull:
                outcomes.append("full")

        def receive(self, message: object) -> None:
            if message == "fail":
                raise ValueError(message)

    setattr(Starting, hook, lambda self, *_: self.fill())
    async with sage.ActorSystem(stop_timeout=0, restart=sage.FixedDelay(delay=0)) as system:
        async with asyncio.timeout(5):
            ref = await system.spawn(Starting, mailbox=sage.MailboxSettings(capacity=1))
            if hook == "on_restart":
                await ref.tell("fail")
                await system.wait_idle()
            if hook == "on_stop":
                await system.stop(ref)
        assert outcomes == ([False, False] if hook == "on_stop" else [True, "full"])


@pytest.mark.rule("A27")
@pytest.mark.asyncio
async def test_signals_need_no_room_and_wait_behind_no_message() -> None:
    clock = ManualClock()

    class Busy(Gated):
        def on_start(self) -> None:  # type: ignore[override]
            self.context.timers.once("tick", 1, self.tick)

        def tick(self) -> None:
            self.seen.append("tick")

    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        ref = await system.spawn(Busy, mailbox=sage.MailboxSettings(capacity=1))
        await ref.tell("in hand")
        await turns(3)
        await ref.tell("queued")
        waiting = ref.ask("waits for room")
        await clock.advance(2)
        ref.cell.actor.gate.set()
        assert await waiting == "waits for room"
        assert ref.cell.actor.seen == ["in hand", "tick", "queued", "waits for room"]
        found = system.statistics().actors[0]
        assert (found.accepted, found.handled) == (3, 3)  # a tick is no message


# -- priorities -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(1, 40))
def test_the_least_number_first_equal_ones_in_the_order_sent(keys: list[int], capacity: int) -> None:
    async def main() -> None:
        async with sage.ActorSystem(stop_timeout=0) as system:
            settings = sage.MailboxSettings(capacity=capacity, overflow="drop_new", priority=lambda message: message[0])  # type: ignore[index]
            ref = await system.spawn(Gated, mailbox=settings)
            ref.tell_nowait((0, -1))
            await turns(3)
            sent = [(key, number) for number, key in enumerate(keys)]
            for message in sent:
                ref.tell_nowait(message)
            assert await release(system, ref) == [(0, -1), *sorted(sent[:capacity])]

    asyncio.run(main())


@pytest.mark.asyncio
async def test_the_priority_of_a_call_is_that_of_its_method_and_it_is_asked_once() -> None:
    asked: list[object] = []

    def priority(message: object) -> int:
        asked.append(message)
        return 0 if message is Gated.note else 1

    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await system.spawn(Gated, mailbox=sage.MailboxSettings(capacity=2, priority=priority))
        await ref.tell("in hand")
        await turns(3)
        await ref.tell("low")
        replies = [ref.ask(Gated.note, "high"), ref.ask(Gated.note, "higher, but waits for room")]
        # Who waits for room is in no mailbox yet: its priority counts from when it gets in.
        assert await release(system, ref) == ["in hand", "high", "low", "higher, but waits for room"]
        assert await asyncio.gather(*replies) == ["high", "higher, but waits for room"]
        assert asked == ["in hand", "low", Gated.note, Gated.note]


@pytest.mark.parametrize("wrong", [lambda message: message["missing"], lambda message: None, lambda message: "text"])
@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.asyncio
async def test_a_priority_that_cannot_be_told_is_the_sender_s_error_and_harms_nobody(wrong: Any, inline: bool) -> None:
    def priority(message: Any) -> Any:
        return wrong(message) if isinstance(message, dict) else 0

    async with sage.ActorSystem(stop_timeout=0, restart=sage.NoRestart(), inline_asks=inline) as system:
        ref: ActorRef[Any] = await system.spawn(Gated, mailbox=sage.MailboxSettings(capacity=2, priority=priority))
        await ref.tell("in hand")
        await turns(3)
        await ref.tell("queued")
        with pytest.raises(sage.BadCall):
            ref.tell_nowait({})
        with pytest.raises(sage.BadCall):
            await ref.ask({})
        await ref.tell("queued, too")
        waiting = ref.ask({})  # finds out when there is room
        await asyncio.get_running_loop().run_in_executor(None, ref.tell_nowait, {})
        await asyncio.get_running_loop().shutdown_default_executor()
        assert await release(system, ref) == ["in hand", "queued", "queued, too"]
        with pytest.raises(sage.BadCall):
            await waiting
        assert ref.cell.queued == 0


# -- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_the_statistics_say() -> None:
    clock = ManualClock()
    async with sage.ActorSystem("counted", stop_timeout=0, clock=clock) as system:
        ref = await spawn_full(system)
        found = system.statistics().actors[0]
        assert (found.path, found.class_name, found.state) == (ref.path, "Gated", "running")
        assert (found.accepted, found.handled, found.queued, found.in_hand, found.stashed) == (3, 0, 2, 1, 0)
        await release(system, ref)
        for number in range(640):
            await ref.ask(number)
        found = system.statistics().actors[0]
        assert (found.handled, found.queued, found.in_hand, found.mailbox_age) == (643, 0, 0, 0.0)
        whole = system.statistics()
        assert (whole.name, whole.living, whole.spawned, whole.failures, whole.dead_letters) == ("counted", 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("settings_of", "key"), [({"capacity": 0}, "capacity"), ({"stash_capacity": -1}, "stash"), ({"overflow": "x"}, "overflow")]
)
def test_settings_that_make_no_sense(settings_of: dict[str, Any], key: str) -> None:
    with pytest.raises(sage.ConfigError, match=key):
        sage.MailboxSettings(**settings_of)


@pytest.mark.asyncio
async def test_dead_letters_are_kept_up_to_a_number_counted_and_told() -> None:
    told: list[object] = []

    def broken(letter: sage.UndeliveredMessage) -> None:
        raise ValueError("a subscriber's own fault")

    async with sage.ActorSystem(dead_letters=2) as system:
        ref = await system.spawn(Gated)
        await system.stop(ref)
        system.dead_letters.subscribe(broken)
        subscription = system.dead_letters.subscribe(lambda letter: told.append(letter.message))
        for number in range(3):
            assert await ref.tell(number) is False
        subscription.cancel()
        subscription.cancel()
        assert ref.tell_nowait(3) is False
        assert [letter.message for letter in system.dead_letters] == [2, 3]
        assert system.dead_letters.total == 4
        assert told == [0, 1, 2]
        with pytest.raises(sage.ActorStopped):
            await ref.ask(4)  # its caller has been told: no dead letter
        assert system.dead_letters.total == 4
