"""Random lives of a bank, each ended at a random turn of its loop, against a plain model of what may be true afterwards.

Each life is a simulation of its own: seeded task order, virtual time. What outlives it is the journal, as on a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.supervision import FixedDelay
from sage_actor.actor.system import ActorSystem
from sage_actor.durable import DurableActor, Journal, JournalEntry, MemoryJournal, Snapshot
from sage_actor.errors import ActorError, JournalUnavailable
from sage_actor.ports import current_clock
from sage_actor.testing import Simulation

NAMES = ("ann", "bob", "cyd")


class Deposited(msgspec.Struct, frozen=True):
    amount: int
    number: str


class Sent(msgspec.Struct, frozen=True):
    amount: int
    number: str


class Credit(msgspec.Struct, frozen=True):
    amount: int
    number: str


class Account(DurableActor[Deposited | Sent]):
    events = (Deposited, Sent)
    messages = (Credit,)
    snapshot_every = 5

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self.balance = 0
        self.numbers: list[str] = []

    def apply(self, event: Deposited | Sent) -> None:
        self.balance += event.amount if isinstance(event, Deposited) else -event.amount
        self.numbers.append(event.number)

    def snapshot_state(self) -> object:
        return [self.balance, self.numbers]

    def restore_state(self, state: list[object]) -> None:
        balance, numbers = state
        assert isinstance(balance, int)
        self.balance = balance
        self.numbers = [str(number) for number in numbers]  # type: ignore[attr-defined]

    async def deposit(self, amount: int, number: str) -> None:
        await self.persist(Deposited(amount, number))

    async def transfer(self, amount: int, to: str, number: str) -> None:
        await self.persist(Sent(amount, number), deliver=[(to, Credit(amount, number))])

    async def receive(self, message: object) -> None:
        assert isinstance(message, Credit)
        await self.persist(Deposited(message.amount, message.number))

    def fail(self) -> None:
        raise RuntimeError("on purpose")

    def owes(self) -> int:
        return len(self.owed)

    def books(self) -> tuple[int, list[str]]:
        return self.balance, list(self.numbers)


@dataclass
class Disk:
    """A journal that is cut off from the world when its life ends, at any turn, perhaps between storing and saying so."""

    inner: MemoryJournal
    slow: list[int] = field(default_factory=list[int])
    cut: bool = False

    async def _turns(self) -> None:
        for _ in range(self.slow.pop() if self.slow else 1):
            await asyncio.sleep(0)
        if self.cut:
            raise JournalUnavailable("disk", "the process is dead")

    async def open(self) -> None:
        await self.inner.open()

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def append(self, id: str, entries: Sequence[JournalEntry], *, expected: int) -> None:
        await self._turns()
        await self.inner.append(id, entries, expected=expected)
        await self._turns()

    async def read(self, id: str, after: int = 0) -> AsyncIterator[JournalEntry]:
        async for entry in self.inner.read(id, after):
            yield entry
        await self._turns()

    async def last_sequence(self, id: str) -> int:
        return await self.inner.last_sequence(id)

    async def save_snapshot(self, id: str, snapshot: Snapshot) -> None:
        await self._turns()
        await self.inner.save_snapshot(id, snapshot)

    async def load_snapshot(self, id: str) -> Snapshot | None:
        await self._turns()
        return await self.inner.load_snapshot(id)

    async def delete_before(self, id: str, sequence: int) -> int:
        await self._turns()
        return await self.inner.delete_before(id, sequence)

    def ids(self) -> AsyncIterator[str]:
        return self.inner.ids()


@dataclass
class Books:
    """The model: what was asked for, and what was acknowledged."""

    asked: dict[str, tuple[int, str, str]] = field(default_factory=dict[str, tuple[int, str, str]])
    acknowledged: set[str] = field(default_factory=set[str])

    def check(self, found: dict[str, tuple[int, list[str]]]) -> None:
        happened = {number for _, numbers in found.values() for number in numbers}
        assert self.acknowledged <= happened, "an acknowledged operation is lost"
        balances = dict.fromkeys(NAMES, 0)
        expected: dict[str, list[str]] = {name: [] for name in NAMES}
        for number in happened:
            amount, source, target = self.asked[number]
            balances[target] += amount
            expected[target].append(number)
            if source:
                balances[source] -= amount
                expected[source].append(number)
        for name, (balance, numbers) in found.items():
            assert sorted(numbers) == sorted(expected[name]), f"{name}: an operation is missing on one side, or twice in effect"
            assert balance == balances[name]
        for source in NAMES:  # what was sent by one to another came in the order sent
            for target in NAMES:
                if source != target:
                    way = [n for n in found[source][1] if self.asked[n][1:] == (source, target)]
                    assert [n for n in found[target][1] if self.asked[n][1:] == (source, target)] == way


Operation = st.tuples(st.integers(1, 9), st.sampled_from(["", *NAMES]), st.sampled_from(NAMES), st.booleans())
Life = st.tuples(
    st.integers(0, 2**16),  # seed
    st.lists(Operation, max_size=8),
    st.integers(0, 250),  # turns until the end
    st.lists(st.integers(0, 6), max_size=20),  # how slow the disk is
)


async def live(journal: MemoryJournal, books: Books, operations: list[tuple[int, str, str, bool]], turns: int, slow: list[int]) -> None:
    disk = Disk(journal, list(slow))
    await disk.open()
    system = await ActorSystem("bank", restart=FixedDelay(attempts=None, delay=0.05)).__aenter__()

    async def note(account: ActorRef[Account], amount: int, source: str, target: str, number: str) -> None:
        try:
            if source:
                await account.ask(Account.transfer, amount, target, number)
            else:
                await account.ask(Account.deposit, amount, number)
        except ActorError:
            return  # it may have happened or not
        if not disk.cut:
            books.acknowledged.add(number)

    async def work() -> None:
        try:
            accounts = {name: await system.spawn(Account, disk, name=name) for name in NAMES}
        except ActorError:
            return
        async with asyncio.TaskGroup() as group:
            for amount, source, target, fail in operations:
                number = f"operation {len(books.asked)}"
                books.asked[number] = (amount, source, target)
                group.create_task(note(accounts[source or target], amount, source, target, number))
                if fail:
                    accounts[target].tell_nowait(Account.fail)
                await asyncio.sleep(0)

    working = asyncio.ensure_future(work())
    for _ in range(turns):
        await asyncio.sleep(0)
    disk.cut = True
    await system.aclose(drain=False)
    await working


async def last_life(journal: MemoryJournal) -> dict[str, tuple[int, list[str]]]:
    async with ActorSystem("bank") as system:
        accounts = {name: await system.spawn(Account, journal, name=name) for name in NAMES}
        async with asyncio.timeout(600):  # virtual
            while any([await account.ask(Account.owes) for account in accounts.values()]):
                await current_clock().sleep(1)
        return {name: await account.ask(Account.books) for name, account in accounts.items()}


@settings(max_examples=100, deadline=None)
@given(st.lists(Life, min_size=1, max_size=4), st.integers(0, 2**16))
def test_whatever_ends_a_life_the_books_are_right(
    lives: list[tuple[int, list[tuple[int, str, str, bool]], int, list[int]]], seed: int
) -> None:
    journal, books = MemoryJournal(keep_snapshots=1), Books()
    for life_seed, operations, turns, slow in lives:
        Simulation(life_seed).run(lambda o=operations, t=turns, s=slow: live(journal, books, o, t, s))  # type: ignore[misc]
    books.check(Simulation(seed).run(lambda: last_life(journal)))


def test_the_model_can_fail() -> None:
    books = Books(asked={"1": (5, "", "ann"), "2": (5, "ann", "bob")}, acknowledged={"1"})
    nothing: dict[str, tuple[int, list[str]]] = dict.fromkeys(NAMES, (0, []))
    for wrong in (nothing, {**nothing, "ann": (5, ["1", "1"])}, {**nothing, "ann": (0, ["1", "2"])}, {**nothing, "ann": (4, ["1"])}):
        with pytest.raises(AssertionError):
            books.check(wrong)
    books.check({**nothing, "ann": (0, ["1", "2"]), "bob": (5, ["2"])})
