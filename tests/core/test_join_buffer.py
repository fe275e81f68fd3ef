"""JoinBuffer against plain sorted lists: every change, snapshots read while it changes on, and what is refused."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.interval_join import IntervalJoin
from sage_actor._core.join_buffer import JoinBuffer
from sage_actor.errors import UnstableKey

GONE = object()
BOUNDS = (7, None)

Entries = list[tuple[Any, Any]]
Model = dict[Any, tuple[list[tuple[int, int, str]], list[tuple[int, int, str]]]]
"""key -> (time, number, value) of either side"""


def content(buffer: JoinBuffer) -> Model:
    """What is there, by its public face."""
    return {
        slot.key: tuple(list(zip(slot.times(s), slot.numbers(s), slot.records(s), strict=True)) for s in (0, 1))  # type: ignore[misc]
        for slot in buffer.slots()
        if slot.count(0) + slot.count(1)
    }


def restored(entries: Entries) -> JoinBuffer:
    buffer = JoinBuffer(GONE, BOUNDS)
    for start in range(0, len(entries), 3):
        buffer.load(entries[start : start + 3])
    return buffer


steps = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(["a", "b", 1, 1.0, (1, "x")]), st.integers(0, 1), st.integers(-20, 20)),
    st.tuples(st.just("drop"), st.sampled_from(["a", 1]), st.integers(0, 1), st.integers(0, 3)),
    st.tuples(st.just("remove"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("expire"), st.integers(-20, 30)),
    st.tuples(st.just("freeze"), st.booleans(), st.integers(0, 4)),
    st.tuples(st.just("restore")),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=60))
def test_against_sorted_lists(script: list[tuple[Any, ...]]) -> None:
    buffer, model, number, watermark = JoinBuffer(GONE, BOUNDS), dict[Any, Any](), 0, -(2**63)
    saved: Entries = []
    open_drain: tuple[Any, Entries, Model] | None = None

    def finish_drain() -> None:
        """The rest of the slices; together with what was saved before they are the content at the freeze."""
        nonlocal open_drain, saved
        if open_drain is not None:
            drain, entries, expected = open_drain
            for part in drain:
                entries += part
            saved = entries
            assert content(restored(saved)) == expected
            open_drain = None

    for step in script:
        match step:
            case ("add", key, side, time):
                slot = buffer.add(key, side, time, f"{number}")
                assert buffer.find(key) is slot
                sides = model.setdefault(key, ([], []))
                sides[side].append((time, number, f"{number}"))
                sides[side].sort(key=lambda r: r[:2])
                number += 1
            case ("drop", key, side, count):
                slot_or_none = buffer.find(key)
                if slot_or_none is not None:
                    buffer.drop(slot_or_none, side, count)
                    del model.get(key, ([], []))[side][:count]
            case ("remove", key):
                slot_or_none = buffer.find(key)
                if slot_or_none is not None:
                    buffer.remove(slot_or_none)
                    model.pop(key, None)
            case ("expire", to):
                watermark = max(watermark, to)
                while buffer.expire(watermark, 1):
                    pass
                kept = content(buffer)
                for key, sides in model.items():
                    there = kept.get(key, ([], []))[0]
                    useful = [r for r in sides[0] if r[0] + 7 > watermark]
                    assert [r for r in there if r[0] + 7 > watermark] == useful
                    assert useful or not there, "what has expired stays at most until what came before it has"
                    sides[0][:] = [r for r in sides[0] if r in there]
            case ("freeze", full, slices):
                finish_drain()
                full = full or not saved
                drain = buffer.freeze(full=full)
                entries: Entries = [] if full else list(saved)
                open_drain = (drain, entries, content(buffer))
                for _ in range(slices):
                    entries += next(drain, [])
            case _:
                finish_drain()
                entries = [entry for part in buffer.freeze(full=True) for entry in part]
                buffer, saved = restored(entries), []
                number = 1 + max((r[1] for sides in model.values() for side in sides for r in side), default=-1)
        model = {key: sides for key, sides in model.items() if sides[0] or sides[1]}
        assert content(buffer) == model
        assert buffer.records == sum(len(side) for sides in model.values() for side in sides)
    finish_drain()


def test_queries() -> None:
    buffer = JoinBuffer(GONE)
    for time in (5, 1, 3, 3):
        slot = buffer.add("a", 1, time, f"at {time}")
    assert slot.times(1) == [1, 3, 3, 5]
    assert slot.numbers(1) == [1, 2, 3, 0]
    assert [slot.count_until(1, time) for time in (0, 1, 3, 4, 9)] == [0, 1, 3, 3, 4]
    assert (slot.record(1, 0), slot.time(1, 3)) == ("at 1", 5)
    with pytest.raises(IndexError):
        slot.record(1, 4)
    with pytest.raises(IndexError):
        slot.time(0, 0)
    assert len(buffer) == 1


def test_long_sides_stay_sorted() -> None:
    chance = random.Random(3)
    buffer = JoinBuffer(GONE)
    times = [chance.randrange(1000) for _ in range(3000)]
    for time in times:
        slot = buffer.add("a", 0, time, time)
    expected = sorted(times)
    for count in (0, 1, 15, 16, 700, 1500, 10**6):
        buffer.drop(slot, 0, count)
        del expected[:count]
        assert slot.records(0) == slot.times(0) == expected
    assert len(buffer) == 0


@dataclass(frozen=True)
class Coded:
    """Equal by its code, whatever Python says of the objects."""

    code: int
    noise: float

    def __stable_key__(self) -> int:
        return self.code


def test_keys() -> None:
    buffer = JoinBuffer(GONE)
    buffer.add(Coded(1, 0.5), 0, 1, "x")
    buffer.add(Coded(1, 0.7), 1, 1, "y")
    assert len(buffer) == 1
    for key in (None, object(), float("nan")):
        with pytest.raises(UnstableKey):
            buffer.add(key, 0, 1, "z")
    assert len(buffer) == buffer.records - 1 == 1


def test_a_drain_that_is_not_wanted_leaves_nothing_behind() -> None:
    buffer = JoinBuffer(GONE)
    kept = Weighty()
    slot = buffer.add("a", 0, 1, kept)
    drain: Any = buffer.freeze(full=True)
    drain.close()
    buffer.remove(slot)
    del slot
    alive = Weighty.alive
    del kept
    assert Weighty.alive == alive - 1


class Weighty:
    """Counts its instances."""

    alive = 0

    def __init__(self) -> None:
        Weighty.alive += 1

    def __del__(self) -> None:
        Weighty.alive -= 1


def test_interval_join_goes_on_behind_a_bad_record() -> None:
    join = IntervalJoin(GONE, 0, 5)
    pairs: list[Any] = []
    columns = (["a", None, "a"], ["x", "bad", "y"], [1, 2, 3], [0, 0, 0])
    with pytest.raises(UnstableKey):
        join.run(0, *columns, 0, 100, pairs, [], [])
    assert join.index == 1
    assert join.run(0, *columns, 2, 100, pairs, [], []) == 3
    times: list[int] = []
    assert join.run(1, ["a"], ["z"], [3], [0], 0, 100, pairs, times, []) == 1
    assert (pairs, times) == ([("x", "z"), ("y", "z")], [3, 3])
