"""Restart strategies: pure rules from a failure history to the wait before the next life.

A strategy decides and does nothing else. Who applies it (the job supervisor, an actor's parent) keeps the history: the
times of all failures on one monotonic clock, oldest first, the one being decided included as the last. Because a rule
sees only that history, no timer can reset it late or twice.

A failed start is a failure like any other and goes into the same history, so every strategy treats it alike: with
`NoRestart` it is final, with the others it uses up one of their attempts. (Pekko has three answers, by kind of strategy.)
Every window slides with the present. (Pekko's limited restart opens a fixed window at the first failure, so that twice the
limit can pass around its end.)
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Protocol, runtime_checkable

from sage_actor.durations import parse_duration
from sage_actor.errors import ConfigError

__all__ = ["ExponentialDelay", "FailureRate", "FixedDelay", "NoRestart", "RestartStrategy", "remembered", "restart_strategy"]


class RestartStrategy(Protocol):
    """Decides whether and when something that failed starts again."""

    def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
        """Seconds to wait before the restart, or None to give up.

        Args:
            failures: times of all failures, oldest first; the last one is being decided.
            now: the present on the same clock.
            random: where jitter comes from.
        """
        ...


@runtime_checkable
class _Forgetting(Protocol):
    """A strategy that knows how much of a history it needs."""

    def remember(self, failures: Sequence[float]) -> list[float]:
        """A history that can stand for `failures`, its last time included, when more failures follow."""
        ...


def remembered(strategy: RestartStrategy, failures: Sequence[float]) -> list[float]:
    """A short history from which `strategy` decides everything to come exactly as from `failures`.

    For the strategies of this module its length has a bound, however often something failed; one of your own may have a
    method ``remember(failures) -> list[float]`` to the same end, else all is kept. The times in it may be made up: it is for
    `next_delay` only.
    """
    return strategy.remember(failures) if isinstance(strategy, _Forgetting) else list(failures)


@dataclass(frozen=True, slots=True)
class NoRestart:
    """The first failure is final."""

    def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
        return None

    def remember(self, failures: Sequence[float]) -> list[float]:
        return list(failures[-1:])


@dataclass(frozen=True, slots=True, init=False)
class FixedDelay:
    """The same wait every time.

    Attributes:
        attempts: restarts in all (None: no bound).
        delay: the wait in seconds; given in seconds or as a text such as "10s".

    Raises:
        ConfigError: a value of the wrong kind, named by its key ``restart.…``.
    """

    attempts: int | None = 10
    delay: float = 1.0

    def __init__(self, *, attempts: int | None = 10, delay: str | float = 1.0) -> None:
        _set(self, attempts=_attempts(attempts), delay=parse_duration(delay, key="restart.delay"))

    def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
        if self.attempts is not None and len(failures) > self.attempts:
            return None
        return self.delay

    def remember(self, failures: Sequence[float]) -> list[float]:
        return list(failures[-1 if self.attempts is None else -self.attempts - 1 :])


@dataclass(frozen=True, slots=True, init=False)
class FailureRate:
    """Restart after `delay` unless more than `failures` failures fall within the last `interval` seconds.

    The window slides; a failure exactly `interval` ago still counts.

    Attributes:
        failures: failures that `interval` may hold.
        interval: length of the window in seconds; given in seconds or as a text such as "1m".
        delay: the wait in seconds; given likewise.

    Raises:
        ConfigError: a value of the wrong kind, named by its key ``restart.…``.
    """

    failures: int = 1
    interval: float = 5.0
    delay: float = 0.0

    def __init__(self, *, failures: int = 1, interval: str | float = 5.0, delay: str | float = 0.0) -> None:
        _set(
            self,
            failures=_count(failures, "restart.failures"),
            interval=parse_duration(interval, key="restart.interval"),
            delay=parse_duration(delay, key="restart.delay"),
        )

    def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
        recent = sum(1 for at in failures if at >= now - self.interval)
        return None if recent > self.failures else self.delay

    def remember(self, failures: Sequence[float]) -> list[float]:
        return list(failures[-self.failures - 1 :])


@dataclass(frozen=True, slots=True, init=False)
class ExponentialDelay:
    """Waits that grow from `delay` by `multiplier` up to `max_delay`, then spread by jitter.

    Durations are given in seconds or as texts such as "10s" or "5m", and kept in seconds.

    Attributes:
        attempts: restarts before giving up, counted since the last reset (None: no bound).
        delay: the first wait in seconds.
        max_delay: the cap. Jitter comes after it, so the longest wait is ``max_delay * (1 + jitter)``.
        multiplier: growth per failure.
        jitter: share of the wait that chance may add, from 0 to below `jitter`.
        reset_after: seconds of running without failure that set the count back to zero; None means
            ``(delay + max_delay) / 2``. The time a restart waited does not count as running; since the history does not
            say how much jitter was drawn, the longest possible wait is assumed.

    Raises:
        ConfigError: a value of the wrong kind or out of range, named by its key ``restart.…``.
    """

    attempts: int | None = 10
    delay: float = 1.0
    max_delay: float = 300.0
    multiplier: float = 2.0
    jitter: float = 0.1
    reset_after: float | None = None

    def __init__(
        self,
        *,
        attempts: int | None = 10,
        delay: str | float = 1.0,
        max_delay: str | float = 300.0,
        multiplier: float = 2.0,
        jitter: float = 0.1,
        reset_after: str | float | None = None,
    ) -> None:
        first = parse_duration(delay, key="restart.delay")
        _set(
            self,
            attempts=_attempts(attempts),
            delay=first,
            max_delay=_at_least(first, parse_duration(max_delay, key="restart.max_delay"), "restart.max_delay"),
            multiplier=_at_least(1.0, _factor(multiplier, "restart.multiplier"), "restart.multiplier"),
            jitter=_at_least(0.0, _factor(jitter, "restart.jitter"), "restart.jitter"),
            reset_after=None if reset_after is None else parse_duration(reset_after, key="restart.reset_after"),
        )

    def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
        earlier = self._count_since_reset(failures) - 1
        if earlier < 0 or (self.attempts is not None and earlier >= self.attempts):
            return None
        return self._capped(earlier) * (1 + random.random() * self.jitter)

    def remember(self, failures: Sequence[float]) -> list[float]:
        # All that matters is the last time and the count since the reset, up to where one more changes nothing. Equal times
        # carry the count: no reset lies between them.
        steps = self._steps_to_the_cap()
        count = min(self._count_since_reset(failures), max(steps, 0 if self.attempts is None else self.attempts + 1))
        return [failures[-1]] * count if failures else []

    def _capped(self, earlier: int) -> float:
        try:
            return min(self.max_delay, self.delay * self.multiplier**earlier) if self.delay else 0.0
        except OverflowError:  # 2.0 ** 1024, and a job may fail more often than that
            return self.max_delay

    def _steps_to_the_cap(self) -> int:
        """A count of failures from which on the wait grows no more."""
        if self.delay == 0 or self.multiplier == 1:
            return 1
        # One for counting from 1, one for the rounding of the logarithms.
        return 2 + math.ceil((math.log(self.max_delay) - math.log(self.delay)) / math.log(self.multiplier))

    def _count_since_reset(self, failures: Sequence[float]) -> int:
        quiet = (self.delay + self.max_delay) / 2 if self.reset_after is None else self.reset_after
        count = 0
        previous = 0.0
        for at in failures:
            if count and at - previous - self._capped(count - 1) * (1 + self.jitter) >= quiet:
                count = 0
            count += 1
            previous = at
        return count


def _set(strategy: object, **values: float | None) -> None:
    # The constructors take texts and the fields hold seconds; a generated constructor would give both one type.
    for name, value in values.items():
        object.__setattr__(strategy, name, value)


def _attempts(value: object) -> int | None:
    return None if value is None else _count(value, "restart.attempts")


def _at_least(least: float, value: float, key: str) -> float:
    if value < least:
        raise ConfigError(key, f"must be at least {least:g}, not {value:g}")
    return value


def _count(value: object, key: str) -> int:
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ConfigError(key, f"{value!r} is not a count; write a whole number, 0 or more")


def _factor(value: object, key: str) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            if math.isfinite(number := float(value)):
                return number
    raise ConfigError(key, f"{value!r} is not a number")


_STRATEGIES: Mapping[str, tuple[Callable[..., RestartStrategy], tuple[str, ...]]] = {
    "exponential-delay": (ExponentialDelay, tuple(field.name for field in fields(ExponentialDelay))),
    "fixed-delay": (FixedDelay, tuple(field.name for field in fields(FixedDelay))),
    "failure-rate": (FailureRate, tuple(field.name for field in fields(FailureRate))),
    "none": (NoRestart, ()),
}


def restart_strategy(settings: str | Mapping[str, object] | RestartStrategy | None) -> RestartStrategy:
    """Build a strategy from its name or from settings.

    Args:
        settings: ``None`` or ``"none"``, ``"exponential-delay"``, ``"fixed-delay"``, ``"failure-rate"``, or a mapping
            with ``strategy`` (default ``"exponential-delay"``) and the options of that strategy. Keys may carry the
            prefix ``restart.``; durations are seconds or texts such as ``"10s"``, ``attempts`` may be None (no bound). A
            strategy is returned as it is.

    Raises:
        ConfigError: unknown strategy or option, or a value of the wrong type; with the nearest right name.
    """
    if settings is None:
        return NoRestart()
    if isinstance(settings, str):
        settings = {"strategy": settings}
    if not isinstance(settings, Mapping):
        return settings
    options = {key.removeprefix("restart."): value for key, value in settings.items()}
    name = str(options.pop("strategy", "exponential-delay")).replace("_", "-").lower()
    if name not in _STRATEGIES:
        close = difflib.get_close_matches(name, _STRATEGIES, 1)
        raise ConfigError(
            "restart.strategy", f"no strategy {name!r}; known: {', '.join(_STRATEGIES)}", suggestion=close[0] if close else ""
        )
    build, known = _STRATEGIES[name]
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            listed = ", ".join(known) or "no options"
            raise ConfigError(f"restart.{key}", f"{name} knows {listed}", suggestion=f"restart.{close[0]}" if close else "")
    return build(**options)
