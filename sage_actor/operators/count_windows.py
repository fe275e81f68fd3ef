"""Windows of so many records of a key, in order of arrival. Time has no part in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sage_actor._core.stable_hash import stable_hash
from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK
from sage_actor.dataflow.windows import Count, TimeSpan, WindowResult
from sage_actor.operators.window_contents import TURN, Frozen
from sage_actor.operators.window_values import WindowValues
from sage_actor.state.pickling import dump, is_unchanging, load
from sage_actor.state.store import DELETED, Entries

__all__ = ["CountWindows"]


class Line:
    """The records of one key: how many there were, and the open windows, the oldest first."""

    __slots__ = ("freezes", "key", "latest", "seen", "windows")

    def __init__(self, key: Any, freezes: int) -> None:
        self.key = key
        self.freezes = freezes
        self.seen = 0
        self.latest = 0
        self.windows: list[tuple[int, Any]] = []


class CountWindows:
    """A `WindowEngine`. A key is remembered as long as there is state for it at all: its count goes on from where it was."""

    def __init__(self, assigner: Count, values: WindowValues, *, whole: bool) -> None:
        self.assigner = assigner
        self.values = values
        self.whole = whole
        self.index = -1
        self.firing = False
        self.watermark = MIN_WATERMARK
        self.next_due = MAX_WATERMARK
        self.lines: dict[Any, Line] = {}
        self.dirty: dict[Line, None] = {}
        self.frozen: Frozen[Line] | None = None
        self.freezes = 0
        self.ending: Iterator[Line] | None = None
        self.tracking = False

    def __len__(self) -> int:
        return len(self.lines)

    def run(
        self,
        keys: list[Any] | None,
        values: list[Any] | None,
        timestamps: list[int],
        watermarks: list[int],
        start: int,
        results: list[Any],
        times: list[int],
        befores: list[int],
        late: list[int],
    ) -> int:
        """As the kernels do it; results carry the time of the record that completes them, and none is late."""
        for index in range(start, len(timestamps)):
            self.index = index
            key = "" if keys is None else keys[index]
            line = self.lines.get(key)
            if line is None:
                stable_hash(key)  # refuses what is no key
                line = Line(key, self.freezes)
            elif self.frozen is not None:
                self.frozen.keep(line)
            for result in self._take(key, line, None if values is None else values[index]):
                results.append(result)
                times.append(timestamps[index])
                befores.append(watermarks[index])
            self.lines[key] = line
            line.latest = timestamps[index]
            if self.tracking:
                self.dirty[line] = None
        return len(timestamps)

    def _take(self, key: Any, line: Line, value: Any) -> list[WindowResult[Any, Any]]:
        windows = line.windows
        if line.seen % self.assigner.step == 0:
            windows = [*windows, (line.seen, None)]
        grown = [
            (start, self.values.begin(value) if start == line.seen else self.values.add(accumulator, value))
            for start, accumulator in windows
        ]
        done: list[WindowResult[Any, Any]] = []
        if grown and grown[0][0] + self.assigner.size == line.seen + 1:
            start, accumulator = grown.pop(0)
            done.append(self._result(key, start, line.seen + 1, accumulator))
        line.windows = grown
        line.seen += 1
        return done

    def _result(self, key: Any, start: int, end: int, accumulator: Any) -> WindowResult[Any, Any]:
        shown = None if self.whole else key
        return WindowResult(shown, start, end, self.values.result(accumulator, shown, TimeSpan(start, end)))

    def advance(self, watermark: int, results: list[Any], times: list[int], befores: list[int]) -> bool:
        """Nothing, until the input has ended: then incomplete windows give results if that was asked for."""
        if watermark == MAX_WATERMARK and self.assigner.partial and self.watermark < MAX_WATERMARK:
            self.firing = True
            left = TURN
            if self.ending is None:
                self.ending = iter(self.lines.values())
            for line in self.ending:
                if self.frozen is not None:
                    self.frozen.keep(line)
                for start, accumulator in line.windows:
                    results.append(self._result(line.key, start, line.seen, accumulator))
                    times.append(line.latest)
                    befores.append(self.watermark)
                line.windows = []
                if self.tracking:
                    self.dirty[line] = None
                left -= 1
                if not left:
                    return False
            self.firing = False
            self.ending = None
        self.watermark = max(self.watermark, watermark)
        return True

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        """See `Frozen`."""
        if self.frozen is not None:
            self.frozen.replace()
        whole = full or not self.tracking
        self.freezes += 1
        dirty, self.dirty = self.dirty, {}
        self.tracking = True
        self.frozen = Frozen(self.freezes, (), [list(self.lines.values())] if whole else None, dirty, self._saved)
        return self.frozen

    def _saved(self, line: Line) -> tuple[Any, Any]:
        return (line.key, 0), self._frozen(line)

    def _frozen(self, line: Line) -> tuple[int, int, bool, Any]:
        windows = tuple(line.windows)
        if self.values.keeps_records:
            windows = tuple((start, accumulator[:]) for start, accumulator in windows)
        elif not is_unchanging(windows):
            return line.seen, line.latest, True, dump(windows)
        return line.seen, line.latest, False, windows

    def load(self, entries: Entries) -> None:
        """Later entries win."""
        for (key, _), value in entries:
            if value is DELETED:
                self.lines.pop(key, None)
                continue
            line = self.lines[key] = Line(key, self.freezes)
            line.seen, line.latest, pickled, windows = value
            line.windows = list(load(windows) if pickled else windows)

    def restore_watermark(self, watermark: int) -> None:
        """As the kernels do it."""
        self.watermark = max(self.watermark, watermark)
