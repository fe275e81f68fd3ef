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


class Average(AggregateFunction[Row, tuple[int, int], float]):
    """Accumulators that nobody can change."""

    def create(self) -> tuple[int, int]:
        return 0, 0

    def add(self, accumulator: tuple[int, int], value: Row, /) -> tuple[int, int]:
        return accumulator[0] + value[2], accumulator[1] + 1

    def merge(self, one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
        return one[0] + other[0], one[1] + other[1]

    def result(self, accumulator: tuple[int, int], /) -> float:
        return accumulator[0] / accumulator[1]


def nothing() -> list[int]:
    return []


def append(accumulator: list[int], row: Row) -> list[int]:
    accumulator.append(row[2])
    return accumulator


FUNCTIONS: dict[str, Describe] = {
    "in place": lambda w: w.aggregate(InPlace),
    "merging": lambda w: w.aggregate(Merging),
    "fold": lambda w: w.fold(nothing, append),
    "reduce": lambda w: w.reduce(lambda a, b: (a[0], 0, a[2] + b[2])),
    "apply": lambda w: w.apply(lambda key, span, rows: [row[2] for row in rows]),
    "mean": lambda w: w.aggregate(Average),
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
        history.append(((draw(st.sampled_from("abc")), time, -number), top))  # what sorts them changes them
        top = max(top, time - delay - 1)
    return history


@pytest.mark.rule("F14")
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(CASES), st.sampled_from([0, 15]), histories(), st.lists(st.integers(0, 4), max_size=30))
def test_read_late_it_shows_what_was_when_it_was_frozen(
    case: tuple[Any, str], lateness: int, history: list[tuple[Row, int]], plan: list[int]
) -> None:
    fresh = engine_of(*case, lateness=0 if isinstance(case[0], Count) else lateness)
    plain, mine = Fed(fresh()), Fed(fresh())
    saved: dict[Any, Any] = {}
    expected: dict[Any, Any] = {}
    frozen: Iterator[list[tuple[Any, Any]]] | None = None
    for number, (row, mark) in enumerate(history):
        action = plan[number] if number < len(plan) else 0
        if action == 1 and frozen is None:  # the twin's is read at once, mine some records later
            expected = entries_of(plain.engine.freeze(full=not saved))
            frozen = mine.engine.freeze(full=not saved)
        elif action == 2 and frozen is not None:
            read, frozen = entries_of(frozen), None
            assert read == expected
            saved |= read
        plain.feed([row], [mark])
        mine.feed([row], [mark])
    if frozen is not None:
        read = entries_of(frozen)
        assert read == expected
        saved |= read
    saved |= entries_of(mine.engine.freeze(full=not saved))
    restored = Fed(fresh())
    restored.engine.restore_watermark(mine.engine.watermark)
    restored.engine.load(list(copy.deepcopy(saved).items()))
    assert entries_of(restored.engine.freeze(full=True)) == {key: value for key, value in saved.items() if value is not DELETED}
    done = len(mine.out[0])
    for fed in (plain, mine, restored):
        fed.advance(MAX_WATERMARK)
    assert (mine.out, mine.late) == (plain.out, plain.late)
    for mine_column, restored_column in zip(mine.out, restored.out, strict=True):
        assert sorted(map(repr, restored_column)) == sorted(map(repr, mine_column[done:]))


@pytest.mark.parametrize("name", ["in place", "trigger, in place", "apply"])
@pytest.mark.parametrize("assigner", [Tumbling(10), Session(gap=10)])
def test_read_in_part_then_changed_everywhere(assigner: Any, name: str) -> None:
    engine = engine_of(assigner, name)()
    fed = Fed(engine)
    rows: list[Row] = [(f"key{number}", 1, number) for number in range(2500)]
    fed.feed(rows, [MIN_WATERMARK] * 2500)
    frozen = engine.freeze(full=True)
    first = entries_of(iter([next(frozen)]))
    fed.feed([(row[0], 2, -1) for row in rows], [MIN_WATERMARK] * 2500)
    second = entries_of(iter([next(frozen)]))
    fed.feed([("new", 1, 7)], [MIN_WATERMARK])
    fed.advance(50)
    assert len(engine) == 0
    rest = entries_of(frozen)
    assert len(first) + len(second) + len(rest) == 2500
    restored = Fed(engine_of(assigner, name)())
    restored.engine.load(list((first | second | rest).items()))
    restored.advance(50)
    assert sorted((r.key, r.value) for r in restored.out[0]) == sorted((row[0], [row[2]]) for row in rows)
    removed = entries_of(engine.freeze(full=False))
    assert set(removed.values()) == {DELETED}
    assert set(removed) == set(first | second | rest)


@pytest.mark.parametrize(("assigner", "name"), [(Tumbling(10), "in place"), (Tumbling(10), "trigger, in place"), (Count(9), "fold")])
def test_what_was_given_up_cannot_be_read_on(assigner: Any, name: str) -> None:
    engine = engine_of(assigner, name)()
    Fed(engine).feed([("a", 1, 1), ("b", 1, 2)], [MIN_WATERMARK] * 2)
    old: Any = engine.freeze(full=True)
    new: Any = engine.freeze(full=True)
    with pytest.raises(SageError, match="frozen again"):
        next(old)
    assert len(entries_of(new)) == 2
    closed: Any = engine.freeze(full=True)
    closed.close()
    assert list(closed) == []
    Fed(engine).feed([("a", 1, 3)], [MIN_WATERMARK])
    ((_, value),) = [entry for part in engine.freeze(full=False) for entry in part]
    assert value is not DELETED


class NoCopy(AggregateFunction[Row, list[Any], int]):
    """Its accumulators cannot be pickled."""

    def create(self) -> list[Any]:
        return [(letter for letter in "x")]

    def add(self, accumulator: list[Any], value: Row, /) -> list[Any]:
        accumulator.append(value)
        return accumulator

    def result(self, accumulator: list[Any], /) -> int:
        return len(accumulator) - 1


def test_an_accumulator_that_cannot_be_copied_fails_the_snapshot_and_no_record() -> None:
    engine = build_engine(options_of(Tumbling(10), lambda w: w.aggregate(NoCopy)), lambda: 0)
    fed = Fed(engine)
    fed.feed([("a", 1, 1)], [MIN_WATERMARK])
    frozen = engine.freeze(full=True)
    fed.feed([("a", 1, 2)], [MIN_WATERMARK])
    fed.advance(20)
    assert [result.value for result in fed.out[0]] == [2]
    ((_, value),) = next(frozen)
    assert hasattr(value[0], "__next__")


MANY = 5000


@pytest.mark.rule("F19a", "F20")
@pytest.mark.parametrize("lateness", [0, 20])
@pytest.mark.parametrize(
    ("assigner", "name"),
    [
        (Tumbling(10), "mean"),
        (Sliding(10, every=5), "mean"),
        (Sliding(10, every=9), "mean"),
        (Session(gap=10), "mean"),
        (Tumbling(10), "trigger, apply"),
        (Session(gap=10), "trigger, in place"),
    ],
)
def test_much_that_is_due_at_once_comes_in_turns(assigner: Any, name: str, lateness: int) -> None:
    whole, single = Fed(engine_of(assigner, name, lateness)()), Fed(engine_of(assigner, name, lateness)())
    rows: list[Row] = [(f"key{number}", 1, number) for number in range(MANY)]
    marks = [MIN_WATERMARK] * MANY
    for fed in (whole, single):
        fed.feed(rows, marks)
        fed.turns = 0
    assert single.turns == 0
    # Through a record and through the watermark: the same results, the same watermarks in force before.
    whole.advance(100)
    whole.feed([("last", 101, 0)], [100])
    single.feed([("last", 101, 0)], [100])
    assert whole.turns > 2
    assert single.turns > 1
    assert single.out == whole.out
    assert single.late == whole.late
    results, times, befores = whole.out
    if name != "trigger, apply":
        assert len({(result.key, result.end) for result in results}) == len(results) >= MANY
        assert set(befores) == {MIN_WATERMARK}
        assert times == sorted(times)
    engine = whole.engine
    restored = Fed(engine_of(assigner, name, lateness)())
    restored.engine.restore_watermark(engine.watermark)
    restored.engine.load(list(entries_of(engine.freeze(full=True)).items()))
    assert len(restored.engine) == len(engine)


@pytest.mark.parametrize(("assigner", "name"), [(Tumbling(10), "mean"), (Session(gap=10), "mean")])
def test_in_the_middle_of_firing_nothing_can_be_frozen(assigner: Any, name: str) -> None:
    engine = engine_of(assigner, name)()
    fed = Fed(engine)
    fed.feed([(f"key{number}", 1, number) for number in range(MANY)], [MIN_WATERMARK] * MANY)
    assert not engine.advance(100, *fed.out)
    assert 0 < len(fed.out[0]) < MANY
    with pytest.raises(SageError, match="firing"):
        engine.freeze(full=True)
    fed.advance(100)
    assert len(fed.out[0]) == MANY
    assert len(engine) == 0


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("assigner", "name"), [(Tumbling(10), "mean"), (Tumbling(10), "trigger, in place"), (Count(3, partial=True), "fold")]
)
async def test_the_stage_hands_results_on_between_turns(harness: Any, assigner: Any, name: str) -> None:
    task = await harness(WindowStage, kind="window", options=options_of(assigner, (FUNCTIONS | TRIGGERED)[name])).open()
    rows: list[Row] = [(f"key{number}", 1, number) for number in range(MANY)]
    await task.feed(rows, [1] * MANY, [MIN_WATERMARK] * MANY)
    batches: list[int] = []
    inner = task.stage._hand_on

    async def counted(emit: Any) -> None:
        batches.append(len(task.stage.out[0]))
        await inner(emit)

    task.stage._hand_on = counted
    await task.advance(MAX_WATERMARK)
    assert sum(batches) == len(task.out) == MANY
    assert max(batches) <= 4000
    await task.close()


@pytest.mark.parametrize("assigner", [Tumbling(10), Sliding(10, every=5), Session(gap=10)])
def test_records_come_in_order_of_arrival_where_nothing_is_merged(assigner: Any) -> None:
    joined: Describe = lambda w: w.reduce(lambda a, b: (a[0], 0, a[2] + b[2]))
    fed = Fed(build_engine(options_of(assigner, joined), lambda: 0))
    fed.feed([("k", 8, "a"), ("k", 6, "b"), ("k", 9, "c")], [MIN_WATERMARK] * 3)
    fed.advance(MAX_WATERMARK)
    assert {result.value[2] for result in fed.out[0]} == {"abc"}


@pytest.mark.rule("F22")
@pytest.mark.parametrize("describe", [FUNCTIONS["reduce"], FUNCTIONS["apply"]])
def test_sessions_that_merge_are_put_together_in_order_of_time(describe: Describe) -> None:
    for first, second in ((1, 9), (9, 1)):
        fed = Fed(build_engine(options_of(Session(gap=6), describe), lambda: 0))
        fed.feed([("k", first, str(first)), ("k", second, str(second)), ("k", 5, "5")], [MIN_WATERMARK] * 3)
        fed.advance(MAX_WATERMARK)
        (result,) = fed.out[0]
        assert (result.start, result.end) == (1, 15)
        assert list(result.value[2] if result.value[0] == "k" else result.value) == ["1", "9", "5"]


class Refusing(Merging):
    """Does not take negative numbers."""

    def add(self, accumulator: list[int], value: Row, /) -> list[int]:
        if value[2] < 0:
            raise ValueError(value[2])
        return super().add(accumulator, value)


@pytest.mark.rule("F19a")
@pytest.mark.parametrize("assigner", [Tumbling(10), Sliding(10, every=5), Sliding(10, every=9), Session(gap=10)])
def test_a_record_that_fails_leaves_no_trace(assigner: Any) -> None:
    engine = build_engine(options_of(assigner, lambda w: w.aggregate(Refusing)), lambda: 0)
    fed = Fed(engine)
    with pytest.raises(ValueError, match="-1"):
        fed.feed([("k", 1, -1)], [MIN_WATERMARK])
    assert (engine.index, engine.firing, len(engine)) == (0, False, 0)
    assert entries_of(engine.freeze(full=True)) == {}
    fed.feed([("k", 1, 5)], [MIN_WATERMARK])
    with pytest.raises(ValueError, match="-2"):
        fed.feed([("k", 2, -2)], [MIN_WATERMARK])
    fed.advance(MAX_WATERMARK)
    assert {tuple(result.value) for result in fed.out[0]} == {(5,)}


@pytest.mark.rule("F21")
@pytest.mark.parametrize("assigner", [Tumbling(10), Sliding(10, every=9), Session(gap=10)])
def test_accumulators_that_cannot_be_copied_do_where_nothing_is_shared_or_saved(assigner: Any) -> None:
    fed = Fed(build_engine(options_of(assigner, lambda w: w.aggregate(NoCopy), 50), lambda: 0))
    fed.feed([("a", 1, 1), ("b", 30, 1), ("a", 2, 2)], [MIN_WATERMARK, 20, 25])
    assert [result.value for result in fed.out[0] if result.start == 0 or isinstance(assigner, Session)] == [1, 2]


@pytest.mark.rule("F20", "F21")
@pytest.mark.parametrize("name", [*FUNCTIONS, "trigger, in place"])
@pytest.mark.parametrize("lateness", [0, 3])
@pytest.mark.parametrize(
    ("assigner", "time"), [(Tumbling(10), 5), (Sliding(10, every=5), 4), (Sliding(10, every=9), 5), (Session(gap=10), 0)]
)
def test_the_millisecond_from_which_on_a_record_is_late(name: str, lateness: int, assigner: Any, time: int) -> None:
    """Its last window ends at 10 in all cases but one: that of the shorter steps also has one that ends at 5 and is over anyway."""
    for watermark, late in ((8 + lateness, False), (9 + lateness, True)):
        fed = Fed(engine_of(assigner, name, lateness)())
        fed.feed([("k", time, 1), ("k", 100, 2), ("k", time, 3)], [MIN_WATERMARK, MIN_WATERMARK, watermark])
        assert fed.late == ([2] if late else [])
        fed.advance(MAX_WATERMARK)
        first = [result for result in fed.out[0] if result.end == 10]
        assert len(first) == (1 if late or not lateness else 2)


class Unsorted(Merging):
    """Gives its accumulator as it is."""

    def result(self, accumulator: list[int], /) -> list[int]:
        return list(accumulator)


@pytest.mark.parametrize("triggered", [False, True])
@pytest.mark.parametrize(("times", "then"), [((1, 9), 5), ((9, 1), 5), ((1, 3), 50)])
def test_neither_merging_nor_giving_a_result_reaches_what_is_frozen(triggered: bool, times: tuple[int, int], then: int) -> None:
    def engine_with(function: type[Merging]) -> WindowEngine:
        describe: Describe = lambda w: (w.trigger(EventTime()) if triggered else w).aggregate(function)
        return build_engine(options_of(Session(gap=6), describe), lambda: 0)

    engine = engine_with(Merging)
    fed, values = Fed(engine), [9, 4]
    fed.feed([("k", time, value) for time, value in zip(times, values, strict=True)], [MIN_WATERMARK] * 2)
    frozen = engine.freeze(full=True)
    fed.feed([("k", then, 1)], [then - 10])
    restored = Fed(engine_with(Unsorted))
    restored.engine.load(list(entries_of(frozen).items()))
    restored.advance(MAX_WATERMARK)
    expected = [[9, 4]] if then == 50 else [[value] for _, value in sorted(zip(times, values, strict=True))]
    assert [result.value for result in restored.out[0]] == expected
