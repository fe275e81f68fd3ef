"""Restart strategies: pure rules from a failure history to the wait before the next life.

A strategy decides and does nothing else. Who applies it (the job supervisor, an actor's parent) keeps the history: the
times of all failures on one monotonic clock, oldest first, the one being decided included as the last. Because a rule
sees only that history, no timer can reset it late or twice.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from sage_actor.durations import parse_duration
from sage_actor.errors import ConfigError

__all__ = ["ExponentialDelay", "FailureRate", "FixedDelay", "NoRestart", "RestartStrategy", "restart_strategy"]


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


@dataclass(frozen=True, slots=True)
class NoRestart:
    """The first failure is final."""

    def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedDelay:
    """The same wait every time, at most `attempts` restarts in all (None: no bound)."""

    attempts: int | None = 10
    delay: float = 1.0

    def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
        if self.attempts is not None and len(failures) > self.attempts:
            return None
        return self.delay


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRate:
    """Restart after `delay` unless more than `failures` failures fall within the last `interval` seconds.

    The window slides; a failure exactly `interval` ago still counts.
    """

    failures: int = 1
    interval: float = 5.0
    delay: float = 0.0

    def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
        recent = sum(1 for at in failures if at >= now - self.interval)
        return None if recent > self.failures else self.delay


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialDelay:
    """Waits that grow from `delay` by `multiplier` up to `max_delay`, then spread by jitter.

    Attributes:
        attempts: restarts before giving up, counted since the last reset (None: no bound).
        delay: the first wait in seconds.
        max_delay: the cap. Jitter comes after it, so the longest wait is ``max_delay * (1 + jitter)``.
        multiplier: growth per failure.
        jitter: share of the wait that chance may add, from 0 to below `jitter`.
        reset_after: seconds of running without failure that set the count back to zero; None means
            ``(delay + max_delay) / 2``. The time a restart waited does not count as running; since the history does not
            say how much jitter was drawn, the longest possible wait is assumed.
    """

    attempts: int | None = 10
    delay: float = 1.0
    max_delay: float = 300.0
    multiplier: float = 2.0
    jitter: float = 0.1
    reset_after: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("delay", 0.0), ("max_delay", self.delay), ("multiplier", 1.0), ("jitter", 0.0)):
            value: float = getattr(self, name)
            if value < least:
                raise ConfigError(f"restart.{name}", f"must be at least {least:g}, not {value:g}")

    def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
        earlier = self._count_since_reset(failures) - 1
        if earlier < 0 or (self.attempts is not None and earlier >= self.attempts):
            return None
        return self._capped(earlier) * (1 + random.random() * self.jitter)

    def _capped(self, earlier: int) -> float:
        # The exponent is bounded: 2.0 ** 1024 overflows, and a job may fail more often than that.
        return min(self.max_delay, self.delay * self.multiplier ** min(earlier, 64))

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


def _count(value: object, key: str) -> int:
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ConfigError(key, f"{value!r} is not a count; write a whole number, 0 or more")


def _seconds(value: object, key: str) -> float:
    if isinstance(value, str | int | float):
        return parse_duration(value, key=key)
    raise ConfigError(key, f"{value!r} is not a duration; write seconds or a text such as '10s', '5m'")


def _factor(value: object, key: str) -> float:
    if isinstance(value, str | int | float):
        with contextlib.suppress(ValueError):
            return float(value)
    raise ConfigError(key, f"{value!r} is not a number")


_READERS: Mapping[str, Callable[[object, str], int | float]] = {
    "attempts": _count,
    "delay": _seconds,
    "max_delay": _seconds,
    "multiplier": _factor,
    "jitter": _factor,
    "reset_after": _seconds,
    "failures": _count,
    "interval": _seconds,
}
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "exponential-delay": ("attempts", "delay", "max_delay", "multiplier", "jitter", "reset_after"),
    "fixed-delay": ("attempts", "delay"),
    "failure-rate": ("failures", "interval", "delay"),
    "none": (),
}


def restart_strategy(settings: str | Mapping[str, object] | RestartStrategy | None) -> RestartStrategy:
    """Build a strategy from its name or from settings.

    Args:
        settings: ``None`` or ``"none"``, ``"exponential-delay"``, ``"fixed-delay"``, ``"failure-rate"``, or a mapping
            with ``strategy`` (default ``"exponential-delay"``) and the options of that strategy. Keys may carry the
            prefix ``restart.``; durations are seconds or texts such as ``"10s"``. A strategy is returned as it is.

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
    if name not in _OPTIONS:
        close = difflib.get_close_matches(name, _OPTIONS, 1)
        raise ConfigError("restart.strategy", f"no strategy {name!r}; known: {', '.join(_OPTIONS)}", suggestion=close[0] if close else "")
    values: dict[str, int | float] = {}
    for key, value in options.items():
        if key not in _OPTIONS[name]:
            close = difflib.get_close_matches(key, _OPTIONS[name], 1)
            known = ", ".join(_OPTIONS[name]) or "no options"
            raise ConfigError(f"restart.{key}", f"{name} knows {known}", suggestion=f"restart.{close[0]}" if close else "")
        values[key] = _READERS[key](value, f"restart.{key}")
    return _build(name, values)


def _build(name: str, values: Mapping[str, int | float]) -> RestartStrategy:
    if name == "none":
        return NoRestart()
    if name == "fixed-delay":
        return FixedDelay(**values)  # type: ignore[arg-type]  # each reader returns its field's type
    if name == "failure-rate":
        return FailureRate(**values)  # type: ignore[arg-type]
    return ExponentialDelay(**values)  # type: ignore[arg-type]
