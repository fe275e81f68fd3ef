"""Living actors held to the rules of ending: what a stop waits for, what it interrupts, what becomes of the mail, who is not blocked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import sage_actor as sage

MakeSystem = Callable[..., sage.ActorSystem]

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)
TINY = sage.MailboxSettings(capacity=1)


class Boom(Exception):
    """What the actors here fail with."""


class Worker(sage.Actor):
    """Writes down what happens to it."""

    def __init__(self, log: list[Any] | None = None) -> None:
        self.log: list[Any] = [] if log is None else log

    def receive(self, message: object) -> object:
        self.log.append(message)
        if message == "boom":
            raise Boom("on purpose")
        return message

    async def work(self, gate: asyncio.Event) -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.log.append("interrupted")
            raise
        self.log.append("worked")
        return "done"

    async def tidy_up_slowly(self, gate: asyncio.Event) -> None:
        try:
            await gate.wait()
        finally:
            await self.context.system.clock.sleep(1)
            self.log.append("tidy")

    async def on_stop(self) -> None:
        self.log.append("on_stop")


# -- what a stop waits for --------------------------------------------------------------------------------------------


@pytest.mark.rule("A16")
@pytest.mark.rule("A26")
async def test_a_stop_waits_for_the_running_handler_and_precedes_the_mail(make_system: MakeSystem) -> None:
    log: list[Any] = []
    gate = asyncio.Event()
    async with make_system() as system:
        worker = await system.spawn(Worker, log, name="w")
        working = worker.ask(Worker.work, gate)
        queued = [worker.ask(number) for number in range(2)]
        await worker.tell("told")
        await system.clock.sleep(1)
        stopping = asyncio.ensure_future(system.stop(worker, drain=False))
        await system.clock.sleep(1)
        assert not worker.alive
        assert not stopping.done()
        assert not await worker.tell("too late")
        with pytest.raises(sage.ActorStopped, match=r"'w' has stopped \(it is stopping\)"):
            await worker.ask("too late")
        gate.set()
        await stopping
        assert await working == "done"
        assert log == ["worked", "on_stop"]
        for ask in queued:
            with pytest.raises(sage.ActorStopped, match="'w' has stopped"):
                await ask
        left = [(letter.message, letter.asked) for letter in system.dead_letters]
        assert left == [("too late", False), (0, True), (1, True), ("told", False)], "each exactly once, oldest first"


@pytest.mark.rule("A26")
async def test_a_draining_stop_serves_what_is_queued_and_takes_no_more(make_system: MakeSystem) -> None:
    log: list[Any] = []
    gate = asyncio.Event()
    async with make_system() as system:
        worker = await system.spawn(Worker, log)
        working = worker.ask(Worker.work, gate)
        asked = worker.ask("asked")
        await worker.tell("told")
        stopping = asyncio.ensure_future(system.stop(worker))
        await system.clock.sleep(1)
        assert not worker.tell_nowait("too late")
        with pytest.raises(sage.ActorStopped):
            await worker.ask("too late")
        gate.set()
        await stopping
        assert (await working, await asked) == ("done", "asked")
        assert log == ["worked", "asked", "told", "on_stop"]
        assert [letter.message for letter in system.dead_letters] == ["too late"]


@pytest.mark.rule("A16")
async def test_a_stop_precedes_supervision(make_system: MakeSystem) -> None:
    """The running handler fails while a stop waits for it: the actor ends, nothing restarts."""
    log: list[Any] = []
    gate = asyncio.Event()

    class Failing(Worker):
        async def work(self, gate: asyncio.Event) -> str:
            await gate.wait()
            raise Boom("late")

    async with make_system() as system:
        worker = await system.spawn(Failing, log, restart=AT_ONCE)
        working = worker.ask(Worker.work, gate)
        await system.clock.sleep(1)
        stopping = asyncio.ensure_future(system.stop(worker, drain=False))
        await system.clock.sleep(1)
        gate.set()
        with pytest.raises(sage.ActorFailed, match="late"):
            await working
        await stopping
        assert log == ["on_stop"]
        statistics = system.statistics()
        assert (statistics.failures, statistics.restarts, statistics.living) == (1, 0, 0)


@pytest.mark.rule("A5")
@pytest.mark.parametrize("drain", [True, False])
async def test_a_handler_that_goes_on_is_interrupted_after_the_timeout(make_system: MakeSystem, drain: bool) -> None:
    log: list[Any] = []
    async with make_system() as system:
        worker = await system.spawn(Worker, log)
        working = worker.ask(Worker.work, asyncio.Event())
        await system.clock.sleep(1)
        begun = system.clock.monotonic()
        await system.stop(worker, drain=drain)
        assert system.clock.monotonic() - begun == pytest.approx(10 if drain else 5)  # five seconds a step
        assert log == ["interrupted", "on_stop"]
        with pytest.raises(sage.ActorStopped, match="interrupted"):
            await working
        assert [(letter.method, letter.asked) for letter in system.dead_letters] == [("work", True)], "once"


@pytest.mark.rule("A16")
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_kill_interrupts_at_once_and_lets_handlers_unwind(make_system: MakeSystem, concurrency: int) -> None:
    log: list[Any] = []
    async with make_system() as system:
        worker = await system.spawn(Worker, log, concurrency=concurrency)
        ended = system.watch(worker)
        asks = [worker.ask(Worker.tidy_up_slowly, asyncio.Event()) for _ in range(concurrency)]
        await system.clock.sleep(1)
        begun = system.clock.monotonic()
        await system.kill(worker)
        assert system.clock.monotonic() - begun == pytest.approx(1)
        assert log == ["tidy"] * concurrency + ["on_stop"], "the hook runs after them, not beside them"
        for ask in asks:
            with pytest.raises(sage.ActorStopped):
                await ask
        assert len(system.dead_letters) == concurrency
        assert (await ended).reason is None


@pytest.mark.rule("A16")
@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.parametrize("in_child", [True, False])
async def test_kill_hurries_a_stop_that_is_under_way(make_system: MakeSystem, drain: bool, in_child: bool) -> None:
    log: list[Any] = []

    class House(Worker):
        async def on_start(self) -> None:
            for name in ("a", "b"):
                child = await self.context.spawn(Worker, self.log, name=name)
                await child.tell(Worker.work, asyncio.Event())
                await child.tell("queued")

    async with make_system() as system:
        worker = await system.spawn(House, log)
        if not in_child:
            await worker.tell(Worker.work, asyncio.Event())
        await system.clock.sleep(1)
        stopping = asyncio.ensure_future(system.stop(worker, drain=drain, timeout="1h"))
        await system.clock.sleep(1)
        begun = system.clock.monotonic()
        await system.kill(worker)
        await stopping
        assert system.clock.monotonic() == begun
        assert log == ["interrupted"] * (not in_child) + ["interrupted", "on_stop"] * 2 + ["on_stop"]


@pytest.mark.rule("A5")
async def test_a_handler_that_ignores_its_interruption_is_left_behind(make_system: MakeSystem) -> None:
    log: list[Any] = []
    gate = asyncio.Event()

    class Stubborn(Worker):
        async def work(self, gate: asyncio.Event) -> str:
            while not gate.is_set():
                with suppress(asyncio.CancelledError):
                    await gate.wait()
            return "after all"

    async with make_system() as system:
        worker = await system.spawn(Stubborn, log, name="w")
        working = worker.ask(Worker.work, gate)
        await system.clock.sleep(1)
        await system.kill(worker)
        assert system.lookup("w") is None
        gate.set()
        assert await working == "after all"


# -- hooks that do not end --------------------------------------------------------------------------------------------


@pytest.mark.rule("A5")
@pytest.mark.parametrize("how", ["hangs", "ignores", "fails"])
async def test_an_on_stop_cannot_hold_up_the_end(make_system: MakeSystem, how: str) -> None:
    release = asyncio.Event()

    class Hanging(sage.Actor):
        async def on_stop(self) -> None:
            if how == "fails":
                raise Boom("in the hook")
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    if how == "hangs":
                        raise

    async with make_system() as system:
        actor = await system.spawn(Hanging, name="h")
        ended = system.watch(actor)
        begun = system.clock.monotonic()
        await system.stop(actor, timeout=3)
        assert system.clock.monotonic() - begun == pytest.approx({"hangs": 3, "ignores": 3 + 5, "fails": 0}[how])
        assert (await ended).reason is None
        assert system.lookup("h") is None
        release.set()


@pytest.mark.parametrize("gently", [True, False])
async def test_a_stop_while_starting(make_system: MakeSystem, gently: bool) -> None:
    """A stop waits for `on_start` as for a handler, and interrupts it; `on_stop` is for what has started."""
    log: list[Any] = []
    gate = asyncio.Event()

    class Slow(Worker):
        async def on_start(self) -> None:
            await self.context.spawn(Worker, self.log, name="child")
            await gate.wait()
            self.log.append("started")

    async with make_system() as system:
        spawning = asyncio.ensure_future(system.spawn(Slow, log, name="slow"))
        await system.clock.sleep(1)
        slow = system.lookup("slow")
        assert slow is not None
        asked = slow.ask("hello")
        ended = system.watch(slow)
        stopping = asyncio.ensure_future(system.stop(slow, drain=False, timeout=10))
        await system.clock.sleep(1)
        if gently:
            gate.set()
            assert await spawning == slow
        else:
            with pytest.raises(sage.ActorStopped, match="stopped while on_start ran"):
                await spawning
        await stopping
        assert log == (["started", "on_stop", "on_stop"] if gently else ["on_stop"])
        assert (await ended).reason is None
        with pytest.raises(sage.ActorStopped):
            await asked
        assert system.statistics().living == 0


# -- mail that is left ------------------------------------------------------------------------------------------------


@pytest.mark.rule("A26")
async def test_what_is_left_when_the_budget_ends_is_told_once(make_system: MakeSystem) -> None:
    told: list[object] = []
    async with make_system() as system:
        subscription = system.dead_letters.subscribe(lambda letter: told.append(letter.message))
        worker = await system.spawn(Worker, restart=sage.FixedDelay(attempts=1, delay=1), mailbox=sage.MailboxSettings(capacity=4))
        ended = system.watch(worker)
        for message in ("boom", "boom", "left"):
            await worker.tell(message)
        asked = worker.ask("asked")
        waiting = [asyncio.ensure_future(worker.tell("waits")), asyncio.ensure_future(worker.ask("asks for room"))]
        with pytest.raises(sage.ActorStopped, match="Boom: on purpose"):
            await asked
        assert isinstance((await ended).reason, Boom)
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, bool | sage.ActorStopped)
        assert sorted(map(str, told)) == ["asked", "asks for room", "left", "waits"]
        subscription.cancel()


@pytest.mark.rule("A26")
@pytest.mark.parametrize("drain", [True, False])
async def test_senders_that_wait_for_room_are_turned_away(make_system: MakeSystem, drain: bool) -> None:
    gate = asyncio.Event()
    async with make_system() as system:
        worker = await system.spawn(Worker, mailbox=TINY)
        working = worker.ask(Worker.work, gate)
        await system.clock.sleep(1)
        await worker.tell("fits")
        told, asked = asyncio.ensure_future(worker.tell("waits")), worker.ask("waits too")
        await system.clock.sleep(1)
        stopping = asyncio.ensure_future(system.stop(worker, drain=drain))
        assert not await told
        with pytest.raises(sage.ActorStopped):
            await asked
        gate.set()
        await stopping
        assert await working == "done"
        assert sum(letter.message == "waits" for letter in system.dead_letters) == 1


async def test_a_failure_while_draining_restarts_and_the_rest_is_served(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        worker = await system.spawn(Worker, log, restart=sage.FixedDelay(delay=1))
        for message in (1, "boom", 2):
            await worker.tell(message)
        await system.stop(worker)
        assert log == [1, "boom", 2, "on_stop"]
        assert len(system.dead_letters) == 0


async def test_a_failure_for_good_while_draining_is_the_reason(make_system: MakeSystem) -> None:
    async with make_system() as system:
        worker = await system.spawn(Worker, restart=sage.NoRestart())
        ended = system.watch(worker)
        for message in ("boom", 2):
            await worker.tell(message)
        await system.stop(worker)
        assert isinstance((await ended).reason, Boom)
        assert [letter.message for letter in system.dead_letters] == [2]


# -- stops in the middle of restarts ----------------------------------------------------------------------------------


@pytest.mark.rule("A6")
@pytest.mark.parametrize("drain", [True, False])
async def test_a_stop_ends_the_wait_for_a_restart(make_system: MakeSystem, drain: bool) -> None:
    log: list[Any] = []
    async with make_system() as system:
        worker = await system.spawn(Worker, log, restart=sage.FixedDelay(delay="1h"))
        await worker.tell("boom")
        await system.clock.sleep(1)
        begun = system.clock.monotonic()
        await system.stop(worker, drain=drain)
        assert system.clock.monotonic() == begun, "with no mail there is nothing to drain"
        await system.clock.sleep(7200)
        assert log == ["boom"], "no further life; the instance had been let go by on_restart"


async def test_a_draining_stop_waits_for_a_restart_that_is_near(make_system: MakeSystem) -> None:
    log: list[Any] = []
    async with make_system() as system:
        worker = await system.spawn(Worker, log, restart=sage.FixedDelay(delay=2))
        for message in ("boom", 1, 2):
            await worker.tell(message)
        await system.clock.sleep(1)
        await system.stop(worker)
        assert log == ["boom", 1, 2, "on_stop"]
