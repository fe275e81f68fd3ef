"""The stage of patterns: disorder, late events, snapshots at every point, and state that ends with `within`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.pattern import Pattern
from sage_actor.dataflow.watermarks import MAX_WATERMARK
from sage_actor.errors import GraphError, OperatorError
from sage_actor.operators.pattern_stage import PatternStage

Harness = Any  # the class of tests/operators/conftest.py
Event = tuple[str, str, int]
"""Key, letter, timestamp."""
LATE: OutputTag[Any] = OutputTag("late")
UNFINISHED: OutputTag[Any] = OutputTag("unfinished")


def letter(wanted: str) -> Any:
    return lambda event: event[1] == wanted


PATTERNS: dict[str, Pattern[Event]] = {
    "pair": Pattern.begin("first").where(letter("a")).then("second").where(letter("b")).within(10),
    "loop": Pattern.begin("first").where(letter("a")).one_or_more().then("second").where(letter("b")).within(10),
    "absence": Pattern.begin("first").where(letter("a")).not_followed_by("second").where(letter("b")).within(10),
    "rising": Pattern.begin("first", skip="past_last")
    .where(letter("a"))
    .next("second")
    .where(lambda event, match: event[1] != match["first"][0][1])
    .within(10),
}


async def run(harness: Harness, pattern: Pattern[Event], events: list[Event], marks: list[int], sizes: list[int], restore: bool) -> Any:
    options = {"pattern": pattern, "timeouts": UNFINISHED, "late": LATE}
    stage = await harness(PatternStage, kind="pattern", options=options).open()
    start = 0
    for size in sizes:
        stop = start + size
        await stage.feed(events[start:stop], [time for _, _, time in events[start:stop]], marks[start:stop])
        start = stop
        if restore:
            stage = await stage.restored()
    await stage.advance(MAX_WATERMARK)
    if pattern.span is not None:
        assert list(stage.stage.held.keys()) == []
        assert list(stage.stage.runs.keys()) == []
    assert list(stage.stage.waiting.keys()) == []
    await stage.close()
    return stage


def rows(found: list[tuple[Any, int, int]]) -> list[str]:
    """Without the watermarks, which may differ, and without the order of keys at one instant."""
    return sorted(repr((stamp, value)) for value, stamp, _ in found)


events_of_two_keys = st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("abc"), st.integers(-30, 30)), max_size=14)


@given(st.sampled_from(sorted(PATTERNS)), events_of_two_keys, st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.rule("F19a")
@pytest.mark.asyncio
async def test_disorder_batches_and_snapshots_never_show(harness: Harness, name: str, events: list[Event], data: st.DataObject) -> None:
    """Shuffled with nothing late gives what sorted gives, record by record, restored after each."""
    pattern = PATTERNS[name]
    events = [event for i, event in enumerate(events) if (event[0], event[2]) not in {(e[0], e[2]) for e in events[:i]}]
    ordered = sorted(events, key=lambda event: event[2])
    # one batch, in order, all certain only at the end: the reference
    plain = await run(harness, pattern, ordered, [-1000] * len(events), [len(events)] if events else [], restore=False)
    shuffled = data.draw(st.permutations(events))
    marks = [min(time for _, _, time in shuffled[i:]) - 1 for i in range(len(shuffled))]
    sizes: list[int] = []
    while sum(sizes) < len(events):
        sizes.append(data.draw(st.integers(1, len(events) - sum(sizes))))
    other = await run(harness, pattern, list(shuffled), marks, sizes, restore=data.draw(st.booleans()))
    assert rows(other.out) == rows(plain.out)
    assert rows(other.aside.get("unfinished", [])) == rows(plain.aside.get("unfinished", []))
    assert [stamp for _, stamp, _ in other.out] == sorted(stamp for _, stamp, _ in other.out)
    assert other.counters.late == 0
    assert all(stamp > mark for _, stamp, mark in [*other.out, *other.aside.get("unfinished", [])])  # none is late


@pytest.mark.asyncio
async def test_matches_carry_the_time_of_their_last_event(harness: Harness) -> None:
    events: list[Event] = [("x", "a", 0), ("x", "c", 1), ("x", "b", 4), ("x", "a", 20)]
    stage = await run(harness, PATTERNS["pair"], events, [-1] * 4, [4], restore=False)
    assert stage.out == [(("x", {"first": [events[0]], "second": [events[2]]}), 4, -1)]
    assert stage.aside["unfinished"] == [(("x", {"first": [events[3]]}), 30, -1)]


@pytest.mark.asyncio
async def test_absence_is_known_when_its_time_is_over(harness: Harness) -> None:
    events: list[Event] = [("x", "a", 0), ("y", "a", 5), ("y", "b", 15)]
    stage = await run(harness, PATTERNS["absence"], events, [-1, -1, -1], [3], restore=True)
    assert stage.out == [(("x", {"first": [events[0]]}), 10, -9223372036854775808)]


@pytest.mark.asyncio
async def test_late_events_are_counted_and_put_aside(harness: Harness) -> None:
    events: list[Event] = [("x", "a", 5), ("x", "b", 3), ("x", "b", 4)]
    stage = await run(harness, PATTERNS["pair"], events, [-1, 3, 3], [3], restore=False)
    assert stage.aside["late"] == [(events[1], 3, 3)]
    assert stage.counters.late == 1
    assert stage.out == []


@pytest.mark.asyncio
async def test_state_does_not_grow_beyond_within(harness: Harness) -> None:
    stage = await harness(PatternStage, kind="pattern", options={"pattern": PATTERNS["loop"]}).open()
    most = 0
    for time in range(0, 2000, 5):
        await stage.feed([("x", "a", time)], [time], [time - 1])
        most = max(most, len(list(stage.stage.held.scan("x"))), len(stage.stage.runs.get("x", ())))
    assert most <= 8  # three a's fit into 10 ms: seven beginnings
    await stage.close()


def touchy(event: Event) -> bool:
    if event[1] == "!":
        raise ValueError("no letter")
    return True


@pytest.mark.asyncio
async def test_a_condition_that_raises(harness: Harness) -> None:
    pattern: Pattern[Event] = Pattern.begin("one").where(touchy).next("two").where(touchy)
    events: list[Event] = [("x", "a", 1), ("x", "!", 2), ("x", "b", 3)]
    stage = await harness(PatternStage, kind="pattern", options={"pattern": pattern}).open()
    await stage.feed(events, [1, 2, 3], [0, 0, 0])
    with pytest.raises(OperatorError, match=r"operator 'judge', key 'x': ValueError: no letter; record: \('x', '!', 2\)"):
        await stage.advance(10)
    await stage.close()
    stage = await harness(PatternStage, kind="pattern", options={"pattern": pattern}, on_error="dead_letter").open()
    await stage.feed(events, [1, 2, 3], [0, 0, 0])
    await stage.advance(10)
    assert [value for value, _, _ in stage.out] == [("x", {"one": [events[0]], "two": [events[2]]})]  # as if it had not come
    assert [(letter.key, letter.value) for letter, _, _ in stage.aside["dead"]] == [("x", events[1])]
    await stage.close()


@pytest.mark.asyncio
async def test_without_event_time_it_is_refused(harness: Harness) -> None:
    stage = await harness(PatternStage, kind="pattern", options={"pattern": PATTERNS["pair"]}).open()
    with pytest.raises(GraphError, match=r"call assign_timestamps"):
        await stage.feed([("x", "a", 1)])
    await stage.close()
