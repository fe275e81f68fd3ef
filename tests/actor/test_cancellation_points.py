"""Cancelling senders and callers of living actors at every turn, by every means, on both loops (rule A41).

Each test runs one scenario again and again, with the cancellation one turn of the loop later each time, until the scenario has
ended before it. After each run: accounts add up, every sender's messages came in order, none was handled twice, none was handled
and a dead letter, nobody else noticed, the actor still works, and no task is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Literal

import anyio
import pytest
import uvloop

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef

pytestmark = pytest.mark.rule("A41")

Loop = Literal["asyncio", "uvloop"]
Kind = Literal["tell", "plain", "slow", "soft", "soft beside others", "stashing"]
Room = Literal["idle", "busy", "full", "failing"]
Message = tuple[str, int]

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
LOOPS = list(FACTORIES)
MEANS = ["raw", "timeout", "anyio"]
MOST_TURNS = 60


class Worker(sage.Actor):
    """Notes what it begins and what it ends; its async methods wait at the world's gate."""

    def __init__(self, world: World) -> None:
        self.world = world

    def plain(self, sender: str, number: int) -> int:
        self.world.begun.append((sender, number))
        self.world.ended.append((sender, number))
        return number

    async def slow(self, sender: str, number: int) -> int:
        self.world.begun.append((sender, number))
        await self.world.gate.wait()
        await asyncio.sleep(0)
        self.world.ended.append((sender, number))
        return number

    async def failing(self, sender: str, number: int) -> None:
        await self.slow(sender, number)
        raise ValueError("on purpose")

    @sage.interruptible
    async def soft(self, sender: str, number: int) -> int:
        return await self.slow(sender, number)

    async def stashing(self, sender: str, number: int) -> int | None:
        """Puts each message aside once and handles it the next time."""
        await asyncio.sleep(0)
        if (sender, number) not in self.world.put_aside:
            self.world.put_aside.append((sender, number))
            self.context.stash()
            self.ref.tell_nowait(Worker.unstash)
            return None
        return await self.slow(sender, number)

    def unstash(self) -> None:
        self.context.unstash()


METHODS: dict[str, Callable[..., Any]] = {
    "tell": Worker.plain, "plain": Worker.plain, "slow": Worker.slow, "soft": Worker.soft, "soft beside others": Worker.soft,
    "stashing": Worker.stashing,
}  # fmt: skip


class Scope:
    """One operation that can be cancelled from outside: the task, a timeout scope that is made to expire, or anyio's scope."""

    def __init__(self, operation: Callable[[], Awaitable[Any]], means: str) -> None:
        self.means = means
        self.timeout: asyncio.Timeout | None = None
        self.scope: anyio.CancelScope | None = None
        self.asked = False
        self.task = asyncio.create_task(self._run(operation))

    async def _run(self, operation: Callable[[], Awaitable[Any]]) -> None:
        if self.means == "raw":
            await operation()
        elif self.means == "timeout":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None) as self.timeout:
                    await operation()
        else:
            with anyio.CancelScope() as self.scope:
                await operation()

    def cancel(self) -> bool:
        """False if it has ended already."""
        if self.task.done():
            return False
        if self.means == "raw":
            self.task.cancel()
        elif self.timeout is not None and not self.asked:
            self.asked = True  # an expiring scope cannot be moved again
            self.timeout.reschedule(asyncio.get_running_loop().time() - 1)
        elif self.scope is not None:
            self.scope.cancel()
        return True


class World:
    """One run: a system with one worker, three senders of two messages each, and what was seen."""

    def __init__(self, kind: Kind, room: Room, overflow: str = "wait") -> None:
        self.kind = kind
        self.room = room
        self.overflow = overflow
        self.gate = asyncio.Event()
        self.begun: list[Message] = []
        self.ended: list[Message] = []
        self.put_aside: list[Message] = []
        self.outcomes: dict[Message, object] = {}
        self.victim = ""
        self.system = sage.ActorSystem("points", restart=sage.FixedDelay(attempts=None, delay=0), stop_timeout=0)
        self.ref: ActorRef[Worker]

    async def prepare(self) -> None:
        slots = 2 if self.kind == "soft beside others" else 1
        mailbox = sage.MailboxSettings(capacity=1 if self.room in ("full", "failing") else 64, overflow=self.overflow)  # type: ignore[arg-type]
        self.ref = await self.system.spawn(Worker, self, mailbox=mailbox, concurrency=slots)
        await turns(3)
        if self.room != "idle":
            for slot in range(slots):
                assert self.ref.tell_nowait(Worker.failing if self.room == "failing" else Worker.slow, "first", slot)
                await self.until(lambda slot=slot: ("first", slot) in self.begun)
            assert self.ref.tell_nowait(Worker.plain, "first", slots)
        else:
            self.gate.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - there is no event for a condition
            await asyncio.sleep(0)

    async def send(self, sender: str) -> None:
        for number in range(2):
            method = METHODS[self.kind]
            try:
                if self.kind == "tell":
                    self.outcomes[sender, number] = await self.ref.tell(method, sender, number)
                else:
                    self.outcomes[sender, number] = await self.ref.ask(method, sender, number)
            except sage.ActorError as error:
                self.outcomes[sender, number] = error

    async def run(self, means: str, opens: int, at: int, victim: str, then: Callable[[], None] | None = None) -> bool:
        """Cancel one sender after `at` turns. Whether it had not ended yet."""
        self.victim = victim
        scopes = {name: Scope(partial(self.send, name), means) for name in "abc"}
        cancelled = False
        for turn in range(max(opens, at) + 1):
            if turn == opens:
                (then or self.gate.set)()
            if turn == at:
                cancelled = scopes[victim].cancel()
            await asyncio.sleep(0)
        await asyncio.wait([scope.task for scope in scopes.values()])
        assert all(name == victim or not scope.task.cancelled() for name, scope in scopes.items())
        await self.system.wait_idle()
        return cancelled

    def letters(self) -> list[Message]:
        return [letter.message for letter in self.system.dead_letters if letter.method != "unstash"]  # type: ignore[misc]

    def check(self, *, all_sent: bool, interrupted: bool = False) -> None:
        found = self.ref.cell.statistics()
        cell = self.ref.cell
        assert found.accepted == cell.handled + cell.dead_lettered + cell.queued + cell.stashed + cell.in_hand
        letters = self.letters()
        for listed in (self.begun, self.ended, letters):
            assert len(set(listed)) == len(listed), "once at most"
        assert not set(self.ended) & set(letters)
        if interrupted:
            assert set(self.begun) - set(self.ended) <= set(letters)
        elif all_sent and not self.kind.startswith("soft"):
            assert self.begun == self.ended
        elif all_sent:
            assert set(self.begun) - set(self.ended) <= set(letters) & {(self.victim, 0), (self.victim, 1)}
        for name in "abc":
            mine = [number for sender, number in self.begun if sender == name]
            assert mine == sorted(mine)
            if all_sent:
                assert name == self.victim or {(name, 0), (name, 1)} <= set(self.outcomes)
        if self.kind == "tell":  # a cancelled tell has sent nothing
            assert all(self.outcomes.get(message) is True for message in self.begun if message[0] in "abc")
        for message, outcome in self.outcomes.items():
            self.check_outcome(message, outcome, letters)

    def check_outcome(self, message: Message, outcome: object, letters: list[Message]) -> None:
        if isinstance(outcome, sage.MailboxFull):
            assert self.overflow != "wait"
            assert message not in self.ended
            assert (message in letters) == (self.overflow != "fail")
        elif self.kind == "tell":
            assert (outcome is True and message in self.ended) or message in letters
        elif not isinstance(outcome, sage.ActorError):
            assert outcome == message[1]
            assert message in self.ended


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def bounded(main: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(20):
        return await main


def run_on(loop: str, main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=FACTORIES[loop]) as runner:
        return runner.run(bounded(main))


async def every_point(kind: Kind, room: Room, overflow: str, means: str) -> None:
    for opens, victim in itertools.product((0, 4), "ab"):
        points = 0
        for at in range(MOST_TURNS):
            world = World(kind, room, overflow)
            async with world.system:
                await world.prepare()
                cancelled = await world.run(means, opens, at, victim)
                world.check(all_sent=True)
                assert world.ref.alive
                assert await world.ref.ask(Worker.plain, "last", 0) == 0
                await turns(2)
                assert world.ref.cell.idle()
            world.check(all_sent=True)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            if not cancelled:
                break
            points += 1
        assert 0 < points < MOST_TURNS


@pytest.mark.rule("A38")
@pytest.mark.rule("A39")
@pytest.mark.rule("A40")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("room", ["idle", "busy", "full", "failing"])
@pytest.mark.parametrize("kind", ["tell", "plain", "slow", "soft", "soft beside others"])
def test_a_sender_cancelled_at_every_point(loop: Loop, means: str, room: Room, kind: Kind) -> None:
    """Before it parks, parked in the line for room, woken, queued, handled, answered; also while the actor fails and restarts."""
    run_on(loop, every_point(kind, room, "wait", means))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("overflow", ["fail", "drop_new", "drop_old"])
@pytest.mark.parametrize("kind", ["tell", "slow", "soft"])
def test_with_every_overflow_policy(loop: Loop, overflow: str, kind: Kind) -> None:
    run_on(loop, every_point(kind, "full", overflow, "raw"))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("means", MEANS)
def test_with_messages_that_are_put_aside_first(loop: Loop, means: str) -> None:
    run_on(loop, every_point("stashing", "busy", "wait", means))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ["kill", "stop", "drain"])
@pytest.mark.parametrize("room", ["idle", "busy", "full"])
@pytest.mark.parametrize("kind", ["tell", "plain", "slow", "soft", "soft beside others", "stashing"])
def test_a_sender_cancelled_while_the_actor_ends(loop: Loop, end: str, room: Room, kind: Kind) -> None:
    """Everybody learns something: nobody waits for an actor that has ended."""

    async def one(at: int, begins: int) -> bool:
        world = World(kind, room)
        ends: list[asyncio.Task[None]] = []

        def begin_to_end() -> None:
            system, ref = world.system, world.ref
            ends.append(asyncio.create_task(system.kill(ref) if end == "kill" else system.stop(ref, drain=end == "drain", timeout=60)))
            asyncio.get_running_loop().call_soon(world.gate.set)

        async with world.system:
            await world.prepare()
            cancelled = await world.run("raw", begins, at, "b", begin_to_end)
            await ends[0]
            world.check(all_sent=True, interrupted=True)
            cell = world.ref.cell
            assert cell.statistics().accepted == cell.handled + cell.dead_lettered
            assert cell.statistics().waiting_putters == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return cancelled

    async def main() -> None:
        for begins in (1, 3):
            at = 0
            while await one(at, begins):
                at += 1
            assert at > 0

    run_on(loop, main())


@pytest.mark.simulate(seeds=40)
@pytest.mark.parametrize("room", ["idle", "busy", "full"])
@pytest.mark.parametrize("kind", ["tell", "plain", "slow", "soft", "soft beside others"])
async def test_in_the_random_orders_of_a_simulation(room: Room, kind: Kind) -> None:
    for at in range(0, 14, 2):
        world = World(kind, room)
        async with world.system:
            await world.prepare()
            await world.run("raw", 3, at, "ab"[at // 2 % 2])
            world.check(all_sent=True)
            assert await world.ref.ask(Worker.plain, "last", 0) == 0


# -- nested asks ------------------------------------------------------------------------------------------------------


class Relay(sage.Actor):
    """Asks on: a chain of handlers that wait for each other."""

    def __init__(self, further: ActorRef[Any] | None, begun: list[str]) -> None:
        self.further = further
        self.begun = begun

    async def pass_on(self, number: int) -> int:
        self.begun.append(self.ref.name)
        await asyncio.sleep(0)
        if self.further is None:
            return number
        return await self.further.ask(Relay.pass_on, number) + 1

    @sage.interruptible
    async def pass_softly(self, number: int) -> int:
        self.begun.append(self.ref.name)
        await asyncio.sleep(0)
        if self.further is None:
            return number
        return await self.further.ask(Relay.pass_softly, number) + 1


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("softly", [False, True])
def test_a_chain_of_asks_cancelled_at_every_point_leaves_every_actor_in_order(loop: Loop, means: str, softly: bool) -> None:
    async def one(at: int) -> bool:
        begun: list[str] = []
        async with sage.ActorSystem(restart=sage.NoRestart()) as system:
            last = await system.spawn(Relay, None, begun, name="c")
            middle = await system.spawn(Relay, last, begun, name="b")
            first = await system.spawn(Relay, middle, begun, name="a")
            await turns(3)
            method = Relay.pass_softly if softly else Relay.pass_on
            scope = Scope(partial(first.ask, method, 0), means)
            await turns(at)
            cancelled = scope.cancel()
            await asyncio.wait([scope.task])
            await system.wait_idle()
            assert len(set(begun)) == len(begun)
            for ref in (first, middle, last):
                cell = ref.cell
                assert cell.statistics().accepted == cell.handled + cell.dead_lettered
                # The one whose nested ask is refused with AskAbandoned fails; that is its own affair.
                assert softly is False or ref.alive
            if softly:
                assert await first.ask(Relay.pass_softly, 0) == 2
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return cancelled

    async def main() -> None:
        points = 0
        while await one(points):
            points += 1
        assert points > 3

    run_on(loop, main())


# -- the actor's own task ---------------------------------------------------------------------------------------------


@pytest.mark.rule("A36")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("room", ["idle", "busy", "full"])
@pytest.mark.parametrize("kind", ["tell", "plain", "slow", "soft", "soft beside others", "stashing"])
def test_the_task_of_an_actor_cancelled_from_outside_at_every_point(loop: Loop, room: Room, kind: Kind) -> None:
    """Nobody should; the end of a loop does. The actor ends, and what it had taken or not is handled or a dead letter."""

    async def one(at: int) -> bool:
        world = World(kind, room)
        async with world.system:
            await world.prepare()
            senders = [asyncio.create_task(world.send(name)) for name in "abc"]
            for turn in range(at):
                if turn == 3:
                    world.gate.set()
                await asyncio.sleep(0)
            under_way = not all(task.done() for task in senders)
            for task in asyncio.all_tasks():
                if task.get_name() == f"actor {world.ref.path}":
                    task.cancel()
            await turns(3)
            world.gate.set()
            await asyncio.wait(senders)
            await world.system.wait_idle()
            world.check(all_sent=True, interrupted=True)
            if world.ref.alive:  # it had no task
                assert await world.ref.ask(Worker.plain, "last", 0) == 0
            else:
                assert world.ref.cell.in_hand == world.ref.cell.queued == world.ref.cell.stashed == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return under_way

    async def main() -> None:
        at = 0
        while await one(at):
            at += 1
        assert at > 0

    run_on(loop, main())


# -- the end of the loop ----------------------------------------------------------------------------------------------


def tasks_noted(tasks: list[asyncio.Task[Any]]) -> Callable[..., asyncio.Task[Any]]:
    def make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        tasks.append(task)
        return task

    return make


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ["left open", "main cancelled", "main raises"])
@pytest.mark.parametrize("room", ["idle", "full"])
@pytest.mark.parametrize("kind", ["tell", "plain", "slow", "soft", "soft beside others", "stashing"])
def test_a_loop_that_ends_while_things_are_in_flight(loop: Loop, end: str, room: Room, kind: Kind) -> None:
    """The runner cancels every task, the actors' own among them, in no particular order."""

    async def main(world: World, at: int) -> None:
        async def in_flight() -> None:
            await world.prepare()
            for name in "abc":
                tasks.append(asyncio.create_task(world.send(name)))  # noqa: PERF401 - tasks are noted twice, which is harmless
            for turn in range(at):
                if turn == 4:
                    world.gate.set()
                await asyncio.sleep(0)

        if end == "left open":
            await world.system.__aenter__()
            await in_flight()
            return
        async with world.system:
            await in_flight()
            if end == "main raises":
                raise KeyError("on purpose")
            task = asyncio.current_task()
            assert task is not None
            world.gate.set()
            task.cancel()
            await asyncio.sleep(0)

    for at in range(14):
        world = World(kind, room)
        tasks: list[asyncio.Task[Any]] = []
        with asyncio.Runner(loop_factory=FACTORIES[loop]) as runner:
            loop_of_run = runner.get_loop()
            loop_of_run.set_task_factory(tasks_noted(tasks))
            loop_of_run.call_later(5, loop_of_run.stop)  # closing a runner has no limit of its own
            if end == "main raises":
                world.gate.set()
            with contextlib.suppress(asyncio.CancelledError, KeyError):
                runner.run(main(world, at))
        assert all(task.done() for task in tasks)
        world.check(all_sent=False)
        assert world.ref.cell.in_hand == 0
        assert world.ref.cell.dead_lettered <= len(world.system.dead_letters)
