"""Living actors held to the rules of restarting: what is kept, what is dropped, and when the next life begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
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


# -- what a restart keeps ---------------------------------------------------------------------------------------------


@pytest.mark.rule("A13")
async def test_ref_and_mailbox_survive_and_the_failed_message_does_not(make_system: MakeSystem) -> None:
    log: list[Any] = []
    gate = asyncio.Event()
    async with make_system() as system:
        worker = await system.spawn(Worker, log, name="w", restart=AFTER_A_SECOND)
        failing = worker.ask(Worker.fail_later, gate)
        for number in range(10):
            await worker.tell(number)
        answer = worker.ask("after them")
        gate.set()
        with pytest.raises(sage.ActorFailed, match=r"actor 'w', fail_later: Boom: later") as caught:
            await failing
        assert isinstance(caught.value.__cause__, Boom)
        assert log == [], "nothing is served between failure and restart"
        assert await answer == "after them"
        assert log == [*range(10), "after them"]
        assert await worker.ask(Worker.seen) == log, "by one instance, the fresh one"
        assert system.lookup("w") == worker
        assert worker.alive
        assert len(system.dead_letters) == 0, "to the supervisor and the counters, not to the dead letters"
        (counts,) = system.statistics().actors
        assert (counts.accepted, counts.handled, counts.failed, counts.restarts) == (13, 13, 1, 1)


@pytest.mark.rule("A13")
async def test_a_failing_tell_is_not_redelivered(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        worker = await system.spawn(Worker, log, restart=AT_ONCE)
        for message in (1, "boom", 2, "boom", 3):
            await worker.tell(message)
        assert await worker.ask(Worker.seen) == [3]
        assert log == [1, "boom", 2, "boom", 3]
        assert system.statistics().failures == system.statistics().restarts == 2


@pytest.mark.rule("A13")
async def test_what_was_stashed_comes_first_after_a_restart(make_system: MakeSystem) -> None:
    class Stashing(Worker):
        lives = 0

        def __init__(self, log: list[Any]) -> None:
            super().__init__(log)
            type(self).lives += 1

        def receive(self, message: object) -> object:
            if self.lives == 1 and message != "boom":
                self.context.stash()
                return None
            return super().receive(message)

    log: list[Any] = []
    async with make_system() as system:
        worker = await system.spawn(Stashing, log, restart=AT_ONCE)
        asked = worker.ask("a")
        for message in ("b", "boom", "c"):
            await worker.tell(message)
        assert await asked == "a"
        assert await worker.ask(Worker.seen) == ["a", "b", "c"]


@pytest.mark.rule("A12")
@pytest.mark.parametrize("overflow", ["wait", "fail", "drop_new", "drop_old"])
async def test_mail_waits_for_the_restart_within_bounds(make_system: MakeSystem, overflow: Any) -> None:
    log: list[Any] = []
    async with make_system() as system:
        mailbox = sage.MailboxSettings(capacity=2, overflow=overflow)
        worker = await system.spawn(Worker, log, restart=sage.FixedDelay(delay=10), mailbox=mailbox)
        await fail(worker)
        log.clear()
        assert await worker.tell(1)
        assert await worker.tell(2)
        if overflow in ("wait", "fail"):
            with pytest.raises(sage.MailboxFull):
                worker.tell_nowait(3)
            assert len(system.dead_letters) == 0
        else:
            assert worker.tell_nowait(3) == (overflow == "drop_old")
            assert [(letter.message, letter.reason) for letter in system.dead_letters] == [
                (1 if overflow == "drop_old" else 3, "the mailbox was full")
            ]
        waiting = asyncio.ensure_future(worker.tell(4)) if overflow == "wait" else None
        await system.clock.sleep(9)
        assert log == []
        await system.clock.sleep(2)
        if waiting is not None:
            assert await waiting
        await system.wait_idle()
        assert log == {"wait": [1, 2, 4], "fail": [1, 2], "drop_new": [1, 2], "drop_old": [2, 3]}[overflow]


@pytest.mark.rule("A13")
async def test_senders_do_not_notice_restarts_under_load(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        worker = await system.spawn(Worker, log, restart=AT_ONCE, mailbox=sage.MailboxSettings(capacity=3))

        async def send(sender: str) -> None:
            for number in range(12):
                await worker.tell("boom" if number % 5 == 4 else (sender, number))

        await asyncio.gather(*(send(sender) for sender in "abc"))
        await system.wait_idle()
        for sender in "abc":
            assert [entry for entry in log if entry != "boom" and entry[0] == sender] == [
                (sender, number) for number in range(12) if number % 5 != 4
            ]
        assert log.count("boom") == 6
        (counts,) = system.statistics().actors
        assert (counts.accepted, counts.handled, counts.dead_lettered, counts.failed) == (36, 36, 0, 6)


async def test_a_restart_forgets_changed_behaviours(make_system: MakeSystem) -> None:
    class Changing(Worker):
        def receive(self, message: object) -> object:
            if message == "change":
                self.context.become(self.other, keep=True)
            return super().receive(message)

        def other(self, message: object) -> object:
            if message == "boom":
                raise Boom("on purpose")
            return f"other {message}"

    async with make_system() as system:
        worker = await system.spawn(Changing, restart=AT_ONCE)
        await worker.ask("change")
        assert await worker.ask("x") == "other x"
        await fail(worker)
        assert await worker.ask("x") == "x"


@pytest.mark.rule("A13")
async def test_handlers_beside_the_failed_one_are_interrupted(make_system: MakeSystem) -> None:
    gate, never = asyncio.Event(), asyncio.Event()
    async with make_system() as system:
        worker = await system.spawn(Worker, restart=AT_ONCE, concurrency=3)
        others = [worker.ask(Worker.fail_later, never) for _ in range(2)]
        failing = worker.ask(Worker.fail_later, gate)
        queued = worker.ask("queued")
        await system.clock.sleep(1)
        gate.set()
        with pytest.raises(sage.ActorFailed):
            await failing
        for other in others:
            with pytest.raises(sage.ActorStopped, match="interrupted"):
                await other
        assert await queued == "queued"
        assert len(system.dead_letters) == 2
        assert system.statistics().restarts == 1


# -- when the next life begins ----------------------------------------------------------------------------------------


async def births_of(system: sage.ActorSystem, strategy: Any, failures: int, *, quiet: float = 0) -> list[float]:
    """Seconds from each failure to the next life. Before the last failure the actor serves in peace for `quiet`."""
    births: list[float] = []
    worker = await system.spawn(Worker, None, births, restart=strategy)
    delays: list[float] = []
    for number in range(failures):
        if number == failures - 1:
            await system.clock.sleep(quiet)
        failed = system.clock.monotonic()
        await fail(worker)
        await worker.ask(Worker.seen)
        delays.append(round(births[-1] - failed, 6))
    await system.stop(worker)
    return delays


@pytest.mark.rule("A7")
async def test_waits_double_up_to_the_cap(make_system: MakeSystem) -> None:
    async with make_system() as system:
        strategy = sage.ExponentialDelay(attempts=None, delay="1s", max_delay="20s", jitter=0, reset_after="1h")
        assert await births_of(system, strategy, 7) == [1, 2, 4, 8, 16, 20, 20]


@pytest.mark.rule("A7")
async def test_jitter_follows_the_cap(make_system: MakeSystem) -> None:
    async with make_system() as system:
        strategy = sage.ExponentialDelay(attempts=None, delay=1, max_delay=2, jitter=0.5, reset_after="1h")
        delays = await births_of(system, strategy, 6)
        for least, delay in zip([1, 2, 2, 2, 2, 2], delays, strict=True):
            assert least <= delay < 1.5 * least
        assert len(set(delays[1:])) > 1, "they are spread"


@pytest.mark.rule("A8")
@pytest.mark.parametrize(("quiet", "last"), [(5.4, 8), (5.6, 1)])
async def test_the_count_resets_after_a_quiet_time(make_system: MakeSystem, quiet: float, last: float) -> None:
    async with make_system() as system:
        strategy = sage.ExponentialDelay(attempts=None, delay=1, max_delay=10, jitter=0)  # reset_after: (1 + 10) / 2
        assert await births_of(system, strategy, 4, quiet=quiet) == [1, 2, 4, last]


@pytest.mark.rule("A14")
async def test_by_default_a_failure_restarts_with_growing_waits_and_the_eleventh_is_final(make_system: MakeSystem) -> None:
    births: list[float] = []
    async with make_system() as system:
        worker = await system.spawn(Worker, None, births)
        ended = system.watch(worker)
        for number in range(11):
            assert worker.alive, number
            await fail(worker)
        assert isinstance((await ended).reason, Boom)
        waits = [later - earlier for earlier, later in pairwise(births)]
        assert len(waits) == 10
        for number, wait in enumerate(waits):
            least = min(30.0, 0.1 * 2**number)
            assert least <= wait <= least * 1.1 + 1e-6
