"""Answers in parts over a border: at most `demand` parts are on their way, however fast the generator and however slow its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from sage_actor._core.actor_cell import current_request
from sage_actor.actor.demand import DemandWindow
from sage_actor.errors import ActorLost, ActorStopped, SageError
from sage_actor.remote.frames import Cancel, Demand, Message, Part

if TYPE_CHECKING:
    from sage_actor.actor.streaming import AnswerStream
    from sage_actor.remote.homes import Inlet
    from sage_actor.remote.standin import Standin

__all__ = ["PartsUnderWay", "SendingParts", "receive_parts"]


class PartsUnderWay(AsyncIterator[Any]):
    """The reader's side: parts as they arrive, then the end or the error."""

    def __init__(self, standin: Standin, demand: int) -> None:
        self.worker = standin.worker
        self.path = standin.path
        self.number = 0
        self._standin = standin
        self._window = DemandWindow(demand)
        self._window.ask()  # for as many as the message names
        self._arrived: deque[Any] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None

    def answered(self, value: Any, error: BaseException | None) -> None:
        """There are no more parts."""
        self._ended = True
        self._error = error
        self._wake()

    def lost(self, error: SageError) -> None:
        """No more will come."""
        self.answered(None, error)

    def part(self, value: Any) -> None:
        """One has come."""
        self._window.arrived(1)
        self._arrived.append(value)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._arrived:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._reader = self._standin.node.loop.create_future()
            await self._reader
        part = self._arrived.popleft()
        self._window.processed(1)
        wanted = self._window.ask()
        if wanted and not self._ended:
            self._standin.node.send(self.worker, Demand(self.number, wanted))
        return part


@asynccontextmanager
async def receive_parts(
    standin: Standin, method: str, arguments: tuple[object, ...], options: dict[str, object], demand: int
) -> AsyncGenerator[PartsUnderWay]:
    """Ask for an answer in parts; leaving gives up what has not come. On behalf of whoever's request is being handled here."""
    from sage_actor.remote.standin import seconds_left

    node = standin.node
    if standin.cell.state_name == "stopped":  # between the ask and this first step
        raise standin.reason if isinstance(standin.reason, ActorLost) else ActorStopped(standin.path, standin.why_closed())
    request = current_request()
    form, payload = node.wire.encode_call(arguments, options or None, f"a message to {standin.path!r} ({method})")
    parts = PartsUnderWay(standin, demand)
    parts.number = node.requests.add(parts)
    timeout = None if request is None else seconds_left(node, request.deadline)
    chain = [] if request is None else node.chain_of(request.parent)
    standin.send(Message(standin.number, parts.number, method, timeout, chain, demand, form), payload)
    reader = asyncio.current_task()
    assert reader is not None
    node.readers.add(reader)
    try:
        yield parts
    finally:
        node.readers.discard(reader)
        if node.requests.take(parts.number) is not None:
            node.send(standin.worker, Cancel(parts.number))


class SendingParts:
    """The actor's side: reads the local stream as fast as parts are wanted elsewhere."""

    def __init__(self, inlet: Inlet, head: Message, stream: AnswerStream[Any]) -> None:
        self._inlet = inlet
        self._head = head
        self._stream = stream
        self._wanted = head.demand
        self._more: asyncio.Future[None] | None = None
        self.begun: asyncio.Future[None] = inlet.node.loop.create_future()
        self.task: asyncio.Task[None] | None = None

    def start(self, context: Any) -> None:
        """Begin; `begun` is done when the ask stands in the actor's mailbox, or is refused."""
        self.task = self._inlet.node.system.start_task(self._run(), f"parts for worker {self._inlet.sender}", context=context)
        self.task.add_done_callback(self._over)

    def demand(self, parts: int) -> None:
        """So many more are wanted."""
        self._wanted += parts
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def cancel(self) -> None:
        """Nobody wants them any more."""
        if self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        node, sender, request = self._inlet.node, self._inlet.sender, self._head.request
        try:
            first = asyncio.ensure_future(self._next())
            while self._stream.outstanding == 0 and not first.done():  # noqa: ASYNC110 - it takes one turn
                await asyncio.sleep(0)
            self._over()  # it has been sent to the mailbox: what was sent after it may follow
            try:
                part, there = await first
            except BaseException:
                first.cancel()
                raise
            while there:
                while self._wanted <= 0:
                    self._more = node.loop.create_future()
                    await self._more
                self._wanted -= 1
                form, payload = node.wire.encode(part, f"a part of the answer of {self._inlet.ref.path!r}")
                node.send(sender, Part(request, form), payload)
                part, there = await self._next()
            node.answer(sender, request, None, None)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the user's generator raises is its reader's
            node.answer(sender, request, None, error)
        finally:
            await self._stream.aclose()

    async def _next(self) -> tuple[Any, bool]:
        try:
            return await self._stream.__anext__(), True
        except StopAsyncIteration:
            return None, False

    def _over(self, task: object = None) -> None:
        if not self.begun.done():
            self.begun.set_result(None)
