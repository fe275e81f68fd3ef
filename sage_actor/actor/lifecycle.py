"""The life of one actor: start, failure, restart, end. A cell says when something happens; here stands what becomes of it.

States, as the cell names them: starting, running, draining (no new mail, the rest is served), restarting (nothing is served,
mail is kept), stopping (nothing is begun any more), stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sage_actor._core.actor_cell import Cell, Handler
from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.reply import Call, Request
from sage_actor.actor.actor import Actor
from sage_actor.actor.attachments import Attachments
from sage_actor.actor.blocking import run_blocking
from sage_actor.actor.family import Family
from sage_actor.actor.handlers import handler_of, handlers_of
from sage_actor.actor.instance import factory_name, make_instance
from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.actor.passivation import Passivation
from sage_actor.actor.quiescence import UNWINDING
from sage_actor.actor.supervision import RestartStrategy, remembered
from sage_actor.actor.supervisor_scope import Supervision
from sage_actor.errors import ActorError, ActorFailed, ActorStopped, BadCall
from sage_actor.telemetry.histogram import LogHistogram

if TYPE_CHECKING:
    from sage_actor.actor.system import ActorSystem

__all__ = ["Lifecycle", "SpawnOptions", "describe"]


@dataclass(slots=True)  # not frozen: that makes it three times as slow to build, and one is built for every spawn
class SpawnOptions:
    """What `spawn` was told beside the class and its arguments."""

    strategy: RestartStrategy
    supervision: Supervision
    mailbox: MailboxSettings
    concurrency: int
    reentrant: bool
    passivate_after: float | None


def describe(error: BaseException) -> str:
    """Type and text of an exception."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Lifecycle(Attachments):
    """One actor from spawn to end. The runtime's own; users hold an `ActorRef`."""

    __slots__ = (
        "arguments", "at_once", "cell", "child_error", "end", "ending", "expected_errors", "factory", "failures", "interrupted",
        "last_error", "name", "parent",
        "passivation", "path", "pausing", "reason", "ref", "restarting", "restarts", "restarts_with", "samples", "started", "strategy",
        "turns_taken",
    )  # fmt: skip

    def __init__(
        self,
        system: ActorSystem,
        parent: Lifecycle | None,
        name: str,
        factory: Callable[..., object],
        arguments: tuple[object, ...],
        options: SpawnOptions,
    ) -> None:
        self.parent = parent
        self.name = name
        self.path: str = name if parent is None else f"{parent.path}/{name}"
        self.factory = factory
        self.arguments = arguments
        self.strategy = options.strategy
        self.failures: Sequence[float] = ()
        self.last_error: BaseException | None = None
        self.reason: BaseException | None = None
        self.restarts = 0
        self.restarting = False
        self.restarts_with: Lifecycle | None = None  # whose delay it waits out
        self.child_error: BaseException | None = None  # of a child, while on_start runs
        self.started = False  # the present instance has started, and neither on_restart nor on_passivate has let it go
        self.turns_taken = 0  # how often somebody took over the matter of starting again; whoever did before is overruled
        self.ending = False
        self.at_once = False
        self.interrupted = False
        self.passivation = None if options.passivate_after is None else Passivation(self, options.passivate_after)
        self.end: asyncio.Task[None] | None = None
        self.pausing: asyncio.Future[None] | None = None
        self.samples: tuple[LogHistogram, LogHistogram] | None = None
        super().__init__(system, options.supervision)
        self.expected_errors: tuple[type[Exception], ...] = ()
        mailbox = options.mailbox
        self.cell = Cell(
            self.path,
            system.loop,
            copy_context() if system.base_context is None else system.base_context.copy(),
            self,
            capacity=mailbox.capacity,
            overflow=mailbox.overflow,
            priority=None if mailbox.priority is None else partial(_priority_of, mailbox.priority, self.path),
            stash_capacity=mailbox.stash_capacity,
            concurrency=options.concurrency,
            reentrant=options.reentrant,
            inline_asks=system.inline_asks,
            clock_monotonic=system.cell_clock,
            wheel=system.deadlines,
        )
        self.ref: ActorRef[Any] = ActorRef(self.cell)
        self.cell.bind(self.ref)
        self.cell.tracer = system.tracer

    def __repr__(self) -> str:
        return f"<actor {self.path!r} {self.cell.state_name}>"

    @property
    def class_name(self) -> str:
        """The actor's class, as far as it is known."""
        made = self.cell.actor
        return factory_name(self.factory) if made is None else type(made).__name__

    def contains(self, other: Lifecycle | None) -> bool:
        """Whether `other` is this actor or one below it."""
        while other is not None and other is not self:
            other = other.parent
        return other is self

    def is_idle(self) -> bool:
        """No handler runs, nothing waits that could be served, and no start, restart or end is under way but for its delay."""
        pausing = (self.restarts_with or self).pausing
        delayed = pausing is not None and not pausing.done()
        under_way = self.restarting or self.hook_running or self.escalating > 0 or self.cell.state_name == "starting"
        return self.cell.idle() and (delayed or not under_way) and (self.end is None or self.end.done())

    def is_quiet(self) -> bool:
        """No handler runs, and no hook."""
        return self.cell.quiescent() and not self.hook_running

    # -- starting --

    def build(self) -> bool:
        """Make the instance, in the actor's context. Says whether `on_start` has to be awaited before it may run.

        Raises:
            Exception: whatever the class raised.
        """
        actor = self.cell.context.run(make_instance, self.factory, self.arguments, self)
        cls = type(actor)
        self.expected_errors = cls.expected_errors
        receive: Callable[[Any], object] | None = None if cls.receive is Actor.receive else actor.receive
        handlers = handlers_of(cls, outermost=Actor)
        between = self.system.interceptor
        if between is not None:
            handlers = between.handlers(self, actor, handlers)
            receive = None if receive is None else between.behaviour(self, actor, receive)
        self.cell.install(actor, receive, handlers)
        return cls.on_start is not Actor.on_start

    @property
    def is_new(self) -> bool:
        """Whether it has not started for the first time yet."""
        return self.cell.state_name == "starting"

    async def begin(self, scope: Request | None) -> None:
        """Await `on_start`, on behalf of whoever spawns, then run."""
        await self.await_start(scope)
        self.run()

    async def await_start(self, scope: Request | None = None) -> None:
        """Await `on_start` of the present instance.

        Raises:
            ActorStopped: the end, or another restart, came first.
            BaseException: whatever it raised, or the error of a child that was escalated meanwhile.
        """
        self.child_error = None
        await self.hooks.call("on_start", scope=scope)
        error, self.child_error = self.child_error, None
        if error is not None:
            raise error

    def run(self) -> None:
        """The instance is ready: serve, unless the end has begun."""
        self.started = True
        if not self.ending:
            self.cell.run()
            if self.passivation is not None:
                self.passivation.begin()

    async def clear(self) -> None:
        """Undo what a start that failed has begun."""
        self.cancel_timers()
        await self.family.stop_all(None)

    async def give_up_start(self, error: BaseException) -> None:
        """The first start has failed for good: nothing is left of the actor when this returns."""
        if self.end is None and not self.children and not self.started:
            self.reason = error
            self.bury(f"its start failed: {describe(error)}")
        else:
            await asyncio.shield(self.finish(error))

    # -- failing --

    def failure_of(self, error: BaseException, doing: str) -> ActorFailed:
        """What the caller of a failed ask sees."""
        failure = ActorFailed(self.path, describe(error), doing)
        failure.__cause__ = error
        return failure

    def failed(self, error: BaseException, doing: str) -> None:
        """A handler has raised; the cell is paused. The supervisor decides."""
        self.last_error = error
        self.system.failures += 1
        if self.ending or self.restarting:  # its instance goes anyway
            self.system.log_error(self, error, f"{doing} failed while the actor was {'stopping' if self.ending else 'restarting'}")
        else:
            self._supervise(error)

    def start_failed(self, error: BaseException) -> None:
        """A start during a restart has failed: it spends the budget again."""
        self.restarting = False
        self.last_error = error
        self.system.failures += 1
        self._supervise(error)

    def _supervise(self, error: BaseException) -> None:
        self.failures = remembered(self.strategy, [*self.failures, self.system.clock.monotonic()])
        self._siblings().failed(self, error)

    def suspend(self, error: BaseException) -> int | None:
        """A child's failure is about to become this actor's own, once its children have ended: it serves nothing meanwhile.

        Answers what `escalated` has to be given; None if nothing is to follow, because its instance goes anyway, or because
        the start that is under way fails by it.
        """
        if self.hook_running == "on_start":
            self.child_error = error
            self.hooks.cut_off(error)
        return None if self.ending or self.restarting or self.is_new else self.pause()

    def escalated(self, error: BaseException, turn: int) -> None:
        """A child's failure has become this actor's own."""
        if not self.ending and self.turns_taken == turn:
            self.start_failed(error)

    def next_start(self, error: BaseException) -> float | None:
        """The delay before a failed first start is tried again; None if the strategy gives up."""
        self.last_error = error
        self.failures = remembered(self.strategy, [*self.failures, self.system.clock.monotonic()])
        return self.strategy.next_delay(self.failures, self.system.clock.monotonic(), self.system.random)

    def _siblings(self) -> Family:
        return self.system.family if self.parent is None else self.parent.family

    # -- restarting --

    def pause(self) -> int:
        """Serve nothing until started again. Whoever was about to do so is overruled: answers the turn that now counts."""
        self.restarting = True
        self.cell.pause()
        self._end_pause()
        self.restarts_with = None
        self.turns_taken += 1
        return self.turns_taken

    def resume(self) -> None:
        """Go on with the present instance."""
        self.restarting = False
        self.cell.run()

    async def pause_for(self, delay: float) -> None:
        """Wait out a restart delay; a stop ends the wait, and so does another restart."""
        if self.ending:
            return
        if delay <= 0:
            await asyncio.sleep(0)
            return
        self.pausing = pausing = self.system.loop.create_future()
        alarm = self.system.clock.call_later(delay, self._end_pause)
        try:
            await pausing
        finally:
            alarm.cancel()
            if self.pausing is pausing:
                self.pausing = None

    def _end_pause(self) -> None:
        if self.pausing is not None and not self.pausing.done():
            self.pausing.set_result(None)

    # -- ending --

    def stop_soon(self, reason: BaseException | None) -> None:
        """Begin the end after the message in hand, if it has not begun."""
        self.end = self.finish(reason)

    def finish(
        self, reason: BaseException | None, *, drain: bool = False, timeout: float | None = None, at_once: bool = False
    ) -> asyncio.Task[None]:
        """Begin the end, if it has not begun; the task is done when the actor has ended and everybody has been told.

        Args:
            reason: the error that ends it, None for an orderly stop.
            drain: serve what is queued first.
            timeout: seconds for each step.
            at_once: interrupt what runs, in the children too, also if the end has begun more gently.
        """
        limit = self.system.stop_timeout if timeout is None else timeout
        drain = drain and not at_once
        if self.end is None:
            self.reason = reason
            if not drain:
                self._stop_serving()
            else:
                self.cell.drain_and_refuse()
            self.end = self.system.start_task(self._end(drain, limit), f"end of {self.path}")
        elif not drain and not self.ending:  # it drains; now it shall not
            self.reason = self.reason or reason
            self._stop_serving()
        if at_once and not self.at_once:
            self.at_once = True
            self._interrupt()
            for child in self.children:
                if child.end is not None:
                    _ = child.finish(None, at_once=True)
        return self.end

    def _stop_serving(self) -> None:
        self.ending = True
        self.cell.stop_serving()
        self._end_pause()
        self.quiet()

    def interrupt_handlers(self) -> None:
        """Cancel what runs. Once only: a second cancellation would hit the handlers in their ``finally`` clauses."""
        if not self.interrupted:
            self.interrupted = True
            self.cell.kill()

    def _interrupt(self) -> None:
        self.interrupt_handlers()
        if self.hook_running not in ("", "on_stop"):
            self.hooks.cut_off(ActorStopped(self.path, f"it was stopped while {self.hook_running} ran"))

    def quiet(self) -> None:
        """From the cell: no handler runs and none can be begun now. From the hooks: none runs."""
        if self._quiescence is not None:
            self._quiescence.look()

    def _is_drained(self) -> bool:
        return self.ending or (self.cell.quiescent() and not self.cell.has_mail())

    async def _end(self, drain: bool, limit: float) -> None:
        try:
            if drain:
                await self.quiescence.until(self._is_drained, limit)
            self._stop_serving()
            if self.at_once or not await self.quiescence.until(self.is_quiet, limit):
                self._interrupt()
                if not await self.quiescence.until(self.is_quiet, UNWINDING):
                    self.system.log_error(self, None, "a handler goes on although it was cancelled; it is left behind")
            self.cancel_timers()
            if self._family is not None:
                await self._family.stop_all(None, drain=drain, timeout=limit, owner=self)
            if self.started:
                try:
                    await self.hooks.call("on_stop", limit=limit)
                except Exception as own:  # noqa: BLE001 - a user's hook; the end goes on
                    self.system.log_error(self, own, "on_stop failed")
        finally:
            self.bury("the actor has stopped" if self.reason is None else f"the actor ended: {describe(self.reason)}")

    def task_cancelled(self) -> None:
        """From the cell: somebody outside cancelled the actor's task (as the end of an event loop does). No hook can run."""
        self._collapse(ActorError(f"actor {self.path!r}: its task was cancelled from outside"))

    def _collapse(self, reason: ActorError) -> None:
        if not self.ending:
            self.reason = reason
            self.ending = True
            self.cell.stop_serving()
        self._interrupt()
        for child in reversed(self.children):
            child._collapse(reason)
        if self.end is None:
            self.bury("its task was cancelled from outside")

    def bury(self, words: str) -> None:
        """The last act, without a wait: leftovers become dead letters, the name is freed, watchers are told. Once."""
        if self.cell.state_name == "stopped":
            return
        self.ending = True
        self.cell.stop_serving()
        self._end_pause()
        for left in self.cell.take_leftovers():
            self.cell.refuse_leftover(left, words)
        self.cancel_timers()
        if self.passivation is not None:
            self.passivation.cancel()
        self.cell.ended()
        self.arguments = ()  # refs outlive it
        self._siblings().remove(self.name, self)
        self.system.forget(self)
        if self._deathwatch is not None:
            self._deathwatch.announce()

    def why_closed(self) -> str:
        """Why no message is taken any more, in words."""
        if self.reason is not None:
            return describe(self.reason)
        return "it was stopped" if self.cell.state_name == "stopped" else "it is stopping"

    # -- what the cell asks for --

    def become(self, receive: Callable[[Any], object], *, keep: bool) -> None:
        """Another function handles messages for `receive` from now on."""
        between = self.system.interceptor
        if between is not None and self.cell.actor is not None:
            receive = between.behaviour(self, self.cell.actor, receive)
        self.cell.become(receive, keep)

    def handler_of(self, receive: Callable[..., object]) -> Handler:
        """What is known about a behaviour.

        Raises:
            ActorError: it was declared `blocking`, and is no method of this actor.
        """
        handler = handler_of(getattr(receive, "__func__", receive), "receive")
        if handler.pool is not None and getattr(receive, "__self__", None) is not self.cell.actor:
            raise ActorError(f"actor {self.path!r}: a blocking behaviour must be a method of the actor, not {receive!r}")
        return handler

    def handler_for(self, method: Callable[..., object]) -> Handler:
        """The handler of a method of this actor, given bound or not.

        Raises:
            ActorError: it belongs to something else.
        """
        function: Any = getattr(method, "__func__", method)
        owner = getattr(method, "__self__", None)
        # By its context: while the class is being called the new instance is not known yet.
        if owner is not None and getattr(owner, "_sage_lifecycle", None) is not self:
            raise ActorError(f"actor {self.path!r}: {method!r} belongs to another object; give a method of the actor itself")
        return (self.cell.handlers or {}).get(function) or handler_of(function)

    def run_blocking(self, handler: Handler, actor: Actor, arguments: tuple[object, ...], options: dict[str, object] | None) -> Any:
        """Run a method that was declared `blocking`; answers something to await."""
        return run_blocking(self.system, handler, actor, arguments, options or {})

    def dead_letter(self, item: object, reason: str) -> None:
        """A message for this actor will not be handled."""
        self.system.dead_letter(self, item, reason)

    def open_stream(self, handler: Handler, arguments: tuple[object, ...], options: dict[str, object] | None, demand: int) -> Any:
        """Start an answer in parts."""
        from sage_actor.actor.streaming import open_stream

        return open_stream(self, handler, arguments, options or {}, demand)

    def wake_up(self) -> None:
        """There is mail for an actor without an instance, or it was closed, which wakes everybody."""
        if self.passivation is not None:
            self.passivation.wake_up()

    def sample(self, waited: float, served: float) -> None:
        """One message in 64: how long it lay in the mailbox, how long its handler took; in seconds."""
        if self.samples is None:
            self.samples = LogHistogram(), LogHistogram()
        self.samples[0].record(int(waited * 1e9))
        self.samples[1].record(int(served * 1e9))


def _priority_of(priority: Callable[[object], int], path: str, item: object) -> float:
    message = item
    if isinstance(item, Call):
        function = None if item.handler is None else item.handler.function
        message = item.message if function is None else getattr(function, "sage_method", function)  # what faults stand before
    try:
        return float(priority(message))
    except Exception as error:
        raise BadCall(path, f"its mailbox could not tell the message's priority: {describe(error)}") from error
