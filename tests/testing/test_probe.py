"""Probes: what they take, what they answer, and what they say when something else comes, or nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

import sage_actor as sage
from sage_actor.ports import current_clock
from sage_actor.testing import ManualClock, MethodCall, Probe


class Audit(sage.Actor):
    """What the probes stand in for."""

    def record(self, what: str, amount: int = 1) -> None:
        raise AssertionError("a stand-in executes nothing")

    async def total(self) -> int:
        raise AssertionError("a stand-in executes nothing")

    async def lines(self) -> AsyncIterator[str]:
        yield "a line"


class Shop(sage.Actor):
    def __init__(self, audit: sage.ActorRef[Audit]) -> None:
        self.audit = audit

    async def sell(self, what: str) -> int:
        await self.audit.tell(Audit.record, what, amount=2)
        return await self.audit.ask(Audit.total, timeout=5) + 1

    def tick(self) -> None:
        self.context.timers.once("late", 10.0, self.late)

    def late(self) -> None:
        self.audit.tell_nowait("late")


class Sleeper(sage.Actor):
    async def sleep(self, until: asyncio.Event) -> None:
        await until.wait()

    @sage.blocking
    def work(self, until: threading.Event, ref: sage.ActorRef[object]) -> None:
        until.wait()
        ref.tell_nowait("from a thread")


@pytest.mark.asyncio
async def test_messages_come_in_order_and_are_taken_once() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system, name="probe")
        for message in ("one", 2, None):
            await probe.ref.tell(message)
        assert await probe.receive() == "one"
        assert await probe.expect(int) == 2
        assert await probe.receive() is None
        assert probe.messages == ("one", 2, None)
        await probe.expect_nothing()
        await probe.ref.tell("forgotten")
        await system.wait_idle()
        probe.clear()
        await probe.expect_nothing()
        assert probe.messages[-1] == "forgotten"


@pytest.mark.asyncio
async def test_expect_takes_a_class_a_function_and_a_value() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)
        for message in ("text", 7, {"a": 1}):
            await probe.ref.tell(message)
        text: str = await probe.expect(str)
        assert text == "text"
        assert await probe.expect(lambda number: number > 6) == 7
        assert await probe.expect({"a": 1}) == {"a": 1}


@pytest.mark.asyncio
async def test_another_message_than_expected_is_shown_with_what_waits() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system, name="probe")
        for message in ("before", "other", "after"):
            await probe.ref.tell(message)
        await probe.expect("before")
        with pytest.raises(AssertionError) as failed:
            await probe.expect(int)
        told = str(failed.value)
        assert "probe 'probe': expected an instance of int, and 'other' came" in told
        assert "taken before: 'before', 'other'" in told
        assert "still waiting: 'after'" in told
        assert await probe.receive() == "after"
        for wanted, words in ((3, "expected 3"), (str.isupper, "to which isupper says True")):
            await probe.ref.tell("x")
            with pytest.raises(AssertionError, match=words):
                await probe.expect(wanted)


@pytest.mark.asyncio
async def test_expect_nothing_fails_on_what_comes_and_leaves_it() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system, name="probe")
        await probe.ref.tell("something")
        with pytest.raises(AssertionError, match="expected nothing, and 'something' came"):
            await probe.expect_nothing()
        assert await probe.receive() == "something"


@pytest.mark.asyncio
async def test_an_ask_waits_for_its_answer_and_holds_up_nothing() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)
        first, second = probe.ref.ask("first"), probe.ref.ask("second")
        await probe.ref.tell("told")
        await probe.expect("first")
        await probe.expect("second")
        assert probe.unanswered == ("first", "second")
        await system.wait_idle()  # an ask that is held keeps nobody busy
        assert not first.done()
        probe.reply(2)
        assert await second == 2
        assert probe.unanswered == ("first",)
        with pytest.raises(AssertionError, match="has its answer already"):
            probe.reply(3)
        await probe.expect("told")
        with pytest.raises(AssertionError, match="nothing to reply: the message taken last was no ask: 'told'"):
            probe.reply(3)
    with pytest.raises(sage.ActorStopped):
        await first
    assert [letter.message for letter in system.dead_letters] == ["first"]


@pytest.mark.asyncio
async def test_nothing_was_taken_yet_so_nothing_can_be_answered() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)
        with pytest.raises(AssertionError, match="no message was taken yet"):
            probe.reply(1)


@pytest.mark.asyncio
async def test_an_ask_whose_caller_gave_up_is_a_dead_letter_and_its_answer_goes_nowhere() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)
        given_up, other = probe.ref.ask("given up"), probe.ref.ask("other")
        await probe.expect("given up")
        given_up.cancel()
        assert probe.unanswered == ("other",)
        probe.reply(1)
        await system.wait_idle()
        assert [(letter.message, letter.reason) for letter in system.dead_letters] == [("given up", "its caller gave up")]
        await probe.expect("other")
        probe.reply(2)
        assert await other == 2


@pytest.mark.asyncio
async def test_answers_may_be_left_to_a_function() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)
        probe.answer_with(lambda message: message * 2)
        assert await probe.ref.ask(21) == 42

        async def later(message: str) -> str:
            await asyncio.sleep(0)
            return message.upper()

        probe.answer_with(later)
        assert await probe.ref.ask("loud") == "LOUD"
        probe.answer_with(None)
        held = probe.ref.ask("held")
        assert [await probe.receive() for _ in range(3)] == [21, "loud", "held"]
        probe.reply(None)
        assert await held is None


@pytest.mark.asyncio
async def test_a_probe_stands_in_for_an_actor_of_another_class() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system, name="probe")
        audit: sage.ActorRef[Audit] = probe.stand_in(Audit)
        shop = await system.spawn(Shop, audit)
        sold = shop.ask(Shop.sell, "tea")
        call = await probe.expect_call(Audit.record, "tea", amount=2)
        assert call == MethodCall("record", ("tea",), {"amount": 2})
        await probe.expect_call(Audit.total)
        probe.reply(4)
        assert await sold == 5
        await audit.tell(Audit.record, "coffee")
        with pytest.raises(AssertionError, match=r"expected a call record\('tea'\), and record\('coffee'\) came"):
            await probe.expect_call(Audit.record, "tea")


@pytest.mark.asyncio
async def test_a_stand_in_refuses_calls_that_do_not_fit_and_answers_in_parts() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)
        audit = probe.stand_in(Audit)
        with pytest.raises(sage.BadCall, match="missing a required argument"):
            await probe.ref.ask(Audit.record)
        with pytest.raises(sage.BadCall):
            audit.stream(Audit.lines)
        with pytest.raises(sage.BadCall):
            await probe.ref.ask(Shop.sell, "not stood in for")
        await probe.expect_nothing()
        assert system.failures == 0


@pytest.mark.asyncio
async def test_fail_next_fails_as_a_handler_would_and_what_is_held_survives() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)
        audit = probe.stand_in(Audit)
        held = audit.ask(Audit.total)
        await probe.expect_call(Audit.total)
        probe.fail_next(OSError("disk full"))
        with pytest.raises(sage.ActorFailed) as failed:
            await audit.ask(Audit.total)
        assert isinstance(failed.value.__cause__, OSError)
        await system.wait_idle()
        assert system.restarts == 1
        assert probe.unanswered == (MethodCall("total"),)
        await audit.tell(Audit.record, "after the restart")
        await probe.expect_call(Audit.total)
        await probe.expect_call(Audit.record)
        assert not held.done()


@pytest.mark.asyncio
async def test_fail_fails_the_ask_taken_last() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)
        other, failing = probe.ref.ask("other"), probe.ref.ask("failing")
        await probe.expect("other")
        await probe.expect("failing")
        probe.fail(KeyError("k"))
        with pytest.raises(sage.ActorFailed, match="KeyError"):
            await failing
        await system.wait_idle()
        assert system.failures == 1
        assert probe.unanswered == ("other",)
        assert not other.done()


@pytest.mark.asyncio
async def test_ends_of_other_actors() -> None:
    async with sage.ActorSystem("t", restart=sage.NoRestart()) as system:
        probe = await Probe.spawn(system, name="probe")
        worker = await system.spawn(Sleeper, name="worker")
        probe.watch(worker)
        with pytest.raises(AssertionError, match="expected the end of 'worker', and none came: not within 0 s"):
            await probe.expect_terminated(worker, timeout=0)
        await system.stop(worker)
        assert (await probe.expect_terminated(worker)).reason is None
        assert await probe.expect_terminated(worker) == await probe.expect_terminated(worker)
        other = await system.spawn(Shop, probe.ref)
        await system.stop(other)
        assert (await probe.expect_terminated(other)).ref is other
        await probe.expect_nothing()


@pytest.mark.asyncio
async def test_names_are_taken_as_of_any_actor() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system, name="probe")
        with pytest.raises(sage.NameTaken):
            await Probe.spawn(system, name="probe")
        await system.stop(probe.ref)
        await Probe.spawn(system, name="probe")


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_on_a_manual_clock_a_wait_for_what_cannot_come_fails_at_once() -> None:
    clock = ManualClock(100.0)
    async with sage.ActorSystem("t", clock=clock) as system:
        probe = await Probe.spawn(system)
        shop = await system.spawn(Shop, probe.stand_in(Audit))
        await shop.tell(Shop.tick)
        with pytest.raises(AssertionError, match="all is idle, and the manual clock stands at 100 s"):
            await probe.receive(timeout="1h")
        await probe.expect_nothing("9s")
        assert clock.monotonic() == 109.0
        with pytest.raises(AssertionError, match="expected nothing, and 'late' came"):
            await probe.expect_nothing("1s")
        assert await probe.receive() == "late"


@pytest.mark.asyncio
@pytest.mark.parametrize("first", ["probe", "clock"])
async def test_on_a_manual_clock_another_task_may_move_it_meanwhile(first: str) -> None:
    clock = ManualClock()
    async with sage.ActorSystem("t", clock=clock) as system:
        probe = await Probe.spawn(system)
        shop = await system.spawn(Shop, probe.stand_in(Audit))
        await shop.tell(Shop.tick)
        await system.wait_idle()
        waits = [probe.receive, lambda: clock.advance("10s")]
        results = await asyncio.gather(*(wait() for wait in (waits if first == "probe" else waits[::-1])))
        assert "late" in results


@pytest.mark.asyncio
async def test_on_a_manual_clock_a_thread_is_waited_for() -> None:
    go = threading.Event()
    async with sage.ActorSystem("t", clock=ManualClock()) as system:
        probe = await Probe.spawn(system)
        sleeper = await system.spawn(Sleeper)
        await sleeper.tell(Sleeper.work, go, probe.ref)
        await probe.expect_nothing()  # does not wait for it
        asyncio.get_running_loop().call_later(0.01, go.set)
        assert await probe.receive() == "from a thread"


@pytest.mark.asyncio
async def test_who_is_busy_is_told() -> None:
    until = asyncio.Event()
    async with sage.ActorSystem("t", clock=ManualClock()) as system:
        probe = await Probe.spawn(system)
        sleeper = await system.spawn(Sleeper, name="sleeper")
        await sleeper.tell(Sleeper.sleep, until)
        await sleeper.tell(Sleeper.sleep, until)
        with pytest.raises(AssertionError) as failed:
            await probe.receive(timeout=0.01)
        told = str(failed.value)
        assert "expected a message, and none came: not within 0.01 s" in told
        assert "busy: actor 'sleeper' is running and waits in sleep (test_probe.py:" in told
        assert "waiting in its mailbox: 1" in told
        until.set()


@pytest.mark.simulate(seeds=50)
async def test_in_a_simulation_timeouts_are_virtual() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)
        shop = await system.spawn(Shop, probe.stand_in(Audit))
        begun = current_clock().monotonic()
        with pytest.raises(AssertionError, match="not within 3600 s"):
            await probe.receive(timeout="1h")
        assert current_clock().monotonic() == pytest.approx(begun + 3600)
        await shop.tell(Shop.tick)
        await probe.expect_nothing("9s")
        assert await probe.receive() == "late"
        sold = shop.ask(Shop.sell, "tea")
        await probe.expect_call(Audit.record)
        await probe.expect_call(Audit.total)
        with pytest.raises(sage.ActorFailed, match="AskTimeout"):
            await sold
        assert probe.unanswered == ()


@pytest.mark.simulate(seeds=50)
async def test_many_senders_each_in_order() -> None:
    async with sage.ActorSystem("t") as system:
        probe = await Probe.spawn(system)

        async def send(sender: int) -> None:
            for number in range(10):
                if number % 3 == 2:
                    assert await probe.ref.ask((sender, number)) == number
                else:
                    await probe.ref.tell((sender, number))

        probe.answer_with(lambda message: message[1])
        async with asyncio.TaskGroup() as group:
            for sender in range(3):
                group.create_task(send(sender))
        got = [await probe.expect(tuple) for _ in range(30)]
        for sender in range(3):
            assert [number for who, number in got if who == sender] == list(range(10))
