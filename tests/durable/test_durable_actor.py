"""DurableActor: what it stores, what it is after every kind of failure, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.actor import Actor
from sage_actor.actor.supervision import FixedDelay, NoRestart
from sage_actor.actor.supervisor_scope import Supervision
from sage_actor.actor.system import ActorSystem
from sage_actor.durable import DurableActor, Journal, JournalEntry, MemoryJournal, Snapshot, SqliteJournal
from sage_actor.errors import ActorError, ActorFailed, ActorStopped, AskTimeout, JournalConflict, JournalUnavailable
from sage_actor.testing import ManualClock

SOON = FixedDelay(attempts=5, delay=0)


class Deposited(msgspec.Struct, frozen=True):
    amount: int


@dataclass(frozen=True)
class Withdrawn:
    amount: int
    tags: list[str]


AccountEvent = Deposited | Withdrawn


class Overdrawn(Exception):
    """An answer, not a failure."""


class Account(DurableActor[AccountEvent]):
    events = (Deposited, Withdrawn)
    expected_errors = (Overdrawn,)

    def __init__(self, journal: Journal, id: str | None = None) -> None:
        super().__init__(journal, id=id)
        self.balance = 0
        self.seen: list[AccountEvent] = []
        self.recovered_with: int | None = None

    def apply(self, event: AccountEvent) -> None:
        self.balance += event.amount if isinstance(event, Deposited) else -event.amount
        self.seen.append(event)

    def on_recovered(self) -> None:  # type: ignore[override]  # plain hooks are allowed, as for all actors
        self.recovered_with = self.balance

    async def deposit(self, amount: int) -> int:
        await self.persist(Deposited(amount))
        return self.balance

    async def withdraw(self, amount: int) -> int:
        if amount > self.balance:
            raise Overdrawn(amount)
        await self.persist(Withdrawn(amount, ["cash"]))
        return self.balance

    async def move(self, *amounts: int) -> int:
        await self.persist(*(Deposited(amount) for amount in amounts))
        return self.balance

    def read(self) -> tuple[int, int]:
        return self.balance, self.sequence

    def events_seen(self) -> list[AccountEvent]:
        return self.seen

    def recovered(self) -> int | None:
        return self.recovered_with

    def fail(self) -> None:
        raise RuntimeError("on purpose")

    async def call(self, function: Callable[[Account], Awaitable[object]]) -> object:
        return await function(self)


class FaultyJournal:
    """A journal in memory on which the test decides what becomes of the next appends, and when."""

    def __init__(self) -> None:
        self.inner = MemoryJournal()
        self.plan: list[str] = []
        self.gate: asyncio.Event | None = None
        self.waiting = 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        await self.inner.open()

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _hold(self) -> None:
        if self.gate is not None:
            self.waiting += 1
            await self.gate.wait()

    async def append(self, id: str, entries: Sequence[JournalEntry], *, expected: int) -> None:
        """ "refuse": not stored; "lose": stored, and nobody is told; "hold": stored, and held; "hold first": the other way round."""
        fate = self.plan.pop(0) if self.plan and entries else ""
        if fate == "refuse":
            raise JournalUnavailable("faulty", "the disk is full")
        if fate == "hold first":
            await self._hold()
        await self.inner.append(id, entries, expected=expected)
        if fate == "hold":
            await self._hold()
        if fate == "lose":
            raise JournalUnavailable("faulty", "the line went dead")

    async def read(self, id: str, after: int = 0) -> AsyncIterator[JournalEntry]:
        if self.plan and self.plan[0] == "no reads":
            raise JournalUnavailable("faulty", "nothing can be read")
        async for entry in self.inner.read(id, after):
            yield entry

    async def last_sequence(self, id: str) -> int:
        return await self.inner.last_sequence(id)

    async def save_snapshot(self, id: str, snapshot: Snapshot) -> None:
        if self.plan and self.plan[0] == "no snapshots":
            raise JournalUnavailable("faulty", "the disk is full")
        if self.plan and self.plan[0] == "slow snapshots":
            await self._hold()
        await self.inner.save_snapshot(id, snapshot)

    async def load_snapshot(self, id: str) -> Snapshot | None:
        return await self.inner.load_snapshot(id)

    async def delete_before(self, id: str, sequence: int) -> int:
        return await self.inner.delete_before(id, sequence)

    def ids(self) -> AsyncIterator[str]:
        return self.inner.ids()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - there is no event for any condition
            await asyncio.sleep(0)


async def entries_of(journal: Journal, id: str, after: int = 0) -> list[JournalEntry]:
    return [entry async for entry in journal.read(id, after)]


# -- storing and recovering -------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_state_survives_the_system_and_the_file(tmp_path: Path) -> None:
    for before in (0, 12):
        async with SqliteJournal(tmp_path / "journal") as journal, ActorSystem() as system:
            account = await system.spawn(Account, journal, name="alice")
            assert await account.ask(Account.recovered) == before
            assert await account.ask(Account.deposit, 20) == before + 20
            with pytest.raises(Overdrawn):
                await account.ask(Account.withdraw, 1000)
            assert await account.ask(Account.withdraw, 8) == before + 12
    async with SqliteJournal(tmp_path / "journal") as journal, ActorSystem() as system:
        account = await system.spawn(Account, journal, name="alice")
        assert await account.ask(Account.read) == (24, 4)
        assert await account.ask(Account.events_seen) == [Deposited(20), Withdrawn(8, ["cash"])] * 2


@pytest.mark.asyncio
async def test_several_events_are_one_append_and_applied_in_order() -> None:
    async with FaultyJournal() as journal, ActorSystem(restart=SOON) as system:
        account = await system.spawn(Account, journal, name="alice")
        assert await account.ask(Account.move, 1, 2, 3) == 6
        journal.plan = ["refuse"]
        with pytest.raises(ActorFailed):
            await account.ask(Account.move, 4, 5)
        assert await account.ask(Account.events_seen) == [Deposited(1), Deposited(2), Deposited(3)]
        assert [entry.sequence for entry in await entries_of(journal, "alice")] == [1, 2, 3]


@pytest.mark.asyncio
async def test_persist_returns_when_durable_and_nothing_else_is_handled_meanwhile() -> None:
    async with FaultyJournal() as journal, ActorSystem() as system:
        account = await system.spawn(Account, journal, name="alice")
        journal.plan, journal.gate = ["hold"], asyncio.Event()
        deposit, read = account.ask(Account.deposit, 5), account.ask(Account.read)
        await until(lambda: journal.waiting)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not deposit.done()
        assert not read.done()
        journal.gate.set()
        assert await deposit == 5
        assert await read == (5, 1)


@pytest.mark.asyncio
async def test_messages_wait_for_the_recovery() -> None:
    async with MemoryJournal() as journal:
        async with ActorSystem() as system:
            account = await system.spawn(Account, journal, name="alice")
            for _ in range(3):
                await account.ask(Account.move, *([1] * 300))
        async with ActorSystem(restart=SOON) as system:
            account = await system.spawn(Account, journal, name="alice")
            await account.tell(Account.fail)
            assert await asyncio.gather(account.ask(Account.read), account.ask(Account.deposit, 1)) == [(900, 900), 901]


@pytest.mark.asyncio
async def test_a_long_replay_lets_others_run() -> None:
    async with MemoryJournal() as journal, ActorSystem() as system:
        account = await system.spawn(Account, journal, "x")
        await account.ask(Account.move, *([1] * 5_000))
        await system.stop(account)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        await system.spawn(Account, journal, "x")
        counting.cancel()
        assert turns > 15


@pytest.mark.asyncio
async def test_ids_are_independent_of_names_and_of_each_other() -> None:
    async with MemoryJournal() as journal:
        async with ActorSystem() as system:
            first = await system.spawn(Account, journal, "account 1", name="a")
            second = await system.spawn(Account, journal, "account 2", name="b")
            await first.ask(Account.deposit, 1)
            await second.ask(Account.deposit, 2)
        async with ActorSystem() as system:
            renamed = await system.spawn(Account, journal, "account 2", name="elsewhere")
            assert await renamed.ask(Account.read) == (2, 1)
        assert [name async for name in journal.ids()] == ["account 1", "account 2"]


class Parent(Actor):
    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    async def on_start(self) -> None:
        await self.context.spawn(Account, self.journal, name="child")


@pytest.mark.asyncio
async def test_the_id_is_the_path_and_made_up_names_are_refused() -> None:
    async with MemoryJournal() as journal, ActorSystem() as system:
        await system.spawn(Parent, journal, name="bank")
        child: ActorRef[Account] | None = system.lookup("bank/child")
        assert child is not None
        await child.ask(Account.deposit, 3)
        assert await journal.last_sequence("bank/child") == 1
        for attempt in (partial(system.spawn, Account, journal), partial(system.spawn, Parent, journal)):
            with pytest.raises(ActorFailed, match="made up"):
                await attempt()


@pytest.mark.asyncio
async def test_an_event_gets_to_apply_as_the_journal_will_give_it_back() -> None:
    class Listed(DurableActor[list[object]]):
        events = (list,)

        def __init__(self, journal: Journal) -> None:
            super().__init__(journal)
            self.got: list[list[object]] = []

        def apply(self, event: list[object]) -> None:
            self.got.append(event)

        async def add(self, event: list[object]) -> list[list[object]]:
            await self.persist(event)
            event.append("changed afterwards")
            return self.got

    async with MemoryJournal() as journal, ActorSystem() as system:
        listed = await system.spawn(Listed, journal, name="a")
        assert await listed.ask(Listed.add, [(1, 2), "x"]) == [[[1, 2], "x"]]


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_restart_recovers_from_the_journal() -> None:
    async with MemoryJournal() as journal, ActorSystem(restart=SOON) as system:
        account = await system.spawn(Account, journal, name="alice")
        await account.ask(Account.deposit, 7)
        with pytest.raises(ActorFailed, match="on purpose"):
            await account.ask(Account.fail)
        assert await account.ask(Account.recovered) == 7
        assert await account.ask(Account.deposit, 1) == 8


@pytest.mark.asyncio
@pytest.mark.parametrize(("fate", "balance"), [("refuse", 10), ("lose", 15)])
async def test_an_append_that_fails_is_found_out_about_by_the_restart(fate: str, balance: int) -> None:
    async with FaultyJournal() as journal, ActorSystem(restart=SOON) as system:
        account = await system.spawn(Account, journal, name="alice")
        await account.ask(Account.deposit, 10)
        journal.plan = [fate]
        with pytest.raises(ActorFailed) as caught:
            await account.ask(Account.deposit, 5)
        assert isinstance(caught.value.__cause__, JournalUnavailable)
        assert await account.ask(Account.recovered) == balance
        assert await account.ask(Account.deposit, 1) == balance + 1


@pytest.mark.asyncio
@pytest.mark.parametrize(("fate", "balance"), [("refuse", 10), ("lose", 15)])
async def test_a_handler_that_swallows_the_failure_changes_nothing_about_that(fate: str, balance: int) -> None:
    async def stubborn(account: Account) -> int:
        with pytest.raises(JournalUnavailable):
            await account.persist(Deposited(5))
        return account.balance

    async with FaultyJournal() as journal, ActorSystem() as system:
        account = await system.spawn(Account, journal, name="alice")
        await account.ask(Account.deposit, 10)
        journal.plan = [fate]
        answer, read = account.ask(Account.call, stubborn), account.ask(Account.read)
        assert await answer == 10  # it cannot know
        assert await read == (balance, balance // 5 - 1)  # nobody after it is told what is not so
        assert system.restarts == 0
        assert await account.ask(Account.deposit, 1) == balance + 1


@pytest.mark.asyncio
@pytest.mark.parametrize(("fate", "balance"), [("hold", 15), ("hold first", 10)])
async def test_a_cancelled_append_is_found_out_about_before_the_next_message(fate: str, balance: int) -> None:
    async def impatient(account: Account) -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        try:
            await account.persist(Deposited(5))
        except asyncio.CancelledError:
            task.uncancel()
        return account.balance

    async with FaultyJournal() as journal, ActorSystem() as system:
        account = await system.spawn(Account, journal, name="alice")
        await account.ask(Account.deposit, 10)
        journal.plan, journal.gate = [fate], asyncio.Event()
        answer, read = account.ask(Account.call, impatient), account.ask(Account.read)
        assert await answer == 10
        assert (await read)[0] == balance
        assert system.restarts == 0
        assert await account.ask(Account.deposit, 1) == balance + 1


@pytest.mark.asyncio
@pytest.mark.parametrize(("fate", "total"), [("lose", 16), ("refuse", 11)])
async def test_a_second_persist_begins_where_the_first_really_ended(fate: str, total: int) -> None:
    async def twice(account: Account) -> int:
        with pytest.raises(JournalUnavailable):
            await account.persist(Deposited(5))
        await account.persist(Deposited(1))
        return account.balance

    async with FaultyJournal() as journal, ActorSystem() as system:
        account = await system.spawn(Account, journal, name="alice")
        await account.ask(Account.deposit, 10)
        journal.plan = [fate]
        assert await account.ask(Account.call, twice) == total


@pytest.mark.asyncio
@pytest.mark.parametrize("fate", ["hold", "hold first"])
async def test_killed_while_it_persists(fate: str) -> None:
    async with FaultyJournal() as journal:
        journal.gate = asyncio.Event()
        async with ActorSystem() as system:
            account = await system.spawn(Account, journal, name="alice")
            journal.plan = [fate]
            waiting = account.ask(Account.deposit, 5)
            await until(lambda: journal.waiting)
            await system.kill(account)
            with pytest.raises(ActorStopped):
                await waiting
            account = await system.spawn(Account, journal, name="alice")
            assert await account.ask(Account.recovered) == (5 if fate == "hold" else 0)


@pytest.mark.asyncio
async def test_a_caller_that_gives_up_does_not_undo_what_it_asked_for() -> None:
    clock = ManualClock()
    async with FaultyJournal() as journal, ActorSystem(clock=clock) as system:
        account = await system.spawn(Account, journal, name="alice")
        journal.plan, journal.gate = ["hold first"], asyncio.Event()
        deposit = account.ask(Account.deposit, 5, timeout=1)
        await until(lambda: journal.waiting)
        await clock.advance(2)
        with pytest.raises(AskTimeout):
            await deposit
        journal.gate.set()
        assert await account.ask(Account.read) == (5, 1)


class Poisoned(DurableActor[int]):
    events = (int,)

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self.total = 0

    def apply(self, event: int) -> None:
        self.total += event
        if event == 13:
            raise ValueError("not thirteen")

    async def add(self, *numbers: int) -> int:
        await self.persist(*numbers)
        return self.total

    async def add_stubbornly(self, number: int) -> str:
        try:
            await self.persist(number)
        except ActorError as error:
            return str(error)
        return ""

    def read(self) -> int:
        return self.total


@pytest.mark.asyncio
@pytest.mark.parametrize("method", [Poisoned.add, Poisoned.add_stubbornly])
async def test_an_event_that_cannot_be_applied_is_final_and_named(method: Callable[..., Any]) -> None:
    async with MemoryJournal() as journal, ActorSystem() as system:
        poisoned = await system.spawn(Poisoned, journal, name="p", restart=FixedDelay(attempts=3, delay=0))
        await poisoned.ask(Poisoned.add, 1, 2)
        ended = system.watch(poisoned)
        poisoned.tell_nowait(method, 13)
        read = poisoned.ask(Poisoned.read)
        reason = (await ended).reason
        assert "entry 3" in str(reason)
        assert "'p'" in str(reason)
        assert "not thirteen" in str(reason)
        assert isinstance(reason.__cause__, ValueError)
        with pytest.raises(ActorStopped):
            await read  # nobody saw the state that is none
        assert system.failures == 4
        with pytest.raises(ActorFailed, match="entry 3"):
            await system.spawn(Poisoned, journal, name="p")
        assert await journal.last_sequence("p") == 3


@pytest.mark.asyncio
async def test_a_state_that_is_none_is_neither_served_nor_stored() -> None:
    """With a supervisor that says "resume": the same instance goes on, and refuses."""
    async with MemoryJournal() as journal, ActorSystem(supervision=Supervision(decide=lambda _: "resume")) as system:
        poisoned = await system.spawn(Poisoned, journal, name="p")
        with pytest.raises(ActorFailed):
            await poisoned.ask(Poisoned.add, 13)
        with pytest.raises(ActorFailed, match="entry 1"):
            await poisoned.ask(Poisoned.add, 1)
        assert await journal.last_sequence("p") == 1


@pytest.mark.asyncio
async def test_of_a_state_that_is_none_there_is_no_snapshot() -> None:
    class Greedy(Poisoned):
        snapshot_every = 1

        def snapshot_state(self) -> object:
            return self.total

        def restore_state(self, state: int) -> None:
            self.total = state

        async def add_both(self) -> None:
            await self.persist(1)
            for _ in range(3):
                await asyncio.sleep(0)  # the snapshot after that waits to be taken by now
            await self.add_stubbornly(13)

    async with MemoryJournal() as journal, ActorSystem() as system:
        greedy = await system.spawn(Greedy, journal, name="p", restart=FixedDelay(attempts=2, delay=0))
        ended = system.watch(greedy)
        await greedy.ask(Greedy.add_both)
        assert "entry 2" in str((await ended).reason)
        assert await journal.load_snapshot("p") is None


@pytest.mark.asyncio
async def test_two_instances_of_one_id_cannot_both_write() -> None:
    async with MemoryJournal() as journal, ActorSystem(restart=SOON) as system:
        one = await system.spawn(Account, journal, "the id", name="one")
        other = await system.spawn(Account, journal, "the id", name="other")
        assert await one.ask(Account.deposit, 1) == 1
        with pytest.raises(ActorFailed) as caught:
            await other.ask(Account.deposit, 10)
        assert isinstance(caught.value.__cause__, JournalConflict)
        assert await other.ask(Account.read) == (1, 1)  # it restarted from what the first one wrote
        assert await other.ask(Account.deposit, 10) == 11
        with pytest.raises(ActorFailed):
            await one.ask(Account.deposit, 100)
        assert await one.ask(Account.deposit, 100) == 111


@pytest.mark.asyncio
async def test_a_conflict_that_is_swallowed_fails_the_actor_all_the_same() -> None:
    async def stubborn(account: Account) -> None:
        with pytest.raises(JournalConflict):
            await account.persist(Deposited(5))

    async with MemoryJournal() as journal, ActorSystem(restart=SOON) as system:
        one = await system.spawn(Account, journal, "the id", name="one")
        other = await system.spawn(Account, journal, "the id", name="other")
        await one.ask(Account.deposit, 1)
        answer, read = other.ask(Account.call, stubborn), other.ask(Account.read)
        await answer
        assert await read == (1, 1)
        assert system.restarts == 1


@pytest.mark.asyncio
async def test_another_writer_between_a_lost_append_and_its_settling() -> None:
    """As many entries as ours are there, and they are not ours."""

    async def unlucky(account: Account) -> None:
        with pytest.raises(JournalUnavailable):
            await account.persist(Deposited(5))
        await journal.inner.append(
            "alice", [JournalEntry(1, "event", 1, msgspec.msgpack.encode(["Deposited", {"amount": 9}]), 0)], expected=0
        )

    async with FaultyJournal() as journal, ActorSystem(restart=SOON) as system:
        account = await system.spawn(Account, journal, name="alice")
        journal.plan = ["refuse"]
        await account.ask(Account.call, unlucky)
        assert await account.ask(Account.read) == (9, 1)
        assert system.restarts == 1


@pytest.mark.asyncio
async def test_a_journal_that_cannot_be_read_fails_the_start_and_a_later_try_succeeds() -> None:
    async with FaultyJournal() as journal, ActorSystem(restart=SOON) as system:
        journal.plan = ["no reads"]
        with pytest.raises(ActorFailed, match="nothing can be read"):
            await system.spawn(Account, journal, name="alice")
        journal.plan = []
        account = await system.spawn(Account, journal, name="alice")
        assert await account.ask(Account.deposit, 1) == 1


@pytest.mark.asyncio
async def test_a_journal_that_is_not_open_says_so_at_spawn() -> None:
    async with ActorSystem() as system:
        with pytest.raises(ActorFailed, match="not open"):
            await system.spawn(Account, MemoryJournal(), name="alice")


@pytest.mark.asyncio
async def test_without_restarts_the_first_failure_of_the_journal_is_the_end() -> None:
    async with FaultyJournal() as journal, ActorSystem() as system:
        account = await system.spawn(Account, journal, name="alice", restart=NoRestart())
        ended = system.watch(account)
        journal.plan = ["refuse"]
        with pytest.raises(ActorFailed):
            await account.ask(Account.deposit, 1)
        assert isinstance((await ended).reason, JournalUnavailable)


# -- snapshots --------------------------------------------------------------------------------------------------------


class Snapshotting(Account):
    snapshot_every = 10

    def snapshot_state(self) -> object:
        return {"balance": self.balance}

    def restore_state(self, state: dict[str, int]) -> None:
        self.balance = state["balance"]


class Keeping(Snapshotting):
    keep_events = True


async def last_snapshot(journal: Journal, id: str, sequence: int) -> Snapshot:
    async with asyncio.timeout(10):
        while (snapshot := await journal.load_snapshot(id)) is None or snapshot.sequence < sequence:  # noqa: ASYNC110 - a journal tells nobody
            await asyncio.sleep(0)
        return snapshot


@pytest.mark.asyncio
@pytest.mark.parametrize("cls", [Snapshotting, Keeping])
async def test_snapshots_shorten_the_recovery(cls: type[Snapshotting], tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal", keep_snapshots=1) as journal:
        async with ActorSystem(restart=SOON) as system:
            account = await system.spawn(cls, journal, name="alice")
            for _ in range(25):
                await account.ask(Account.deposit, 1)
                await journal.last_sequence("alice")  # a snapshot that was taken has been stored when this is answered
            await last_snapshot(journal, "alice", 20)
            with pytest.raises(ActorFailed):
                await account.ask(Account.fail)
            assert await account.ask(Account.read) == (25, 25)
            assert len(await account.ask(Account.events_seen)) == 5
        kept = await entries_of(journal, "alice", 20)
        assert len(kept) == 5
        if cls is Keeping:
            assert len(await entries_of(journal, "alice")) == 25
        else:
            with pytest.raises(Exception, match="deleted"):
                await entries_of(journal, "alice")


@pytest.mark.asyncio
async def test_the_actor_goes_on_while_a_snapshot_is_stored_and_when_it_cannot_be() -> None:
    async with FaultyJournal() as journal, ActorSystem() as system:
        journal.plan = ["no snapshots"]
        account = await system.spawn(Snapshotting, journal, name="alice")
        for n in range(1, 13):
            journal.plan.insert(0, "")
            assert await account.ask(Account.deposit, 1) == n
            await asyncio.sleep(0)  # a snapshot, if it is time for one, finds the plan as it is now
        await system.wait_idle()
        assert await journal.load_snapshot("alice") is None
        journal.plan = []
        for n in range(13, 25):
            assert await account.ask(Account.deposit, 1) == n
        snapshot = await last_snapshot(journal, "alice", 20)
        assert snapshot.sequence == 20
        assert system.failures == 0


@pytest.mark.asyncio
async def test_the_actor_goes_on_while_a_snapshot_is_stored_and_stores_one_at_a_time() -> None:
    async with FaultyJournal() as journal, ActorSystem() as system:
        journal.gate = asyncio.Event()
        account = await system.spawn(Snapshotting, journal, name="alice")
        for n in range(1, 46):
            journal.plan[:] = ["", "slow snapshots"]
            assert await account.ask(Account.deposit, 1) == n
            await asyncio.sleep(0)  # a snapshot, if it is time for one, finds the plan as it is now
        assert journal.waiting == 1
        journal.gate.set()
        await last_snapshot(journal, "alice", 10)
        assert await account.ask(Account.deposit, 1) == 46
        await last_snapshot(journal, "alice", 46)


@pytest.mark.asyncio
async def test_the_count_to_the_next_snapshot_goes_on_after_a_recovery() -> None:
    async with MemoryJournal() as journal, ActorSystem(restart=SOON) as system:
        account = await system.spawn(Snapshotting, journal, name="alice")
        for _ in range(13):
            await account.ask(Account.deposit, 1)
        await last_snapshot(journal, "alice", 10)
        with pytest.raises(ActorFailed):
            await account.ask(Account.fail)
        for n in range(14, 20):
            assert await account.ask(Account.deposit, 1) == n
            await system.wait_idle()
        assert (await last_snapshot(journal, "alice", 10)).sequence == 10
        await account.ask(Account.deposit, 1)
        await last_snapshot(journal, "alice", 20)


@pytest.mark.asyncio
async def test_a_damaged_snapshot_is_passed_over(tmp_path: Path) -> None:
    import sqlite3

    async with SqliteJournal(tmp_path / "journal") as journal, ActorSystem() as system:
        account = await system.spawn(Snapshotting, journal, name="alice")
        for _ in range(23):
            await account.ask(Account.deposit, 1)
        await last_snapshot(journal, "alice", 20)
    connection = sqlite3.connect(tmp_path / "journal")
    with connection:
        assert connection.execute("UPDATE snapshots SET payload = x'00' WHERE sequence = (SELECT max(sequence) FROM snapshots)").rowcount
    connection.close()
    async with SqliteJournal(tmp_path / "journal") as journal, ActorSystem() as system:
        account = await system.spawn(Snapshotting, journal, name="alice")
        assert await account.ask(Account.read) == (23, 23)
        assert len(await account.ask(Account.events_seen)) >= 10  # from the older snapshot


@pytest.mark.asyncio
async def test_a_state_that_would_not_come_back_fails_loudly_and_is_not_stored() -> None:
    class Pairs(Snapshotting):
        snapshot_every = 1

        def snapshot_state(self) -> object:
            return (self.balance, 1)

    class Sets(Pairs):
        def snapshot_state(self) -> object:
            return object()

    class Typed(Pairs):
        state_class = tuple[int, int]

        def restore_state(self, state: tuple[int, int]) -> None:  # type: ignore[override]
            self.balance = state[0]

    async with MemoryJournal() as journal, ActorSystem() as system:
        for name, cls in (("pairs", Pairs), ("sets", Sets)):
            account = await system.spawn(cls, journal, name=name, restart=NoRestart())
            ended = system.watch(account)
            assert await account.ask(Account.deposit, 1) == 1
            assert "snapshot_state" in str((await ended).reason)
            assert await journal.load_snapshot(name) is None
        account = await system.spawn(Typed, journal, name="typed", restart=SOON)
        await account.ask(Account.deposit, 4)
        await last_snapshot(journal, "typed", 1)
        account.tell_nowait(Account.fail)
        assert await account.ask(Account.recovered) == 4


@pytest.mark.asyncio
async def test_passivation_brings_the_state_back() -> None:
    clock = ManualClock()
    async with MemoryJournal() as journal, ActorSystem(clock=clock) as system:
        account = await system.spawn(Account, journal, name="alice", passivate_after="1m")
        await account.ask(Account.deposit, 5)
        await clock.advance("3m")
        assert await account.ask(Account.events_seen) == [Deposited(5)]
        assert await account.ask(Account.recovered) == 5
