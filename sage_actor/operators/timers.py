"""Timers of keyed operators: set for a key and an instant of event or processing time, saved with the state (rules F35 to F37)."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from sage_actor._core.stable_hash import key_group
from sage_actor.errors import StateError
from sage_actor.state.memory_table import MemoryTable

if TYPE_CHECKING:
    from sage_actor.operators.stages import Stage
    from sage_actor.ports import Cancellable
    from sage_actor.state.operator_state import OperatorState

__all__ = ["NEVER", "KeyTimers", "Timer", "TimerService"]

NEVER: Final = 2**63
"""Later than every watermark: no timer waits."""
EVENT: Final = 0
PROCESSING: Final = 1
DOMAINS: Final = ("event", "processing")
MANY: Final = 64  # called-off timers worth sweeping out of a queue
LONGEST_ALARM: Final = 60.0
"""Seconds. A wall clock that jumps ahead does not make alarms ring earlier, so it is looked at again after at most this time."""

Entry = tuple[Any, str, int, int]
"""(key, namespace, time, domain): what makes a timer unique."""
Queued = tuple[int, int, int, str, Any]
"""(time, key group, number, namespace, key): the order of firing; number differs within a key group, so nothing behind it is compared."""


class Timer(NamedTuple):
    """One timer that is due, and is set no more."""

    key: Any
    time: int
    namespace: str
    domain: Literal["event", "processing"]

    def __repr__(self) -> str:
        where = f" in namespace {self.namespace!r}" if self.namespace else ""
        return f"<{self.domain}-time timer at {self.time}{where}>"


class TimerService:
    """The timers of one operator in one task. Serves whatever stage has keyed state.

    The stage asks `next_event` (cheap) before each record, takes what is due with `pop_event` until it answers None, and calls its
    function with the key set; a timer that a callback sets and that is due already is so taken in the same pass. When the stage's
    ``alarm`` is called it does the same with `pop_processing`, and then calls `arm`.

    Timers are unique per key, namespace, time and domain, and come in ascending time; at the same time by key group, then as
    they were set. Creating the service attaches its table to the state, which brings back saved timers; those of processing
    time that are overdue by then ring at once. Processing time is the wall clock: if it is set back, timers wait until it gets there
    again.

    Attributes:
        next_event: no timer of event time is due below it.
        next_processing: no timer of processing time is due below it.
        key: the key in work, for which `KeyTimers` sets timers.
        event_time: whether the stream has event time; without it no event timer can be set.
    """

    def __init__(self, stage: Stage, state: OperatorState) -> None:
        self.stage = stage
        self.clock = stage.setting.clock
        self.groups = state.groups
        self.key: Any = None
        self.event_time = True
        self.next_event: int = NEVER
        self.next_processing: int = NEVER
        self.table = MemoryTable()
        state.attach("timers", self.table, key=itemgetter(0))
        self.queues: tuple[list[Queued], list[Queued]] = ([], [])
        self.stale = [0, 0]
        self.number = 0
        self._alarm: Cancellable | None = None
        self._alarm_for: int = NEVER
        entry: Entry
        for entry, number in self.table.items():
            key, namespace, time, domain = entry
            self.queues[domain].append((time, key_group(key, self.groups), number, namespace, key))
            self.number = max(self.number, number)
        for queue in self.queues:
            heapify(queue)
        self._look(EVENT)
        self._look(PROCESSING)
        self.arm()

    def __len__(self) -> int:
        return len(self.queues[EVENT]) + len(self.queues[PROCESSING]) - sum(self.stale)

    def set_event(self, key: Any, time: int, namespace: str | None = None) -> None:
        """Set a timer of event time; one that is set already stays as it is.

        Raises:
            StateError: the time is not a whole number, or the stream has no event time.
        """
        if not self.event_time:
            raise StateError(
                self.stage.operators[0].name,
                "timers",
                "a timer of event time was set, but the records have no timestamps; call assign_timestamps(...) on the stream before",
            )
        if self._set((key, namespace or "", time, EVENT)) and time < self.next_event:
            self.next_event = time

    def set_processing(self, key: Any, time: int, namespace: str | None = None) -> None:
        """Set a timer of processing time (milliseconds since the epoch); one that is set already stays as it is.

        Raises:
            StateError: the time is not a whole number.
        """
        if self._set((key, namespace or "", time, PROCESSING)) and time < self.next_processing:
            self.next_processing = time
            self.arm()

    def delete_event(self, key: Any, time: int, namespace: str | None = None) -> None:
        """Call one off; without effect if it is not set."""
        self._delete((key, namespace or "", time, EVENT))

    def delete_processing(self, key: Any, time: int, namespace: str | None = None) -> None:
        """Call one off; without effect if it is not set."""
        self._delete((key, namespace or "", time, PROCESSING))

    def pop_event(self, watermark: int) -> Timer | None:
        """Take the next timer that is due when event time has reached `watermark`, or None."""
        timer = self._pop(EVENT, watermark)
        self._look(EVENT)
        return timer

    def pop_processing(self, now: int) -> Timer | None:
        """Take the next timer that is due when the clock shows `now`, or None."""
        timer = self._pop(PROCESSING, now)
        self._look(PROCESSING)
        return timer

    def arm(self) -> None:
        """See to it that the stage's ``alarm`` is called when the next timer of processing time may be due."""
        due = self.next_processing
        if self._alarm is not None:
            if due == self._alarm_for:
                return
            self._alarm.cancel()
            self._alarm = None
        if due < NEVER:
            seconds = (due - self.clock.now_ms()) / 1000
            self._alarm_for = due
            self._alarm = self.stage.setting.alarm(self.stage, min(max(seconds, 0.0), LONGEST_ALARM))

    def rung(self) -> None:
        """The stage's ``alarm`` has been called: the next `arm` sets a new one."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def close(self) -> None:
        """Let no alarm ring any more."""
        self.rung()

    def _set(self, entry: Entry) -> bool:
        key, namespace, time, domain = entry
        if time.__class__ is not int:
            raise StateError(
                self.stage.operators[0].name, "timers", f"a timer's time is a whole number of milliseconds since the epoch, not {time!r}"
            )
        if self.table.get(entry) is not None:
            return False
        group = key_group(key, self.groups)
        self.number += 1
        self.table.put(entry, self.number)
        heappush(self.queues[domain], (time, group, self.number, namespace, key))
        return True

    def _delete(self, entry: Entry) -> None:
        if self.table.get(entry) is None:
            return
        self.table.delete(entry)
        domain = entry[3]
        self.stale[domain] += 1
        queue = self.queues[domain]
        if self.stale[domain] > MANY and self.stale[domain] * 2 > len(queue):
            queue[:] = [queued for queued in queue if self._is_set(queued, domain)]
            heapify(queue)
            self.stale[domain] = 0

    def _is_set(self, queued: Queued, domain: int) -> bool:
        time, _, number, namespace, key = queued
        return bool(self.table.get((key, namespace, time, domain)) == number)

    def _pop(self, domain: int, limit: int) -> Timer | None:
        queue = self.queues[domain]
        while queue and queue[0][0] <= limit:
            queued = heappop(queue)
            if not self._is_set(queued, domain):
                self.stale[domain] -= 1
                continue
            time, _, _, namespace, key = queued
            self.table.delete((key, namespace, time, domain))
            return Timer(key, time, namespace, DOMAINS[domain])
        return None

    def _look(self, domain: int) -> None:
        queue = self.queues[domain]
        due = queue[0][0] if queue else NEVER
        if domain == EVENT:
            self.next_event = due
        else:
            self.next_processing = due


class KeyTimers:
    """What a user's function sees of the timers: those of the key in work."""

    __slots__ = ("_service",)

    def __init__(self, service: TimerService) -> None:
        self._service = service

    def now(self) -> int:
        """Processing time: milliseconds since the epoch on the job's clock."""
        return self._service.clock.now_ms()

    def event_time(self, time: int, namespace: str | None = None) -> None:
        """Set a timer of event time for the present key; see `sage_actor.dataflow.process_functions.Timers`."""
        self._service.set_event(self._service.key, time, namespace)

    def processing_time(self, time: int, namespace: str | None = None) -> None:
        """Set a timer of processing time for the present key."""
        self._service.set_processing(self._service.key, time, namespace)

    def delete_event_time(self, time: int, namespace: str | None = None) -> None:
        """Call off a timer of event time of the present key."""
        self._service.delete_event(self._service.key, time, namespace)

    def delete_processing_time(self, time: int, namespace: str | None = None) -> None:
        """Call off a timer of processing time of the present key."""
        self._service.delete_processing(self._service.key, time, namespace)
