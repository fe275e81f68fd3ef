"""One window of one key, in memory and in a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sage_actor.dataflow.watermarks import MIN_WATERMARK
from sage_actor.state.pickling import dump, is_unchanging, load
from sage_actor.state.store import DELETED, SLICE, Entries

__all__ = ["ON_TRIGGER", "OVER", "Content", "freeze_content", "frozen_slices", "thaw_content"]

ON_TRIGGER: Final = 0
"""A time that the window's trigger asked for; comes before the removal that is due at the same time."""
OVER: Final = 1
"""The window is to be removed."""


class Content:
    """A window: what it holds, and what its trigger noted and asked for. `id` names it for good among those of its key."""

    __slots__ = ("accumulator", "alarms", "end", "id", "key", "latest", "live", "memory", "records", "saved", "start", "timers")

    def __init__(self, key: Any, number: int, start: int, end: int) -> None:
        self.key = key
        self.id = number
        self.start = start
        self.end = end
        self.accumulator: Any = None
        self.records = 0
        self.latest = MIN_WATERMARK
        self.memory: dict[str, Any] = {}
        self.timers: set[int] = set()
        self.alarms: set[int] = set()
        self.live = False
        self.saved = False


def freeze_content(content: Content, listed: bool) -> tuple[Any, Any]:
    """The window as an entry of a snapshot: unaffected by what happens to it from now on."""
    content.saved = True
    accumulator = content.accumulator
    pickled = False
    if listed:
        accumulator = None if accumulator is None else accumulator[:]
    elif not is_unchanging(accumulator):
        accumulator, pickled = dump(accumulator), True
    notes = dump(content.memory) if content.memory else b""
    times = (tuple(content.timers), tuple(content.alarms))
    value = (content.start, content.end, pickled, accumulator, content.records, content.latest, notes, times)
    return (content.key, content.id), value


def thaw_content(key: Any, number: int, value: Any) -> Content:
    """The window of an entry."""
    start, end, pickled, accumulator, records, latest, notes, (timers, alarms) = value
    content = Content(key, number, start, end)
    content.accumulator = load(accumulator) if pickled else accumulator
    content.records, content.latest = records, latest
    content.memory = load(notes) if notes else {}
    content.timers, content.alarms = set(timers), set(alarms)
    content.saved = True
    return content


def frozen_slices(removed: list[Any], entries: Entries) -> Iterator[Entries]:
    """Removed entries first, then the others, in slices."""
    whole: Entries = [(key, DELETED) for key in removed]
    whole += entries
    for start in range(0, len(whole), SLICE):
        yield whole[start : start + SLICE]
