"""A process of a simulation: everything that descends from one task, so that it can vanish or stand still as a whole."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, Final
from weakref import WeakSet

__all__ = ["PROCESS", "SimulatedProcess", "is_running"]

PROCESS: Final[ContextVar[SimulatedProcess | None]] = ContextVar("PROCESS", default=None)
"""Which process the running code belongs to; None is the world outside, which never crashes. Tasks, timers and callbacks
inherit it from what creates them."""


class SimulatedProcess:
    """What a process is to the loop. Made and ended by `Processes`.

    Attributes:
        name: for messages.
        context: what runs in it runs in a copy of this.
        alive: False once it has ended or crashed.
        stalled: it stands still, as after SIGSTOP.
        parked: what has become due meanwhile.
        alarm: when it goes on by itself.
        tasks: those that were created in it.
        ended: has its outcome, in the world outside: see `Processes`.
        at_end: called, in the world outside, as soon as it has ended in whatever way.
    """

    def __init__(self, name: str, ended: asyncio.Future[Any]) -> None:
        self.name = name
        self.alive = True
        self.stalled = False
        self.parked: deque[asyncio.Handle] = deque()
        self.alarm: asyncio.TimerHandle | None = None
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.ended = ended
        self.at_end: list[Callable[[], object]] = []
        self.children: list[SimulatedProcess] = []
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    def admits(self, handle: asyncio.Handle) -> bool:
        """Whether something that is due may run now; what may not is kept, or dropped for good."""
        if self.alive and not self.stalled:
            return True
        if self.alive:
            self.parked.append(handle)
        return False


def is_running() -> bool:
    """Whether the code that asks belongs to a process that has not crashed; outer systems refuse the dead."""
    process = PROCESS.get()
    return process is None or process.alive
