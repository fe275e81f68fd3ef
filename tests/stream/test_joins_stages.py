"""The stages of the joins by themselves: any order of arrival, any batch size, late records, crashes, rescaling; against plain loops."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.batch import Batch
from sage_actor._core.stable_hash import key_group, operator_of_group
from sage_actor.dataflow.graph import Operator
from sage_actor.dataflow.output_tag import OutputTag
from sage_actor.dataflow.settings import JobSettings
from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK
from sage_actor.errors import GraphError, OperatorError
from sage_actor.operators.as_of_join_stage import AsOfJoinStage
from sage_actor.operators.interval_join_stage import IntervalJoinStage
from sage_actor.operators.join_stage import WindowJoinStage
from sage_actor.operators.session_join_stage import SessionJoinStage
from sage_actor.operators.setting import TaskSetting
from sage_actor.operators.timed_join import TimedJoinStage
from sage_actor.ports import current_clock

GROUPS = 8
LATE: OutputTag[Any] = OutputTag("late")

Record = tuple[Any, int, int]
"""(key, time, number): the number tells records apart."""
Entries = list[tuple[Any, Any]]


class TableState:
    """Stands for an operator's state: one attached table, its saved slices as a chain of a base and what changed."""

    def __init__(self, entries: Entries, own: Callable[[Any], bool]) -> None:
        self.entries = entries
        self.own = own
        self.saved: Entries = []

    def attach(self, name: str, table: Any, *, key: Callable[[Any], Any]) -> None:
        self.table, self.key = table, key
        table.load([entry for entry in self.entries if self.own(key(entry[0]))])

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        if full:
            self.saved = []
        return self.table.freeze(full=full)


@dataclass
class Run:
    """One task with what it emits."""

    kind: type[TimedJoinStage]
    options: Mapping[str, Any]
    entries: Entries = field(default_factory=list)
    own: Callable[[Any], bool] = lambda key: True

    async def open(self) -> Run:
        self.out: list[tuple[Any, int, int]] = []
        self.late: list[Any] = []
        self.state = TableState(self.entries, self.own)
        operator = Operator(0, "join", "join", options=dict(self.options))
        self.stage: TimedJoinStage = self.kind([operator], setting(self))
        await self.stage.open()
        return self

    async def emit(self, batch: Batch) -> None:
        assert batch.timestamps is not None and batch.watermarks is not None
        self.out.extend(zip(batch.values, batch.timestamps, batch.watermarks, strict=True))

    async def feed(self, arrivals: Sequence[tuple[int, Record, int]]) -> None:
        """Consecutive records of one side become one batch."""
        start = 0
        while start < len(arrivals):
            stop = start
            while stop < len(arrivals) and arrivals[stop][0] == arrivals[start][0]:
                stop += 1
            part = arrivals[start:stop]
            records = [record for _, record, _ in part]
            batch = Batch(records, keys=[r[0] for r in records], timestamps=[r[1] for r in records], watermarks=[mark for *_, mark in part])
            await (self.stage.process if part[0][0] == 0 else self.stage.process_second)(batch, self.emit)
            start = stop

    async def finish(self) -> None:
        await self.stage.advance(MAX_WATERMARK, self.emit)
        await self.stage.end(self.emit)

    @property
    def pairs(self) -> list[Any]:
        return [value for value, _, _ in self.out]


def setting(run: Run) -> TaskSetting:
    async def aside(operator: int, port: str, batch: Batch) -> None:
        assert port == LATE.port
        run.late.extend(batch.values)

    async def open_state(operator: Operator) -> Any:
        return run.state

    async def nothing(*_: object) -> None:
        return None

    return TaskSetting(
        job="test", index=0, parallelism=1, worker=0, settings=JobSettings(), flat={}, clock=current_clock(), random=random.Random(0),
        aside=aside, flush=nothing, wake=lambda: None, open_state=open_state, advance_behind=nothing, idle_behind=lambda stage: None,
        alarm=lambda stage, seconds: pytest.fail("joins set no alarms"), checkpointing="exactly_once",
    )  # fmt: skip


def arrivals_of(order: Sequence[tuple[int, Any, int]], disorder: int) -> list[tuple[int, Record, int]]:
    """(side, record, watermark before it): each side's watermark is its highest time - disorder - 1, the stage's the lesser."""
    highest = [MIN_WATERMARK, MIN_WATERMARK]
    result: list[tuple[int, Record, int]] = []
    for number, (side, key, time) in enumerate(order):
        mark = min(MIN_WATERMARK if h == MIN_WATERMARK else h - disorder - 1 for h in highest)
        result.append((side, (key, time, number), mark))
        highest[side] = max(highest[side], time)
    return result


keys = st.sampled_from(["a", "b", 1])
spread = st.lists(st.tuples(st.integers(0, 1), keys, st.integers(-12, 30)), max_size=24)


@st.composite
def ordered_arrivals(draw: st.DrawFn) -> list[tuple[int, Record, int]]:
    """Two inputs whose disorder stays within the bound, interleaved at will: nothing is late."""
    disorder = draw(st.integers(0, 5))
    order: list[tuple[int, Any, int]] = []
    clocks = [draw(st.integers(-20, 5)), draw(st.integers(-20, 5))]
    for _ in range(draw(st.integers(0, 24))):
        side = draw(st.integers(0, 1))
        clocks[side] += draw(st.integers(0, 6))
        order.append((side, draw(keys), clocks[side] - draw(st.integers(0, disorder))))
    return arrivals_of(order, disorder)


# -- oracles: nested loops over what was taken -----------------------------------------------------------------------

Oracle = Callable[[Sequence[tuple[int, Record, int]], Mapping[str, Any]], "tuple[Counter[Any], list[Record]]"]


def interval_oracle(arrivals: Sequence[tuple[int, Record, int]], options: Mapping[str, Any]) -> tuple[Counter[Any], list[Record]]:
    taken = [(side, r) for side, r, mark in arrivals if r[1] > mark]
    late = [r for _, r, mark in arrivals if r[1] <= mark]
    left, right = ([r for s, r in taken if s == side] for side in (0, 1))
    lower, upper = options["lower"], options["upper"]
    return Counter(((a, b), max(a[1], b[1])) for a in left for b in right if a[0] == b[0] and a[1] + lower <= b[1] <= a[1] + upper), late


def window_oracle(arrivals: Sequence[tuple[int, Record, int]], options: Mapping[str, Any]) -> tuple[Counter[Any], list[Record]]:
    size, every, offset, how = (options[name] for name in ("size", "every", "offset", "how"))
    windows: dict[tuple[Any, int], tuple[list[Record], list[Record]]] = {}
    late: list[Record] = []
    for side, r, mark in arrivals:
        starts = [s for s in range(r[1] - size + 1, r[1] + 1) if (s - offset) % every == 0]
        open_ones = [s for s in starts if s + size - 1 > mark]
        if not open_ones:
            late.append(r)
        for s in open_ones:
            windows.setdefault((r[0], s), ([], []))[side].append(r)
    return Counter(item for (_, s), sides in windows.items() for item in joined(*sides, how, s + size - 1)), late


def joined(left: list[Record], right: list[Record], how: str, time: int) -> list[Any]:
    pairs: list[Any] = [((a, b), time) for a in left for b in right]
    if not right and how in ("left", "outer"):
        pairs = [((a, None), time) for a in left]
    if not left and how in ("right", "outer"):
        pairs = [((None, b), time) for b in right]
    return pairs


def session_oracle(arrivals: Sequence[tuple[int, Record, int]], options: Mapping[str, Any]) -> tuple[Counter[Any], list[Record]]:
    """Open sessions as lists of records, merged by hand, closed whenever the watermark has passed them."""
    gap, how = options["gap"], options["how"]
    sessions: list[tuple[Any, list[tuple[int, Record]]]] = []
    results: Counter[Any] = Counter()
    late: list[Record] = []

    def close(mark: int) -> None:
        for session in list(sessions):
            last = max(r[1] for _, r in session[1]) + gap - 1
            if last <= mark:
                sessions.remove(session)
                left, right = ([r for s, r in session[1] if s == side] for side in (0, 1))
                results.update(joined(left, right, how, last))

    for side, r, mark in arrivals:
        close(mark)
        near = [s for s in sessions if s[0] == r[0] and any(abs(other[1] - r[1]) < gap for _, other in s[1])]
        if not near and r[1] + gap - 1 <= mark:
            late.append(r)
            continue
        for session in near:
            sessions.remove(session)
        sessions.append((r[0], [(side, r), *(item for session in near for item in session[1])]))
    close(MAX_WATERMARK)
    return results, late


def as_of_oracle(arrivals: Sequence[tuple[int, Record, int]], options: Mapping[str, Any]) -> tuple[Counter[Any], list[Record]]:
    within, how = options["within"], options["how"]
    results: Counter[Any] = Counter()
    late: list[Record] = []
    left: list[Record] = []
    right: list[Record] = []

    def decide(mark: int) -> None:
        for a in sorted((a for a in left if a[1] <= mark), key=lambda a: a[1]):
            left.remove(a)
            known = [b for b in right if b[0] == a[0] and b[1] <= a[1] and (within is None or a[1] - b[1] <= within)]
            best = max(known, key=lambda b: (b[1], b[2]), default=None)
            if best is not None or how == "left":
                results[((a, best), a[1])] += 1

    for side, r, mark in arrivals:
        decide(mark)
        if side == 0:
            (left if r[1] > mark else late).append(r)
        elif r[1] > mark:
            right.append(r)
        else:
            newer = any(b[0] == r[0] and r[1] < b[1] <= mark for b in right)
            useless = within is not None and r[1] + within <= mark
            (late if newer or useless else right).append(r)
    decide(MAX_WATERMARK)
    return results, late


ways = st.sampled_from(["inner", "left", "right", "outer"])
cases: st.SearchStrategy[tuple[type[TimedJoinStage], Oracle, dict[str, Any]]] = st.one_of(
    st.builds(
        lambda a, b: (IntervalJoinStage, interval_oracle, {"lower": min(a, b), "upper": max(a, b)}),
        st.integers(-9, 9), st.integers(-9, 9),
    ),
    st.builds(
        lambda size, every, offset, how: (
            WindowJoinStage, window_oracle, {"size": size, "every": min(every, size), "offset": offset, "how": how}),
        st.integers(1, 12), st.integers(1, 12), st.integers(-5, 5), ways,
    ),
    st.builds(lambda gap, how: (SessionJoinStage, session_oracle, {"gap": gap, "how": how}), st.integers(1, 8), ways),
    st.builds(
        lambda within, how: (AsOfJoinStage, as_of_oracle, {"within": within, "how": how}),
        st.none() | st.integers(0, 9), st.sampled_from(["inner", "left"]),
    ),
)  # fmt: skip


def check(run: Run) -> None:
    """What every join promises of its results, whatever they are."""
    assert all(time > mark for _, time, mark in run.out), "a result behind its own watermark"
    assert all(before <= after for (*_, before), (*_, after) in pairwise(run.out))


@pytest.mark.rule("F18", "F22")
@settings(max_examples=400, deadline=None)
@given(cases, ordered_arrivals() | st.builds(arrivals_of, spread, st.integers(0, 6)), st.lists(st.integers(0, 24), max_size=4))
def test_equals_nested_loops(case: Any, arrivals: list[tuple[int, Record, int]], cuts: list[int]) -> None:
    kind, oracle, options = case

    async def scenario() -> None:
        run = await Run(kind, options | {"late": LATE}).open()
        bounds = [0, *sorted(min(cut, len(arrivals)) for cut in cuts), len(arrivals)]
        for start, stop in pairwise(bounds):
            await run.feed(arrivals[start:stop])
        await run.finish()
        check(run)
        expected, late = oracle(arrivals, options)
        assert Counter((value, time) for value, time, _ in run.out) == expected
        assert run.late == late
        assert run.stage.counters[0].late == len(late)
        assert run.stage.counters[0].records_in == len(arrivals)
        assert run.stage.counters[0].records_out == len(run.out)
        if not (kind is AsOfJoinStage and options["within"] is None):
            assert run.state.table.records == 0, "the end of event time leaves nothing"

    asyncio.run(scenario())


@settings(max_examples=150, deadline=None)
@given(cases, st.builds(arrivals_of, spread, st.integers(0, 6)))
def test_batches_do_not_show(case: Any, arrivals: list[tuple[int, Record, int]]) -> None:
    """Rule F19a: one record at a time gives the same results, in the same order, behind the same watermarks."""
    kind, _, options = case

    async def scenario() -> None:
        whole, single = await Run(kind, options).open(), await Run(kind, options).open()
        await whole.feed(arrivals)
        for arrival in arrivals:
            await single.feed([arrival])
        for run in (whole, single):
            await run.finish()
        assert whole.out == single.out

    asyncio.run(scenario())


@pytest.mark.rule("F22")
@settings(max_examples=300, deadline=None)
@given(
    cases,
    ordered_arrivals() | st.builds(arrivals_of, spread, st.integers(0, 6)),
    st.lists(st.tuples(st.integers(0, 24), st.booleans(), st.integers(1, 3), st.integers(0, 5)), min_size=1, max_size=4),
)
def test_crash_restore_and_rescale(case: Any, arrivals: list[tuple[int, Record, int]], stops: list[tuple[int, bool, int, int]]) -> None:
    """At each stop all tasks are frozen, run on while what was frozen is read, are thrown away and restored at another parallelism."""
    kind, oracle, options = case

    async def scenario() -> None:
        tasks = [await Run(kind, options).open()]
        results: list[tuple[Any, int, int]] = []
        place = 0
        for cut, full, parallelism, ahead in sorted(stops):
            stop = max(place, min(cut, len(arrivals)))
            middle = (place + stop) // 2
            await deal(tasks, arrivals[place:middle])
            for task in tasks:  # an earlier checkpoint: what follows may be a delta on it
                task.state.saved = [entry for part in task.state.freeze(full=True) for entry in part]
            await deal(tasks, arrivals[middle:stop])
            frozen = [task.state.freeze(full=full) for task in tasks]
            for task in tasks:
                results += task.out
                task.out = []
            await deal(tasks, arrivals[stop : stop + ahead])  # lost, and done again after the restore
            for task, parts in zip(tasks, frozen, strict=True):
                for part in parts:
                    assert 0 < len(part) <= 1000
                    task.state.saved += part
            entries = [entry for task in tasks for entry in task.state.saved]
            tasks = [await restored(kind, options, entries, index, parallelism) for index in range(parallelism)]
            for task in tasks:  # a watermark is not restored (F19); here the inputs bring it back at once
                task.stage.now = MIN_WATERMARK if stop == 0 else arrivals[stop - 1][2]
            place = stop
        await deal(tasks, arrivals[place:])
        for task in tasks:
            await task.finish()
            results += task.out
        expected, _ = oracle(arrivals, options)
        assert Counter((value, time) for value, time, _ in results) == expected

    asyncio.run(scenario())


async def restored(kind: type[TimedJoinStage], options: Mapping[str, Any], entries: Entries, index: int, parallelism: int) -> Run:
    return await Run(kind, options, entries, lambda key: operator_of_group(key_group(key, GROUPS), GROUPS, parallelism) == index).open()


async def deal(tasks: list[Run], arrivals: Sequence[tuple[int, Record, int]]) -> None:
    """By key, as the router does; each task sees the watermarks of all."""
    for arrival in arrivals:
        group = key_group(arrival[1][0], GROUPS)
        for index, task in enumerate(tasks):
            if operator_of_group(group, GROUPS, len(tasks)) == index:
                await task.feed([arrival])
            elif arrival[2] > task.stage.now:
                await task.stage.advance(arrival[2], task.emit)


@pytest.mark.parametrize(
    ("kind", "options", "kept"),
    [
        (IntervalJoinStage, {"lower": 0, "upper": 100}, 220),
        (IntervalJoinStage, {"lower": -100, "upper": -50}, 220),
        (WindowJoinStage, {"size": 100, "every": 100, "offset": 0, "how": "outer"}, 220),
        (SessionJoinStage, {"gap": 3, "how": "inner"}, 24),
        (AsOfJoinStage, {"within": None, "how": "inner"}, 40),
        (AsOfJoinStage, {"within": 5, "how": "inner"}, 40),
    ],
)
def test_state_does_not_grow(kind: type[TimedJoinStage], options: dict[str, Any], kept: int) -> None:
    """10,000 keys that come once each and never again; event time moves on by one with each."""

    async def scenario() -> None:
        run = await Run(kind, options).open()
        most = 0
        for start in range(0, 10_000, 10):
            await run.feed([(side, (t, t, 0), start - 1) for side in (0, 1) for t in range(start, start + 10)])
            most = max(most, run.state.table.records)
            if start == 5000:
                list(run.state.freeze(full=True))
        if kind is AsOfJoinStage and options["within"] is None:
            assert run.state.table.records <= 10_000 + kept  # the newest of each key must stay
            return
        assert most <= kept
        assert len(run.state.table) <= kept
        await run.finish()
        assert len(run.state.table) == run.state.table.records == 0

    asyncio.run(scenario())


def test_as_of_keeps_one_right_record_a_key() -> None:
    async def scenario() -> None:
        run = await Run(AsOfJoinStage, {"within": None, "how": "inner"}).open()
        for start in range(0, 1000, 10):
            await run.feed([(1, ("a", t, t), start - 1) for t in range(start, start + 10)])
        assert run.state.table.records <= 20
        await run.stage.advance(999, run.emit)
        assert run.state.table.records == 1

    asyncio.run(scenario())


def test_many_pairs_come_in_pieces() -> None:
    """A record with many partners does not fill one batch, and pairs keep their order."""

    async def scenario() -> None:
        run = await Run(IntervalJoinStage, {"lower": -10_000, "upper": 10_000}).open()
        sizes: list[int] = []

        async def emit(batch: Batch) -> None:
            sizes.append(len(batch))
            await run.emit(batch)

        await run.feed([(0, ("a", t, t), -1) for t in range(5000)])
        records = [("a", 5000, 0), ("a", 5001, 1)]
        await run.stage.process_second(Batch(records, keys=["a", "a"], timestamps=[5000, 5001], watermarks=[-1, -1]), emit)
        assert max(sizes) <= 1024
        assert run.pairs == [(("a", t, t), record) for record in records for t in range(5000)]

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [IntervalJoinStage, WindowJoinStage, SessionJoinStage, AsOfJoinStage])
def test_bad_keys_and_missing_timestamps(kind: type[TimedJoinStage]) -> None:
    options = {"lower": 0, "upper": 5, "size": 5, "every": 5, "offset": 0, "gap": 5, "within": None, "how": "inner"}

    async def scenario() -> None:
        run = await Run(kind, options).open()
        with pytest.raises(GraphError, match="assign_timestamps"):
            await run.stage.process_second(Batch([1], keys=["a"]), run.emit)
        for key in (None, 0.5j, []):
            with pytest.raises(OperatorError, match="'join'"):
                await run.feed([(0, (key, 3, 0), 0)])
        run.stage.operators[0].on_error = "skip"
        await run.feed([(0, ("a", 3, 0), 0), (0, (None, 3, 1), 0), (0, ("a", 4, 2), 0), (1, ("a", 4, 3), 0)])
        await run.finish()
        assert run.stage.counters[0].skipped == 1
        assert ("a", 3, 0) in [left for left, _ in run.pairs] or kind is AsOfJoinStage
        assert (("a", 4, 2), ("a", 4, 3)) in run.pairs

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [IntervalJoinStage, WindowJoinStage, SessionJoinStage, AsOfJoinStage])
def test_far_times(kind: type[TimedJoinStage]) -> None:
    """Times at the ends of the range neither wrap nor hang."""
    options = {"lower": -(2**60), "upper": 2**60, "size": 2**60, "every": 2**60, "offset": 0, "gap": 2**60, "within": 2**60, "how": "inner"}

    async def scenario() -> None:
        run = await Run(kind, options).open()
        times = [-(2**63) + 2, -(2**62), 0, 2**62, 2**63 - 2]
        for time in times:
            await run.feed([(side, ("a", time, side), MIN_WATERMARK if time < -(2**62) else time - 2) for side in (1, 0)])
        await run.finish()
        assert {(("a", time, 0), ("a", time, 1)) for time in times} <= set(run.pairs)

    asyncio.run(scenario())
