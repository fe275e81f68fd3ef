"""Whom a child's failure concerns, what the children may spend together, and the verdict, against plain models."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor.actor.supervision import ExponentialDelay, FixedDelay, NoRestart
from sage_actor.actor.supervisor_scope import Directive, Scope, Supervision, Verdict, affected, spend, verdict
from sage_actor.errors import ActorError, ConfigError

SCOPES: tuple[Scope, ...] = get_args(Scope)
SCOPE = st.sampled_from(SCOPES)
AT_ONCE = FixedDelay(attempts=None, delay=0)
ERROR = ValueError("no")


def judge(supervision: Supervision, error: BaseException | None = ERROR) -> Verdict:
    return verdict(supervision, AT_ONCE, [0.0], (), 0.0, error, Random(0))


# -- scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A2")
@pytest.mark.rule("A3")
@pytest.mark.parametrize(
    ("scope", "stopped", "started"), [("one_for_one", "b", "b"), ("all_for_one", "dcba", "abcd"), ("rest_for_one", "dcb", "bcd")]
)
def test_whom_a_failure_concerns(scope: Scope, stopped: str, started: str) -> None:
    assert affected(scope, "abcd", "b") == (list(stopped), list(started))


class Family:
    """The model: children as a list of lives; every step that a supervisor takes is applied and checked."""

    def __init__(self, names: list[int]) -> None:
        self.names = names
        self.alive = dict.fromkeys(names, True)

    def stop(self, name: int) -> None:
        later = self.names[self.names.index(name) + 1 :]
        assert all(not self.alive[other] or not self.stopping[other] for other in later), "a later one must have stopped before"
        self.alive[name] = False

    def start(self, name: int) -> None:
        earlier = self.names[: self.names.index(name)]
        assert not self.alive[name]
        assert all(self.alive[other] for other in earlier), "an earlier one must run before"
        self.alive[name] = True

    def restart(self, scope: Scope, failed: int) -> set[int]:
        stopped, started = affected(scope, self.names, failed)
        self.stopping = {name: name in stopped for name in self.names}
        for name in stopped:
            self.stop(name)
        for name in started:
            self.start(name)
        return set(stopped)


@pytest.mark.rule("A2")
@pytest.mark.rule("A3")
@given(SCOPE, st.lists(st.integers(), min_size=1, max_size=8, unique=True), st.data())
def test_restarts_go_from_right_to_left_and_back(scope: Scope, names: list[int], data: st.DataObject) -> None:
    family = Family(names)
    failed = data.draw(st.sampled_from(names))
    concerned = family.restart(scope, failed)
    assert all(family.alive.values()), "everyone runs again"
    at = names.index(failed)
    expected = {"one_for_one": {failed}, "all_for_one": set(names), "rest_for_one": set(names[at:])}
    assert concerned == expected[scope]


@pytest.mark.rule("A4")
@given(SCOPE, st.lists(st.integers(), min_size=1, max_size=8, unique=True), st.data())
def test_a_temporary_sibling_is_stopped_and_never_started(scope: Scope, names: list[int], data: st.DataObject) -> None:
    failed = data.draw(st.sampled_from(names))
    temporary = set(data.draw(st.lists(st.sampled_from(names)))) - {failed}
    stopped, started = affected(scope, names, failed, temporary=temporary)
    plainly_stopped, plainly_started = affected(scope, names, failed)
    assert stopped == plainly_stopped
    assert started == [name for name in plainly_started if name not in temporary]


def test_a_stranger_is_refused() -> None:
    with pytest.raises(ActorError, match="'z' is no child"):
        affected("one_for_one", "abc", "z")


# -- the common budget ------------------------------------------------------------------------------------------------


@pytest.mark.rule("A1")
@given(st.lists(st.integers(0, 5), max_size=60), st.integers(0, 5), st.integers(1, 12))
def test_the_budget_is_a_sliding_window_in_bounded_memory(gaps: list[int], intensity: int, period: int) -> None:
    """The model keeps every time; what is kept instead is bounded and decides alike, also after the budget was exceeded."""
    supervision = Supervision(intensity=intensity, period=period)
    everything: list[int] = []
    kept: tuple[float, ...] = ()
    for now in accumulate(gaps):
        everything = [at for at in everything if not at < now - period]
        everything.append(now)
        kept, exceeded = spend(supervision, kept, now)
        assert exceeded == (len(everything) > intensity)
        assert len(kept) <= intensity + 1


@pytest.mark.rule("A1")
def test_the_boundary_of_the_budget_is_kept() -> None:
    supervision = Supervision(intensity=1, period="5s")
    assert spend(supervision, [0.0], 5.0).exceeded, "exactly one period ago still counts"
    assert spend(supervision, [0.0], 5.001) == ((5.001,), False)
    assert not spend(Supervision(), [0.0] * 1000, 0.0).exceeded, "without an intensity there is no common budget"


@pytest.mark.rule("A1")
def test_the_children_spend_together_and_the_supervisor_fails() -> None:
    supervision = Supervision(intensity=2, period=5)
    times: tuple[float, ...] = ()
    found: list[Verdict] = []
    for now in (0.0, 1.0, 2.0):  # three children, the first failure of each
        found.append(verdict(supervision, AT_ONCE, [now], times, now, ERROR, Random(0)))
        times = found[-1].budget_times
    assert [decided.action for decided in found] == ["restart", "restart", "escalate"]
    assert found[-1].reason == "the children restarted more than 2 times within 5 s"


@pytest.mark.rule("A6")
@given(st.integers(0, 6), st.integers(0, 8))
def test_a_failed_start_during_a_restart_spends_again(intensity: int, failing_starts: int) -> None:
    """One failure while running, then starts that fail at once: each costs one restart, until the budget says no."""
    supervision = Supervision(intensity=intensity, period=5)
    failures: list[float] = []
    times: tuple[float, ...] = ()
    actions: list[str] = []
    for attempt in range(1 + failing_starts):
        failures.append(attempt * 0.001)
        decided = verdict(supervision, AT_ONCE, failures, times, failures[-1], ERROR, Random(0))
        times = decided.budget_times
        actions.append(decided.action)
        if decided.action == "escalate":
            break
    restarts = min(intensity, 1 + failing_starts)
    assert actions == ["restart"] * restarts + ["escalate"] * (1 + failing_starts > intensity)


# -- the verdict ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("A4")
@pytest.mark.parametrize("error", [None, SystemExit(0), KeyboardInterrupt()])
def test_what_ends_without_failing_does_not_restart(error: BaseException | None) -> None:
    asked: list[BaseException] = []

    def decide(found: BaseException) -> Directive:
        asked.append(found)
        return "restart"

    decided = judge(Supervision(intensity=1, decide=decide), error)
    assert (decided.action, decided.budget_times, asked) == ("stop", (), [])


@pytest.mark.rule("A4")
@given(SCOPE, st.none() | st.integers(0, 3))
def test_the_temporary_never_restarts_and_spends_nothing(scope: Scope, intensity: int | None) -> None:
    decided = verdict(Supervision(scope=scope, intensity=intensity), NoRestart(), [0.0], (), 0.0, ERROR, Random(0))
    assert (decided.action, decided.budget_times) == ("stop", ())
    assert decided.reason == "its restart strategy gives up after 1 failure"


def test_a_restart_waits_as_the_strategy_says() -> None:
    strategy = ExponentialDelay(attempts=3, delay=1, max_delay=60, jitter=0)
    decided = verdict(Supervision(), strategy, [0.0, 1.0], (), 1.0, ERROR, Random(0))
    assert (decided.action, decided.delay, decided.reason) == ("restart", 2.0, "it failed with ValueError")


@pytest.mark.parametrize("directive", get_args(Directive))
def test_decide_is_asked_first(directive: Directive) -> None:
    asked: list[BaseException] = []

    def decide(error: BaseException) -> Directive:
        asked.append(error)
        return directive

    decided = judge(Supervision(decide=decide, intensity=5))
    assert decided.action == directive
    assert asked == [ERROR]
    assert decided.budget_times == ((0.0,) if directive == "restart" else ()), "only a restart spends"


def raises(_error: BaseException) -> object:
    raise ZeroDivisionError("division by zero")


def answers(answer: object) -> Callable[[BaseException], object]:
    return lambda _error: answer


@pytest.mark.parametrize(
    ("decide", "said"),
    [
        (raises, "decide raised ZeroDivisionError about ValueError: division by zero"),
        (answers("revive"), "decide answered 'revive' to ValueError, not one of restart, resume, stop, escalate"),
        (answers(None), "decide answered None to ValueError, not one of restart, resume, stop, escalate"),
    ],
)
def test_a_broken_decision_escalates_and_says_so(decide: Callable[[BaseException], object], said: str) -> None:
    decided = judge(Supervision(decide=cast("Callable[[BaseException], Directive]", decide)))
    assert (decided.action, decided.reason) == ("escalate", said)


@pytest.mark.parametrize("outcome", ["stop", "escalate"])
def test_an_exhausted_strategy_ends_the_child_or_the_supervisor(outcome: str) -> None:
    supervision = Supervision(when_exhausted="stop" if outcome == "stop" else "escalate")
    decided = verdict(supervision, FixedDelay(attempts=2), [0.0, 1.0, 2.0], (), 2.0, ERROR, Random(0))
    assert (decided.action, decided.reason) == (outcome, "its restart strategy gives up after 3 failures")


DIRECTIVE: st.SearchStrategy[Directive] = st.sampled_from(get_args(Directive))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), DIRECTIVE), max_size=40),
    st.none() | st.integers(0, 4),
    st.integers(1, 10),
    st.integers(0, 6),
)
def test_verdicts_in_a_row_against_a_model(
    events: list[tuple[int, int, Directive]], intensity: int | None, period: int, attempts: int
) -> None:
    """Several children with a limited strategy each; the model holds plain lists and never forgets."""
    now = 0
    wanted: Directive = "restart"
    supervision = Supervision(intensity=intensity, period=period, decide=lambda _: wanted)
    failures: dict[int, list[float]] = {}
    restarts: list[int] = []
    times: tuple[float, ...] = ()
    for gap, child, wanted in events:
        now += gap
        history = failures.setdefault(child, [])
        history.append(float(now))
        decided = verdict(supervision, FixedDelay(attempts=attempts, delay=0), history, times, float(now), ERROR, Random(0))
        times = decided.budget_times
        expected: str = wanted
        if wanted == "restart" and len(history) > attempts:
            expected = "stop"
        elif wanted == "restart":
            restarts.append(now)
            if intensity is not None and sum(1 for at in restarts if at >= now - period) > intensity:
                expected = "escalate"
        assert decided.action == expected
        assert len(times) <= (0 if intensity is None else intensity + 1)


# -- the value --------------------------------------------------------------------------------------------------------


def test_supervision_is_a_value() -> None:
    supervision = Supervision(scope="rest_for_one", intensity=3, period="1m", when_exhausted="escalate")
    assert supervision.period == 60.0
    assert supervision == Supervision(scope="rest_for_one", intensity=3, period=60, when_exhausted="escalate")
    assert hash(supervision) == hash(replace(supervision))
    copy: object = pickle.loads(pickle.dumps(supervision))
    assert copy == supervision
    assert Supervision() == Supervision(scope="one_for_one", intensity=None, period=5.0, decide=None, when_exhausted="stop")


@pytest.mark.parametrize(
    ("build", "key", "said"),
    [
        (lambda: Supervision(scope="one-for-one"), "supervision.scope", "one_for_one, all_for_one, rest_for_one"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: Supervision(when_exhausted="restart"), "supervision.when_exhausted", "stop, escalate"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (lambda: Supervision(intensity=-1), "supervision.intensity", "0 or more"),
        (lambda: Supervision(period="soon"), "supervision.period", "'soon' is not a duration"),
        (lambda: Supervision(period=-1), "supervision.period", "not negative"),
    ],
)
def test_wrong_supervision_is_refused_by_its_key(build: Callable[[], Supervision], key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        build()
    assert caught.value.key == key
