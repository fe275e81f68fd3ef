"""Work pulling: every item exactly once, in order, to whoever is free; nobody hoards; and the counts agree whatever is killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor._core.batch_queue import Overflow
from sage_actor.actor.statistics import statistics_of
from sage_actor.routing.pulling_front import SubmittedCall
from sage_actor.routing.work_pulling import WorkPullingPool, spawn_work_pulling_pool
from sage_actor.testing import ManualClock, Simulation


class Expected(Exception):
    """An error that is an answer."""


class Journal:
    """What the workers did, as one outside of them sees it."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.ended: list[tuple[str, int, str]] = []

    @property
    def items(self) -> list[int]:
        return [item for _, item in self.begun]

    def in_hand(self) -> Counter[str]:
        count = Counter(name for name, _ in self.begun)
        count.subtract(Counter(name for name, _, _ in self.ended))
        return count


class Worker(sage.Actor):
    expected_errors = (Expected,)

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    async def work(self, item: int, turns: int = 0, how: str = "well") -> int:
        name = self.ref.path
        self.journal.begun.append((name, item))
        ending = "interrupted"
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            ending = how
            if how == "failing":
                raise RuntimeError(f"item {item}")
            if how == "expected":
                raise Expected(item)
        finally:
            self.journal.ended.append((name, item, ending))
        return item * 10

    @sage.interruptible
    async def interruptible(self, item: int, turns: int) -> int:
        return await self.work(item, turns)

    async def wait_for(self, item: int, gate: asyncio.Event) -> int:
        self.journal.begun.append((self.ref.path, item))
        await gate.wait()
        self.journal.ended.append((self.ref.path, item, "well"))
        return item

    def plain(self, item: int) -> int:
        self.journal.begun.append((self.ref.path, item))
        self.journal.ended.append((self.ref.path, item, "well"))
        return item * 10

    async def receive(self, message: object) -> object:
        assert isinstance(message, int)
        return await self.work(message)

    async def ask_the_pool(self, pool: WorkPullingPool[Worker]) -> int:
        return await pool.ask(Worker.work, 1)


def first_argument(message: object) -> object:
    arguments: Any = message.arguments if isinstance(message, SubmittedCall) else message
    return arguments[0] if isinstance(arguments, tuple) else arguments


def assert_accounted(pool: WorkPullingPool[Any]) -> None:
    counts = pool.statistics()
    assert counts.accepted == counts.handled + counts.dead_lettered + counts.queued + counts.in_hand
    for worker in counts.workers:
        assert worker.accepted == worker.handled + worker.dead_lettered + worker.queued + worker.stashed + worker.in_hand


def assert_in_order(journal: Journal, submitted: list[int], slots: int) -> None:
    """Each once; what one worker began is in order; and no item begins while more earlier ones than there are slots have not."""
    assert len(set(journal.items)) == len(journal.items)
    place = {item: number for number, item in enumerate(submitted)}
    begun: set[int] = set()
    by_worker: dict[str, int] = {}
    for name, item in journal.begun:
        assert place[item] > by_worker.get(name, -1)
        by_worker[name] = place[item]
        earlier = sum(place[other] < place[item] for other in begun)
        skipped = sum(1 for other in journal.items if place[other] < place[item]) - earlier
        assert skipped < slots
        begun.add(item)


# -- the ordinary course ----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_it_has_the_face_of_a_ref() -> None:
    async with sage.ActorSystem("pulling") as system:
        journal = Journal()
        pool = await spawn_work_pulling_pool(system, Worker, journal, size=3, name="crew")
        assert await pool.submit(Worker.work, 1)
        assert await pool.submit(Worker.work, 2, turns=1)
        assert pool.submit_nowait(Worker.plain, 3)
        assert await pool.submit(4)
        answer: int = await pool.ask(Worker.work, 5, timeout=5)
        assert answer == 50
        assert await pool.ask(Worker.work, 6, turns=2, timeout=5) == 60
        assert await pool.ask(7) == 70
        assert await pool.ask(Worker.plain, 8) == 80
        await system.wait_idle()
        assert sorted(journal.items) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert [worker.path for worker in pool.workers] == ["crew/0", "crew/1", "crew/2"]
        counts = pool.statistics()
        assert (counts.path, counts.accepted, counts.handled, counts.queued, counts.in_hand) == ("crew", 8, 8, 0, 0)
        assert_accounted(pool)
        await pool.stop()
        assert system.living == 0


@given(
    size=st.integers(1, 4),
    concurrency=st.integers(1, 2),
    work=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["well", "well", "well", "expected", "failing"])), max_size=40),
    seed=st.integers(0, 5),
)
@settings(deadline=None, max_examples=60)
def test_workers_of_any_speed_share_the_work_in_order(size: int, concurrency: int, work: list[tuple[int, str]], seed: int) -> None:
    """The model: a list of items, each handled once, in order, and never more at a time than a worker can begin."""

    async def main() -> None:
        async with sage.ActorSystem("pulling") as system:
            journal = Journal()
            restart = sage.FixedDelay(attempts=None, delay=0)
            pool = await spawn_work_pulling_pool(system, Worker, journal, size=size, concurrency=concurrency, restart=restart)
            asks = [pool.ask(Worker.work, item, turns, how) for item, (turns, how) in enumerate(work)]
            while not all(ask.done() for ask in asks):
                assert all(count <= concurrency for count in journal.in_hand().values())
                assert_accounted(pool)
                await asyncio.sleep(0)
            outcomes = await asyncio.gather(*asks, return_exceptions=True)
            await system.wait_idle()
            for item, ((_, how), outcome) in enumerate(zip(work, outcomes, strict=True)):
                if isinstance(outcome, sage.ActorStopped):
                    assert concurrency > 1, "only what was beside a failing item in the same worker is lost with it"
                elif how == "expected":
                    assert isinstance(outcome, Expected)
                elif how == "failing":
                    assert isinstance(outcome, sage.ActorFailed)
                    assert outcome.actor.startswith(f"{pool.ref.path}/")
                    assert str(outcome.__cause__) == f"item {item}"
                else:
                    assert outcome == item * 10
            assert_accounted(pool)
            assert pool.statistics().handled == len(work)
            if concurrency == 1:
                assert_in_order(journal, list(range(len(work))), size)

    Simulation(seed).run(main)


@pytest.mark.asyncio
async def test_a_slow_worker_hoards_nothing() -> None:
    async with sage.ActorSystem("pulling") as system:
        journal, gate = Journal(), asyncio.Event()
        pool = await spawn_work_pulling_pool(system, Worker, journal, size=2)
        slow = pool.ask(Worker.wait_for, 0, gate)
        assert [await pool.ask(Worker.work, item) for item in range(1, 30)] == [item * 10 for item in range(1, 30)]
        slow_one = journal.begun[0][0]
        assert Counter(name for name, _ in journal.begun)[slow_one] == 1
        gate.set()
        assert await slow == 0


@pytest.mark.asyncio
async def test_what_is_sent_to_a_worker_directly_is_its_own() -> None:
    async with sage.ActorSystem("pulling") as system:
        journal = Journal()
        pool = await spawn_work_pulling_pool(system, Worker, journal, size=2)
        assert await asyncio.gather(*(worker.ask(Worker.work, 1) for worker in pool.workers)) == [10, 10]
        assert await pool.ask(Worker.work, 2) == 20
        assert pool.statistics().accepted == 1


# -- the queue --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("overflow", ["wait", "fail", "drop_new", "drop_old"])
async def test_the_bound_of_the_queue_holds_whoever_sends(overflow: Overflow) -> None:
    async with sage.ActorSystem("pulling") as system:
        journal, gate = Journal(), asyncio.Event()
        mailbox = sage.MailboxSettings(capacity=2, overflow=overflow)
        pool = await spawn_work_pulling_pool(system, Worker, journal, size=1, mailbox=mailbox)
        held = pool.ask(Worker.wait_for, 0, gate)
        await asyncio.sleep(0)
        queued = [pool.ask(Worker.work, item) for item in (1, 2)]
        assert pool.statistics().queued == 2
        if overflow == "wait":
            with pytest.raises(sage.MailboxFull):
                pool.submit_nowait(Worker.work, 3)
            waiting = asyncio.ensure_future(pool.submit(Worker.work, 3))
            await asyncio.sleep(0)
            asked = pool.ask(Worker.work, 4)
            await asyncio.sleep(0)
            assert pool.statistics().waiting_senders == 2
            gate.set()
            assert await waiting
            assert await asked == 40
            expected = [0, 1, 2, 3, 4]
        elif overflow == "fail":
            with pytest.raises(sage.MailboxFull):
                await pool.submit(Worker.work, 3)
            with pytest.raises(sage.MailboxFull):
                await pool.ask(Worker.work, 3)
            expected = [0, 1, 2]
        elif overflow == "drop_new":
            assert not await pool.submit(Worker.work, 3)
            with pytest.raises(sage.MailboxFull):
                await pool.ask(Worker.work, 3)
            expected = [0, 1, 2]
        else:
            assert await pool.submit(Worker.work, 3)
            with pytest.raises(sage.MailboxFull):
                await queued[0]
            expected = [0, 2, 3]
        gate.set()
        assert await held == 0
        await asyncio.gather(*queued, return_exceptions=True)
        await system.wait_idle()
        assert journal.items == expected
        assert system.dead_letters.total == {"wait": 0, "fail": 0, "drop_new": 2, "drop_old": 1}[overflow]
        assert_accounted(pool)


@pytest.mark.asyncio
async def test_priorities_see_the_workers_methods() -> None:
    async with sage.ActorSystem("pulling") as system:
        journal, gate = Journal(), asyncio.Event()
        seen: list[object] = []

        def priority(message: object) -> int:
            seen.append(message)
            return {Worker.plain: 0, 5: 1}.get(message, 2)  # type: ignore[call-overload, no-any-return]

        pool = await spawn_work_pulling_pool(system, Worker, journal, size=1, mailbox=sage.MailboxSettings(priority=priority))
        held = pool.ask(Worker.wait_for, 0, gate)
        await asyncio.sleep(0)
        rest = [pool.ask(Worker.work, 1), pool.ask(5), pool.ask(Worker.plain, 2), pool.ask(Worker.work, 3, turns=1)]
        gate.set()
        await asyncio.gather(held, *rest)
        assert journal.items == [0, 2, 5, 1, 3]
        assert seen == [Worker.wait_for, Worker.work, 5, Worker.plain, Worker.work]


@pytest.mark.asyncio
async def test_calls_that_make_no_sense_harm_nobody() -> None:
    async with sage.ActorSystem("pulling") as system:
        journal = Journal()
        pool = await spawn_work_pulling_pool(system, Worker, journal, size=1)
        with pytest.raises(sage.BadCall, match="no method of its workers"):
            pool.ask("text", 1)  # type: ignore[call-overload]
        with pytest.raises(sage.BadCall):
            await pool.ask(Worker.work)  # type: ignore[call-overload]
        with pytest.raises(sage.ActorError, match="at least 1"):
            await spawn_work_pulling_pool(system, Worker, journal, size=0)
        assert await pool.submit(Worker.work, "not", "a", "fitting", "call")  # type: ignore[arg-type, call-arg]
        assert await pool.ask(Worker.work, 1) == 10
        assert [letter.method for letter in system.dead_letters] == ["work", "work"]
        assert pool.workers[0].cell.lifecycle.restarts == 0
        held = [pool.ask(Worker.work, item, 9) for item in range(2)]
        await pool.submit(Worker.work, 2, turns=1)
        await pool.stop(drain=False)
        await asyncio.gather(*held, return_exceptions=True)
        assert repr(system.dead_letters[-1].message) == "Worker.work(2, turns=1)"


@pytest.mark.asyncio
async def test_an_item_that_waits_for_another_with_one_worker_is_a_cycle() -> None:
    async with sage.ActorSystem("pulling") as system:
        pool = await spawn_work_pulling_pool(system, Worker, Journal(), size=1)
        with pytest.raises(sage.ActorFailed) as caught:
            await pool.ask(Worker.ask_the_pool, pool)
        assert isinstance(caught.value.__cause__, sage.AskCycle)
        two = await spawn_work_pulling_pool(system, Worker, Journal(), size=2)
        assert await two.ask(Worker.ask_the_pool, two) == 10


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_worker_that_restarts_takes_nothing_meanwhile() -> None:
    clock = ManualClock()
    async with sage.ActorSystem("pulling", clock=clock) as system:
        journal = Journal()
        pool = await spawn_work_pulling_pool(system, Worker, journal, size=2, restart=sage.FixedDelay(attempts=1, delay=10))
        with pytest.raises(sage.ActorFailed):
            await pool.ask(Worker.work, 0, how="failing")
        failed = journal.begun[0][0]
        assert [await pool.ask(Worker.work, item) for item in range(1, 9)] == [item * 10 for item in range(1, 9)]
        assert failed not in {name for name, _ in journal.begun[1:]}
        await clock.advance(10)
        assert [await pool.ask(Worker.work, item) for item in (9, 10)] == [90, 100]
        assert failed in {name for name, _ in journal.begun[9:]}


@pytest.mark.asyncio
async def test_a_submitted_item_that_fails_disturbs_nobody() -> None:
    async with sage.ActorSystem("pulling") as system:
        journal = Journal()
        pool = await spawn_work_pulling_pool(system, Worker, journal, size=2, restart=sage.FixedDelay(attempts=9, delay=0))
        for item, how in enumerate(["failing", "expected", "well"]):
            assert await pool.submit(Worker.work, item, how=how)
        await system.wait_idle()
        assert [await pool.ask(Worker.work, item) for item in range(3, 9)] == [item * 10 for item in range(3, 9)]
        assert pool.ref.cell.lifecycle.restarts == 0
        assert [worker.restarts for worker in pool.statistics().workers] == [1, 0]
        assert_accounted(pool)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("by_failure", [False, True])
def test_without_workers_the_pool_ends(by_failure: bool, seed: int) -> None:
    async def main() -> None:
        async with sage.ActorSystem("pulling") as system:
            journal, gate = Journal(), asyncio.Event()
            pool = await spawn_work_pulling_pool(system, Worker, journal, size=2, restart=sage.NoRestart())
            watched = system.watch(pool.ref)
            if by_failure:
                for item in range(2):
                    with pytest.raises(sage.ActorFailed):
                        await pool.ask(Worker.work, item, how="failing")
            else:
                held = [pool.ask(Worker.wait_for, item, gate) for item in range(2)]
                rest = [pool.ask(Worker.work, item) for item in range(2, 6)]
                for _ in range(50):
                    await asyncio.sleep(0)
                assert sorted(journal.items) == [0, 1]
                for worker in pool.workers:
                    await system.stop(worker, drain=False, timeout=0.01)
                outcomes = await asyncio.gather(*held, *rest, return_exceptions=True)
                assert sum(isinstance(outcome, sage.ActorStopped) for outcome in outcomes) == 6
                assert system.dead_letters.total == 6
            ended = await watched
            assert isinstance(ended.reason, RuntimeError if by_failure else sage.ActorError)
            with pytest.raises(sage.ActorStopped):
                await pool.ask(Worker.work, 9)
            assert not await pool.submit(Worker.work, 9)

    simulation = Simulation(seed)
    simulation.run(main)
    assert simulation.virtual_seconds < 1, "nobody waited for items that no worker would ever take"


# -- giving up, killing, stopping -------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_caller_that_gives_up_frees_its_place_when_the_handler_has_ended() -> None:
    async with sage.ActorSystem("pulling") as system:
        journal, gate = Journal(), asyncio.Event()
        pool = await spawn_work_pulling_pool(system, Worker, journal, size=1)
        held = pool.ask(Worker.wait_for, 0, gate)
        queued = pool.ask(Worker.work, 1)
        for _ in range(5):
            await asyncio.sleep(0)
        held.cancel()
        queued.cancel()
        later = pool.ask(Worker.work, 2)
        for _ in range(9):
            await asyncio.sleep(0)
        assert journal.begun == [(pool.workers[0].path, 0)], "the handler runs on, and so nothing else is begun"
        gate.set()
        assert await later == 20
        assert journal.items == [0, 2]
        assert [letter.message for letter in system.dead_letters] == [(1,)]
        assert_accounted(pool)


@pytest.mark.asyncio
async def test_timeouts_and_interruptible_methods() -> None:
    clock = ManualClock()
    async with sage.ActorSystem("pulling", clock=clock) as system:
        journal, gate = Journal(), asyncio.Event()
        pool = await spawn_work_pulling_pool(system, Worker, journal, size=1)
        slow = pool.ask(Worker.interruptible, 0, 10**9, timeout=5)
        queued = pool.ask(Worker.work, 1, timeout=5)
        for _ in range(5):
            await asyncio.sleep(0)
        next_one = pool.ask(Worker.wait_for, 2, gate)
        waiting = asyncio.ensure_future(clock.advance(5.1))
        with pytest.raises(sage.AskTimeout):
            await slow
        with pytest.raises(sage.AskTimeout):
            await queued
        await waiting
        gate.set()
        assert await next_one == 2
        assert journal.ended[0][1:] == (0, "interrupted")
        assert journal.items == [0, 2]
        assert_accounted(pool)


@pytest.mark.rule("A41")
@pytest.mark.parametrize("seed", range(60))
def test_kills_and_cancellations_at_random_points_lose_and_double_nothing(seed: int) -> None:
    """Every item is answered, or given up by its caller, or lost with a killed worker that had it: and then it is a dead letter, once."""

    async def main() -> None:
        async with sage.ActorSystem("pulling") as system:
            chance = system.random
            letters: Counter[object] = Counter()
            system.dead_letters.subscribe(lambda letter: letters.update([first_argument(letter.message)]))
            journal = Journal()
            size = chance.choice([1, 2, 4])
            mailbox = sage.MailboxSettings(capacity=chance.choice([1, 3, 100]))
            restart = sage.FixedDelay(attempts=None, delay=0.5)
            pool = await spawn_work_pulling_pool(system, Worker, journal, size=size, mailbox=mailbox, restart=restart)
            front, submitted = pool.ref, 0
            asks: dict[int, sage.Reply[int]] = {}
            told: set[int] = set()
            may_be_lost: set[int] = set()
            stopped_some = False
            while submitted < 40:
                action = chance.random()
                if action < 0.4:
                    method = chance.choice([Worker.work, Worker.interruptible])
                    asks[submitted] = pool.ask(method, submitted, chance.randrange(6))
                    submitted += 1
                elif action < 0.5:
                    asks[submitted] = pool.ask(submitted) if chance.random() < 0.5 else pool.ask(Worker.plain, submitted)
                    submitted += 1
                elif action < 0.6:
                    with contextlib.suppress(sage.MailboxFull):
                        if pool.submit_nowait(Worker.work, submitted, chance.randrange(3)):
                            told.add(submitted)
                    submitted += 1
                elif action < 0.65:
                    asks[submitted] = pool.ask(Worker.work, submitted, chance.randrange(3), "failing")
                    submitted += 1
                elif action < 0.8 and asks:
                    asks[chance.choice(list(asks))].cancel()
                elif action < 0.85 and size > 1 and len(pool.workers) > 1:
                    stopped_some = True
                    await system.stop(chance.choice(pool.workers), drain=chance.random() < 0.5, timeout=0.01)
                else:
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)
                assert_accounted(pool)
                assert all(count <= 1 for count in journal.in_hand().values())
            outcomes = dict(zip(asks, await asyncio.gather(*asks.values(), return_exceptions=True), strict=True))
            await pool.stop()
            assert front.cell.queued == front.cell.in_hand == 0
            counts = statistics_of(front.cell.lifecycle)
            assert counts.accepted == counts.handled + counts.dead_lettered
            assert len(set(journal.items)) == len(journal.items), "at most once"
            # Else senders wait, and are let in as their tasks come up; or an item's worker ended before it began, and it came later.
            if mailbox.capacity == 100 and not stopped_some:
                for worker in {name for name, _ in journal.begun}:
                    of_worker = [item for name, item in journal.begun if name == worker]
                    assert of_worker == sorted(of_worker)
            completed = {item for _, item, ending in journal.ended if ending != "interrupted"}
            may_be_lost = set(range(submitted)) - completed
            for item, outcome in outcomes.items():
                if isinstance(outcome, int):
                    assert outcome == item * 10
                    assert item in completed
                elif isinstance(outcome, sage.ActorFailed):
                    assert (item, "failing") in {(other, ending) for _, other, ending in journal.ended}
                else:
                    assert isinstance(outcome, asyncio.CancelledError | sage.ActorStopped), outcome
                if item in completed:
                    assert letters[item] == 0
            for item in told:
                assert (item in completed) != (letters[item] == 1)
            assert all(count == 1 for count in letters.values())
            assert set(letters) <= may_be_lost
            for item in set(asks) - completed:
                never_sent = isinstance(outcomes[item], asyncio.CancelledError) and item not in journal.items and mailbox.capacity < 100
                assert letters[item] == 1 or never_sent, "what was accepted and not handled is a dead letter"

    Simulation(seed).run(main)


@pytest.mark.rule("A26")
@pytest.mark.parametrize("how", ["system", "drain", "at once", "kill"])
def test_the_end_of_the_pool_settles_every_ask(how: str) -> None:
    async def main() -> None:
        journal = Journal()
        async with sage.ActorSystem("pulling") as system:
            pool = await spawn_work_pulling_pool(system, Worker, journal, size=2)
            asks = [pool.ask(Worker.work, item, 20) for item in range(10)]
            told = [await pool.submit(Worker.work, item, 20) for item in range(10, 13)]
            assert all(told)
            for _ in range(system.random.randrange(9)):
                await asyncio.sleep(0)
            if how == "drain":
                await pool.stop()
            elif how == "at once":
                await pool.stop(drain=False)
            elif how == "kill":
                await pool.stop(drain=False, timeout=0.001)
        outcomes = await asyncio.gather(*asks, return_exceptions=True)
        assert system.living == 0
        if how in {"system", "drain"}:
            assert outcomes == [item * 10 for item in range(10)]
            assert sorted(journal.items) == list(range(13))
            assert system.dead_letters.total == 0
        else:
            answered = [item for item, outcome in enumerate(outcomes) if outcome == item * 10]
            assert all(isinstance(outcome, sage.ActorStopped) for item, outcome in enumerate(outcomes) if item not in answered)
            assert system.dead_letters.total == 13 - len(answered)
            assert {item for _, item, ending in journal.ended if ending == "well"} == set(answered)

    for seed in range(30):
        Simulation(seed).run(main)


@pytest.mark.asyncio
async def test_a_restart_of_the_front_keeps_the_queue() -> None:
    clock = ManualClock()
    async with sage.ActorSystem("pulling", clock=clock, restart=sage.FixedDelay(attempts=3, delay=1)) as system:
        journal, gate = Journal(), asyncio.Event()
        supervision = sage.Supervision(intensity=0, period="5s")
        pool = await spawn_work_pulling_pool(
            system, Worker, journal, size=2, restart=sage.FixedDelay(attempts=9, delay=0), supervision=supervision
        )
        held = pool.ask(Worker.wait_for, 0, gate)
        failing = pool.ask(Worker.work, 1, how="failing")
        rest = [pool.ask(Worker.work, item) for item in range(2, 9)]
        with pytest.raises(sage.ActorFailed):
            await failing
        advancing = asyncio.ensure_future(clock.advance(30))
        gate.set()
        outcome = (await asyncio.gather(held, return_exceptions=True))[0]
        assert outcome == 0 or isinstance(outcome, sage.ActorStopped)
        assert await asyncio.gather(*rest) == [item * 10 for item in range(2, 9)]
        await advancing
        assert pool.ref.cell.lifecycle.restarts == 1
        assert len(pool.workers) == 2
        assert_accounted(pool)


def test_the_end_of_the_event_loop_is_survived() -> None:
    async def main() -> None:
        system = sage.ActorSystem("pulling")
        await system.__aenter__()
        for size in (1, 2):
            pool = await spawn_work_pulling_pool(system, Worker, Journal(), size=size)
            for item in range(5):
                await pool.submit(Worker.work, item, 10**9)
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
