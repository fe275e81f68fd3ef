"""Event time over several channels, against the rule written down plainly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_actor._core.batch import Batch
from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK
from sage_actor.runtime.valve import Valve

STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["mark", "idle", "end", "batch"]), st.integers(-50, 50)), max_size=60)


@pytest.mark.rule("F16")
@pytest.mark.rule("F17")
@pytest.mark.rule("F18")
@given(STEPS)
def test_the_least_of_active_aligned_channels(steps: list[tuple[int, str, int]]) -> None:
    valve = Valve([True] * 3)
    latest = [MIN_WATERMARK] * 3
    active = [True] * 3
    aligned = [True] * 3
    ended: set[int] = set()
    output = MIN_WATERMARK
    for channel, step, value in steps:
        if channel in ended:
            continue
        if step in ("mark", "batch"):
            if not active[channel]:
                active[channel], aligned[channel] = True, latest[channel] >= output
            if step == "batch":
                batch = Batch([0], timestamps=[0], watermarks=[value])
                others = [latest[i] for i in range(3) if i != channel and active[i] and aligned[i]]
                valve.enter(channel, batch)
                certain = max(output, min([value, *others]))
                assert batch.watermarks == [certain]
                output = certain
                latest[channel] = max(latest[channel], value)
                aligned[channel] = aligned[channel] or latest[channel] >= output
                continue
            latest[channel] = max(latest[channel], value)
            aligned[channel] = aligned[channel] or latest[channel] >= output
            answer = valve.advance(channel, value)
        else:
            active[channel] = False
            if step == "end":
                ended.add(channel)
            answer = valve.end(channel) if step == "end" else valve.fall_idle(channel)
        if any(active):
            counted = [latest[i] for i in range(3) if active[i] and aligned[i]]
            output = max(output, min(counted)) if counted else output
        else:
            output = max(output, *latest)
        assert answer == output
        assert valve.idle == (not any(active))


@pytest.mark.rule("F17")
def test_an_idle_channel_holds_nobody_up() -> None:
    valve = Valve([True] * 2)
    assert valve.advance(0, 100) == MIN_WATERMARK
    assert valve.fall_idle(1) == 100
    assert not valve.idle
    assert valve.fall_idle(0) == 100
    assert valve.idle


@pytest.mark.rule("F18")
def test_a_channel_that_comes_back_late_does_not_pull_time_back() -> None:
    valve = Valve([True] * 2)
    valve.fall_idle(1)
    valve.advance(0, 100)
    assert valve.advance(1, 50) == 100
    assert valve.advance(0, 200) == 200, "the channel that is behind does not count yet"
    assert valve.advance(1, 200) == 200
    assert valve.advance(0, 300) == 200, "now it does"


def test_a_channel_without_event_time_holds_nobody_up() -> None:
    valve = Valve([True, False])
    assert valve.advance(0, 5) == 5
    batch = Batch([1])
    valve.enter(1, batch)
    assert batch.watermarks is None
    assert valve.fall_idle(0) == 5
    assert valve.idle


def test_what_an_ended_channel_made_certain_stays_certain() -> None:
    valve = Valve([True, True])
    valve.advance(0, 70)
    valve.end(0)
    assert valve.fall_idle(1) == 70


@pytest.mark.rule("F17")
def test_the_end_of_one_channel_is_not_the_end_of_time_for_a_silent_one() -> None:
    valve = Valve([True, True])
    valve.advance(0, 70)
    valve.advance(1, 50)
    last = Batch([0], timestamps=[69], watermarks=[MAX_WATERMARK])
    valve.enter(0, last)
    assert last.watermarks == [50]
    valve.advance(0, MAX_WATERMARK)
    valve.end(0)
    assert valve.fall_idle(1) == 70
    assert valve.advance(1, 60) == 70
    assert valve.advance(1, 80) == 80
    assert valve.advance(1, MAX_WATERMARK) == 80
