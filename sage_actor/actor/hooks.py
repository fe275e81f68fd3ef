"""Calling the hooks of an actor: one at a time, for a limited time where that is wanted, cut off where life goes on without them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from sage_actor._core.actor_cell import current_request_variable
from sage_actor._core.reply import Request
from sage_actor.actor.actor import Actor
from sage_actor.actor.quiescence import UNWINDING
from sage_actor.errors import ActorError
from sage_actor.ports import Cancellable

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["Hooks"]


class Hooks:
    """The hooks of one actor's instances. The runtime's own.

    Attributes:
        running: the name of the hook that is under way, "" if none is.
    """

    __slots__ = ("_cut", "_last_call", "_lifecycle", "_over", "_task", "running")

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._task: asyncio.Task[None] | None = None
        self._over: asyncio.Future[None] | None = None  # the task has ended, or is left behind
        self._last_call: Cancellable | None = None
        self._cut: BaseException | None = None
        self.running = ""

    async def call(self, name: str, *arguments: object, scope: Request | None = None, limit: float | None = None) -> None:
        """Call a hook of the present instance in the actor's context and await it; nothing if it is not overridden.

        Keeps `Lifecycle.started`: true from when `on_start` has returned until another hook begins, which lets the instance go.

        Args:
            name: of the hook.
            arguments: for it.
            scope: on whose behalf, for its asks.
            limit: seconds after which it is cut off; None: it takes as long as it takes.

        Raises:
            ActorError: it was cut off at its limit, or something inside it was cancelled.
            BaseException: what it was cut off with.
            Exception: whatever it raised.
        """
        lifecycle = self._lifecycle
        actor: Actor | None = lifecycle.cell.actor
        starts = name == "on_start"
        if actor is None or getattr(type(actor), name) is getattr(Actor, name):
            lifecycle.started = starts
            return
        method = getattr(actor, name)
        request = Request(lifecycle.cell, scope)

        async def call_it() -> None:
            # In here, since it may be cancelled before its first step, and who awaits it before it hears of the last.
            lifecycle.started = False
            current_request_variable.set(request)
            # Called in here: a task that is cancelled before its first step leaves no coroutine behind.
            result = method(*arguments)
            if inspect.isawaitable(result):
                await result
            lifecycle.started = starts

        try:
            await self._run(name, call_it(), limit)
        finally:
            request.finish()

    def cut_off(self, error: BaseException) -> None:
        """Cancel the hook that is under way, if there is one: whoever called it gets `error`, unless the hook ends in peace all the
        same. Only the first error counts."""
        over = self._over
        if self._task is not None and over is not None and self._cut is None:
            self._cut = error
            self._task.cancel()
            self._last_call = self._lifecycle.system.clock.call_later(UNWINDING, lambda: _resolve(over))

    async def _run(self, name: str, call: Coroutine[object, object, None], limit: float | None) -> None:
        lifecycle = self._lifecycle
        task = lifecycle.system.start_task(call, f"{name} of {lifecycle.path}", context=lifecycle.cell.context)
        self._task, self._cut, self.running = task, None, name
        self._over = over = lifecycle.system.loop.create_future()
        task.add_done_callback(lambda _: _resolve(over))
        alarm = None
        if limit is not None:
            late = ActorError(f"actor {lifecycle.path!r}: {name} took longer than {limit:g} s and was cancelled")
            alarm = lifecycle.system.clock.call_later(limit, lambda: self.cut_off(late))
        try:
            # Not `await task`: that could not tell the hook's cancellation from our own.
            await over
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
            if self._last_call is not None:
                self._last_call.cancel()
            cut, self._cut, self._task, self._over, self._last_call, self.running = self._cut, None, None, None, None, ""
            lifecycle.quiet()
        if not task.done():
            lifecycle.system.leave_behind(task)
            lifecycle.system.log_error(lifecycle, None, f"{name} goes on although it was cancelled; it is left behind")
        if not task.done() or task.cancelled():
            raise cut or ActorError(f"actor {lifecycle.path!r}: {name} was cancelled")
        task.result()


def _resolve(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
