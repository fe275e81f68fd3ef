"""Cell: the mailbox of one actor and the loop that empties it. For the actor layer; users hold an ActorRef."""

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from types import FunctionType
from typing import Any

from sage_actor._core.actor_mailbox import ActorMailbox
from sage_actor._core.batch_queue import Overflow
from sage_actor._core.reply import Reply, Request

current_request_variable: ContextVar[Request | Cell | None]
"""On whose behalf the running code works. A handler's own, and that of tasks it begins."""

def current_request() -> Request | None:
    """The request that the running handler serves (or the handler that began this task, while it runs); None outside."""

def current_cell() -> Cell | None:
    """The actor that the running code belongs to; None outside of actors."""

class Handler:
    """One method of an actor class that messages may name.

    Attributes:
        function: the plain function, called with the instance first.
        name: its name.
        plain: calling it gives the answer itself, never something to await; only such may answer inline.
        pool: "thread" or "process" if it was declared `blocking`.
        interruptible: whether its caller giving up cancels it.
        streaming: whether it is an async generator.
    """

    def __init__(
        self,
        function: Callable[..., object],
        name: str,
        *,
        plain: bool,
        pool: str | None = None,
        interruptible: bool = False,
        streaming: bool = False,
    ) -> None: ...
    @property
    def function(self) -> Callable[..., Any]:
        """The plain function."""
    @property
    def name(self) -> str:
        """Its name."""
    @property
    def plain(self) -> bool:
        """Whether calling it gives the answer itself."""
    @property
    def pool(self) -> str | None:
        """Where it runs, if not on the loop."""
    @property
    def interruptible(self) -> bool:
        """Whether its caller giving up cancels it."""
    @property
    def streaming(self) -> bool:
        """Whether it is an async generator."""

class Cell(ActorMailbox):
    """One actor's mailbox, and the loop that empties it: one message at a time, control lane first, in the actor's context.

    Guarantees: messages of one sender are begun in the order sent; every accepted message is handled once, or given to
    ``lifecycle.dead_letter`` once (A41); while paused nothing is begun and nothing is lost; plain handlers of an idle actor
    answer asks without a turn of the loop.

    `lifecycle` is asked to decide: ``failed(error, doing)`` after a handler raised (the cell is paused then), ``quiet()`` when a
    draining, paused or stopping cell has nothing in hand, ``dead_letter(item, reason)``, ``task_cancelled()``,
    ``failure_of(error, doing)``, ``why_closed()``, ``handler_of(receive)``, ``run_blocking(...)``, ``sample(waited, served)``, and
    its ``expected_errors``.
    """

    def __init__(
        self,
        path: str,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        lifecycle: Any,
        *,
        capacity: int,
        overflow: Overflow,
        priority: Callable[[object], float] | None = None,
        stash_capacity: int = 1000,
        concurrency: int = 1,
        reentrant: bool = False,
        inline_asks: bool = True,
        clock_monotonic: Callable[[], float] | None = None,
        wheel: Any = None,
    ) -> None: ...
    @property
    def context(self) -> Context:
        """The actor's own context variables."""
    @property
    def actor(self) -> Any:
        """The present instance, None between two."""
    @property
    def handlers(self) -> dict[FunctionType, Handler]:
        """The methods that messages may name."""
    tracer: Any
    """Told of asks, or None."""
    def install(self, actor: object, receive: Callable[[Any], object] | None, handlers: dict[FunctionType, Handler]) -> None:
        """A new instance takes over; it serves when `run` is called."""
    def run(self) -> None:
        """Serve from now on, what waits first."""
    def pause(self) -> None:
        """Begin nothing until `run`; mail is kept."""
    @property
    def passive(self) -> bool:
        """Whether it has no instance and waits for mail to get one."""
    def sleep_until_mail(self) -> None:
        """The instance has been let go; the next message or signal calls ``lifecycle.wake_up()``."""
    def drain_and_refuse(self) -> None:
        """Take no new mail; serve what is queued."""
    def stop_serving(self) -> None:
        """Take no new mail and begin no message any more."""
    def ended(self) -> None:
        """The last state; the cell's task ends."""
    def kill(self) -> None:
        """Interrupt the running handlers; their messages become dead letters."""
    def revive(self) -> None:
        """After `kill` and a restart: serve as before."""
    def idle(self) -> bool:
        """No handler runs, and nothing waits that could be served now."""
    def quiescent(self) -> bool:
        """No handler runs."""
    def caller_gone(self, reply: Reply[Any]) -> None:
        """The caller of a request in hand gave up."""
    def become(self, receive: Callable[[Any], object], keep: bool) -> None:
        """Another function handles messages for `receive`."""
    def unbecome(self) -> bool:
        """Go back to the one kept last."""
    def stash_current(self) -> None:
        """Put the message in hand aside."""
    @property
    def in_hand(self) -> int:
        """Messages being handled."""
    @property
    def busy(self) -> bool:
        """Whether a message is being handled, concurrent ones aside."""
    @property
    def active(self) -> int:
        """Concurrent and reentrant handlers that run now."""
    @property
    def reentrant(self) -> bool:
        """Whether asks that have come around are handled between the lines of those that wait."""
    @property
    def concurrency(self) -> int:
        """How many handlers may run at a time."""
