"""What one process waits for from the others: answers to asks, to spawns, to questions of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from sage_actor._core.reply import Reply

if TYPE_CHECKING:
    from sage_actor.errors import SageError

__all__ = ["AskUnderWay", "Question", "Request", "Requests", "is_ask", "release"]


def is_ask(request: object) -> TypeGuard[Reply[Any]]:
    """Whether somebody waits for an answer to it."""
    return type(request) is Reply


def release(waiting: asyncio.Future[None]) -> None:
    """Let whoever waits go on."""
    if not waiting.done():
        waiting.set_result(None)


class Request(Protocol):
    """One of them."""

    @property
    def worker(self) -> int:
        """Who is to answer."""
        ...

    def answered(self, value: Any, error: BaseException | None) -> None:
        """The answer has come: a value, or an error."""
        ...

    def lost(self, error: SageError) -> None:
        """None will come."""
        ...


class Requests:
    """All requests under way, by number."""

    def __init__(self) -> None:
        self._under_way: dict[int, Request] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._under_way)

    def add(self, request: Request) -> int:
        """Take one in; answers its number."""
        self._last += 1
        self._under_way[self._last] = request
        return self._last

    def find(self, number: int) -> Request | None:
        """The one of a number, which goes on waiting; None if nobody waits any more."""
        return self._under_way.get(number)

    def take(self, number: int) -> Request | None:
        """The one of a number, which waits no more; None if nobody waits any more."""
        return self._under_way.pop(number, None)

    def lost(self, worker: int, error: Callable[[Request], SageError]) -> None:
        """A worker will answer nothing any more."""
        for number, request in list(self._under_way.items()):
            if request.worker == worker:
                del self._under_way[number]
                request.lost(error(request))


class AskUnderWay:
    """An ask that has been sent. The actor's cell here waits for `ended`, whatever becomes of the ask."""

    __slots__ = ("ended", "given_up", "path", "reply", "worker")

    def __init__(self, reply: Reply[Any], worker: int, path: str, ended: asyncio.Future[None]) -> None:
        self.reply = reply
        self.worker = worker
        self.path = path
        self.ended = ended
        self.given_up: Callable[[Reply[Any]], object] | None = None  # called when it is settled before its answer comes

    def answered(self, value: Any, error: BaseException | None) -> None:
        """Settle it, if its caller still waits."""
        if self.given_up is not None:
            self.reply.remove_done_callback(self.given_up)
            self.given_up = None
        if error is None:
            self.reply.answer(value)
        else:
            self.reply.fail(error)
        self.release()

    def lost(self, error: SageError) -> None:
        """Fail it."""
        self.answered(None, error)

    def release(self) -> None:
        """The cell waits for it no longer."""
        release(self.ended)


class Question:
    """Something of the runtime's own that somebody awaits; `late` is given what comes after the waiting has been cancelled."""

    __slots__ = ("answer", "late", "worker")

    def __init__(self, worker: int, answer: asyncio.Future[Any], late: Callable[[Any], None] | None = None) -> None:
        self.worker = worker
        self.answer = answer
        self.late = late

    def answered(self, value: Any, error: BaseException | None) -> None:
        """Wake whoever waits."""
        if not self.answer.done():
            if error is None:
                self.answer.set_result(value)
            else:
                self.answer.set_exception(error)
        elif error is None and self.late is not None:
            self.late(value)

    def lost(self, error: SageError) -> None:
        """Fail it."""
        self.answered(None, error)
