"""Passivation: an actor that nobody needs lets its instance go, and gets a new one with the next message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_actor.ports import Cancellable

if TYPE_CHECKING:
    from sage_actor.actor.lifecycle import Lifecycle

__all__ = ["Passivation"]


class Passivation:
    """Looks once a period whether anything was handled since; so an actor is let go after one to two periods of idleness.

    An actor with children, timers, stashed mail or a kept behaviour is in use and stays.
    """

    __slots__ = ("_alarm", "_lifecycle", "_period", "_seen")

    def __init__(self, lifecycle: Lifecycle, period: float) -> None:
        self._lifecycle = lifecycle
        self._period = period
        self._seen = -1
        self._alarm: Cancellable | None = None

    def begin(self) -> None:
        """The actor runs: watch its idleness."""
        self.cancel()
        self._seen = self._lifecycle.cell.statistics().accepted
        self._alarm = self._lifecycle.system.clock.call_later(self._period, self._look)

    def cancel(self) -> None:
        """Stop watching."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        self._alarm = None
        lifecycle = self._lifecycle
        accepted = lifecycle.cell.statistics().accepted
        if accepted == self._seen and self._may_let_go():
            lifecycle.system.start_soon(self._let_go(), f"passivation of {lifecycle.path}")
        else:
            self.begin()

    def _may_let_go(self) -> bool:
        """Whether nothing would be lost by it."""
        lifecycle = self._lifecycle
        cell = lifecycle.cell
        in_use = lifecycle.children or lifecycle.actor_context.timers.active or cell.stashed or len(cell)
        return cell.state_name == "running" and cell.quiescent() and not in_use

    async def _let_go(self) -> None:
        """Let the instance go; mail that comes meanwhile waits and has a new one made."""
        lifecycle = self._lifecycle
        if not self._may_let_go():  # mail has come since it was looked at, or a failure
            if lifecycle.cell.state_name == "running":
                self.begin()
            return
        lifecycle.cell.pause()
        turn = lifecycle.turns_taken
        try:
            await lifecycle.hooks.call("on_passivate")
        except Exception as own:  # noqa: BLE001 - a user's hook; the passivation goes on
            lifecycle.system.log_error(lifecycle, own, "on_passivate failed")
        if not lifecycle.ending and turn == lifecycle.turns_taken:
            lifecycle.cell.sleep_until_mail()

    def wake_up(self) -> None:
        """The actor has no instance, and there is mail for it, or it was closed, which wakes everybody."""
        lifecycle = self._lifecycle
        if not lifecycle.ending and (lifecycle.cell.has_mail() or not lifecycle.cell.closed):
            lifecycle.system.start_soon(self._wake_up(lifecycle.pause()), f"waking of {lifecycle.path}")

    async def _wake_up(self, turn: int) -> None:
        lifecycle = self._lifecycle
        try:
            if lifecycle.build():
                await lifecycle.await_start()
        except Exception as error:  # noqa: BLE001 - constructors and on_start are user code; the supervisor decides
            if not lifecycle.ending and turn == lifecycle.turns_taken:
                lifecycle.start_failed(error)
            return
        lifecycle.started = True
        if not lifecycle.ending and turn == lifecycle.turns_taken:
            lifecycle.restarting = False
            lifecycle.run()
