"""Several handlers at a time, and methods that run in threads: what stays in order, what stays exclusive, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import sage_actor as sage
from sage_actor._core.actor_ref import ActorRef
from sage_actor.testing import ManualClock

AT_ONCE = sage.FixedDelay(attempts=None, delay=0)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Many(sage.Actor):
    """Handlers that wait, each for a gate of its own."""

    def __init__(self, begun: list[Any], ended: list[Any], gates: dict[Any, asyncio.Event]) -> None:
        self.begun = begun
        self.ended = ended
        self.gates = gates
        self.running = 0
        self.most = 0

    async def work(self, name: Any) -> Any:
        self.begun.append(name)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gates.setdefault(name, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.ended.append((name, "interrupted"))
            raise
        finally:
            self.running -= 1
        self.ended.append(name)
        if name == "fail":
            raise ValueError(name)
        return name

    def plain(self, name: Any) -> Any:
        self.begun.append(name)
        self.ended.append(name)
        return name

    @sage.interruptible
    async def softly(self, name: Any) -> Any:
        return await self.work(name)


class World:
    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.gates: dict[Any, asyncio.Event] = {}

    async def spawn(self, system: sage.ActorSystem, concurrency: int, **options: Any) -> ActorRef[Many]:
        ref = await system.spawn(Many, self.begun, self.ended, self.gates, concurrency=concurrency, **options)
        await turns(3)
        return ref

    def open(self, name: Any) -> None:
        self.gates.setdefault(name, asyncio.Event()).set()


def check_accounts(ref: ActorRef[Any]) -> None:
    cell = ref.cell
    assert cell.statistics().accepted == cell.handled + cell.dead_lettered + cell.queued + cell.stashed + cell.in_hand


# -- several at a time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2, 3, 7])
@pytest.mark.asyncio
async def test_handlers_begin_in_order_at_most_so_many_at_a_time(concurrency: int) -> None:
    world = World()
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await world.spawn(system, concurrency)
        replies = [ref.ask(Many.work, number) for number in range(10)]
        await turns(30)
        assert world.begun == list(range(min(concurrency, 10)))
        assert ref.cell.in_hand == min(concurrency, 10)
        check_accounts(ref)
        for number in range(10):
            world.open(number)
            await turns(30)
            assert world.begun == list(range(min(number + 1 + concurrency, 10)))
            assert ref.cell.actor.most == min(concurrency, 10)
            check_accounts(ref)
        assert await asyncio.gather(*replies) == list(range(10))
        assert world.ended == list(range(10))


@pytest.mark.asyncio
async def test_they_may_end_in_any_order_and_each_caller_gets_its_own_answer() -> None:
    world = World()
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await world.spawn(system, 4)
        replies = [ref.ask(Many.work, number) for number in range(4)]
        await turns(30)
        for number in (2, 0, 3, 1):
            world.open(number)
            await turns(30)
            assert replies[number].result() == number
        assert world.ended == [2, 0, 3, 1]
        check_accounts(ref)


@pytest.mark.rule("A23")
@pytest.mark.asyncio
async def test_a_plain_message_keeps_its_place_in_the_order_of_beginnings() -> None:
    world = World()
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await world.spawn(system, 2)
        replies = [ref.ask(Many.work, 0), ref.ask(Many.plain, 1), ref.ask(Many.work, 2), ref.ask(Many.plain, 3), ref.ask(Many.work, 4)]
        await turns(30)
        assert world.begun == [0, 1, 2]  # both slots are taken: 3 waits although it would not
        assert ref.ask(Many.plain, "not inline").done() is False
        world.open(2)
        await turns(30)
        assert world.begun == [0, 1, 2, 3, 4]
        for number in (0, 4):
            world.open(number)
        assert await asyncio.gather(*replies) == [0, 1, 2, 3, 4]


@pytest.mark.asyncio
async def test_one_fails_while_others_run_and_all_are_interrupted_for_the_restart() -> None:
    world = World()
    async with sage.ActorSystem(restart=AT_ONCE, stop_timeout=0) as system:
        ref = await world.spawn(system, 3)
        replies = [ref.ask(Many.work, "a"), ref.ask(Many.work, "fail"), ref.ask(Many.work, "b"), ref.ask(Many.work, "later")]
        await turns(30)
        world.open("fail")
        world.open("later")
        assert await replies[3] == "later"  # by the new instance
        with pytest.raises(sage.ActorFailed):
            await replies[1]
        for reply in (replies[0], replies[2]):
            with pytest.raises(sage.ActorStopped, match="interrupted"):
                await reply
        assert world.ended == ["fail", ("a", "interrupted"), ("b", "interrupted"), "later"]
        check_accounts(ref)
        assert (ref.cell.handled, ref.cell.dead_lettered, system.failures) == (2, 2, 1)
        assert sorted(letter.message for letter in system.dead_letters) == [("a",), ("b",)]


@pytest.mark.asyncio
async def test_two_that_fail_in_the_same_turn_restart_it_once() -> None:
    world = World()
    async with sage.ActorSystem(restart=AT_ONCE, stop_timeout=0) as system:
        ref = await world.spawn(system, 2)
        replies = [ref.ask(Many.work, "fail"), ref.ask(Many.work, "fail")]
        await turns(30)
        world.open("fail")
        for reply in replies:
            with pytest.raises(sage.ActorFailed):
                await reply
        assert await ref.ask(Many.plain, "fine") == "fine"
        assert system.statistics().actors[0].restarts == 1
        check_accounts(ref)


@pytest.mark.parametrize("how", ["kill", "stop", "drain"])
@pytest.mark.asyncio
async def test_the_end_with_several_in_flight(how: str) -> None:
    world = World()
    async with sage.ActorSystem(stop_timeout=0) as system:
        ref = await world.spawn(system, 2)
        replies = [ref.ask(Many.work, number) for number in range(4)]
        await turns(30)
        end = asyncio.create_task(system.kill(ref) if how == "kill" else system.stop(ref, drain=how == "drain"))
        await turns(30)
        for number in range(4):
            world.open(number)
        await end
        answered = {"kill": [], "stop": [0, 1], "drain": [0, 1, 2, 3]}[how]
        for number, reply in enumerate(replies):
            assert (reply.exception() is None) == (number in answered)
            assert number in answered or isinstance(reply.exception(), sage.ActorStopped)
        assert world.ended == (answered if how != "kill" else [(0, "interrupted"), (1, "interrupted")])
        check_accounts(ref)
        assert ref.cell.dead_lettered == 4 - len(answered) == system.dead_letters.total


@pytest.mark.rule("A41")
@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("at", range(9))
@pytest.mark.asyncio
async def test_one_of_several_given_up_at_any_turn_disturbs_no_other(victim: int, at: int) -> None:
    world = World()
    async with sage.ActorSystem(restart=sage.NoRestart(), stop_timeout=0) as system:
        ref = await world.spawn(system, 3)
        replies = [ref.ask(Many.softly, number) for number in range(4)]
        await turns(at)
        replies[victim].cancel()
        await turns(30)
        check_accounts(ref)
        for number in range(4):
            world.open(number)
        await system.wait_idle()
        assert [reply.cancelled() for reply in replies] == [number == victim for number in range(4)]
        assert [reply.result() for number, reply in enumerate(replies) if number != victim] == [n for n in range(4) if n != victim]
        assert (ref.cell.handled, ref.cell.dead_lettered) == (3, 1)
        assert victim not in world.ended
        assert ref.alive


@pytest.mark.simulate(seeds=60)
async def test_concurrent_handlers_in_every_schedule() -> None:
    world = World()
    async with sage.ActorSystem(restart=AT_ONCE) as system:
        ref = await world.spawn(system, 3, mailbox=sage.MailboxSettings(capacity=2))

        async def caller(name: int) -> None:
            for number in range(3):
                world.open((name, number))
                assert await ref.ask(Many.work, (name, number)) == (name, number)

        await asyncio.gather(*(caller(name) for name in range(6)))
        assert ref.cell.actor.most <= 3
        for name in range(6):
            assert [number for who, number in world.begun if who == name] == [0, 1, 2]
        check_accounts(ref)
        assert ref.cell.handled == 18


@pytest.mark.rule("A23")
@pytest.mark.simulate(seeds=60)
async def test_a_sender_s_messages_begin_in_order_in_every_schedule() -> None:
    world = World()
    async with sage.ActorSystem() as system:
        ref = await world.spawn(system, 3)
        for number in range(9):
            world.open(number)
        await asyncio.gather(*(ref.ask(Many.plain if number % 3 == 2 else Many.work, number) for number in range(9)))
    assert world.begun == list(range(9))


@pytest.mark.asyncio
async def test_the_number_must_be_at_least_one() -> None:
    async with sage.ActorSystem() as system:
        with pytest.raises(sage.ActorError, match="concurrency"):
            await system.spawn(Many, [], [], {}, concurrency=0)


# -- in a thread ------------------------------------------------------------------------------------------------------


class Threaded(sage.Actor):
    """Blocking methods that wait for events of threads; the loop sets them."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    @sage.blocking
    def block(self, begun: threading.Event, go: threading.Event) -> str:
        self.log.append(("begun", threading.current_thread() is threading.main_thread()))
        begun.set()
        go.wait(20)
        self.log.append("returned")
        return "blocked"

    @sage.blocking
    def tell_itself(self, count: int) -> list[bool]:
        return [self.ref.tell_nowait(Threaded.note, number) for number in range(count)]

    @sage.blocking
    def ask_itself(self) -> object:
        return self.ref.ask(Threaded.note, "x")

    @sage.blocking
    def left(self) -> float | None:
        return self.context.deadline

    def note(self, message: Any) -> None:
        self.log.append(message)

    async def note_later(self, message: Any) -> None:
        await asyncio.sleep(0)
        self.log.append(message)


async def until_set(event: threading.Event) -> None:
    while not event.is_set():  # noqa: ASYNC110 - it is set by a thread
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_blocking_method_holds_the_actor_and_not_the_loop() -> None:
    log: list[Any] = []
    begun, go = threading.Event(), threading.Event()
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Threaded, log)
        other = await system.spawn(Threaded, [])
        blocked = ref.ask(Threaded.block, begun, go)
        notes = [ref.ask(Threaded.note, 1), ref.ask(Threaded.note_later, 2)]
        await until_set(begun)
        await other.ask(Threaded.note_later, "the loop goes on")
        await turns(20)
        assert log == [("begun", False)]
        assert not any(note.done() for note in notes)
        assert ref.cell.in_hand == 1
        go.set()
        assert await blocked == "blocked"
        await asyncio.gather(*notes)
        assert log == [("begun", False), "returned", 1, 2]


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.asyncio
async def test_an_end_does_not_wait_for_the_thread(how: str) -> None:
    log: list[Any] = []
    begun, go = threading.Event(), threading.Event()
    clock = ManualClock()
    async with sage.ActorSystem(clock=clock) as system:
        ref = await system.spawn(Threaded, log)
        blocked = ref.ask(Threaded.block, begun, go)
        await until_set(begun)
        end = asyncio.create_task(system.kill(ref) if how == "kill" else system.stop(ref, drain=False, timeout=5))
        if how == "stop":
            await clock.advance(4)
            assert not end.done()
            await clock.advance(2)
        await end
        with pytest.raises(sage.ActorStopped):
            await blocked
        check_accounts(ref)
        assert log == [("begun", False)]
        go.set()


@pytest.mark.asyncio
async def test_a_caller_that_gives_up_leaves_the_method_running_and_the_actor_exclusive() -> None:
    log: list[Any] = []
    begun, go = threading.Event(), threading.Event()
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Threaded, log)
        blocked = ref.ask(Threaded.block, begun, go)
        note = ref.ask(Threaded.note, "after")
        await until_set(begun)
        assert blocked.cancel()
        await turns(20)
        assert not note.done()
        go.set()
        await note
        assert log == [("begun", False), "returned", "after"]
        assert ref.cell.handled == 2


@pytest.mark.asyncio
async def test_a_thread_of_a_method_may_tell_but_not_ask_and_knows_its_deadline() -> None:
    log: list[Any] = []
    clock = ManualClock()
    async with sage.ActorSystem(clock=clock, restart=AT_ONCE) as system:
        ref = await system.spawn(Threaded, log)
        assert await ref.ask(Threaded.tell_itself, 5) == [True] * 5
        await system.wait_idle()
        assert log == list(range(5))
        with pytest.raises(sage.ActorFailed, match=r"system\.sync"):
            await ref.ask(Threaded.ask_itself)
        assert await ref.ask(Threaded.left, timeout=9) == 9
        assert await ref.ask(Threaded.left) is None


@pytest.mark.simulate(seeds=30)
async def test_blocking_methods_in_a_simulation() -> None:
    """There the method runs on the loop at some later instant; it is still one message at a time."""
    log: list[Any] = []
    done = threading.Event()
    done.set()
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Threaded, log)
        asks: list[Any] = []
        for number in range(4):
            asks += [ref.ask(Threaded.block, threading.Event(), done), ref.ask(Threaded.note, number)]
        await asyncio.gather(*asks)
    assert [entry for entry in log if entry != ("begun", True)] == ["returned", 0, "returned", 1, "returned", 2, "returned", 3]
