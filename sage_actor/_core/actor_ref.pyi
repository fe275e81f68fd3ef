"""ActorRef: an actor's address."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import GenericAlias
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, TypeVarTuple, overload

from sage_actor._core.actor_cell import Cell, Handler
from sage_actor._core.reply import Reply

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

class _Parts(AsyncIterator[R_co], Protocol[R_co]):
    async def aclose(self) -> None: ...

class ActorRef(Generic[A_co]):
    """An actor's address, the same for all of its lives; equal only to itself, hashable, never None after the actor's end.

    Order: what one sender sends to one actor is handled in the order of the calls (`tell`, `tell_nowait` and `ask` alike),
    except where a mailbox has priorities or the sender did not await a `tell` of a full mailbox. At most once: no message is
    handled twice. `tell` may be called from any thread; `ask` on the loop of the actor (elsewhere `system.sync`).
    """

    def __init__(self, cell: Cell) -> None: ...
    def __class_getitem__(cls, item: Any) -> GenericAlias: ...
    @property
    def cell(self) -> Cell:
        """The runtime's own."""
    @property
    def path(self) -> str:
        """Where it stands in the tree: "parent/child"."""
    @property
    def name(self) -> str:
        """The last part of the path."""
    @property
    def alive(self) -> bool:
        """Whether the actor has neither ended nor begun to end."""
    @overload
    def tell(self: ActorRef[A], method: Callable[Concatenate[A, P], object], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[bool]:
        """Send without an answer: ``await ref.tell("hello")``, ``await ref.tell(Counter.add, 1)``.

        The message is in the mailbox when the call returns, if there is room. If there is none and the overflow policy is "wait",
        it is sent by awaiting the result (so always await it); cancelling that has not sent it. Awaiting answers whether the
        message was accepted: False if it went to the dead letters (actor ended, or dropped by the overflow policy).

        Raises:
            MailboxFull: the policy is "fail", or an actor tells itself with a full mailbox (waiting would never end).
            BadCall: arguments go with something that is no method of the actor's class.
        """
    @overload
    def tell(self, message: object, /) -> Awaitable[bool]: ...
    @overload
    def tell_nowait(self: ActorRef[A], method: Callable[Concatenate[A, P], object], /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Like `tell`, never waiting: a full mailbox raises `MailboxFull` (policies "wait" and "fail"). Says whether it was accepted."""
    @overload
    def tell_nowait(self, message: object, /) -> bool: ...
    @overload
    def ask(
        self: ActorRef[A], method: Callable[[A, *Ts], Coroutine[Any, Any, R]], /, *args: *Ts, timeout: float | str | None = None
    ) -> Reply[R]:
        """Send and await the answer: ``n = await ref.ask(Counter.add, 1, timeout=2)``, ``await ref.ask("hello")``.

        Sent at the call, like `tell`; a full mailbox with the policy "wait" is waited for. What goes wrong stands in the reply
        and is raised by awaiting it (see `Reply`). An answer does not mean that a timeout could not have come first, and an
        error does not mean that nothing was done.

        Args:
            timeout: seconds (or "2s") until `AskTimeout`; never earlier, up to 10 ms later. None: as long as it takes, or as long
                as the ask that is being handled here still has. It is not handed to the method: a method's own parameter of that
                name can only be given by position.

        Raises:
            BadCall: arguments go with something that is no method of the actor's class, or the method is a generator.
            ActorError: called on another thread than the actor's.
        """
    @overload
    def ask(self: ActorRef[A], method: Callable[[A, *Ts], R], /, *args: *Ts, timeout: float | str | None = None) -> Reply[R]: ...
    @overload
    def ask(
        self: ActorRef[A], method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Reply[R]: ...
    @overload
    def ask(self: ActorRef[A], method: Callable[Concatenate[A, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Reply[R]: ...
    @overload
    def ask(self, message: object, /, *, timeout: float | str | None = None) -> Reply[Any]: ...
    def ask_handler(self, handler: Handler, arguments: tuple[object, ...], timeout: float | None = None) -> Reply[Any]:
        """Ask with a handler of the runtime's own in place of a method; it gets the instance first. For the actor layer."""
    def stream(
        self: ActorRef[A], method: Callable[[A, *Ts], AsyncIterator[R]], /, *args: *Ts, demand: int = 16, **options: Any
    ) -> _Parts[R]:
        """Ask for an answer in parts: ``async for row in ref.stream(Reader.rows, path): ...``; the method is an async generator.

        It begins when the first part is asked for, and is one message to the actor, which handles no other until it ends
        (unless spawned with ``concurrency=`` above 1). At most `demand` parts are on their way: a slow reader holds the generator.
        Leaving the loop early: call ``aclose()`` (or use `contextlib.aclosing`); it ends the generator, ``finally`` included.

        Raises:
            BadCall: the method is no async generator of the actor's class, or `demand` is below 1.
        """

def expire(reply: Reply[Any], now: float) -> None:
    """The deadline of an ask has passed; for the wheel of deadlines."""
