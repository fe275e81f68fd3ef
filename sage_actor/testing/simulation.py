"""A whole asyncio program, run deterministically: one seed, one schedule, virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import Callable, Coroutine, Generator
from typing import Final, Literal, TypeVar

from sage_actor.ports import system_random
from sage_actor.testing.simulated_time import virtual_time
from sage_actor.testing.simulation_errors import (
    NotSimulated,
    SimulationDiverged,
    SimulationEndless,
    SimulationFailed,
    SimulationStuck,
    TasksLeft,
    UnhandledErrors,
)
from sage_actor.testing.simulation_loop import Faults, SimulationLoop

__all__ = [
    "Faults",
    "NotSimulated",
    "Simulation",
    "SimulationDiverged",
    "SimulationEndless",
    "SimulationFailed",
    "SimulationStuck",
    "TasksLeft",
    "UnhandledErrors",
]

T = TypeVar("T")

_CLEANUP_STEPS: Final = 100_000


class Simulation:
    """Runs a coroutine, and every task that it starts, in an order and at times that follow from a seed alone.

        for seed in range(200):
            Simulation(seed).run(main)

    A failing schedule is then one integer, and shows again whenever it is run. What each seed does to the order is said in
    `SimulationLoop`; within it, `sage_actor.ports` gives the virtual clock, seeded chance and inline off-loop work, and the
    modules `random` and `time` follow the seed too. `os.urandom`, threads, the iteration order of sets of texts and state that one run
    leaves for the next are outside of its power: compare `log_hash` of two runs to find out. No cyclic garbage is
    collected during a run, only right after it.

    Args:
        seed: not negative; 0 keeps to asyncio's own order.
        max_steps: callbacks that may run before the run fails as endless.
        leftovers: what becomes of tasks that are unfinished when main has returned and everything ready has run. They are
            cancelled in any case; ``"fail"`` fails the run as well.
        busy: the most virtual seconds that one step takes; more than 0 lets timers come due while work is waiting, at the price
            of times that are no longer exact.
        faults: what goes wrong by chance.
    """

    def __init__(
        self,
        seed: int,
        *,
        max_steps: int = 1_000_000,
        leftovers: Literal["fail", "cancel"] = "fail",
        busy: float = 0.0,
        faults: Faults | None = None,
    ) -> None:
        self.seed = seed
        self._max_steps = max_steps
        self._leftovers = leftovers
        self._busy = busy
        self._faults = faults
        self._log_hash = ""
        self._virtual_seconds = 0.0
        self._steps = 0

    @property
    def log_hash(self) -> str:
        """A hash over what ran, in which order and at which virtual times, in the last run until main's end; "" before."""
        return self._log_hash

    @property
    def virtual_seconds(self) -> float:
        """How much virtual time the last run took until main's end."""
        return self._virtual_seconds

    @property
    def steps(self) -> int:
        """How many callbacks ran in the last run until main's end."""
        return self._steps

    def run(self, main: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run it to its end on a loop of its own and return what it returns. May be called again: the same happens again.

        Raises:
            SimulationStuck: everything waits and no timer is set.
            SimulationEndless: more than `max_steps` callbacks ran.
            TasksLeft: main returned before tasks that had been started.
            UnhandledErrors: a callback or a task that nobody awaits raised, and no exception handler was set.
            RuntimeError: another event loop is running in this thread.

        What main raises comes out unchanged, with a note that names the seed, and goes before all of these.
        """
        loop = SimulationLoop(self.seed, max_steps=self._max_steps, busy=self._busy, faults=self._faults)
        left: list[str] = []
        stubborn: list[str] = []
        with _no_collection(), _seeded(self.seed), virtual_time(loop, self.seed):
            try:
                result = self._run_main(loop, main)
            except BaseException as error:
                if not isinstance(error, SimulationFailed):  # those name the seed themselves
                    error.add_note(f"in the simulation of seed {self.seed}")
                _close(loop)
                _note_errors(error, loop)
                raise
            left += loop.unfinished()
            stubborn += _close(loop)
        if left and (self._leftovers == "fail" or stubborn):
            failure = TasksLeft(self.seed, left, stubborn)
            _note_errors(failure, loop)
            raise failure
        if loop.errors:
            raise UnhandledErrors(self.seed, [message for message, _ in loop.errors]) from loop.errors[0][1]
        return result

    def _run_main(self, loop: SimulationLoop, main: Callable[[], Coroutine[object, object, T]]) -> T:
        try:
            result = loop.run_until_complete(loop.create_task(main(), name="main"))
            loop.settle()
            return result
        finally:
            self._log_hash, self._virtual_seconds, self._steps = loop.log_hash, loop.time(), loop.steps


def _close(loop: SimulationLoop) -> list[str]:
    """Cancel what is left, as `asyncio.Runner` does, and close; returns what did not end even so, in words."""
    loop.begin_cleanup(_CLEANUP_STEPS)
    tasks = loop.unfinished_tasks()
    for task in tasks:
        task.cancel()
    try:
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.bury()
        loop.run_until_complete(loop.shutdown_asyncgens())
    except (SimulationStuck, SimulationEndless):
        return loop.unfinished()
    finally:
        loop.close()
    return []


def _note_errors(error: BaseException, loop: SimulationLoop) -> None:
    for message, _ in loop.errors:
        error.add_note(f"besides, nobody handled this: {message}")


@contextlib.contextmanager
def _no_collection() -> Generator[None, None, None]:
    """No cyclic garbage is collected inside: finalizers would run at instants that nothing decides. At the end, it is.

    What exists before is put out of the collector's sight meanwhile; else the collection at the end would walk through the
    whole process, fifty milliseconds for each seed.
    """
    enabled = gc.isenabled()
    freeze = gc.get_freeze_count() == 0  # else somebody else keeps objects there, and we could not tell ours from theirs
    gc.disable()
    if freeze:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if freeze:
            gc.unfreeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _seeded(seed: int) -> Generator[None, None, None]:
    """The process's two sources of chance follow from the seed inside, and go on afterwards as if nothing had happened."""
    states = system_random.getstate(), random.getstate()
    system_random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        system_random.setstate(states[0])
        random.setstate(states[1])
