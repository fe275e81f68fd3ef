"""Waiting until an actor has nothing in hand, for at most so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_actor.actor.system import ActorSystem

__all__ = ["UNWINDING", "Quiescence"]

UNWINDING = 5.0
"""Seconds that an interrupted handler or hook has for its ``finally`` clauses; after them it is left behind."""


class Quiescence:
    """Conditions over one actor, looked at whenever its cell says that no handler runs."""

    __slots__ = ("_system", "_waiters")

    def __init__(self, system: ActorSystem) -> None:
        self._system = system
        self._waiters: list[asyncio.Future[None]] = []

    def look(self) -> None:
        """Something may have changed: have every waiting condition looked at."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Wait until it holds, at most `limit` seconds of the system's clock; says whether it does."""
        if condition():
            return True
        over = False

        def time_is_up() -> None:
            nonlocal over
            over = True
            self.look()

        alarm = self._system.clock.call_later(limit, time_is_up)
        try:
            while not condition() and not over:
                waiter = self._system.loop.create_future()
                self._waiters.append(waiter)
                await waiter
        finally:
            alarm.cancel()
        return condition()
