"""`wait_idle`: what counts as something to do, what does not, and what is said about those who are not done in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

import sage_actor as sage
from sage_actor.ports import current_clock
from sage_actor.testing import ManualClock

AT_ONCE = sage.FixedDelay(attempts=None, delay=0.0)
LATER = sage.FixedDelay(attempts=None, delay=10.0)


class Worker(sage.Actor):
    def __init__(self, log: list[object]) -> None:
        self.log = log

    def note(self, what: object) -> None:
        self.log.append(what)

    def fail(self) -> None:
        raise ValueError("on purpose")

    async def forward(self, hops: int) -> None:
        self.log.append(hops)
        if hops:
            await self.ref.tell(Worker.forward, hops - 1)

    async def wait(self, until: asyncio.Event) -> None:
        await self.nested(until)

    async def nested(self, until: asyncio.Event) -> None:
        await until.wait()

    async def wait_on_clock(self, seconds: float) -> None:
        await self.context.system.clock.sleep(seconds)
        self.log.append("slept")

    @sage.blocking
    def block(self, until: threading.Event) -> None:
        until.wait()
        self.log.append("blocked")

    async def ask_other(self, other: sage.ActorRef[Worker], until: asyncio.Event) -> None:
        await other.ask(Worker.wait, until)


class SlowStart(Worker):
    async def on_start(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        self.log.append("started")


class Parent(sage.Actor):
    def __init__(self, log: list[object]) -> None:
        self.log = log

    async def on_start(self) -> None:
        self.log.append("parent")
        for name in ("first", "second", "third"):
            await self.context.spawn(SlowStart, self.log, name=name)


@pytest.mark.simulate(seeds=200)
async def test_what_is_in_the_mailboxes_has_been_handled() -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        await system.wait_idle()
        refs = [await system.spawn(Worker, log, mailbox=sage.MailboxSettings(capacity=2)) for _ in range(3)]
        for ref in refs:
            await ref.tell(Worker.forward, 5)
        await system.wait_idle()
        assert sorted(map(str, log)) == sorted("012345" * 3)


@pytest.mark.simulate(seeds=200)
async def test_a_restart_and_its_start_hook_are_waited_for() -> None:
    log: list[object] = []
    async with sage.ActorSystem("t", restart=AT_ONCE) as system:
        ref = await system.spawn(SlowStart, log)
        await ref.tell(Worker.fail)
        await ref.tell(Worker.note, "after")
        await system.wait_idle()
        assert log == ["started", "started", "after"]


@pytest.mark.simulate(seeds=200)
@pytest.mark.parametrize("scope", ["one_for_one", "all_for_one", "rest_for_one"])
async def test_the_delay_of_a_restart_is_not_waited_for_whoever_it_concerns(scope: sage.Supervision) -> None:
    log: list[object] = []
    async with sage.ActorSystem("t", restart=LATER) as system:
        parent = await system.spawn(Parent, log, supervision=sage.Supervision(scope=scope))  # type: ignore[arg-type]
        first = parent.cell.lifecycle.family.find("first").ref
        begun = current_clock().monotonic()
        await first.tell(Worker.fail)
        await system.wait_idle()
        assert current_clock().monotonic() - begun < 5
        assert system.restarts == 0
        await current_clock().sleep(10.5)
        await system.wait_idle()
        assert system.restarts == (1 if scope == "one_for_one" else 3)
        assert log.count("started") == 3 + system.restarts


@pytest.mark.simulate(seeds=200)
async def test_an_escalated_failure_is_waited_for_up_to_its_end() -> None:
    log: list[object] = []
    async with sage.ActorSystem("t", restart=AT_ONCE) as system:
        supervision = sage.Supervision(decide=lambda error: "escalate")
        parent = await system.spawn(Parent, log, supervision=supervision, restart=AT_ONCE)
        await parent.cell.lifecycle.family.find("second").ref.tell(Worker.fail)
        await system.wait_idle()
        assert system.restarts == 1
        assert log.count("parent") == 2
        assert log.count("started") == 6


@pytest.mark.simulate(seeds=200)
async def test_an_escalation_to_the_system_is_waited_for() -> None:
    async with sage.ActorSystem("t", supervision=sage.Supervision(decide=lambda error: "escalate")) as system:
        refs = [await system.spawn(Worker, []) for _ in range(3)]
        await refs[0].tell(Worker.fail)
        await system.wait_idle()
        assert system.living == 0


@pytest.mark.simulate(seeds=100)
async def test_a_start_that_is_tried_again_later_is_not_waited_for() -> None:
    tries: list[int] = []

    def make(log: list[object]) -> Worker:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return Worker(log)

    async with sage.ActorSystem("t") as system:
        spawning = asyncio.ensure_future(system.spawn(make, [], restart=LATER, retry_start=True))
        while not tries:  # noqa: ASYNC110 - a simulated schedule decides how many turns that takes
            await asyncio.sleep(0)
        begun = current_clock().monotonic()
        await system.wait_idle()
        assert current_clock().monotonic() - begun < 5
        await spawning
        assert len(tries) == 3


@pytest.mark.simulate(seeds=100)
async def test_an_end_is_waited_for() -> None:
    async with sage.ActorSystem("t") as system:
        ref = await system.spawn(SlowStart, [])
        stopping = asyncio.ensure_future(system.stop(ref))
        while ref.alive:  # noqa: ASYNC110 - a simulated schedule decides how many turns that takes
            await asyncio.sleep(0)
        await system.wait_idle()
        assert system.living == 0
        await stopping


@pytest.mark.simulate(seeds=50)
async def test_virtual_time_passes_for_a_handler_that_sleeps() -> None:
    log: list[object] = []
    async with sage.ActorSystem("t") as system:
        ref = await system.spawn(Worker, log)
        await ref.tell(Worker.wait_on_clock, 60.0)
        await system.wait_idle()
        assert log == ["slept"]


@pytest.mark.asyncio
@pytest.mark.parametrize("clock", [None, ManualClock], ids=["machine", "manual"])
async def test_a_thread_is_waited_for(clock: Callable[[], ManualClock] | None) -> None:
    log: list[object] = []
    go = threading.Event()
    async with sage.ActorSystem("t", clock=None if clock is None else clock()) as system:
        ref = await system.spawn(Worker, log)
        await ref.tell(Worker.block, go)
        asyncio.get_running_loop().call_later(0.01, go.set)
        await system.wait_idle(timeout="10s")
        assert log == ["blocked"]


@pytest.mark.asyncio
async def test_a_manual_clock_may_be_moved_meanwhile_and_holds_nobody_up_for_ever() -> None:
    clock, log = ManualClock(), []
    async with sage.ActorSystem("t", clock=clock) as system:
        ref = await system.spawn(Worker, log)
        await ref.tell(Worker.wait_on_clock, 60.0)
        with pytest.raises(sage.ActorError, match=r"not idle after 0\.01 s"):
            await system.wait_idle(timeout=0.01)
        await asyncio.gather(system.wait_idle(timeout=10), clock.advance("60s"))
        assert log == ["slept"]


@pytest.mark.asyncio
async def test_who_is_not_done_in_time_is_told_with_the_place() -> None:
    until = asyncio.Event()
    async with sage.ActorSystem("busy") as system:
        asker, waiter = await system.spawn(Worker, [], name="asker"), await system.spawn(Worker, [], name="waiter")
        await system.spawn(Worker, [], name="idle one")
        await asker.tell(Worker.ask_other, waiter, until)
        for number in range(3):
            await asker.tell(Worker.note, number)
        with pytest.raises(sage.ActorError) as late:
            await system.wait_idle(timeout=0)
        lines = str(late.value).splitlines()
        assert lines[0] == "actor system 'busy' is not idle after 0 s:"
        told = {line.split("'")[1]: line for line in lines[1:]}
        assert set(told) == {"asker", "waiter"}
        assert "waits in ask_other (test_wait_idle.py:" in told["asker"]
        assert "'waiter'" in told["asker"]  # on whose answer
        assert told["asker"].endswith("; waiting in its mailbox: 3")
        assert "waits in wait (test_wait_idle.py:" in told["waiter"]
        assert "> nested (test_wait_idle.py:" in told["waiter"]
        until.set()
        await system.wait_idle(timeout=10)


@pytest.mark.asyncio
async def test_cancelling_the_wait_changes_nothing() -> None:
    until = asyncio.Event()
    async with sage.ActorSystem("t") as system:
        ref = await system.spawn(Worker, [])
        reply = ref.ask(Worker.wait, until)
        waiting = asyncio.ensure_future(system.wait_idle())
        for _ in range(5):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        until.set()
        assert await reply is None
