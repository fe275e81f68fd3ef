"""Events, owed messages and snapshots of older versions are upgraded, of newer ones refused, and damage is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.actor import Actor
from sage_actor.actor.supervision import NoRestart
from sage_actor.actor.system import ActorSystem
from sage_actor.durable import EVENT, DurableActor, Journal, JournalEntry, MemoryJournal, Snapshot
from sage_actor.errors import ActorFailed, JournalCorrupt
from sage_actor.testing import ManualClock


class Moved(msgspec.Struct, frozen=True):
    """Version 1: a number of steps, or back."""

    steps: int


class Greeting(msgspec.Struct, frozen=True):
    text: str


class Walker(DurableActor[Moved]):
    events = (Moved,)
    messages = (Greeting,)

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self.place = 0

    def apply(self, event: Moved) -> None:
        self.place += event.steps

    async def walk(self, steps: int) -> None:
        await self.persist(Moved(steps))

    async def greet(self, text: str) -> None:
        await self.persist(deliver=[("friend", Greeting(text))])


class SnapshottingWalker(Walker):
    snapshot_every = 2

    def snapshot_state(self) -> object:
        return self.place

    def restore_state(self, state: int) -> None:
        self.place = state


class MovedTo(msgspec.Struct, frozen=True):
    """Version 2: two dimensions, and another name."""

    x: int
    y: int


class Card(msgspec.Struct, frozen=True):
    words: list[str]


class Place(msgspec.Struct):
    x: int = 0
    y: int = 0


class PlaneWalker(DurableActor[MovedTo]):
    events = (MovedTo,)
    messages = (Card,)
    state_class = Place
    event_version = 3
    snapshot_every = 2

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self.place = Place()
        self.upgraded: list[tuple[int, str, Any]] = []

    def apply(self, event: MovedTo) -> None:
        self.place.x += event.x
        self.place.y += event.y

    def upgrade(self, version: int, name: str, data: Any) -> tuple[str, Any]:
        self.upgraded.append((version, name, data))
        if name == "Moved":
            return "MovedTo", {"x": data["steps"], "y": 0}
        return "Card", {"words": data["text"].split()}

    def upgrade_state(self, version: int, data: Any) -> Any:
        self.upgraded.append((version, "state", data))
        return {"x": data}

    def snapshot_state(self) -> Place:
        return self.place

    def restore_state(self, state: Place) -> None:
        assert isinstance(state, Place)
        self.place = state

    async def walk(self, x: int, y: int) -> None:
        await self.persist(MovedTo(x, y))

    def look(self) -> tuple[int, int]:
        return self.place.x, self.place.y

    def upgrades(self) -> list[tuple[int, str, Any]]:
        return self.upgraded


class Unsnapped(PlaneWalker):
    snapshot_every = 0


class Friend(Actor):
    def __init__(self, got: list[object]) -> None:
        self.got = got

    def receive(self, message: object) -> None:
        self.got.append(message)


async def refusal(journal: Journal, cls: type[DurableActor[Any]], name: str = "walker") -> str:
    async with ActorSystem() as system:
        with pytest.raises(ActorFailed) as caught:
            await system.spawn(cls, journal, name=name)
        assert system.lookup(name) is None
        assert caught.value.__cause__ is not None
        return str(caught.value.__cause__)


def event(sequence: int, name: str, fields: object, version: int = 1) -> JournalEntry:
    return JournalEntry(sequence, EVENT, version, msgspec.msgpack.encode([name, fields]), 0)


@pytest.mark.asyncio
async def test_old_events_are_upgraded_and_new_ones_are_not() -> None:
    async with MemoryJournal() as journal:
        async with ActorSystem() as system:
            old = await system.spawn(Walker, journal, name="walker")
            await old.ask(Walker.walk, 3)
            await old.ask(Walker.walk, 4)
        async with ActorSystem() as system:
            walker: ActorRef[PlaneWalker] = await system.spawn(Unsnapped, journal, name="walker")
            assert await walker.ask(PlaneWalker.look) == (7, 0)
            assert await walker.ask(PlaneWalker.upgrades) == [(1, "Moved", {"steps": 3}), (1, "Moved", {"steps": 4})]
            await walker.ask(PlaneWalker.walk, 1, 1)
        async with ActorSystem() as system:
            walker = await system.spawn(Unsnapped, journal, name="walker")
            assert await walker.ask(PlaneWalker.look) == (8, 1)
            assert len(await walker.ask(PlaneWalker.upgrades)) == 2
        assert [entry.version async for entry in journal.read("walker")] == [1, 1, 3]


@pytest.mark.asyncio
async def test_an_old_snapshot_and_old_owed_messages_are_upgraded() -> None:
    clock, got = ManualClock(), list[object]()
    async with MemoryJournal() as journal:
        async with ActorSystem(clock=clock) as system:
            old = await system.spawn(SnapshottingWalker, journal, name="walker")
            await old.ask(Walker.greet, "good morning")
            await old.ask(Walker.walk, 5)
            await clock.advance(0)
            await old.ask(Walker.greet, "hello again")
            await clock.advance(0)
        assert (await journal.load_snapshot("walker") or Snapshot(0, 0, b"")).sequence == 2
        async with ActorSystem(clock=clock) as system:
            await system.spawn(Friend, got, name="friend")
            walker = await system.spawn(PlaneWalker, journal, name="walker")
            await clock.advance(5)
            assert got == [Card(["good", "morning"]), Card(["hello", "again"])]
            assert await walker.ask(PlaneWalker.look) == (5, 0)
            expected = [(1, "state", 5), (1, "Greeting", {"text": "good morning"}), (1, "Greeting", {"text": "hello again"})]
            assert await walker.ask(PlaneWalker.upgrades) == expected
            await walker.ask(PlaneWalker.walk, 1, 1)
            await clock.advance(0)
        async with ActorSystem(clock=clock) as system:
            walker = await system.spawn(PlaneWalker, journal, name="walker")
            assert await walker.ask(PlaneWalker.look) == (6, 1)
            assert await walker.ask(PlaneWalker.upgrades) == []


@pytest.mark.asyncio
async def test_a_newer_version_is_refused_with_both_numbers() -> None:
    async with MemoryJournal() as journal:
        await journal.append("walker", [event(1, "Moved", {"steps": 1}), event(2, "Moved", {"steps": 1}, 4)], expected=0)
        words = await refusal(journal, Walker)
        assert "'walker'" in words
        assert "entry 2" in words
        assert "version is 4" in words
        assert "up to 1" in words
        await journal.save_snapshot("walker", Snapshot(2, 9, b"?"))
        assert "snapshot of entry 2" in await refusal(journal, PlaneWalker)


@pytest.mark.asyncio
async def test_without_an_upgrade_an_old_version_is_refused() -> None:
    class Strict(Walker):
        event_version = 2

    class StrictSnapshotting(SnapshottingWalker):
        event_version = 2

    async with MemoryJournal() as journal:
        await journal.append("walker", [event(1, "Moved", {"steps": 1}), event(2, "Moved", {"steps": 1})], expected=0)
        words = await refusal(journal, Strict)
        assert "entry 1" in words
        assert "no `upgrade`" in words
        await journal.save_snapshot("walker", Snapshot(2, 1, msgspec.msgpack.encode([1, 0, 0, [], []])))
        assert "no `upgrade_state`" in await refusal(journal, StrictSnapshotting)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (event(3, "Jumped", {"height": 2}), ["entry 3", "'Jumped'", "knows Moved, Greeting", "`upgrade`"]),
        (event(3, "Moved", {"steps": "three"}), ["entry 3", "'Moved'", "do not fit"]),
        (event(3, "Moved", {}), ["entry 3", "missing required field `steps`"]),
        (JournalEntry(3, EVENT, 1, b"\xc1", 0), ["entry 3"]),
        (JournalEntry(3, "delivery", 1, b"\x90", 0), ["entry 3 (delivery)"]),
        (JournalEntry(3, "diary", 1, b"", 0), ["entry 3 (diary)", "kind"]),
    ],
)
async def test_what_cannot_be_understood_is_named(entry: JournalEntry, words: list[str]) -> None:
    async with MemoryJournal() as journal:
        await journal.append("walker", [event(1, "Moved", {"steps": 1}), event(2, "Moved", {"steps": 1}), entry], expected=0)
        text = await refusal(journal, Walker)
        assert "'walker'" in text
        for word in words:
            assert word in text


@pytest.mark.asyncio
async def test_a_failing_upgrade_is_named_and_a_new_field_with_a_default_needs_none() -> None:
    class Careful(Walker):
        event_version = 2

        def upgrade(self, version: int, name: str, data: Any) -> tuple[str, Any]:
            raise KeyError("oops")

    MovedMore = msgspec.defstruct("Moved", [("steps", int), ("pace", str, "slow")])

    class Grown(Walker):
        events = (MovedMore,)

    async with MemoryJournal() as journal:
        await journal.append("walker", [event(1, "Moved", {"steps": 1})], expected=0)
        words = await refusal(journal, Careful)
        assert "entry 1" in words
        assert "KeyError: 'oops'" in words
        async with ActorSystem() as system:
            await system.spawn(Grown, journal, name="walker", restart=NoRestart())


@pytest.mark.asyncio
async def test_damage_in_the_journal_goes_through_as_it_is(tmp_path: Any) -> None:
    import sqlite3

    from sage_actor.durable import SqliteJournal

    path = tmp_path / "journal"
    async with SqliteJournal(path) as journal, ActorSystem() as system:
        walker = await system.spawn(Walker, journal, name="walker")
        for _ in range(3):
            await walker.ask(Walker.walk, 1)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE entries SET payload = x'00' WHERE sequence = 2")
    connection.close()
    async with SqliteJournal(path) as journal, ActorSystem() as system:
        with pytest.raises(ActorFailed) as caught:
            await system.spawn(Walker, journal, name="walker")
        assert isinstance(caught.value.__cause__, JournalCorrupt)
        assert (caught.value.__cause__.id, caught.value.__cause__.sequence) == ("walker", 2)
