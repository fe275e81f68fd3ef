"""The tables of windows by themselves: what a snapshot shows that is read late, and much that is due at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor.dataflow.functions import AggregateFunction
from sage_actor.dataflow.triggers import Continuous, CountTrigger, EventTime
from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK
from sage_actor.dataflow.windows import Count, Session, Sliding, Tumbling
from sage_actor.errors import SageError
from sage_actor.operators.general_windows import WindowEngine
from sage_actor.operators.window_engines import build_engine
from sage_actor.operators.window_stage import WindowStage
from sage_actor.state.store import DELETED
from sage_actor.stream.windowed import WindowedStream

Row = tuple[str, int, Any]
Describe = Callable[[WindowedStream[Any, Row]], Any]


class InPlace(AggregateFunction[Row, list[int], list[int]]):
    """Changes its accumulator, and while it gives a result and merges, too."""

    def create(self) -> list[int]:
        return []

    def add(self, accumulator: list[int], value: Row, /) -> list[int]:
        accumulator.append(value[2])
        return accumulator

    def result(self, accumulator: list[int], /) -> list[int]:
        accumulator.sort()
        return list(accumulator)


class Merging(InPlace):
    def merge(self, one: list[int], other: list[int]) -> list[int]:
        one += other
        other.clear()
        return one


def append(accumulator: list[int], row: Row) -> list[int]:
    accumulator.append(row[2])
    return accumulator


FUNCTIONS: dict[str, Describe] = {
    "in place": lambda w: w.aggregate(InPlace),
    "merging": lambda w: w.aggregate(Merging),
    "fold": lambda w: w.fold(list[int], append),
    "reduce": lambda w: w.reduce(lambda a, b: (a[0], 0, a[2] + b[2])),
    "apply": lambda w: w.apply(lambda key, span, rows: [row[2] for row in rows]),
    "mean": lambda w: w.mean(lambda row: row[2]),
}
TRIGGERED: dict[str, Describe] = {
    "trigger, in place": lambda w: w.trigger(EventTime()).aggregate(InPlace),
    "trigger, merging": lambda w: w.trigger(Continuous(4)).aggregate(Merging),
    "trigger, apply": lambda w: w.trigger(CountTrigger(2)).apply(lambda key, span, rows: [row[2] for row in rows]),
}
TIMED = [Tumbling(10), Sliding(10, every=5), Sliding(10, every=9), Session(gap=4)]
CASES = [(window, name) for window in TIMED for name in (*FUNCTIONS, *TRIGGERED)] + [
    (window, name) for window in (Count(3), Count(4, every=2, partial=True)) for name in ("in place", "fold", "apply")
]


def options_of(assigner: Any, describe: Describe, lateness: int = 0) -> dict[str, Any]:
    windowed: Any = sage.Environment("described").from_collection(list[Row]()).key_by(lambda row: row[0]).window(assigner)
    described = describe(windowed.allowed_lateness(lateness) if lateness else windowed)
    options: dict[str, Any] = described._env.graph.operators[-1].options
    return options


def engine_of(assigner: Any, name: str, lateness: int = 0) -> Callable[[], WindowEngine]:
    options = options_of(assigner, (FUNCTIONS | TRIGGERED)[name], lateness)
    return lambda: build_engine(options, lambda: 0)


class Fed:
    """A table and all it has said."""

    def __init__(self, engine: WindowEngine, *, columns: tuple[list[Any], list[int], list[int]] | None = None) -> None:
        self.engine = engine
        self.out = columns or ([], [], [])
        self.late: list[int] = []
        self.turns = 0

    def feed(self, rows: list[Row], marks: list[int]) -> None:
        keys, stamps = [row[0] for row in rows], [row[1] for row in rows]
        start = 0
        while start < len(rows):
            start = self.engine.run(keys, list(rows), stamps, marks, start, *self.out, self.late)
            self.turns += 1

    def advance(self, watermark: int) -> None:
        self.turns += 1
        while not self.engine.advance(watermark, *self.out):
            self.turns += 1


def entries_of(frozen: Iterator[list[tuple[Any, Any]]]) -> dict[Any, Any]:
    """As a writer sees them: at once, so that no later change reaches them."""
    found: dict[Any, Any] = {}
    for entries in frozen:
        for key, value in entries:
            if value is DELETED:
                found[key] = value
            else:
                found[key] = copy.deepcopy(value)
    return found


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Row, int]]:
    delay, top = draw(st.sampled_from([0, 6, 40])), MIN_WATERMARK
    history: list[tuple[Row, int]] = []
    for number, time in enumerate(draw(st.lists(st.integers(0, 60), max_size=30))):
        history.append(((draw(st.sampled_from("abc")), time, number), top))
        top = max(top, time - delay - 1)
    return history


@pytest.mark.rule("F14")
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(CASES), st.sampled_from([0, 15]), histories(), st.lists(st.integers(0, 4), max_size=30))
def test_read_late_it_shows_what_was_when_it_was_frozen(
    case: tuple[Any, str], lateness: int, history: list[tuple[Row, int]], plan: list[int]
) -> None:
    fresh = engine_of(*case, lateness=0 if isinstance(case[0], Count) else lateness)
    plain, mine, saved = Fed(fresh()), Fed(fresh()), dict[Any, Any]()
    frozen: Iterator[list[tuple[Any, Any]]] | None = None
    expected: dict[Any, Any] = {}
    watermark = MIN_WATERMARK
    for number, (row, mark) in enumerate(history):
        action = plan[number] if number < len(plan) else 0
        if action == 1 and frozen is None:  # the twin's is read at once, mine some records later
            expected = entries_of(plain.engine.freeze(full=not saved))
            frozen = mine.engine.freeze(full=not saved)
            watermark = mine.engine.watermark
        elif action == 2 and frozen is not None:
            read, frozen = entries_of(frozen), None
            assert read == expected
            saved |= read
        elif action == 3 and saved and frozen is None and not isinstance(case[0], Count):
            mine.feed([row], [mark])  # what is lost with the crash is done again
            mine = Fed(fresh(), columns=mine.out)
            mine.engine.restore_watermark(plain.engine.watermark)
            whole = entries_of(plain.engine.freeze(full=True))
            mine.engine.load(list(copy.deepcopy(whole).items()))
            entries_of(mine.engine.freeze(full=True))
            saved = whole
            continue
        plain.feed([row], [mark])
        mine.feed([row], [mark])
        assert entries_of(iter([])) == {}
    if frozen is not None:
        read = entries_of(frozen)
        assert read == expected
        saved |= read
        restored = Fed(fresh())
        restored.engine.restore_watermark(watermark)
        restored.engine.load(list(saved.items()))
        assert len(restored.engine) == sum(value is not DELETED for value in saved.values())
