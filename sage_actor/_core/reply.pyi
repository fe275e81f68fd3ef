"""Requests to actors, and Reply: an ask under way, which is message, future and awaitable in one."""

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from types import GenericAlias
from typing import Any, Generic, TypeVar

from sage_actor._core.actor_cell import Cell, Handler

R = TypeVar("R")

class Request:
    """Something an actor does on somebody's behalf. Requests form a chain: each knows the one it was made for."""

    def __init__(self, target: Cell, parent: Request | None = None) -> None: ...
    @property
    def target(self) -> Cell:
        """The cell that handles it."""
    @property
    def parent(self) -> Request | None:
        """The request on whose behalf it was made."""
    @property
    def finished(self) -> bool:
        """Whether its handler has ended."""
    @property
    def deadline(self) -> float:
        """When its answer is worth nothing any more, on the system's clock; 0.0 for never."""
    span: Any
    """What a tracer keeps for it, or None."""
    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more: it, or one above it that still runs, was cancelled or is past its deadline."""
    def finish(self) -> None:
        """Its handler has ended."""

class Call(Request):
    """A message for one handler of an actor."""

    def __init__(self, target: Cell, handler: Handler | None, message: object, options: dict[str, object] | None = None) -> None: ...
    @property
    def handler(self) -> Handler | None:
        """The method it calls; None for a message to `receive`."""
    @property
    def message(self) -> Any:
        """The message, or the tuple of arguments for `handler`."""
    @property
    def options(self) -> dict[str, object] | None:
        """Keyword arguments for `handler`."""
    @property
    def revoked(self) -> bool:
        """Whether it will not be handled although it waits in the control lane."""
    @property
    def signal(self) -> bool:
        """Whether the runtime made it: then it counts as no message."""
    def revoke(self) -> None:
        """Do not handle it any more."""

class Reply(Call, Generic[R]):
    """An ask under way: await it for the answer. `asyncio.gather`, `wait` and `ensure_future` take it as it is.

    The ask has been sent by the time you hold one; awaiting changes nothing about that. It may be awaited more than once, and by
    several tasks of its loop. Awaiting raises `ActorFailed` (its ``__cause__`` is what the handler raised), `ActorStopped`,
    `AskTimeout`, `AskCycle`, `AskAbandoned`, `MailboxFull`, `BadCall`, or one of the actor's `expected_errors` as it is.

    Cancelling it (or the task that awaits it) gives the ask up: if its handler has not begun, it never will, and the message
    becomes a dead letter (unless it was still waiting for room: then it was never sent); if it has, it runs on, unless it was
    declared `interruptible`.
    """

    def __class_getitem__(cls, item: Any) -> GenericAlias: ...
    @property
    def state(self) -> int:
        """0 pending, 1 answered, 2 failed, 3 cancelled."""
    def __await__(self) -> Generator[Any, None, R]: ...
    def __iter__(self) -> Generator[Any, None, R]: ...
    def done(self) -> bool:
        """Whether there is an answer, an error, or a cancellation."""
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
    def cancel(self, msg: object = None) -> bool:
        """Give it up; False if it is done already."""
    def result(self) -> R:
        """The answer; raises what awaiting would raise, `asyncio.InvalidStateError` while there is none."""
    def exception(self) -> BaseException | None:
        """The error; None if it was answered. Raises `asyncio.InvalidStateError` while it is pending."""
    def add_done_callback(self, callback: Callable[[Reply[R]], object], *, context: Context | None = None) -> None:
        """Call back on a later turn of the loop when it is done."""
    def remove_done_callback(self, callback: Callable[[Reply[R]], object]) -> int:
        """Take callbacks back; how many there were."""
    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the actor."""
    def answer(self, value: R) -> None:
        """Settle it, if nothing has; for the runtime and for routers."""
    def fail(self, error: BaseException) -> None:
        """Settle it with an error, if nothing has; for the runtime and for routers."""
    def in_bucket(self, bucket: dict[Reply[Any], None]) -> None:
        """Stand in a dictionary, in the order added, until settled; for the wheel of deadlines."""

class Accepted:
    """What a tell answers when there was room: awaiting it takes no time and answers True."""

    def __await__(self) -> Generator[Any, None, bool]: ...

accepted: Accepted
