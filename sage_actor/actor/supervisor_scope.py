"""What a supervisor decides about its children: whom a failure concerns, the budget they share, the verdict.

Pure rules on values, as in `supervision.py`: no clock, no tasks. Who applies them (the actor's runtime) keeps the start order
of the children, the failure times of each child and the restart times of all of them, and does what the verdict says.

Where OTP and we differ: times are not rounded to whole seconds; a restart counts when it is decided, not after its delay; and
an exceeded budget fails the supervisor with the child's error instead of ending it with the reason "shutdown", so that the
level above sees a cause.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple, TypeVar, get_args

from sage_actor.actor.supervision import RestartStrategy
from sage_actor.durations import parse_duration
from sage_actor.errors import ActorError, ConfigError

__all__ = ["Directive", "Exhausted", "Scope", "Spent", "Supervision", "Verdict", "affected", "spend", "verdict"]

C = TypeVar("C")

Scope = Literal["one_for_one", "all_for_one", "rest_for_one"]
Directive = Literal["restart", "resume", "stop", "escalate"]
Exhausted = Literal["stop", "escalate"]

# Raised to end the program, not by a fault of the actor: a restart would hold up the end.
_PROGRAM_ENDS = (SystemExit, KeyboardInterrupt)


@dataclass(frozen=True, slots=True, init=False)
class Supervision:
    """How an actor supervises its children; a value, equal and hashable by its fields.

    Attributes:
        scope: who restarts when a child does: it alone, all children, or it and those started after it.
        intensity: restarts that the children together may spend within `period`; one more fails the supervisor. None: no
            common budget, each child has only its own strategy.
        period: length of the sliding window of `intensity`, in seconds; given in seconds or as a text such as "5s".
        decide: maps a child's error to what is done about it; None: every failure restarts, as the child's strategy allows.
            It runs in the supervisor, must not wait, and if it raises or answers something else the failure escalates.
        when_exhausted: what becomes of a child whose own strategy gives up: "stop" ends that child alone, "escalate" fails
            the supervisor.

    Raises:
        ConfigError: a scope or `when_exhausted` that does not exist, a negative `intensity`, a `period` that is no duration.
    """

    scope: Scope = "one_for_one"
    intensity: int | None = None
    period: float = 5.0
    decide: Callable[[BaseException], Directive] | None = None
    when_exhausted: Exhausted = "stop"

    def __init__(
        self,
        *,
        scope: Scope = "one_for_one",
        intensity: int | None = None,
        period: str | float = 5.0,
        decide: Callable[[BaseException], Directive] | None = None,
        when_exhausted: Exhausted = "stop",
    ) -> None:
        for name, value, known in (("scope", scope, Scope), ("when_exhausted", when_exhausted, Exhausted)):
            if value not in get_args(known):
                raise ConfigError(f"supervision.{name}", f"{value!r} is none of {', '.join(get_args(known))}")
        if intensity is not None and (isinstance(intensity, bool) or intensity < 0):
            raise ConfigError("supervision.intensity", f"must be a count of restarts, 0 or more, or None for no budget; not {intensity!r}")
        object.__setattr__(self, "scope", scope)
        object.__setattr__(self, "intensity", intensity)
        object.__setattr__(self, "period", parse_duration(period, key="supervision.period"))
        object.__setattr__(self, "decide", decide)
        object.__setattr__(self, "when_exhausted", when_exhausted)


class Spent(NamedTuple):
    """The common budget after one more restart.

    Attributes:
        times: what the next call must be given; at most ``intensity + 1`` times, so memory is bounded.
        exceeded: more than `intensity` restarts fall within `period`.
    """

    times: tuple[float, ...]
    exceeded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is done about one failure of one child.

    Attributes:
        action: "restart" the child and whom the scope ties to it (`affected`); "resume" it with its state, dropping the
            message; "stop" it alone, the others live on; "escalate": stop all children, last started first, then the
            supervisor fails.
        delay: seconds to wait between stopping and starting, for "restart"; otherwise 0.
        reason: why, in words for the log.
        budget_times: the restart times of all children from now on, in place of those that were given.
    """

    action: Directive
    delay: float = 0.0
    reason: str = ""
    budget_times: tuple[float, ...] = ()


def affected(scope: Scope, children: Sequence[C], failed: C, *, temporary: Collection[C] = ()) -> tuple[list[C], list[C]]:
    """Whom a restart of one child stops and starts again, each list in the order of doing it.

    Stopping goes from the last started to the first, starting the other way, so that a child never outlives one it was
    started after and never starts before it.

    Args:
        scope: the supervisor's scope.
        children: all children, first started first; the order stays the same across restarts.
        failed: the child that restarts; its stopping is a no-op if it has ended by itself.
        temporary: children that never start again (`NoRestart`): a sibling's failure stops them for good.

    Raises:
        ActorError: `failed` is not among the children.
    """
    if failed not in children:
        raise ActorError(f"{failed!r} is no child of this supervisor; a restart must be decided before the child is let go")
    at = list(children).index(failed)
    if scope == "all_for_one":
        concerned = list(children)
    elif scope == "rest_for_one":
        concerned = list(children[at:])
    else:
        concerned = [failed]
    return concerned[::-1], [child for child in concerned if child == failed or child not in temporary]


def spend(supervision: Supervision, times: Sequence[float], now: float) -> Spent:
    """Add a restart at `now` to the common budget: a sliding window whose boundary is kept (exactly `period` ago counts).

    Args:
        supervision: whose `intensity` and `period` hold; without an intensity nothing is counted.
        times: earlier restarts of all children, oldest first, as the last call returned them.
        now: the present on the same clock.
    """
    if supervision.intensity is None:
        return Spent((), exceeded=False)
    within = (*_within(supervision, times, now), now)
    # The window only ever sees the newest times, and `intensity + 1` of them are enough to exceed.
    return Spent(within[-supervision.intensity - 1 :], exceeded=len(within) > supervision.intensity)


def verdict(
    supervision: Supervision,
    strategy: RestartStrategy,
    failures: Sequence[float],
    budget_times: Sequence[float],
    now: float,
    error: BaseException | None,
    random: Random,
) -> Verdict:
    """Decide about one failure: first `decide`, then the child's own strategy, then the budget of all children.

    Only a restart spends from the budget. A start that failed during a restart is a failure like any other: it goes into
    `failures` and comes here again, so it spends a second time.

    Args:
        supervision: the supervisor's rules.
        strategy: the child's own strategy.
        failures: times of the child's failures, oldest first; the last one is being decided.
        budget_times: `Verdict.budget_times` of the last verdict about any child; empty at first.
        now: the present on the same clock.
        error: what the child raised; None if it ended by itself, which is no failure and never restarts, like an error
            that ends the program (`SystemExit`, `KeyboardInterrupt`).
        random: where jitter comes from.
    """
    times = tuple(_within(supervision, budget_times, now))
    if error is None:
        return Verdict(action="stop", reason="it ended by itself", budget_times=times)
    if isinstance(error, _PROGRAM_ENDS):
        return Verdict(action="stop", reason=f"{type(error).__name__} ends the program", budget_times=times)
    directive, reason = _directive(supervision, error)
    if directive != "restart":
        return Verdict(action=directive, reason=reason, budget_times=times)
    delay = strategy.next_delay(failures, now, random)
    if delay is None:
        given_up = f"its restart strategy gives up after {len(failures)} failure{'s' if len(failures) != 1 else ''}"
        return Verdict(action=supervision.when_exhausted, reason=given_up, budget_times=times)
    spent = spend(supervision, budget_times, now)
    if spent.exceeded:
        over = f"the children restarted more than {supervision.intensity} times within {supervision.period:g} s"
        return Verdict(action="escalate", reason=over, budget_times=spent.times)
    return Verdict(action="restart", delay=delay, reason=reason, budget_times=spent.times)


def _within(supervision: Supervision, times: Sequence[float], now: float) -> list[float]:
    if supervision.intensity is None:
        return []
    oldest = now - supervision.period
    return [at for at in times if at >= oldest]


def _directive(supervision: Supervision, error: BaseException) -> tuple[Directive, str]:
    name = type(error).__name__
    if supervision.decide is None:
        return "restart", f"it failed with {name}"
    try:
        directive = supervision.decide(error)
    except Exception as own:  # noqa: BLE001 - the user's decision; its failure must not hide the child's
        return "escalate", f"decide raised {type(own).__name__} about {name}: {own}"
    if directive not in get_args(Directive):
        return "escalate", f"decide answered {directive!r} to {name}, not one of {', '.join(get_args(Directive))}"
    return directive, f"decide answered {directive!r} to {name}"
