"""Restart strategies as pure functions of the failure history."""

from __future__ import annotations

from itertools import accumulate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.actor.supervision import ExponentialDelay, FailureRate, FixedDelay, NoRestart, RestartStrategy, restart_strategy
from sage_actor.errors import ConfigError


def waits(strategy: RestartStrategy, failures: int, random: Random, life: float = 0.0) -> list[float | None]:
    """What a job waits that lives for `life` seconds each time, by a clock that only the waits and lives move."""
    now, history, found = 0.0, list[float](), list[float | None]()
    for _ in range(failures):
        now += life
        history.append(now)
        wait = strategy.next_delay(history, now, random)
        found.append(wait)
        now += wait or 0.0
    return found


@pytest.mark.rule("A7")
@pytest.mark.rule("A15")
def test_waits_double_up_to_the_cap() -> None:
    strategy = ExponentialDelay(attempts=None, delay=1, max_delay=30, jitter=0)
    assert waits(strategy, 8, Random(0)) == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.rule("A7")
@pytest.mark.rule("A15")
def test_jitter_follows_the_cap_and_spreads() -> None:
    strategy = ExponentialDelay(attempts=None, delay=1, max_delay=10, jitter=0.5)
    at_the_cap = [strategy.next_delay([0.0] * 20, 0.0, Random(seed)) or 0.0 for seed in range(300)]
    assert all(10 <= wait < 15 for wait in at_the_cap)
    assert min(at_the_cap) < 10.5, "without chance it is the cap"
    assert max(at_the_cap) > 14.5, "the longest wait is the cap and the whole jitter"


@pytest.mark.rule("A7")
@given(st.floats(0.001, 10), st.floats(1, 1000), st.floats(1, 5), st.floats(0, 2), st.integers(1, 60), st.integers())
def test_every_wait_is_the_formula(delay: float, factor: float, multiplier: float, jitter: float, failures: int, seed: int) -> None:
    strategy = ExponentialDelay(attempts=None, delay=delay, max_delay=delay * factor, multiplier=multiplier, jitter=jitter)
    for earlier, wait in enumerate(waits(strategy, failures, Random(seed))):
        least = min(delay * factor, delay * multiplier**earlier)
        assert wait is not None
        assert least * (1 - 1e-9) <= wait <= least * (1 + jitter) * (1 + 1e-9)


def test_very_many_failures_do_not_overflow() -> None:
    strategy = ExponentialDelay(attempts=None, delay=1, max_delay=60, jitter=0, reset_after=1e12)
    assert strategy.next_delay([float(n) for n in range(5000)], 5000.0, Random(0)) == 60


@pytest.mark.rule("A8")
def test_a_quiet_life_resets_the_count() -> None:
    strategy = ExponentialDelay(attempts=3, delay=1, max_delay=9, jitter=0)  # reset_after is (1 + 9) / 2
    assert waits(strategy, 6, Random(0), life=4.9) == [1, 2, 4, None, None, None]
    assert waits(strategy, 6, Random(0), life=5.1) == [1, 1, 1, 1, 1, 1], "each life was quiet for long enough"


@pytest.mark.rule("A8")
def test_the_wait_itself_is_no_quiet_life() -> None:
    strategy = ExponentialDelay(attempts=None, delay=100, max_delay=100, jitter=0, reset_after=50)
    assert waits(strategy, 3, Random(0), life=1.0) == [100, 100, 100]
    limited = ExponentialDelay(attempts=2, delay=100, max_delay=100, jitter=0, reset_after=50)
    assert waits(limited, 3, Random(0), life=1.0) == [100, 100, None]


@pytest.mark.rule("A8")
def test_a_reset_belongs_to_the_failures_before_it() -> None:
    strategy = ExponentialDelay(attempts=None, delay=1, max_delay=64, jitter=0, reset_after=10)
    history = list(accumulate([0, 1.5, 2.5, 100, 1.5]))  # two close failures, a long quiet life, then failures again
    assert [strategy.next_delay(history[: n + 1], history[n], Random(0)) for n in range(5)] == [1, 2, 4, 1, 2]


def test_attempts_bound_the_restarts() -> None:
    assert waits(ExponentialDelay(attempts=2, jitter=0, reset_after=1e9), 4, Random(0)) == [1, 2, None, None]
    assert waits(FixedDelay(attempts=2, delay=3), 4, Random(0)) == [3, 3, None, None]
    assert waits(FixedDelay(attempts=None, delay=3), 4, Random(0)) == [3, 3, 3, 3]
    assert waits(ExponentialDelay(attempts=0), 1, Random(0)) == [None]
    assert waits(NoRestart(), 1, Random(0)) == [None]


def test_a_failure_rate_slides_and_keeps_its_boundary() -> None:
    strategy = FailureRate(failures=2, interval=5, delay=0.5)
    assert strategy.next_delay([0, 1], 1, Random(0)) == 0.5
    assert strategy.next_delay([0, 1, 5], 5, Random(0)) is None, "a failure exactly one interval ago still counts"
    assert strategy.next_delay([0, 1, 5.1], 5.1, Random(0)) == 0.5


def test_strategies_from_settings() -> None:
    seed = {"restart.strategy": "exponential-delay", "restart.attempts": 10, "restart.delay": "10s", "restart.max_delay": "5m"}
    assert restart_strategy(seed) == ExponentialDelay(attempts=10, delay=10, max_delay=300)
    assert restart_strategy({"strategy": "fixed_delay", "attempts": "3", "delay": "100ms"}) == FixedDelay(attempts=3, delay=0.1)
    assert restart_strategy({"strategy": "failure-rate", "failures": 4, "interval": "1m"}) == FailureRate(failures=4, interval=60)
    assert restart_strategy("exponential-delay") == ExponentialDelay()
    assert restart_strategy("none") == restart_strategy(None) == NoRestart()
    assert restart_strategy(FixedDelay(delay=7)) == FixedDelay(delay=7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("exponential", "exponential-delay"),
        ({"strategy": "fixed-delay", "max_delay": 3}, r"restart\.max_delay.*fixed-delay knows attempts, delay"),
        ({"delai": 3}, r"restart\.delai.*did you mean 'restart\.delay'"),
        ({"attempts": "many"}, r"restart\.attempts.*'many' is not a count"),
        ({"attempts": -1}, r"restart\.attempts"),
        ({"delay": "soon"}, r"restart\.delay.*'soon'"),
        ({"delay": None}, r"restart\.delay"),
        ({"jitter": "much"}, r"restart\.jitter.*'much' is not a number"),
        ({"jitter": -1}, r"restart\.jitter"),
        ({"delay": 10, "max_delay": 5}, r"restart\.max_delay.*at least 10"),
        ({"multiplier": 0.5}, r"restart\.multiplier"),
    ],
)
def test_wrong_settings_are_refused_with_key_and_way_out(settings: dict[str, object] | str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        restart_strategy(settings)
