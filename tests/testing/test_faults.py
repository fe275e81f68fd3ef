"""Fault injection: what happens to the message, its caller and the actor, and that nothing else happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

import sage_actor as sage
from sage_actor.actor.statistics import statistics_of
from sage_actor.ports import current_clock
from sage_actor.testing import FaultInjector, InjectedFailure, ManualClock, Probe, Struck, Waiting

AT_ONCE = sage.FixedDelay(attempts=None, delay=0.0)


class Refused(Exception):
    """An answer of `Counter`."""


class Counter(sage.Actor):
    expected_errors = (Refused,)

    def __init__(self, log: list[object]) -> None:
        self.log = log
        self.n = 0

    def add(self, by: int = 1) -> int:
        self.n += by
        self.log.append(by)
        return self.n

    async def add_later(self, by: int) -> int:
        await asyncio.sleep(0)
        return self.add(by)

    @sage.blocking
    def add_in_thread(self, by: int) -> int:
        return self.add(by)

    @sage.interruptible
    async def wait(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def parts(self) -> AsyncIterator[int]:
        yield self.n

    def beat(self) -> None:
        self.log.append("beat")

    def start_beating(self) -> None:
        self.context.timers.every("beat", 1.0, self.beat)

    def receive(self, message: object) -> object:
        self.log.append(message)
        if message == "change":
            self.context.become(self.changed)
        return message

    def changed(self, message: object) -> object:
        self.log.append(("changed", message))
        return message

    async def on_terminated(self, ended: sage.Terminated) -> None:
        self.log.append("told of an end")


async def counter(system: sage.ActorSystem, log: list[object] | None = None, **options: object) -> sage.ActorRef[Counter]:
    return await system.spawn(Counter, [] if log is None else log, name="counter", restart=AT_ONCE, **options)  # type: ignore[arg-type]


def assert_accounted(ref: sage.ActorRef[Counter]) -> None:
    counts = statistics_of(ref.cell.lifecycle)
    assert counts.accepted == counts.handled + counts.dead_lettered + counts.queued + counts.stashed + counts.in_hand


# -- fail -------------------------------------------------------------------------------------------------------------

METHODS = [Counter.add, Counter.add_later, Counter.add_in_thread]


@pytest.mark.simulate(seeds=20)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_handler_fails_before_or_after_it_ran(method: Callable[[Counter, int], int], when: str) -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system, log)
        fault = faults.fail(ref, OSError("disk full"), on=method, when=when)  # type: ignore[arg-type]
        assert await ref.ask("question") == "question"
        failing = ref.ask(method, 1)
        with pytest.raises(sage.ActorFailed, match="disk full") as failed:
            await failing
        assert isinstance(failed.value.__cause__, OSError)
        assert await ref.ask(method, 2) == 2  # a fresh instance, and the fault is over
        assert log == (["question", 1, 2] if when == "after" else ["question", 2])
        assert (system.failures, system.restarts, fault.struck, fault.over) == (1, 1, 1, True)
        assert faults.struck == (Struck("fail", "counter", method.__name__),)
        assert_accounted(ref)


@pytest.mark.simulate(seeds=20)
async def test_messages_for_receive_fail_whatever_handles_them() -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system, log)
        await ref.tell("change")
        await system.wait_idle()
        faults.fail(ref, ValueError, on=Counter.receive)
        await ref.tell("lost")
        await ref.tell("kept")
        await system.wait_idle()
        assert log == ["change", "kept"]
        assert isinstance(ref.cell.lifecycle.last_error, ValueError)


@pytest.mark.simulate(seeds=20)
async def test_which_messages_is_decided_by_a_function() -> None:
    seen: list[Waiting] = []

    def third(waiting: Waiting) -> bool:
        seen.append(waiting)
        return waiting.arguments == (3,)

    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system, log)
        faults.fail(ref, OSError, where=third, times=None)
        for number in (1, 2, 3, 4, 3):
            await ref.tell(Counter.add, by=number) if number == 2 else await ref.tell(Counter.add, number)
        await ref.tell("message")
        await system.wait_idle()
        assert log == [1, 2, 4, "message"]
        assert await ref.ask("question") == "question"
    assert seen[:2] == [Waiting((1,), "add"), Waiting((), "add", {"by": 2})]
    assert seen[-2:] == [Waiting("message"), Waiting("question", asked=True)]


@pytest.mark.asyncio
async def test_mail_that_waits_already_is_struck_too() -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system, log)
        await ref.tell(Counter.add, 1)
        faults.fail(ref, OSError)
        await ref.tell(Counter.add, 2)
        await system.wait_idle()
        assert log == [2]


@pytest.mark.asyncio
async def test_an_expected_error_is_an_answer() -> None:
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system)
        faults.fail(ref, Refused("no"), times=2)
        for _ in range(2):
            with pytest.raises(Refused, match="no"):
                await ref.ask(Counter.add)
        assert await ref.ask(Counter.add) == 1
        assert system.failures == 0


@pytest.mark.asyncio
async def test_a_wrong_call_is_still_told_from_a_type_error() -> None:
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system)
        for method in METHODS[:2]:
            with pytest.raises(sage.BadCall):
                await ref.ask(method, 1, 2, 3)  # type: ignore[call-arg]
            faults.delay(ref, 0.0001, times=1)
            with pytest.raises(sage.BadCall):
                await ref.ask(method, 1, 2, 3)  # type: ignore[call-arg]
            assert system.failures == 0
            faults.fail(ref, TypeError("ordered"))
            with pytest.raises(sage.ActorFailed, match="ordered"):
                await ref.ask(method, 1)
            with pytest.raises(sage.BadCall):
                await ref.ask(method, 1, 2, 3)  # type: ignore[call-arg]
            assert system.failures == 1
            system.failures = 0


@pytest.mark.simulate(seeds=20)
async def test_ticks_fail_and_are_not_dropped() -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system, log)
        await ref.tell(Counter.start_beating)
        await system.wait_idle()
        faults.drop(ref)
        await current_clock().sleep(2.5)
        assert log == ["beat", "beat"]
        faults.clear(ref)
        faults.fail(ref, OSError, on=Counter.beat)
        await current_clock().sleep(1)
        assert system.failures == 1
        assert system.dead_letters.total == 0
        assert_accounted(ref)


# -- delay, drop, kill, starts ----------------------------------------------------------------------------------------


@pytest.mark.simulate(seeds=20)
@pytest.mark.parametrize("method", METHODS)
async def test_a_delay_makes_a_handler_late(method: Callable[[Counter, int], int]) -> None:
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system)
        fault = faults.delay(ref, "2s", on=method)
        faults.delay(ref, 1, times=1)
        begun = current_clock().monotonic()
        late = ref.ask(method, 1)
        with pytest.raises(sage.AskTimeout):
            await ref.ask(Counter.add, 5, timeout=2.5)
        assert await late == 1
        assert current_clock().monotonic() - begun == pytest.approx(3, abs=0.1)
        fault.cancel()
        begun = current_clock().monotonic()
        assert await ref.ask(method, 1) == 2
        assert current_clock().monotonic() - begun < 0.1
        assert fault.struck == 1


@pytest.mark.asyncio
async def test_a_delay_goes_by_the_clock_of_the_system() -> None:
    clock, log = ManualClock(), []
    async with sage.ActorSystem("t", clock=clock) as system:
        faults = FaultInjector(system)
        ref = await counter(system, log)
        faults.delay(ref, 5)
        await ref.tell(Counter.add)
        await clock.advance(4)
        assert log == []
        with pytest.raises(sage.ActorError, match="actor 'counter' is running and has a message in hand"):
            await system.wait_idle(timeout=0)
        await clock.advance(1)
        assert log == [1]


@pytest.mark.simulate(seeds=20)
@pytest.mark.parametrize("method", METHODS)
async def test_what_is_dropped_is_a_dead_letter_and_its_caller_is_told(method: Callable[[Counter, int], int]) -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system, log)
        faults.drop(ref, times=3)
        await ref.tell("plain")
        await ref.tell(method, 1)
        with pytest.raises(sage.ActorStopped, match="dropped by fault injection"):
            await ref.ask(method, 2)
        assert await ref.ask(method, 3) == 3
        assert log == [3]
        assert [(letter.message, letter.method, letter.asked) for letter in system.dead_letters] == [
            ("plain", "", False),
            ((1,), method.__name__, False),
            ((2,), method.__name__, True),
        ]
        assert {letter.reason for letter in system.dead_letters} == {"dropped by fault injection"}
        assert system.failures == 0
        assert_accounted(ref)


@pytest.mark.simulate(seeds=50)
async def test_so_many_are_dropped_and_what_remains_is_in_order() -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system, log)
        faults.drop(ref, 0.5)
        for number in range(200):
            await ref.tell(number)
        await system.wait_idle()
        assert sorted(log) == log  # type: ignore[type-var]
        assert len(log) + system.dead_letters.total == 200
        assert 60 < len(log) < 140


@pytest.mark.simulate(seeds=20)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_actor_is_killed_over_a_message(method: Callable[[Counter, int], int], when: str) -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        probe = await Probe.spawn(system)
        ref = await counter(system, log)
        probe.watch(ref)
        faults.kill(ref, on=method, when=when)  # type: ignore[arg-type]
        await ref.tell("before")
        killed, behind = ref.ask(method, 1), ref.ask(Counter.add, 2)
        for reply in (killed, behind):
            with pytest.raises(sage.ActorStopped):
                await reply
        assert (await probe.expect_terminated(ref)).reason is None
        assert log == (["before", 1] if when == "after" else ["before"])
        assert [letter.message for letter in system.dead_letters] == [(1,), (2,)]
        assert_accounted(ref)


@pytest.mark.simulate(seeds=20)
async def test_starts_fail() -> None:
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        faults.fail_start("counter", OSError("no port"))
        with pytest.raises(sage.ActorFailed, match="no port"):
            await counter(system)
        assert system.living == 0
        ref = await counter(system)
        faults.fail_start(ref, OSError("no port"), times=2)
        faults.fail(ref, ValueError("the first failure"))
        with pytest.raises(sage.ActorFailed):
            await ref.ask(Counter.add)
        assert await ref.ask(Counter.add) == 1
        assert (system.failures, system.restarts) == (3, 1)
        assert [struck.kind for struck in faults.struck] == ["start", "fail", "start", "start"]


# -- chance -----------------------------------------------------------------------------------------------------------


@pytest.mark.simulate(seeds=50)
async def test_a_crash_rate_strikes_everybody_but_probes() -> None:
    async with sage.ActorSystem("t", restart=AT_ONCE) as system:
        faults = FaultInjector(system)
        probe = await Probe.spawn(system)
        probe.answer_with(lambda message: message)
        refs = [await system.spawn(Counter, [], restart=AT_ONCE) for _ in range(3)]
        faults.crash_rate(0.3, starts=0.2, when="either")
        failed = 0
        for number in range(40):
            reply = refs[number % 3].ask(METHODS[number % 2], 1)
            await asyncio.wait([reply])
            if (error := reply.exception()) is not None:
                assert isinstance(error, sage.ActorFailed)
                assert isinstance(error.__cause__, InjectedFailure)
                failed += 1
            assert await probe.ref.ask(number) == number
        await system.wait_idle()
        kinds = [struck.kind for struck in faults.struck]
        assert failed == kinds.count("crash") > 0
        assert system.failures == len(kinds)
        faults.clear()
        for ref in refs:
            assert await ref.ask(Counter.add) >= 1
            assert_accounted(ref)
        assert len(faults.struck) == len(kinds)


def test_the_seed_decides() -> None:
    async def strikes(seed: int | None) -> list[bool]:
        async with sage.ActorSystem("t") as system:
            faults = FaultInjector(system, seed=seed)
            ref = await counter(system)
            faults.drop(ref, 0.5)
            for number in range(64):
                await ref.tell(number)
            await system.wait_idle()
            dropped = {letter.message for letter in system.dead_letters}
            return [number in dropped for number in range(64)]

    runs = {seed: asyncio.run(strikes(seed)) for seed in (0, 1, None)}
    assert runs[0] == asyncio.run(strikes(0)) == runs[None]
    assert runs[0] != runs[1]


# -- what is out of reach, and refused --------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_out_of_reach() -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        early = await system.spawn(Counter, [])
        faults = FaultInjector(system)
        probe = await Probe.spawn(system, name="probe")
        ref = await counter(system, log)
        faults.fail(ref, OSError, times=None)
        ref.cell.lifecycle.actor_context.watch(early)
        await system.stop(early)
        await system.wait_idle()
        assert log == ["told of an end"]
        assert [part async for part in ref.stream(Counter.parts)] == [0]
        assert faults.struck == ()
        for refused, words in (
            (lambda: faults.fail(early, OSError), "spawned before the fault injector"),
            (lambda: faults.delay(probe.ref, 1), "is a probe"),
            (lambda: faults.fail(ref, OSError, on=Probe.receive), "receive is no method of its class"),
            (lambda: faults.fail(ref, OSError, on=Counter.parts), "answers in parts"),
            (lambda: faults.fail(ref, OSError, times=0), "times=0"),
            (lambda: faults.drop(ref, 1.5), "probability=1.5"),
            (lambda: faults.crash_rate(-1), "crash_rate=-1"),
            (lambda: FaultInjector(system), "has a fault injector already"),
        ):
            with pytest.raises(sage.ActorError, match=words):
                refused()
        with pytest.raises(sage.ConfigError):
            faults.delay(ref, "soon")


@pytest.mark.asyncio
async def test_an_actor_that_was_there_before_comes_under_it_when_it_restarts() -> None:
    async with sage.ActorSystem("t") as system:
        ref = await counter(system)
        faults = FaultInjector(system)
        await ref.tell(Counter.add, "no number")  # type: ignore[arg-type]
        await system.wait_idle()
        assert system.restarts == 1
        faults.fail(ref, OSError)
        with pytest.raises(sage.ActorFailed):
            await ref.ask(Counter.add)


@pytest.mark.asyncio
async def test_priorities_see_the_method_itself() -> None:
    seen: list[object] = []

    def priority(message: object) -> int:
        seen.append(message)
        return 0

    async with sage.ActorSystem("t") as system:
        FaultInjector(system)
        ref = await counter(system, mailbox=sage.MailboxSettings(priority=priority))
        await ref.tell(Counter.add, 1)
        await ref.tell("plain")
        await system.wait_idle()
    assert seen == [Counter.add, "plain"]


@pytest.mark.asyncio
async def test_inline_asks_and_interruptible_handlers_stay_what_they_are() -> None:
    async with sage.ActorSystem("t") as system:
        faults = FaultInjector(system)
        ref = await counter(system)
        await system.wait_idle()
        assert ref.ask(Counter.add, 1).done()  # inline
        waiting = ref.ask(Counter.wait)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await system.wait_idle()
        faults.fail(ref, OSError)
        assert isinstance(ref.ask(Counter.add, 1).exception(), sage.ActorFailed)
