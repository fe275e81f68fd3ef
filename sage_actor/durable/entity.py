"""The durable side of one actor: what it has read from its journal, what it appends, and what it does not know yet.

What is appended and what is replayed go through the same method (`_enact`), as the same decoded objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from sage_actor.durable.codec import Codec, StateCodec, StoredDelivery, StoredEvent, StoredMark, StoredSnapshot, encode
from sage_actor.durable.delivery import Delivery, Inbox, Outbox
from sage_actor.durable.journal import CONFIRMED, DELIVERY, EVENT, HANDLED, Journal, JournalEntry, Snapshot
from sage_actor.errors import ActorError, JournalConflict, JournalError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sage_actor.durable.durable_actor import DurableActor

__all__ = ["Entity"]

_REPLAY_TURN: Final = 256  # entries after which a replay lets others run: a journal in memory never waits by itself


class _Event(NamedTuple):
    name: str
    value: object


class _Confirmed(NamedTuple):
    numbers: list[int]


_Effect: TypeAlias = "_Event | Delivery | _Confirmed | StoredMark"


class _Draft(NamedTuple):
    """An entry to be, and what it will do."""

    kind: str
    payload: bytes
    effect: _Effect


class _Append(NamedTuple):
    """An append of which it is not known whether it was stored."""

    before: int
    entries: list[JournalEntry]
    effects: list[_Effect]


class Entity:
    """One durable actor's place in its journal. Used by one handler at a time.

    Attributes:
        sequence: the last entry whose effect the actor's state holds.
        outbox: deliveries owed.
        inbox: deliveries handled.
        delivery: the delivery that is being handled.
        snapshot_at: the entry of the last snapshot that was begun.
    """

    def __init__(self, actor: DurableActor[Any], journal: Journal, id: str, codec: Codec, states: StateCodec) -> None:
        self._actor = actor
        self._journal = journal
        self._id = id
        self._codec = codec
        self._states = states
        self._version = type(actor).event_version
        self._append_running = False
        self._unknown: _Append | None = None
        self._broken: ActorError | None = None
        self.sequence = 0
        self.snapshot_at = 0
        self.outbox = Outbox()
        self.inbox = Inbox()
        self.delivery: Delivery | None = None

    # -- recovering --

    async def recover(self) -> None:
        """Bring the actor to where the journal says it is.

        Raises:
            JournalError: the journal, as it says.
            ActorError: an entry or the snapshot cannot be understood, or `apply`, `restore_state` or an upgrade raised; the id
                and the sequence are named, and the cause is chained.
        """
        snapshot = await self._journal.load_snapshot(self._id)
        if snapshot is not None:
            try:
                self._restore(snapshot)
            except Exception as error:
                raise self._unreadable(f"the snapshot of entry {snapshot.sequence}", error) from error
        async with aclosing(self._entries_after(self.sequence)) as entries:
            async for entry in entries:
                try:
                    self._enact(self._effect_of(entry))
                except Exception as error:
                    raise self._unreadable(f"entry {entry.sequence} ({entry.kind})", error) from error
                self.sequence = entry.sequence
                if entry.sequence % _REPLAY_TURN == 0:
                    await asyncio.sleep(0)

    async def _entries_after(self, sequence: int) -> AsyncGenerator[JournalEntry]:
        # With an `aclose`, which the iterator of a journal need not have.
        entries: AsyncIterator[JournalEntry] = self._journal.read(self._id, sequence)
        async for entry in entries:
            yield entry

    def _unreadable(self, place: str, error: Exception) -> ActorError:
        return ActorError(f"durable actor {self._id!r} cannot recover: {place}: {_described(error)}")

    def _effect_of(self, entry: JournalEntry) -> _Effect:
        self._refuse_newer(entry.version)
        if entry.kind == EVENT:
            event = msgspec.msgpack.decode(entry.payload, type=StoredEvent)
            name, body = self._upgraded(entry.version, event.name, event.body)
            return _Event(name, self._codec.decode(name, body))
        if entry.kind == DELIVERY:
            return self._delivery_of(msgspec.msgpack.decode(entry.payload, type=StoredDelivery), entry.version)
        if entry.kind == CONFIRMED:
            return _Confirmed(msgspec.msgpack.decode(entry.payload, type=list[int]))
        if entry.kind == HANDLED:
            return msgspec.msgpack.decode(entry.payload, type=StoredMark)
        raise ActorError("entries of this kind are none of a durable actor; is its id used for something else too?")

    def _refuse_newer(self, version: int) -> None:
        if version > self._version:
            raise ActorError(
                f"its version is {version}, and {type(self._actor).__qualname__} knows versions up to {self._version}: "
                "it was written by a newer program; run that one"
            )

    def _upgraded(self, version: int, name: str, body: msgspec.Raw) -> tuple[str, bytes | msgspec.Raw]:
        if version == self._version:
            return name, body
        name, data = self._actor.upgrade(version, name, msgspec.msgpack.decode(body))
        return name, encode(data)

    def _delivery_of(self, stored: StoredDelivery, version: int) -> Delivery:
        name, body = self._upgraded(version, stored.name, stored.body)
        return Delivery(self._id, stored.stream, stored.number, stored.to, self._codec.decode(name, body))

    def _restore(self, snapshot: Snapshot) -> None:
        self._refuse_newer(snapshot.version)
        stored = msgspec.msgpack.decode(snapshot.payload, type=StoredSnapshot)
        body: bytes | msgspec.Raw = stored.state
        if snapshot.version < self._version:
            body = encode(self._actor.upgrade_state(snapshot.version, msgspec.msgpack.decode(body)))
        self._actor.restore_state(self._states.decode(body))
        for owed in stored.owed:
            self.outbox.add(self._delivery_of(owed, snapshot.version))
        self.outbox.stream, self.outbox.last_number = stored.stream, stored.last_number
        for mark in stored.handled:
            self.inbox.mark(mark)
        self.sequence = self.snapshot_at = snapshot.sequence

    def _enact(self, effect: _Effect) -> None:
        match effect:
            case _Event():
                self._actor.apply(effect.value)
            case Delivery():
                self.outbox.add(effect)
            case _Confirmed():
                for number in effect.numbers:
                    self.outbox.confirm(number)
            case StoredMark():
                self.inbox.mark(effect)

    # -- appending --

    async def persist(self, events: Iterable[object], deliver: Iterable[tuple[str, object]]) -> None:
        """Append events, deliveries and what goes with them; returns when they are durable and enacted."""
        if self._append_running:
            raise ActorError(f"{self._place()}: persist is running already; await it first, or give it all the events at once")
        self._append_running = True
        try:
            await self.settle()
            drafts = [self._event(event) for event in events]
            drafts += self._deliveries(deliver)
            if self.delivery is not None:
                drafts.append(self._mark(self.delivery))
            if drafts:
                await self._append(drafts + self._confirmations())
        finally:
            self._append_running = False

    async def record_confirmations(self) -> None:
        """Append which deliveries were confirmed, if no other append has taken them along."""
        await self.settle()
        if drafts := self._confirmations():
            await self._append(drafts)

    def _event(self, event: object) -> _Draft:
        encoded = self._codec.encode(event)
        return _Draft(EVENT, encode(StoredEvent(encoded.name, encoded.body)), _Event(encoded.name, encoded.value))

    def _deliveries(self, deliver: Iterable[tuple[str, object]]) -> list[_Draft]:
        drafts: list[_Draft] = []
        stream = self.outbox.stream or self._actor.context.system.random.getrandbits(62) | 1
        for number, (to, message) in enumerate(deliver, self.outbox.last_number + 1):
            encoded = self._codec.encode(message)
            stored = StoredDelivery(stream, number, to, encoded.name, encoded.body)
            drafts.append(_Draft(DELIVERY, encode(stored), Delivery(self._id, stream, number, to, encoded.value)))
        return drafts

    def _mark(self, delivery: Delivery) -> _Draft:
        if self.inbox.has_handled(delivery):
            raise ActorError(
                f"{self._place()}: a second persist while delivery {delivery.number} of {delivery.sender!r} is handled; "
                "give all that follows from a delivery to one persist, which is all or nothing"
            )
        mark = StoredMark(delivery.sender, delivery.stream, delivery.to, delivery.number)
        return _Draft(HANDLED, encode(mark), mark)

    def _confirmations(self) -> list[_Draft]:
        numbers = self.outbox.unrecorded
        return [_Draft(CONFIRMED, encode(numbers), _Confirmed(list(numbers)))] if numbers else []

    async def _append(self, drafts: Sequence[_Draft]) -> None:
        before, at_ms = self.sequence, self._actor.context.system.clock.now_ms()
        entries = [JournalEntry(n, draft.kind, self._version, draft.payload, at_ms) for n, draft in enumerate(drafts, before + 1)]
        self._unknown = _Append(before, entries, [draft.effect for draft in drafts])
        try:
            await self._journal.append(self._id, entries, expected=before)
        except BaseException:
            # Cancelled or failed: perhaps it was stored. Before the actor handles anything else, it finds out.
            self._actor._durable_settle_soon()
            raise
        self._adopt(self._unknown)

    async def settle(self) -> None:
        """Find out whether the last append was stored, if that is not known, and go on from there.

        Raises:
            JournalConflict: another instance has appended to this id: the state is stale.
            JournalError: the journal cannot say.
            ActorError: an event that is stored could not be applied: the state is no state.
        """
        if self._broken is not None:
            raise self._broken
        unknown = self._unknown
        if unknown is None:
            return
        try:
            await self._journal.append(self._id, (), expected=unknown.before)
        except JournalConflict:
            async with aclosing(self._entries_after(unknown.before)) as stored:
                if [entry async for entry in stored] != unknown.entries:
                    raise
            self._adopt(unknown)
        else:
            self._unknown = None

    def _adopt(self, append: _Append) -> None:
        """It was stored: now it has happened."""
        self._unknown = None
        self.sequence = append.before + len(append.entries)
        for entry, effect in zip(append.entries, append.effects, strict=True):
            try:
                self._enact(effect)
            except Exception as error:
                name = effect.name if isinstance(effect, _Event) else entry.kind
                self._broken = ActorError(
                    f"{self._place()}: apply raised for entry {entry.sequence} ({name}), which is stored: {_described(error)}; "
                    "every replay meets it again until apply can take it"
                )
                self._actor._durable_settle_soon()
                raise self._broken from error
            if isinstance(effect, _Confirmed):
                del self.outbox.unrecorded[: len(effect.numbers)]
        self._actor._durable_stored({effect.to for effect in append.effects if isinstance(effect, Delivery)})

    def _place(self) -> str:
        return f"durable actor {self._id!r}"

    # -- snapshots --

    def take_snapshot(self) -> Snapshot:
        """The present state, as it will be stored.

        Raises:
            ActorError: it cannot be encoded, or would come back as something else.
            Exception: whatever `snapshot_state` raised.
        """
        if self._broken is not None:
            raise self._broken
        owed: list[StoredDelivery] = []
        for delivery in self.outbox.owed:
            encoded = self._codec.encode(delivery.message)
            owed.append(StoredDelivery(delivery.stream, delivery.number, delivery.to, encoded.name, encoded.body))
        state = self._states.encode(self._actor.snapshot_state())
        payload = encode(StoredSnapshot(state, self.outbox.stream, self.outbox.last_number, owed, self.inbox.marks))
        self.snapshot_at = self.sequence
        return Snapshot(self.sequence, self._version, payload)

    async def save_snapshot(self, snapshot: Snapshot, *, keep_events: bool) -> None:
        """Store it and delete what it makes superfluous. That it fails is logged: nothing depends on it."""
        try:
            await self._journal.save_snapshot(self._id, snapshot)
            if not keep_events:
                await self._journal.delete_before(self._id, snapshot.sequence + 1)
        except JournalError as error:
            self._actor.context.log.warning(
                "a snapshot was not stored; the next one is tried after as many entries",
                id=self._id,
                sequence=snapshot.sequence,
                error=str(error),
            )


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, ActorError) else f"{type(error).__name__}: {error}"
