"""Windows with any function and any trigger, in Python. What the built-in aggregates do without triggers is done in _core."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from sage_actor._core.stable_hash import stable_hash
from sage_actor.dataflow.triggers import Trigger, TriggerAction
from sage_actor.dataflow.watermarks import MAX_WATERMARK, MIN_WATERMARK
from sage_actor.dataflow.windows import LARGEST_TIMESTAMP, Global, Session, Sliding, TimeSpan, Tumbling, WindowResult
from sage_actor.operators.window_contents import ON_TRIGGER, OVER, TURN, Content, Frozen, freeze_content, thaw_content
from sage_actor.operators.window_values import WindowValues
from sage_actor.state.store import DELETED, Entries

__all__ = ["GeneralWindows", "WindowEngine"]


class WindowEngine(Protocol):
    """What the stage needs of windows: the kernels in _core and the tables here answer to the same calls."""

    index: int
    firing: bool
    watermark: int
    next_due: int

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
        """See `WindowTable.run` in _core/window.pyi."""
        ...

    def advance(self, watermark: int, results: list[Any], times: list[int], befores: list[int]) -> bool:
        """See `WindowTable.advance`."""
        ...

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        """See `Freezable.freeze`."""
        ...

    def load(self, entries: Entries) -> None:
        """See `Freezable.load`."""
        ...

    def restore_watermark(self, watermark: int) -> None:
        """See `WindowTable.restore_watermark`."""
        ...

    def __len__(self) -> int: ...


class View:
    """What a trigger sees of one window (`TriggerContext`)."""

    __slots__ = ("content", "table")

    def __init__(self, table: GeneralWindows, content: Content) -> None:
        self.table = table
        self.content = content

    @property
    def window(self) -> TimeSpan:
        """The window as it is now."""
        return TimeSpan(self.content.start, self.content.end)

    @property
    def watermark(self) -> int:
        """How far its kind of time has come."""
        return self.table.watermark

    @property
    def now_ms(self) -> int:
        """The clock's time."""
        return self.table.now_ms()

    @property
    def records(self) -> int:
        """Records in the window."""
        return self.content.records

    @property
    def memory(self) -> dict[str, Any]:
        """The trigger's notes."""
        return self.content.memory

    def at_event_time(self, timestamp: int) -> None:
        """Ask for a call."""
        self.table.ask(self.content, timestamp)

    def at_processing_time(self, timestamp: int) -> None:
        """Ask for a call."""
        self.table.ask_clock(self.content, timestamp)


class GeneralWindows:
    """All open windows of one operator in one task: a `WindowEngine`, with times of the clock in addition.

    Each window of each key has an accumulator of its own; overlapping windows share nothing.
    """

    def __init__(
        self,
        assigner: Tumbling | Sliding | Session | Global,
        values: WindowValues,
        trigger: Trigger,
        *,
        lateness: int,
        whole: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self.assigner = assigner
        self.values = values
        self.trigger = trigger
        self.lateness = lateness
        self.whole = whole
        self.now_ms = now_ms
        self.index = -1
        self.firing = False
        self.watermark = MIN_WATERMARK
        self.next_due = MAX_WATERMARK
        self.next_alarm: int | None = None
        self.open: dict[Any, dict[int, Content]] = {}
        self.due: list[tuple[int, int, int, Content]] = []
        self.alarms: list[tuple[int, int, Content]] = []
        self.serials = itertools.count()
        self.dirty: dict[Content, None] = {}
        self.frozen: Frozen[Content] | None = None
        self.freezes = 0
        self.last_serial: int | None = None
        self.left = 0
        self.removed: dict[tuple[Any, int], None] = {}
        self.tracking = False
        self.results: list[Any] = []
        self.times: list[int] = []
        self.befores: list[int] = []
        self.before = MIN_WATERMARK

    def __len__(self) -> int:
        return sum(map(len, self.open.values()))

    # -- records ---------------------------------------------------------------------------------------------------

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
        """As the kernels do it."""
        self.results, self.times, self.befores = results, times, befores
        self.left = TURN
        for index in range(start, len(timestamps)):
            self.index = index
            if not self._advance(watermarks[index]):
                return index
            time = timestamps[index]
            if not -LARGEST_TIMESTAMP <= time <= LARGEST_TIMESTAMP:
                raise ValueError(f"the timestamp of a windowed record lies between -2**62 and 2**62, and {time!r} does not")
            key = "" if keys is None else keys[index]
            if not self._take(key, None if values is None else values[index], time):
                late.append(index)
        return len(timestamps)

    def _take(self, key: Any, value: Any, time: int) -> bool:
        windows = self.open.get(key)
        if windows is None:
            stable_hash(key)  # refuses what is no key
            windows = {}
        self.before = self.watermark
        if isinstance(self.assigner, Session):
            contents = self._sessions(key, windows, time)
        else:
            spans = [span for span in self.assigner.windows_of(time) if span.last + self.lateness > self.watermark]
            contents = [windows.get(span.start) or self._new(key, span.start, span.end) for span in spans]
        if not contents:
            return False
        for content in contents:
            self._keep_frozen(content)
        # First all that can fail, then all that shows.
        grown = [self.values.add(content.accumulator, value) if content.records else self.values.begin(value) for content in contents]
        for content, accumulator in zip(contents, grown, strict=True):
            content.accumulator = accumulator
            content.records += 1
            content.latest = max(content.latest, time)
            if isinstance(self.assigner, Session):
                content.start, content.end = min(content.start, time), max(content.end, time + self.assigner.span)
            self._keep(content)
            self._act(content, self.trigger.on_record(value, time, View(self, content)))
        if self.next_due <= self.watermark:  # what its trigger has asked for just now
            self.firing, self.left = True, self.left + TURN
            while not self._fire_due(self.watermark):
                self.left += TURN
            self.firing = False
        return True

    def _sessions(self, key: Any, windows: dict[int, Content], time: int) -> list[Content]:
        """The session of a record: sessions merge before it is judged late (F22)."""
        assert isinstance(self.assigner, Session)
        end = time + self.assigner.span
        touched = sorted((c for c in windows.values() if c.start < end and time < c.end), key=lambda content: content.start)
        if not touched:
            return [] if end - 1 + self.lateness <= self.watermark else [self._new(key, time, end)]
        first = touched[0]
        if len(touched) > 1:
            for content in touched:
                self._keep_frozen(content)
            held = [content for content in touched if content.records]
            accumulator = self.values.merge([content.accumulator for content in held]) if held else None
            memories = [content.memory for content in touched]
            for content in touched[1:]:
                self._drop(content)
            first.start = min(content.start for content in touched)
            first.end = max(content.end for content in touched)
            first.accumulator = accumulator
            first.records = sum(content.records for content in touched)
            first.latest = max(content.latest for content in touched)
            first.memory, first.timers, first.alarms = {}, set(), set()
            self._keep(first)
            self.trigger.merge(memories, View(self, first))
        return [first]

    def _new(self, key: Any, start: int, end: int) -> Content:
        content = Content(key, start, start, end)
        content.freezes = self.freezes
        return content

    def _keep_frozen(self, content: Content) -> None:
        """It is about to change: a snapshot under way has it as it is now."""
        if self.frozen is not None:
            self.frozen.keep(content)

    def _keep(self, content: Content) -> None:
        if not content.live:
            content.live = True
            self.open.setdefault(content.key, {})[content.id] = content
            if content.end != MAX_WATERMARK:
                self._push(content.end - 1 + self.lateness, OVER, content)
        self._changed(content)

    def _changed(self, content: Content) -> None:
        if self.tracking:
            self.dirty[content] = None

    def _drop(self, content: Content) -> None:
        self._keep_frozen(content)
        content.live = False
        windows = self.open[content.key]
        del windows[content.id]
        if not windows:
            del self.open[content.key]
        self.dirty.pop(content, None)
        if content.saved:
            self.removed[content.key, content.id] = None

    # -- times -----------------------------------------------------------------------------------------------------

    def _push(self, time: int, what: int, content: Content) -> None:
        heapq.heappush(self.due, (time, what, next(self.serials), content))
        self.next_due = min(self.next_due, time)

    def ask(self, content: Content, time: int) -> None:
        """The trigger wants to be called when the watermark has come so far."""
        if time not in content.timers:
            self._keep_frozen(content)
            content.timers.add(time)
            self._push(time, ON_TRIGGER, content)

    def ask_clock(self, content: Content, time: int) -> None:
        """The trigger wants to be called when the clock has come so far."""
        if time not in content.alarms:
            self._keep_frozen(content)
            content.alarms.add(time)
            heapq.heappush(self.alarms, (time, next(self.serials), content))
            self.next_alarm = self.alarms[0][0]

    def advance(self, watermark: int, results: list[Any], times: list[int], befores: list[int]) -> bool:
        """As the kernels do it; at the end of all input, times of the clock come as well."""
        self.results, self.times, self.befores = results, times, befores
        self.left = TURN
        return self._advance(watermark)

    def _advance(self, watermark: int) -> bool:
        """Fire what is due; False if the turn is over first: the next call goes on."""
        if watermark <= self.watermark and not self.firing:
            return True
        if not self.firing:
            self.firing = True
            self.before = self.watermark
        if watermark == MAX_WATERMARK and not self._fire_clock(MAX_WATERMARK):
            return False
        if not self._fire_due(watermark):
            return False
        self.watermark = max(self.watermark, watermark)
        self.firing = False
        self.last_serial = None
        return True

    def _fire_due(self, watermark: int) -> bool:
        while self.due and self.due[0][0] <= watermark:
            if self.left <= 0:
                return False
            self.left -= 1
            time, what, _, content = heapq.heappop(self.due)
            self.watermark = max(self.watermark, time)
            if not content.live:
                continue
            if what == OVER:
                over = content.end - 1 + self.lateness
                if over > time:
                    self._push(over, OVER, content)  # the session has grown
                else:
                    self._drop(content)
            elif time in content.timers:
                self._keep_frozen(content)
                content.timers.discard(time)
                self._changed(content)
                self._act(content, self.trigger.on_event_time(time, View(self, content)))
        self.next_due = self.due[0][0] if self.due else MAX_WATERMARK
        return True

    def on_clock(self, now: int, results: list[Any], times: list[int], befores: list[int]) -> bool:
        """The clock has come so far; False as `advance` has it."""
        self.results, self.times, self.befores = results, times, befores
        self.left = TURN
        if not self.firing:
            self.firing = True
            self.before = self.watermark
        if not self._fire_clock(now):
            return False
        self.firing = False
        self.last_serial = None
        return True

    def _fire_clock(self, now: int) -> bool:
        if self.last_serial is None:
            self.last_serial = next(self.serials)
        # What is asked for meanwhile comes in the same pass if it is due; at the end of time, nothing new is.
        while self.alarms and self.alarms[0][0] <= now and (now < MAX_WATERMARK or self.alarms[0][1] < self.last_serial):
            if self.left <= 0:
                return False
            self.left -= 1
            time, _, content = heapq.heappop(self.alarms)
            if content.live and time in content.alarms:
                self._keep_frozen(content)
                content.alarms.discard(time)
                self._changed(content)
                self._act(content, self.trigger.on_processing_time(time, View(self, content)))
        self.next_alarm = self.alarms[0][0] if self.alarms else None
        return True

    def _act(self, content: Content, action: TriggerAction) -> None:
        if TriggerAction.FIRE in action and content.records:
            span = TimeSpan(content.start, content.end)
            key = None if self.whole else content.key
            value = self.values.result(content.accumulator, key, span)
            self.results.append(WindowResult(key, content.start, content.end, value))
            self.times.append(content.latest if isinstance(self.assigner, Global) else span.last)
            self.befores.append(self.before)
        if TriggerAction.PURGE in action:
            content.accumulator, content.records = None, 0
            self._changed(content)
            if isinstance(self.assigner, Global) and not (content.memory or content.timers or content.alarms):
                self._drop(content)

    # -- snapshots -------------------------------------------------------------------------------------------------

    def freeze(self, *, full: bool) -> Iterator[Entries]:
        """See `Frozen`."""
        if self.frozen is not None:
            self.frozen.replace()
        whole = full or not self.tracking
        self.freezes += 1
        everything = (list(windows.values()) for windows in list(self.open.values())) if whole else None
        dirty, self.dirty = self.dirty, {}
        removed, self.removed = self.removed, {}
        self.tracking = True
        self.frozen = Frozen(self.freezes, () if whole else removed, everything, dirty, self._frozen)
        return self.frozen

    def _frozen(self, content: Content) -> tuple[Any, Any]:
        return freeze_content(content, self.values.keeps_records)

    def load(self, entries: Entries) -> None:
        """Timers follow from the windows."""
        for (key, number), value in entries:
            old = self.open.get(key, {}).get(number)
            if old is not None:
                self._drop(old)
            if value is DELETED:
                continue
            content = thaw_content(key, number, value)
            timers, alarms = content.timers, content.alarms
            content.timers, content.alarms = set(), set()
            self._keep(content)
            for time in sorted(timers):
                self.ask(content, time)
            for time in sorted(alarms):
                self.ask_clock(content, time)
        self.removed.clear()

    def restore_watermark(self, watermark: int) -> None:
        """As the kernels do it."""
        self.watermark = max(self.watermark, watermark)
