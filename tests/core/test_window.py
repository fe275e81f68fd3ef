"""The window kernels against a plain-Python model: disorder, lateness, merging sessions, far times, snapshots at every point."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_actor._core.pane_windows import PaneWindows
from sage_actor._core.session_windows import SessionWindows
from sage_actor._core.window import WindowTable
from sage_actor.dataflow.windows import Sliding, WindowResult
from sage_actor.errors import SageError, UnstableKey

LEAST, MOST = -(2**63), 2**63 - 1
GONE = object()
Result = tuple[Any, int, int, Any]
KINDS = ("count", "sum", "min", "max")


def value_of(kind: str, values: list[Any]) -> Any:
    functions: dict[str, Any] = {"count": len, "sum": sum, "min": min, "max": max}
    return functions[kind](values)


@dataclass
class Model:
    """The rules (F20 to F22), one record at a time, over lists of everything."""

    kind: str
    lateness: int
    size: int = 0
    every: int = 0
    offset: int = 0
    gap: int = 0
    watermark: int = LEAST
    open: dict[Any, list[list[Any]]] = field(default_factory=lambda: dict[Any, list[list[Any]]]())
    out: list[tuple[Result, int]] = field(default_factory=lambda: list[tuple[Result, int]]())
    late: list[int] = field(default_factory=lambda: list[int]())

    def advance(self, watermark: int) -> None:
        if watermark <= self.watermark:
            return
        due = [(w, key) for key, windows in self.open.items() for w in windows if not w[3] and w[1] - 1 <= watermark]
        for window, key in sorted(due, key=lambda pair: pair[0][1]):
            window[3] = True
            self.out.append(((key, window[0], window[1], value_of(self.kind, window[2])), self.watermark))
        for key, windows in self.open.items():
            self.open[key] = [w for w in windows if w[1] - 1 + self.lateness > watermark]
        self.watermark = watermark

    def add(self, index: int, key: Any, value: Any, time: int, watermark: int) -> None:
        self.advance(watermark)
        windows = self.open.setdefault(key, [])
        if self.gap:
            touched = [w for w in windows if w[0] < time + self.gap and time < w[1]]
            start, end = min([time, *(w[0] for w in touched)]), max([time + self.gap, *(w[1] for w in touched)])
            if end - 1 + self.lateness <= self.watermark:
                self.late.append(index)
                return
            held: list[list[Any]] = [w for w in windows if w not in touched]
            mine: list[Any] = list[Any]([start, end, [v for w in touched for v in w[2]] + [value], False])
            self.open[key] = [*held, mine]
            chosen: list[list[Any]] = [mine]
        else:
            newest = time - (time - self.offset) % self.every
            starts = [s for s in range(newest, newest - self.size, -self.every) if s <= time < s + self.size]
            starts = [s for s in starts if s + self.size - 1 + self.lateness > self.watermark]
            if not starts:
                self.late.append(index)
                return
            chosen = []
            for start in sorted(starts):
                mine = next((w for w in windows if w[0] == start), list[Any]([start, start + self.size, [], False]))
                if not mine[2]:
                    windows.append(mine)
                mine[2].append(value)
                chosen.append(mine)
        for window in chosen:
            if window[1] - 1 <= self.watermark:
                window[3] = True
                self.out.append(((key, window[0], window[1], value_of(self.kind, window[2])), self.watermark))


@st.composite
def inputs(draw: st.DrawFn) -> tuple[list[Any], list[int], list[int]]:
    origin = draw(st.sampled_from([0, 0, -7, 10**15, -(2**61), 2**62 - 500]))
    stamps = [origin + t for t in draw(st.lists(st.integers(-40, 120), max_size=40))]
    keys = draw(st.lists(st.sampled_from(["a", "b", 1, (1, "x")]), min_size=len(stamps), max_size=len(stamps)))
    delay = draw(st.sampled_from([0, 5, 30, 1000]))
    marks: list[int] = []
    top = LEAST
    for stamp in stamps:
        marks.append(top)
        top = max(top, stamp - delay - 1)
    return keys, stamps, marks


@dataclass
class Run:
    """One table, fed in pieces, optionally frozen and restored between them."""

    table: WindowTable
    results: list[Any] = field(default_factory=lambda: list[Any]())
    times: list[int] = field(default_factory=lambda: list[int]())
    befores: list[int] = field(default_factory=lambda: list[int]())
    late: list[int] = field(default_factory=lambda: list[int]())

    def feed(self, keys: list[Any], values: list[Any], stamps: list[int], marks: list[int], base: int) -> None:
        late: list[int] = []
        start = 0
        while start < len(stamps):
            start = self.table.run(keys, values, stamps, marks, start, self.results, self.times, self.befores, late)
        self.late += [base + index for index in late]

    def advance(self, watermark: int) -> None:
        while not self.table.advance(watermark, self.results, self.times, self.befores):
            pass


def grouped(results: list[Any]) -> list[list[Any]]:
    """Results in the order given, those of one moment and one end in any order."""
    groups: list[list[Any]] = []
    last = None
    for (key, start, end, value), before in results:
        if (end, before) != last:
            groups.append([])
            last = (end, before)
        groups[-1].append((str(key), start, end, value, before))
    return [sorted(group) for group in groups]


def sessions(kind: Any, lateness: int, gap: int) -> SessionWindows:
    return SessionWindows(kind, gap, lateness=lateness, result_type=WindowResult, deleted=GONE)


def panes(kind: Any, lateness: int, size: int, every: int, offset: int) -> PaneWindows:
    return PaneWindows(kind, size, every, offset, lateness=lateness, result_type=WindowResult, deleted=GONE)


shapes = st.one_of(
    st.tuples(st.just("pane"), st.sampled_from([(10, 10, 0), (10, 10, 3), (10, 5, 0), (9, 6, 2), (20, 3, 1), (1, 1, 0), (7, 5, 4)])),
    st.tuples(st.just("session"), st.sampled_from([1, 5, 12])),
)


@pytest.mark.rule("F19a", "F20", "F21", "F22")
@settings(max_examples=300, deadline=None)
@given(shapes, inputs(), st.sampled_from(KINDS), st.sampled_from([0, 0, 1, 15, 60]), st.lists(st.integers(0, 40)), st.booleans(), st.data())
def test_like_the_model(
    shape: Any, given_input: Any, kind: Any, lateness: int, cuts: list[int], restoring: bool, data: st.DataObject
) -> None:
    keys, stamps, marks = given_input
    values = data.draw(st.lists(st.integers(-9, 9), min_size=len(keys), max_size=len(keys)))
    form, size = shape

    def fresh() -> WindowTable:
        return sessions(kind, lateness, size) if form == "session" else panes(kind, lateness, *size)

    model = Model(kind, lateness, gap=size) if form == "session" else Model(kind, lateness, *size)
    for index, (key, value, stamp, mark) in enumerate(zip(keys, values, stamps, marks, strict=True)):
        model.add(index, key, value, stamp, mark)
    model.advance(MOST)

    run = Run(fresh())
    saved: list[Any] = []
    borders = sorted({0, len(keys), *(cut for cut in cuts if cut < len(keys))})
    for start, stop in itertools.pairwise(borders):
        part = slice(start, stop)
        run.feed(keys[part], values[part], stamps[part], marks[part], start)
        if restoring:
            for entries in run.table.freeze(full=not saved):
                saved += entries
            if data.draw(st.booleans()):
                old, run.table = run.table, fresh()
                run.table.restore_watermark(old.watermark)
                run.table.load(saved)
                assert len(run.table) == len(old)
                saved = [entry for entries in run.table.freeze(full=True) for entry in entries]
    run.advance(MOST)
    assert grouped(list(zip(run.results, run.befores, strict=True))) == grouped(model.out)
    assert run.times == [result.end - 1 for result in run.results]
    assert run.late == model.late
    assert len(run.table) == 0


@given(st.sampled_from([(10, 5, 0), (9, 6, 2), (20, 3, 1), (7, 7, 6)]), st.integers(-100, 100), st.sampled_from([0, -(2**61), 10**14]))
def test_the_assigner_and_the_panes_agree(shape: tuple[int, int, int], stamp: int, origin: int) -> None:
    table, run = panes("count", 0, *shape), Run(panes("count", 0, *shape))
    run.table = table
    run.feed(["k"], [None], [origin + stamp], [LEAST], 0)
    run.advance(MOST)
    assigned = Sliding(shape[0], every=shape[1], offset=shape[2]).windows_of(origin + stamp)
    assert [(r.start, r.end) for r in run.results] == [tuple(span) for span in assigned]


def test_values_that_are_no_small_numbers() -> None:
    cases: list[tuple[Any, list[Any], Any]] = [
        ("sum", [2**63 - 1, 1, -5], 2**63 - 5),
        ("sum", [1, 0.5], 1.5),
        ("sum", [0.5, 2**70], 0.5 + 2**70),
        ("sum", ["x", "y"], "xy"),
        ("sum", [True, True], 2),
        ("min", [3, 2.5, 2**70], 2.5),
        ("max", [1.5, 2**70, 2], 2**70),
        ("max", ["b", "c", "a"], "c"),
        ("min", [(2, 1), (1, 9)], (1, 9)),
    ]
    for kind, values, expected in cases:
        for table in (panes(kind, 0, 10, 10, 0), panes(kind, 0, 10, 1, 0), sessions(kind, 0, 5)):
            run = Run(table)
            run.feed(["k"] * len(values), values, [1] * len(values), [LEAST] * len(values), 0)
            run.advance(MOST)
            assert run.results[0].value == expected, (kind, values)
            assert type(run.results[0].value) is type(expected)


def test_a_failing_record_is_left_out_and_named() -> None:
    table = panes("sum", 0, 10, 10, 0)
    run = Run(table)
    values = [1, "x", 2]
    with pytest.raises(TypeError):
        run.feed(["k"] * 3, values, [1, 2, 3], [LEAST] * 3, 0)
    assert (table.index, table.firing) == (1, False)
    table.run(["k"] * 3, values, [1, 2, 3], [LEAST] * 3, 2, run.results, run.times, run.befores, run.late)
    run.advance(MOST)
    assert run.results == [("k", 0, 10, 3)]


@pytest.mark.parametrize(("key", "stamp", "error"), [([], 1, UnstableKey), (None, 1, UnstableKey), ("k", 2**62 + 1, ValueError)])
def test_what_is_no_key_or_no_time_is_refused(key: Any, stamp: int, error: type[Exception]) -> None:
    for table in (panes("count", 0, 10, 5, 0), sessions("count", 0, 5)):
        with pytest.raises(error):
            Run(table).feed([key], [None], [stamp], [LEAST], 0)
        assert (table.index, len(table)) == (0, 0)


def test_code_of_a_record_cannot_reach_the_table() -> None:
    table = panes("sum", 0, 10, 10, 0)

    class Meddling:
        def __radd__(self, other: object) -> int:
            table.load([])
            return 0

    with pytest.raises(SageError, match="inside"):
        Run(table).feed(["k", "k"], [1, Meddling()], [1, 1], [LEAST] * 2, 0)


def test_keys_that_are_over_are_forgotten() -> None:
    for table in (panes("count", 0, 10, 10, 0), sessions("count", 0, 5)):
        run = Run(table)
        for turn in range(100):
            keys = [f"key {turn} {i}" for i in range(100)]
            run.feed(keys, [None] * 100, [turn * 100] * 100, [turn * 100 - 1] * 100, 0)
            for _ in table.freeze(full=False):
                pass
        assert len(run.results) == 9900
        assert table.keys_known() < 2000


def test_a_freeze_shows_the_content_as_of_its_call_and_then_only_what_changed() -> None:
    table = panes("count", 0, 10, 10, 0)
    run = Run(table)
    run.feed([f"k{i}" for i in range(2500)], [None] * 2500, [1] * 2500, [LEAST] * 2500, 0)
    frozen = table.freeze(full=True)
    run.feed(["k0"], [None], [2], [LEAST], 0)
    slices = list(frozen)
    assert [len(part) for part in slices] == [1000, 1000, 500]
    assert dict(entry for part in slices for entry in part)["k0", 0] == 1
    assert list(table.freeze(full=False)) == [[(("k0", 0), 2)]]
    assert list(table.freeze(full=False)) == []
    run.feed(["new"], [None], [15], [9], 0)
    removed = dict(entry for part in table.freeze(full=False) for entry in part)
    assert len(removed) == 2501
    assert removed["k1", 0] is GONE
    assert removed["new", 1] == 1


def test_one_dense_window_and_no_record_at_all() -> None:
    for table in (panes("sum", 0, 10, 10, 0), sessions("sum", 0, 5)):
        run = Run(table)
        run.feed([], [], [], [], 0)
        run.advance(5)
        run.advance(MOST)
        assert (run.results, table.watermark) == ([], MOST)


def test_whole_streams_have_no_key() -> None:
    for table in (
        PaneWindows("sum", 10, 10, 0, whole=True, result_type=WindowResult, deleted=GONE),
        SessionWindows("sum", 5, whole=True, result_type=WindowResult, deleted=GONE),
    ):
        results: list[Any] = []
        table.run(None, [1, 2], [1, 2], [LEAST, LEAST], 0, results, [], [], [])
        table.advance(MOST, results, [], [])
        assert [(r.key, r.value) for r in results] == [(None, 3)]


def test_what_was_removed_is_named_rightly_after_keys_have_been_forgotten() -> None:
    for table in (panes("sum", 0, 10, 10, 0), sessions("sum", 0, 5)):
        run = Run(table)
        passing, saved = [f"passing{number}" for number in range(1500)], [f"saved{number}" for number in range(100)]
        run.feed([*passing, *saved], [1] * 1600, [1] * 1500 + [15] * 100, [LEAST] * 1500 + [9] * 100, 0)
        first = {key for part in table.freeze(full=True) for key, _ in part}
        assert {key for key, _ in first} == set(saved)
        run.advance(100)
        run.feed(["new"], [1], [200], [100], 0)
        assert table.keys_known() < 200
        changes = dict(entry for part in table.freeze(full=False) for entry in part)
        assert {key for key, value in changes.items() if value is GONE} == first
        assert len(changes) == 101
