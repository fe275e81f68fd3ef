"""The front of a work-pulling pool: an actor whose mailbox is the queue, and whose handlers each wait for a free worker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sage_actor._core.actor_cell import Handler, current_request
from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.reply import Reply
from sage_actor.actor.actor import Actor
from sage_actor.actor.demand import DemandWindow
from sage_actor.errors import ActorError, ActorFailed, ActorStopped, AskAbandoned
from sage_actor.routing.pool_parent import MemberRecipe, spawn_members

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.watching import Terminated

__all__ = ["PullingFront", "SubmittedCall"]


@dataclass(frozen=True, slots=True)
class SubmittedCall:
    """A call of a method of the workers that was submitted, as it lies in the queue; a dead letter of the queue shows it."""

    method: Callable[..., object]
    arguments: tuple[object, ...]
    options: dict[str, object]

    def __repr__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"{getattr(self.method, '__qualname__', self.method)}({', '.join([*map(repr, self.arguments), *options])})"


def _nothing(worker: Actor) -> None:
    """Answered as soon as the worker could begin something."""


ARE_YOU_FREE = Handler(_nothing, "are_you_free", plain=True)


class _Worker:
    """One worker: what it has asked for. It asks for no more than it can begin at once."""

    __slots__ = ("ref", "wanted", "window")

    def __init__(self, ref: ActorRef[Any], concurrency: int) -> None:
        self.ref = ref
        self.window = DemandWindow(concurrency, concurrency - 1)
        self.wanted = 0

    def takes_work(self) -> bool:
        """Whether it lives and is not being stopped."""
        return self.ref.alive and not self.ref.cell.closed


class _Item:
    """One item that has left the queue. To its cell it is what the handler awaits."""

    __slots__ = ("arguments", "front", "message", "options", "place")

    def __init__(self, front: PullingFront, message: Any, arguments: tuple[object, ...], options: dict[str, object]) -> None:
        self.front = front
        self.message = message
        self.arguments = arguments
        self.options = options
        self.place: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, object]:
        return self.front.serve(self).__await__()

    def close(self) -> None:
        """It will not be awaited: its task was cancelled before it began."""
        self.front.leave(self)


class PullingFront(Actor):
    """Hands each item, in the order of the mailbox, to a worker that is free, and waits for its answer.

    It runs with one handler for each item that the workers can have in hand, so that what nobody is free for stays in the
    mailbox: bounded, in order, subject to its overflow policy, and not yet anybody's.

    Args:
        recipe: how the workers are spawned.
        size: how many.
    """

    expected_errors = (Exception,)  # what an item's handling raises is its answer; the front goes on

    def __init__(self, recipe: MemberRecipe, size: int) -> None:
        self._recipe = recipe
        self._size = size
        self._workers: dict[ActorRef[Any], _Worker] = {}
        self._free: deque[_Worker] = deque()  # those with unmet wants, each once, longest free first
        self._line: deque[asyncio.Future[_Worker]] = deque()  # items that wait for one, first come first served

    @property
    def _lifecycle(self) -> Lifecycle:
        lifecycle: Lifecycle = self.ref.cell.lifecycle
        return lifecycle

    async def on_start(self) -> None:
        for ref in await spawn_members(self, self._recipe, range(self._size)):
            worker = _Worker(ref, self._recipe.concurrency)
            self._workers[ref] = worker
            ref.cell.lifecycle.deathwatch.call(self._worker_ended)
            self._ask_for_work(worker)

    # -- items --

    def receive(self, message: object) -> Awaitable[object]:
        """Have a worker handle what was submitted, or asked without naming a method."""
        if isinstance(message, SubmittedCall):
            return self.perform(message.method, message.arguments, message.options)
        return self.perform(message, (), {})

    def perform(self, message: Any, arguments: tuple[object, ...], options: dict[str, object]) -> Awaitable[object]:
        """Have a worker handle a message or a call of a method; awaiting it answers what the worker did.

        The item gets in line at the call, in the order of the mailbox: tasks may begin in another order.
        """
        item = _Item(self, message, arguments, options)
        self._line.append(item.place)
        self._hand_out()
        return item

    async def serve(self, item: _Item) -> object:
        """Wait for a worker, and for what it does.

        Once a worker has the item, whatever becomes of it is the worker's account: handled or dead letter, there and not here.
        """
        worker = await self._worker_for(item)
        request = current_request()
        asked = isinstance(request, Reply)
        if request is not None and request.abandoned:
            self._wants_one_more(worker)
            self._lifecycle.dead_letter(request, "its caller gave up")
            raise AskAbandoned(worker.ref.path)
        worker.window.arrived(1)
        try:
            reply: Reply[object] = worker.ref.ask(item.message, *item.arguments, **item.options)
            answer = await self._outcome(reply, request)
        except BaseException as error:
            self._look_whether_free(worker)
            if asked or not isinstance(error, Exception):
                raise
            if not isinstance(error, ActorFailed | ActorStopped):  # those have been logged, or are dead letters
                self._lifecycle.system.log_error(self._lifecycle, error, "an item that nobody waits for has failed")
            return None
        self._done(worker)
        return answer

    async def _outcome(self, reply: Reply[object], request: object) -> object:
        """What becomes of the item. A cancellation ends the wait; the worker then does what it would for any caller that is gone."""
        try:
            return await reply
        except asyncio.CancelledError:
            given_up = isinstance(request, Reply) and request.done()
            if not (given_up or self._lifecycle.ending or self._lifecycle.restarting):
                raise  # from outside: the event loop ends
            if reply.cancelled():
                raise ActorStopped(self.ref.path, "it was interrupted") from None
            return reply.result()

    # -- workers --

    async def _worker_for(self, item: _Item) -> _Worker:
        """The next free worker; who came first is served first."""
        while True:
            try:
                worker = await item.place
            except asyncio.CancelledError:
                self.leave(item)
                raise
            if worker.takes_work():
                return worker
            item.place = asyncio.get_running_loop().create_future()  # it has been stopped since it was free
            self._line.appendleft(item.place)
            self._hand_out()

    def leave(self, item: _Item) -> None:
        """An item will not be begun: it leaves the line, or gives back the worker that it was to have."""
        place = item.place
        if place in self._line:
            self._line.remove(place)
        if place.done() and not place.cancelled():
            self._wants_one_more(place.result())

    def _next_free(self) -> _Worker | None:
        while self._free:
            worker = self._free.popleft()
            if not worker.takes_work():
                worker.wanted = 0
                continue
            worker.wanted -= 1
            if worker.wanted:
                self._free.append(worker)
            return worker
        return None

    def _ask_for_work(self, worker: _Worker) -> None:
        wanted = worker.window.ask()
        if wanted:
            self._wants_one_more(worker, wanted)

    def _wants_one_more(self, worker: _Worker, count: int = 1) -> None:
        if not worker.wanted:
            self._free.append(worker)
        worker.wanted += count
        self._hand_out()

    def _hand_out(self) -> None:
        while self._line:
            if self._line[0].done():  # cancelled, and not yet gone
                del self._line[0]
                continue
            worker = self._next_free()
            if worker is None:
                return
            self._line.popleft().set_result(worker)

    def _done(self, worker: _Worker) -> None:
        """It has finished an item and could begin another."""
        worker.window.processed(1)
        self._ask_for_work(worker)

    def _look_whether_free(self, worker: _Worker) -> None:
        """The item is over, but the worker may restart, clean up, or go on with it: it is free when it gets to the next message.

        The question is asked on nobody's behalf: it must not end with the request that the item belonged to.
        """
        question: Reply[None] = Context().run(worker.ref.ask_handler, ARE_YOU_FREE, ())
        question.add_done_callback(lambda _: self._done(worker))  # or it has ended; then it is passed over

    def _worker_ended(self, ended: Terminated) -> None:
        self._workers.pop(ended.ref, None)
        lifecycle = self._lifecycle
        if self._workers or lifecycle.ending or lifecycle.restarting or lifecycle.cell.actor is not self:
            return
        reason = ended.reason
        if reason is None:
            reason = ActorError(f"work-pulling pool {self.ref.path!r}: its last worker has been stopped")
        lifecycle.stop_soon(reason)
        lifecycle.cell.kill()  # no item will ever be begun; those that wait in line become dead letters
