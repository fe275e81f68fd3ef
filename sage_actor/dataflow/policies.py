"""What happens to a record whose function raised: fail, skip, retry, dead_letter."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from sage_actor.durations import parse_duration
from sage_actor.errors import GraphError

__all__ = ["DeadLetter", "OnError", "Policy", "Retry", "parse_policy"]

T = TypeVar("T")

Policy = Literal["fail", "skip", "dead_letter"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Call again after a growing pause; the record and what follows it wait, in order, off the event loop.

    The n-th pause (from 0) is ``min(max_delay, delay * multiplier**n)`` times ``1 + U[0,1) * jitter``. After `attempts`
    calls in all the record is treated as `then` says.

    Attributes:
        attempts: calls in all, at least 1.
        delay, max_delay: "10ms", "1s", "5m", or seconds.
        multiplier: growth of the pause.
        jitter: share of random spread added to each pause, 0..1.
        then: "fail" (the job; in a served flow only the request), "skip" or "dead_letter" once the attempts are spent.
    """

    attempts: int = 3
    delay: str | float = "100ms"
    max_delay: str | float = "10s"
    multiplier: float = 2.0
    jitter: float = 0.2
    then: Policy = "fail"

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise GraphError(f"Retry: attempts must be at least 1, not {self.attempts}")
        if self.then not in ("fail", "skip", "dead_letter"):
            raise GraphError(f"Retry: then must be 'fail', 'skip' or 'dead_letter', not {self.then!r}")
        parse_duration(self.delay)
        parse_duration(self.max_delay)

    def pause(self, failures: int, rng: random.Random) -> float | None:
        """Seconds to wait after the given number of failures (1 is the first), or None when the attempts are spent."""
        if failures >= self.attempts:
            return None
        delay = min(parse_duration(self.max_delay), parse_duration(self.delay) * self.multiplier ** (failures - 1))
        return delay * (1.0 + rng.random() * self.jitter)


OnError = Policy | Retry


@dataclass(frozen=True, slots=True)
class DeadLetter(Generic[T]):
    """A record that was set aside, with the reason.

    Attributes:
        value: the record as the failing operator got it.
        error: the exception its function raised (as text-carrying stand-in if it cannot cross a process border).
        operator: name of the operator.
        position: position in the source, where known.
        key: the record's key, or None.
    """

    value: T
    error: BaseException
    operator: str
    position: int | None = None
    key: object = None


def parse_policy(policy: object, place: str) -> OnError:
    """Check what a user gave as ``on_error``; raises GraphError naming the place."""
    if isinstance(policy, Retry):
        return policy
    if policy == "retry":
        return Retry()
    if policy in ("fail", "skip", "dead_letter"):
        return policy
    raise GraphError(f"{place}: on_error must be 'fail', 'skip', 'dead_letter', 'retry' or Retry(...), not {policy!r}")
