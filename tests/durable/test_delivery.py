"""Deliveries between durable actors: owed with the events, sent until confirmed, handled once in effect, in order."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.actor_ref import ActorRef
from sage_actor.actor.actor import Actor
from sage_actor.actor.supervision import FixedDelay, RestartStrategy
from sage_actor.actor.system import ActorSystem
from sage_actor.durable import CONFIRMED, DELIVERY, EVENT, HANDLED, Delivery, DurableActor, Journal, MemoryJournal
from sage_actor.durable.codec import StoredMark
from sage_actor.durable.delivery import Inbox, Outbox
from sage_actor.errors import ActorError, ActorFailed
from sage_actor.testing import ManualClock

SOON = FixedDelay(attempts=20, delay=0)


class Sent(msgspec.Struct, frozen=True):
    text: str


class Got(msgspec.Struct, frozen=True):
    text: str


class Note(msgspec.Struct, frozen=True):
    text: str


class Refused(Exception):
    """An expected error."""


class Peer(DurableActor[Sent | Got]):
    """Sends notes and collects those it gets; what a note says decides what its handling does."""

    events = (Sent, Got)
    messages = (Note,)
    expected_errors = (Refused,)
    redelivery: Any = FixedDelay(attempts=None, delay=1.0)

    def __init__(self, journal: Journal, hurdles: dict[str, int] | None = None) -> None:
        super().__init__(journal)
        self.hurdles = {} if hurdles is None else hurdles
        self.got: list[str] = []
        self.ready = False
        self.handled: list[Delivery | None] = []

    def apply(self, event: Sent | Got) -> None:
        if isinstance(event, Got):
            self.got.append(event.text)

    async def receive(self, message: object) -> None:
        assert isinstance(message, Note)
        text = message.text
        self.handled.append(self.delivery)
        if self.hurdles.get(text, 0) > 0:
            self.hurdles[text] -= 1
            if text.startswith("refused"):
                raise Refused(text)
            if text.startswith("late"):
                await self.persist(Got(text))
            raise RuntimeError(text)
        if text.startswith("stash") and not self.ready:
            self.context.stash()
            return
        if text.startswith("twice"):
            await self.persist(Got(text))
            await self.persist(Got(text))
        elif text.startswith("mark"):
            await self.persist()
        elif not text.startswith("ignored"):
            await self.persist(Got(text))

    async def send(self, *texts: str, to: str | ActorRef[Any] = "receiver") -> None:
        await self.persist(*(Sent(text) for text in texts), deliver=[(to, Note(text)) for text in texts])

    def make_ready(self) -> None:
        self.ready = True
        self.context.unstash()

    def look(self) -> list[str]:
        return self.got

    def owes(self) -> list[str]:
        return [delivery.message.text for delivery in self.owed if isinstance(delivery.message, Note)]

    def handlings(self) -> list[Delivery | None]:
        return self.handled

    def fail(self) -> None:
        raise RuntimeError("on purpose")


class Volatile(Actor):
    """No durable actor."""

    def __init__(self, got: list[str], hurdles: dict[str, int] | None = None) -> None:
        self.got = got
        self.hurdles = hurdles or {}

    def receive(self, message: object) -> None:
        assert isinstance(message, Note)
        self.got.append(message.text)
        if self.hurdles.get(message.text, 0) > 0:
            self.hurdles[message.text] -= 1
            raise RuntimeError(message.text)


async def kinds(journal: Journal, id: str) -> list[str]:
    return [entry.kind async for entry in journal.read(id)]


class World:
    """A system with a clock of its own, on a journal that outlives it."""

    def __init__(self, journal: MemoryJournal | None = None) -> None:
        self.journal = MemoryJournal() if journal is None else journal
        self.clock = ManualClock()
        self.system = ActorSystem(clock=self.clock, restart=SOON)

    async def __aenter__(self) -> Self:
        await self.journal.open()
        await self.system.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.system.aclose(drain=False)

    async def peer(self, name: str, hurdles: dict[str, int] | None = None, **options: Any) -> ActorRef[Peer]:
        return await self.system.spawn(Peer, self.journal, hurdles, name=name, **options)


@pytest.fixture
def world() -> World:
    return World()


# -- the way of one delivery ------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_delivery_is_journalled_handled_and_confirmed(world: World) -> None:
    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver")
        await sender.ask(Peer.send, "a", "b")
        await world.clock.advance(0)
        assert await receiver.ask(Peer.look) == ["a", "b"]
        assert await sender.ask(Peer.owes) == []
        await sender.ask(Peer.send, "c")
        assert await kinds(world.journal, "sender") == [EVENT, EVENT, DELIVERY, DELIVERY, EVENT, DELIVERY, CONFIRMED]  # taken along
        await world.clock.advance(0.1)
        assert (await kinds(world.journal, "sender"))[7:] == [CONFIRMED]  # nothing came that would have taken it along
        assert await kinds(world.journal, "receiver") == [EVENT, HANDLED] * 3


@pytest.mark.asyncio
async def test_the_receiver_may_be_named_by_its_ref_and_learns_who_sent_what(world: World) -> None:
    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver")
        await sender.ask(Peer.send, "a", to=receiver)
        await world.clock.advance(0)
        (handled,) = await receiver.ask(Peer.handlings)
        assert handled is not None
        assert (handled.sender, handled.number, handled.to, handled.message) == ("sender", 1, "receiver", Note("a"))
        await receiver.tell(Note("plain"))
        await world.clock.advance(0)
        assert (await receiver.ask(Peer.handlings))[1:] == [None]


@pytest.mark.asyncio
async def test_to_oneself_and_around(world: World) -> None:
    """No ask cycle: a delivery waits for nobody's handler."""
    async with world:
        sender = await world.peer("sender")
        await sender.ask(Peer.send, "a", to="sender")
        await world.clock.advance(0)
        assert await sender.ask(Peer.look) == ["a"]
        assert await sender.ask(Peer.owes) == []


@pytest.mark.asyncio
async def test_a_delivery_outlives_the_ask_that_caused_it(world: World) -> None:
    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver", {"refused": 3})
        await sender.ask(Peer.send, "refused", timeout=1)
        await world.clock.advance(10)  # the caller's deadline is long past
        assert await receiver.ask(Peer.look) == ["refused"]


@pytest.mark.asyncio
async def test_owed_until_the_receiver_is_there(world: World) -> None:
    async with world:
        sender = await world.peer("sender")
        await sender.ask(Peer.send, "a", "b")
        await world.clock.advance(5)
        assert await sender.ask(Peer.owes) == ["a", "b"]
        receiver = await world.peer("receiver")
        await world.clock.advance(0.5)
        assert await receiver.ask(Peer.look) == []
        await world.clock.advance(0.5)
        assert await receiver.ask(Peer.look) == ["a", "b"]
        assert await sender.ask(Peer.owes) == []
        await world.clock.advance(0.1)
        assert world.clock.pending == 0


@pytest.mark.asyncio
async def test_the_delays_are_those_of_the_strategy(world: World) -> None:
    tries: list[float] = []

    class Recorded:
        def next_delay(self, failures: list[float], now: float, random: object) -> float | None:
            tries.append(now)
            return None if len(failures) == 4 else 2.0 ** len(failures)

    class Patient(Peer):
        redelivery: RestartStrategy = Recorded()  # type: ignore[assignment]

    async with world:
        sender = await world.system.spawn(Patient, world.journal, None, name="sender")
        await sender.ask(Peer.send, "a")
        await world.clock.advance(100)
        assert tries == [0, 2, 6, 14]  # then it was given up
        assert await sender.ask(Peer.owes) == ["a"]
        receiver = await world.peer("receiver")
        sender.tell_nowait(Peer.fail)  # the next start tries again
        await world.clock.advance(1)
        assert await receiver.ask(Peer.look) == ["a"]


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["raises before", "late", "refused"])
async def test_a_receiver_that_raises_gets_it_again_and_handles_it_once(world: World, text: str) -> None:
    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver", {text: 2})
        await sender.ask(Peer.send, text, "next")
        await world.clock.advance(0.5)
        assert await sender.ask(Peer.owes) == [text, "next"]
        await world.clock.advance(5)
        assert await receiver.ask(Peer.look) == [text, "next"]
        assert await sender.ask(Peer.owes) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["mark", "ignored"])
async def test_a_delivery_without_events_is_confirmed_and_remembered_if_asked_for(world: World, text: str) -> None:
    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver")
        await sender.ask(Peer.send, text)
        await world.clock.advance(0)
        assert await sender.ask(Peer.owes) == []
        assert await receiver.ask(Peer.look) == []
        assert await kinds(world.journal, "receiver") == ([HANDLED] if text == "mark" else [])


@pytest.mark.asyncio
async def test_a_second_persist_for_one_delivery_is_refused(world: World) -> None:
    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver")
        failures = world.system.failures
        await sender.ask(Peer.send, "twice")
        await world.clock.advance(5)
        assert world.system.failures == failures + 1
        assert await receiver.ask(Peer.look) == ["twice"]
        assert await sender.ask(Peer.owes) == []


@pytest.mark.asyncio
async def test_a_stashed_delivery_is_neither_confirmed_nor_lost(world: World) -> None:
    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver")
        await sender.ask(Peer.send, "stash", "next")
        await world.clock.advance(200)
        assert await sender.ask(Peer.owes) == ["stash", "next"]
        await receiver.ask(Peer.make_ready)
        await world.clock.advance(0)
        assert await receiver.ask(Peer.look) == ["stash", "next"]
        assert await sender.ask(Peer.owes) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_a_restart_between_sending_and_confirming(world: World, who: str) -> None:
    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver")
        await sender.ask(Peer.send, *"abcdefgh")
        for _ in range(7):
            world.system.lookup(who).tell_nowait(Peer.fail)  # type: ignore[union-attr]
            for _ in range(6):
                await asyncio.sleep(0)
        await world.clock.advance(20)
        assert await receiver.ask(Peer.look) == [*"abcdefgh"]
        assert await sender.ask(Peer.owes) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("lost", ["confirmed", "nothing"])
async def test_the_next_process_sends_again_and_the_receiver_knows_the_copy(lost: str) -> None:
    journal = MemoryJournal()
    async with World(journal) as world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver")
        await sender.ask(Peer.send, "a")
        await world.clock.advance(0.1)
    if lost == "confirmed":  # the process died before the confirmation was written
        assert (await kinds(journal, "sender")).pop() == CONFIRMED
        journal._entities["sender"].entries.pop()
    async with World(journal) as world:
        sender = await world.peer("sender")
        assert await sender.ask(Peer.owes) == (["a"] if lost == "confirmed" else [])
        receiver = await world.peer("receiver")
        await world.clock.advance(5)
        assert await receiver.ask(Peer.look) == ["a"]
        assert await receiver.ask(Peer.handlings) == []
        assert await sender.ask(Peer.owes) == []
        await sender.ask(Peer.send, "b")
        await world.clock.advance(0)
        assert await receiver.ask(Peer.look) == ["a", "b"]


@pytest.mark.asyncio
async def test_a_sender_without_its_journal_is_not_taken_for_its_old_self(world: World) -> None:
    async with world:
        receiver = await world.peer("receiver")
        for text in "ab":
            async with MemoryJournal() as lost:
                sender = await world.system.spawn(Peer, lost, None, name="sender")
                await sender.ask(Peer.send, text)
                await world.clock.advance(0)
                await world.system.stop(sender)
        assert await receiver.ask(Peer.look) == ["a", "b"]


@pytest.mark.asyncio
async def test_a_failing_append_owes_nothing(world: World) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError("full")

    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver")
        append, world.journal.append = world.journal.append, refuse  # type: ignore[method-assign]
        with pytest.raises(ActorFailed):
            await sender.ask(Peer.send, "a")
        world.journal.append = append  # type: ignore[method-assign]
        await world.clock.advance(5)
        assert await sender.ask(Peer.owes) == []
        assert await receiver.ask(Peer.look) == []


@pytest.mark.asyncio
async def test_messages_that_cannot_be_stored_are_refused_before_anything_is(world: World) -> None:
    class Careless(Peer):
        async def try_to(self, to: str, message: object) -> str:
            try:
                await self.persist(Sent("a"), deliver=[(to, message)])
            except ActorError as error:
                return str(error)
            return ""

    async with world:
        sender = await world.system.spawn(Careless, world.journal, None, name="sender")
        assert "cannot store a str" in await sender.ask(Careless.try_to, "x", "text")
        assert "empty" in await sender.ask(Careless.try_to, "", Note("a"))
        assert await world.journal.last_sequence("sender") == 0


# -- receivers of other kinds -----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_another_actor_handles_it_at_least_once(world: World) -> None:
    got: list[str] = []
    async with world:
        await world.system.spawn(Volatile, got, {"b": 2}, name="receiver")
        sender = await world.peer("sender")
        await sender.ask(Peer.send, *"abc")
        await world.clock.advance(10)
        assert got == [*"abbbc"]
        assert await sender.ask(Peer.owes) == []


@pytest.mark.asyncio
async def test_another_actor_handles_it_with_its_present_behaviour(world: World) -> None:
    got: list[object] = []

    class Changing(Volatile):
        def change(self) -> None:
            self.context.become(got.append)

    async with world:
        receiver = await world.system.spawn(Changing, [], name="receiver")
        await receiver.ask(Changing.change)
        sender = await world.peer("sender")
        await sender.ask(Peer.send, "a")
        await world.clock.advance(0)
        assert got == [Note("a")]


class Deaf(Actor):
    """Takes no messages."""


class DurableDeaf(DurableActor[int]):
    """Neither does it."""


@pytest.mark.asyncio
@pytest.mark.parametrize("durable", [False, True])
async def test_an_actor_that_takes_no_messages_is_not_harmed(world: World, durable: bool) -> None:
    async with world:
        deaf: ActorRef[Any] = await (
            world.system.spawn(DurableDeaf, world.journal, name="receiver") if durable else world.system.spawn(Deaf, name="receiver")
        )
        sender = await world.peer("sender")
        await sender.ask(Peer.send, "a")
        await world.clock.advance(3)
        assert deaf.alive
        assert world.system.failures == 0
        assert await sender.ask(Peer.owes) == ["a"]


@pytest.mark.asyncio
async def test_a_full_mailbox_delays_and_loses_nothing(world: World) -> None:
    from sage_actor.actor.mailbox import MailboxSettings

    async with world:
        receiver = await world.peer("receiver", mailbox=MailboxSettings(capacity=1, overflow="drop_new"))
        senders = [await world.peer(f"sender {n}") for n in range(5)]
        await asyncio.gather(*(sender.ask(Peer.send, f"{n}") for n, sender in enumerate(senders)))
        await world.clock.advance(30)
        assert sorted(await receiver.ask(Peer.look)) == [*"01234"]


@pytest.mark.asyncio
async def test_a_passive_receiver_wakes_up_and_a_sender_that_owes_does_not_fall_asleep(world: World) -> None:
    async with world:
        receiver = await world.peer("receiver", passivate_after=10)
        sender = await world.peer("sender", passivate_after=10)
        await sender.ask(Peer.send, "stash")
        await world.clock.advance(100)  # under way all the time
        assert not sender.cell.passive
        assert not receiver.cell.passive
        await receiver.ask(Peer.make_ready)
        await world.clock.advance(100)
        assert sender.cell.passive
        assert receiver.cell.passive
        await sender.ask(Peer.send, "a")
        await world.clock.advance(1)
        assert await receiver.ask(Peer.look) == ["stash", "a"]


# -- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A23")
@pytest.mark.asyncio
async def test_deliveries_of_one_sender_to_one_receiver_keep_their_order_across_failures(world: World) -> None:
    texts = [f"{n}" for n in range(12)]
    async with world:
        sender, receiver = await world.peer("sender"), await world.peer("receiver", {"0": 1, "3": 2, "7": 1})
        for text in texts:
            await sender.ask(Peer.send, text)
        await world.clock.advance(30)
        assert await receiver.ask(Peer.look) == texts


@pytest.mark.asyncio
async def test_one_receiver_that_refuses_holds_up_nobody_else(world: World) -> None:
    async with world:
        sender = await world.peer("sender")
        stubborn, other = await world.peer("stubborn", {"refused": 1_000}), await world.peer("other")
        await sender.ask(Peer.send, "refused", "behind", to="stubborn")
        await sender.ask(Peer.send, "a", "b", to="other")
        await world.clock.advance(30)
        assert await other.ask(Peer.look) == ["a", "b"]
        assert await stubborn.ask(Peer.look) == []
        assert await sender.ask(Peer.owes) == ["refused", "behind"]


@pytest.mark.asyncio
async def test_one_is_under_way_to_a_receiver_at_a_time(world: World) -> None:
    gate, got = asyncio.Event(), list[str]()

    class Slow(Actor):
        async def receive(self, message: object) -> None:
            assert isinstance(message, Note)
            got.append(message.text)
            await gate.wait()

    async with world:
        await world.system.spawn(Slow, name="receiver")
        sender = await world.peer("sender")
        for text in "abc":
            await sender.ask(Peer.send, text)
        await world.clock.advance(600)
        assert got == ["a"]
        gate.set()
        await world.clock.advance(0)
        assert got == ["a", "b", "c"]


@pytest.mark.asyncio
async def test_tries_are_counted_anew_for_each_delivery(world: World) -> None:
    class TwoMore(Peer):
        redelivery = FixedDelay(attempts=2, delay=1.0)

    async with world:
        sender = await world.system.spawn(TwoMore, world.journal, None, name="sender")
        receiver = await world.peer("receiver", {"a": 2, "b": 2, "c": 3})
        await sender.ask(Peer.send, *"abcd")
        await world.clock.advance(100)
        assert await receiver.ask(Peer.look) == ["a", "b"]
        assert await sender.ask(Peer.owes) == ["c", "d"]


@pytest.mark.asyncio
async def test_confirmations_that_come_while_others_are_written_are_written_too(world: World) -> None:
    append, gate, held = MemoryJournal.append, asyncio.Event(), list[str]()

    async def slow(id: str, entries: Any, *, expected: int) -> None:
        await append(world.journal, id, entries, expected=expected)
        if any(entry.kind == CONFIRMED for entry in entries):
            held.append(id)
            await gate.wait()

    async with world:
        sender, _ = await world.peer("sender"), await world.peer("receiver")
        other = await world.peer("other", {"refused": 1})
        world.journal.append = slow  # type: ignore[method-assign]
        await sender.ask(Peer.send, "refused", to="other")
        await sender.ask(Peer.send, "a")
        await world.clock.advance(0.1)
        assert held == ["sender"]
        await world.clock.advance(0.9)
        sender.cell.actor._durable_courier.send("other")  # its next try, which a timer could not begin: the actor is busy
        await world.clock.advance(0)
        assert await other.ask(Peer.look) == ["refused"]
        gate.set()
        await world.clock.advance(0.1)
        assert (await kinds(world.journal, "sender")).count(CONFIRMED) == 2


# -- snapshots --------------------------------------------------------------------------------------------------------


class Remembering(Peer):
    snapshot_every = 1

    def snapshot_state(self) -> object:
        return self.got

    def restore_state(self, state: list[str]) -> None:
        self.got = state


@pytest.mark.asyncio
async def test_snapshots_carry_what_is_owed_and_what_was_handled() -> None:
    journal = MemoryJournal(keep_snapshots=1)
    async with World(journal) as world:
        sender = await world.system.spawn(Remembering, journal, None, name="sender")
        receiver = await world.system.spawn(Remembering, journal, None, name="receiver")
        await sender.ask(Peer.send, "a")
        await world.clock.advance(0)
        await sender.ask(Peer.send, "b", "c", to="later")
        await world.clock.advance(0)
    for name in ("sender", "receiver"):
        entity = journal._entities[name]
        assert entity.compacted == entity.last > 0, "only the snapshots are left"
    async with World(journal) as world:
        sender = await world.system.spawn(Remembering, journal, None, name="sender")
        receiver = await world.system.spawn(Remembering, journal, None, name="receiver")
        assert await sender.ask(Peer.owes) == ["b", "c"]
        later = await world.peer("later")
        await world.clock.advance(5)
        assert await later.ask(Peer.look) == ["b", "c"]
        assert [handled.number for handled in await later.ask(Peer.handlings) if handled] == [2, 3]
        copy = Delivery("sender", (await later.ask(Peer.handlings))[0].stream, 1, "receiver", Note("a"))  # type: ignore[union-attr]
        from sage_actor.durable.durable_actor import _ask

        await _ask(receiver, copy)
        assert await receiver.ask(Peer.look) == ["a"]
        await sender.ask(Peer.send, "d")
        await world.clock.advance(0)
        assert await receiver.ask(Peer.look) == ["a", "d"]
        last = (await receiver.ask(Peer.handlings))[-1]
    async with World(journal) as world:  # now nothing is owed
        sender = await world.system.spawn(Remembering, journal, None, name="sender")
        receiver = await world.peer("receiver 2")
        await sender.ask(Peer.send, "e", to="receiver 2")
        await world.clock.advance(0)
        (handled,) = await receiver.ask(Peer.handlings)
        assert handled is not None
        assert last is not None
        assert (handled.stream, handled.number) == (last.stream, last.number + 1)


# -- the two lists, against sets --------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=40), st.randoms())
def test_an_outbox_is_a_list_of_what_is_owed(steps: list[tuple[str, bool]], chance: Any) -> None:
    outbox, owed = Outbox(), list[Delivery]()
    for number, (to, confirm) in enumerate(steps, 1):
        if confirm and owed:
            gone = owed.pop(chance.randrange(len(owed)))
            outbox.confirm(gone.number)
            outbox.confirm(gone.number)  # twice is once
        delivery = Delivery("me", 7, number, to, None)
        outbox.add(delivery)
        owed.append(delivery)
        assert outbox.owed == tuple(owed)
        assert set(outbox.receivers) == {delivery.to for delivery in owed}
        for path in "abc":
            assert outbox.next_for(path) == next((delivery for delivery in owed if delivery.to == path), None)
    assert outbox.last_number == len(steps)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("st"), st.sampled_from("xy"), st.booleans()), max_size=40))
def test_an_inbox_knows_every_copy_by_one_number_a_sender_and_path(arrivals: list[tuple[str, str, bool]]) -> None:
    """Numbers rise for each sender and path, as the sender sees to; a copy of any earlier one may come at any time."""
    inbox, handled, numbers = Inbox(), list[Delivery](), dict[str, int]()
    for sender, to, again in arrivals:
        if again and handled:
            assert inbox.has_handled(handled[len(handled) // 2])
            continue
        numbers[sender] = numbers.get(sender, 0) + 1
        delivery = Delivery(sender, 5, numbers[sender], to, None)
        assert not inbox.has_handled(delivery)
        inbox.mark(StoredMark(sender, 5, to, delivery.number))
        handled.append(delivery)
        assert all(inbox.has_handled(earlier) for earlier in handled)
        assert not inbox.has_handled(Delivery(sender, 6, delivery.number, to, None)), "another stream"
    assert len(inbox.marks) == len({(delivery.sender, delivery.to) for delivery in handled})
