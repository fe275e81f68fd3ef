"""DurableActor: an actor whose state is what its journal makes of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast, final
from weakref import WeakKeyDictionary

from sage_actor._core.actor_cell import current_request
from sage_actor.actor.actor import Actor
from sage_actor.actor.handlers import handler_of
from sage_actor.actor.instance import factory_name
from sage_actor.actor.supervision import ExponentialDelay, RestartStrategy
from sage_actor.durable.codec import Codec, StateCodec
from sage_actor.durable.delivery import Courier, Delivery
from sage_actor.durable.entity import Entity
from sage_actor.durable.journal import Journal
from sage_actor.errors import ActorError, BadCall

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor._core.reply import Reply

__all__ = ["DurableActor"]

E = TypeVar("E")

_RECORD_AFTER: Final = 0.05  # seconds in which the next append may take confirmations along; what is lost of them is sent again

_codecs: WeakKeyDictionary[type, tuple[Codec, StateCodec]] = WeakKeyDictionary()


class DurableActor(Actor, Generic[E]):
    """An actor whose state is the sum of the events in its journal, whatever ends its instance or its process.

        class Account(DurableActor[Deposited]):
            events = (Deposited,)

            def __init__(self, journal: Journal) -> None:
                super().__init__(journal)
                self.balance = 0

            def apply(self, event: Deposited) -> None:
                self.balance += event.amount

            async def deposit(self, amount: int) -> int:
                await self.persist(Deposited(amount))
                return self.balance

        account = await system.spawn(Account, journal, name="alice")

    Handlers decide and `persist` events; `apply` alone changes the state, when an event has become durable and when it is
    replayed. While a handler persists, the actor handles nothing else. Every start (spawn, restart, end of passivation)
    reads the newest snapshot and the events behind it; messages wait meanwhile. So whatever fails, memory and journal
    agree: an append that fails, fails the actor with its state unchanged, and one of which it is not known whether it was
    stored is found out about before the next message.

    One instance of an id should live at a time. Of two, the one that writes second gets `JournalConflict`, and restarts
    from what the other wrote.

    Attributes:
        events: classes of events: structs of msgspec, dataclasses, or types that msgspec knows by itself. The name of a class is
            its tag in the journal; a field with a default may be added at any time.
        messages: classes of messages that are sent by ``persist(deliver=...)``.
        state_class: type of what `snapshot_state` returns; `object` for builtins that come back as they are.
        event_version: version of all these classes. Older ones that are stored go through `upgrade` and `upgrade_state`.
        snapshot_every: a snapshot is taken after so many journal entries; 0 for never.
        keep_events: leave entries in the journal that a snapshot has made superfluous.
        redelivery: the delays between tries of one delivery.
    """

    events: ClassVar[tuple[type, ...]] = ()
    messages: ClassVar[tuple[type, ...]] = ()
    state_class: ClassVar[object] = object
    event_version: ClassVar[int] = 1
    snapshot_every: ClassVar[int] = 0
    keep_events: ClassVar[bool] = False
    hidden_methods: ClassVar[frozenset[str]] = frozenset(
        {"apply", "persist", "on_recovered", "snapshot_state", "restore_state", "upgrade", "upgrade_state"}
    )
    redelivery: ClassVar[RestartStrategy] = ExponentialDelay(attempts=None, delay=0.1, max_delay=30.0)

    _durable_journal: Journal | None = None
    _durable_id: str | None = None
    _durable_entity: Entity | None = None
    _durable_courier: Courier | None = None
    _durable_saving: bool = False

    def __init__(self, journal: Journal, *, id: str | None = None) -> None:
        """To be called first by the ``__init__`` of a subclass.

        Args:
            journal: an open journal; whoever opened it closes it, after the system.
            id: what the actor is called in the journal, for ever. Default: its path, so then give it and its parents names.
        """
        self._durable_journal = journal
        self._durable_id = id

    def __init_subclass__(cls, **options: Any) -> None:
        """Check the class as far as it can be checked now.

        Raises:
            ActorError: a class that cannot be stored, `on_start` overridden, or a hook that is missing.
        """
        super().__init_subclass__(**options)
        base: type[DurableActor[Any]] = DurableActor
        if cls.on_start is not base.on_start:
            raise ActorError(f"{cls.__qualname__} overrides on_start, which recovers a durable actor; override on_recovered instead")
        if cls.events and cls.apply is base.apply:
            raise ActorError(f"{cls.__qualname__} declares events and no `apply` that would do something with them")
        has_state = cls.snapshot_state is not base.snapshot_state and cls.restore_state is not base.restore_state
        if cls.snapshot_every and not has_state:
            raise ActorError(f"{cls.__qualname__}: snapshot_every needs both hooks, snapshot_state and restore_state")
        try:
            _codecs_of(cls)
        except NameError:
            pass  # an annotation names something that is defined further below; the first spawn looks again

    # -- what a subclass writes --

    def apply(self, event: E) -> None:
        """Change the state as an event says, and do nothing else: it is called again for every replay. May not refuse.

        An event gets here decoded from its bytes, also the first time. Raising ends this instance (its memory agrees with
        nothing any more), and each one after it that replays the event: fix `apply`.
        """
        raise ActorError(f"{type(self).__qualname__} has no `apply`")

    async def on_recovered(self) -> None:
        """Called once each life, when the state is back and before the first message; what `on_start` is to other actors. It may
        `persist`. A failure here is a failed start."""

    def snapshot_state(self) -> object:
        """The state from which `restore_state` can go on: of the type `state_class`, or made of builtins. Encoded before anything
        else is handled, so it may be the living objects themselves."""
        raise ActorError(f"{type(self).__qualname__} has no `snapshot_state`")

    def restore_state(self, state: Any) -> None:
        """Take over a state that `snapshot_state` returned once. Called on a fresh instance, before all events."""
        raise ActorError(f"there is a snapshot, and {type(self).__qualname__} has no `restore_state` for it")

    def upgrade(self, version: int, name: str, data: Any) -> tuple[str, Any]:
        """Bring a stored event or owed message of an older version to the present one.

        Args:
            version: the version it was written with, below `event_version`.
            name: name of its class then.
            data: its fields then, as builtins (a dict for structs and dataclasses).

        Returns:
            Name of a class that is declared now, and its fields.
        """
        raise ActorError(f"its version is {version}, {type(self).__qualname__} is at {self.event_version} and has no `upgrade`")

    def upgrade_state(self, version: int, data: Any) -> Any:
        """The same for what a snapshot holds: builtins in, builtins out."""
        raise ActorError(f"its version is {version}, {type(self).__qualname__} is at {self.event_version} and has no `upgrade_state`")

    # -- what a handler uses --

    async def persist(self, *events: E, deliver: Iterable[tuple[ActorRef[Any] | str, object]] = ()) -> None:
        """Store events, and messages that are owed because of them, all or nothing; then apply the events in order.

        Returns when they are durable and applied. After that each message is sent to its receiver's `receive`, by ask, until
        that has returned: to each receiver in order, one at a time, again after growing delays, also after a restart or in a
        new process. A receiver that is a `DurableActor` handles it once in effect: its own `persist`, of which
        there may be one while it handles a delivery, stores with the events that this delivery was handled, and copies
        are confirmed unhandled. (If it persists nothing, nothing is remembered; ``persist()`` without events remembers.) Any
        other actor handles it at least once. Whatever a receiver raises, expected errors too, means "not
        handled", and keeps what is owed to it after that waiting: a refusal is something to persist or to answer, not to raise.

        Cancelling it does not tell whether it was stored. The actor finds out before it handles anything else.

        Args:
            events: of classes declared in `events`.
            deliver: pairs of a receiver and a message of a class declared in `messages`. Receivers are remembered by their
                paths, and looked up in this system for each try.

        Raises:
            ActorError: something cannot be stored (nothing was); called outside of this actor's handlers, twice at a time, or a
                second time while a delivery is handled; or `apply` raised (all is stored).
            JournalConflict: another instance has written to this id.
            JournalUnavailable: not stored, as far as is known. Left alone it fails the actor, which recovers from the journal.
        """
        request = current_request()
        if request is None or request.target is not self.context.ref.cell:
            raise ActorError(f"{self._durable_name()}: persist belongs in a handler of this actor, which then handles nothing else")
        addressed = [(_path_of(to), message) for to, message in deliver]
        await self._recovered().persist(events, addressed)

    @property
    def persistence_id(self) -> str:
        """What the actor is called in its journal."""
        return self.context.ref.path if self._durable_id is None else self._durable_id

    @property
    def sequence(self) -> int:
        """The last journal entry whose effect the state holds; 0 if there is none."""
        return self._recovered().sequence

    @property
    def owed(self) -> tuple[Delivery, ...]:
        """Deliveries that are not confirmed, oldest first."""
        return self._recovered().outbox.owed

    @property
    def delivery(self) -> Delivery | None:
        """The delivery that is being handled; None for any other message."""
        return self._recovered().delivery

    # -- the runtime's side --

    @final
    async def on_start(self) -> None:
        """Recover; then `on_recovered`, then what is owed is sent again.

        Raises:
            ActorError: the set-up is wrong, or something stored cannot be understood, with the id and the sequence.
            JournalError: the journal cannot be read.
        """
        journal = self._durable_journal
        if journal is None:
            raise ActorError(f"{type(self).__qualname__}.__init__ must call super().__init__(journal)")
        self._refuse_settings()
        entity = Entity(self, journal, self.persistence_id, *_codecs_of(type(self)))
        await entity.recover()
        self._durable_entity = entity
        self._durable_courier = Courier(
            self, entity.outbox, self.redelivery, ask=_ask, tick=self._durable_send, confirmed=self._durable_confirmed
        )
        recovered: object = self.on_recovered()
        if inspect.isawaitable(recovered):
            await recovered
        self._durable_courier.send_all()

    def _recovered(self) -> Entity:
        if self._durable_entity is None:
            raise ActorError(f"{self._durable_name()} has not recovered yet; do this in on_recovered or in a handler")
        return self._durable_entity

    def _durable_name(self) -> str:
        return f"durable actor {self.persistence_id!r}"

    def _refuse_settings(self) -> None:
        cell: Any = self.context.ref.cell
        if cell.concurrency != 1 or cell.reentrant:
            raise ActorError(
                f"{self._durable_name()} was spawned with concurrency above 1 or reentrant=True: its events would be decided on a state "
                "that changes meanwhile; spawn it with neither"
            )
        lifecycle = None if self._durable_id is not None else cell.lifecycle
        while lifecycle is not None:
            if re.fullmatch(re.escape(factory_name(lifecycle.factory)) + r"-\d+", lifecycle.name):
                raise ActorError(
                    f"{self._durable_name()} would be found in the journal by a name that was made up ({lifecycle.name!r}) and differs "
                    'the next time; spawn with name="...", or give DurableActor.__init__ an id'
                )
            lifecycle = lifecycle.parent

    def _durable_settle_soon(self) -> None:
        # From its entity: nothing else is handled before it is known what was stored.
        self.context.ref.cell.signal(_SETTLE, ())

    def _durable_stored(self, receivers: Collection[str]) -> None:
        # From its entity: an append has become durable, with deliveries to these paths.
        if self._durable_courier is not None:
            for receiver in receivers:
                self._durable_courier.send(receiver)
        entity = self._recovered()
        if entity.outbox.unrecorded:  # they came while the append was under way
            self.context.timers.once("confirmations", _RECORD_AFTER, self._durable_record)
        if self.snapshot_every and entity.sequence - entity.snapshot_at >= self.snapshot_every and not self._durable_saving:
            self._durable_saving = True
            self.context.ref.cell.signal(_SNAPSHOT, ())

    def _durable_send(self, receiver: str) -> None:
        if self._durable_courier is not None:
            self._durable_courier.send(receiver)

    def _durable_confirmed(self) -> None:
        if len(self._recovered().outbox.unrecorded) == 1:  # the first of them starts the clock
            self.context.timers.once("confirmations", _RECORD_AFTER, self._durable_record)

    async def _durable_record(self) -> None:
        await self._recovered().record_confirmations()

    def _durable_snapshot(self) -> None:
        entity = self._recovered()
        try:
            snapshot = entity.take_snapshot()
        except BaseException:
            self._durable_saving = False
            raise

        async def save() -> None:
            try:
                await entity.save_snapshot(snapshot, keep_events=self.keep_events)
            finally:
                self._durable_saving = False

        self.context.system.start_soon(save(), f"snapshot of {self.persistence_id}")

    async def _durable_take(self, delivery: Delivery) -> None:
        entity = self._recovered()
        if entity.inbox.has_handled(delivery):
            return
        entity.delivery = delivery
        try:
            result = self.receive(delivery.message)
            if inspect.isawaitable(result):
                await result
        finally:
            entity.delivery = None


def _codecs_of(cls: type[DurableActor[Any]]) -> tuple[Codec, StateCodec]:
    """Raises:
    ActorError: something that the class declares cannot be stored.
    NameError: an annotation names something that is not defined (yet).
    """
    found = _codecs.get(cls)
    if found is None:
        owner = cls.__qualname__
        found = _codecs[cls] = (Codec(owner, (*cls.events, *cls.messages)), StateCodec(owner, cls.state_class))
    return found


def _path_of(to: ActorRef[Any] | str) -> str:
    path = to if isinstance(to, str) else to.path
    if not path:
        raise ActorError("persist: a delivery needs the path of its receiver, and got an empty one")
    return path


async def _settle(actor: DurableActor[Any]) -> None:
    if actor._durable_entity is not None:
        await actor._durable_entity.settle()


async def _take(actor: Actor, delivery: Delivery) -> None:
    """What a delivery calls, whoever stands behind the ref by then."""
    if type(actor).receive is Actor.receive:
        raise BadCall(actor.ref.path, f"{type(actor).__name__} has no `receive` for deliveries")
    if isinstance(actor, DurableActor):
        await cast("DurableActor[Any]", actor)._durable_take(delivery)
        return
    result = actor.receive(delivery.message)
    if inspect.isawaitable(result):
        await result


def _snapshot(actor: Actor) -> None:
    cast("DurableActor[Any]", actor)._durable_snapshot()


def _ask(ref: ActorRef[Any], delivery: Delivery) -> Reply[Any]:
    actor = ref.cell.actor
    if actor is None or isinstance(actor, DurableActor):
        return ref.ask_handler(_TAKE, (delivery,))
    return ref.ask(delivery.message)  # to its present behaviour; a fresh instance has none but `receive`


_TAKE: Final = handler_of(_take, "delivery")
_SETTLE: Final = handler_of(_settle, "settle")
_SNAPSHOT: Final = handler_of(_snapshot, "snapshot")
