"""The life of one actor: start, failure, restart, end. A cell says when something happens; here stands what becomes of it.

States, as the cell names them: starting, running, draining (no new mail, the rest is served), restarting (nothing is served,
mail is kept), stopping (nothing is begun any more), stopped.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sage_actor._core.actor_cell import Cell, Handler, current_request_variable
from sage_actor._core.actor_ref import ActorRef
from sage_actor._core.reply import Call, Request
from sage_actor.actor.actor import Actor
from sage_actor.actor.blocking import run_blocking
from sage_actor.actor.context import ActorContext
from sage_actor.actor.family import Family
from sage_actor.actor.handlers import handler_of, handlers_of
from sage_actor.actor.instance import factory_name, make_instance
from sage_actor.actor.mailbox import MailboxSettings
from sage_actor.actor.passivation import Passivation
from sage_actor.actor.quiescence import Quiescence
from sage_actor.actor.supervision import RestartStrategy, remembered
from sage_actor.actor.supervisor_scope import Supervision
from sage_actor.actor.watching import DeathWatch
from sage_actor.errors import ActorError, ActorFailed, BadCall
from sage_actor.telemetry.histogram import LogHistogram

if TYPE_CHECKING:
    from sage_actor.actor.system import ActorSystem

__all__ = ["Lifecycle", "SpawnOptions"]

ON_TERMINATED = handler_of(Actor.on_terminated, "on_terminated")


@dataclass(frozen=True, slots=True, kw_only=True)
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


class Lifecycle:
    """One actor from spawn to end. The runtime's own; users hold an `ActorRef`."""

    __slots__ = (
        "actor_context", "arguments", "cell", "deathwatch", "end", "ending", "expected_errors", "factory", "failures", "family",
        "last_error", "name", "parent", "passivation", "path", "pausing", "quiescence", "reason", "ref", "restarting", "restarts",
        "restarts_with", "samples", "strategy", "system",
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
        self.system = system
        self.parent = parent
        self.name = name
        self.path: str = name if parent is None else f"{parent.path}/{name}"
        self.factory = factory
        self.arguments = arguments
        self.strategy = options.strategy
        self.failures: list[float] = []
        self.last_error: BaseException | None = None
        self.reason: BaseException | None = None
        self.restarts = 0
        self.restarting = False
        self.restarts_with: Lifecycle | None = None  # whose delay it waits out
        self.ending = False
        self.passivation = None if options.passivate_after is None else Passivation(self, options.passivate_after)
        self.end: asyncio.Task[None] | None = None
        self.quiescence = Quiescence(system)
        self.pausing: asyncio.Future[None] | None = None
        self.deathwatch = DeathWatch(self)
        self.samples: tuple[LogHistogram, LogHistogram] | None = None
        self.family = Family(system, self, options.supervision)
        self.actor_context = ActorContext(self)
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
        under_way = self.restarting or self.family.escalating > 0 or self.cell.state_name == "starting"
        return self.cell.idle() and (delayed or not under_way) and (self.end is None or self.end.done())

    # -- starting --

    def build(self) -> bool:
        """Make the instance, in the actor's context. Says whether `on_start` has to be awaited before it may run.

        Raises:
            Exception: whatever the class raised.
        """
        actor = self.cell.context.run(make_instance, self.factory, self.arguments, self.actor_context, self.path)
        cls = type(actor)
        self.expected_errors = cls.expected_errors
        receive = None if cls.receive is Actor.receive else actor.receive
        handlers = handlers_of(cls, outermost=Actor)
        between = self.system.interceptor
        if between is not None:
            handlers = between.handlers(self, actor, handlers)
            receive = None if receive is None else between.behaviour(self, actor, receive)
        self.cell.install(actor, receive, handlers)
        return cls.on_start is not Actor.on_start

    async def begin(self, scope: Request | None) -> None:
        """Await `on_start`, on behalf of whoever spawns, then run."""
        await self.hook("on_start", scope=scope)
        self.run()

    def run(self) -> None:
        """The instance is ready: serve."""
        self.cell.run()
        if self.passivation is not None:
            self.passivation.begin()

    async def hook(self, name: str, *arguments: object, scope: Request | None = None) -> None:
        """Call a hook of the present instance in its own context and await it."""
        actor: Actor | None = self.cell.actor
        if actor is None or getattr(type(actor), name) is getattr(Actor, name):
            return
        method = getattr(actor, name)
        request = Request(self.cell, scope)

        async def await_it() -> None:
            current_request_variable.set(request)
            # Called in here: a task that is cancelled before its first step leaves no coroutine behind.
            result = method(*arguments)
            if inspect.isawaitable(result):
                await result

        try:
            await self.system.start_task(await_it(), f"{name} of {self.path}", context=self.cell.context)
        finally:
            request.finish()

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
        if self.ending:
            return
        if self.restarting:  # its instance is being replaced anyway
            self.system.log_error(self, error, f"{doing} failed while the actor was restarting")
            return
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

    def escalated(self, error: BaseException) -> None:
        """A child's failure has become this actor's own."""
        if not self.ending:
            self.cell.pause()
            self.failed(error, "supervision of its children")

    def next_start(self, error: BaseException) -> float | None:
        """The delay before a failed first start is tried again; None if the strategy gives up."""
        self.last_error = error
        self.failures = remembered(self.strategy, [*self.failures, self.system.clock.monotonic()])
        return self.strategy.next_delay(self.failures, self.system.clock.monotonic(), self.system.random)

    def _siblings(self) -> Family:
        return self.system.family if self.parent is None else self.parent.family

    # -- restarting --

    def pause(self) -> None:
        """Serve nothing until started again."""
        self.restarting = True
        self.cell.pause()

    async def tear_down(self, error: BaseException) -> None:
        """Let the present instance go: handlers interrupted, timers cancelled, children ended, `on_restart` called."""
        if self.ending:
            return
        await self._interrupt()
        self.actor_context.timers.cancel_all()
        await self.family.stop_all(None)
        try:
            await self.hook("on_restart", error)
        except Exception as own:  # noqa: BLE001 - a user's hook; the restart goes on
            self.system.log_error(self, own, "on_restart failed")
        self.cell.unstash()

    async def _interrupt(self) -> None:
        if not self.cell.quiescent():
            self.cell.kill()
            await self._until_quiet(self.system.stop_timeout)
            self.cell.revive()

    async def pause_for(self, delay: float) -> None:
        """Wait out a restart delay; a stop ends the wait."""
        if self.ending:
            return
        if delay <= 0:
            await asyncio.sleep(0)
            return
        self.pausing = pausing = self.system.loop.create_future()

        def go_on() -> None:
            if not pausing.done():
                pausing.set_result(None)

        alarm = self.system.clock.call_later(delay, go_on)
        try:
            await pausing
        finally:
            alarm.cancel()
            self.pausing = None

    async def start_again(self) -> None:
        """A fresh instance takes over behind the same ref.

        Raises:
            Exception: whatever the class or `on_start` raised.
        """
        if self.build():
            await self.hook("on_start")
        if self.ending:
            return
        self.restarting = False
        self.restarts += 1
        self.system.restarts += 1
        self.run()

    # -- passivation --

    def may_passivate(self) -> bool:
        """Whether nothing would be lost by letting the instance go."""
        cell = self.cell
        in_use = self.family.children or self.actor_context.timers.active or cell.stashed or len(cell)
        return cell.state_name == "running" and cell.quiescent() and not in_use

    async def passivate(self) -> None:
        """Let the instance go; mail that comes meanwhile waits and has a new one made."""
        self.cell.pause()
        try:
            await self.hook("on_passivate")
        except Exception as own:  # noqa: BLE001 - a user's hook; the passivation goes on
            self.system.log_error(self, own, "on_passivate failed")
        if not self.ending:
            self.cell.sleep_until_mail()

    def wake_up(self) -> None:
        """From the cell: there is mail for a passive actor."""
        self.restarting = True
        self.system.start_soon(self._wake_up(), f"waking of {self.path}")

    async def _wake_up(self) -> None:
        try:
            if self.build():
                await self.hook("on_start")
        except Exception as error:  # noqa: BLE001 - constructors and on_start are user code; the supervisor decides
            self.cell.pause()
            self.start_failed(error)
            return
        self.restarting = False
        if not self.ending:
            self.run()

    # -- ending --

    def stop_soon(self, reason: BaseException | None) -> None:
        """Begin the end after the message in hand, if it has not begun."""
        self.end = self.finish(reason)

    def finish(self, reason: BaseException | None, *, drain: bool = False, timeout: float | None = None) -> asyncio.Task[None]:
        """Begin the end, if it has not begun; the task is done when the actor has ended and everybody has been told."""
        limit = self.system.stop_timeout if timeout is None else timeout
        if self.end is None:
            self.reason = reason
            if not drain:
                self._stop_serving()
            else:
                self.cell.drain_and_refuse()
            self.end = self.system.start_task(self._end(drain, limit), f"end of {self.path}")
        elif not drain and not self.ending:  # it drains; now it shall not
            self._stop_serving()
        return self.end

    def _stop_serving(self) -> None:
        self.ending = True
        self.cell.stop_serving()
        if self.pausing is not None and not self.pausing.done():
            self.pausing.set_result(None)
        self.quiet()

    def quiet(self) -> None:
        """From the cell: no handler runs and none can be begun now."""
        self.quiescence.look()

    def _is_drained(self) -> bool:
        return self.ending or (self.cell.quiescent() and not self.restarting and not self.cell.has_mail())

    async def _until_quiet(self, limit: float) -> bool:
        return await self.quiescence.until(self.cell.quiescent, limit)

    async def _end(self, drain: bool, limit: float) -> None:
        try:
            if drain:
                await self.quiescence.until(self._is_drained, limit)
            self._stop_serving()
            if not await self._until_quiet(limit):
                self.cell.kill()
                if not await self._until_quiet(limit):
                    self.system.log_error(self, None, "a handler goes on although it was cancelled; it is left behind")
            self.actor_context.timers.cancel_all()
            await self.family.stop_all(None, timeout=limit)
            try:
                await self._within(self.hook("on_stop"), limit)
            except Exception as own:  # noqa: BLE001 - a user's hook; the end goes on
                self.system.log_error(self, own, "on_stop failed")
        finally:
            self.bury("the actor has stopped" if self.reason is None else f"the actor ended: {describe(self.reason)}")

    async def _within(self, hook: Any, limit: float) -> None:
        task = self.system.start_task(hook, f"on_stop of {self.path}")
        alarm = self.system.clock.call_later(limit, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled() or (current := asyncio.current_task()) is None or current.cancelling():
                raise
            self.system.log_error(self, None, f"on_stop took longer than {limit:g} s and was cancelled")
        finally:
            alarm.cancel()

    def task_cancelled(self) -> None:
        """From the cell: somebody outside cancelled the actor's task (as the end of an event loop does). No hook can run."""
        if not self.ending:
            self.reason = ActorError(f"actor {self.path!r}: its task was cancelled from outside")
            self.ending = True
            self.cell.stop_serving()
        if self.end is None:
            self.bury("its task was cancelled from outside")

    def bury(self, words: str) -> None:
        """The last act, without a wait: leftovers become dead letters, the name is freed, watchers are told. Once."""
        if self.cell.state_name == "stopped":
            return
        self.ending = True
        self.cell.stop_serving()
        for left in self.cell.take_leftovers():
            self.cell.refuse_leftover(left, words)
        self.actor_context.timers.cancel_all()
        if self.passivation is not None:
            self.passivation.cancel()
        self.cell.ended()
        self._siblings().remove(self.name, self)
        self.system.forget(self)
        self.deathwatch.announce()

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
        """What is known about a behaviour."""
        return handler_of(getattr(receive, "__func__", receive), "receive")

    def terminated_handler(self) -> Handler:
        """The hook that a watched actor's end is told to."""
        actor = self.cell.actor
        return ON_TERMINATED if actor is None else self.handler_for(type(actor).on_terminated)

    def handler_for(self, method: Callable[..., object]) -> Handler:
        """The handler of a method of this actor, given bound or not.

        Raises:
            ActorError: it belongs to something else.
        """
        function: Any = getattr(method, "__func__", method)
        owner = getattr(method, "__self__", None)
        if owner is not None and owner is not self.cell.actor:
            raise ActorError(f"actor {self.path!r}: {method!r} belongs to another object; give a method of the actor itself")
        if function is Actor.on_terminated:
            return ON_TERMINATED
        return self.cell.handlers.get(function) or handler_of(function)

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

    def sample(self, waited: float, served: float) -> None:
        """One message in 64: how long it lay in the mailbox, how long its handler took; in seconds."""
        if self.samples is None:
            self.samples = LogHistogram(), LogHistogram()
        self.samples[0].record(int(waited * 1e9))
        self.samples[1].record(int(served * 1e9))


def _priority_of(priority: Callable[[object], int], path: str, item: object) -> float:
    message = item
    if isinstance(item, Call):
        message = item.message if item.handler is None else item.handler.function
    try:
        return float(priority(message))
    except Exception as error:
        raise BadCall(path, f"its mailbox could not tell the message's priority: {describe(error)}") from error
