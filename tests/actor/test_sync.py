"""The blocking face: actors asked, told, spawned, watched and stopped by threads that have no event loop."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import os
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest
import uvloop

import sage_actor as sage
from sage_actor.actor.sync import SyncSystem
from sage_actor.actor.threaded import SyncActorSystem


class Counter(sage.Actor):
    def __init__(self, start: int = 0) -> None:
        self.n = start

    def receive(self, message: object) -> object:
        if message == "exit":
            raise SystemExit(7)
        return ("got", message, self.n)

    def add(self, by: int) -> int:
        self.n += by
        return self.n

    async def add_later(self, by: int) -> int:
        await asyncio.sleep(0)
        return self.add(by)

    def fail(self) -> None:
        raise ValueError("on purpose")


class Gate(sage.Actor):
    """Handlers that wait until somebody in another thread says so, or for ever."""

    async def receive(self, message: object) -> object:
        await asyncio.Event().wait()
        return message

    def hold_loop(self, begun: threading.Event, go: threading.Event) -> None:
        begun.set()
        go.wait(20)

    async def until(self, go: asyncio.Event) -> str:
        await go.wait()
        return "gone through"

    @sage.interruptible
    async def interrupt_the_main_thread(self, cancelled: threading.Event) -> None:
        _thread.interrupt_main()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()


class Log(sage.Actor):
    def __init__(self) -> None:
        self.lines: list[object] = []

    def receive(self, message: object) -> object:
        self.lines.append(message)
        return len(self.lines)

    def read(self) -> list[object]:
        return list(self.lines)


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        yield executor


# -- a system of its own thread --


def test_a_script_needs_no_event_loop() -> None:
    with SyncActorSystem("demo") as system:
        ref = system.spawn(Counter, 5, name="counter")
        assert system.ask(ref, Counter.add, 1) == 6
        assert system.ask(ref, Counter.add_later, 2, timeout="20s") == 8
        assert system.tell(ref, Counter.add, 1) is True
        assert system.ask(ref, "hello") == ("got", "hello", 9)
        assert system.lookup("counter") == ref
        assert system.lookup("nobody") is None
        with pytest.raises(sage.NameTaken):
            system.spawn(Counter, name="counter")
        with pytest.raises(sage.BadCall):
            system.ask(ref, Counter.add)
        statistics = system.statistics()
        assert (statistics.living, statistics.actors[0].handled) == (1, 4)
        ended = system.watch(ref)
        assert not ended.done()
        system.stop(ref)
        assert ended.result(20) == sage.Terminated(ref, None)
        assert system.watch(ref).result(20) == sage.Terminated(ref, None)
        assert system.tell(ref, "too late") is False
        with pytest.raises(sage.ActorStopped):
            system.ask(ref, "too late")
        killed = system.spawn(Gate)
        system.tell(killed, "busy")
        system.kill(killed)
        assert system.lookup(killed.path) is None


def test_what_a_handler_raises_comes_with_its_cause() -> None:
    with SyncActorSystem() as system:
        with pytest.raises(sage.ActorFailed) as caught:
            system.ask(system.spawn(Counter), Counter.fail)
        assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(sage.ActorFailed, match="start"):
            system.spawn(Counter, "not a number", 2)  # type: ignore[arg-type]


def test_leaving_drains_and_ends_the_thread() -> None:
    lines: list[object] = []

    class Slow(sage.Actor):
        async def receive(self, message: object) -> None:
            await asyncio.sleep(0)
            lines.append(message)

    before = set(threading.enumerate())
    with SyncActorSystem() as system:
        slow = system.spawn(Slow)
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon
        for number in range(50):
            system.tell(slow, number)
    assert lines == list(range(50))
    assert set(threading.enumerate()) == before
    with pytest.raises(sage.ActorStopped):
        system.ask(slow, "too late")
    with pytest.raises(sage.ActorStopped):
        system.tell(slow, "too late")
    with pytest.raises(sage.ActorError, match="has ended"):
        system.spawn(Slow)
    system.close()
    with pytest.raises(sage.ActorError, match="started before"), system:
        pass


def test_an_exception_leaves_without_draining(pool: concurrent.futures.ThreadPoolExecutor) -> None:
    lines: list[object] = []
    go = asyncio.Event()

    class Held(sage.Actor):
        async def receive(self, message: object) -> None:
            pool.submit(open_when_it_stops, asyncio.get_running_loop(), self.ref)
            await go.wait()
            lines.append(message)

    def open_when_it_stops(loop: asyncio.AbstractEventLoop, ref: sage.ActorRef[Held]) -> None:
        until(lambda: not ref.alive)
        loop.call_soon_threadsafe(go.set)

    with pytest.raises(KeyError), SyncActorSystem() as system:
        held = system.spawn(Held)
        for number in range(3):
            system.tell(held, number)
        until(lambda: system.statistics().actors[0].in_hand == 1)
        raise KeyError
    assert lines == [0], "the message in hand is finished, no other is begun"


def test_it_says_how_to_begin() -> None:
    with pytest.raises(sage.ActorError, match="inside `with`"):
        SyncActorSystem().spawn(Counter)
    SyncActorSystem().close()
    with pytest.raises(sage.ActorError, match="inside `async with`"):
        sage.ActorSystem().sync.spawn(Counter)


@pytest.mark.asyncio
async def test_it_works_beside_a_running_loop() -> None:
    """As in a notebook: the thread that asks runs a loop, another one."""
    with SyncActorSystem() as system:
        assert system.ask(system.spawn(Counter), Counter.add, 3, timeout=20) == 3


def test_what_ends_the_loop_comes_out_on_leaving() -> None:
    with pytest.raises(SystemExit), SyncActorSystem() as system:
        ref = system.spawn(Counter)
        with pytest.raises(sage.ActorError):
            system.ask(ref, "exit", timeout=20)


def test_a_forked_child_is_refused() -> None:
    with SyncActorSystem() as system, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        ref = system.spawn(Counter)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                system.ask(ref, Counter.add, 1, timeout=5)
            except sage.ActorError as error:
                status = 0 if "forked" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert system.ask(ref, Counter.add, 1) == 1


# -- giving up --


def test_a_timeout_of_the_handler() -> None:
    with SyncActorSystem() as system:
        gate = system.spawn(Gate)
        with pytest.raises(sage.AskTimeout, match="no answer within"):
            system.ask(gate, "for ever", timeout=0.02)
        system.kill(gate)
        for timeout in (-1, "soon"):
            with pytest.raises(sage.ConfigError):
                system.ask(gate, "never sent", timeout=timeout)


@pytest.mark.blocks_loop("what happens then is what is tested")
def test_a_timeout_of_a_stuck_loop_sends_nothing() -> None:
    begun, go = threading.Event(), threading.Event()
    with SyncActorSystem() as system:
        gate, counter = system.spawn(Gate), system.spawn(Counter)
        assert gate.tell_nowait(Gate.hold_loop, begun, go)
        begun.wait(20)
        with pytest.raises(sage.AskTimeout) as caught:
            system.ask(counter, Counter.add, 1, timeout=0.05)
        assert (caught.value.actor, caught.value.seconds, caught.value.doing) == (counter.path, 0.05, "add")
        with pytest.raises(sage.AskTimeout, match="receive"):
            system.ask(counter, "hello", timeout=0)
        go.set()
        assert system.ask(counter, Counter.add, 1) == 1


def test_ctrl_c_gives_the_ask_up() -> None:
    cancelled = threading.Event()
    with SyncActorSystem() as system:
        gate = system.spawn(Gate)
        with pytest.raises(KeyboardInterrupt):
            system.ask(gate, Gate.interrupt_the_main_thread, cancelled)
        assert cancelled.wait(20)
        assert system.statistics().failures == 0


def test_a_watch_that_is_given_up() -> None:
    with SyncActorSystem() as system:
        ref = system.spawn(Counter)
        kept, given_up = system.watch(ref), system.watch(ref)
        assert given_up.cancel()
        assert given_up.cancel()
        assert concurrent.futures.wait([given_up], 20).not_done == set()
        for look in (kept.result, kept.exception):
            with pytest.raises(TimeoutError):
                look(0)
        system.stop(ref)
        assert kept.exception(20) is None
        assert kept.result(0).ref == ref
        with pytest.raises(concurrent.futures.CancelledError):
            given_up.result()
        with pytest.raises(concurrent.futures.CancelledError):
            given_up.exception()


# -- beside an asyncio program --


REFUSED: dict[str, tuple[Callable[[SyncSystem, sage.ActorRef[Counter]], object], str]] = {
    "ask": (lambda face, ref: face.ask(ref, Counter.add, 1), r"await ref.ask"),
    "tell": (lambda face, ref: face.tell(ref, Counter.add, 1), r"await ref.tell"),
    "spawn": (lambda face, _: face.spawn(Counter), r"await system.spawn"),
    "stop": (lambda face, ref: face.stop(ref), r"await system.stop"),
    "kill": (lambda face, ref: face.kill(ref), r"await system.stop"),
    "lookup": (lambda face, _: face.lookup("counter"), r"system.lookup"),
    "watch": (lambda face, ref: face.watch(ref), r"system.watch"),
    "statistics": (lambda face, _: face.statistics(), r"system.statistics"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("what", REFUSED)
async def test_on_the_loops_own_thread_it_is_refused(what: str) -> None:
    call, instead = REFUSED[what]
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Counter)
        with pytest.raises(sage.ActorError, match=instead):
            call(system.sync, ref)
        assert await ref.ask(Counter.add, 1) == 1


def test_an_actor_is_refused_too() -> None:
    class Careless(sage.Actor):
        def receive(self, message: object) -> object:
            if message == "close":
                system.close()
            return system.ask(self.ref, "again")

    with SyncActorSystem() as system:
        ref = system.spawn(Careless, restart=sage.FixedDelay(attempts=5, delay=0))
        for message, instead in (("ask", "await ref.ask"), ("close", r"self.context.stop")):
            with pytest.raises(sage.ActorFailed, match=instead):
                system.ask(ref, message)


@pytest.mark.asyncio
async def test_threads_of_an_asyncio_program(pool: concurrent.futures.ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    async with sage.ActorSystem() as system:
        assert system.sync is system.sync

        def in_a_thread() -> tuple[int, object]:
            ref = system.sync.spawn(Counter, 1)
            system.sync.tell(ref, Counter.add, 1)
            return system.sync.ask(ref, Counter.add, 1), system.sync.lookup(ref.path) == ref

        assert await loop.run_in_executor(pool, in_a_thread) == (3, True)
    with pytest.raises(sage.ActorError, match="not running"):
        await loop.run_in_executor(pool, lambda: system.sync.spawn(Counter))


@pytest.mark.asyncio
async def test_after_the_end_of_the_system(pool: concurrent.futures.ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Counter)
    with pytest.raises(sage.ActorStopped):
        await loop.run_in_executor(pool, lambda: system.sync.ask(ref, Counter.add, 1))
    assert await loop.run_in_executor(pool, system.sync.tell, ref, "anyone?") is False
    assert [letter.message for letter in system.dead_letters] == ["anyone?"]
    assert (await loop.run_in_executor(pool, system.sync.statistics)).living == 0


@pytest.mark.rule("A23")
def test_what_one_thread_sends_is_handled_in_order(pool: concurrent.futures.ThreadPoolExecutor) -> None:
    with SyncActorSystem() as system:
        log = system.spawn(Log, mailbox=sage.MailboxSettings(capacity=8))

        def send(sender: int) -> None:
            for number in range(60):
                if number % 3 == 0:
                    system.ask(log, (sender, number))
                elif number % 3 == 1:
                    log.tell_nowait((sender, number))
                else:
                    system.tell(log, (sender, number))

        list(pool.map(send, range(4)))
        lines = system.ask(log, Log.read)
    for sender in range(4):
        assert [line for line in lines if isinstance(line, tuple) and line[0] == sender] == [(sender, n) for n in range(60)]


def test_tell_waits_for_room(pool: concurrent.futures.ThreadPoolExecutor) -> None:
    with SyncActorSystem() as system:
        go = asyncio.Event()
        gate = system.spawn(Gate, mailbox=sage.MailboxSettings(capacity=1))
        opener = system.spawn(Opener)
        answer = pool.submit(system.ask, gate, Gate.until, go)
        until(lambda: system.statistics().actors[0].in_hand == 1)
        assert system.tell(gate, Gate.until, go) is True
        third = pool.submit(system.tell, gate, Gate.until, go)
        until(lambda: system.statistics().actors[0].waiting_senders == 1)
        assert not third.done()
        system.ask(opener, Opener.open, go)
        assert third.result(20) is True
        assert answer.result(20) == "gone through"


def test_tell_of_a_full_mailbox_that_does_not_wait() -> None:
    with SyncActorSystem() as system:
        gate = system.spawn(Gate, mailbox=sage.MailboxSettings(capacity=1, overflow="fail"))
        system.tell(gate, 1)
        until(lambda: system.statistics().actors[0].in_hand == 1)
        system.tell(gate, 2)
        with pytest.raises(sage.MailboxFull):
            system.tell(gate, 3)
        system.kill(gate)


class Opener(sage.Actor):
    def open(self, go: asyncio.Event) -> None:
        go.set()


def until(condition: Callable[[], bool]) -> None:
    """Ask again and again; each time goes through the loop."""
    while not condition():
        pass


# -- in methods declared blocking --


class Blocking(sage.Actor):
    expected_errors = (sage.AskCycle,)

    @sage.blocking
    def ask_again(self) -> object:
        return self.context.system.sync.ask(self.ref, "again")

    @sage.blocking
    def ask_other(self, other: sage.ActorRef[Gate], seen: list[sage.AskTimeout]) -> None:
        try:
            self.context.system.sync.ask(other, "for ever")
        except sage.AskTimeout as error:
            seen.append(error)

    @sage.blocking
    def count(self, counter: sage.ActorRef[Counter]) -> int:
        return self.context.system.sync.ask(counter, Counter.add, 1) + self.context.system.sync.ask(counter, Counter.add_later, 1)


@pytest.mark.asyncio
async def test_a_blocking_method_may_ask() -> None:
    async with sage.ActorSystem() as system:
        ref, counter = await system.spawn(Blocking), await system.spawn(Counter)
        assert await ref.ask(Blocking.count, counter, timeout=20) == 3


@pytest.mark.asyncio
async def test_a_blocking_method_that_asks_itself_is_told() -> None:
    async with sage.ActorSystem() as system:
        ref = await system.spawn(Blocking)
        with pytest.raises(sage.AskCycle):
            await ref.ask(Blocking.ask_again)


@pytest.mark.asyncio
async def test_a_deadline_travels_through_a_blocking_method() -> None:
    seen: list[sage.AskTimeout] = []
    async with sage.ActorSystem() as system:
        ref, gate = await system.spawn(Blocking), await system.spawn(Gate)
        with pytest.raises(sage.AskTimeout):
            await ref.ask(Blocking.ask_other, gate, seen, timeout=0.05)
        await ref.ask(Blocking.count, await system.spawn(Counter))  # when it handles this, the thread has come back
        await system.kill(gate)
    assert [error.actor for error in seen] == [gate.path]


# -- a loop that ends under it --


async def begun(cls: type[sage.Actor]) -> tuple[sage.ActorSystem, sage.ActorRef[sage.Actor]]:
    """A system that nobody will close."""
    system = await sage.ActorSystem(inspect=False).__aenter__()
    return system, await system.spawn(cls)


LOOPS = pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
def test_a_loop_that_ends_fails_what_waits_for_it(
    pool: concurrent.futures.ThreadPoolExecutor, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def asked(ref: sage.ActorRef[sage.Actor]) -> None:
        while not ref.cell.in_hand:  # noqa: ASYNC110 - there is no event for what another thread does
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        system, ref = runner.run(begun(Gate))
        waiting = pool.submit(system.sync.ask, ref, "for ever")
        ended = pool.submit(system.sync.watch, ref)
        runner.run(asked(ref))
    with pytest.raises(sage.ActorStopped):
        waiting.result(20)
    assert ended.result(20).result(20).reason is not None, "its task was cancelled from outside"
    for call in (system.sync.statistics, lambda: system.sync.watch(ref)):
        with pytest.raises(sage.ActorError, match="event loop of actor system 'actors' has ended"):
            call()
    with pytest.raises(sage.ActorStopped):
        system.sync.ask(ref, "too late", timeout=20)
    with pytest.raises(sage.ActorStopped):
        system.sync.tell(ref, "too late")


@LOOPS
def test_a_loop_that_stands_still_or_is_closed_is_noticed(
    pool: concurrent.futures.ThreadPoolExecutor, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        system, ref = runner.run(begun(Counter))
        waiting = pool.submit(system.sync.ask, ref, "hello")
        with pytest.raises(sage.ActorError, match="has ended"):
            system.sync.statistics()  # nobody runs the loop any more
        with pytest.raises(sage.ActorStopped):
            waiting.result(20)
        ended = system.sync.watch(ref)
    with pytest.raises(sage.ActorError, match="has ended"):
        ended.result(20)
    assert ended.cancel() is False
