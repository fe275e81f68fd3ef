"""Restart strategies as pure functions of the failure history."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, replace
from itertools import accumulate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.actor.supervision import ExponentialDelay, FailureRate, FixedDelay, NoRestart, RestartStrategy, remembered, restart_strategy
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


@pytest.mark.rule("A7")
def test_a_slow_growth_reaches_the_cap_too() -> None:
    strategy = ExponentialDelay(attempts=None, delay=1, max_delay=10, multiplier=1.01, jitter=0)
    history = [0.0] * 400
    assert strategy.next_delay(history[:101], 0.0, Random(0)) == pytest.approx(1.01**100)
    assert strategy.next_delay(history, 0.0, Random(0)) == 10


@pytest.mark.rule("A15")
def test_the_growth_is_no_multiple_of_the_count_and_the_spread_is_no_noise() -> None:
    """The counter-example waits count times the first delay, without a cap, plus less than 500 nanoseconds."""
    plain = ExponentialDelay(attempts=None, delay="10ms", max_delay="10s", jitter=0)
    found = [wait or 0.0 for wait in waits(plain, 12, Random(0))]
    assert found[:10] == pytest.approx([0.01 * 2**n for n in range(10)])
    assert found[9] == pytest.approx(5.12), "the tenth wait; ten times the first would be 0.1"
    assert found[10:] == [10, 10], "a cap"
    spread = replace(plain, jitter=0.2)
    tenths = [spread.next_delay([0.0] * 10, 0.0, Random(seed)) or 0.0 for seed in range(1000)]
    assert max(tenths) - min(tenths) > 0.9 * 0.2 * 5.12, "chance fills the share it was given"
    assert sum(tenths) / 1000 == pytest.approx(5.12 * 1.1, rel=0.01), "evenly"


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


def counted_with_timers(failures: Sequence[float], longest_wait: Callable[[int], float], quiet: float) -> int:
    """The model: one counter; each restart sets a timer that nobody stops, and that resets only the count it was set for."""
    count = 0
    timers: list[tuple[float, int]] = []
    for at in failures:
        for _, set_for in [timer for timer in timers if timer[0] <= at]:
            count = 0 if set_for == count else count
        timers = [timer for timer in timers if timer[0] > at]
        timers.append((at + longest_wait(count) + quiet, count + 1))
        count += 1
    return count


@pytest.mark.rule("A8")
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
    st.sampled_from([1.0, 2.0, 4.0]),
    st.sampled_from([4.0, 16.0, 32.0]),
    st.sampled_from([None, 0.0, 1.0, 8.0, 64.0]),
)
def test_the_count_resets_as_with_a_timer(gaps: list[int], delay: float, max_delay: float, reset_after: float | None) -> None:
    strategy = ExponentialDelay(attempts=None, delay=delay, max_delay=max_delay, jitter=0, reset_after=reset_after)
    quiet = (delay + max_delay) / 2 if reset_after is None else reset_after
    history = [float(at) for at in accumulate(gaps)]

    def wait_after(count: int) -> float:
        return min(max_delay, delay * 2.0**count)

    count = counted_with_timers(history, wait_after, quiet)
    assert strategy.next_delay(history, history[-1], Random(0)) == wait_after(count - 1)


@pytest.mark.rule("A8")
def test_a_reset_of_an_older_count_does_nothing() -> None:
    strategy = ExponentialDelay(attempts=None, delay=1, max_delay=99, jitter=0)  # quiet for 50
    history = [0.0, 40.0]  # at 51 the timer of the first restart would ring; by then the second failure has happened
    assert strategy.next_delay([*history, 60.0], 60.0, Random(0)) == 4


@pytest.mark.rule("A4")
def test_the_temporary_never_restarts() -> None:
    assert NoRestart().next_delay([0.0], 0.0, Random(0)) is None
    assert NoRestart().next_delay([0.0, 1e9], 1e9, Random(0)) is None


@pytest.mark.rule("A1")
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 4), st.integers(1, 8))
def test_a_failure_rate_is_a_sliding_window(gaps: list[int], allowed: int, interval: int) -> None:
    strategy = FailureRate(failures=allowed, interval=interval, delay=0)
    window: list[int] = []
    history: list[float] = []
    for now in accumulate(gaps):
        window = [at for at in window if not at < now - interval]
        window.append(now)
        history.append(now)
        assert strategy.next_delay(history, now, Random(0)) == (None if len(window) > allowed else 0)


class FixedWindow:
    """Pekko's limited restart: the first failure opens a window; past its end, the next failure opens another."""

    def __init__(self, allowed: int, interval: float) -> None:
        self.allowed, self.interval = allowed, interval
        self.count, self.end = 0, float("-inf")

    def restarts(self, now: float) -> bool:
        if now <= self.end:
            self.count += 1
        else:
            self.count, self.end = 1, now + self.interval
        return self.count <= self.allowed


@pytest.mark.rule("A9")
def test_a_window_slides_where_others_hold_it_fixed() -> None:
    sliding, fixed = FailureRate(failures=2, interval=10), FixedWindow(2, 10)
    times = [0.0, 9.0, 11.0]  # three failures in eleven seconds, the last two of them close together
    more = [12.0]
    assert [fixed.restarts(at) for at in times + more] == [True, True, True, True], "its second window opened at 11"
    decided = [sliding.next_delay((times + more)[: n + 1], at, Random(0)) for n, at in enumerate(times + more)]
    assert decided == [0, 0, 0, None], "9, 11 and 12 lie within ten seconds"


@pytest.mark.rule("A9")
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 10))
def test_a_sliding_window_never_allows_what_a_fixed_one_refuses_first(gaps: list[int], allowed: int, interval: int) -> None:
    sliding, fixed = FailureRate(failures=allowed, interval=interval), FixedWindow(allowed, interval)
    history: list[float] = []
    for now in accumulate(gaps):
        history.append(now)
        if not fixed.restarts(now):
            assert sliding.next_delay(history, now, Random(0)) is None
            return


@pytest.mark.rule("A10")
@pytest.mark.parametrize(
    ("strategy", "starts"),
    [
        (NoRestart(), 1),
        (FixedDelay(attempts=3, delay=0), 4),
        (FixedDelay(attempts=None, delay=0), 50),
        (FailureRate(failures=3, interval=60), 4),
        (ExponentialDelay(attempts=3), 4),
        (ExponentialDelay(attempts=None), 50),
    ],
)
def test_a_failing_start_is_a_failure_like_any_other(strategy: RestartStrategy, starts: int) -> None:
    """Every strategy retries a start that fails, with as many attempts as for a failure while running."""
    found = waits(strategy, 49, Random(0), life=0.0)
    tried = 1 + (found.index(None) if None in found else len(found))
    assert tried == starts


STRATEGIES = st.one_of(
    st.just(NoRestart()),
    st.builds(FixedDelay, attempts=st.none() | st.integers(0, 5)),
    st.builds(FailureRate, failures=st.integers(0, 5), interval=st.integers(1, 20)),
    st.builds(
        ExponentialDelay,
        attempts=st.none() | st.integers(0, 12),
        delay=st.sampled_from([0, 0.5, 1]),
        max_delay=st.sampled_from([1, 4, 30]),
        multiplier=st.sampled_from([1, 1.5, 2]),
        jitter=st.sampled_from([0, 0.5]),
        reset_after=st.none() | st.sampled_from([0, 1, 60]),
    ),
)


@given(STRATEGIES, st.lists(st.integers(0, 50), max_size=60), st.integers())
def test_what_is_remembered_decides_like_the_whole_history(strategy: RestartStrategy, gaps: list[int], seed: int) -> None:
    whole: list[float] = []
    short: list[float] = []
    for now in accumulate(gaps):
        whole.append(now)
        short = remembered(strategy, [*short, float(now)])
        assert strategy.next_delay(short, now, Random(seed)) == strategy.next_delay(whole, now, Random(seed))
        assert len(short) <= 15


def test_a_strategy_of_ones_own_is_given_everything() -> None:
    class Odd:
        def next_delay(self, failures: Sequence[float], now: float, random: Random) -> float | None:
            return 0.0 if len(failures) % 2 else None

    assert remembered(Odd(), [1, 2, 3]) == [1, 2, 3]


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


def test_durations_are_texts_or_seconds_everywhere() -> None:
    exponential = ExponentialDelay(attempts=2, delay="1s", max_delay="1m", jitter=0, reset_after="90s")
    assert exponential == ExponentialDelay(attempts=2, delay=1, max_delay=60.0, jitter=0, reset_after=90)
    assert (exponential.delay, exponential.max_delay, exponential.reset_after) == (1.0, 60.0, 90.0)
    assert FixedDelay(delay="100ms").delay == 0.1
    rate = FailureRate(interval="1m", delay="5")
    assert (rate.interval, rate.delay) == (60.0, 5.0)


@pytest.mark.parametrize("strategy", [NoRestart(), FixedDelay(delay="2s"), FailureRate(interval="1m"), ExponentialDelay(delay="2s")])
def test_a_strategy_is_a_value(strategy: RestartStrategy) -> None:
    copy: object = pickle.loads(pickle.dumps(strategy))
    assert copy == strategy
    assert hash(copy) == hash(strategy)
    assert eval(repr(strategy)) == strategy
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        strategy.delay = 5  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: ExponentialDelay(delay="soon"), "restart.delay"),
        (lambda: ExponentialDelay(delay=-1), "restart.delay"),
        (lambda: ExponentialDelay(delay="1m", max_delay="59s"), "restart.max_delay"),
        (lambda: ExponentialDelay(max_delay="later"), "restart.max_delay"),
        (lambda: ExponentialDelay(reset_after="never"), "restart.reset_after"),
        (lambda: ExponentialDelay(multiplier=float("nan")), "restart.multiplier"),
        (lambda: ExponentialDelay(attempts=-1), "restart.attempts"),
        (lambda: FixedDelay(delay=float("inf")), "restart.delay"),
        (lambda: FixedDelay(attempts=-1), "restart.attempts"),
        (lambda: FailureRate(interval="1 fortnight"), "restart.interval"),
        (lambda: FailureRate(delay="x"), "restart.delay"),
        (lambda: FailureRate(failures=-1), "restart.failures"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(build: Callable[[], RestartStrategy], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert caught.value.key == key


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
