"""Answers in parts: how what an actor's async generator yields reaches whoever asked, no faster than it is wanted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

from sage_actor._core.actor_cell import Handler
from sage_actor.actor.demand import BoundedBuffer, Demand, DemandWindow
from sage_actor.errors import ActorError, BadCall

if TYPE_CHECKING:
    from sage_actor._core.reply import Reply
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["AnswerStream", "open_stream"]

T = TypeVar("T")


def open_stream(
    lifecycle: Lifecycle, handler: Handler, arguments: tuple[object, ...], options: dict[str, object], demand: int
) -> AnswerStream[object]:
    """What `ActorRef.stream` answers; nothing is sent before the first part is asked for."""
    return AnswerStream(_Channel(lifecycle, handler, arguments, options, demand))


class AnswerStream(AsyncIterator[T], Generic[T]):
    """An answer in parts, for one reader: ``async for part in ref.stream(...)``.

    The ask is sent with the first `__anext__`, on behalf of whoever calls it, so that deadlines travel and ask cycles are found
    as for `ask`. Parts come in the order in which they were yielded; then comes the end, once: the loop ends, or raises what an
    ask would (`ActorFailed` with its cause, one of the actor's `expected_errors`, `ActorStopped`, `AskTimeout`, `BadCall`, ...);
    nothing comes after it. Parts that had arrived before an error come before it.

    Never more than `demand` parts are asked for and not yet taken. The generator itself may be one part further: that it has
    ended or failed is told without a further request, so it is resumed once its last part has been delivered.

    The reader gives it up by `aclose`, by being cancelled while it waits for a part, or by dropping the stream; then the
    generator is cancelled where it awaits (or closed where it yields), its ``finally`` blocks run in the actor, and the actor goes
    on unharmed. A stream that is given up before its turn came is a dead letter, like any ask.
    """

    __slots__ = ("_channel",)

    def __init__(self, channel: _Channel[T]) -> None:
        self._channel = channel

    @property
    def buffered(self) -> int:
        """Parts that are here and wait to be taken; they need no wait."""
        return len(self._channel.arrived)

    @property
    def outstanding(self) -> int:
        """Parts that have been asked for and are not here yet; 0 before the beginning and after the end."""
        return self._channel.account.outstanding

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next part. Cancelling the wait gives the whole stream up.

        Raises:
            StopAsyncIteration: there are no more, or the stream was given up, or its error has been raised before.
            ActorError: another task waits for a part already; whatever an ask raises.
        """
        return await self._channel.take()

    async def aclose(self) -> None:
        """Give the stream up; returns when the generator has ended. Idempotent; cancelling the wait does not undo it."""
        self._channel.abandon()
        await self._channel.until_closed()

    def __del__(self) -> None:
        channel = self._channel
        if channel.under_way:
            # Whoever collects garbage, in whichever thread, must not be made to run the generator's reader here.
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is under way any more
                channel.loop.call_soon_threadsafe(channel.abandon)

    def __repr__(self) -> str:
        return f"<{self._channel.what}: {self._channel.account.delivered} parts delivered>"


class _Channel(Generic[T]):
    """What the two ends of a stream share. The reader's end is `take` and `abandon`; the actor's is the coroutine function
    that `ask_handler` is given. Neither end holds the reader's `AnswerStream`, so that dropping that one is seen."""

    __slots__ = (
        "account", "arguments", "arrived", "begun", "cancelled_before", "closed", "error", "function", "interrupted", "loop", "made",
        "name", "options", "path", "reader", "reading", "ref", "reply", "stepping", "task", "window", "writer",
    )  # fmt: skip

    def __init__(
        self, lifecycle: Lifecycle, handler: Handler, arguments: tuple[object, ...], options: dict[str, object], demand: int
    ) -> None:
        self.loop = lifecycle.system.loop
        self.ref = lifecycle.ref
        self.path = lifecycle.path
        self.function = cast("Callable[..., AsyncIterator[T]]", handler.function)
        self.name = handler.name
        self.arguments = arguments
        self.options = options
        self.account = Demand(self._deliver)
        self.window = DemandWindow(demand)
        self.made: BoundedBuffer[T] = BoundedBuffer(1)
        self.arrived: deque[T] = deque()
        self.error: BaseException | None = None
        self.reply: Reply[object] | None = None
        self.reading = False
        self.reader: asyncio.Future[None] | None = None
        self.writer: asyncio.Future[None] | None = None
        self.begun = False  # the generator has been made, or never will be
        self.stepping = False  # the generator's own code runs or awaits
        self.interrupted = False
        self.task: asyncio.Task[object] | None = None  # in which the generator runs
        self.cancelled_before = 0  # how often that task had been cancelled when the generator began
        self.closed: asyncio.Future[None] | None = None

    @property
    def what(self) -> str:
        """The stream, in words."""
        return f"stream {self.name} of actor {self.path!r}"

    @property
    def under_way(self) -> bool:
        """Whether the actor may still have something to do with it."""
        return self.reply is not None and not self.reply.done()

    # -- the reader's end --

    async def take(self) -> T:
        """The next part, the error, or StopAsyncIteration."""
        if self.reading:
            raise ActorError(f"{self.what}: another task waits for its next part already; a stream has one reader")
        self.reading = True
        try:
            if self.reply is None and self.account.ended is None:
                self._begin()
            while not self.arrived:
                if self.account.ended is not None:
                    self._raise_the_end()
                self._ask_for_more()
                if not self.arrived and self.account.ended is None:
                    self.reader = self.loop.create_future()
                    await self.reader
        except asyncio.CancelledError:
            self.abandon()
            raise
        finally:
            self.reading = False
            self.reader = None
        part = self.arrived.popleft()
        self.window.processed(1)
        self._ask_for_more()
        return part

    def _begin(self) -> None:
        handler = Handler(self._coroutine_function(), self.name, plain=False)
        self.reply = self.ref.ask_handler(handler, self.arguments)
        self.reply.add_done_callback(self._settled)

    def _ask_for_more(self) -> None:
        wanted = self.window.ask()
        if wanted:
            self.account.request(wanted)

    def _raise_the_end(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        raise StopAsyncIteration

    def abandon(self) -> None:
        """The reader wants no more. What has arrived is dropped; the generator is ended, if it lives."""
        self.arrived.clear()
        self.error = None
        if self.account.cancel():
            if self.reply is not None and not self.begun:
                self.reply.cancel()
            self._end_generator()
        _wake(self.reader)

    async def until_closed(self) -> None:
        """Return when the generator has ended, if it has begun."""
        if self.closed is not None and asyncio.current_task() is not self.task:
            await asyncio.wait((self.closed,))  # which, unlike awaiting it, leaves it alone when it is cancelled

    def _settled(self, reply: Reply[object]) -> None:
        """The ask has ended: with the generator, without it ever having begun, or because its deadline has passed."""
        self.reply = None  # it holds the coroutine function, and that one this channel
        self.arguments = ()
        error = None if reply.cancelled() else reply.exception()
        if error is None:
            self.account.complete()
        elif self.account.fail(error):
            self.error = error
        self._end_generator()
        _wake(self.reader)

    def _deliver(self) -> None:
        """From the account: hand over what is made and wanted."""
        parts = self.made.pop(self.account.take(len(self.made)))
        if parts:
            self.window.arrived(len(parts))
            self.arrived.extend(parts)
            _wake(self.reader)
            _wake(self.writer)

    # -- the actor's end --

    def _coroutine_function(self) -> Callable[..., Coroutine[object, object, None]]:
        channel = self

        async def stream(actor: object, *arguments: object) -> None:
            await channel.drive(actor, arguments)

        return stream

    async def drive(self, actor: object, arguments: tuple[object, ...]) -> None:
        """Run the generator to its end, at the reader's pace. This is the handler that the actor is busy with."""
        self.begun = True
        if self.account.ended is not None:
            return
        parts = self._call(actor, arguments)
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.cancelled_before = task.cancelling()
        self.closed = self.loop.create_future()
        try:
            self.stepping = True
            async for part in parts:
                self.stepping = False
                if not await self._push(part):
                    break
                self.stepping = True
        except asyncio.CancelledError:
            if not self.interrupted or task.cancelling() > self.cancelled_before + 1:  # the actor is interrupted, not (only) this stream
                raise
        finally:
            self.stepping = False
            if self.interrupted:
                task.uncancel()
            await self._close(parts)

    def _call(self, actor: object, arguments: tuple[object, ...]) -> AsyncIterator[T]:
        try:
            return self.function(actor, *arguments, **self.options)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise  # from a decorator's own code
            raise BadCall(self.path, str(error)) from error

    async def _push(self, part: T) -> bool:
        """Have a part delivered, which may have to wait until it is wanted. False if nobody wants it any more."""
        self.made.put((part,))
        self.account.pump()
        while len(self.made) and self.account.ended is None:
            self.writer = self.loop.create_future()
            try:
                await self.writer
            finally:
                self.writer = None
        return self.account.ended is None

    async def _close(self, parts: AsyncIterator[T]) -> None:
        try:
            aclose = getattr(parts, "aclose", None)
            if aclose is not None:
                await aclose()
        finally:
            self.made.pop(1)
            self.task = None
            if self.closed is not None and not self.closed.done():
                self.closed.set_result(None)

    def _end_generator(self) -> None:
        """Nobody waits any more. A generator that awaits is cancelled there; one that has yielded is closed by its own task."""
        task = self.task
        if task is not None and self.stepping and task is not asyncio.current_task() and task.cancelling() == self.cancelled_before:
            self.interrupted = True
            task.cancel()
        _wake(self.writer)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
