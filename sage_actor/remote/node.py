"""Node: one process of an actor system with workers: its links to the others, and what comes over them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sage_actor._core.actor_cell import Cell
from sage_actor._core.frame import DATA, decode, encode
from sage_actor._core.reply import Request
from sage_actor._core.segment import is_aligned
from sage_actor.actor.backend import outlives_call
from sage_actor.actor.lifecycle import Lifecycle, describe
from sage_actor.actor.portable import RemoteError
from sage_actor.errors import ActorLost, BackendError, FrameError, SageError, SerializationError, WorkerLost
from sage_actor.remote.classes import UndefinedClass
from sage_actor.remote.failures import encode_error, read_error
from sage_actor.remote.frames import (
    Answer,
    Cancel,
    Credit,
    Define,
    Demand,
    End,
    Head,
    Link,
    Message,
    Offer,
    Part,
    Stop,
    Tie,
    Watch,
    decode_head,
    encode_head,
)
from sage_actor.remote.homes import ENDED_KEPT, Homes
from sage_actor.remote.offers import Offers
from sage_actor.remote.parts import PartsUnderWay, SendingParts
from sage_actor.remote.requests import Requests, is_ask
from sage_actor.remote.standin import Standin, path_elsewhere
from sage_actor.remote.wire import Wire

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.actor.backend import Buffer, Endpoint
    from sage_actor.actor.system import ActorSystem
    from sage_actor.remote.allowed import AllowList
    from sage_actor.remote.wire import Address

__all__ = ["Node", "renumbered"]

TURN: Final = 0.002
"""Seconds of a turn of the loop that messages from others may take, handlers that answer at once included."""
LARGE: Final = 32 * 1024
"""Bytes from which a buffer is used where it lies."""
LONGEST_CHAIN: Final = 64
"""Requests of a chain that travel with an ask; a longer circle is not seen."""


class PeerLink:
    """What is known about one link: frames are counted, so that a gap is seen."""

    __slots__ = ("expected", "lost", "sent", "stalled")

    def __init__(self) -> None:
        self.sent = 0
        self.expected = 0
        self.lost: BackendError | None = None
        self.stalled: deque[bytes] | None = None
        """Frames behind one that needs a class whose definition comes over another link."""


class Elsewhere:
    """Stands in a chain of requests for an actor of another process."""

    parent = None

    def __init__(self, worker: int, number: int, path: str) -> None:
        self.worker = worker
        self.number = number
        self.remote_path = path
        self.path = path_elsewhere(path, worker)


class Node:
    """One process: whoever uses it says what to do with frames that only owners or workers get (`further`).

    Args:
        system: the actors that live here.
        job: the group's number, in every frame.
        peers: all others of the group.
        allowed: what may travel where pickles may not; None where they may.
        broken: told of a link that has a gap or carries nonsense; nothing is taken from it any more.
    """

    def __init__(
        self,
        system: ActorSystem,
        endpoint: Endpoint,
        *,
        job: int,
        peers: Iterable[int],
        allowed: AllowList | None,
        broken: Callable[[int, FrameError], None],
    ) -> None:
        self.system = system
        self.loop = system.loop
        self.endpoint = endpoint
        self.worker = endpoint.worker
        self.job = job
        self.links = {peer: PeerLink() for peer in peers}
        self.requests = Requests()
        self.homes = Homes(self)
        self.offers = Offers(self)
        self.standins: dict[tuple[int, int], Standin] = {}
        self._ended: OrderedDict[tuple[int, int], Standin] = OrderedDict()
        self.readers: set[asyncio.Task[Any]] = set()
        """Tasks of standins that read answers in parts."""
        self.further: dict[type, Callable[[int, Any, list[memoryview]], None]] = {}
        self.wire = Wire(self, self.worker, self._define, allowed)
        self._broken = broken
        self._turn_began: float | None = None
        self._take: dict[type, Callable[[int, Any, list[memoryview]], None]] = {
            Answer: self._take_answer,
            Cancel: self._take_cancel,
            Credit: self._take_credit,
            Define: self._take_define,
            Demand: self._take_demand,
            End: self._take_end,
            Offer: self._take_offer,
            Part: self._take_part,
            Stop: self._take_stop,
            Tie: self._take_tie,
            Watch: self._take_watch,
        }

    # -- out --

    def send(self, to: int, head: Head, payload: Sequence[Buffer] = ()) -> int:
        """Send one frame; how many bytes its payload has. To a lost worker nothing is sent."""
        link = self.links[to]
        if link.lost is not None:
            return 0
        frame = encode(DATA, self.job, 0, self.worker, link.sent, 0, [encode_head(head), *payload])
        link.sent += 1
        self.endpoint.send(to, frame)
        return sum(memoryview(part).nbytes for part in payload)

    def answer(self, to: int, request: int, value: object, error: BaseException | None) -> None:
        """Answer a request; a value that cannot travel becomes the error that says so. Nothing for a tell."""
        if request == 0:
            return
        if error is None:
            try:
                form, payload = self.wire.encode(value, "an answer")
            except SerializationError as unfit:
                error = unfit
            else:
                self.send(to, Answer(request, False, form), payload)
                return
        form, payload = encode_error(self.wire, error)
        self.send(to, Answer(request, True, form), payload)

    def send_end(self, to: int, number: int, reason: BaseException | None) -> None:
        """Say that an actor of this process has ended."""
        form, payload = self.wire.encode(None, "") if reason is None else encode_error(self.wire, reason)
        self.send(to, End(number, form), payload)

    def _define(self, numbers: list[int], data: bytes) -> None:
        for peer in self.links:
            self.send(peer, Define(numbers), [data])

    # -- in --

    def receive(self, sender: int, frame: memoryview) -> None:
        """Every frame comes in here."""
        link = self.links.get(sender)
        if link is None or link.lost is not None:
            return
        try:
            header, parts = decode(frame)
            if header.job != self.job or header.sequence != link.expected:
                raise FrameError(
                    f"from worker {sender}: frame {header.sequence} of group {header.job:#x} came where {link.expected} of {self.job:#x} "
                    "was due; what was lost cannot be made up for"
                )
        except FrameError as error:
            self._broken(sender, error)
            return
        link.expected += 1
        if link.stalled is not None:
            link.stalled.append(bytes(frame))
            return
        try:
            self._dispatch(sender, parts)
        except UndefinedClass:
            link.stalled = deque((bytes(frame),))

    def _dispatch(self, sender: int, parts: list[memoryview]) -> None:
        try:
            head = decode_head(parts[0])
        except msgspec.MsgspecError as error:
            self._broken(
                sender, FrameError(f"from worker {sender}: a frame that says nothing known ({error}); run the same release everywhere")
            )
            return
        payload = parts[1:]
        if type(head) is Message:
            nbytes = sum(part.nbytes for part in payload)
            self.homes.take(sender, head, self._own(payload), nbytes)
            return
        kind: type = head.__class__
        take = self._take.get(kind) or self.further[kind]
        take(sender, head, self._own(payload))

    def _own(self, payload: list[memoryview]) -> list[memoryview]:
        """The payload with its buffers where they may stay; its first part is read during the call.

        A large one stays where it lies if its memory does; a small one is copied, since whoever keeps it would keep the frame.
        """
        if len(payload) < 2:
            return payload
        return [payload[0], *[part if _may_stay(part) else memoryview(bytearray(part)) for part in payload[1:]]]

    def _take_define(self, sender: int, head: Define, payload: list[memoryview]) -> None:
        self.wire.take_classes(head.numbers, payload[0])
        self._take_stalled()

    def _take_stalled(self) -> None:
        """Something is known of a class now: go on with what may have waited for that."""
        for other, link in self.links.items():
            while link.stalled:
                frame = link.stalled.popleft()
                try:
                    self._dispatch(other, decode(frame)[1])
                except UndefinedClass:
                    link.stalled.appendleft(frame)
                    break
            else:
                link.stalled = None

    def _take_answer(self, sender: int, head: Answer, payload: list[memoryview]) -> None:
        request = self.requests.find(head.request)
        if request is None:
            return
        value: object = None
        error: BaseException | None = None
        try:
            if head.failed:
                error = read_error(self.wire, head.form, payload, sender)
            else:
                value = self.wire.decode(head.form, payload)
        except UndefinedClass:
            raise
        except Exception as failed:  # noqa: BLE001 - user classes, while they are rebuilt; whoever asked is told
            error = SerializationError("an answer", f"it could not be read here: {describe(failed)}", "")
            error.__cause__ = failed
        self.requests.take(head.request)
        request.answered(value, error)

    def _take_part(self, sender: int, head: Part, payload: list[memoryview]) -> None:
        request = self.requests.find(head.request)
        if isinstance(request, PartsUnderWay):
            try:
                request.part(self.wire.decode(head.form, payload))
            except UndefinedClass:
                raise
            except Exception as failed:  # noqa: BLE001 - user classes, while they are rebuilt; the reader is told
                self.requests.take(head.request)
                self.send(sender, Cancel(head.request))
                request.answered(None, SerializationError("a part of an answer", f"it could not be read here: {describe(failed)}", ""))

    def _take_demand(self, sender: int, head: Demand, payload: list[memoryview]) -> None:
        sending = self.homes.serving.get((sender, head.request))
        if isinstance(sending, SendingParts):
            sending.demand(head.parts)

    def _take_cancel(self, sender: int, head: Cancel, payload: list[memoryview]) -> None:
        serving = self.homes.serving.pop((sender, head.request), None)
        if serving is not None:
            serving.cancel()

    def _take_credit(self, sender: int, head: Credit, payload: list[memoryview]) -> None:
        standin = self.standins.get((sender, head.target))
        if standin is not None:
            standin.credit(head.messages, head.nbytes)

    def _take_watch(self, sender: int, head: Watch, payload: list[memoryview]) -> None:
        self.homes.watch(sender, head.target)

    def _take_end(self, sender: int, head: End, payload: list[memoryview]) -> None:
        standin = self.standins.get((sender, head.target))
        if standin is None:
            return
        try:
            reason = read_error(self.wire, head.form, payload, sender)
        except UndefinedClass:
            raise
        except Exception as failed:  # noqa: BLE001 - a user's exception class, while it is rebuilt; the end is told all the same
            reason = RemoteError("an error that could not be read here", describe(failed))
        standin.bury(reason)

    def _take_stop(self, sender: int, head: Stop, payload: list[memoryview]) -> None:
        def stop(lifecycle: Lifecycle) -> None:
            _ = lifecycle.finish(None, drain=head.drain, timeout=head.timeout, at_once=head.at_once)

        self.homes.stop(sender, head.target, stop, drain=head.drain, limit=head.timeout)

    def _take_tie(self, sender: int, head: Tie, payload: list[memoryview]) -> None:
        home = self.homes.find(head.target)
        other: ActorRef[Any] = self.wire.decode(head.form, payload)
        standin = other.cell.lifecycle
        if home is None or not isinstance(standin, Standin):
            return
        deathwatch = home.lifecycle.deathwatch
        if head.tied:
            deathwatch.watch(standin.as_lifecycle(), only_failures=True)
            standin.deathwatch.mirror(home.lifecycle)
        else:
            deathwatch.unwatch(standin.as_lifecycle())
            standin.deathwatch.forget(home.lifecycle)

    def _take_offer(self, sender: int, head: Offer, payload: list[memoryview]) -> None:
        self.offers.take(head.key, self.wire.decode(head.form, payload), head.offered)

    def turn_is_over(self) -> bool:
        """Whether the messages taken in this turn of the loop have had their time."""
        now = self.system.clock.monotonic()
        if self._turn_began is None:
            self._turn_began = now
            self.loop.call_soon(self._next_turn)
        return now - self._turn_began > TURN

    def _next_turn(self) -> None:
        self._turn_began = None

    # -- which actor is which --

    def address_of(self, ref: ActorRef[Any]) -> Address:
        """Where an actor lives; see `RefTable`."""
        lifecycle: Any = ref.cell.lifecycle
        if isinstance(lifecycle, Standin) and lifecycle.node is self:
            return lifecycle.worker, lifecycle.number, lifecycle.remote_path, lifecycle.cls
        if not isinstance(lifecycle, Lifecycle) or lifecycle.system is not self.system:
            raise SerializationError(
                f"the ref of actor {ref.path!r}", f"it belongs to another actor system than {self.system.name!r}", "send it within its own"
            )
        return self.worker, self.homes.number_of(lifecycle), lifecycle.path, _class_of(lifecycle)

    def ref_at(self, address: Address) -> ActorRef[Any]:
        """The ref for an address; see `RefTable`."""
        worker, number, path, cls = address
        if worker == self.worker:
            home = self.homes.find(number)
            if home is not None:
                return home.ref
        standin = self.standins.get((worker, number)) or self._ended.get((worker, number))
        if standin is None:
            standin = Standin(self, worker, number, path, cls)
            link = self.links.get(worker)
            if link is None:
                standin.bury(None)  # one of ours, which ended long ago
            elif link.lost is not None:
                standin.bury(self._actor_lost(standin.path, worker, link.lost))
            else:
                self.standins[worker, number] = standin
                self.send(worker, Watch(number))
        else:
            standin.learn(cls)
        return standin.ref

    def cell_at(self, worker: int, number: int, path: str) -> Cell:
        """The cell that stands for an actor in a chain of requests."""
        if worker == self.worker:
            home = self.homes.find(number)
            if home is not None:
                return home.ref.cell
        standin = self.standins.get((worker, number))
        if standin is not None:
            return standin.cell
        stands = Elsewhere(worker, number, path)
        return Cell(path_elsewhere(path, worker), self.loop, Context(), stands, capacity=1, overflow="wait", concurrency=2)

    def chain_of(self, request: Request | None) -> list[Link]:
        """Who waits for an ask that is made on behalf of a request, innermost first."""
        chain: list[Link] = []
        while request is not None and len(chain) < LONGEST_CHAIN:
            parent = request.parent
            stands_for_its_parent = type(request) is Request and is_ask(parent) and parent.target is request.target
            if not request.finished and not stands_for_its_parent:
                lifecycle: Any = request.target.lifecycle
                if isinstance(lifecycle, Lifecycle):
                    chain.append((self.worker, self.homes.number_of(lifecycle), lifecycle.path))
                else:
                    chain.append((lifecycle.worker, lifecycle.number, lifecycle.remote_path))
            request = parent
        return chain

    def forget(self, standin: Standin) -> None:
        """The actor it stands for has ended. Some are kept, so that a ref that comes once more is the same one."""
        key = (standin.worker, standin.number)
        self.standins.pop(key, None)
        self._ended[key] = standin
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    # -- loss --

    def lost(self, worker: int, error: BackendError) -> None:
        """A worker is gone, or the link to it: its actors are lost, and nothing more comes from it."""
        link = self.links[worker]
        if link.lost is not None:
            return
        link.lost = error
        link.stalled = None
        self.wire.classes.lost(worker)
        self._take_stalled()
        self.homes.lost(worker)
        self.requests.lost(worker, lambda request: self._loss_of(getattr(request, "path", ""), worker, error))
        for standin in [standin for standin in self.standins.values() if standin.worker == worker]:
            standin.bury(self._actor_lost(standin.path, worker, error))

    def _loss_of(self, path: str, worker: int, error: BackendError) -> SageError:
        return self._actor_lost(path, worker, error) if path else error

    @staticmethod
    def _actor_lost(path: str, worker: int, error: BackendError) -> ActorLost:
        lost = ActorLost(path, worker - 1, str(error).partition("; its last words")[0])
        lost.__cause__ = error
        return lost

    async def aclose(self) -> None:
        """Give up what is being done for others, and readings of answers in parts that nobody goes on with."""
        self.homes.give_up()
        readers = set(self.readers)
        for reader in readers:
            reader.cancel()
        if readers:
            await asyncio.wait(readers)

    async def close_standins(self, drain: bool, timeout: float) -> None:
        """Send what waits to be sent, and take nothing more."""
        standins = list(self.standins.values())
        if standins:
            await asyncio.gather(*(standin.close(drain, timeout) for standin in standins))


def _may_stay(part: memoryview) -> bool:
    return part.nbytes >= LARGE and outlives_call(part) and is_aligned(part, 16)


def _class_of(lifecycle: Lifecycle) -> type | None:
    actor: object = lifecycle.cell.actor
    if actor is not None:
        return type(actor)
    return lifecycle.factory if isinstance(lifecycle.factory, type) else None


def renumbered(error: BackendError) -> BackendError:
    """A loss as users count workers: from 0."""
    if isinstance(error, WorkerLost):
        return WorkerLost(error.worker - 1, error.pid, error.exit_code, error.last_words, error.place)
    return error
