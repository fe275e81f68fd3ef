"""How a simulated run can fail, apart from what the program under it raises."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NotSimulated", "SimulationDiverged", "SimulationEndless", "SimulationFailed", "SimulationStuck", "TasksLeft", "UnhandledErrors"]


class NotSimulated(NotImplementedError):
    """The program reached for the world outside of the simulation: a socket, a file descriptor, a process, a thread.

    A `NotImplementedError`, as from any loop that lacks a feature, so that what can do without (signal handlers) does.
    """

    def __init__(self, operation: str) -> None:
        super().__init__(operation)
        self.operation = operation

    def __str__(self) -> str:
        return (
            f"{self.operation}: a simulation has no sockets, pipes, processes, signals or threads; "
            "put a double in its place, or run blocking work through sage_actor.ports.offload"
        )


class SimulationFailed(AssertionError):
    """A simulated run went wrong in a way that the schedule shows; the root of those below."""


class SimulationStuck(SimulationFailed):
    """Nothing is ready, no timer is set, and the main coroutine has not returned: it waits for ever.

    Attributes:
        seed: of the run.
        waiting: a line for each unfinished task, oldest first: its name and where it waits.
    """

    def __init__(self, seed: int, waiting: Sequence[str]) -> None:
        super().__init__(seed, tuple(waiting))
        self.seed = seed
        self.waiting = tuple(waiting)

    def __str__(self) -> str:
        return f"seed {self.seed}: nothing can run any more and no timer is set; these tasks wait:" + _listed(self.waiting)


class SimulationEndless(SimulationFailed):
    """The run took more steps than it may.

    Attributes:
        seed: of the run.
        steps: the most it may take.
        seconds: how far virtual time had come.
        unfinished: a line for each unfinished task, oldest first: its name and where it waits.
    """

    def __init__(self, seed: int, steps: int, seconds: float, unfinished: Sequence[str]) -> None:
        super().__init__(seed, steps, seconds, tuple(unfinished))
        self.seed = seed
        self.steps = steps
        self.seconds = seconds
        self.unfinished = tuple(unfinished)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: no end after {self.steps:,} steps and {self.seconds:g} virtual seconds; something runs in a circle, "
            "or raise max_steps; unfinished:" + _listed(self.unfinished)
        )


class TasksLeft(SimulationFailed):
    """The main coroutine returned while tasks that it or others had started were still unfinished.

    Attributes:
        seed: of the run.
        tasks: a line for each, oldest first: its name and where it waited.
        stubborn: the same for those that did not even end when they were cancelled.
    """

    def __init__(self, seed: int, tasks: Sequence[str], stubborn: Sequence[str] = ()) -> None:
        super().__init__(seed, tuple(tasks), tuple(stubborn))
        self.seed = seed
        self.tasks = tuple(tasks)
        self.stubborn = tuple(stubborn)

    def __str__(self) -> str:
        text = f"seed {self.seed}: main returned and left tasks behind; await or cancel them:" + _listed(self.tasks)
        return text + (f"\nand these did not end when cancelled:{_listed(self.stubborn)}" if self.stubborn else "")


class UnhandledErrors(SimulationFailed):
    """Errors reached the loop's exception handler: a callback raised, or nobody took a failed task's exception.

    The first of them is the ``__cause__``.

    Attributes:
        seed: of the run.
        messages: a line for each, in order.
    """

    def __init__(self, seed: int, messages: Sequence[str]) -> None:
        super().__init__(seed, tuple(messages))
        self.seed = seed
        self.messages = tuple(messages)

    def __str__(self) -> str:
        return f"seed {self.seed}: errors that nobody handled:" + _listed(self.messages)


class SimulationDiverged(SimulationFailed):
    """Two runs of one seed differed: the program depends on something that the simulation does not decide.

    Attributes:
        seed: of the runs.
        first: log hash and steps of the first run.
        second: those of the second.
    """

    def __init__(self, seed: int, first: tuple[str, int], second: tuple[str, int]) -> None:
        super().__init__(seed, first, second)
        self.seed = seed
        self.first = first
        self.second = second

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: two runs of it differ (log {self.first[0]} of {self.first[1]} steps, then {self.second[0]} of "
            f"{self.second[1]}); look for real time, unseeded chance, the order of a set, an object's id, or state kept between runs"
        )


def _listed(lines: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)
