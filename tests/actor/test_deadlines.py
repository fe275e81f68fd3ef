"""Deadlines of asks: never early, hardly late, inherited by what is asked further on, whatever the handler does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef, expire
from sage_actor.actor.deadlines import SLOT
from sage_actor.testing import ManualClock

LATEST = SLOT + 1e-9


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Sleeper(sage.Actor):
    """Handlers that never end by themselves, and some that look at their deadline."""

    def __init__(self, further: ActorRef[Any] | None = None) -> None:
        self.further = further
        self.seen: list[Any] = []

    async def for_ever(self) -> None:
        self.seen.append("begun")
        await asyncio.get_running_loop().create_future()

    @sage.interruptible
    async def for_ever_softly(self) -> None:
        self.seen.append("begun")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.seen.append("interrupted")
            raise

    def a_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def left(self) -> float | None:
        return self.context.deadline

    async def left_later(self) -> float | None:
        await asyncio.sleep(0)
        return self.context.deadline

    async def left_there(self, timeout: float | None) -> float | None:
        assert self.further is not None
        return await self.further.ask(Sleeper.left_later, timeout=timeout)

    async def ask_on(self, timeout: float | None) -> None:
        assert self.further is not None
        try:
            await self.further.ask(Sleeper.for_ever_softly, timeout=timeout)
        except sage.AskTimeout as error:
            self.seen.append((self.context.system.clock.monotonic(), error.actor))
            raise

    def note(self, message: object) -> None:
        self.seen.append(message)

    def stash_it(self) -> None:
        self.context.stash()

    def takes_timeout(self, timeout: float) -> float:
        return timeout

    def all_seen(self) -> list[Any]:
        return self.seen


async def when_settled(clock: ManualClock, reply: sage.Reply[Any]) -> float:
    """The instant at which it is settled, to a quarter of a slot."""
    for _ in range(2000):
        if reply.done():
            break
        await clock.advance(SLOT / 4)
    return clock.monotonic()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 1500)), min_size=1, max_size=12), st.floats(0, 1e6, allow_nan=False))
def test_a_deadline_passes_never_early_and_at_most_a_slot_late(asks: list[tuple[int, int]], start: float) -> None:
    """Pauses and timeouts in thousandths of a second, on a clock that starts anywhere."""

    async def main() -> None:
        clock = ManualClock(start)
        async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
            ref = await system.spawn(Sleeper, mailbox=sage.MailboxSettings(capacity=100))
            ends: dict[int, float] = {}
            wanted: dict[int, float] = {}

            def note(number: int) -> Callable[[sage.Reply[Any]], None]:
                return lambda reply: ends.setdefault(number, clock.monotonic())

            for number, (pause, timeout) in enumerate(asks):
                await clock.advance(pause / 1000)
                wanted[number] = clock.monotonic() + timeout / 1000
                ref.ask(Sleeper.for_ever, timeout=timeout / 1000).add_done_callback(note(number))
            for _ in range(200):
                await clock.advance(SLOT)
            assert len(ends) == len(asks)
            for number, end in ends.items():
                assert wanted[number] - 1e-9 <= end <= wanted[number] + LATEST + start * 1e-12
            await system.kill(ref)

    asyncio.run(main())


@pytest.mark.asyncio
async def test_the_error_says_who_and_how_long_and_is_a_timeout_error() -> None:
    clock = ManualClock()
    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        ref = await system.spawn(Sleeper, name="sleeper")
        reply = ref.ask(Sleeper.for_ever, timeout="1500ms")
        await clock.advance(1.5)
        await clock.advance(SLOT)
        with pytest.raises(TimeoutError) as caught:
            await reply
        error = caught.value
        assert isinstance(error, sage.AskTimeout)
        assert (error.actor, error.doing) == ("sleeper", "for_ever")
        assert 1.5 <= error.seconds <= 1.5 + LATEST
        await system.kill(ref)


@pytest.mark.parametrize("how", ["in hand", "queued", "waits for room", "inline", "restarting", "stashed", "starting"])
@pytest.mark.asyncio
async def test_wherever_the_ask_is_when_its_time_is_up(how: str) -> None:
    clock = ManualClock()
    async with sage.ActorSystem(stop_timeout=0, clock=clock, restart=sage.FixedDelay(delay="1h")) as system:
        ref = await system.spawn(Sleeper, mailbox=sage.MailboxSettings(capacity=1))
        await turns(3)
        method: Callable[..., Any] = Sleeper.for_ever
        if how in ("queued", "waits for room"):
            await ref.tell(Sleeper.for_ever)
            await turns(3)
        if how == "waits for room":
            await ref.tell(Sleeper.for_ever)
        if how == "inline":
            method = Sleeper.a_future
        if how == "stashed":
            method = Sleeper.stash_it
        if how == "restarting":
            await ref.tell(Sleeper.note)  # type: ignore[call-arg]
            with pytest.raises(sage.ActorFailed):
                await ref.ask(Sleeper.left_there, None)
        if how == "starting":
            with pytest.raises(sage.ActorFailed):
                await ref.ask(Sleeper.left_there, None)
        reply = ref.ask(method, timeout=2)
        settled = await when_settled(clock, reply)
        assert 2 <= settled <= 2 + LATEST + SLOT / 4
        with pytest.raises(sage.AskTimeout):
            await reply
        await system.kill(ref)
        found = ref.cell
        assert found.statistics().accepted == found.handled + found.dead_lettered
        assert found.statistics().waiting_putters == 0


@pytest.mark.asyncio
async def test_an_ask_whose_time_is_up_before_its_turn_is_never_handled() -> None:
    clock = ManualClock()
    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        ref = await system.spawn(Sleeper, mailbox=sage.MailboxSettings(capacity=2))
        blocker = ref.ask(Sleeper.for_ever_softly)
        replies = [ref.ask(Sleeper.note, number, timeout=1) for number in range(4)]  # two queue, two wait for room
        kept = ref.ask(Sleeper.note, "kept", timeout=10)
        await clock.advance(2)
        assert all(isinstance(reply.exception(), sage.AskTimeout) for reply in replies)
        blocker.cancel()
        assert await kept is None
        assert await ref.ask(Sleeper.all_seen) == ["begun", "interrupted", "kept"]
        letters = [letter.message for letter in system.dead_letters if letter.method == "note"]
        assert letters == [(0,), (1,)]  # those that waited for room were never sent


@pytest.mark.rule("A37")
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("what", ["answer", "failure", "deadline", "end of the actor"])
@pytest.mark.parametrize("first", ["the cancellation", "the other"])
def test_a_cancellation_that_meets_an_outcome_in_one_turn_is_not_swallowed(
    factory: Callable[[], asyncio.AbstractEventLoop], what: str, first: str
) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
            ref = await system.spawn(Sleeper)
            reply = ref.ask(Sleeper.for_ever, timeout=1)

            async def wait() -> None:
                await reply

            caller = asyncio.create_task(wait())
            await turns(4)
            outcomes: dict[str, Callable[[], object]] = {
                "answer": lambda: reply.answer(None),
                "failure": lambda: reply.fail(sage.ActorFailed(ref.path, "on purpose")),
                "deadline": lambda: expire(reply, 1.0),
                "end of the actor": lambda: reply.fail(sage.ActorStopped(ref.path)),
            }
            steps = [caller.cancel, outcomes[what]]
            for step in steps if first == "the cancellation" else steps[::-1]:
                step()
            await asyncio.wait([caller])
            assert caller.cancelled()
            await system.kill(ref)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


# -- inheritance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outer", "inner", "left"), [(5, None, 5), (5, 3, 3), (5, 8, 5), (None, 3, 3), (None, None, None)])
@pytest.mark.asyncio
async def test_a_nested_ask_has_the_shorter_of_both_deadlines(outer: float | None, inner: float | None, left: float | None) -> None:
    clock = ManualClock(100)
    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        further = await system.spawn(Sleeper)
        ref = await system.spawn(Sleeper, further)
        await turns(3)
        assert await ref.ask(Sleeper.left_there, inner, timeout=outer) == left
        assert await ref.ask(Sleeper.left, timeout=outer) == outer
        assert await ref.ask(Sleeper.left_later, timeout=outer) == outer
        assert await ref.ask(Sleeper.left) is None


@pytest.mark.parametrize(("outer", "inner", "first"), [(5, None, 5), (5, 3, 3), (5, 8, 5), (None, 3, 3)])
@pytest.mark.asyncio
async def test_the_nested_ask_ends_with_the_shorter_deadline(outer: float | None, inner: float | None, first: float) -> None:
    clock = ManualClock()
    async with sage.ActorSystem(stop_timeout=0, clock=clock, restart=sage.NoRestart()) as system:
        further = await system.spawn(Sleeper, name="further")
        ref = await system.spawn(Sleeper, further, name="ref")
        actor = ref.cell.actor
        reply = ref.ask(Sleeper.ask_on, inner, timeout=outer)
        await clock.advance(20)
        ((instant, who),) = actor.seen
        assert first <= instant <= first + LATEST
        assert who == "further"
        assert further.cell.actor.seen == ["begun", "interrupted"]
        error = reply.exception()
        assert isinstance(error, sage.AskTimeout if outer == first else sage.ActorFailed)


@pytest.mark.asyncio
async def test_three_levels_down_the_first_deadline_still_holds() -> None:
    clock = ManualClock()
    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        last = await system.spawn(Sleeper)
        middle = await system.spawn(Sleeper, last)
        first = await system.spawn(Sleeper, middle)

        async def down(self: Sleeper) -> float | None:
            assert self.further is not None
            return await self.further.ask(Sleeper.left_there, None)

        Sleeper.down = down  # type: ignore[attr-defined]
        try:
            assert await first.ask(Sleeper.left_there, None, timeout=4) == 4
        finally:
            del Sleeper.down  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_a_told_message_and_a_hook_have_no_deadline() -> None:
    clock = ManualClock()
    lefts: list[float | None] = []

    class Child(sage.Actor):
        async def on_start(self) -> None:
            lefts.append(self.context.deadline)

    class Parent(sage.Actor):
        async def receive(self, message: object) -> None:
            lefts.append(self.context.deadline)
            await self.context.spawn(Child)

        async def on_stop(self) -> None:
            lefts.append(self.context.deadline)

    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        parent = await system.spawn(Parent)
        await parent.tell("hello")
        await system.wait_idle()
        await system.stop(parent)
        assert lefts == [None, None, None]


@pytest.mark.asyncio
async def test_a_deadline_that_passed_reads_zero() -> None:
    clock = ManualClock()
    lefts: list[float | None] = []

    class Late(sage.Actor):
        async def receive(self, message: asyncio.Event) -> None:  # type: ignore[override]
            await message.wait()
            lefts.append(self.context.deadline)
            assert self.context.abandoned

    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        ref = await system.spawn(Late)
        gate = asyncio.Event()
        reply = ref.ask(gate, timeout=1)
        await clock.advance(3)
        gate.set()
        await system.wait_idle()
        assert isinstance(reply.exception(), sage.AskTimeout)
        assert lefts == [0.0]
        assert system.failures == 0


# -- the argument -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan])
@pytest.mark.asyncio
async def test_a_timeout_that_makes_no_sense_is_refused_at_the_call(inline: bool, timeout: float) -> None:
    async with sage.ActorSystem(inline_asks=inline) as system:
        ref = await system.spawn(Sleeper)
        await turns(3)
        for method in (Sleeper.all_seen, Sleeper.left_later):
            with pytest.raises(sage.ActorError, match="timeout"):
                ref.ask(method, timeout=timeout)
        with pytest.raises(sage.ConfigError):
            ref.ask(Sleeper.left_later, timeout="soon")
        assert ref.cell.statistics().accepted == 0


@pytest.mark.asyncio
async def test_an_infinite_timeout_is_none_and_zero_is_over_at_the_next_slot() -> None:
    clock = ManualClock()
    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        ref = await system.spawn(Sleeper)
        endless = ref.ask(Sleeper.for_ever_softly, timeout=math.inf)
        at_once = ref.ask(Sleeper.left_later, timeout=0)
        await clock.advance(SLOT)
        assert isinstance(at_once.exception(), sage.AskTimeout)
        await clock.advance("1000h")
        assert not endless.done()
        endless.cancel()


@pytest.mark.asyncio
async def test_the_timeout_is_not_handed_to_the_method() -> None:
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Sleeper)
        with pytest.raises(sage.BadCall):
            await ref.ask(Sleeper.takes_timeout, timeout=3)
        assert await ref.ask(Sleeper.takes_timeout, 3, timeout=5) == 3


@pytest.mark.asyncio
async def test_answered_asks_leave_no_timer_behind() -> None:
    clock = ManualClock()
    async with sage.ActorSystem(stop_timeout=0, clock=clock) as system:
        ref = await system.spawn(Sleeper)
        for _ in range(100):
            await ref.ask(Sleeper.left_later, timeout=1)
            await clock.advance(0.005)
        assert clock.pending <= 1
        await clock.advance(2)
        assert clock.pending == 0
