"""Whether a job is tried again after a failure, and when."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from sage_actor.actor.supervision import NoRestart, RestartStrategy, remembered, restart_strategy
from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import Fenced, GraphError, OperatorError, SavepointNotFound, SerializationError, StateMismatch

__all__ = ["Restarts", "causes"]

SAME_AT_MOST = 3
"""The same error at the same source position so many times running is final."""
HOPELESS = (Fenced, GraphError, SavepointNotFound, SerializationError, StateMismatch)
"""What the next attempt would only meet again."""


class Restarts:
    """Applies the job's restart strategy to its history of failures.

    Without checkpoints a job is not restarted unless a strategy was set: it would begin again from the start.
    """

    def __init__(self, settings: JobSettings, random: Random) -> None:
        self.strategy = strategy_of(settings)
        self.random = random
        self.failures: list[float] = []
        self.latest: object = None
        self.same = 0

    @property
    def possible(self) -> bool:
        """Whether the strategy ever restarts."""
        return not isinstance(self.strategy, NoRestart)

    def judge(self, error: BaseException, now: float) -> float | None:
        """Seconds to wait before the next attempt, or None: the error is the end."""
        if any(isinstance(cause, HOPELESS) for cause in causes(error)):
            return None
        if isinstance(error, OperatorError) and error.position is not None:
            place = (error.operator, error.position, error.message)
            self.same = self.same + 1 if place == self.latest else 1
            self.latest = place
            if self.same >= SAME_AT_MOST:
                return None
        else:
            self.latest, self.same = None, 0
        self.failures = remembered(self.strategy, [*self.failures, now])
        return self.strategy.next_delay(self.failures, now, self.random)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__


def strategy_of(settings: JobSettings) -> RestartStrategy:
    """The strategy that settings name."""
    periodic = settings.snapshot_mode and settings.checkpointing != "on_demand"
    name = settings.restart_strategy or ("exponential-delay" if periodic else "none")
    attempts = settings.restart_attempts or None
    if name == "exponential-delay":
        return restart_strategy(
            {
                "strategy": name,
                "attempts": attempts,
                "delay": settings.restart_delay,
                "max_delay": max(settings.restart_max_delay, settings.restart_delay),
                "multiplier": settings.restart_multiplier,
                "jitter": settings.restart_jitter,
                "reset_after": settings.restart_reset_after,
            }
        )
    if name == "fixed-delay":
        return restart_strategy({"strategy": name, "attempts": attempts, "delay": settings.restart_delay})
    if name == "failure-rate":
        return restart_strategy(
            {
                "strategy": name,
                "failures": settings.restart_failures,
                "interval": settings.restart_interval,
                "delay": settings.restart_delay,
            }
        )
    return restart_strategy("none")
