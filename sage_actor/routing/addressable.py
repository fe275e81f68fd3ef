"""What routers and pools have in common with a ref: it can be told and asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, TypeVarTuple, cast, overload

from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.reply import Reply
from sage_actor.actor.streaming import AnswerStream

__all__ = ["Addressable"]

A = TypeVar("A")
R = TypeVar("R")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")


class Addressable(Generic[A]):
    """Stands for several actors of one class: each message goes, at the call, to one of them, as if its ref had been used.

    So everything that `ActorRef` says about `tell`, `tell_nowait`, `ask` and `stream` holds here: waiting for room, overflow
    policies, timeouts, cancellation, cycles, what is raised. There is no actor and no queue between, and a message is never
    moved from one actor to another. What one sender sends to *the same member* is handled in the order of the calls; which messages
    go to the same member is said by each kind. For use on the loop of the members.

    Raises:
        ActorError: from each of them, at the call: there is no member.
    """

    __slots__ = ()

    def choose(self, message: Any, arguments: tuple[object, ...], options: dict[str, object]) -> ActorRef[A]:
        """The member that this message goes to; counts as sending it.

        Args:
            message: the message, or the method that goes with `arguments` and `options`.
        """
        raise NotImplementedError

    @overload
    def tell(self, method: Callable[Concatenate[A, P], object], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[bool]: ...
    @overload
    def tell(self, message: object, /) -> Awaitable[bool]: ...
    def tell(self, message: Any, /, *args: Any, **kwargs: Any) -> Awaitable[bool]:
        """Send to one member without an answer; awaiting it waits for room, and answers whether the message was accepted."""
        return self.choose(message, args, kwargs).tell(message, *args, **kwargs)

    @overload
    def tell_nowait(self, method: Callable[Concatenate[A, P], object], /, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    @overload
    def tell_nowait(self, message: object, /) -> bool: ...
    def tell_nowait(self, message: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Like `tell`, never waiting."""
        return self.choose(message, args, kwargs).tell_nowait(message, *args, **kwargs)

    @overload
    def ask(self, method: Callable[[A, *Ts], Coroutine[Any, Any, R]], /, *args: *Ts, timeout: float | str | None = None) -> Reply[R]: ...
    @overload
    def ask(self, method: Callable[[A, *Ts], R], /, *args: *Ts, timeout: float | str | None = None) -> Reply[R]: ...
    @overload
    def ask(self, method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Reply[R]: ...
    @overload
    def ask(self, method: Callable[Concatenate[A, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Reply[R]: ...
    @overload
    def ask(self, message: object, /, *, timeout: float | str | None = None) -> Reply[Any]: ...
    def ask(self, message: Any, /, *args: object, **kwargs: Any) -> Reply[Any]:
        """Send to one member and await its answer."""
        timeout: float | str | None = kwargs.pop("timeout", None)
        return self.choose(message, args, kwargs).ask(message, *args, timeout=timeout, **kwargs)

    def stream(self, method: Callable[[A, *Ts], AsyncIterator[R]], /, *args: *Ts, demand: int = 16, **options: Any) -> AnswerStream[R]:
        """An answer in parts from one member: ``async for row in router.stream(Reader.rows, path): ...``."""
        chosen: Any = self.choose(method, args, options)
        return cast("AnswerStream[R]", chosen.stream(method, *args, demand=demand, **options))
