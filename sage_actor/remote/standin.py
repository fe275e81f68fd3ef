"""Standin: what stands behind the ref of an actor that lives in another process.

It is a cell like any actor's, and its messages are handled by being sent on. So everything that a ref promises holds here by the
same code: order, a bounded mailbox that a sender waits for, policies, deadlines, cancellation, dead letters. When the actor's own
process has not yet taken what was sent, the cell is paused: its mailbox fills, and `tell` waits for room.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from sage_actor._core.actor_cell import Cell, Handler, current_request
from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.reply import Call, Reply
from sage_actor.actor.actor import Actor
from sage_actor.actor.handlers import handlers_of
from sage_actor.actor.lifecycle import describe
from sage_actor.actor.quiescence import Quiescence
from sage_actor.actor.streaming import open_stream
from sage_actor.errors import ActorLost, ActorStopped, SageError, SerializationError
from sage_actor.remote.frames import Cancel, Message, Stop, Tie
from sage_actor.remote.parts import receive_parts
from sage_actor.remote.remote_watch import RemoteDeathWatch
from sage_actor.remote.requests import AskUnderWay, is_ask, release

if TYPE_CHECKING:
    from types import FunctionType

    from sage_actor.actor.backend import Buffer
    from sage_actor.actor.lifecycle import Lifecycle
    from sage_actor.remote.node import Node

__all__ = ["WINDOW", "WINDOW_BYTES", "Standin", "path_elsewhere", "seconds_left"]

WINDOW: Final = 256
"""Messages to one actor that may be under way from one process: sent, and not yet in the actor's mailbox."""
WINDOW_BYTES: Final = 8 << 20
"""Bytes of them; one message more passes, however large."""
MAILBOX: Final = 1024
"""Messages that wait here for their turn to be sent."""
UNBOUNDED: Final = 1 << 30
"""Asks under way are bounded by the window and by the actor's mailbox, not here."""


class Standin:
    """Answers for a lifecycle where cells, death watches and systems ask for one."""

    parent = None
    expected_errors = (BaseException,)
    restarts = 0

    def __init__(self, node: Node, worker: int, number: int, path: str, cls: type | None) -> None:
        self.node = node
        self.system = node.system
        self.worker = worker
        self.number = number
        self.remote_path = path
        self.path = path_elsewhere(path, worker)
        self.name = self.path
        self.reason: BaseException | None = None
        self.ending = False
        self.children: list[Lifecycle] = []
        self.messages = 0  # under way
        self.nbytes = 0
        self._end: asyncio.Task[None] | None = None
        self._draining = False
        self._ended = node.loop.create_future()
        self._quiescence = Quiescence(self.system)
        self.deathwatch = RemoteDeathWatch(self)
        base = self.system.base_context
        self.cell = Cell(
            self.path,
            node.loop,
            copy_context() if base is None else base.copy(),
            self,
            capacity=MAILBOX,
            overflow="wait",
            concurrency=UNBOUNDED,
            inline_asks=self.system.inline_asks,
            clock_monotonic=self.system.cell_clock,
            wheel=self.system.deadlines,
        )
        self.ref: ActorRef[Any] = ActorRef(self.cell)
        self.cell.bind(self.ref)
        self.cell.tracer = self.system.tracer
        self.cls: type | None = None
        self._handlers: dict[FunctionType, Handler] = {}
        self.cell.install(None, self._receive, self._handlers)
        self.learn(cls)
        self.cell.run()

    def __repr__(self) -> str:
        return f"<actor {self.path!r} elsewhere, {self.cell.state_name}>"

    def learn(self, cls: type | None) -> None:
        """The actor's class: its methods can be named from now on."""
        if cls is None or self.cls is not None or not issubclass(cls, Actor):
            return
        self.cls = cls
        of_name: dict[str, Handler] = {}
        for function, handler in handlers_of(cls, outermost=Actor).items():
            forward = of_name.get(handler.name)
            if forward is None:
                call: Callable[..., object] = partial(self._call, handler.name)
                forward = of_name[handler.name] = Handler(call, handler.name, plain=not handler.streaming, streaming=handler.streaming)
            self._handlers[function] = forward

    # -- messages --

    def _call(self, method: str, actor: object, /, *arguments: object, **options: object) -> object:
        what = f"a message to {self.path!r} ({method})"
        return self._forward(method, (arguments, options), lambda: self.node.wire.encode_call(arguments, options or None, what))

    def _receive(self, message: object) -> object:
        return self._forward("", message, lambda: self.node.wire.encode(message, f"a message to {self.path!r}"))

    def _forward(self, method: str, content: object, encode: Callable[[], tuple[int, list[Buffer]]]) -> object:
        """Send the message in hand on. For an ask something to await, which is done when nobody waits for its answer any more."""
        request = current_request()
        try:
            form, payload = encode()
        except SerializationError as error:
            self._quiescence.look()
            if is_ask(request):
                raise
            self.system.log_error(self.as_lifecycle(), error, "a message was not sent")
            self.dead_letter(content if request is None or not isinstance(request, Call) else request, describe(error))
            return None
        if not is_ask(request):
            self.send(Message(self.number, 0, method, None, [], 0, form), payload)
            return None
        ended = self.node.loop.create_future()
        ask = AskUnderWay(request, self.worker, self.path, ended)
        number = self.node.requests.add(ask)
        ask.given_up = partial(self._given_up, number)
        request.add_done_callback(ask.given_up)
        timeout = seconds_left(self.node, request.deadline)
        chain = self.node.chain_of(request.parent)
        self.send(Message(self.number, number, method, timeout, chain, 0, form), payload)
        return ended

    def _given_up(self, number: int, reply: Reply[Any]) -> None:
        """It was settled, and not by an answer: cancelled, or past its deadline."""
        ask = self.node.requests.take(number)
        if isinstance(ask, AskUnderWay):
            self.node.send(self.worker, Cancel(number))
            ask.release()

    def send(self, head: Message, payload: list[Buffer]) -> None:
        """Send a message, and hold the next ones if it was the last that there is room for."""
        self.nbytes += self.node.send(self.worker, head, payload)
        self.messages += 1
        self._quiescence.look()
        if self.messages >= WINDOW or self.nbytes >= WINDOW_BYTES:
            self.cell.pause()

    def credit(self, messages: int, nbytes: int) -> None:
        """So much has been taken into the actor's mailbox."""
        self.messages -= messages
        self.nbytes -= nbytes
        if self.messages < WINDOW and self.nbytes < WINDOW_BYTES and self.cell.state_name == "restarting":
            self.cell.run()

    def open_stream(self, handler: Handler, arguments: tuple[object, ...], options: dict[str, object] | None, demand: int) -> Any:
        """An answer in parts: the reader's end is the local one, and its generator fetches the parts from the other side."""

        async def parts(actor: object, /, *given: object, **named: object) -> AsyncIterator[object]:
            async with receive_parts(self, handler.name, given, named, demand) as received:
                async for part in received:
                    yield part

        made = Handler(parts, handler.name, plain=False, streaming=True)
        return open_stream(self.as_lifecycle(), made, arguments, options or {}, demand)

    # -- the end --

    def finish(
        self, reason: BaseException | None, *, drain: bool = False, timeout: float | None = None, at_once: bool = False
    ) -> asyncio.Task[None]:
        """Have the actor ended where it lives; the task is done when it has, and its watchers here have been told."""
        limit = self.system.stop_timeout if timeout is None else timeout
        drain = drain and not at_once
        if self._end is None or at_once or (self._draining and not drain):  # or now it shall end less gently
            self._draining = drain
            self._end = self.system.start_task(self._finish(drain, limit, at_once), f"end of {self.path}")
        return self._end

    async def _finish(self, drain: bool, timeout: float, at_once: bool) -> None:
        await self.close(drain, timeout)
        self.node.send(self.worker, Stop(self.number, drain, timeout, at_once))
        await asyncio.shield(self._ended)

    async def close(self, drain: bool, timeout: float) -> None:
        """Take no new messages; returns when those that wait have been sent, or are dead letters."""
        if self.cell.state_name == "stopped":
            return
        if drain and self.cell.has_mail():
            self.cell.drain_and_refuse()
            await self._quiescence.until(lambda: not self.cell.has_mail(), timeout)
        self.ending = True
        self.cell.stop_serving()
        self._refuse_leftovers("it was stopped", None)
        self._quiescence.look()

    def bury(self, reason: BaseException | None) -> None:
        """The actor has ended where it lived, or is lost. Asks under way are the node's: answers may still come."""
        if self.cell.state_name == "stopped":
            return
        self.reason = reason
        self.ending = True
        self.cell.stop_serving()
        words = "the actor has stopped" if reason is None else f"the actor ended: {describe(reason)}"
        self._refuse_leftovers(words, reason if isinstance(reason, ActorLost) else None)
        self.cell.ended()
        self.node.forget(self)
        self.system.registry.gone(self.as_lifecycle())
        self.deathwatch.announce()
        release(self._ended)
        self._quiescence.look()

    def _refuse_leftovers(self, words: str, lost: SageError | None) -> None:
        for left in self.cell.take_leftovers():
            if lost is not None and is_ask(left):
                left.fail(lost)
            self.cell.refuse_leftover(left, words)

    # -- what cells, systems and watchers ask of a lifecycle --

    def as_lifecycle(self) -> Lifecycle:
        """For code that is written for actors that live here; it uses no more than what is here."""
        return cast("Lifecycle", self)

    @property
    def class_name(self) -> str:
        """For reports."""
        return "an actor elsewhere"

    def contains(self, other: object) -> bool:
        """Whether `other` is this actor."""
        return (getattr(other, "worker", None), getattr(other, "number", None)) == (self.worker, self.number)

    def quiet(self) -> None:
        """From the cell: nothing is in hand."""
        self._quiescence.look()

    def why_closed(self) -> str:
        """Why no message is taken any more, in words."""
        if self.reason is not None:
            return describe(self.reason)
        return "it was stopped" if self.cell.state_name == "stopped" else "it is stopping"

    def failed(self, error: BaseException, doing: str) -> None:
        """From the cell: sending a message on has failed in a way that is not foreseen."""
        self.system.log_error(self.as_lifecycle(), error, f"{doing} was not sent")
        if not self.ending:
            self.cell.run()

    def failure_of(self, error: BaseException, doing: str) -> BaseException:
        """Never asked: every error is expected, and stands for itself."""
        return error

    def handler_of(self, receive: Callable[..., object]) -> Handler:
        """What is known about `receive`: it sends on, which may be done at the call."""
        return Handler(receive, "receive", plain=True)

    def task_cancelled(self) -> None:
        """From the cell: a task of its was cancelled from outside, as the end of an event loop does."""
        self.bury(ActorStopped(self.path, "its task was cancelled from outside"))

    def dead_letter(self, item: object, reason: str) -> None:
        """A message for the actor will not be sent."""
        self.system.dead_letter(self.as_lifecycle(), item, reason)
        self._quiescence.look()

    def wake_up(self) -> None:
        """Never passive."""

    def sample(self, waited: float, served: float) -> None:
        """The actor's own process measures."""

    def tie(self, other: Lifecycle, tied: bool) -> None:
        """Have the actor linked to one that lives here, or that undone."""
        form, payload = self.node.wire.encode(other.ref, f"the ref of {other.path!r}")
        self.node.send(self.worker, Tie(self.number, tied, form), payload)


def path_elsewhere(path: str, worker: int) -> str:
    """What the path of an actor in another process looks like here: "counter@1"."""
    return f"{path}@{'owner' if worker == 0 else worker - 1}"


def seconds_left(node: Node, deadline: float) -> float | None:
    """What an ask still has, to tell the other side; None without a deadline."""
    return None if deadline == 0.0 else max(0.0, deadline - node.system.clock.monotonic())
