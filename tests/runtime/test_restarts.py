"""Whether a job is tried again, and when: the strategy of the settings, and what no strategy may do."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from sage_actor.dataflow.settings import JobSettings
from sage_actor.errors import CheckpointError, Fenced, GraphError, JobError, OperatorError, SerializationError, StateMismatch
from sage_actor.runtime.restarts import Restarts

LOST = JobError("a worker was lost")


def restarts(**settings: Any) -> Restarts:
    return Restarts(JobSettings(checkpoint_interval=1.0, restart_jitter=0.0, **settings), Random(0))


def judged(applied: Restarts, times: list[float], error: BaseException = LOST) -> list[float | None]:
    return [applied.judge(error, now) for now in times]


def test_exponential_delay_doubles_up_to_its_bound_and_ends() -> None:
    applied = restarts(restart_delay=1.0, restart_max_delay=5.0, restart_attempts=6)
    assert judged(applied, [0.0, 1.5, 4.0, 8.5, 14.0, 19.5, 25.0]) == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0, None]


def test_a_long_quiet_time_makes_it_begin_again() -> None:
    applied = restarts(restart_delay=1.0, restart_max_delay=60.0, restart_reset_after=100.0)
    assert judged(applied, [0.0, 10.0, 20.0]) == [1.0, 2.0, 4.0]
    assert judged(applied, [500.0]) == [1.0]


def test_jitter_only_adds_within_its_share() -> None:
    applied = Restarts(JobSettings(checkpoint_interval=1.0, restart_delay=10.0, restart_multiplier=1.0, restart_jitter=0.2), Random(1))
    pauses = [applied.judge(LOST, 1000.0 * n) for n in range(1, 8)]
    assert all(pause is not None and 10.0 <= pause <= 12.0 for pause in pauses)
    assert len(set(pauses)) > 1


def test_fixed_delay_and_none() -> None:
    assert judged(restarts(restart_strategy="fixed-delay", restart_delay=3.0, restart_attempts=2), [0.0, 1.0, 2.0]) == [3.0, 3.0, None]
    assert judged(restarts(restart_strategy="none"), [0.0]) == [None]


def test_failure_rate_counts_within_a_window_that_slides() -> None:
    applied = restarts(restart_strategy="failure-rate", restart_failures=2, restart_interval=10.0, restart_delay=0.5)
    assert judged(applied, [0.0, 6.0, 12.0, 18.0]) == [0.5, 0.5, 0.5, 0.5]
    assert judged(applied, [19.0]) == [None]


def test_without_checkpoints_only_when_asked_for() -> None:
    assert Restarts(JobSettings(), Random(0)).judge(LOST, 0.0) is None
    asked = Restarts(JobSettings(restart_strategy="fixed-delay", restart_delay=2.0), Random(0))
    assert asked.judge(LOST, 0.0) == 2.0


@pytest.mark.parametrize(
    "error",
    [Fenced("job", 1, 2), GraphError("no"), SerializationError("a record", "no"), StateMismatch("operator", "differs", "change it")],
)
def test_what_would_only_be_met_again_is_final(error: BaseException) -> None:
    assert restarts().judge(error, 0.0) is None


def at(position: int | None, text: str = "ValueError: poisoned", operator: str = "map") -> OperatorError:
    return OperatorError("job", operator, text, position=position)


def test_the_same_error_at_the_same_position_three_times_running_is_final() -> None:
    applied = restarts(restart_attempts=0)
    assert [applied.judge(at(7), float(n)) is None for n in range(3)] == [False, False, True]


def test_any_other_failure_between_begins_the_count_anew() -> None:
    for other in (at(8), at(7, "KeyError: 1"), at(7, operator="filter"), at(None), LOST, CheckpointError("job", "disk full")):
        applied = restarts(restart_attempts=0, restart_max_delay=1.0)
        answers = [applied.judge(error, float(n)) for n, error in enumerate([at(7), at(7), other, at(7), at(7)])]
        assert None not in answers
        assert applied.judge(at(7), 9.0) is None


def test_an_error_without_a_place_is_never_the_same() -> None:
    applied = restarts(restart_attempts=0, restart_max_delay=1.0)
    assert None not in judged(applied, [float(n) for n in range(50)], at(None))


def test_a_long_history_is_not_kept() -> None:
    applied = restarts(restart_attempts=0, restart_max_delay=1.0, restart_reset_after=5.0)
    for n in range(10_000):
        applied.judge(LOST, float(n))
    assert len(applied.failures) < 1000
