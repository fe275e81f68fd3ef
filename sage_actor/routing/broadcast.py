"""Broadcast: every member gets every message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, TypeVarTuple, overload

from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.reply import Reply, accepted
from sage_actor.errors import ActorError, MailboxFull
from sage_actor.routing.membership import Membership

__all__ = ["BroadcastRouter"]

A = TypeVar("A")
R = TypeVar("R")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")


class BroadcastRouter(Generic[A]):
    """Sends each message to all members, at the call, in the order of the members.

    What one sender sends is handled by each member in the order of the calls; between members there is no order. A member that
    ends, or takes no mail any more, is taken out by itself. For use on the loop of the members.

    Args:
        members: living actors of one class, in order; one that is given twice counts once.
        name: for messages.

    Raises:
        ActorStopped: one of the members has ended.
        ActorError: from `tell`, `tell_nowait`, `ask` and `ask_each`, at the call: there is no member.
    """

    def __init__(self, members: Iterable[ActorRef[A]] = (), *, name: str = "broadcast") -> None:
        self.name = name
        self._membership: Membership[A] = Membership()
        for member in members:
            self._membership.add(member)

    def __repr__(self) -> str:
        return f"<BroadcastRouter {self.name!r}, {len(self)} members>"

    @property
    def members(self) -> tuple[ActorRef[A], ...]:
        """The present members, first added first."""
        return self._membership.members

    def __len__(self) -> int:
        return len(self._membership)

    def add(self, member: ActorRef[A]) -> bool:
        """Take an actor in, as the last one; False if it is a member already.

        Raises:
            ActorStopped: it has ended, or ends.
        """
        return self._membership.add(member)

    def remove(self, member: ActorRef[A]) -> bool:
        """Send it nothing more; it lives on. False if it is no member."""
        return self._membership.remove(member)

    def _everyone(self) -> list[ActorRef[A]]:
        everyone = [member for member in self._membership.members if self._membership.takes_mail(member)]
        if not everyone:
            raise ActorError(f"broadcast {self.name!r} has no members, so nobody can be sent anything; add() one first")
        return everyone

    @overload
    def tell(self, method: Callable[Concatenate[A, P], object], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[bool]: ...
    @overload
    def tell(self, message: object, /) -> Awaitable[bool]: ...
    def tell(self, message: Any, /, *args: Any, **kwargs: Any) -> Awaitable[bool]:
        """Send to all without an answer. Awaiting waits for room in every mailbox that has none, side by side, and answers
        whether all of them accepted. Cancelling it takes the message back only where it still waits.

        Raises:
            MailboxFull: on awaiting; a member with the policy "fail" had no room (the first such). The others have been sent it.
        """
        waiting: list[Coroutine[Any, Any, bool]] = []
        at_once: Awaitable[bool] = accepted
        full: MailboxFull | None = None
        for member in self._everyone():
            try:
                sent: Any = member.tell(message, *args, **kwargs)
            except MailboxFull as error:
                full = full or error
                continue
            if asyncio.iscoroutine(sent):
                waiting.append(sent)
            elif sent is not accepted:
                at_once = sent
        return at_once if full is None and not waiting else _when_sent(waiting, at_once, full)

    @overload
    def tell_nowait(self, method: Callable[Concatenate[A, P], object], /, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    @overload
    def tell_nowait(self, message: object, /) -> bool: ...
    def tell_nowait(self, message: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Like `tell`, never waiting; answers whether all accepted.

        Raises:
            MailboxFull: a member has no room (the first such); all that have some have been sent it.
        """
        all_accepted = True
        full: MailboxFull | None = None
        for member in self._everyone():
            try:
                all_accepted = member.tell_nowait(message, *args, **kwargs) and all_accepted
            except MailboxFull as error:
                full = full or error
        if full is not None:
            raise full
        return all_accepted

    @overload
    def ask(
        self, method: Callable[[A, *Ts], Coroutine[Any, Any, R]], /, *args: *Ts, timeout: float | str | None = None
    ) -> asyncio.Future[list[R]]: ...
    @overload
    def ask(self, method: Callable[[A, *Ts], R], /, *args: *Ts, timeout: float | str | None = None) -> asyncio.Future[list[R]]: ...
    @overload
    def ask(self, message: object, /, *, timeout: float | str | None = None) -> asyncio.Future[list[Any]]: ...
    def ask(self, message: Any, /, *args: object, **kwargs: Any) -> asyncio.Future[list[Any]]:
        """Send to all and await all answers, in the order of the members.

        The first ask that fails ends the wait with its error, and the others are given up, as they are when the wait is cancelled.
        To have what some answered although others failed, use `ask_each`.
        """
        replies = self.ask_each(message, *args, **kwargs)
        answers = asyncio.gather(*replies)

        def give_up(_: asyncio.Future[list[Any]]) -> None:
            for reply in replies:
                reply.cancel()

        answers.add_done_callback(give_up)
        return answers

    @overload
    def ask_each(
        self, method: Callable[[A, *Ts], Coroutine[Any, Any, R]], /, *args: *Ts, timeout: float | str | None = None
    ) -> tuple[Reply[R], ...]: ...
    @overload
    def ask_each(self, method: Callable[[A, *Ts], R], /, *args: *Ts, timeout: float | str | None = None) -> tuple[Reply[R], ...]: ...
    @overload
    def ask_each(self, message: object, /, *, timeout: float | str | None = None) -> tuple[Reply[Any], ...]: ...
    def ask_each(self, message: Any, /, *args: object, **kwargs: Any) -> tuple[Reply[Any], ...]:
        """Send to all; one reply for each member, in their order, each to be awaited or given up for itself."""
        return tuple(member.ask(message, *args, **kwargs) for member in self._everyone())


async def _when_sent(waiting: Sequence[Coroutine[Any, Any, bool]], at_once: Awaitable[bool], full: MailboxFull | None) -> bool:
    sent = await asyncio.gather(*waiting)
    if full is not None:
        raise full
    return all(sent) and await at_once
