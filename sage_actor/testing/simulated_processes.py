"""The processes of a simulation: started, crashed, stopped and continued, all on one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Literal

from sage_actor.testing.simulated_process import PROCESS, SimulatedProcess
from sage_actor.testing.simulation_loop import SimulationLoop

__all__ = ["Outcome", "Processes", "stand_still"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended: its main coroutine returned or raised, or it was crashed from outside."""

    how: Literal["returned", "raised", "crashed"]
    value: Any = None
    error: BaseException | None = None


class Processes:
    """All processes of one simulated run. Its methods are called from the world outside, or by a process about another one.

    A crash is what kill -9 is: nothing of the process runs any more, no ``finally`` either, and nobody is told but by what he
    sees. Children live on for as long as whoever crashes their parent lets them.
    """

    def __init__(self, loop: SimulationLoop) -> None:
        self.loop = loop
        self.all: list[SimulatedProcess] = []
        self._world = copy_context()
        self._world.run(PROCESS.set, None)

    def start(
        self, name: str, main: Callable[[], Coroutine[Any, Any, object]], *, parent: SimulatedProcess | None = None
    ) -> SimulatedProcess:
        """Start a process; its ``ended`` becomes an `Outcome`."""
        process = SimulatedProcess(name, self.loop.create_future())
        self.all.append(process)
        if parent is not None:
            parent.children.append(process)
        task = self.loop.create_task(main(), name=name, context=process.context.copy())
        task.add_done_callback(lambda done: self._returned(process, done), context=self._world.copy())
        return process

    def alive(self) -> list[SimulatedProcess]:
        """Those that have not ended."""
        return [process for process in self.all if process.alive]

    def crash(self, process: SimulatedProcess) -> None:
        """Kill -9. Harmless if it has ended."""
        if process.alive:
            self.loop.kill(process)
            self._end(process, Outcome("crashed"))

    def stall(self, process: SimulatedProcess, seconds: float | None) -> None:
        """SIGSTOP, and after so many seconds (None: not by itself) SIGCONT."""
        process.stalled = True
        if process.alarm is not None:
            process.alarm.cancel()
        process.alarm = None if seconds is None else self.call_later(seconds, lambda: self.resume(process))

    def resume(self, process: SimulatedProcess) -> None:
        """SIGCONT."""
        if process.alive and process.stalled:
            self.loop.resume(process)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """In the world outside, whoever asks."""
        return self.loop.call_later(seconds, callback, context=self._world.copy())

    def call_soon(self, callback: Callable[[], object]) -> asyncio.Handle:
        """In the world outside, whoever asks."""
        return self.loop.call_soon(callback, context=self._world.copy())

    def _returned(self, process: SimulatedProcess, main: asyncio.Task[object]) -> None:
        if not process.alive:
            return
        if main.cancelled():
            outcome = Outcome("raised", error=asyncio.CancelledError())
        elif (error := main.exception()) is not None:
            outcome = Outcome("raised", error=error)
        else:
            outcome = Outcome("returned", main.result())
        self.loop.kill(process)  # the interpreter is gone, and with it whatever the main coroutine has left running
        self._end(process, outcome)

    def _end(self, process: SimulatedProcess, outcome: Outcome) -> None:
        if not process.ended.done():
            self.call_soon(lambda: process.ended.set_result(outcome))
        for callback in process.at_end:
            self.call_soon(callback)


async def stand_still() -> None:
    """Never return: the process that awaits this has just been crashed."""
    await asyncio.get_running_loop().create_future()
