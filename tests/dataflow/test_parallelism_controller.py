"""When the parallelism changes: a pure decision over what was seen, with bounds, hysteresis, and several looks that agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.dataflow.load_balancer import LoadBalancer
from sage_actor.dataflow.parallelism import OperatorLoad, ParallelismController
from sage_actor.errors import ConfigError

CONTROLLER = ParallelismController(min=1, max=8, low=0.3, high=0.8, looks=2)


def looks(*seen: tuple[float, int], parallelism: int = 2) -> list[dict[str, OperatorLoad]]:
    return [{"count": OperatorLoad(parallelism, busy, 0.0, queued)} for busy, queued in seen]


def test_a_busy_operator_gets_twice_as_many_tasks_and_no_more_than_allowed() -> None:
    assert CONTROLLER.decide(looks((0.9, 0), (0.95, 10))) == {"count": 4}
    assert CONTROLLER.decide(looks((0.9, 0), (0.95, 10), parallelism=6)) == {"count": 8}
    assert CONTROLLER.decide(looks((0.9, 0), (0.95, 10), parallelism=8)) == {}


def test_an_idle_operator_gets_as_few_as_its_work_needs() -> None:
    assert CONTROLLER.decide(looks((0.1, 0), (0.2, 0), parallelism=8)) == {"count": 3}, "8 x 0.2 of a task, at 0.55 each"
    assert CONTROLLER.decide(looks((0.0, 0), (0.0, 0), parallelism=8)) == {"count": 1}
    assert CONTROLLER.decide(looks((0.1, 0), (0.1, 5), parallelism=8)) == {}, "something waits"


def test_one_look_is_not_enough_and_looks_must_agree() -> None:
    assert CONTROLLER.decide(looks((0.9, 0))) == {}
    assert CONTROLLER.decide(looks((0.9, 0), (0.5, 0))) == {}
    assert CONTROLLER.decide(looks((0.5, 0), (0.9, 0))) == {}


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), max_size=4), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_it_keeps_its_bounds_and_does_not_change_its_mind(seen: list[tuple[float, int]], parallelism: int) -> None:
    decided = CONTROLLER.decide(looks(*seen, parallelism=parallelism)).get("count", parallelism)
    assert 1 <= decided <= max(8, parallelism)
    if decided > parallelism:  # the same work, spread over more tasks, does not look like too little
        assert all(busy * parallelism / decided > CONTROLLER.low for busy, _ in seen[-2:])
    if decided < parallelism <= 8:  # nor, over fewer, like too much
        assert all(busy * parallelism / decided < CONTROLLER.high for busy, _ in seen[-2:])


@pytest.mark.parametrize(
    "config", [{"min": 0}, {"min": 5, "max": 4}, {"low": 0.9}, {"high": 2}, {"interval": 0}, {"maximum": 3}, {"max": True}]
)
def test_a_controller_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ParallelismController.of(config)


def test_a_controller_reads_durations() -> None:
    made = ParallelismController.of({"interval": "500ms", "cool_down": 3, "max": 4})
    assert (made.interval, made.cool_down, made.max) == (0.5, 3.0, 4)


def test_a_load_balancer_reads_both_spellings() -> None:
    stealing = LoadBalancer.of({"work_stealing": True, "rebalance_interval": 30000})
    assert stealing == LoadBalancer.of({"strategy": "work_stealing", "rebalance_interval": "30s"})
    assert (stealing.strategy, stealing.effective, stealing.rebalance_interval) == ("work_stealing", "work_stealing", 30.0)
    by_field = LoadBalancer.of({"work_stealing": True, "partition_key": "user_id"})
    assert by_field.effective == "key_group"
    assert by_field.key is not None
    assert by_field.key({"user_id": 7}) == 7
    by_message = LoadBalancer.of({"partition_key": lambda message: message.value % 10})
    assert by_message.key is not None
    assert by_message.key(123) == 3


@pytest.mark.parametrize(
    "config",
    [
        {"strategy": "stealing"},
        {"work_stealing": 1},
        {"work_stealing": True, "strategy": "round_robin"},
        {"partition_key": 3},
        {"rebalance_interval": 0},
        {"interval": 5},
    ],
)
def test_a_load_balancer_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LoadBalancer.of(config)
