"""A restart of one actor, as its supervisor does it: the old instance is let go, a fresh one takes over behind the same ref.

While either is awaited the actor may be stopped, or taken over by a restart that concerns more of its siblings, which may even be
over by then. So both look before every step whether theirs is still the turn that counts (`Lifecycle.pause`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sage_actor.actor.quiescence import UNWINDING
from sage_actor.errors import ActorStopped

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["start_again", "tear_down"]


async def tear_down(actor: Lifecycle, turn: int, error: BaseException) -> None:
    """Let the present instance go: handlers interrupted, timers cancelled, children ended, `on_restart` called.

    When it returns, and `turn` still counts, no handler and no hook runs, and what had been stashed waits to be handled.
    """

    def counts() -> bool:
        return not actor.ending and actor.turns_taken == turn

    if counts() and actor.hooks.running == "on_start":  # of a restart that this one overrules
        actor.hooks.cut_off(ActorStopped(actor.path, "its start was broken off by another restart"))
    if counts() and not actor.cell.quiescent():
        actor.interrupt_handlers()
        if not await actor.quiescence.until(lambda: actor.cell.quiescent() or not counts(), UNWINDING):
            actor.system.log_error(actor, None, "a handler goes on although it was cancelled; the fresh instance waits for it")
    if counts():
        actor.interrupted = False
        actor.cell.revive()
    await _hook_over(actor, counts)
    if counts():
        await actor.clear()
    if counts() and actor.started:
        try:
            await actor.hooks.call("on_restart", error, limit=actor.system.stop_timeout)
        except Exception as own:  # noqa: BLE001 - a user's hook; the restart goes on
            actor.system.log_error(actor, own, "on_restart failed")
    await _hook_over(actor, counts)
    if counts():
        actor.cell.unstash()


async def _hook_over(actor: Lifecycle, counts: Callable[[], bool]) -> None:
    while actor.hooks.running and counts():
        await actor.quiescence.until(lambda: not (actor.hooks.running and counts()), actor.system.stop_timeout)


async def start_again(actor: Lifecycle, turn: int) -> None:
    """Make a fresh instance and have it serve, if `turn` still counts.

    Raises:
        Exception: whatever the class or `on_start` raised.
    """
    if actor.ending or turn != actor.turns_taken:
        return
    if actor.build():
        await actor.await_start()
    actor.started = True
    if not actor.ending and turn == actor.turns_taken:
        actor.restarting = False
        actor.restarts += 1
        actor.system.restarts += 1
        actor.run()
