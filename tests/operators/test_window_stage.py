"""The window stage by itself: any batch size, crashes between any two batches, rescaling; against a batch oracle in plain Python."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_actor as sage
from sage_actor.actor.portable import dump
from sage_actor.dataflow.functions import AggregateFunction
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.triggers import Continuous, CountTrigger, EventTime, ProcessingTime, Purging
from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK
from sage_actor.dataflow.windows import Count, Global, Session, Sliding, Tumbling
from sage_actor.errors import OperatorError, StateMismatch
from sage_actor.operators.window_stage import WindowStage
from sage_actor.stream.windowed import WindowedStream

LATE: OutputTag[Any] = OutputTag("late")
Row = tuple[str, int, int]
"""key, time, value"""
Describe = Callable[[WindowedStream[Any, Row]], object]


class Everything(AggregateFunction[Row, list[int], list[int]]):
    """Keeps its accumulator and changes it in place."""

    def create(self) -> list[int]:
        return []

    def add(self, accumulator: list[int], value: Row, /) -> list[int]:
        accumulator.append(value[2])
        return accumulator

    def result(self, accumulator: list[int], /) -> list[int]:
        return sorted(accumulator)


class Merging(Everything):
    """The same, for sessions without their records; merging changes both."""

    def merge(self, one: list[int], other: list[int]) -> list[int]:
        one += other
        other.clear()
        return one


def empty() -> list[int]:
    return []


def fold_in(accumulator: list[int], row: Row) -> list[int]:
    accumulator.append(row[2])
    accumulator.sort()
    return accumulator


def values_of(rows: list[Row]) -> list[int]:
    return sorted(row[2] for row in rows)


COMPUTED: dict[str, tuple[Describe, Callable[[list[Row]], Any]]] = {
    "count": (lambda w: w.count(), len),
    "sum": (lambda w: w.sum(lambda r: r[2]), lambda rows: sum(values_of(rows))),
    "max": (lambda w: w.max(lambda r: r[2]), lambda rows: values_of(rows)[-1]),
    "general count": (lambda w: w.trigger(EventTime()).count(), len),
    "general min": (lambda w: w.trigger(EventTime()).min(lambda r: r[2]), lambda rows: values_of(rows)[0]),
    "reduce": (lambda w: w.reduce(lambda a, b: (a[0], 0, a[2] + b[2])), lambda rows: sum(values_of(rows))),
    "fold": (lambda w: w.fold(empty, fold_in), values_of),
    "aggregate": (lambda w: w.aggregate(Everything), values_of),
    "merging": (lambda w: w.aggregate(Merging()), values_of),
    "apply": (lambda w: w.apply(lambda key, span, rows: values_of(rows)), values_of),
    "mean": (lambda w: w.mean(lambda r: r[2]), lambda rows: sum(values_of(rows)) / len(rows)),
}
WINDOWS = [Tumbling(10), Tumbling(10, offset=-3), Sliding(10, every=5), Sliding(9, every=6, offset=2), Session(gap=7), Session(gap=1)]


def options_of(assigner: Any, describe: Describe, lateness: int = 0, *, whole: bool = False) -> dict[str, Any]:
    """What the face makes of it."""
    stream = sage.Environment("described").from_collection(list[Row]())
    windowed: Any = stream.window_all(assigner) if whole else stream.key_by(lambda row: row[0]).window(assigner)
    if lateness:
        windowed = windowed.allowed_lateness(lateness)
    if not isinstance(assigner, Count | Global) and assigner.time == "event":
        windowed = windowed.late_output(LATE)
    described: Any = describe(windowed)
    options: dict[str, Any] = described._env.graph.operators[-1].options
    copied: dict[str, Any] = pickle.loads(dump(options))  # they travel to workers
    return copied


@dataclass
class Oracle:
    """Event time told record by record, windows as lists of their records (F20 to F22)."""

    assigner: Any
    lateness: int
    value: Callable[[list[Row]], Any]
    watermark: int = MIN_WATERMARK
    open: list[list[Any]] = field(default_factory=lambda: list[list[Any]]())
    out: list[tuple[str, int, int, Any, int]] = field(default_factory=lambda: list[tuple[str, int, int, Any, int]]())
    late: list[Row] = field(default_factory=lambda: list[Row]())

    def emit(self, window: list[Any]) -> None:
        key, start, end, rows, _ = window
        self.out.append((key, start, end, self.value(rows), self.watermark))
        window[4] = True

    def advance(self, watermark: int) -> None:
        if watermark <= self.watermark:
            return
        for window in sorted((w for w in self.open if not w[4] and w[2] - 1 <= watermark), key=lambda w: w[2]):
            self.emit(window)
        self.open = [w for w in self.open if w[2] - 1 + self.lateness > watermark]
        self.watermark = watermark

    def add(self, row: Row, watermark: int) -> None:
        self.advance(watermark)
        key, time, _ = row
        if isinstance(self.assigner, Session):
            touched = [w for w in self.open if w[0] == key and w[1] < time + self.assigner.span and time < w[2]]
            start = min([time, *(w[1] for w in touched)])
            end = max([time + self.assigner.span, *(w[2] for w in touched)])
            chosen: list[list[Any]] = [[key, start, end, [r for w in touched for r in w[3]], False]]
            if end - 1 + self.lateness > self.watermark:
                self.open = [w for w in self.open if w not in touched] + chosen
        else:
            size, step, shift = self.assigner.span, self.assigner.step, self.assigner.shift
            first = (time - shift - size) // step
            starts = [shift + step * n for n in range(first, first + size // step + 3)]
            chosen = []
            for start in starts:
                if start <= time < start + size and start + size - 1 + self.lateness > self.watermark:
                    found = [w for w in self.open if w[0] == key and w[1] == start]
                    if not found:
                        found.append([key, start, start + size, [], False])
                        self.open += found
                    chosen += found
        chosen = [w for w in chosen if w[2] - 1 + self.lateness > self.watermark]
        if not chosen:
            self.late.append(row)
        for window in chosen:
            window[3].append(row)
            if window[2] - 1 <= self.watermark:
                self.emit(window)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Row], list[int]]:
    origin = draw(st.sampled_from([0, 0, 0, -10, 1_700_000_000_000, -(2**61), 2**62 - 200]))
    times = draw(st.lists(st.integers(-20, 90), max_size=25))
    delay = draw(st.sampled_from([0, 4, 25, 500]))
    rows: list[Row] = []
    marks: list[int] = []
    top = MIN_WATERMARK
    for number, time in enumerate(times):
        rows.append((draw(st.sampled_from("abc")), origin + time, number))
        marks.append(top)
        top = max(top, origin + time - delay - 1)
    return rows, marks


def ordered(out: list[tuple[str, int, int, Any, int]]) -> list[list[Any]]:
    """Groups of what is due at one time, each sorted: which key comes first is not promised."""
    return [sorted(group, key=repr) for _, group in itertools.groupby(out, key=lambda row: (row[2], row[4]))]


def number_of(value: Any) -> Any:
    """What `reduce` combines are rows; everything else is shown as it is."""
    return value[2] if value.__class__ is tuple else value


async def run_stage(
    harness: Any, options: dict[str, Any], rows: list[Row], marks: list[int], cuts: list[int], crashes: list[bool]
) -> tuple[Any, list[tuple[str, int, int, Any, int]]]:
    task = await harness(WindowStage, kind="window", options=options).open()
    borders = sorted({0, len(rows), *(cut % (len(rows) + 1) for cut in cuts)})
    for number, (start, stop) in enumerate(itertools.pairwise(borders)):
        part = rows[start:stop]
        await task.feed(part, [row[1] for row in part], marks[start:stop])
        if number < len(crashes) and crashes[number]:
            task = await task.restored()
        elif number % 2:
            await task.save()
    await task.advance(MAX_WATERMARK)
    await task.stage.end(task._emit)
    await task.close()
    out: list[tuple[str, int, int, Any, int]] = []
    for result, stamp, mark in task.out:
        assert stamp == result.end - 1
        out.append((result.key, result.start, result.end, number_of(result.value), mark))
    return task, out


@pytest.mark.rule("F19a", "F20", "F21", "F22")
@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(sorted(COMPUTED)),
    st.sampled_from(WINDOWS),
    st.sampled_from([0, 0, 3, 40]),
    histories(),
    st.lists(st.integers(0, 30), max_size=6),
    st.lists(st.booleans(), max_size=6),
)
def test_as_the_batch_oracle_says(
    harness: Any, name: str, assigner: Any, lateness: int, history: tuple[list[Row], list[int]], cuts: list[int], crashes: list[bool]
) -> None:
    rows, marks = history
    describe, value = COMPUTED[name]
    oracle = Oracle(assigner, lateness, value)
    for row, mark in zip(rows, marks, strict=True):
        oracle.add(row, mark)
    oracle.advance(MAX_WATERMARK)
    task, out = asyncio.run(run_stage(harness, options_of(assigner, describe, lateness), rows, marks, cuts, crashes))
    assert ordered(out) == ordered(oracle.out)
    assert [record for record, _, _ in task.aside.get("late", [])] == oracle.late


@pytest.mark.rule("F14", "F21")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["sum", "merging", "general count"]), st.sampled_from(WINDOWS), histories(), st.data())
def test_rescaled_in_the_middle(harness: Any, name: str, assigner: Any, history: tuple[list[Row], list[int]], data: st.DataObject) -> None:
    rows, marks = history
    describe, value = COMPUTED[name]
    options = options_of(assigner, describe, 10)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=2, max_size=2)))

    async def run() -> list[Any]:
        tasks = [await harness(WindowStage, kind="window", options=options).open()]
        out: list[Any] = []
        for stage, (start, stop) in enumerate(itertools.pairwise([0, *cuts, len(rows)])):
            parallelism = (1, 3, 2)[stage]
            if stage:
                storage = tasks[0].storage
                saved = [await task.save() for task in tasks]
                for task in tasks:
                    out += task.out
                    await task.close()
                tasks = [
                    await harness(WindowStage, kind="window", options=options, index=i, parallelism=parallelism).open(saved, storage)
                    for i in range(parallelism)
                ]
            for row, mark in zip(rows[start:stop], marks[start:stop], strict=True):
                for task in tasks:  # watermarks reach every task
                    if mark > MIN_WATERMARK:
                        await task.advance(mark)
                    if task.owns(row[0]):
                        await task.feed([row], [row[1]], [mark])
        for task in tasks:
            await task.advance(MAX_WATERMARK)
            out += task.out
            await task.close()
        return out

    oracle = Oracle(assigner, 10, value)
    for row, mark in zip(rows, marks, strict=True):
        oracle.add(row, mark)
    oracle.advance(MAX_WATERMARK)
    got = [(r.key, r.start, r.end, r.value) for r, _, _ in asyncio.run(run())]
    assert sorted(got, key=repr) == sorted((row[:4] for row in oracle.out), key=repr)


@given(st.integers(1, 5), st.integers(1, 5), st.booleans(), st.lists(st.sampled_from("ab"), max_size=30), st.lists(st.booleans()))
@settings(max_examples=60, deadline=None)
def test_windows_of_so_many_records(harness: Any, size: int, step: int, partial: bool, keys: list[str], crashes: list[bool]) -> None:
    assigner = Count(max(size, step), every=step, partial=partial)
    size = assigner.size

    async def run() -> list[Any]:
        task = await harness(WindowStage, kind="window", options=options_of(assigner, COMPUTED["fold"][0])).open()
        for number, key in enumerate(keys):
            await task.feed([(key, 0, number)])
            if number < len(crashes) and crashes[number]:
                task = await task.restored()
        await task.advance(MAX_WATERMARK)
        await task.close()
        assert all(stamp is None and mark is None for _, stamp, mark in task.out)
        return [tuple(result) for result, _, _ in task.out]

    expected: list[Any] = []
    for key in sorted(set(keys)):
        mine = [number for number, other in enumerate(keys) if other == key]
        for start in range(0, len(mine), step):
            held = mine[start : start + size]
            if len(held) == size or partial:
                expected.append((key, start, start + len(held), held))
    assert sorted(asyncio.run(run())) == sorted(expected)


@pytest.mark.asyncio
async def test_processing_time_closes_windows_without_a_next_record(harness: Any) -> None:
    for assigner, spans in ((Tumbling("1s", time="processing"), [(0, 1000)]), (Session("1s", time="processing"), [(500, 1500)])):
        for name in ("count", "general count"):
            task = await harness(WindowStage, kind="window", options=options_of(assigner, COMPUTED[name][0])).open()
            await task.clock.advance(0.5)
            begun = task.clock.now_ms()
            await task.feed([("a", 0, 1), ("a", 0, 2)])
            assert not await task.ring()
            task = await task.restored()  # what was due while nobody ran comes at once (F37)
            await task.clock.advance(5)
            while await task.ring():
                pass
            ((result, _, _),) = task.out
            base = begun - begun % 1000 if isinstance(assigner, Tumbling) else begun
            assert (result.value, result.start - base) == (2, spans[0][0] if isinstance(assigner, Tumbling) else 0)
            await task.close()


async def triggered(harness: Any, assigner: Any, trigger: Any, rows: list[Row], marks: list[int], *, crash: bool = False) -> list[Any]:
    describe: Describe = lambda w: w.trigger(trigger).apply(lambda key, span, held: values_of(held))
    task = await harness(WindowStage, kind="window", options=options_of(assigner, describe)).open()
    for row, mark in zip(rows, marks, strict=True):
        await task.feed([row], [row[1]], [mark])
        if crash:
            task = await task.restored()
    await task.advance(MAX_WATERMARK)
    await task.close()
    return [result.value for result, _, _ in task.out]


@pytest.mark.asyncio
@pytest.mark.parametrize("crash", [False, True])
async def test_triggers(harness: Any, crash: bool) -> None:
    rows: list[Row] = [("a", time, time) for time in range(0, 10, 2)]
    marks = [MIN_WATERMARK, -1, 1, 3, 5]
    assert await triggered(harness, Tumbling(20), CountTrigger(2), rows, marks, crash=crash) == [[0, 2], [0, 2, 4, 6]]
    assert await triggered(harness, Global(), Purging(CountTrigger(2)), rows, marks, crash=crash) == [[0, 2], [4, 6]]
    assert await triggered(harness, Tumbling(20), Purging(EventTime()), rows, marks, crash=crash) == [[0, 2, 4, 6, 8]]
    assert await triggered(harness, Global(), EventTime(), rows, marks, crash=crash) == [[0, 2, 4, 6, 8]]
    assert await triggered(harness, Tumbling(20), Continuous(4), rows, marks, crash=crash) == [
        [0, 2, 4, 6],  # 4 is due once the watermark is 5: not before the record of 6 has come
        [0, 2, 4, 6, 8],
        [0, 2, 4, 6, 8],
    ]
    assert await triggered(harness, Tumbling(20), ProcessingTime(), rows, marks, crash=crash) == [[0, 2, 4, 6, 8]]


@pytest.mark.asyncio
async def test_a_trigger_by_the_clock(harness: Any) -> None:
    describe: Describe = lambda w: w.trigger(Continuous("1s", time="processing")).count()
    task = await harness(WindowStage, kind="window", options=options_of(Global(), describe)).open()
    for step in range(3):
        await task.feed([("a", 0, step)])
        await task.clock.advance(1.5)
        await task.ring()
    assert [result.value for result, _, _ in task.out] == [1, 2, 3]
    await task.close()


@pytest.mark.asyncio
async def test_the_whole_stream(harness: Any) -> None:
    for name in ("sum", "general count", "apply"):
        options = options_of(Tumbling(10), COMPUTED[name][0], whole=True)
        task = await harness(WindowStage, kind="window", options=options).open()
        await task.feed([("a", 1, 1), ("b", 2, 2)], [1, 2], [MIN_WATERMARK] * 2)
        task = await task.restored()
        await task.advance(9)
        ((result, stamp, mark),) = task.out
        assert (result.key, result.start, result.end, stamp, mark) == (None, 0, 10, 9, MIN_WATERMARK)
        await task.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["sum", "reduce"])
async def test_errors_follow_the_policy(harness: Any, name: str) -> None:
    rows: list[Any] = [("a", 1, 1), ("a", 2, "x"), ("a", 3, 2)]
    options = options_of(Tumbling(10), COMPUTED[name][0])
    task = await harness(WindowStage, kind="window", options=options, on_error="skip").open()
    await task.feed(rows, [1, 2, 3], [MIN_WATERMARK] * 3)
    await task.advance(9)
    assert task.counters.skipped == 1
    assert len(task.out) == 1
    await task.close()
    task = await harness(WindowStage, kind="window", options=options).open()
    with pytest.raises(OperatorError, match="TypeError") as caught:
        await task.feed(rows, [1, 2, 3], [MIN_WATERMARK] * 3)
    assert caught.value.key == "a"
    await task.close()


@pytest.mark.asyncio
async def test_records_without_time_are_refused_by_name(harness: Any) -> None:
    task = await harness(WindowStage, kind="window", options=options_of(Tumbling(10), COMPUTED["sum"][0])).open()
    with pytest.raises(OperatorError, match="assign_timestamps"):
        await task.feed([("a", 1, 1)])
    await task.close()


@pytest.mark.asyncio
async def test_saved_windows_of_another_size_are_refused(harness: Any) -> None:
    task = await harness(WindowStage, kind="window", options=options_of(Tumbling(10), COMPUTED["sum"][0])).open()
    await task.feed([("a", 1, 1)], [1], [MIN_WATERMARK])
    part = await task.save()
    other = harness(WindowStage, kind="window", options=options_of(Tumbling(20), COMPUTED["sum"][0]))
    with pytest.raises(StateMismatch, match=r"size=10.*size=20"):
        await other.open([part], task.storage)
    await task.close()


@pytest.mark.asyncio
async def test_late_records_are_counted(harness: Any) -> None:
    task = await harness(WindowStage, kind="window", options=options_of(Tumbling(10), COMPUTED["sum"][0])).open()
    await task.feed([("a", 1, 1), ("a", 11, 1), ("a", 2, 1), ("a", 12, 1)], [1, 11, 2, 12], [MIN_WATERMARK, 0, 10, 10])
    assert (task.counters.late, task.aside) == (1, {"late": [(("a", 2, 1), 2, 10)]})
    await task.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["sum", "apply", "merging"])
@pytest.mark.parametrize("assigner", [Tumbling(10), Session(gap=5)])
async def test_what_is_over_stays_over_where_only_changes_are_saved(harness: Any, name: str, assigner: Any) -> None:
    task = await harness(WindowStage, kind="window", options=options_of(assigner, COMPUTED[name][0])).open()
    rows = [(f"key{number}", 0 if number < 3 else 100, number) for number in range(300)]
    await task.feed(rows, [row[1] for row in rows], [MIN_WATERMARK] * len(rows))
    whole = sum(ref.size for ref in (await task.save()).files)
    await task.advance(50)
    files = (await task.save()).files
    assert len(files) > 1, "the second snapshot holds only what changed"
    assert files[-1].size < whole / 5
    task = await task.restored()
    await task.advance(MAX_WATERMARK)
    assert sorted(result.key for result, _, _ in task.out) == sorted(row[0] for row in rows)
    await task.close()
