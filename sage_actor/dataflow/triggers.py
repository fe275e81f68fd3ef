"""Triggers: when a window gives a result, and whether it then forgets what it holds.

Windows have one already (results when their time is over, and again for each late record that is still allowed); give another with
``windowed.trigger(...)``. A window is removed, whatever its trigger says, when its time and the allowed lateness are over.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sage_actor.dataflow.watermarks import milliseconds
from sage_actor.dataflow.windows import TimeDomain, TimeSpan
from sage_actor.errors import GraphError

__all__ = [
    "Continuous",
    "CountTrigger",
    "EventTime",
    "ProcessingTime",
    "Purging",
    "Trigger",
    "TriggerAction",
    "TriggerBase",
    "TriggerContext",
]


class TriggerAction(enum.Flag):
    """What to do with a window now."""

    CONTINUE = 0
    FIRE = 1
    PURGE = 2
    FIRE_AND_PURGE = 3


class TriggerContext(Protocol):
    """What a trigger may ask for, about one window of one key."""

    @property
    def window(self) -> TimeSpan:
        """The window, as far as it goes now (sessions grow)."""
        ...

    @property
    def watermark(self) -> int:
        """How far event time (or, in windows of processing time, the clock) has come."""
        ...

    @property
    def now_ms(self) -> int:
        """The clock's time, in milliseconds since the epoch."""
        ...

    @property
    def records(self) -> int:
        """How many records the window holds, the present one included."""
        ...

    @property
    def memory(self) -> dict[str, Any]:
        """The trigger's own notes on this window: saved with it, and given to `Trigger.merge` when sessions become one."""
        ...

    def at_event_time(self, timestamp: int) -> None:
        """Call `Trigger.on_event_time` once the watermark has reached this. Asking twice is asking once."""
        ...

    def at_processing_time(self, timestamp: int) -> None:
        """Call `Trigger.on_processing_time` once the clock has reached this. Asking twice is asking once."""
        ...


class Trigger(Protocol):
    """Decides about windows. One instance serves all windows of a task; what belongs to one window goes into ``context.memory``."""

    def on_record(self, value: Any, timestamp: int, context: TriggerContext) -> TriggerAction:
        """A record was added."""
        ...

    def on_event_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """The watermark has reached a time that was asked for."""
        ...

    def on_processing_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """The clock has reached a time that was asked for."""
        ...

    def merge(self, memories: Sequence[dict[str, Any]], context: TriggerContext) -> None:
        """Sessions have become one: fill ``context.memory``, which is empty, from theirs, and ask for times again, as theirs are off."""
        ...


class TriggerBase:
    """A trigger that never fires. Derive from it and override what matters."""

    def on_record(self, value: Any, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Nothing."""
        return TriggerAction.CONTINUE

    def on_event_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Nothing."""
        return TriggerAction.CONTINUE

    def on_processing_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Nothing."""
        return TriggerAction.CONTINUE

    def merge(self, memories: Sequence[dict[str, Any]], context: TriggerContext) -> None:
        """Keep what the sessions noted; of equal names the last one's."""
        for memory in memories:
            context.memory.update(memory)


def ask_for_end(context: TriggerContext) -> None:
    """Ask for the window's last millisecond, once. A session may have grown by then: it is asked for again, not with each record."""
    if not context.memory.get("end"):
        context.memory["end"] = True
        context.at_event_time(context.window.last)


def at_end(timestamp: int, context: TriggerContext) -> TriggerAction:
    """What to do at a time that may be the window's last millisecond."""
    if timestamp < context.window.last:
        context.at_event_time(context.window.last)
        return TriggerAction.CONTINUE
    context.memory.pop("end", None)
    return TriggerAction.FIRE


@dataclass(frozen=True)
class EventTime(TriggerBase):
    """When the watermark reaches the window's last millisecond, and at once for each record after that (F20, F21)."""

    def on_record(self, value: Any, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Fire at once if the window's time is over."""
        if context.window.last <= context.watermark:
            return TriggerAction.FIRE
        ask_for_end(context)
        return TriggerAction.CONTINUE

    def on_event_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Fire if this is the end of the window, and not of what it was before it grew."""
        return at_end(timestamp, context)

    def merge(self, memories: Sequence[dict[str, Any]], context: TriggerContext) -> None:
        """Ask for the end of the whole."""
        if context.window.last > context.watermark:
            ask_for_end(context)


@dataclass(frozen=True)
class ProcessingTime(TriggerBase):
    """When the clock reaches the end of the window."""

    def on_record(self, value: Any, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Fire at once if the clock is past it."""
        if context.window.end <= context.now_ms:
            return TriggerAction.FIRE
        context.at_processing_time(context.window.end)
        return TriggerAction.CONTINUE

    def on_processing_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Fire if this is the end of the window, and not of what it was before it grew."""
        return TriggerAction.FIRE if timestamp == context.window.end else TriggerAction.CONTINUE

    def merge(self, memories: Sequence[dict[str, Any]], context: TriggerContext) -> None:
        """Ask for the end of the whole."""
        context.at_processing_time(context.window.end)


@dataclass(frozen=True)
class CountTrigger(TriggerBase):
    """Each time so many more records have come. What is left over when the window ends gives no result."""

    size: int

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise GraphError(f"CountTrigger: a whole number of at least 1, not {self.size!r}")

    def on_record(self, value: Any, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Count."""
        count = context.memory.get("count", 0) + 1
        if count < self.size:
            context.memory["count"] = count
            return TriggerAction.CONTINUE
        context.memory.pop("count", None)
        return TriggerAction.FIRE

    def merge(self, memories: Sequence[dict[str, Any]], context: TriggerContext) -> None:
        """The counts add up; a sum that is enough fires with the next record."""
        context.memory["count"] = sum(memory.get("count", 0) for memory in memories)


@dataclass(frozen=True)
class Continuous(TriggerBase):
    """Every so often while the window is open, with what it holds by then, and at its end.

    Args:
        every: "1s", or milliseconds.
        time: "event", or "processing" for the clock of the machine. The end is that of the window's own kind of time.
    """

    every: str | int
    time: TimeDomain = "event"

    def __post_init__(self) -> None:
        if milliseconds(self.every, "Continuous") < 1:
            raise GraphError(f"Continuous: a duration of at least 1 ms, not {self.every!r}")
        if self.time not in ("event", "processing"):
            raise GraphError(f'Continuous: time is "event" or "processing", not {self.time!r}')

    def on_record(self, value: Any, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Ask for the next multiple."""
        if context.window.last <= context.watermark:
            return TriggerAction.FIRE
        ask_for_end(context)
        self._ask(timestamp, context)
        return TriggerAction.CONTINUE

    def _ask(self, timestamp: int, context: TriggerContext) -> None:
        if "due" in context.memory:
            return
        step = milliseconds(self.every, "Continuous")
        if self.time == "processing":
            due = context.now_ms - context.now_ms % step + step
            context.at_processing_time(due)
        else:
            # Never behind the watermark: a long silence must not be made good for, multiple by multiple.
            now = max(timestamp, context.watermark)
            due = now - now % step + step
            if due >= context.window.last:
                return
            context.at_event_time(due)
        context.memory["due"] = due

    def on_event_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Fire; the next record asks for the next multiple."""
        if self.time == "event" and timestamp == context.memory.get("due"):
            del context.memory["due"]
            return TriggerAction.FIRE
        return at_end(timestamp, context)

    def on_processing_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """Fire; the next record asks for the next multiple."""
        if timestamp != context.memory.get("due"):
            return TriggerAction.CONTINUE
        del context.memory["due"]
        return TriggerAction.FIRE

    def merge(self, memories: Sequence[dict[str, Any]], context: TriggerContext) -> None:
        """The next record asks for the next multiple."""
        if context.window.last > context.watermark:
            ask_for_end(context)


@dataclass(frozen=True)
class Purging(TriggerBase):
    """Another trigger, and each result empties the window: results hold what came since the last one."""

    trigger: Trigger

    def on_record(self, value: Any, timestamp: int, context: TriggerContext) -> TriggerAction:
        """As the other one says."""
        return purged(self.trigger.on_record(value, timestamp, context))

    def on_event_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """As the other one says."""
        return purged(self.trigger.on_event_time(timestamp, context))

    def on_processing_time(self, timestamp: int, context: TriggerContext) -> TriggerAction:
        """As the other one says."""
        return purged(self.trigger.on_processing_time(timestamp, context))

    def merge(self, memories: Sequence[dict[str, Any]], context: TriggerContext) -> None:
        """As the other one does."""
        self.trigger.merge(memories, context)


def purged(action: TriggerAction) -> TriggerAction:
    """The action, with a result also emptying the window."""
    return action | TriggerAction.PURGE if TriggerAction.FIRE in action else action
