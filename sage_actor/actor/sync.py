"""SyncSystem: the blocking face of an actor system, for other threads than its event loop's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextvars import copy_context
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, TypeVarTuple, overload

from sage_actor.durations import parse_duration
from sage_actor.errors import ActorError, ActorStopped, AskTimeout
from sage_actor.ports import system_clock

if TYPE_CHECKING:
    from sage_actor._core.actor_ref import ActorRef
    from sage_actor.actor.actor import Actor
    from sage_actor.actor.mailbox import MailboxSettings
    from sage_actor.actor.remoting import Place
    from sage_actor.actor.statistics import SystemStatistics
    from sage_actor.actor.supervision import RestartStrategy
    from sage_actor.actor.supervisor_scope import Supervision
    from sage_actor.actor.system import ActorSystem
    from sage_actor.actor.watching import Terminated

__all__ = ["SyncSystem"]

A = TypeVar("A", bound="Actor")
B = TypeVar("B")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

GRACE: Final = 0.25
"""Seconds that a loop may be late with an `AskTimeout` before the waiting thread raises it by itself."""
LOOK: Final = 0.1
"""Seconds between two looks at whether the loop that is waited for still runs."""
STANDSTILL: Final = 1.0
"""Seconds that a loop may stand still (as between two `run_until_complete`) before it counts as ended."""


class _Pending(Protocol[R_co]):
    """What a `Reply`, a task and a future of asyncio have in common."""

    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def cancel(self) -> bool: ...
    def result(self) -> R_co: ...
    def exception(self) -> BaseException | None: ...
    def add_done_callback(self, callback: Callable[[Any], object], /) -> None: ...


class Outcome(Future[R]):
    """What comes of something that an event loop does for another thread. Waiting for it ends when the loop has.

    Cancelling it gives up what the loop does for it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[], Exception]) -> None:
        super().__init__()
        self._loop = loop
        self._ended = ended
        self._pending: _Pending[R] | None = None
        self.add_done_callback(Outcome._look_whether_cancelled)

    def begin(self, start: Callable[[], _Pending[R]]) -> None:
        """Have the loop call `start` and settle this with what comes of it. To be called on the waiting thread.

        Raises:
            Exception: the loop has ended.
        """
        try:
            # In the caller's context: a thread that a blocking handler runs in asks on behalf of its handler's request.
            self._loop.call_soon_threadsafe(self._start, start, context=copy_context())
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            raise self._ended() from None

    def _start(self, start: Callable[[], _Pending[R]]) -> None:
        if self.cancelled():
            return
        try:
            pending = start()
        except BaseException as error:
            self._settle_with(None, error)
            if not isinstance(error, Exception):
                raise
            return
        self._pending = pending
        if self.cancelled():  # meanwhile
            pending.cancel()
        if pending.done():
            self._settle(pending)
        else:
            pending.add_done_callback(self._settle)

    def _settle(self, pending: _Pending[R]) -> None:
        if pending.cancelled():
            self._settle_with(None, self._ended())
        elif (error := pending.exception()) is not None:
            self._settle_with(None, error)
        else:
            self._settle_with(pending.result(), None)

    def _settle_with(self, result: Any, error: BaseException | None) -> None:
        try:
            if error is None:
                self.set_result(result)
            else:
                self.set_exception(error)
        except InvalidStateError:
            pass  # the waiting thread has given up

    @staticmethod
    def _look_whether_cancelled(future: Future[Any]) -> None:
        if isinstance(future, Outcome) and future.cancelled():
            future.set_running_or_notify_cancel()  # those in concurrent.futures.wait() hear of a cancellation only so
            try:
                future._loop.call_soon_threadsafe(future._give_up)
            except RuntimeError:
                pass  # the loop has ended, and all that it did with it

    def _give_up(self) -> None:
        if self._pending is not None:
            self._pending.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is done or its loop has ended; False if `timeout` seconds have passed before."""
        limit = None if timeout is None else system_clock.monotonic() + timeout
        still_since: float | None = None
        while not self.done():
            now = system_clock.monotonic()
            if limit is not None and now >= limit:
                return False
            if self._loop.is_running():
                still_since = None
            elif still_since is None:
                still_since = now
            if self._loop.is_closed() or (still_since is not None and now - still_since >= STANDSTILL):
                self._settle_with(None, self._ended())
                return True
            try:
                super().exception(LOOK if limit is None else min(LOOK, limit - now))
            except (TimeoutError, CancelledError):
                pass
        return True

    def result(self, timeout: float | None = None) -> R:
        """As of any future of `concurrent.futures`, and when the loop has ended, `ActorError`."""
        if not self.wait(timeout):
            raise TimeoutError
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As of any future of `concurrent.futures`; when the loop has ended, an `ActorError`."""
        if not self.wait(timeout):
            raise TimeoutError
        return super().exception(0)


class SyncSystem:
    """An actor system for code that blocks: each method does what its namesake of `ActorSystem` or `ActorRef` does, and waits.

    For any thread but the one that the system's event loop runs in, where waiting would stop the loop that is waited for: there
    every method raises `ActorError` at once. Thread-safe. What one thread sends to one actor, by ``system.sync`` and by
    ``ref.tell``, is handled in the order of the calls. In a method declared `blocking` asks belong to the request that the method
    serves: they inherit its deadline, and an ask that would wait for itself raises `AskCycle`.

    No call outlasts the event loop: when that has ended, or stands still for a second, a waiting call raises `ActorStopped` (ask,
    tell) or `ActorError`. ``KeyboardInterrupt`` in a waiting thread gives up what it waits for, like a cancellation.
    """

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._system.name!r}>"

    # -- messages --

    @overload
    def ask(
        self, ref: ActorRef[B], method: Callable[[B, *Ts], Coroutine[Any, Any, R]], /, *args: *Ts, timeout: float | str | None = None
    ) -> R:
        """Send, wait for the answer and return it: ``system.sync.ask(ref, Counter.add, 1, timeout=2)``, ``ask(ref, "hello")``.

        Args:
            timeout: seconds (or "2s") until `AskTimeout`, also when the event loop is stuck and does not come to sending: then the
                message is never sent. None: as long as it takes. It is not handed to the method.

        Raises:
            ActorFailed, ActorStopped, AskTimeout, AskCycle, AskAbandoned, MailboxFull, BadCall: as awaiting `ActorRef.ask` does; or
                one of the actor's `expected_errors` as it is.
            ActorError: called on the thread of the event loop.
        """

    @overload
    def ask(self, ref: ActorRef[B], method: Callable[[B, *Ts], R], /, *args: *Ts, timeout: float | str | None = None) -> R: ...
    @overload
    def ask(
        self, ref: ActorRef[B], method: Callable[Concatenate[B, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    def ask(self, ref: ActorRef[B], method: Callable[Concatenate[B, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def ask(self, ref: ActorRef[Any], message: object, /, *, timeout: float | str | None = None) -> Any: ...
    def ask(self, ref: ActorRef[Any], message: Any, /, *args: object, **kwargs: Any) -> Any:
        timeout: float | str | None = kwargs.pop("timeout", None)
        seconds = None if timeout is None else parse_duration(timeout, key="ask timeout")
        started = system_clock.monotonic()

        def start() -> _Pending[Any]:
            left = None if seconds is None else max(0.0, seconds - (system_clock.monotonic() - started))
            return ref.ask(message, *args, timeout=left, **kwargs)

        outcome = self._outcome("ask", "await ref.ask(...)", ref)
        try:
            outcome.begin(start)
            if outcome.wait(None if seconds is None else seconds + GRACE):
                return outcome.result()
        except BaseException:
            outcome.cancel()
            raise
        if outcome.cancel():
            raise AskTimeout(ref.path, seconds or 0.0, message.__name__ if isinstance(message, FunctionType) else "receive")
        return outcome.result()

    @overload
    def tell(self, ref: ActorRef[B], method: Callable[Concatenate[B, P], object], /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Send without an answer: ``system.sync.tell(ref, Counter.add, 1)``, ``tell(ref, "hello")``.

        Waits for room if the mailbox is full and its overflow policy is "wait". (``ref.tell`` may be called from any thread too, and
        never waits there.)

        Returns:
            Whether the message was accepted: False if it went to the dead letters.

        Raises:
            MailboxFull, BadCall: as `ActorRef.tell` does.
            ActorStopped: the event loop has ended.
            ActorError: called on the thread of the event loop.
        """

    @overload
    def tell(self, ref: ActorRef[Any], message: object, /) -> bool: ...
    def tell(self, ref: ActorRef[Any], message: Any, /, *args: Any, **kwargs: Any) -> bool:
        async def send() -> bool:
            return await ref.tell(message, *args, **kwargs)

        outcome: Outcome[bool] = self._outcome("tell", "await ref.tell(...)", ref)
        return self._result(outcome, lambda: self._task(send(), f"tell to {ref.path}"))

    # -- actors --

    def spawn(
        self,
        cls: Callable[[*Ts], A],
        /,
        *args: *Ts,
        name: str | None = None,
        restart: RestartStrategy | None = None,
        supervision: Supervision | None = None,
        mailbox: MailboxSettings | None = None,
        concurrency: int = 1,
        reentrant: bool = False,
        retry_start: bool = False,
        passivate_after: float | str | None = None,
        worker: Place = None,
    ) -> ActorRef[A]:
        """Make an actor and start it; returns when its `on_start` has. Arguments and errors are those of `ActorSystem.spawn`."""

        def start() -> _Pending[ActorRef[A]]:
            spawning = self._system.spawn(
                cls,
                *args,
                name=name,
                restart=restart,
                supervision=supervision,
                mailbox=mailbox,
                concurrency=concurrency,
                reentrant=reentrant,
                retry_start=retry_start,
                passivate_after=passivate_after,
                worker=worker,
            )
            return self._task(spawning, "spawn from another thread")

        return self._result(self._outcome("spawn", "await system.spawn(...)"), start)

    def lookup(self, path: str) -> ActorRef[Any] | None:
        """The living actor at a path such as "counter" or "parent/child"; None if there is none."""
        outcome: Outcome[ActorRef[Any] | None] = self._outcome("lookup", "system.lookup(...)")
        return self._result(outcome, lambda: self._done(self._system.lookup(path)))

    def stop(self, ref: ActorRef[Any], *, drain: bool = True, timeout: float | str = 5.0) -> None:
        """End an actor; returns when it has ended. Arguments and guarantees are those of `ActorSystem.stop`."""

        def start() -> _Pending[None]:
            return self._task(self._system.stop(ref, drain=drain, timeout=timeout), f"stop of {ref.path} from another thread")

        self._result(self._outcome("stop", "await system.stop(...)"), start)

    def kill(self, ref: ActorRef[Any]) -> None:
        """Like ``stop(drain=False)``, but the message in hand is interrupted at once."""
        self.stop(ref, drain=False, timeout=0.0)

    def watch(self, ref: ActorRef[Any]) -> Future[Terminated]:
        """A future that has the actor's end, at once if it has ended already; does not wait itself.

        Cancelling the future ends the watch. If the event loop ends under an actor that nobody stopped, the future's `result` raises
        `ActorError`.
        """
        outcome: Outcome[Terminated] = self._outcome("watch", "system.watch(...)")
        outcome.begin(lambda: self._system.watch(ref))
        return outcome

    def statistics(self) -> SystemStatistics:
        """Counts of every living actor, as a tree, all of one moment."""
        outcome: Outcome[SystemStatistics] = self._outcome("statistics", "system.statistics()")
        return self._result(outcome, lambda: self._done(self._system.statistics()))

    # -- the way to the loop --

    def _outcome(self, what: str, instead: str, ref: ActorRef[Any] | None = None) -> Outcome[Any]:
        loop = self._loop_to_ask(what, instead)

        def ended() -> Exception:
            if ref is not None:
                return ActorStopped(ref.path, "its event loop has ended")
            return ActorError(f"{what}: the event loop of actor system {self._system.name!r} has ended, and its actors with it")

        return Outcome(loop, ended)

    def _loop_to_ask(self, what: str, instead: str) -> asyncio.AbstractEventLoop:
        loop = self._system.loop
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is loop:
            raise ActorError(
                f"{what}: blocking here would stop the event loop that is to do it, that of actor system {self._system.name!r}; "
                f"in its own thread use `{instead}`"
            )
        if os.getpid() != self._process:
            raise ActorError(f"{what}: actor system {self._system.name!r} lives in the process that this one was forked from, not here")
        return loop

    def _result(self, outcome: Outcome[R], start: Callable[[], _Pending[R]]) -> R:
        try:
            outcome.begin(start)
            return outcome.result()
        except BaseException:
            outcome.cancel()
            raise

    def _task(self, coroutine: Coroutine[Any, Any, R], name: str) -> asyncio.Task[R]:
        return self._system.start_task(coroutine, name, context=copy_context())

    def _done(self, value: R) -> asyncio.Future[R]:
        future: asyncio.Future[R] = self._system.loop.create_future()
        future.set_result(value)
        return future
