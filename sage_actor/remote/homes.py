"""The actors of this process that others have refs of: their numbers, and the ways by which messages come to them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Protocol

from sage_actor._core.actor_cell import current_request_variable
from sage_actor._core.reply import Call, Request
from sage_actor.actor.lifecycle import describe
from sage_actor.errors import ActorError, ActorStopped, BadCall, MailboxFull
from sage_actor.remote.classes import UndefinedClass
from sage_actor.remote.frames import Credit, Link, Message
from sage_actor.remote.parts import SendingParts
from sage_actor.remote.requests import release

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor._core.reply import Reply
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.actor.watching import Terminated
    from sage_actor.remote.node import Node

__all__ = ["ENDED_KEPT", "Homes", "Inlet"]

ENDED_KEPT: Final = 1000
"""Ended actors whose refs are kept, on both sides: a message that comes too late is a dead letter with an address."""
CREDIT_AFTER: Final = 64
CREDIT_AFTER_BYTES: Final = 2 << 20
"""Credit goes back when so many messages or bytes of it have gathered; both are a quarter of the windows."""

Content = tuple[tuple[object, ...], dict[str, object]] | None
"""Arguments and options of a call; None for a message to `receive`."""


class Cancellable(Protocol):
    """What can be given up from elsewhere."""

    def cancel(self) -> object:
        """Give it up."""
        ...


class Home:
    """One actor of this process that others know by a number."""

    __slots__ = ("inlets", "lifecycle", "number", "ref", "watchers")

    def __init__(self, number: int, lifecycle: Lifecycle) -> None:
        self.number = number
        self.lifecycle = lifecycle
        self.ref: ActorRef[Any] = lifecycle.ref
        self.watchers: dict[int, None] = {}
        self.inlets: dict[int, Inlet] = {}


class Homes:
    """All of them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._last = 0
        self._of_lifecycle: dict[Lifecycle, Home] = {}
        self._of_number: dict[int, Home] = {}
        self._ended: OrderedDict[int, Home] = OrderedDict()
        self.serving: dict[tuple[int, int], Cancellable] = {}
        """What is being done for others, by who asked and the number of the request."""

    def number_of(self, lifecycle: Lifecycle) -> int:
        """The actor's number; from now on its end is told to those who watch it."""
        home = self._of_lifecycle.get(lifecycle)
        if home is None:
            self._last += 1
            home = Home(self._last, lifecycle)
            self._of_lifecycle[lifecycle] = home
            if lifecycle.cell.state_name == "stopped":
                self._keep_ended(home)
                return home.number
            self._of_number[home.number] = home
            lifecycle.deathwatch.call(partial(self._actor_ended, home))
        return home.number

    def find(self, number: int) -> Home | None:
        """The actor of a number, ended lately or not."""
        return self._of_number.get(number) or self._ended.get(number)

    def watch(self, sender: int, number: int) -> None:
        """Somebody elsewhere has a ref of an actor: the end is told, at once if it has come."""
        home = self._of_number.get(number)
        if home is not None:
            home.watchers[sender] = None
        else:
            ended = self._ended.get(number)
            self._node.send_end(sender, number, None if ended is None else ended.lifecycle.reason)

    def take(self, sender: int, head: Message, payload: list[memoryview], nbytes: int) -> None:
        """A message has come.

        Raises:
            UndefinedClass: it names a class whose definition has not come yet; nothing has been done.
        """
        home = self.find(head.target)
        if home is None:
            self._node.answer(sender, head.request, None, ActorStopped(f"number {head.target}", "it ended long ago"))
            if not head.request:
                self._node.system.log.warning("a message for an actor that ended long ago is lost", sender=sender, number=head.target)
            return
        inlet = home.inlets.get(sender)
        if inlet is None:
            inlet = home.inlets[sender] = Inlet(self._node, sender, home)
        inlet.take(head, payload, nbytes)

    def stop(self, sender: int, number: int, stop: Callable[[Lifecycle], object], *, drain: bool, limit: float) -> None:
        """End an actor for somebody elsewhere: when draining, behind what that one has sent before, for which it has `limit` seconds."""
        home = self._of_number.get(number)
        if home is None:
            return

        def begin() -> None:
            if home.lifecycle.cell.state_name != "stopped":
                stop(home.lifecycle)

        inlet = home.inlets.get(sender)
        if inlet is None or not drain or inlet.pumping is None:
            begin()
            return
        alarm = self._node.system.clock.call_later(limit, begin)

        def in_turn() -> None:
            alarm.cancel()
            begin()

        inlet.then(in_turn)

    async def delivered(self, limit: float) -> None:
        """Return when what has come stands in the mailboxes, or after `limit` seconds."""
        inlets = [inlet for home in self._of_number.values() for inlet in home.inlets.values()]
        over: asyncio.Future[None] = self._node.loop.create_future()
        alarm = self._node.system.clock.call_later(limit, partial(release, over))
        try:
            for inlet in inlets:
                while inlet.pumping is not None and not over.done():
                    await asyncio.wait({inlet.pumping, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()

    def lost(self, worker: int) -> None:
        """Nothing more comes from a worker, and it waits for nothing."""
        for home in (*self._of_number.values(), *self._ended.values()):
            home.watchers.pop(worker, None)
            home.inlets.pop(worker, None)
        for key in [key for key in self.serving if key[0] == worker]:
            self.serving.pop(key).cancel()

    def give_up(self) -> None:
        """Nothing is done for others any more."""
        while self.serving:
            self.serving.popitem()[1].cancel()

    def _actor_ended(self, home: Home, ended: Terminated) -> None:
        self._of_number.pop(home.number, None)
        self._keep_ended(home)
        watchers, home.watchers = home.watchers, {}
        for watcher in watchers:
            self._node.send_end(watcher, home.number, ended.reason)

    def _keep_ended(self, home: Home) -> None:
        self._ended[home.number] = home
        while len(self._ended) > ENDED_KEPT:
            _, forgotten = self._ended.popitem(last=False)
            del self._of_lifecycle[forgotten.lifecycle]


class _Queued:
    """Stands among what is served for a request whose turn to be delivered has not come. Given up, it is not there any more."""

    def cancel(self) -> None:
        """Nothing of it has begun."""


_QUEUED: Final = _Queued()


async def _awaited(waits: Coroutine[Any, Any, object]) -> None:
    await waits


def _as_sent(function: Callable[..., Any] | None, content: Content, message: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a ref is given for a message that has come."""
    return ((message,), {}) if content is None or function is None else ((function, *content[0]), content[1])


class Inlet:
    """The way of one process's messages into one actor's mailbox: in order, and held where the mailbox is full."""

    __slots__ = ("_home", "_messages", "_methods", "_nbytes", "_queue", "_table", "node", "pumping", "ref", "sender")

    def __init__(self, node: Node, sender: int, home: Home) -> None:
        self.node = node
        self.sender = sender
        self.ref = home.ref
        self._home = home
        self._queue: deque[Callable[[], Coroutine[Any, Any, object] | None]] = deque()
        self.pumping: asyncio.Task[None] | None = None
        self._messages = 0
        self._nbytes = 0
        self._table: object = None
        self._methods: dict[str, Callable[..., Any]] = {}

    def take(self, head: Message, payload: list[memoryview], nbytes: int) -> None:
        """One message has come; raises `UndefinedClass` before anything is done."""
        content: Content = None
        message: object = None
        wire = self.node.wire
        try:
            if head.method:
                content = wire.decode_call(head.form, payload)
            else:
                message = wire.decode(head.form, payload)
        except UndefinedClass:
            raise
        except Exception as error:  # noqa: BLE001 - user classes, while they are rebuilt
            problem = f"it could not be read here: {describe(error)}"
            self.then(partial(self._refuse, head, message, problem, nbytes))
            return
        if head.request:
            self.node.homes.serving[self.sender, head.request] = _QUEUED
        deliver = partial(self._deliver, head, content, message, nbytes)
        cell = self.ref.cell
        around = any(worker == self.node.worker and number == self._home.number for worker, number, _ in head.chain)
        if around and (cell.reentrant or cell.concurrency == 1):  # others have it stand in line
            self._at_once(deliver)
        else:
            self.then(deliver)

    def _at_once(self, step: Callable[[], Coroutine[Any, Any, object] | None]) -> None:
        """What has come around to the actor, which waits for it: as for those who live here, it does not wait behind others."""
        waits = step()
        if waits is not None:
            self.node.system.start_soon(_awaited(waits), f"mail from worker {self.sender} for {self.ref.path}")

    def then(self, step: Callable[[], Coroutine[Any, Any, object] | object]) -> None:
        """Do something behind what has come before."""
        made: Any = step
        self._queue.append(made)
        if self.pumping is None:
            self._pump()

    def _pump(self) -> None:
        while self._queue:
            # Asks of idle actors are answered as they come: a burst of them must not keep the loop to itself.
            waits = asyncio.sleep(0) if self.node.turn_is_over() else self._queue.popleft()()
            if asyncio.iscoroutine(waits):
                task = self.node.system.start_task(self._wait(waits), f"mail from worker {self.sender} for {self.ref.path}")
                self.pumping = task
                return

    async def _wait(self, waits: Coroutine[Any, Any, object]) -> None:
        try:
            await waits
        finally:
            self.pumping = None
            self._pump()

    # -- one message --

    def _deliver(self, head: Message, content: Content, message: object, nbytes: int) -> Coroutine[Any, Any, object] | None:
        function: Callable[..., Any] | None = None
        if head.method:
            function = self._method(head.method)
            if function is None:
                problem = f"{head.method} is no method of its class there; run the same code everywhere"
                self._refuse(head, content, problem, nbytes)
                return None
        if head.request and self.node.homes.serving.pop((self.sender, head.request), None) is None:
            self._dead(*_as_sent(function, content, message), "its caller gave up")
            self._taken(nbytes)
            return None
        context = self._context(head.chain)
        if head.demand:
            return self._stream(head, function, content, context, nbytes)
        if head.request:
            self._ask(head, function, content, message, context, nbytes)
            return None
        return self._tell(function, content, message, nbytes)

    def _tell(
        self, function: Callable[..., Any] | None, content: Content, message: object, nbytes: int
    ) -> Coroutine[Any, Any, object] | None:
        arguments, options = _as_sent(function, content, message)
        try:
            self.ref.tell_nowait(*arguments, **options)
        except MailboxFull:
            return self._tell_when_room(arguments, options, nbytes)
        except ActorError as error:
            self._dead(arguments, options, describe(error))
        self._taken(nbytes)
        return None

    async def _tell_when_room(self, arguments: tuple[Any, ...], options: dict[str, Any], nbytes: int) -> None:
        try:
            await self.ref.tell(*arguments, **options)
        except MailboxFull as error:  # the policy is to fail, and whoever sent it has gone on
            self._dead(arguments, options, describe(error))
        finally:
            self._taken(nbytes)

    def _ask(
        self, head: Message, function: Callable[..., Any] | None, content: Content, message: object, context: Context | None, nbytes: int
    ) -> None:
        ref: Any = self.ref
        ask: Any = ref.ask if context is None else partial(context.run, ref.ask)
        accepted = self.ref.cell.statistics().accepted
        try:
            if content is None or function is None:
                reply = ask(message, timeout=head.timeout)
            else:
                reply = ask(function, *content[0], timeout=head.timeout, **content[1])
        except ActorError as error:
            self.node.answer(self.sender, head.request, None, error)
            self._taken(nbytes)
            return
        if reply.done():
            self._taken(nbytes)
            self._settled(head.request, -1, reply)
            return
        # One that waits for room keeps its credit until it is settled: otherwise any number could wait in line.
        in_line = self.ref.cell.statistics().accepted == accepted
        self.node.homes.serving[self.sender, head.request] = reply
        if not in_line:
            self._taken(nbytes)
        reply.add_done_callback(partial(self._settled, head.request, nbytes if in_line else -1))

    def _settled(self, request: int, nbytes: int, reply: Reply[Any]) -> None:
        if nbytes >= 0:
            self._taken(nbytes)
        self.node.homes.serving.pop((self.sender, request), None)
        if reply.cancelled():
            return  # by whoever asked
        error = reply.exception()
        self.node.answer(self.sender, request, None if error is not None else reply.result(), error)

    def _stream(
        self, head: Message, function: Callable[..., Any] | None, content: Content, context: Context | None, nbytes: int
    ) -> Coroutine[Any, Any, object] | None:
        serving = self.node.homes.serving
        key = (self.sender, head.request)
        arguments, options = content or ((), {})
        try:
            stream: Any = self.ref.stream(function, *arguments, demand=head.demand, **options)  # type: ignore[arg-type]
        except ActorError as error:
            self.node.answer(*key, None, error)
            self._taken(nbytes)
            return None
        sending = SendingParts(self, head, stream)
        serving[key] = sending
        sending.start(context)
        if sending.task is not None:
            sending.task.add_done_callback(lambda _: serving.pop(key, None))

        async def begun() -> None:
            await sending.begun
            self._taken(nbytes)

        return begun()

    def _refuse(self, head: Message, content: object, problem: str, nbytes: int) -> None:
        if head.request:
            self.node.homes.serving.pop((self.sender, head.request), None)
            self.node.answer(self.sender, head.request, None, BadCall(self.ref.path, problem))
        else:
            self._dead((content,), {}, problem)
        self._taken(nbytes)

    def _dead(self, arguments: tuple[Any, ...], options: dict[str, Any], reason: str) -> None:
        item = arguments[0]
        if isinstance(item, FunctionType) and self.ref.cell.handlers is not None and item in self.ref.cell.handlers:
            item = Call(self.ref.cell, self.ref.cell.handlers[item], arguments[1:], options)
        self.node.system.dead_letter(self._home.lifecycle, item, reason)

    # -- what it needs --

    def _method(self, name: str) -> Callable[..., Any] | None:
        table = self.ref.cell.handlers
        if table is not self._table:
            self._table = table
            self._methods = {handler.name: function for function, handler in (table or {}).items()}
        return self._methods.get(name)

    def _context(self, chain: list[Link]) -> Context | None:
        """A context in which an ask belongs to the requests of others: so that cycles are found, and reentrant actors let them in."""
        request: Request | None = None
        for worker, number, path in reversed(chain):
            request = Request(self.node.cell_at(worker, number, path), request)
        if request is None:
            return None
        base = self.node.system.base_context  # not that of whoever reads the link
        context = copy_context() if base is None else base.copy()
        context.run(current_request_variable.set, request)
        return context

    def _taken(self, nbytes: int) -> None:
        self._messages += 1
        self._nbytes += nbytes
        if self._messages >= CREDIT_AFTER or self._nbytes >= CREDIT_AFTER_BYTES:
            self.node.send(self.sender, Credit(self._home.number, self._messages, self._nbytes))
            self._messages = self._nbytes = 0
