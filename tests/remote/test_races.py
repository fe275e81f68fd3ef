"""What goes wrong between two frames: ends, cancellations and losses that meet each other on the way."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

import sage_actor as sage
from sage_actor._core.frame import decode
from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.errors import ActorLost, SerializationError, WorkerLost
from sage_actor.ports import current_random
from sage_actor.remote.allowed import AllowList
from sage_actor.testing.simulated_backend import SimulatedBackend
from sage_actor.testing.simulated_processes import Processes
from sage_actor.testing.simulation_loop import SimulationLoop


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def simulated(delay: float, **more: Any) -> SimulatedBackend:
    """Workers of the simulation that runs."""
    return SimulatedBackend(Processes(cast("SimulationLoop", asyncio.get_running_loop())), current_random(), delay, **more)


async def settled(awaitable: Any) -> Any:
    try:
        return await awaitable
    except (sage.SageError, asyncio.CancelledError) as error:
        return error


class Odd(Exception):
    """Neither survives the trip nor says what it is."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)

    def __str__(self) -> str:
        raise ValueError("says nothing")


class Helper(sage.Actor):
    """Does what a test needs done on a worker."""

    expected_errors = (Odd,)

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.told: list[sage.Terminated] = []
        self.gate = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None

    async def receive(self, message: Any) -> None:
        await self.gate.wait()
        self.got.append(message)

    async def note(self, message: Any) -> None:
        self.got.append(message)

    def open(self) -> None:
        self.gate.set()

    def kept(self) -> list[Any]:
        return self.got

    def count(self) -> int:
        return len(self.got)

    def watch(self, ref: sage.ActorRef[Any]) -> None:
        self.context.watch(ref)

    async def on_terminated(self, ended: sage.Terminated) -> None:
        self.told.append(ended)

    def ends(self) -> list[sage.ActorRef[Any]]:
        return [ended.ref for ended in self.told]

    async def have(self, capacity: int) -> sage.ActorRef[Helper]:
        return await self.context.spawn(Helper, name="slow", mailbox=sage.MailboxSettings(capacity=capacity))

    def open_child(self) -> None:
        child = self.context.system.lookup(f"{self.context.ref.path}/slow")
        assert child is not None
        child.cell.actor.gate.set()

    def is_there(self, path: str) -> bool:
        return self.context.system.lookup(path) is not None

    async def work(self, seconds: float) -> None:
        await self.context.system.clock.sleep(seconds)

    async def make_and_send(self, to: sage.ActorRef[Any]) -> None:
        class Made:
            pass

        await to.tell(Helper.note, Made())
        await to.tell(Helper.note, [Made])

    async def stop_other(self, ref: sage.ActorRef[Any]) -> None:
        await self.context.system.stop(ref)

    async def spawn_on(self, worker: int) -> Any:
        try:
            await self.context.system.spawn(Helper, worker=worker)
        except sage.WorkerLost as lost:
            return lost.worker, lost.exit_code
        return None

    def raise_odd(self) -> None:
        raise Odd("one", "two")

    async def rows(self) -> AsyncIterator[int]:
        for row in range(10**9):
            yield row


@pytest.mark.simulate(seeds=10, twice=1)
async def test_a_ref_of_an_actor_that_has_ended_is_the_one_known_before() -> None:
    async with sage.ActorSystem("simulated", backend=simulated(0.01), workers=1) as system:
        ended, watcher = [await system.spawn(Helper, worker=0) for _ in range(2)]
        await watcher.ask(Helper.watch, ended)
        await system.stop(ended)
        assert await watcher.ask(Helper.ends) == [ended]
        assert await watcher.ask(Helper.ends) == [ended]


@pytest.mark.simulate(seeds=20, twice=1)
async def test_an_ask_given_up_before_it_has_come_into_the_mailbox_is_never_handled() -> None:
    async with sage.ActorSystem("simulated", backend=simulated(0.01), workers=1) as system:
        beside = await system.spawn(Helper, worker=0)
        slow = await beside.ask(Helper.have, 1)
        for n in range(5):
            await slow.tell(n)  # one in hand, one in the mailbox, the others behind
        given_up = [slow.ask(Helper.note, "given up"), slow.ask("given up")]
        kept = slow.ask(Helper.note, "kept")
        await system.clock.sleep(1)
        for ask in given_up:
            ask.cancel()
        await system.clock.sleep(1)
        await beside.ask(Helper.open_child)
        await kept
        assert await slow.ask(Helper.kept) == [*range(5), "kept"]


@pytest.mark.simulate(seeds=10, twice=1)
async def test_a_draining_stop_ends_although_nothing_is_read() -> None:
    async with sage.ActorSystem("simulated", backend=simulated(0.01), workers=1) as system:
        beside = await system.spawn(Helper, worker=0)
        slow = await beside.ask(Helper.have, 1)
        for n in range(10):
            await slow.tell(n)
        begun = system.clock.monotonic()
        await system.stop(slow, timeout=1)
        assert system.clock.monotonic() - begun < 8
        assert not slow.alive


@pytest.mark.simulate(seeds=10, twice=1)
async def test_a_draining_stop_does_not_wait_for_what_cannot_be_sent() -> None:
    async with sage.ActorSystem("simulated", backend=simulated(0.01), workers=1) as system:
        ref = await system.spawn(Helper, worker=0, concurrency=2)
        working = ref.ask(Helper.work, 100)
        await system.clock.sleep(0.1)
        ref.tell_nowait(Helper.note, (x for x in "ab"))
        begun = system.clock.monotonic()
        await system.stop(ref, timeout=5)
        assert system.clock.monotonic() - begun < 12  # to drain, and for what is in hand
        assert isinstance(await settled(working), sage.ActorStopped)


class Starting(sage.Actor):
    """Says that it starts, and takes some turns to."""

    def __init__(self, to: sage.ActorRef[Any], turns: int) -> None:
        self.to = to
        self.turns = turns

    async def on_start(self) -> None:
        self.to.tell_nowait("starts")
        for _ in range(self.turns):
            await asyncio.sleep(0)


@pytest.mark.simulate(seeds=150, twice=1)
async def test_a_spawn_that_is_cancelled_leaves_no_actor_whenever_that_is() -> None:
    chance = current_random()
    spawning: asyncio.Task[Any] | None = None

    class Cancelling(sage.Actor):
        def receive(self, message: object) -> None:
            assert spawning is not None
            spawning.cancel()

    async with sage.ActorSystem("simulated", backend=simulated(0.0), workers=1) as system:
        cancelling = await system.spawn(Cancelling)
        beside = await system.spawn(Helper, worker=0)

        async def spawn() -> Any:
            return await system.spawn(Starting, cancelling, chance.randrange(8), name="it", worker=0)

        spawning = asyncio.ensure_future(spawn())
        outcome = await settled(spawning)
        await system.clock.sleep(1)
        assert await beside.ask(Helper.is_there, "it") == isinstance(outcome, sage.ActorRef)


@pytest.mark.simulate(seeds=150, twice=1)
async def test_a_class_that_is_lost_with_its_worker_holds_nobody_up() -> None:
    chance = current_random()
    backend = simulated(3.0)
    async with sage.ActorSystem("simulated", backend=backend, workers=2) as system:
        maker, keeper = [await system.spawn(Helper, worker=n) for n in range(2)]
        await maker.tell(Helper.make_and_send, keeper)
        backend.processes.call_later(chance.random() * 4, lambda: backend.processes.crash(backend.groups[0].processes[0]))
        while system.workers[0].alive or chance.random() < 0.7:
            kept = await settled(keeper.ask(Helper.kept))
            assert isinstance(kept, list | SerializationError | sage.BadCall), kept
        assert await keeper.ask(Helper.count) <= 2


@pytest.mark.simulate(seeds=60, twice=1)
async def test_an_answer_in_parts_that_begins_as_its_worker_is_lost_ends() -> None:
    backend = simulated(0.01)
    async with sage.ActorSystem("simulated", backend=backend, workers=2) as system:
        ref = await system.spawn(Helper, worker=0)
        first = asyncio.ensure_future(settled(anext(ref.stream(Helper.rows))))
        for _ in range(current_random().randrange(6)):
            await asyncio.sleep(0)
        lost = backend.groups[0].endpoint.lost
        assert lost is not None
        lost(WorkerLost(1, 1001, -9))
        assert isinstance(await first, sage.ActorStopped)


@pytest.mark.simulate(seeds=20, twice=1)
async def test_a_worker_that_waits_for_an_end_elsewhere_ends_by_itself() -> None:
    backend = simulated(0.01)
    async with sage.ActorSystem("simulated", backend=backend, workers=2, stop_timeout=1.0) as system:
        stuck, moving = [await system.spawn(Helper, worker=n) for n in range(2)]
        backend.processes.stall(backend.groups[0].processes[0], None)
        moving.tell_nowait(Helper.stop_other, stuck)
        await system.clock.sleep(1)
    outcome = await backend.groups[0].processes[1].ended
    assert outcome.how != "crashed"


@pytest.mark.simulate(seeds=80, twice=1)
async def test_a_worker_whose_frames_have_a_gap_is_lost_and_ends() -> None:
    chance = current_random()
    dropped = chance.randrange(4, 30)
    seen = 0

    def meddle(frame: bytes) -> tuple[bytes, ...]:
        nonlocal seen
        if decode(frame)[0].channel != 1:  # the first worker's are counted
            return (frame,)
        seen += 1
        return () if seen == dropped else (frame,)

    backend = simulated(0.01, meddle=meddle)
    async with sage.ActorSystem("simulated", backend=backend, workers=2, stop_timeout=1.0) as system:
        one, two = [await system.spawn(Helper, worker=n) for n in range(2)]
        while all(worker.alive for worker in system.workers):
            # A gap is seen when something comes behind it: until then only deadlines help.
            for outcome in await asyncio.gather(settled(one.ask(Helper.count, timeout=1)), settled(two.ask(Helper.count, timeout=1))):
                assert outcome == 0 or isinstance(outcome, ActorLost | sage.AskTimeout), outcome
            await system.clock.sleep(0.1)
        await system.clock.sleep(2)
        for worker, process in zip(system.workers, backend.groups[0].processes, strict=True):
            assert worker.alive == process.alive


@pytest.mark.simulate(seeds=10, twice=1)
async def test_workers_too_learn_how_a_worker_was_lost() -> None:
    backend = simulated(0.01)
    async with sage.ActorSystem("simulated", backend=backend, workers=2) as system:
        other = await system.spawn(Helper, worker=1)
        backend.processes.crash(backend.groups[0].processes[0])
        await system.clock.sleep(2)
        assert await other.ask(Helper.spawn_on, 0) == (0, -9)


@pytest.mark.simulate(seeds=10, twice=1)
async def test_an_error_that_cannot_even_be_told_in_words_is_an_answer_all_the_same() -> None:
    async with sage.ActorSystem("simulated", backend=simulated(0.01), workers=1) as system:
        ref = await system.spawn(Helper, worker=0)
        error = await settled(ref.ask(Helper.raise_odd))
        assert "Odd" in str(error)
        assert await ref.ask(Helper.count) == 0


def test_an_instance_without_its_fields_is_refused_by_the_allow_list() -> None:
    allowed = AllowList((MailboxSettings,))
    with pytest.raises(SerializationError, match="MailboxSettings"):
        allowed.encode([MailboxSettings.__new__(MailboxSettings)], "an answer")


@pytest.mark.simulate(seeds=1, twice=1)
async def test_an_ended_actor_keeps_nothing_that_it_was_made_from() -> None:
    class Large:
        pass

    class Made(sage.Actor):
        def __init__(self, large: Large) -> None:
            self.large = large

    async with sage.ActorSystem("simulated", backend=simulated(0.01), workers=1) as system:
        far = await system.spawn(Helper, worker=0)
        large = Large()
        kept = weakref.ref(large)
        made = await system.spawn(Made, large)
        del large
        await far.ask(Helper.note, made)
        await system.stop(made)
        gc.collect()
        assert kept() is None


class Unreadable:
    """Can be written, and not read."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


@pytest.mark.simulate(seeds=20, twice=1)
async def test_a_class_that_cannot_be_read_there_is_refused_and_holds_nothing_up() -> None:
    class Bad(sage.Actor):
        of = Unreadable()

    class Further:
        bad = Bad

    async with sage.ActorSystem("simulated", backend=simulated(0.01), workers=2) as system:
        one, two = [await system.spawn(Helper, worker=n) for n in range(2)]
        with pytest.raises(SerializationError, match="no number"):
            await system.spawn(Bad, worker=0)
        with pytest.raises(sage.BadCall, match="could not be read"):
            await two.ask(Helper.note, Further())
        here = await system.spawn(Bad)
        await one.ask(Helper.note, here)  # the ref of one works all the same
        assert await one.ask(Helper.kept) == [here]


class Around(sage.Actor):
    """Has another ask it back, while a third one fills its mailbox."""

    async def go(self, by: sage.ActorRef[Around], me: sage.ActorRef[Around]) -> str:
        return await by.ask(Around.ask_back, me)

    async def ask_back(self, whom: sage.ActorRef[Around]) -> str:
        await self.context.system.clock.sleep(5)
        return await whom.ask(Around.answer)

    async def read_back(self, whom: sage.ActorRef[Around]) -> str:
        await self.context.system.clock.sleep(5)
        return "".join([part async for part in whom.stream(Around.letters)])

    async def go_reading(self, by: sage.ActorRef[Around], me: sage.ActorRef[Around]) -> str:
        return await by.ask(Around.read_back, me)

    def answer(self) -> str:
        return "inward"

    async def letters(self) -> AsyncIterator[str]:
        for letter in "inward":
            yield letter

    def receive(self, message: object) -> None:
        """One of the flood."""

    @sage.interruptible
    async def flood(self, whom: sage.ActorRef[Around]) -> None:
        for n in range(100):
            await whom.tell(n)


@pytest.mark.rule("A27")
@pytest.mark.simulate(seeds=10, twice=1)
async def test_what_comes_around_is_not_held_up_by_what_waits_for_room() -> None:
    async with sage.ActorSystem("simulated", backend=simulated(0.01), workers=2) as system:
        full = sage.MailboxSettings(capacity=1)
        inward, single = [await system.spawn(Around, worker=0, mailbox=full, reentrant=reentrant) for reentrant in (True, False)]
        flooding, *backs = [await system.spawn(Around, worker=1, concurrency=3) for _ in range(3)]
        for going in (Around.go, Around.go_reading):
            answers = [ref.ask(going, back, ref) for ref, back in zip((inward, single), backs, strict=True)]
            floods = [flooding.ask(Around.flood, ref) for ref in (inward, single)]
            assert await answers[0] == "inward"
            failed = await settled(answers[1])
            assert "ask cycle" in str(failed)
            for flood in floods:
                await flood
