"""What DurableActor refuses, where, and in which words: at the class, at the spawn, at persist."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest

from sage_actor.actor.supervision import FixedDelay
from sage_actor.actor.system import ActorSystem
from sage_actor.durable import DurableActor, Journal, MemoryJournal, SqliteJournal
from sage_actor.errors import ActorError, ActorFailed

SOON = FixedDelay(attempts=5, delay=0)


class Deposited(msgspec.Struct, frozen=True):
    amount: int


@dataclass(frozen=True)
class Withdrawn:
    amount: int
    tags: list[str]


class Opaque:
    """Nothing knows how to encode it."""


class Holder(msgspec.Struct):
    inside: list[Opaque]


class Account(DurableActor[Deposited | Withdrawn]):
    events = (Deposited, Withdrawn)

    def __init__(self, journal: Journal, id: str | None = None) -> None:
        super().__init__(journal, id=id)
        self.balance = 0

    def apply(self, event: Deposited | Withdrawn) -> None:
        self.balance += event.amount if isinstance(event, Deposited) else -event.amount

    def read(self) -> tuple[int, int]:
        return self.balance, self.sequence

    async def call(self, function: Callable[[Account], Awaitable[object]]) -> object:
        return await function(self)


@pytest.mark.asyncio
async def test_settings_that_would_break_it_are_refused_at_spawn() -> None:
    async with MemoryJournal() as journal, ActorSystem() as system:
        for attempt in (
            partial(system.spawn, Account, journal, name="a", concurrency=2),
            partial(system.spawn, Account, journal, name="a", reentrant=True),
        ):
            with pytest.raises(ActorFailed, match="concurrency above 1 or reentrant"):
                await attempt()


@pytest.mark.asyncio
async def test_a_forgotten_constructor_of_the_base_is_named() -> None:
    class Forgetful(Account):
        def __init__(self, journal: Journal) -> None:
            self.journal = journal

    async with MemoryJournal() as journal, ActorSystem() as system:
        with pytest.raises(ActorFailed, match=r"super\(\).__init__\(journal\)"):
            await system.spawn(Forgetful, journal, name="a")


def test_classes_that_cannot_work_are_refused_where_they_are_written() -> None:
    with pytest.raises(ActorError, match="on_recovered"):

        class Starts(Account):
            async def on_start(self) -> None:  # type: ignore[misc]
                pass

    for cls in (Opaque, Holder, complex):
        with pytest.raises(ActorError, match="no encoding"):
            type("Odd", (Account,), {"events": (cls,)})
    with pytest.raises(ActorError, match=r"Holder\.inside"):
        type("Odd", (Account,), {"events": (Holder,)})
    with pytest.raises(ActorError, match="two of its classes"):
        type("Odd", (Account,), {"events": (Deposited, msgspec.defstruct("Deposited", []))})
    with pytest.raises(ActorError, match="is no class"):
        type("Odd", (Account,), {"events": ("Deposited",)})
    with pytest.raises(ActorError, match="no `apply`"):

        class Idle(DurableActor[int]):
            events = (int,)

    with pytest.raises(ActorError, match="snapshot_every"):

        class Half(Account):
            snapshot_every = 3


@pytest.mark.asyncio
async def test_an_event_whose_class_is_complete_only_later_is_looked_at_again_at_spawn() -> None:
    class Early(msgspec.Struct):
        late: Late  # type: ignore[name-defined]  # noqa: F821 - that is the point

    class Growing(DurableActor[Early]):
        events = (Early,)

        def apply(self, event: Early) -> None:
            raise AssertionError

    async with MemoryJournal() as journal, ActorSystem() as system:
        with pytest.raises(ActorFailed, match="Late"):
            await system.spawn(Growing, journal, name="a")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("a text", "cannot store a str: Account knows Deposited, Withdrawn"),
        (Deposited("much"), "cannot store this Deposited"),  # type: ignore[arg-type]
        (Withdrawn(1, [b"\xff", object()]), "cannot store this Withdrawn"),  # type: ignore[list-item]
        (Deposited(2**70), "cannot store this Deposited"),
    ],
)
async def test_what_could_not_be_read_back_is_not_stored(event: object, words: str) -> None:
    async def put(account: Account) -> None:
        await account.persist(Deposited(1), event)  # type: ignore[arg-type]

    async with MemoryJournal() as journal, ActorSystem(restart=SOON) as system:
        account = await system.spawn(Account, journal, name="alice")
        with pytest.raises(ActorFailed) as caught:
            await account.ask(Account.call, put)
        assert words in str(caught.value)
        assert await account.ask(Account.read) == (0, 0)
        assert await journal.last_sequence("alice") == 0


@pytest.mark.asyncio
async def test_persist_belongs_in_a_handler_and_one_at_a_time(tmp_path: Path) -> None:
    kept: list[Account] = []

    async def both(account: Account) -> list[object]:
        kept.append(account)
        return await asyncio.gather(account.persist(Deposited(1)), account.persist(Deposited(2)), return_exceptions=True)

    async with SqliteJournal(tmp_path / "journal") as journal, ActorSystem() as system:
        account = await system.spawn(Account, journal, name="alice")
        first, second = await account.ask(Account.call, both)  # type: ignore[misc]
        assert first is None
        assert "running already" in str(second)
        with pytest.raises(ActorError, match="belongs in a handler"):
            await kept[0].persist(Deposited(3))
        assert await account.ask(Account.read) == (1, 1)
    with pytest.raises(ActorError, match="was not spawned"):
        await Account(journal).persist(Deposited(1))


def test_its_errors_survive_pickling() -> None:
    error = ActorError("durable actor 'a': entry 3")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_actor_made_by_calling_its_class_can_be_tested_directly() -> None:
    account = Account(MemoryJournal(), "alice")
    account.apply(Deposited(3))
    assert account.balance == 3
    assert account.persistence_id == "alice"
