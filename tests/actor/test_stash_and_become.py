"""Putting messages aside and changing behaviour, also across restarts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.testing import ManualClock

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Door(sage.Actor):
    """Puts everything aside until it is opened."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen
        self.open = False

    def receive(self, message: Any) -> Any:
        if message == "open":
            self.open = True
            return self.context.unstash()
        if message == "fail":
            raise ValueError(message)
        if not self.open:
            self.context.stash()
            return "this answers nobody"
        self.seen.append(message)
        return ("handled", message)

    def call(self, message: Any) -> Any:
        return Door.receive(self, message)


class LazyDoor(Door):
    async def receive(self, message: Any) -> Any:
        await asyncio.sleep(0)
        return super().receive(message)


DOORS = pytest.mark.parametrize("door", [Door, LazyDoor])


def accounts(system: sage.ActorSystem) -> tuple[int, int, int]:
    found = system.statistics().actors[0]
    assert found.accepted == found.handled + found.dead_lettered + found.queued + found.stashed + found.in_hand
    return found.stashed, found.handled, found.dead_lettered


@DOORS
@pytest.mark.asyncio
async def test_stashed_messages_come_back_in_order_before_all_others(door: type[Door]) -> None:
    seen: list[Any] = []
    async with sage.ActorSystem() as system:
        ref = await system.spawn(door, seen)
        await ref.tell(1)
        await ref.tell(None)
        reply = ref.ask(2)
        call = ref.ask(Door.call, 3)
        await system.wait_idle()
        assert accounts(system) == (4, 0, 0)
        assert not reply.done() and not call.done()
        opened = ref.ask("open")
        await ref.tell(4)
        assert await opened == 4
        assert await asyncio.gather(reply, call) == [("handled", 2), ("handled", 3)]
        await system.wait_idle()
        assert seen == [1, None, 2, 3, 4]
        assert accounts(system) == (0, 6, 0)


@DOORS
@pytest.mark.asyncio
async def test_what_is_stashed_again_keeps_its_place(door: type[Door]) -> None:
    class Picky(door):  # type: ignore[misc, valid-type]
        wanted = 0

        def call(self, message: int) -> None:
            """Handles 0, 1, 2... in order of the numbers, whatever the order sent."""
            if message != self.wanted:
                self.context.stash()
                return
            self.seen.append(message)
            self.wanted += 1
            self.context.unstash()

    seen: list[Any] = []
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Picky, seen)
        for number in (3, 4, 1, 2, 0, 5):
            await ref.tell(Picky.call, number)
        await system.wait_idle()
        assert seen == [0, 1, 2, 3, 4, 5]
        assert accounts(system) == (0, 6, 0)


@pytest.mark.rule("A12")
@DOORS
@pytest.mark.asyncio
async def test_a_restart_unstashes_by_itself_in_order_and_asks_are_answered_by_the_new_instance(door: type[Door]) -> None:
    seen: list[Any] = []
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        ref = await system.spawn(door, seen)
        await ref.tell(1)
        reply = ref.ask(2)
        await ref.tell("fail")
        await ref.tell("open")
        await ref.tell(3)
        assert await reply == ("handled", 2)
        await system.wait_idle()
        # The new door stashes 1 and 2 again until "open", which waits behind them, has come.
        assert seen == [1, 2, 3]
        assert accounts(system) == (0, 5, 0)


@DOORS
@pytest.mark.parametrize("how", ["stop", "kill", "drained stop"])
@pytest.mark.asyncio
async def test_what_is_stashed_at_the_end_goes_to_the_dead_letters(door: type[Door], how: str) -> None:
    clock = ManualClock()
    async with sage.ActorSystem(clock=clock, stop_timeout=0) as system:
        ref = await system.spawn(door, [])
        await ref.tell(1)
        reply = ref.ask(2)
        await system.wait_idle()
        await (system.kill(ref) if how == "kill" else system.stop(ref, drain=how == "drained stop", timeout=0))
        with pytest.raises(sage.ActorStopped):
            await reply
        assert [(letter.message, letter.asked) for letter in system.dead_letters] == [(1, False), (2, True)]
        assert ref.cell.dead_lettered == ref.cell.statistics().accepted == 2


@DOORS
@pytest.mark.asyncio
async def test_a_stashed_ask_that_is_given_up_or_out_of_time_is_not_handled_later(door: type[Door]) -> None:
    clock = ManualClock()
    seen: list[Any] = []
    async with sage.ActorSystem(clock=clock, stop_timeout=0) as system:
        ref = await system.spawn(door, seen)
        given_up, late, kept = ref.ask(1), ref.ask(2, timeout=1), ref.ask(3, timeout=100)
        await turns(10)
        given_up.cancel()
        await clock.advance(2)
        with pytest.raises(sage.AskTimeout):
            await late
        await ref.tell("open")
        assert await kept == ("handled", 3)
        assert seen == [3]
        assert accounts(system) == (0, 2, 2)
        assert [letter.message for letter in system.dead_letters] == [1, 2]


@pytest.mark.parametrize("capacity", [0, 1, 3])
@DOORS
@pytest.mark.asyncio
async def test_a_full_stash_is_an_error_in_the_handler(door: type[Door], capacity: int) -> None:
    class Careful(door):  # type: ignore[misc, valid-type]
        def call(self, message: Any) -> str:
            try:
                self.context.stash()
            except sage.MailboxFull as error:
                return f"{error.capacity} are too many"
            return ""

    async with sage.ActorSystem(restart=AT_ONCE) as system:
        ref = await system.spawn(Careful, [], mailbox=sage.MailboxSettings(stash_capacity=capacity))
        for number in range(capacity):
            await ref.tell(number)
        assert await ref.ask(Careful.call, "more") == f"{capacity} are too many"
        assert accounts(system) == (capacity, 1, 0)
        with pytest.raises(sage.ActorFailed) as caught:
            await ref.ask("one more")
        assert isinstance(caught.value.__cause__, sage.MailboxFull)


@pytest.mark.asyncio
async def test_stashing_where_there_is_nothing_to_stash() -> None:
    clock = ManualClock()
    errors: list[str] = []

    class Confused(sage.Actor):
        async def on_start(self) -> None:
            self.try_it()
            self.context.timers.once("tick", 1, self.try_it)

        def try_it(self) -> None:
            try:
                self.context.stash()
            except sage.BadCall as error:
                errors.append(error.problem)

        async def receive(self, message: object) -> None:
            asyncio.get_running_loop().call_soon(self.try_it)
            await turns(3)

    async with sage.ActorSystem(clock=clock, stop_timeout=0) as system:
        ref = await system.spawn(Confused)
        await clock.advance(1)
        assert len(errors) == 2
        assert "tick" in errors[1]
        assert await ref.ask("message") is None
        assert len(errors) == 3
        ref.cell.actor.try_it()
        assert len(errors) == 4
        assert accounts(system) == (0, 1, 0)
        assert ref.cell.lifecycle.actor_context.unstash() == 0


@pytest.mark.asyncio
async def test_a_handler_that_stashes_and_then_fails_or_is_interrupted_has_not_stashed() -> None:
    class Late(sage.Actor):
        async def fail(self) -> None:
            self.context.stash()
            await asyncio.sleep(0)
            raise ValueError("after all")

        @sage.interruptible
        async def wait(self) -> None:
            self.context.stash()
            await asyncio.get_running_loop().create_future()

        def other(self) -> str:
            return "fine"

    async with sage.ActorSystem(restart=AT_ONCE, stop_timeout=0) as system:
        ref = await system.spawn(Late)
        with pytest.raises(sage.ActorFailed):
            await ref.ask(Late.fail)
        assert await ref.ask(Late.other) == "fine"
        reply = ref.ask(Late.wait)
        await turns(3)
        reply.cancel()
        assert await ref.ask(Late.other) == "fine"
        assert accounts(system) == (0, 3, 1)


# -- behaviours -------------------------------------------------------------------------------------------------------


class Machine(sage.Actor):
    """Idle, working, or paused within either."""

    def receive(self, message: str) -> str:  # type: ignore[override]
        if message == "fail":
            raise ValueError(message)
        return self.change(message) or f"idle: {message}"

    def working(self, message: str) -> str:
        if message == "fail":
            raise ValueError(message)
        return self.change(message) or f"working: {message}"

    async def paused(self, message: str) -> str:
        await asyncio.sleep(0)
        return self.change(message) or f"paused: {message}"

    def change(self, message: str) -> str:
        if message == "work":
            self.context.become(self.working)
        elif message == "pause":
            self.context.become(self.paused, keep=True)
        elif message == "nest":
            self.context.become(lambda each: self.change(each) or f"nested: {each}", keep=True)
        elif message == "back":
            return "went back" if self.context.unbecome() else "nowhere to go"
        else:
            return ""
        return "changed"

    def state(self) -> str:
        return "methods are called as ever"


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.asyncio
async def test_the_next_message_meets_the_new_behaviour(inline: bool) -> None:
    async with sage.ActorSystem(inline_asks=inline) as system:
        ref = await system.spawn(Machine)
        script = {"back": "nowhere to go", "a": "idle: a", "work": "changed", "b": "working: b", "pause": "changed", "c": "paused: c"}
        for message, answer in script.items():
            assert await ref.ask(message) == answer
        assert await ref.ask("nest") == "changed"
        assert await ref.ask("d") == "nested: d"
        assert await ref.ask(Machine.state) == "methods are called as ever"
        for message, answer in [
            ("back", "went back"),
            ("e", "paused: e"),
            ("back", "went back"),
            ("f", "working: f"),
            ("back", "nowhere to go"),
        ]:
            assert await ref.ask(message) == answer


@pytest.mark.asyncio
async def test_messages_sent_together_with_the_change_meet_it_in_order() -> None:
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Machine)
        answers = await asyncio.gather(*(ref.ask(message) for message in ["a", "work", "b", "pause", "c", "back", "d"]))
        assert answers == ["idle: a", "changed", "working: b", "changed", "paused: c", "went back", "working: d"]


@pytest.mark.asyncio
async def test_a_restart_forgets_every_behaviour() -> None:
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        ref = await system.spawn(Machine)
        for message in ("pause", "work"):
            await ref.ask(message)
        with contextlib.suppress(sage.ActorFailed):
            await ref.ask("fail")
        assert await ref.ask("a") == "idle: a"
        assert await ref.ask("back") == "nowhere to go"


@pytest.mark.asyncio
async def test_stash_and_become_together() -> None:
    class Connection(sage.Actor):
        """The usual use: requests wait until a connection stands."""

        def receive(self, message: Any) -> Any:
            if message == "connected":
                self.context.become(self.connected)
                self.context.unstash()
            else:
                self.context.stash()

        def connected(self, message: Any) -> Any:
            return f"sent {message}"

    async with sage.ActorSystem() as system:
        ref = await system.spawn(Connection)
        replies = [ref.ask(number) for number in range(3)]
        await ref.tell("connected")
        replies.append(ref.ask(3))
        assert await asyncio.gather(*replies) == [f"sent {number}" for number in range(4)]
