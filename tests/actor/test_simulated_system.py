"""Whole systems under hundreds of schedules each, with faults: what must hold of every message, whatever goes wrong.

The programs are larger than those of the other tests, the claims the same few: every message is somewhere (A41), handled at most
once (A24), dead-lettered at most once, in the order of its sender (A23); two handlers of an actor never run at a time, nor one of
an instance that has been replaced; and in the end nothing is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

import sage_actor as sage
from sage_actor.ports import current_clock, current_random
from sage_actor.testing import FaultInjector, Faults, InjectedFailure, mailbox_of

AT_ONCE = sage.FixedDelay(attempts=None, delay=0.0)
SOON = sage.FixedDelay(attempts=None, delay=0.05)
ANSWERS = (sage.ActorFailed, sage.ActorStopped, sage.AskTimeout, sage.AskAbandoned, sage.MailboxFull)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of ordered failures are no news."""
    logger = logging.getLogger("sage_actor")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


@dataclass(frozen=True)
class Work:
    """A message that is like no other."""

    sender: str
    number: int
    turns: int = 0
    seconds: float = 0.0


@dataclass
class Ledger:
    """What the handlers saw, written down outside of them, and what may be concluded from it."""

    begun: defaultdict[str, list[Work]] = field(default_factory=lambda: defaultdict(list))
    done: Counter[tuple[str, Work]] = field(default_factory=Counter)
    dead: Counter[tuple[str, Work]] = field(default_factory=Counter)
    accepted: list[tuple[str, Work]] = field(default_factory=list)
    refused: list[tuple[str, Work]] = field(default_factory=list)
    inside: dict[str, object] = field(default_factory=dict)
    newest: dict[str, object] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    ended: int = 0

    def made(self, actor: sage.Actor) -> None:
        self.newest[actor.ref.path] = actor

    def begin(self, actor: sage.Actor, work: Work) -> None:
        path = actor.ref.path
        if self.inside.get(path) is not None:
            self.broken.append(f"{path} began {work} while it had {self.inside[path]} in hand")
        if self.newest[path] is not actor:
            self.broken.append(f"{path}: an instance that was replaced began {work}")
        self.inside[path] = work
        self.begun[path].append(work)

    def end(self, actor: sage.Actor, work: Work, *, done: bool) -> None:
        self.inside[actor.ref.path] = None
        if done:
            self.done[actor.ref.path, work] += 1

    def letter(self, letter: sage.UndeliveredMessage) -> None:
        message = letter.message
        found = [message] if isinstance(message, Work) else [each for each in message if isinstance(each, Work)]  # type: ignore[attr-defined]
        self.dead.update((letter.ref.path, work) for work in found)

    def look(self, ref: sage.ActorRef[Any]) -> None:
        """A41 for one actor, now."""
        seen = mailbox_of(ref)
        counts = seen.statistics
        places = counts.handled + counts.dead_lettered + counts.queued + counts.stashed + counts.in_hand
        if counts.accepted != places or not counts.queued <= len(seen) <= counts.queued + counts.stashed:
            self.broken.append(f"A41: {seen}, {counts}")

    def look_at_all(self, system: sage.ActorSystem) -> None:
        for lifecycle in system.everyone():
            self.look(lifecycle.ref)

    def watch(self, system: sage.ActorSystem, ref: sage.ActorRef[sage.Actor]) -> None:
        """Look once more when it has ended."""

        def gone(watched: asyncio.Future[sage.Terminated]) -> None:
            if not watched.cancelled():
                self.ended += 1
                self.look(ref)

        system.watch(ref).add_done_callback(gone)

    def assert_sound(self, faults: FaultInjector) -> None:
        """What holds of every message once all is over."""
        assert not self.broken, "\n".join(self.broken[:5])
        for path, works in self.begun.items():
            by_sender: defaultdict[str, list[int]] = defaultdict(list)
            for work in works:
                by_sender[work.sender].append(work.number)
            for sender, numbers in by_sender.items():
                assert numbers == sorted(set(numbers)), f"{path} began the messages of {sender} as {numbers}"
        assert all(count == 1 for count in self.done.values())
        assert all(count == 1 for count in self.dead.values()), f"dead twice: {self.dead.most_common(3)}"
        both = [each for each in self.done if self.dead[each]]
        assert not both, f"handled to the end, and a dead letter: {both[:3]}"
        assert not [each for each in self.refused if each[1] in self.begun[each[0]] or not self.dead[each]], "refused is a dead letter"
        failed = {(each.path, each.message.arguments[0]) for each in faults.struck if each.message and each.kind in {"crash", "fail"}}
        vanished = [each for each in self.accepted if not (self.done[each] or self.dead[each] or each in failed)]
        assert not vanished, f"neither handled nor failed nor a dead letter: {vanished[:3]}"


class Worker(sage.Actor):
    """Takes as long as its message says."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        ledger.made(self)

    async def work(self, work: Work) -> Work:
        self.ledger.begin(self, work)
        done = False
        try:
            for _ in range(work.turns):
                await asyncio.sleep(0)
            if work.seconds:
                await current_clock().sleep(work.seconds)
            done = True
        finally:
            self.ledger.end(self, work, done=done)
        return work

    def plain(self, work: Work) -> Work:
        self.ledger.begin(self, work)
        self.ledger.end(self, work, done=True)
        return work

    async def receive(self, message: object) -> object:
        assert isinstance(message, Work)
        return await self.work(message)


class Leader(sage.Actor):
    """Has workers, and tells who they are."""

    def __init__(self, ledger: Ledger, size: int, mailbox: sage.MailboxSettings, restart: object) -> None:
        self.ledger = ledger
        self.size = size
        self.mailbox = mailbox
        self.restart = restart

    async def on_start(self) -> None:
        self.team = [
            await self.context.spawn(Worker, self.ledger, name=f"worker-{number}", mailbox=self.mailbox, restart=self.restart)  # type: ignore[arg-type]
            for number in range(self.size)
        ]
        for ref in self.team:
            self.ledger.watch(self.context.system, ref)

    def members(self) -> list[sage.ActorRef[Worker]]:
        return self.team


@asynccontextmanager
async def audited(ledger: Ledger, **options: object) -> AsyncIterator[tuple[sage.ActorSystem, FaultInjector]]:
    """A system whose books are looked at all the time, and once more when it has ended."""
    system = sage.ActorSystem("audited", dead_letters=10_000, **options)  # type: ignore[arg-type]
    system.dead_letters.subscribe(ledger.letter)
    over = asyncio.Event()

    async def audit() -> None:
        while not over.is_set():
            ledger.look_at_all(system)
            for _ in range(current_random().randrange(8)):
                await asyncio.sleep(0)
            await current_clock().sleep(0.02)

    async with system:
        auditor = asyncio.create_task(audit(), name="auditor")
        try:
            yield system, FaultInjector(system)
            ledger.look_at_all(system)
        finally:
            over.set()
            await auditor
    assert not [work for work in ledger.inside.values() if work is not None], "a handler has begun and never ended"
    assert system.living == 0


async def send(ledger: Ledger, name: str, find: Callable[[], list[sage.ActorRef[Worker]]], chance: Random, count: int) -> None:
    """A client that tells, asks, gives up, and minds no failure. Of each message it is known whether it was accepted."""
    for number in range(count):
        targets = find()
        if not targets:
            await asyncio.sleep(0)
            continue
        work = Work(name, number, turns=chance.randrange(3), seconds=chance.choice((0.0, 0.0, 0.01)))
        ref, action = chance.choice(targets), chance.randrange(6)
        with suppress(*ANSWERS, TimeoutError):
            if action <= 1:
                told = await ref.tell(work) if action else await ref.tell(Worker.work, work)
                (ledger.accepted if told else ledger.refused).append((ref.path, work))
            elif action == 2:
                told = ref.tell_nowait(Worker.plain, work)
                (ledger.accepted if told else ledger.refused).append((ref.path, work))
            elif action == 3:
                assert await ref.ask(Worker.plain, work) is work
            elif action == 4:
                assert await ref.ask(Worker.work, work, timeout=chance.choice((0.005, 1.0))) is work
            else:
                reply = ref.ask(work)
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                reply.cancel()
        if chance.random() < 0.3:
            await current_clock().sleep(0.004)


# -- a tree -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A41")
@pytest.mark.rule("A24")
@pytest.mark.rule("A13")
@pytest.mark.simulate(seeds=300, twice=2)
async def test_a_supervised_tree_whose_workers_fail_and_are_killed() -> None:
    ledger, chance = Ledger(), current_random()
    mailbox = sage.MailboxSettings(capacity=chance.choice((1, 2, 64)), overflow=chance.choice(("wait", "fail", "drop_new", "drop_old")))  # type: ignore[arg-type]
    async with audited(ledger, restart=SOON, stop_timeout=1.0) as (system, faults):
        supervision = sage.Supervision(
            scope=chance.choice(("one_for_one", "rest_for_one", "all_for_one")),  # type: ignore[arg-type]
            intensity=chance.choice((None, 4)),
            when_exhausted="escalate",
        )
        leaders = [
            await system.spawn(Leader, ledger, 3, mailbox, chance.choice((AT_ONCE, SOON)), name=f"leader-{n}", supervision=supervision)
            for n in range(2)
        ]

        def living() -> list[sage.ActorRef[Worker]]:
            return [child.ref for leader in leaders for child in leader.cell.lifecycle.family.children]

        async def kill_some() -> None:
            for _ in range(3):
                await current_clock().sleep(0.02)
                if targets := living():
                    await system.kill(chance.choice(targets))

        faults.crash_rate(0.08, starts=0.1, when="either")
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(send(ledger, f"client-{number}", living, chance, 15))
            group.create_task(kill_some())
        faults.clear()
        await system.wait_idle(timeout=60)
        await current_clock().sleep(1)  # restarts that were delayed
        await system.wait_idle(timeout=60)
        assert all(leader.alive for leader in leaders)
    ledger.assert_sound(faults)


# -- a router ---------------------------------------------------------------------------------------------------------


class Router(sage.Actor):
    """Passes requests on to whichever worker is next; several at a time are on their way."""

    def __init__(self, workers: list[sage.ActorRef[Worker]]) -> None:
        self.workers = workers
        self.next = 0

    async def request(self, work: Work) -> Work:
        self.next += 1
        return await self.workers[self.next % len(self.workers)].ask(Worker.work, work)

    async def request_with_patience(self, work: Work) -> Work:
        worker = self.workers[work.number % len(self.workers)]
        for _ in range(3):
            with suppress(sage.ActorFailed, sage.AskTimeout):
                return await worker.ask(Worker.work, work, timeout=0.02)
        return await worker.ask(Worker.plain, work)


async def ask_router(router: sage.ActorRef[Router], name: str, outcomes: Counter[str], chance: Random) -> None:
    for number in range(10):
        work = Work(name, number, turns=chance.randrange(3), seconds=chance.choice((0.0, 0.0, 0.03)))
        reply = router.ask(Router.request, work, timeout=chance.choice((0.01, 0.02, 0.5)))
        try:
            if chance.random() < 0.2:
                for _ in range(chance.randrange(8)):
                    await asyncio.sleep(0)
                reply.cancel()
            assert await reply is work
            outcomes["answered"] += 1
        except ANSWERS as error:
            outcomes[type(error).__name__] += 1
        except asyncio.CancelledError:
            outcomes["cancelled"] += 1
            if not reply.cancelled() or asyncio.current_task().cancelling():  # type: ignore[union-attr]
                reply.cancel()
                raise
        finally:
            assert reply.done()


@pytest.mark.rule("A41")
@pytest.mark.rule("A25")
@pytest.mark.simulate(seeds=300, twice=2, faults=Faults(cancel=0.004, tasks="^client"))
async def test_a_router_of_requests_with_timeouts_and_cancellations() -> None:
    ledger, chance = Ledger(), current_random()
    outcomes: Counter[str] = Counter()
    async with audited(ledger, restart=AT_ONCE, stop_timeout=1.0) as (system, faults):
        mailbox = sage.MailboxSettings(capacity=chance.choice((1, 2, 64)))
        workers = [await system.spawn(Worker, ledger, mailbox=mailbox) for _ in range(3)]
        router = await system.spawn(Router, workers, concurrency=chance.choice((1, 2, 4)), mailbox=mailbox)
        faults.delay(workers[0], 0.01, times=5)
        faults.fail(workers[1], InjectedFailure("on purpose"), times=3, where=lambda waiting: waiting.asked)
        faults.drop(workers[2], 0.2)
        clients = [asyncio.create_task(ask_router(router, f"client-{n}", outcomes, chance), name=f"client-{n}") for n in range(5)]
        ended = await asyncio.gather(*clients, return_exceptions=True)
        assert not [end for end in ended if end is not None and not isinstance(end, asyncio.CancelledError)], ended
        faults.clear()
        await system.wait_idle(timeout=60)
        for ref in (router, *workers):
            counts = mailbox_of(ref).statistics
            assert (counts.queued, counts.in_hand, counts.waiting_senders, ref.alive) == (0, 0, 0, True)
        dropped = [struck for struck in faults.struck if struck.kind == "drop"]
        assert sum(letter.reason == "dropped by fault injection" for letter in system.dead_letters) == len(dropped)
    ledger.assert_sound(faults)


@pytest.mark.simulate(seeds=100, twice=2)
async def test_a_router_that_tries_again_gets_an_answer_for_everybody() -> None:
    ledger, chance = Ledger(), current_random()
    async with audited(ledger, restart=AT_ONCE) as (system, faults):
        workers = [await system.spawn(Worker, ledger) for _ in range(2)]
        router = await system.spawn(Router, workers, concurrency=3)
        for worker in workers:
            faults.fail(worker, InjectedFailure, times=chance.randrange(1, 4), on=Worker.work, when=chance.choice(("before", "after")))  # type: ignore[arg-type]
        works = [Work(f"client-{n}", n) for n in range(9)]
        answers = await asyncio.gather(*(router.ask(Router.request_with_patience, work, timeout=10) for work in works))
        assert answers == works


# -- a chain ----------------------------------------------------------------------------------------------------------


class Link(sage.Actor):
    """Hands everything on to the next, and waits for room there."""

    def __init__(self, following: sage.ActorRef[Link] | None, out: list[int], chance: Random) -> None:
        self.following = following
        self.out = out
        self.chance = chance

    async def take(self, number: int) -> None:
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)
        if self.following is None:
            self.out.append(number)
        else:
            await self.following.tell(Link.take, number)


async def chain(system: sage.ActorSystem, out: list[int], chance: Random) -> list[sage.ActorRef[Link]]:
    """Three links, the last one first."""
    links: list[sage.ActorRef[Link]] = []
    for number in range(3):
        following = links[-1] if links else None
        links.append(
            await system.spawn(
                Link, following, out, chance, name=f"link-{number}", restart=AT_ONCE, mailbox=sage.MailboxSettings(capacity=1)
            )
        )
    return links


@pytest.mark.rule("A23")
@pytest.mark.rule("A41")
@pytest.mark.simulate(seeds=300, twice=2)
async def test_a_chain_of_mailboxes_of_one_loses_nothing_and_keeps_the_order() -> None:
    ledger, chance, out = Ledger(), current_random(), list[int]()
    async with audited(ledger) as (system, faults):
        links = await chain(system, out, chance)
        faults.delay(links[chance.randrange(3)], 0.01, times=5)
        for number in range(30):
            assert await links[-1].tell(Link.take, number)
        if chance.random() < 0.5:
            await system.stop(links[-1])  # drains, into a chain that goes on
            await system.wait_idle(timeout=60)
            assert out == list(range(30))
    assert out == list(range(30))  # and so does leaving the system: last spawned first
    assert system.dead_letters.total == 0


@pytest.mark.rule("A41")
@pytest.mark.simulate(seeds=300, twice=2)
async def test_a_chain_with_losses_accounts_for_each_of_them() -> None:
    ledger, chance, out = Ledger(), current_random(), list[int]()
    lost: Counter[int] = Counter()
    sent: list[int] = []
    async with audited(ledger) as (system, faults):
        system.dead_letters.subscribe(lambda letter: lost.update(letter.message))
        links = await chain(system, out, chance)
        faults.drop(links[0], 0.1)
        failing = faults.fail(links[1], InjectedFailure, times=2, where=lambda waiting: chance.random() < 0.2)
        failed: list[int] = []
        failing.error = lambda: InjectedFailure("lost with its handler")

        async def produce() -> None:
            for number in range(30):
                # Cancelling the wait for room has not sent: it is sent again, as nobody has seen it.
                while True:
                    try:
                        async with asyncio.timeout(chance.choice((0.0, 0.001, None))):
                            assert await links[-1].tell(Link.take, number)
                            sent.append(number)
                            break
                    except TimeoutError:
                        await asyncio.sleep(0)

        await produce()
        await system.wait_idle(timeout=60)
        missing = Counter(sent) - Counter(out) - lost
        failed = sorted(missing.elements())
        assert len(failed) == failing.struck
    assert sent == list(range(30))
    assert out == sorted(set(out))
    assert all(count == 1 for count in lost.values())
    assert sorted([*out, *lost, *failed]) == sent


# -- families ---------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A3")
@pytest.mark.rule("A41")
@pytest.mark.simulate(seeds=300, twice=2)
async def test_a_family_that_restarts_as_one() -> None:
    ledger, chance = Ledger(), current_random()
    async with audited(ledger, stop_timeout=1.0) as (system, faults):
        mailbox = sage.MailboxSettings(capacity=8)
        leader = await system.spawn(
            Leader, ledger, 3, mailbox, chance.choice((AT_ONCE, SOON)), name="leader", supervision=sage.Supervision(scope="all_for_one")
        )
        team = await leader.ask(Leader.members)
        faults.crash_rate(0.05, starts=0.2)
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(send(ledger, f"client-{number}", lambda: team, chance, 15))
        faults.clear()
        await system.wait_idle(timeout=60)
        await current_clock().sleep(1)
        await system.wait_idle(timeout=60)
        assert [ref.alive for ref in team] == [True] * 3
        assert [child.ref for child in leader.cell.lifecycle.family.children] == team  # in the order of their first start
        for number, ref in enumerate(team):
            work = Work("last", number)
            assert await ref.ask(Worker.plain, work, timeout=5) is work
        if any(struck.kind == "crash" for struck in faults.struck):
            assert all(ref.cell.lifecycle.restarts >= 1 for ref in team)
    ledger.assert_sound(faults)


@pytest.mark.rule("A1")
@pytest.mark.rule("A41")
@pytest.mark.simulate(seeds=300, twice=2)
async def test_a_family_that_spends_its_budget_takes_its_leader_along_and_is_built_anew() -> None:
    ledger, chance = Ledger(), current_random()
    async with audited(ledger, stop_timeout=1.0) as (system, faults):
        supervision = sage.Supervision(scope="all_for_one", intensity=1, period="1h")
        leader = await system.spawn(
            Leader, ledger, 3, sage.MailboxSettings(capacity=8), AT_ONCE, name="leader", supervision=supervision, restart=SOON
        )
        first = await leader.ask(Leader.members)
        sending = asyncio.create_task(send(ledger, "client-0", lambda: first, chance, 40))
        for number in (0, 2):  # one after the other: what fails while it is replaced spends nothing
            faults.fail(first[number], InjectedFailure)
            await first[number].tell(Work("test", number))
            while len(faults.struck) <= number // 2:
                await current_clock().sleep(0.001)
            await system.wait_idle(timeout=60)
        await sending
        await system.wait_idle(timeout=60)
        await current_clock().sleep(1)
        await system.wait_idle(timeout=60)
        assert [struck.kind for struck in faults.struck] == ["fail", "fail"]
        assert leader.cell.lifecycle.restarts == 1
        assert not any(ref.alive for ref in first)
        assert ledger.ended == 3
        team = await leader.ask(Leader.members)
        assert all(ref.alive for ref in team)
        for number, ref in enumerate(team):
            work = Work("last", number)
            assert await ref.ask(Worker.plain, work, timeout=5) is work
    ledger.assert_sound(faults)
